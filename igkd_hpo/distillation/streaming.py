"""Where training data are read from: all of them on the device, or ahead of each step, by a thread.

Which of the two does not change a bit: the thread reads the rows of a plan that is drawn before, in its order.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue

import torch
from torch import Tensor

from igkd_hpo.distillation.batches import Samples, TrainingData
from igkd_hpo.distillation.images import Images, bring

_SHARE = 0.25  # of a GPU's memory that images and maps of one training may take; others and the networks need the rest
_AHEAD = 2  # batches that are read before their step


def is_streamed(data: TrainingData, device: torch.device) -> bool:
    """Return whether the images are read ahead of each step instead of being kept on the device.

    On a CPU those are that have to be decoded: arrays are mapped, which all processes of a host share. On a GPU it is
    so where images and maps would take more than a quarter of its memory.
    """
    parts = [part for part in (data.images, data.validation_images, data.shown_images) if part is not None]
    if device.type == "cpu":
        return not all(isinstance(part, Tensor) for part in parts)
    n_bytes = sum(math.prod(part.shape) for part in parts) + (0 if data.maps is None else data.maps.nbytes)
    return not fits(n_bytes, device)


def fits(n_bytes: int, device: torch.device) -> bool:
    """Return whether images and maps of so many bytes are kept on a GPU."""
    return n_bytes <= _SHARE * torch.cuda.get_device_properties(device).total_memory


@dataclass(frozen=True)
class OnDemand:
    """Images that are not on the device, for who asks for rows that were not read ahead, such as a control.

    Rows are returned on their own device; one that is asked for several times at once is read once.
    """

    images: Images

    @property
    def shape(self) -> tuple[int, ...]:
        return self.images.shape

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor | slice | int, /) -> Tensor:
        if not isinstance(rows, Tensor):
            return self.images[rows]
        wanted, places = torch.unique(rows.cpu(), return_inverse=True)
        return self.images[wanted].to(rows.device)[places.to(rows.device)]


def place(data: TrainingData, device: torch.device) -> TrainingData:
    """Return the data on the device; of streamed ones the labels alone, images and maps staying where they are."""
    moved = replace(
        data,
        labels=data.labels.to(device),
        validation_labels=data.validation_labels.to(device),
        digests=None if data.digests is None else data.digests.to(device),
    )
    streamed = is_streamed(data, device)

    def put(images: Images) -> Images:
        return OnDemand(images) if streamed else bring(images, device)

    return replace(
        moved,
        images=put(data.images),
        validation_images=put(data.validation_images),
        shown_images=None if data.shown_images is None else put(data.shown_images),
        maps=data.maps if data.maps is None or streamed else data.maps.to(device),
    )


@contextmanager
def read_ahead(
    read: Callable[[Tensor], Samples], batches: Iterable[Tensor], device: torch.device
) -> Iterator[Iterator[Samples]]:
    """Read batches in a thread, in their order, two of them before they are wanted; yield an iterator over them.

    What `read` raises is raised by the iterator in its place. The thread ends with the block, however that is left.

    Args:
        read: returns the samples of rows, int64 (B,), on the CPU; it is called in the thread.
        batches: the rows of each batch, on the CPU.
        device: of the samples; to a GPU they are copied from pinned memory, on a stream of their own.
    """
    reader = _Reader(read, list(batches), device)
    reader.start()
    try:
        yield reader.samples()
    finally:
        reader.stop()


class _Reader:
    def __init__(self, read: Callable[[Tensor], Samples], batches: list[Tensor], device: torch.device) -> None:
        self._read = read
        self._batches = batches
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._room = threading.Semaphore(_AHEAD)
        self._done: SimpleQueue[Samples | BaseException] = SimpleQueue()
        self._stopped = threading.Event()
        # A daemon, so that a process that is told to leave does not wait for a disk that hangs.
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._room.release()
        self._thread.join()

    def samples(self) -> Iterator[Samples]:
        for _ in self._batches:
            read = self._done.get()
            self._room.release()
            if isinstance(read, BaseException):
                raise read
            if self._stream is not None:
                current = torch.cuda.current_stream(self._device)
                for part in read:
                    if part is not None:
                        part.record_stream(current)  # its memory is not given to another batch before the step is done
            yield read

    def _run(self) -> None:
        try:
            for rows in self._batches:
                self._room.acquire()
                if self._stopped.is_set():
                    return
                self._done.put(self._move(self._read(rows)))
        except BaseException as error:  # whoever waits must hear of it, whatever it is
            self._done.put(error)

    def _move(self, samples: Samples) -> Samples:
        if self._stream is None:
            return samples
        with torch.cuda.stream(self._stream):
            moved = [
                None if part is None else part.pin_memory().to(self._device, non_blocking=True) for part in samples
            ]
        self._stream.synchronize()  # of this thread's copies alone; steps run on
        images, maps, shown = moved
        assert images is not None
        return Samples(images, maps, shown)
