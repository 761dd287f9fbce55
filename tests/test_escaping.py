"""What is hidden in a name from outside is written out wherever text leaves, and markup in it is text."""

import io
import logging
import re
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.testing
from hypothesis import example, given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from igkd_hpo import escaping
from igkd_hpo.bundle.prediction import Prediction
from igkd_hpo.cli.app import app
from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import parse_study
from igkd_hpo.doctor.check import failed, fault
from igkd_hpo.doctor.doctor import checks_table
from igkd_hpo.errors import DataError, IgkdError, StudyFileError, UsageError
from igkd_hpo.escaping import LineFormatter, code, escape_diagnostics, lines, markdown, one_line
from igkd_hpo.search.status import RunningTrial
from igkd_hpo.terminal.console import Console
from igkd_hpo.terminal.progress import BarProgress, LineProgress
from igkd_hpo.terminal.screen import Screen
from igkd_hpo.terminal.status_board import status_board
from tests.fixtures.bundles import a_card
from tests.terminal.studies import begun_study

DIGITS = builtin_studies()["digits"].read_text(encoding="utf-8")
EVIL = "a\x1b]0;owned\x07\x1b[31m\x9b2J\r\n\u202eb\u2028c\x7f[red]d\udc80\t\u2066<script>"
NAMES = st.text(st.characters(codec=None), max_size=40) | st.just(EVIL)
runner = typer.testing.CliRunner()


def hidden(text: str, keep: str = "") -> list[str]:
    """The characters of a text that a terminal would obey, and no reader would see."""
    bidirectional = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    kinds = ("Cc", "Cs", "Zl", "Zp")
    return [c for c in text if (unicodedata.category(c) in kinds or c in bidirectional) and c not in keep]


def shown(*renderables: object) -> str:
    """What a console of ours writes, without colours: whatever is hidden in it comes from the names."""
    file = io.StringIO()
    Console(file=file, width=60, color_system=None, force_terminal=False).print(*renderables)
    return file.getvalue()


@given(NAMES)
@example(EVIL)
def test_nothing_hidden_is_left(text: str) -> None:
    assert hidden(one_line(text)) == hidden(markdown(text)) == hidden(code(text)) == []
    assert hidden(lines(text), keep="\n\t") == []
    assert one_line(lines(text)) == one_line(text)
    one_line(text).encode()


def test_what_can_be_read_stays_as_it_is() -> None:
    for text in ("Zürich, 猫, ‎"[:-1], "👩‍👩‍👧", "नमस्ते‍", "a\\n", "x [red] <b>"):
        assert one_line(text) == lines(text) == text
    assert one_line(EVIL).startswith("a\\x1b]0;owned\\x07\\x1b[31m\\x9b2J\\r\\n\\u202eb\\u2028c\\x7f[red]d\\udc80\\t")


@given(st.sampled_from([UsageError, DataError, *IgkdError.__subclasses__()]), NAMES)
def test_an_error_has_one_line_for_each_argument(kind: type[IgkdError], name: str) -> None:
    assert hidden(str(kind(f"no file {name}; give another"))) == []
    assert str(kind("two:", name)).count("\n") == 1


@given(name=NAMES)
def test_a_console_obeys_no_name(name: str) -> None:
    table = Table("image")
    table.add_row(Text(name))
    checks = [fault("data", "images", name, name), failed("data", "x", DataError(name))]
    checks.append(failed("study", "file", StudyFileError("2 faults:", f"  {name}", "  b")))
    host = RunningTrial(
        trial=0, attempt=1, epoch=0, epochs=3, validation_accuracy=None, validation_accuracies=(), control=None,
        worker=name, host=name, device=name, beat=1, lost=None,
    )  # fmt: skip
    study = begun_study(running=(host,), stopped=name, last_failure=name)
    assert hidden(shown(table, Text(name), checks_table(checks), status_board([study], 60)), keep="\n") == []
    assert [(check.found + check.advice).count("\n") for check in checks] == [0, 0, 2]


@given(name=NAMES)
def test_progress_and_lines_obey_no_name(name: str) -> None:
    from rich.progress import Progress, TextColumn

    file = io.StringIO()
    console = Console(file=file, width=60, color_system=None, force_terminal=False)
    with Progress(TextColumn("{task.description}", markup=False), console=console) as bars:
        for progress in (BarProgress(bars), LineProgress(console)):
            progress.note(name)
            progress.warn(name)
            with progress.task(name, 3):
                pass
    with Screen(console, transient=False) as screen:
        screen.say(name)
    assert hidden(file.getvalue(), keep="\n") == []


@given(name=NAMES)
def test_a_study_file_puts_nothing_into_the_terminal(name: str) -> None:
    escaped = "".join(f"\\U{ord(c):08x}" for c in name)
    for text in (f'"{escaped}": 1\n{DIGITS}', DIGITS.replace("name: tpe", f'name: "{escaped}"')):
        with pytest.raises(StudyFileError) as caught:
            parse_study(text, source=name)
        assert hidden(str(caught.value), keep="\n") == []


