"""The reference of the commands, read off the program itself."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer.main

from igkd_hpo.cli.app import app

INTRODUCTION = """\
# Commands

Generated from the program. `igkd-hpo COMMAND --help` says the same in a terminal.

STUDY is the path of a study file, or the name of a built-in or existing study. Data goes to standard
output, talk to standard error. What a command ends with is in [exit codes](exit-codes.md).
"""
_KINDS = {int: "whole number", float: "number", str: "text", Path: "path"}


def commands_page() -> str:
    """The Markdown of the page: a section for each command, a row for each argument and flag."""
    group: Any = typer.main.get_command(app)
    parts = [INTRODUCTION, "## Before any command\n", _table(group.params)]
    parts += [_section(name, command) for name, command in group.commands.items()]
    return "\n".join(parts)


def _section(name: str, command: Any) -> str:
    told, _, examples = f"{command.help or ''}\n{command.epilog or ''}".partition("Example")
    arguments = [_argument(param) if param.required else f"[{_argument(param)}]" for param in _arguments(command)]
    usage = " ".join(["igkd-hpo", name, *arguments, "[FLAGS]"])
    lines = [f"## {name}\n", " ".join(told.split()) + "\n", f"```text\n{usage}\n```\n", _table(command.params)]
    shown = re.findall(r"igkd-hpo [^\n\[]+", examples)
    if shown:
        lines.append("\n".join(["```sh", *(line.strip() for line in shown), "```\n"]))
    return "\n".join(lines)


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def _arguments(command: Any) -> list[Any]:
    return [param for param in command.params if _is_argument(param)]


def _argument(param: Any) -> str:
    return str(param.metavar).strip("[]")


def _table(params: Sequence[Any]) -> str:
    rows = ["| | | value | default |", "| --- | --- | --- | --- |"]
    for param in params:
        if _is_argument(param):
            needed = "needed" if param.required else ""
            rows.append(f"| `{_argument(param)}` | {_cell(param.help)} | | {needed} |")
        elif not param.hidden:
            flags = ", ".join(f"`{flag}`" for flag in sorted(param.opts, key=len))
            rows.append(f"| {flags} | {_cell(param.help)} | {_value(param)} | {_default(param)} |")
    return "\n".join(rows) + "\n"


def _value(param: Any) -> str:
    if param.is_flag:
        return ""
    if param.metavar:
        return f"`{param.metavar}`"
    kind = _KINDS[param.type_descriptor.annotation]
    if param.max is not None:
        return f"{kind}, {param.min} to {param.max}"
    return kind if param.min is None else f"{kind}, {param.min} or more"


def _default(param: Any) -> str:
    shown = param.show_default if isinstance(param.show_default, str) else param.default
    return f"`{shown}`" if shown not in (None, False) and not callable(shown) else ""


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
