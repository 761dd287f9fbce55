"""The command line: one thin file per command, each imported here, none of which imports torch."""

import os
import sys
from contextlib import suppress
from functools import wraps
from importlib import import_module
from inspect import cleandoc
from typing import Annotated, Any

import typer
from typer import Option

from igkd_hpo.cli.arguments import print_line
from igkd_hpo.cli.process_list import leave_process_list
from igkd_hpo.cli.usage import WrongUsage, describe_wrong_usage
from igkd_hpo.errors import ExitCode, IgkdError, Interrupted, StopOrdered
from igkd_hpo.escaping import escape_diagnostics, lines, one_line

# Threads that spin while they wait for a core that another process has: a training step on two busy cores took 707 to
# 3360 ms, and 118 to 147 ms with threads that sleep. OpenMP reads this when torch is imported; workers inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Before its first model is used, Pydantic looks for plugins in all packages that are installed, which takes each of our
# processes 0.04 to 0.07 s of CPU. None of ours needs any.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

PANELS = {
    "Search": ("init", "launch", "worker", "stop", "confirm", "ladder"),
    "Results": ("best", "export", "train", "verify", "predict"),
    "Look": ("status", "trials", "show", "report", "dashboard"),
    "Check": ("validate", "doctor", "prepare"),
    "Keep": ("rename", "delete", "clean"),
}
COMMANDS = tuple(command for commands in PANELS.values() for command in commands)

_HELP = """Find the best tiny student network: knowledge distillation with Integrated-Gradients overlays.

Start here:
  [cyan]igkd-hpo launch --workers 4[/]     search the built-in digits, or your own study
  [cyan]igkd-hpo launch FOLDER[/]          the same with a folder of your own images
  [cyan]igkd-hpo confirm --workers 4[/]    fresh seeds for the best few: what is real?
  [cyan]igkd-hpo export -o best.yaml[/]    take the best configuration home
"""

app = typer.Typer(
    name="igkd-hpo",
    help=_HELP,
    epilog="Tab completes commands, flags and names of studies after [cyan]igkd-hpo --install-completion[/].",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _register(name: str, panel: str) -> None:
    """Add a command with its docstring as help, and the examples that the docstring ends with below the options."""
    command = getattr(import_module(f"igkd_hpo.cli.{name}"), name)
    text, _, examples = cleandoc(command.__doc__ or "").partition("Examples:\n")  # -OO leaves none
    lines = "\n".join(f"  [cyan]{line.strip()}[/]" for line in examples.splitlines())

    @app.command(name, help=text, epilog=f"Examples:\n{lines}" if lines else None, rich_help_panel=panel)
    @wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except Interrupted as stopped:  # typer lets no KeyboardInterrupt out
            print_line(stopped, err=True)
            raise typer.Exit(ExitCode.after(stopped.signal)) from None


for _panel, _commands in PANELS.items():
    for _command in _commands:
        _register(_command, _panel)


def _version(wanted: bool) -> None:
    if wanted:
        import igkd_hpo

        typer.echo(igkd_hpo.__version__)
        raise typer.Exit


@app.callback()
def _globals(
    debug: Annotated[bool, Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    if debug:
        os.environ["IGKD_HPO_DEBUG"] = "1"


def main() -> None:
    """Run `igkd-hpo`: every error for people is one line on standard error, with its own exit code."""
    leave_process_list()
    escape_diagnostics()
    arguments = sys.argv[1:] or ["--help"]
    try:
        code = app(arguments, prog_name="igkd-hpo", standalone_mode=False)
        sys.stdout.flush()  # here, where what it raises is told in one line
        sys.exit(code if isinstance(code, int) else ExitCode.DONE)
    except StopOrdered as stopped:
        print_line(stopped, err=True)
        sys.exit(stopped.exit_code)
    except IgkdError as error:
        _fail(error, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        _fail(error, "interrupted", ExitCode.INTERRUPTED)
    except BrokenPipeError:  # the reader of our output (head, say) has left
        _drop_output()
        sys.exit(ExitCode.FAILED)
    except OSError as error:  # a full disk, also behind `> file`, a file that may not be read, too many open files
        _drop_output()
        where = f" ({error.filename})" if error.filename else ""
        _fail(error, f"cannot go on: {error.strerror or error}{where}; --debug shows where", ExitCode.FAILED)
    except Exception as error:
        if isinstance(error, WrongUsage):
            _fail(error, describe_wrong_usage(error, arguments, COMMANDS), ExitCode.USAGE)
        defect = one_line(f"{type(error).__name__}: {error or 'no message'}")
        _fail(error, f"{defect}; please report this defect; --debug shows where", ExitCode.FAILED)


def _drop_output() -> None:
    """Throw away what is still to be written to standard output: at exit, Python would complain of it once more."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: BaseException, message: str, code: ExitCode) -> None:
    if os.environ.get("IGKD_HPO_DEBUG"):
        raise error
    with suppress(OSError):  # `2> file` on a full disk: the exit code is all that is left
        typer.echo(f"error: {lines(message)}", err=True)
    sys.exit(code)
