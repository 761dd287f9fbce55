"""Model card: all that a person who gets the folder, and nothing else, has to know."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from igkd_hpo.bundle import contents
from igkd_hpo.bundle.contents import Figures, Record
from igkd_hpo.bundle.sentences import int8_in_words
from igkd_hpo.bundle.usage import building_code, onnx_code, torch_code
from igkd_hpo.config.networks import TeacherConfig
from igkd_hpo.config.study import Study
from igkd_hpo.confirmation.choice import confirmed_in_words
from igkd_hpo.distillation.architectures import find_architecture
from igkd_hpo.distillation.metrics import METRICS, measured
from igkd_hpo.distillation.recipe import own_knobs_of
from igkd_hpo.escaping import code, markdown
from igkd_hpo.image_fit import Fit
from igkd_hpo.search.best import BestTrial, caution
from igkd_hpo.words import byte_size, milliseconds, multiply_adds, parameters, percent, times_smaller

if TYPE_CHECKING:
    from igkd_hpo.assets.store import Json
    from igkd_hpo.assets.study_assets import AssetSummary
    from igkd_hpo.assets.weights import Weights


def model_card(
    record: Record,
    exported: Study,
    best: BestTrial,
    made: "AssetSummary",
    *,
    class_names: Sequence[str],
    weights: str,
    began_with: "Weights | None",
    teacher_facts: "Json",
    validation_accuracy: float,
    reasons: Sequence[str] = (),
) -> str:
    """Write the card as Markdown.

    Args:
        exported: the study file in the bundle.
        weights: where they come from, in words.
        began_with: those that the student had before it was trained; None where they were random.
        teacher_facts: of the teacher's asset.
        validation_accuracy: of the network in PyTorch, a fraction.
        reasons: sentences on what of the teacher's reasons it kept; none where that was not measured.
    """
    height, width = made.image_size
    dataset, teacher = exported.dataset, exported.teacher
    root = f" from {code(dataset.root)}" if dataset.root else ""
    origin = f"trained for {teacher.epochs} epochs" if teacher.is_trained_here else "its own weights"
    if teacher_facts.get("weights"):
        told = _weights_in_words(teacher_facts["weights"], teacher_facts.get("licence"), teacher_facts.get("url"))
        origin += f", from the weights {told}" if teacher.is_trained_here else f", {told}"
    origin = ", ".join(code(path) for path in teacher.checkpoints) or origin
    settings = "\n".join(f"| {name} | {markdown(str(value))} |" for name, value in best.hyperparameters.items())
    versions = "\n".join(f"| {name} | {markdown(value or 'not known')} |" for name, value in record.versions.items())
    validated = "their own split" if made.own_validation else f"{dataset.validation_fraction:g} of training"
    names = ", ".join(markdown(name) for name in class_names)
    macs, factor = best.cost["macs"], best.cost["compression_factor"]
    computed = f", {multiply_adds(macs)} for one image" if macs else ""
    execution = exported.provenance.execution if exported.provenance else None
    where = (
        f", on {markdown(execution.device)} with torch {markdown(execution.torch)}, {execution.precision}"
        if execution
        else ""
    )
    its_teacher = "its teacher" if teacher.n_networks == 1 else f"one of its {teacher.n_networks} teachers"
    said = "\n".join(f"- {sentence}" for sentence in int8_in_words(record))
    held = best.cost["peak_ram_kb"]
    holding = f", at most {held:,.1f} KiB of activations at once in int8" if held else ""
    named = "" if best.metric == "accuracy" else f", {METRICS[best.metric]}"
    compared = f", {times_smaller(factor)} {its_teacher}" if factor else ""
    pruned = _pruned(best.cost.get("nonzero_parameters"))
    return f"""# {best.study}, trial {best.number}

A small image classifier: {_called(best)}, trained by igkd-hpo {_method(best)}.
{parameters(best.cost["parameters"] or 0)}{computed}{holding}{compared}.{pruned}

- architecture: {_architecture(best)}, in the form that is shipped: without what only training needs
- weights before its training: {_beginning(best, began_with)}

## Use

`{contents.ONNX}` (float32) and `{contents.INT8}` (int8), ONNX opset {record.opset}:

- input `images`: uint8, (N, 3, {height}, {width}), RGB, 0 to 255, any N. Scaling and normalisation are inside.
- output `logits`: float32, (N, {len(class_names)}); softmax makes probabilities of them. In this order: {names}.

`igkd-hpo predict` shows an image to the float file. So does this, which needs no igkd-hpo:

```python
{onnx_code(dataset.fit)}
```

`{contents.WEIGHTS}` holds the same weights for PyTorch. Its metadata hold mean and deviation of its \
input, image size, classes and architecture.{_in_torch(best, class_names, made.image_size, dataset.fit)}

## How good it is

{measured(validation_accuracy, best.metric)} on {made.n_validation} validation images. {_trust(best)}

