"""Absence of a study that is looked for: what is said of it, and of one that is not made yet."""

from pathlib import Path

from igkd_hpo.assets.makers import work_in


def no_studies(assets: Path | None) -> str:
    """Say that there are none, and what is at work for the first one, by this host's folder of assets."""
    return f"no studies{preparing(assets)}; igkd-hpo launch makes one, once teacher and maps are there"


def preparing(assets: Path | None) -> str:
    """Say after a comma what a process does for a study that may come; nothing where none does anything."""
    work = None if assets is None else work_in(assets)
    return "" if work is None else f", but a process here {work} for a study"
