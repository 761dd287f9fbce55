"""The tiny study of the commands' tests: its assets are made once for both."""

from tests.cli.conftest import prepared, workspace

__all__ = ["prepared", "workspace"]
