"""`igkd-hpo export`: the best configuration as a study file without ranges, and as a bundle for a device."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from igkd_hpo.cli.arguments import AllowImport, ExistingStudy, Storage, UnderLimits, print_line, print_text
from igkd_hpo.config.cost_limit import parse_under
from igkd_hpo.errors import UsageError
from igkd_hpo.words import byte_size, milliseconds, percent

if TYPE_CHECKING:
    from igkd_hpo.bundle.contents import Figures
    from igkd_hpo.bundle.making import Bundle


def export(
    study: ExistingStudy = None,
    output: Annotated[
        Path | None, Option("-o", "--output", help="Where to write the study file.", show_default="best.yaml")
    ] = None,
    bundle: Annotated[
        Path | None,
        Option("--bundle", metavar="DIR", help="A new folder for study file, weights, ONNX and model card."),
    ] = None,
    opset: Annotated[
        int | None, Option("--opset", help="Version of ONNX's operators in the bundle.", show_default="20")
    ] = None,
    under: UnderLimits = None,
    storage: Storage = None,
    allow_import: AllowImport = None,
) -> None:
    """Write the best configuration to a file that train, validate and launch take as it is.

    Examples:
        igkd-hpo export digits -o best.yaml
        igkd-hpo export digits -o small.yaml --under parameters=200k
        igkd-hpo export digits --bundle digits-bundle
    """
    from igkd_hpo.api.study import open_study
    from igkd_hpo.distillation.heap import keep_freed_memory

    if opset is not None and bundle is None:
        raise UsageError(f"--opset {opset} is of the ONNX files of a bundle; add --bundle DIR")

    limits = parse_under(under or ())
    opened = open_study(study, storage=storage)
    if bundle is not None:
        keep_freed_memory()
        made = opened.export_bundle(bundle, under=limits, opset=opset, allow_import=allow_import or ())
        print_line(f"{bundle}: {made.about}", err=True)
        print_text(_measurements(made))
        if output is None:
            return
    written = opened.export(output or "best.yaml", under=limits)
    print_line(f"{written.path}{' (replaced)' if written.replaced else ''}: {written.about}", err=True)
    for remark in written.remarks:
        print_line(remark, err=True)


def _measurements(made: "Bundle") -> str:
    """Tabulate the files: accuracy and latency beside each other, because int8 may cost either."""

    def row(name: str, figures: "Figures") -> str:
        return (
            f"{name:<16}{percent(figures.validation_accuracy):>11}{percent(figures.test_agreement):>16}"
            f"{figures.largest_logit_difference:>18.1e}{milliseconds(figures.latency_ms):>15}{byte_size(figures.bytes):>12}"
        )

    from igkd_hpo.bundle.sentences import int8_in_words
    from igkd_hpo.distillation.metrics import METRICS

    record = made.record
    images = f"{record.onnx.test_images} test images"
    latency = "latency: median of one image, onnxruntime, one CPU thread of this machine"
    lines = [
        f"weights: {made.weights}",
        f"{'':<16}{'validation':>11}{'like PyTorch':>16}{'logits differ by':>18}{'latency':>15}{'size':>12}",
        f"{'PyTorch':<16}{percent(made.validation_accuracy):>11}",
        row("model.onnx", record.onnx),
        row("model.int8.onnx", record.int8),
        f"like PyTorch: the same answer, on {images}, whose labels were not read; {latency}",
    ]
    if record.expected.metric != "accuracy":
        lines.append(f"validation: {METRICS[record.expected.metric]}")
    return "\n".join([*lines, *int8_in_words(record)])
