"""Long computations over the training images: chunk after chunk, shared by several processes where that pays."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

import torch
from numpy.typing import NDArray

from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.assets.host_memory import free_memory
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.shown import open_images
from igkd_hpo.assets.store import AssetStore, Table
from igkd_hpo.assets.teachers import Teachers, open_teachers
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.heap import keep_freed_memory
from igkd_hpo.errors import AssetError
from igkd_hpo.settings import Settings

Columns = dict[str, NDArray[Any]]
"""The rows of a chunk, by the names of a table's columns."""
Compute = Callable[[slice], Columns]
Maker = Callable[[Study, Dataset, Teachers, torch.device], Compute]
"""Picklable factory of the function that computes one chunk on a device."""

_LONG = 10.0  # seconds of work that is left, on one thread; of 6 s nothing was saved, as a process starts in 2 to 5
_PROCESS_BYTES = 2 << 30  # a process on a CPU, with 64 points of 32x32 at once: 2.0 to 2.2 GB at its peak
_HANDED_OUT = 2  # chunks that a process has at most: it must not wait while we compute one ourselves
_AHEAD = 2  # chunks for each device that may be done before their turn


def devices_for(device: torch.device) -> list[torch.device]:
    """List a device for each process that could share the work: all GPUs for `cuda`, the CPU once per core."""
    if device.type == "cuda":
        return [torch.device("cuda", i) for i in range(torch.cuda.device_count())] if device.index is None else [device]
    return [device] * max(1, min(len(os.sched_getaffinity(0)), free_memory() // _PROCESS_BYTES))


def fill(
    table: Table,
    make: Maker,
    *,
    title: str,
    size: int,
    study: Study,
    dataset: Dataset,
    teachers: Teachers,
    settings: Settings,
    devices: Sequence[torch.device],
    progress: Progress,
) -> None:
    """Append the rows that the table lacks, for all training images, in chunks of `size`; see `compute_chunks`."""
    images = len(dataset.train_images)
    chunks = [slice(start, min(start + size, images)) for start in range(table.rows_done, images, size)]
    parts = compute_chunks(
        make, chunks, study=study, dataset=dataset, teachers=teachers, settings=settings, devices=devices
    )
    with progress.task(title, images) as advance, closing(parts):
        advance(table.rows_done)
        for chunk, columns in zip(chunks, parts, strict=True):
            table.append(**columns)
            advance(chunk.stop - chunk.start)


def compute_chunks(
    make: Maker,
    chunks: Sequence[slice],
    *,
    study: Study,
    dataset: Dataset,
    teachers: Teachers,
    settings: Settings,
    devices: Sequence[torch.device],
) -> Generator[Columns, None, None]:
    """Yield the chunks' rows, in order; closing the generator ends its processes.

    This process computes the first chunk. Where the others would then take more than 10 s, it shares them with one
    process for each further device, and goes on while these start; each opens data set and teachers from the asset
    store. On a CPU each has one thread: two processes of one thread made 13 maps a second where one process of two
    made 7.

    Raises:
        AssetError: a process was killed.
    """
    compute = make(study, dataset, teachers, devices[0])
    begun = time.perf_counter()
    for chunk in chunks[:1]:
        yield compute(chunk)
    left = chunks[1:]
    seconds = (time.perf_counter() - begun) * len(left)
    if len(devices) > 1 and len(left) > 1 and seconds > _LONG:
        yield from _share(make, compute, left, study=study, settings=settings, others=devices[1 : len(left)])
    else:
        yield from map(compute, left)


def _share(
    make: Maker,
    compute: Compute,
    chunks: Sequence[slice],
    *,
    study: Study,
    settings: Settings,
    others: Sequence[torch.device],
) -> Generator[Columns, None, None]:
    # Not a ProcessPoolExecutor: it waits for ever for the rest of a result that a killed process was writing.
    context = multiprocessing.get_context("spawn")
    with ExitStack() as crew:
        processes: dict[Connection, BaseProcess] = {}
        for device in others:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, make, study, settings, str(device)), daemon=True)
            with _shield_start():
                process.start()
            theirs.close()
            processes[ours] = process
            crew.callback(_end, process, ours)
        # What each that has started was given, in the order in which it computes them.
        given: dict[Connection, list[int]] = {}
        waiting, done = list(reversed(range(len(chunks)))), dict[int, Columns]()
        for number in range(len(chunks)):
            last = number + _AHEAD * (1 + len(processes)) - 1
            while number not in done:
                for pipe, numbers in given.items():
                    while len(numbers) < _HANDED_OUT and waiting and waiting[-1] <= last:
                        numbers.append(waiting.pop())
                        with suppress(OSError):  # it has ended; what it said of that is received in its turn
                            pipe.send(chunks[numbers[-1]])
                if ours_too := bool(waiting) and waiting[-1] <= last:
                    one = waiting.pop()
                    done[one] = compute(chunks[one])
                speaking = [pipe for pipe in processes if given.get(pipe) != []]
                for ready in connection.wait(speaking, 0 if ours_too else None):
                    assert isinstance(ready, Connection)
                    columns = _receive(ready, processes[ready])
                    if ready in given:
                        done[given[ready].pop(0)] = columns
                    else:  # its first word: it has started
                        given[ready] = []
            yield done.pop(number)


def _receive(pipe: Connection, process: BaseProcess) -> Columns:
    try:
        result = pipe.recv()
    except (EOFError, OSError):
        process.join()
        raise AssetError(
            f"a process that shared the work ended with code {process.exitcode}; if memory ran out, free some, then "
            "run again: work already done is kept"
        ) from None
    if isinstance(result, BaseException):
        raise result
    columns: Columns = result
    return columns


def _end(process: BaseProcess, pipe: Connection) -> None:
    process.kill()  # its chunk is either received or computed again by the next maker
    process.join()
    pipe.close()


@contextmanager
def _shield_start() -> Iterator[None]:
    """Let a process started inside leave signals to its parent, also while it imports, and skip the main script.

    A script without a guard for `__main__` would prepare the same assets once more there, and wait for our lock.
    """
    resource_tracker.ensure_running()  # its start, which would come with the first process, lets signals through again
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)


def _serve(pipe: Connection, make: Maker, study: Study, settings: Settings, device: str) -> None:
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    os.dup2(2, 1)  # our parent's standard output may be a file of JSON
    keep_freed_memory()
    torch.set_num_threads(1)
    try:
        store = AssetStore(settings.paths.assets)
        dataset = open_images(study, store)
        compute = make(study, dataset, open_teachers(study, dataset.shown, settings, store), torch.device(device))
        pipe.send({})  # it has started
        with ThreadPoolExecutor(1) as sender:  # whoever receives may compute a chunk itself meanwhile
            sent: Future[None] | None = None
            while True:
                try:
                    chunk = pipe.recv()
                except EOFError:
                    return
                columns = compute(chunk)
                if sent is not None:
                    sent.result()
                sent = sender.submit(pipe.send, columns)
    except Exception as error:
        with suppress(OSError):
            pipe.send(error)


def _exit_with_parent() -> None:
    """End this process when its parent ends, which may have been killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
