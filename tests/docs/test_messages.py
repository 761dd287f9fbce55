"""A message that the troubleshooting page explains is one that the program gives."""

import ast
import re
from pathlib import Path


def texts(repository: Path) -> set[str]:
    """Every text in the program's code, with … for what is filled in."""
    found = set()
    for path in sorted((repository / "igkd_hpo").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.add("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(re.sub(r"\{\w*\}", "…", node.value))
    return found


def test_every_explained_message_is_in_the_code(repository: Path) -> None:
    page = (repository / "docs" / "guide" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [text.replace("\\`", "`") for text in re.findall(r"^\*\*`(.+)`\*\*$", page, re.MULTILINE)]
    assert len(quoted) > 40
    known = texts(repository)
    gone = []
    for message in quoted:
        pieces = ".*".join(re.escape(piece.strip(" ")) for piece in message.split("…"))
        if not any(re.search(pieces, text, re.DOTALL) for text in known):
            gone.append(message)
    assert gone == []
