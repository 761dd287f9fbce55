"""`igkd-hpo launch`: create or resume a study and run it."""

from typing import Annotated, Any

from typer import Option

from igkd_hpo.cli.arguments import (
    AllowImport,
    Device,
    Storage,
    StudyFile,
    count_of_workers,
    print_file,
    print_text,
    study_argument,
)
from igkd_hpo.cli.completion import complete_existing_study
from igkd_hpo.cli.engine import (
    Address,
    CpusPerWorker,
    EngineName,
    Folder,
    GpusPerWorker,
    MemoryPerWorker,
    Sbatch,
    check_engine,
    engine_options,
    make_engine,
)


def launch(
    study: StudyFile = None,
    workers: Annotated[
        str,
        Option(
            "--workers",
            metavar="N|auto",
            help="Trials side by side; auto: as many as pay on this host, measured for some seconds; 0 only submits.",
        ),
    ] = "1",
    trials: Annotated[
        int | None, Option("--trials", help="Total of COMPLETE plus PRUNED, instead of the file's n_trials.")
    ] = None,
    timeout: Annotated[
        str | None,
        Option("--timeout", help="Time from now to the end of the search, such as 8h or 1h30m; what runs then waits."),
    ] = None,
    start_from: Annotated[
        str | None,
        Option(
            "--from",
            metavar="STUDY",
            help="Begin with the best configurations of this study in the database that fit.",
            autocompletion=complete_existing_study,
        ),
    ] = None,
    storage: Storage = None,
    device: Device = "auto",
    allow_import: AllowImport = None,
    new_version: Annotated[
        bool, Option("--new-version", help="Run a changed file as NAME-v2, NAME-v3 … beside the old study.")
    ] = False,
    dry_run: Annotated[
        bool,
        Option(
            "--dry-run",
            help="Only say what would run and where; with --workers auto also about how long; "
            "with --engine slurm the batch script, and what Slurm says of it.",
        ),
    ] = False,
    engine: EngineName = "local",
    address: Address = None,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = None,
    memory_per_worker: MemoryPerWorker = None,
    folder: Folder = None,
    sbatch: Sbatch = None,
) -> None:
    """Create or resume a study and run it; without STUDY, the built-in digits.

    STUDY may be a folder of images, or a list of them in CSV: what init chooses for it is written to NAME.yaml, and
    run. Launched again, that file is taken as it is.

    Examples:
        igkd-hpo launch flowers
        igkd-hpo launch --workers 4
        igkd-hpo launch flowers.yaml --workers 2 --trials 50
        igkd-hpo launch flowers.yaml --timeout 8h
        igkd-hpo launch narrowed.yaml --from flowers
        igkd-hpo launch cifar10 --workers 4 --dry-run
        igkd-hpo launch flowers.yaml --engine ray --workers 16 --gpus-per-worker 0.25
        igkd-hpo launch cifar10 --engine slurm --workers 16 --sbatch=--gres=gpu:1
    """
    count = count_of_workers(workers)
    for_engine = engine_options(locals())
    check_engine(engine, **for_engine)
    server = None
    if not dry_run and engine != "slurm":
        from igkd_hpo.engines.local.fork_server import ForkServer

        server = ForkServer()
        server.keep_running()  # it imports torch while we import the rest
    from igkd_hpo.api import launch as api
    from igkd_hpo.api.source import settings_here

    given, allowed = study_argument(study), allow_import or ()
    options: dict[str, Any] = {
        "workers": count,
        "trials": trials,
        "timeout": timeout,
        "device": device,
        "new_version": new_version,
        "engine": make_engine(engine, server, **for_engine),
    }
    if dry_run:
        show = print_file if engine == "slurm" else print_text  # a script stays one, however wide the terminal is
        show(api.dry_run(given, settings_here(storage, allowed), **options))
        return
    launched = api.launch(given, storage=storage, start_from=start_from, allow_import=allowed, **options)
    if count and engine != "slurm":
        print_text(launched.summary())
