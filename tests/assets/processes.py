"""What the other processes of a test do, forked from a server that has imported torch: each would need seconds."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from igkd_hpo.assets import attribution_maps, logits
from igkd_hpo.assets.dataset import prepare_dataset
from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.assets.study_assets import prepare_assets
from igkd_hpo.assets.teacher import prepare_teacher
from igkd_hpo.config.reading import study_from_json
from igkd_hpo.config.study import Study
from igkd_hpo.settings import Paths, Settings

Work = Callable[[Study, Settings, "ToldProgress"], object]


class ToldProgress(SilentProgress):
    """Sends what is counted: the first word of the description, and how many more are done."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda count: self._connection.send((description.split(maxsplit=1)[0], count))


def start(work: Work, study: Study, folder: Path) -> tuple[ForkServerProcess, Connection]:
    """Begin the work on a folder's data in the working directory; the process, and where it tells its progress."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.search.processes", __name__])  # one server for the tests of both
    told, telling = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(work, study.model_dump_json(), folder, telling))
    process.start()
    telling.close()
    return process, told


def heard(told: Connection) -> Iterator[tuple[str, int]]:
    """Yield what the process tells until it has ended."""
    with told:
        while True:
            try:
                yield told.recv()
            except EOFError:
                return


def _run(work: Work, study: str, folder: Path, telling: Connection) -> None:
    torch.set_num_threads(1)
    settings = Settings(
        paths=Paths(root=folder / "storage"),
        storage_url="",
        data_root=folder,
        allow_import=frozenset({"own_teacher"}),
    )
    work(study_from_json(study, source="test"), settings, ToldProgress(telling))


def prepare_in_single_images(study: Study, settings: Settings, progress: ToldProgress) -> None:
    """Make a study's assets, an image at a time."""
    logits._PIXEL_BYTES = {"cpu": 1}
    attribution_maps._CHUNK = {"cpu": 1}
    prepare_assets(study, settings, device="cpu", progress=progress)


def train_teacher(study: Study, settings: Settings, progress: ToldProgress) -> None:
    """Make a study's teacher."""
    store = AssetStore(settings.paths.assets)
    dataset = prepare_dataset(study.dataset, settings, store, SilentProgress())
    prepare_teacher(study, dataset, settings, store, device=torch.device("cpu"), progress=progress)
