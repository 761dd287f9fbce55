"""`igkd-hpo stop`: no new trials of a study, on no host."""

from typing import Annotated

from typer import Option

from igkd_hpo.cli.arguments import NamedStudy, Storage, print_line


def stop(
    study: NamedStudy,
    now: Annotated[bool, Option("--now", help="Also end the trials that run; they can be resumed.")] = False,
    storage: Storage = None,
) -> None:
    """Stop a study on all hosts: no new trials. `launch` goes on with it.

    Examples:
        igkd-hpo stop digits
        igkd-hpo stop digits --now
    """
    from igkd_hpo.api.study import open_study

    opened = open_study(study, storage=storage)
    name, n_trials = opened.name, opened.n_trials
    if opened.counts.finished >= n_trials:
        print_line(f"study {name} is finished; there is nothing to stop", err=True)
        return
    running = opened.stop(now=now)
    fate = "went back to the queue" if now else "run to the end; --now ends them too"
    were = f"; {running} trial{'s' if running > 1 else ''} {fate}" if running else ""
    finished = opened.counts.finished
    print_line(f"study {name}: stopped with {finished} of {n_trials} trials finished{were}", err=True)
