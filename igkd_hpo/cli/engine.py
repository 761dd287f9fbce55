"""The engine that a command runs workers with, from its options."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from igkd_hpo.errors import UsageError, near_or_all

if TYPE_CHECKING:
    from igkd_hpo.api.supervise import EngineLike
    from igkd_hpo.engines.local.fork_server import ForkServer

_ENGINE_OF = {
    "address": "ray",
    "cpus_per_worker": "ray",
    "gpus_per_worker": "ray",
    "memory_per_worker": "ray",
    "folder": "ray",
    "sbatch": "slurm",
}
"""The engine that takes an option."""
ENGINES = ("local", *dict.fromkeys(_ENGINE_OF.values()))

EngineName = Annotated[
    str,
    Option(
        "--engine",
        metavar="|".join(ENGINES),
        help="Where workers run: on this host, on a Ray cluster, or as a Slurm job array, which is submitted.",
    ),
]
Address = Annotated[
    str | None, Option("--address", help="Of the Ray cluster, HOST:PORT; else RAY_ADDRESS, or this machine's.")
]
CpusPerWorker = Annotated[float | None, Option("--cpus-per-worker", help="Cores for each, on Ray; 1 if left out.")]
GpusPerWorker = Annotated[
    float | None, Option("--gpus-per-worker", help="A GPU, 1, or a share of one for each, on Ray; 0 if left out.")
]
MemoryPerWorker = Annotated[
    str | None, Option("--memory-per-worker", metavar="SIZE", help="Memory for each, on Ray, such as 3GiB.")
]
Folder = Annotated[
    str | None,
    Option("--folder", help="Folder on Ray's nodes that holds storage/; if left out, the path of the current one."),
]
Sbatch = Annotated[
    str | None,
    Option("--sbatch", metavar="OPTIONS", help="For sbatch: '--partition=gpu --gres=gpu:1 --time=04:00:00'."),
]


def engine_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a command's arguments, its `locals()`, that are options of an engine."""
    return {option: arguments[option] for option in _ENGINE_OF if option in arguments}


def check_engine(name: str, **options: object) -> None:
    """Raise UsageError where there is no such engine, or where it does not take an option that is given."""
    if name not in ENGINES:
        raise UsageError(f"there is no --engine {name!r}{near_or_all(name, ENGINES)}")
    for option, value in options.items():
        if value is not None and name != (other := _ENGINE_OF[option]):
            raise UsageError(f"--{option.replace('_', '-')} is for --engine {other}; add that, or leave this out")


def make_engine(name: str, fork_server: "ForkServer | None" = None, **options: Any) -> "EngineLike":
    """Make the engine with the options that are given. Raises UsageError."""
    check_engine(name, **options)
    given = {option: value for option, value in options.items() if value is not None}
    if name == "slurm":
        from igkd_hpo.api.slurm import Slurm

        return Slurm(**given)
    if name == "ray":
        from igkd_hpo.engines.ray.engine import Ray
        from igkd_hpo.engines.ray.request import parse_memory

        if (memory := given.get("memory_per_worker")) is not None:
            given["memory_per_worker"] = parse_memory(memory)
        return Ray(fork_server=fork_server, **given)

    from igkd_hpo.engines.local.engine import LocalEngine

    return LocalEngine(fork_server)
