"""Writing of a study file as the YAML that `reading.py` reads."""

from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from igkd_hpo.config.study import Study


def to_yaml(study: Study) -> str:
    """Write the whole study as YAML, with its defaults, keys in the order of the file format."""
    document: dict[str, Any] = study.model_dump(mode="json")
    if study.provenance is None:
        del document["provenance"]
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 120
    buffer = StringIO()
    yaml.dump(document, buffer)
    return buffer.getvalue()
