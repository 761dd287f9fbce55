"""Describe wrong usage of the command line in one line: what was typed, and what was probably meant."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import typer

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.errors import did_you_mean

# The base of all errors that typer raises for wrong usage; it has no public name of its own.
WrongUsage = typer.BadParameter.__mro__[2]


def describe_wrong_usage(error: Any, arguments: Sequence[str], commands: Sequence[str]) -> str:
    """Return the line for a `WrongUsage` that these arguments, without the program, led to."""
    command = next((argument for argument in arguments if argument in commands), None)
    see = f"see igkd-hpo {command + ' ' if command else ''}--help"
    message = error.format_message().rstrip(".")
    if unknown := re.match(r"No such command '(.*?)'", message):
        return f"no command {unknown[1]!r}{_meant_command(unknown[1], commands)}; {see}"
    if (flag := getattr(error, "option_name", None)) and message.startswith("No such option"):
        typed = next(
            (a for a in arguments if a.partition("=")[0] == flag or re.match(rf"{re.escape(flag)}\w", a)), flag
        )
        return f"no flag {typed.partition('=')[0]}{_meant_flag(typed.partition('=')[0], error.ctx)}; {see}"
    if extra := re.match(r"Got unexpected extra argument(?:s|\(s\))? \((.*)\)", message):
        return f"{extra[1]!r} is one argument too many; {see}"
    flags = getattr(getattr(error, "param", None), "opts", ())
    values = [value for flag, value in pairwise(arguments) if flag in flags]
    return f"{message}{f' (got {values[-1]!r})' if values else ''}; {see}"


def _meant_command(name: str, commands: Sequence[str]) -> str:
    if name in builtin_studies() or name.lower().endswith((".yaml", ".yml")):
        return f", that is a study (did you mean igkd-hpo launch {name}?)"
    return did_you_mean(name, commands)


def _meant_flag(flag: str, context: Any) -> str:
    """Name the near flag of the command, or, before a command was named, a command that has this flag."""
    for name, command in getattr(context.command, "commands", {}).items():
        if any(flag in parameter.opts for parameter in command.params):
            return f" before a command; write it behind, as in igkd-hpo {name} {flag}"
    flags = [name for parameter in context.command.params for name in parameter.opts if name.startswith("--")]
    word = flag.lstrip("-")
    near = did_you_mean(f"--{word}", [*flags, "--help"]) if len(word) > 1 else ""  # -n may have meant anything
    return near or f" (there are: {', '.join(dict.fromkeys(flags))})"
