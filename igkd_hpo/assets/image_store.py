"""How the images of a data set are kept: as arrays, or as small JPEGs that are decoded when they are asked for.

JPEGs of photographs of 224x224 pixels take a fifth of the room of arrays, and of them, too, a host's memory holds one
copy for all processes. They are written with quality 95 and colour in full resolution: a pixel differs by 1.5 levels of
256 on average, one in a hundred by 7 or more, none by more than 28 (50 photographs).
"""

import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from igkd_hpo.assets.files import writing
from igkd_hpo.assets.store import Draft
from igkd_hpo.config.dataset import Store
from igkd_hpo.distillation.images import Images
from igkd_hpo.errors import AssetError
from igkd_hpo.files import replacing

_QUALITY = 95
_AT_ONCE = 256  # images that are encoded between two writes
_FEW = 8  # images that a thread decodes at least: to start one takes as long as to decode a tenth of an image


def write_images(draft: Draft, name: str, source: NDArray[np.uint8], rows: NDArray[np.int64], store: Store) -> None:
    """Write the images source[rows], of uint8 (N, 3, H, W), for `open_stored`. Raises AssetError when the disk is full.

    JPEGs lie one after the other in `NAME.jpegs`; `NAME_ends.npy`, int64 (N,), says where each ends, in bytes.
    """
    if store == "arrays":
        draft.write_rows(name, source, rows)
        return
    path, lengths = draft.folder / f"{name}.jpegs", []
    with writing(path), replacing(path) as file, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        for start in range(0, len(rows), _AT_ONCE):
            for jpeg in threads.map(_encode, source[rows[start : start + _AT_ONCE]]):
                file.write(jpeg)
                lengths.append(len(jpeg))
    draft.write_array(f"{name}_ends", np.cumsum(lengths, dtype=np.int64))


def open_stored(folder: Path, name: str) -> Images:
    """Open images of an asset or a draft, memory-mapped copy-on-write: processes share pages, no write reaches a file.

    Raises AssetError where images cannot be decoded.
    """
    if (path := folder / f"{name}.jpegs").exists():
        return JpegImages(path, np.load(folder / f"{name}_ends.npy", allow_pickle=False))
    return torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False))


class JpegImages:
    """Images in one file, one JPEG after the other, decoded by as many threads as torch computes with."""

    def __init__(self, path: Path, ends: NDArray[np.int64]) -> None:
        """Map the file; `ends`, int64 (N,): where each image ends, in bytes. AssetError where the first is damaged."""
        self._path = path
        self._bytes = np.asarray(np.memmap(path, dtype=np.uint8, mode="c"))
        self._ends = [0, *ends.tolist()]
        self._rows = torch.arange(len(ends))
        self.shape: tuple[int, ...] = (len(ends), *self._decode(0).shape)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._rows)

    def __getitem__(self, rows: Tensor | slice | int, /) -> Tensor:
        """Return these images, uint8 (B, 3, H, W), or one of them. Raises AssetError where one cannot be decoded."""
        chosen = self._rows[rows]
        if chosen.dim() == 0:
            return self._decode(int(chosen))
        images = torch.empty(len(chosen), *self.shape[1:], dtype=torch.uint8)
        numbers = chosen.tolist()

        def fill(places: Iterable[int]) -> None:
            for place in places:
                images[place] = self._decode(numbers[place])

        count = max(1, min(torch.get_num_threads(), len(numbers) // _FEW))
        parts = [range(start, len(numbers), count) for start in range(count)]
        if count == 1:
            fill(parts[0])
        else:
            with ThreadPoolExecutor(count) as threads:
                list(threads.map(fill, parts))  # which raises what a thread raised
        return images

    def _decode(self, row: int) -> Tensor:
        try:
            return _decoder()(self._bytes[self._ends[row] : self._ends[row + 1]])
        except Exception as error:  # decoders raise what they like
            folder = self._path.parent
            raise AssetError(f"image {row} of {self._path} cannot be decoded; delete {folder} and run again") from error


def _encode(image: NDArray[np.uint8]) -> bytes:
    """Return an image (3, H, W) as JPEG; without subsampling, which would add a fifth to two fifths to the error."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(
        buffer, "JPEG", quality=_QUALITY, subsampling=0
    )
    return buffer.getvalue()


_Decoder = Callable[[NDArray[np.uint8]], Tensor]


@cache
def _decoder() -> _Decoder:
    """Return the function that decodes the bytes of a JPEG to uint8 (3, H, W): TorchCodec's where it runs, or Pillow's.

    Both are libjpeg-turbo's with its exact transform, and give the same bits, which is checked whenever a data set is
    opened. TorchCodec's takes half to four fifths of the time. A wheel of it that belongs to another build of torch is
    easily installed, and fails in many ways.
    """
    try:
        decode_jpeg: Callable[[Tensor], Tensor] = import_module("torchcodec.decoders").decode_jpeg
        decode_jpeg(torch.frombuffer(bytearray(_encode(np.zeros((3, 8, 8), dtype=np.uint8))), dtype=torch.uint8))
    except Exception:
        return _decode_with_pillow
    return lambda jpeg: decode_jpeg(torch.from_numpy(jpeg))


def _decode_with_pillow(jpeg: NDArray[np.uint8]) -> Tensor:
    with Image.open(io.BytesIO(jpeg.tobytes())) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)
