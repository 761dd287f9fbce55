"""Run everything that must hold before a change goes in: linters, types, documentation, a wheel, then the tests.

    python tests/check.py

Prints the time of each check and what those that failed have to say; ends with exit code 1 if one failed. The tests
come last and alone: the other checks run beside each other, the tests fill the cores by themselves. With `--coverage`
they also fail where less than 90 % of the lines were run.
"""

import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
PYTEST = ("pytest", "--durations=10")
COVERAGE = ("--cov", "--cov-fail-under=90")  # costs a third of the tests' time on Python 3.11
# What a page must not load from elsewhere, and a style neither.
LOADING = re.compile(r"<(?:script|img|iframe|source)[^>]+src=\"?(?:https?:)?//|<link[^>]+href=\"?(?:https?:)?//")
STYLED = re.compile(r"url\(\"?https?:|@import")
WITH_DRAWINGS = ("how-it-works", "protocol", "confirm")

Check = Callable[[], object]


class Failed(Exception):
    """A check failed; the text says why."""


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """Run a command to its end and return what it printed; raise `Failed` with that when its exit code is not 0."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(done.stdout)
    return done.stdout


def tool(*words: str) -> Check:
    """Return a check that passes when this module of Python ends with exit code 0."""
    return lambda: run(sys.executable, "-m", *words)


def require(condition: bool, complaint: str) -> None:
    """Raise `Failed` with the complaint unless the condition holds."""
    if not condition:
        raise Failed(complaint)


def build_documentation() -> None:
    """Build the site; a warning of mkdocs, a page that loads something from elsewhere and a lost drawing are faults."""
    with TemporaryDirectory() as folder:
        site = Path(folder)
        # Not --quiet: what is not said is not counted, and --strict fails on nothing.
        run(
            *(sys.executable, "-B", "-m", "mkdocs", "build", "--strict", "--site-dir", site),
            NO_MKDOCS_2_WARNING="1",
        )
        pages = {page: page.read_text(encoding="utf-8") for page in sorted(site.rglob("*.html"))}
        require(len(pages) > 25, f"the site has only {len(pages)} pages")
        for page, text in pages.items():
            require(not LOADING.search(text), f"{page.relative_to(site)} loads something from elsewhere")
        for style in site.rglob("*.css"):
            require(not STYLED.search(style.read_text()), f"{style.relative_to(site)} loads something from elsewhere")
        for name in WITH_DRAWINGS:
            drawn = pages[site / "guide" / f"{name}.html"].partition("<figure")[2]
            require("</svg>" in drawn, f"guide/{name}.html has no drawing in its text")


def try_wheel() -> None:
    """Build a wheel, unpack it elsewhere and run a command of it; it must be whole, and hold no tests."""
    with TemporaryDirectory() as name:
        folder, elsewhere = Path(name), Path(name) / "site"
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
        (wheel,) = folder.glob("*.whl")
        zipfile.ZipFile(wheel).extractall(elsewhere)
        package = elsewhere / "igkd_hpo"
        for needed in ("studies/digits.yaml", "py.typed", "report/templates/page.html", "report/templates/style.css"):
            require((package / needed).is_file(), f"the wheel lacks {needed}")
        require(not (elsewhere / "tests").exists(), "the wheel holds the tests")

        outside = {"cwd": folder, "PYTHONPATH": str(elsewhere)}
        where = run(sys.executable, "-c", "import igkd_hpo; print(igkd_hpo.__file__)", **outside)
        require(Path(where.strip()) == package / "__init__.py", f"what was tried is not the wheel but {where}")
        run(sys.executable, "-m", "igkd_hpo", "validate", "digits", **outside)


def run_tests() -> None:
    """Run the tests; what pytest prints is seen as it comes."""
    command = [*PYTEST, *(COVERAGE if "--coverage" in sys.argv[1:] else ())]
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False)
    require(done.returncode == 0, f"{' '.join(command)} ended with exit code {done.returncode}; see above")


CHECKS: dict[str, Check] = {
    "mypy": tool("mypy"),
    "documentation": build_documentation,
    "wheel": try_wheel,
    "layers of imports": lambda: run(Path(sys.executable).parent / "lint-imports"),
    "ruff check": tool("ruff", "check"),
    "ruff format --check": tool("ruff", "format", "--check"),
}


def results(checks: Mapping[str, Check]) -> Iterator[tuple[str, float, str | None]]:
    """Run the checks, two at a time, and yield for each its name, its seconds, and what is wrong if it failed."""

    def timed(check: Check) -> tuple[float, str | None]:
        begun = time.monotonic()
        try:
            check()
        except Exception as error:  # a check that breaks has failed; the others are still run
            return time.monotonic() - begun, str(error) if isinstance(error, Failed) else repr(error)
        return time.monotonic() - begun, None

    with ThreadPoolExecutor(2) as pool:
        for name, (seconds, fault) in zip(checks, pool.map(timed, checks.values()), strict=True):
            yield name, seconds, fault


def passes(*groups: Mapping[str, Check]) -> bool:
    """Run the groups one after another, print every result, and return whether no check failed."""
    failed = []
    for group in groups:
        for name, seconds, fault in results(group):
            say(f"{'ok' if fault is None else 'FAILED':<7}{seconds:6.1f} s  {name}\n")
            if fault is not None:
                failed.append(name)
                say(fault.rstrip() + "\n")
    say(f"failed: {', '.join(failed)}\n" if failed else "all checks passed\n")
    return not failed


def say(text: str) -> None:
    """Print now: pytest writes to the same place."""
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(not passes(CHECKS, {"tests": run_tests}))
