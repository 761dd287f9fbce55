"""The command line: one thin file per command, each imported here, none of which imports torch."""

import os
import sys
from importlib import import_module
from itertools import pairwise
from typing import Annotated

import typer

from igkd_hpo.cli.process_list import leave_process_list
from igkd_hpo.errors import ExitCode, IgkdError

# Threads that spin while they wait for a core that another process has: a training step on two busy cores took 707 to
# 3360 ms, and 118 to 147 ms with threads that sleep. OpenMP reads this when torch is imported; workers inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

COMMANDS = (
    "launch",
    "worker",
    "confirm",
    "stop",
    "prepare",
    "validate",
    "doctor",
    "status",
    "best",
    "export",
    "train",
    "verify",
    "predict",
    "show",
    "report",
    "dashboard",
)

# The base of all errors that typer raises for wrong usage; it has no public name of its own.
_WrongUsage = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="igkd-hpo",
    help="Find the best tiny student network: knowledge distillation with Integrated-Gradients overlays.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _command in COMMANDS:
    app.command(_command)(getattr(import_module(f"igkd_hpo.cli.{_command}"), _command))


def _version(wanted: bool) -> None:
    if wanted:
        import igkd_hpo

        typer.echo(igkd_hpo.__version__)
        raise typer.Exit


@app.callback()
def _globals(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if debug:
        os.environ["IGKD_HPO_DEBUG"] = "1"


def main() -> None:
    """Entry point of `igkd-hpo`: every error for people is one line on standard error, with its own exit code."""
    leave_process_list()
    arguments = sys.argv[1:] or ["--help"]
    try:
        code = app(arguments, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else ExitCode.DONE)
    except IgkdError as error:
        _fail(error, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        _fail(error, "interrupted", ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output (head, say) has left; Python must not complain about it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.FAILED)
    except Exception as error:
        if isinstance(error, _WrongUsage):
            command = f"{arguments[0]} " if arguments[0] in COMMANDS else ""
            message = error.format_message().rstrip(".") + _given(error, arguments)  # type: ignore[attr-defined]
            _fail(error, f"{message}; see igkd-hpo {command}--help", ExitCode.USAGE)
        name = type(error).__name__
        _fail(
            error, f"{name}: {error or 'no message'}; please report this defect; --debug shows where", ExitCode.FAILED
        )


def _given(error: Exception, arguments: list[str]) -> str:
    """The value that a flag was refused for, which typer's message leaves out."""
    flags = getattr(getattr(error, "param", None), "opts", ())
    values = [value for flag, value in pairwise(arguments) if flag in flags]
    return f" (got {values[-1]!r})" if values else ""


def _fail(error: BaseException, message: str, code: ExitCode) -> None:
    if os.environ.get("IGKD_HPO_DEBUG"):
        raise error
    typer.echo(f"error: {message}", err=True)
    sys.exit(code)