One more training: {percent(record.expected.low)} to {measured(record.expected.high, best.metric)} is expected \
on validation: {record.expected.basis}.

| | validation{named} | like PyTorch | logits differ by at most | latency | size |
| --- | --- | --- | --- | --- | --- |
| `{contents.ONNX}` | {_figures(record.onnx)} |
| `{contents.INT8}` | {_figures(record.int8)} |

Like PyTorch: the share of {record.onnx.test_images} test images with the same answer; their labels were not read.
Latency: median and 95th percentile for one image, onnxruntime, one thread of the CPU that made this file, warmed up;
the device has its own. int8 is static quantisation, calibrated on training images.

{said}
{_reasons(reasons)}
## Data and teacher

- images: {dataset.name}{root}; {made.n_train} for training, {made.n_validation} for validation \
({validated}), {record.onnx.test_images} for test; split seed {dataset.split_seed}{_fit(dataset.fit)}
- SHA-256 of images, labels and split: `{made.dataset_sha256}`
- teacher: {markdown(teacher.architecture)}, {origin}; {parameters(made.teacher_parameters)}\
{"" if teacher.n_networks == 1 else " each"}, \
{measured(made.teacher_accuracy, best.metric)} on validation{_several(teacher)}
- SHA-256 of the teacher's weights: `{made.teacher_sha256}`

## Training

{exported.training.epochs} epochs, {exported.training.optimizer}, seed {best.seed}{where}. Weights: {weights}.
`igkd-hpo train {contents.STUDY}` does it again, `igkd-hpo verify` compares.

| hyperparameter | value |
| --- | --- |
{settings}

## Made with

| | |
| --- | --- |
{versions}

The SHA-256 of every file is in `{contents.RECORD}`. They show a damaged copy; they do not show who made it.
"""


def _reasons(sentences: Sequence[str]) -> str:
    """Return a section of its own, or nothing."""
    if not sentences:
        return ""
    told = "\n".join(f"- {markdown(sentence)}" for sentence in sentences)
    return f"""
## What it looks at

Integrated-Gradients maps of the confirmed seeds beside the teacher's; this file holds one of those seeds.

{told}
"""


def _called(best: BestTrial) -> str:
    name = str(best.hyperparameters["architecture"])
    return find_architecture(name).called or code(name)


def _architecture(best: BestTrial) -> str:
    knobs = own_knobs_of(best.hyperparameters).items()
    return ", ".join([code(str(best.hyperparameters["architecture"])), *(f"{name} {value:g}" for name, value in knobs)])


def _beginning(best: BestTrial, weights: "Weights | None") -> str:
    if weights is not None:
        return _weights_in_words(weights.source, weights.licence, weights.url)
    taken = best.hyperparameters["init"] == "teacher_prefix"
    return "the teacher's in its first blocks, random in the others" if taken else "random"


def _weights_in_words(source: str, licence: str | None, url: str | None) -> str:
    """Name published weights, or a file, with the licence that others have to keep."""
    terms = f"licence {markdown(licence)}" if licence else "licence not known: ask who made them"
    return ", ".join([code(source), terms, *([code(url)] if url else [])])


def _in_torch(best: BestTrial, class_names: Sequence[str], image_size: tuple[int, int], fit: Fit) -> str:
    """Return a paragraph and plain code; the paragraph alone where the architecture has no code."""
    build = building_code(best.hyperparameters, len(class_names), image_size)
    return "" if build is None else f" So it is used there:\n\n```python\n{torch_code(build, fit)}\n```"


def _fit(fit: Fit) -> str:
    return {"crop": "; squares from their middle", "pad": "; padded to squares", "squeeze": ""}[fit]


def _pruned(left: int | None) -> str:
    if left is None:
        return ""
    return (
        f"\n{left:,} of these parameters are not 0. The zeros are scattered, so that dense code, as in these files, is "
        "neither faster nor smaller for them; what stores or computes sparse weights can be."
    )


def _several(teacher: TeacherConfig) -> str:
    if teacher.folds:
        return f" (the mean of {teacher.folds} teachers, each trained without one part of the images)"
    return f" ({teacher.members} teachers together, their probabilities averaged)" if teacher.members > 1 else ""


def _trust(best: BestTrial) -> str:
    return caution(best) if best.confirmed is None else f"Its configuration is {confirmed_in_words(best.confirmed)}."


def _method(best: BestTrial) -> str:
    parts = {"alpha": "knowledge distillation", "overlay_probability": "overlays of Integrated Gradients"}
    used = " and ".join(name for key, name in parts.items() if best.hyperparameters[key])
    return f"with {used}" if used else "on the labels alone"


def _figures(figures: Figures) -> str:
    return (
        f"{percent(figures.validation_accuracy)} | {percent(figures.test_agreement)} | "
        f"{figures.largest_logit_difference:.1e} | {milliseconds(figures.latency_ms)}, "
        f"{milliseconds(figures.latency_ms_p95)} | "
        f"{byte_size(figures.bytes)}"
    )
