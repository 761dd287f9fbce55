"""`igkd-hpo export`: the best configuration as a study file without ranges, and as a bundle for a device."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from igkd_hpo.cli.arguments import AllowImport, ExistingStudy, Storage, existing_study
from igkd_hpo.errors import UsageError
from igkd_hpo.settings import Settings

if TYPE_CHECKING:
    from igkd_hpo.results.bundle.contents import Figures
    from igkd_hpo.results.bundle.making import Bundle


def export(
    study: ExistingStudy = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write the study file.", show_default="best.yaml")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", metavar="DIR", help="A new folder for study file, weights, ONNX and model card."),
    ] = None,
    storage: Storage = None,
    allow_import: AllowImport = None,
) -> None:
    """Write the best configuration to a file that train, validate and launch take as it is.

    Example: igkd-hpo export digits -o best.yaml
    """
    from igkd_hpo.config.writing import to_yaml, write_text
    from igkd_hpo.results.confirm.choice import best_or_confirmed, described
    from igkd_hpo.results.export import exported_study

    settings = Settings.resolve(storage_url=storage, allow_import=tuple(allow_import or ()))
    found, best = best_or_confirmed(existing_study(study, settings))
    about = described(found, best)
    if bundle is not None:
        from igkd_hpo.cli.progress import make_progress
        from igkd_hpo.results.bundle.making import make_bundle

        with make_progress() as progress:
            made = make_bundle(found, best, bundle, settings, progress)
        typer.echo(f"{bundle}: {about}", err=True)
        typer.echo(_measured(made))
        if output is None:
            return
    output = output or Path("best.yaml")
    replaced = " (replaced)" if output.exists() else ""
    try:
        write_text(output, to_yaml(exported_study(found, best)))
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}; give another place with -o") from error
    typer.echo(f"{output}{replaced}: {about}", err=True)


def _measured(made: "Bundle") -> str:
    """The files as a table: accuracy and latency beside each other, because int8 may cost either."""

    def row(name: str, figures: "Figures") -> str:
        return (
            f"{name:<16}{figures.validation_accuracy:>11.2%}{figures.test_agreement:>16.2%}"
            f"{figures.largest_logit_difference:>18.1e}{figures.latency_ms:>12.3f} ms{figures.bytes / 1024:>9.0f} kB"
        )

    record = made.record
    how = (
        f"like PyTorch: the same answer, on {record.onnx.test_images} test images, whose labels were not read; "
        "latency: median of one image, onnxruntime, one CPU thread of this machine"
    )
    lines = [
        f"weights: {made.weights}",
        f"{'':<16}{'validation':>11}{'like PyTorch':>16}{'logits differ by':>18}{'latency':>15}{'size':>12}",
        f"{'PyTorch':<16}{made.validation_accuracy:>11.2%}",
        row("model.onnx", record.onnx),
        row("model.int8.onnx", record.int8),
        how,
    ]
    lost = made.validation_accuracy - record.int8.validation_accuracy
    if lost > 0.01:
        lines.append(f"int8 costs {100 * lost:.1f} points of accuracy here: use model.onnx, or quantise it otherwise")
    if record.int8.latency_ms > record.onnx.latency_ms:
        lines.append("int8 is no faster on this machine; only the device can tell")
    return "\n".join(lines)
