"""Commit of the project's own code."""

import subprocess
from pathlib import Path

import igkd_hpo


def code_commit() -> str | None:
    """Return the commit of the checkout that runs, marked if files were changed; None where it was installed."""
    checkout = Path(igkd_hpo.__file__).parents[1]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
