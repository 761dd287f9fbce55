"""The two small pictures that a trial leaves in the dashboard: its learning curve, and what its overlays look like.

Drawn with Pillow: a curve takes 20 ms and 4 kB, so that thousands of trials stay cheap, where matplotlib would cost
every worker 0.4 s, 30 MB and a font cache.
"""

import math
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from igkd_hpo.distillation.metrics import METRICS, Metric

if TYPE_CHECKING:
    from PIL.Image import Image

Curve = Sequence[tuple[int, float]]

INK, GRID, BLUE = "#222222", "#e6e6e6", "#1f5fb4"

_TILE = 32  # pixels of a tile that are kept: 15 tiles of photographs and noisy maps in 64 colours are 14 kB
_SCALE = 2  # each of them is shown this many times as large
_N_COLOURS = 64
_MAX_COLUMNS = 5
_GAP = 4
_LABEL_WIDTH = 62


def draw_strip(images: npt.NDArray[Any], maps: npt.NDArray[Any], overlays: npt.NDArray[Any]) -> bytes:
    """Draw a PNG with one column per image (the first five) and three rows: image, attribution map, overlay.

    Args:
        images: (N, 3, H, W), uint8, or floats in [0, 1]; N of at least 1.
        maps: (N, H, W), the same two forms.
        overlays: (N, 3, H, W), the same two forms.
    """
    from PIL import Image, ImageDraw

    columns = min(len(images), _MAX_COLUMNS)
    side = _TILE * _SCALE
    pitch = side + _GAP
    strip = Image.new("RGB", (_LABEL_WIDTH + columns * pitch, _GAP + 3 * pitch), "white")
    draw = ImageDraw.Draw(strip)
    for row, (label, tiles) in enumerate((("image", images), ("map", maps), ("overlay", overlays))):
        top = _GAP + row * pitch
        draw.text((_LABEL_WIDTH - 8, top + side // 2), label, fill=INK, anchor="rm", font_size=13)
        for column in range(columns):
            strip.paste(_tile(tiles[column], side), (_LABEL_WIDTH + column * pitch, top))
    return _png(strip)


def draw_curve(metrics: Curve, title: str, *, epochs: int, metric: Metric = "accuracy") -> bytes:
    """Draw a PNG of a trial's metric on validation by epoch.

    Args:
        metrics: (epoch, value) pairs in order, epochs from 1, values in [0, 1]; may be empty.
        title: one short line above the curve.
        epochs: how long a trial that is not pruned runs: the right end of the axis.
    """
    from PIL import Image, ImageDraw

    width, height = 440, 250
    left, right, top, bottom = 70, width - 14, 34, height - 40
    fine = 4  # Pillow draws lines without anti-aliasing; the lines are drawn this much larger and scaled down
    low, high, ticks = _percent_axis([accuracy for _, accuracy in metrics])
    last = max([epochs, *(epoch for epoch, _ in metrics)])

    def place(epoch: float, accuracy: float) -> tuple[float, float]:
        x = (left + right) / 2 if last == 1 else left + (right - left) * (epoch - 1) / (last - 1)
        return x, bottom - (bottom - top) * (accuracy - low) / (high - low)

    lines = Image.new("RGB", (width * fine, height * fine), "white")
    pen = ImageDraw.Draw(lines)
    for tick in ticks:
        y = place(1, tick)[1] * fine
        pen.line([(left * fine, y), (right * fine, y)], fill=GRID, width=fine)
    points = [(x * fine, y * fine) for x, y in (place(epoch, accuracy) for epoch, accuracy in metrics)]
    if points:
        pen.line(points, fill=BLUE, width=round(2.2 * fine), joint="curve")
        pen.circle(points[-1], 3 * fine, fill=BLUE)
    picture = lines.resize((width, height), Image.Resampling.BOX)
    side = Image.new("RGB", (bottom - top, 16), "white")
    ImageDraw.Draw(side).text((side.width / 2, 8), f"validation {METRICS[metric]}", fill=INK, anchor="mm", font_size=12)
    picture.paste(side.rotate(90, expand=True), (4, top))

    draw = ImageDraw.Draw(picture)
    draw.text((left, 10), title, fill=INK, font_size=14)
    for tick in ticks:
        draw.text((left - 8, place(1, tick)[1]), f"{tick * 100:g} %", fill=INK, anchor="rm", font_size=12)
    for epoch in _epoch_ticks(last):
        draw.text((place(epoch, low)[0], bottom + 8), str(epoch), fill=INK, anchor="ma", font_size=12)
    draw.text(((left + right) / 2, height - 4), "epoch", fill=INK, anchor="md", font_size=12)
    return _png(picture)


def _tile(pixels: npt.NDArray[Any], side: int) -> "Image":
    """Fit an image (3, H, W) or map (H, W) into a square of `side` pixels; small ones keep their pixels visible."""
    from PIL import Image

    image = to_image(pixels)
    if max(image.size) > _TILE:
        image = image.resize((_TILE, _TILE), Image.Resampling.BOX)
    return image.convert("RGB").resize((side, side), Image.Resampling.NEAREST)


def to_image(pixels: npt.NDArray[Any]) -> "Image":
    """Return an image (3, H, W) or a map (H, W), uint8 or floats in [0, 1], as Pillow has it."""
    from PIL import Image

    values = np.asarray(pixels)
    if values.dtype != np.uint8:
        values = (np.clip(values.astype(np.float32), 0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(values if values.ndim == 2 else np.ascontiguousarray(values.transpose(1, 2, 0)))


def _percent_axis(accuracies: Sequence[float]) -> tuple[float, float, list[float]]:
    """Choose low end, high end and ticks of an axis that holds all values, in steps of 1, 2, 5, 10 or 20 points."""
    least, most = (min(accuracies), max(accuracies)) if accuracies else (0.0, 1.0)
    points = next(step for step in (1, 2, 5, 10, 20) if (most - least) * 100 <= 5 * step or step == 20)
    first = math.floor(least * 100 / points + 1e-9)
    last = max(math.ceil(most * 100 / points - 1e-9), first + 1)
    return first * points / 100, last * points / 100, [n * points / 100 for n in range(first, last + 1)]


def _epoch_ticks(last: int) -> list[int]:
    step = next(size for size in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, last) if last <= 8 * size)
    return sorted({1, *range(step, last + 1, step)}) if step > 1 else list(range(1, last + 1))


def _png(picture: "Image") -> bytes:
    from PIL import Image

    buffer = BytesIO()
    # Median cut without dithering: noise of single pixels would double the size.
    few = picture.quantize(_N_COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