@pytest.fixture
def evil_file(tmp_path: Path) -> Path:
    path = tmp_path / "a\x1b[31m\u202e\n.yaml"
    path.write_text(f'"{"x" + chr(0x7F)}": 1\n"\\e[2J": 2\n{DIGITS}', encoding="utf-8")
    return path


def test_commands_write_names_out(
    evil_file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from igkd_hpo.cli import app as program

    lines_of_arguments = (
        ["validate", str(evil_file)],
        ["validate", f"{evil_file}.yaml"],
        ["best", "a\x1b[2J"],
        ["\x1b[2J"],
        ["launch", f"--\x1b[2J={EVIL[:-1]}"],
        ["status", "--storage", "sqlite:///\x1b[2J/x.db"],
    )
    for arguments in lines_of_arguments:
        monkeypatch.setattr(sys, "argv", ["igkd-hpo", *arguments])
        with pytest.raises(SystemExit) as ended:
            program.main()
        out, err = capfd.readouterr()
        assert ended.value.code != 0
        assert hidden(out + err, keep="\n") == [], arguments
        assert "defect" not in err


def test_predict_has_one_line_for_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    predicted = [Prediction(image=EVIL, classes=((EVIL, 0.9),))]
    monkeypatch.setattr("igkd_hpo.bundle.prediction.predict_images", lambda *_: (predicted, []))
    done = runner.invoke(app, ["predict", "bundle", "image.png"])
    assert hidden(done.stdout.removesuffix("\n")) == []
    assert hidden(runner.invoke(app, ["predict", "bundle", "image.png", "--json"]).stdout, keep="\n") == []


def test_a_record_of_a_log_is_one_line() -> None:
    def record(error: Exception | None) -> str:
        info = None if error is None else (type(error), error, None)
        return LineFormatter("%(levelname)s %(message)s").format(
            logging.LogRecord("x", logging.INFO, "x.py", 1, "read %s", (EVIL,), info)
        )

    assert hidden(record(None)) == []
    assert hidden(record(ValueError(EVIL)), keep="\n\t") == []


@pytest.fixture
def escaped_diagnostics(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Python's own texts escaped, for one test."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr("warnings.formatwarning", __import__("warnings").formatwarning)
    escape_diagnostics()
    yield
    assert logging.lastResort is not None
    logging.lastResort.setFormatter(None)


@pytest.mark.usefixtures("escaped_diagnostics")
def test_what_python_writes_itself_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    import warnings

    try:
        raise ValueError(EVIL)
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    written = capsys.readouterr().err
    assert "Traceback" in written
    written += warnings.formatwarning(EVIL, UserWarning, EVIL, 1)
    assert logging.lastResort is not None
    written += logging.lastResort.format(logging.LogRecord("x", logging.ERROR, "x.py", 1, EVIL, (), None))
    assert hidden(written, keep="\n\t") == []


@given(name=NAMES.filter(bool))
def test_a_model_card_shows_names_and_runs_none(name: str) -> None:
    study = parse_study(DIGITS, source="-")
    study = study.model_copy(update={
        "dataset": study.dataset.model_copy(update={"root": name}),
        "teacher": study.teacher.model_copy(update={"checkpoint": (name, "`")}),
    })  # fmt: skip
    card, plain = a_card(study, name), a_card(study, "c")
    assert hidden(card, keep="\n") == []
    assert card.count("\n") == plain.count("\n")


MARKUP = ["<script>", "<img src=x onerror=y>", "[x](javascript:y)", "![x](http://y)", "a|b", "`x`", "&lt;b&gt;", "# x"]


@pytest.mark.parametrize("text", [*MARKUP, "http://evil.example", "www.evil.example", "x@evil.example"])
def test_markup_in_a_name_is_text(text: str) -> None:
    escaped = markdown(text)
    assert not re.search(r"<|>|&(?!amp;|lt;|gt;)|(?<!\\)[\[`|#@:!]|www\.", escaped)
    fence = re.match("`+", code(text))
    assert fence is not None
    assert text.replace("|", r"\|") == code(text).removeprefix(fence[0]).removesuffix(fence[0]).strip()
    assert fence[0] not in text


def test_text_leaves_by_the_doors_that_escape(repository: Path) -> None:
    doors = re.compile(
        r"(typer|click)\.echo\(|(?<![.\w])print\(|sys\.std(out|err)\.write\(|from rich\.console import .*\bConsole\b"
    )
    allowed = {"cli/app.py", "cli/arguments.py", "escaping.py", "dashboard/server.py"}
    allowed |= {"engines/local/worker_main.py"}  # an error of ours, escaped as such
    allowed |= {"bundle/usage.py"}  # code for others to run
    package = repository / "igkd_hpo"
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(map(doors.search, path.read_text(encoding="utf-8").splitlines()))
    }
    assert found <= allowed
    assert escaping.one_line(UsageError(EVIL).args[0]) == str(UsageError(EVIL))
