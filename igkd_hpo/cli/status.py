"""`igkd-hpo status`: the studies, what is running and how far."""

from dataclasses import asdict
from typing import Annotated

import typer

from igkd_hpo.cli.arguments import AsJson, Storage, print_json
from igkd_hpo.settings import Settings

_WATCH_SECONDS = 2.0


def status(
    storage: Storage = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every two seconds until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the studies, what is running and how far.

    Example: igkd-hpo status --watch
    """
    from igkd_hpo.results.status import status as read_status
    from igkd_hpo.results.status import status_table
    from igkd_hpo.search.storage import open_storage

    found = open_storage(Settings.resolve(storage_url=storage).storage_url, create=False)
    if as_json:
        print_json([asdict(study) for study in read_status(found)])
        return

    from rich.console import Console

    console = Console()
    if not watch:
        console.print(status_table(read_status(found)))
        return

    import time

    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(status_table(read_status(found)), refresh=True)
            time.sleep(_WATCH_SECONDS)
