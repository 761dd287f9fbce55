"""The tiny study of the commands' tests: its assets are made once for both."""

from tests.cli.conftest import fork_server, prepared, workspace

__all__ = ["fork_server", "prepared", "workspace"]
