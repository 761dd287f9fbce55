"""Writing a study file: the same YAML that `reading.py` reads, complete and atomic."""

import os
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from igkd_hpo.config.study import Study


def to_yaml(study: Study) -> str:
    """The whole study as YAML, defaults written out, keys in the order of the file format."""
    document: dict[str, Any] = study.model_dump(mode="json", exclude_none=False)
    if study.provenance is None:
        del document["provenance"]
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 120
    buffer = StringIO()
    yaml.dump(document, buffer)
    return buffer.getvalue()


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of a text in UTF-8. Raises OSError."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader sees the old content or the new one. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
