"""`igkd-hpo ladder`: students of many sizes with one configuration's settings, plain and distilled."""

from typing import Annotated

from typer import Option

from igkd_hpo.cli.arguments import (
    AllowImport,
    AsJson,
    Device,
    Storage,
    StudyToConfirm,
    WorkersHere,
    count_of_workers,
    print_json,
    print_text,
)
from igkd_hpo.cli.engine import (
    Address,
    CpusPerWorker,
    EngineName,
    Folder,
    GpusPerWorker,
    MemoryPerWorker,
    engine_options,
    make_engine,
)


def ladder(
    study: StudyToConfirm = None,
    rungs: Annotated[
        str | None,
        Option("--rungs", metavar="F,F", help="How many times smaller than the teacher; else 2.2 to 1,122 in 8 steps."),
    ] = None,
    trial: Annotated[
        int | None, Option("--trial", help="Of the study, whose settings all students get; else the best.")
    ] = None,
    seeds: Annotated[int, Option("--seeds", help="Fresh seeds for each student, 2 or more.")] = 5,
    int8: Annotated[
        bool, Option("--int8", help="Also quantise every network, and measure what that costs on validation images.")
    ] = False,
    workers: WorkersHere = "1",
    storage: Storage = None,
    device: Device = "auto",
    allow_import: AllowImport = None,
    as_json: AsJson = False,
    engine: EngineName = "local",
    address: Address = None,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = None,
    memory_per_worker: MemoryPerWorker = None,
    folder: Folder = None,
) -> None:
    """Train students of many sizes with one trial's settings, plain and distilled; test each network once.

    Examples:
        igkd-hpo ladder digits --seeds 3 --workers 4
        igkd-hpo ladder digits --rungs 4.1,12 --int8
    """
    from igkd_hpo.api.ladder import ladder as run
    from igkd_hpo.compression.rung import PAPER_RUNGS, read_factors
    from igkd_hpo.compression.sentences import ladder_json, ladder_table, sentences
    from igkd_hpo.terminal.console import Console

    found = run(
        study,
        rungs=PAPER_RUNGS if rungs is None else read_factors(rungs),
        trial=trial,
        seeds=seeds,
        int8=int8,
        workers=count_of_workers(workers),
        storage=storage,
        device=device,
        allow_import=allow_import or (),
        engine=make_engine(engine, **engine_options(locals())),
    )
    if as_json:
        print_json(ladder_json(found))
        return
    Console().print(ladder_table(found))
    print_text("\n" + "\n".join(sentences(found)))
