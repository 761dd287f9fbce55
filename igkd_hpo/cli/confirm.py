"""`igkd-hpo confirm`: the best configurations again, with fresh seeds, and on the test split."""

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


def confirm(
    study: StudyToConfirm = None,
    top: Annotated[int, Option("--top", help="How many of the best configurations; with --frontier, at most.")] = 5,
    seeds: Annotated[int, Option("--seeds", help="Fresh seeds for each of them, 2 or more.")] = 5,
    workers: WorkersHere = "1",
    frontier: Annotated[
        bool, Option("--frontier", help="Instead of the best few, students of several sizes: what does each step buy?")
    ] = False,
    explanations: Annotated[
        bool, Option("--explanations", help="Compare the students' attribution maps with the teacher's too.")
    ] = False,
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
    """Train the best few with fresh seeds, and with parts taken out; test each network once; say what is real.

    Examples:
        igkd-hpo confirm digits --top 5 --seeds 5 --workers 4
        igkd-hpo confirm best.yaml --seeds 3
        igkd-hpo confirm digits --frontier
        igkd-hpo confirm digits --explanations
    """
    from igkd_hpo.api.confirm import confirm as run
    from igkd_hpo.confirmation.explanation_sentences import explanations_in_words, explanations_table
    from igkd_hpo.confirmation.sentences import classes_in_words, confirmation_json, confirmation_table, sentences
    from igkd_hpo.terminal.console import Console

    count, allowed = count_of_workers(workers), allow_import or ()
    confirmation = run(
        study,
        top=top,
        seeds=seeds,
        workers=count,
        storage=storage,
        device=device,
        allow_import=allowed,
        engine=make_engine(engine, **engine_options(locals())),
        explanations=explanations,
        frontier=frontier,
    )
    if as_json:
        print_json(confirmation_json(confirmation))
        return
    Console().print(confirmation_table(confirmation))
    print_text("\n" + "\n".join(sentences(confirmation)))
    if lines := classes_in_words(confirmation):
        print_text("\n" + "\n".join(lines))
    if confirmation.explanations is not None:
        print_text("")
        Console().print(explanations_table(confirmation.explanations))
        print_text("\n" + "\n".join(explanations_in_words(confirmation)))
