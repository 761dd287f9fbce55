"""The study files that come with the package: `studies/` in a checkout, `igkd_hpo/studies` in an installed wheel."""

from pathlib import Path

import igkd_hpo

DEFAULT = "digits"


def builtin_folder() -> Path:
    """Return the folder of the built-in study files."""
    package = Path(igkd_hpo.__file__).parent
    shipped = package / "studies"
    return shipped if shipped.is_dir() else package.parent / "studies"


def builtin_studies() -> dict[str, Path]:
    """Return the built-in study files by name."""
    return {path.stem: path for path in sorted(builtin_folder().glob("*.yaml"))}
