"""`igkd-hpo dashboard`: optuna-dashboard on this storage."""

import gc
import os
from typing import Annotated

from typer import Option

from igkd_hpo.cli.arguments import Storage, print_line
from igkd_hpo.settings import Settings


def dashboard(
    storage: Storage = None,
    port: Annotated[int, Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8080,
    host: Annotated[
        str,
        Option(
            "--host",
            help="Address to listen on. Beyond this machine a token is asked for: IGKD_HPO_DASHBOARD_TOKEN, or else "
            "a new one, which is printed.",
        ),
    ] = "127.0.0.1",
    write: Annotated[bool, Option("--write", help="Allow changes: notes, deleting, telling trials.")] = False,
) -> None:
    """Serve optuna-dashboard on this storage, on 127.0.0.1 and read-only unless --write.

    Examples:
        igkd-hpo dashboard --port 8081
        igkd-hpo dashboard --host 0.0.0.0
    """
    import optuna

    from igkd_hpo.dashboard.server import serve
    from igkd_hpo.dashboard.token import VARIABLE

    # A large study becomes a million objects that stay; scanning them again and again for garbage takes a quarter of
    # the time until they are loaded, 3.9 s against 2.9 s at 5,000 trials.
    gc.set_threshold(100_000, 20, 50)
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # with --write, it would tell of each change
    settings = Settings.resolve(storage_url=storage)
    serve(
        settings.storage_url,
        settings.paths,
        port=port,
        host=host,
        write=write,
        token=os.environ.get(VARIABLE) or None,  # no flag: a flag stands in the process list
        on_ready=lambda url: print_line(f"dashboard at {url} (Ctrl-C ends it)", err=True),
    )
