"""Sentences on what a bundle's int8 file costs and gains, as far as its figures bear them."""

import scipy

from igkd_hpo.bundle.contents import INT8, ONNX, Figures, Quantisation, Record
from igkd_hpo.words import milliseconds, percent

_CHANCE = 0.05


def int8_in_words(record: Record) -> list[str]:
    """Say how the int8 file was made, whether it answers worse than float beyond chance, and whether it is slower."""
    said = [*_choice(record.quantisations), *_loss(record.int8), *_slowness(record)]
    return [f"int8: {sentence}" for sentence in said]


def chance_of(lost: int, gained: int) -> float:
    """Return how likely so uneven a split is where neither of two networks is better: McNemar's exact test.

    Args:
        lost: images that the first gets right and the second wrong.
        gained: the other way round.
    """
    if lost + gained == 0:
        return 1.0
    return float(scipy.stats.binomtest(lost, lost + gained).pvalue)


def _choice(tried: tuple[Quantisation, ...]) -> list[str]:
    kept = next((one for one in tried if one.kept), None)
    if kept is None:
        return []
    others = ", ".join(f"{percent(one.agreement)} {_name(one)}" for one in tried if not one.kept)
    made = f"weights {kept.weights}, activations by {kept.activations} of {kept.calibrated_on} training images"
    return [f"{made}; on {kept.images} others {percent(kept.agreement)} of its answers are float's (others: {others})"]


def _name(way: Quantisation) -> str:
    return f"{way.weights} with {way.activations}"


def _loss(int8: Figures) -> list[str]:
    images, lost, gained = int8.validation_images, int8.lost, int8.gained
    if images is None or lost is None or gained is None:
        return []
    if not lost + gained:
        return [f"right and wrong on the same of {images} validation images as float"]
    counted = f"of {images} validation images {lost} that float gets right are wrong, and {gained} the other way round"
    chance = chance_of(lost, gained)
    if chance >= _CHANCE:
        return [f"{counted}, which may be chance (p = {chance:.2f})"]
    if gained > lost:
        return [f"{counted}, which is better than float beyond chance (p = {chance:.2g})"]
    return [f"{counted}, which is a loss beyond chance (p = {chance:.2g}): use {ONNX}"]


def _slowness(record: Record) -> list[str]:
    float_ms, int8_ms = record.onnx.latency_ms, record.int8.latency_ms
    if int8_ms <= float_ms:
        return []
    compared = f"slower than float on the CPU that made it, {milliseconds(int8_ms)} against {milliseconds(float_ms)}"
    return [f"{compared}: use {ONNX} unless the device runs {INT8} faster"]
