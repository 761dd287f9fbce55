"""The rules of the house that no tool of `tests/check.py` knows."""

import os
import re
import subprocess
import sys
from pathlib import Path

from igkd_hpo.settings import VARIABLES

# What costs seconds to import, and what only drawing needs.
HEAVY = ("torch", "torchvision", "captum", "sklearn", "matplotlib")
# These run in a trial process, in a child that makes assets, in the doctor's checks of them, or where maps are
# compared: there torch is wanted.
WITH_TORCH = {
    "igkd_hpo.compression.students",
    "igkd_hpo.confirmation.explaining",
    "igkd_hpo.confirmation.scene",
    *(f"igkd_hpo.doctor.{name}" for name in ("assets", "data", "devices", "doctor", "sizes", "teacher")),
    "igkd_hpo.trial.attempt",
    "igkd_hpo.trial.checkpoint",
    "igkd_hpo.trial.preparation",
    "igkd_hpo.trial.sizes",
    "igkd_hpo.trial.step",
    "igkd_hpo.trial.teacher_step",
    "igkd_hpo.trial.shared_assets",
    "igkd_hpo.trial.student",
    "igkd_hpo.trial.build",
    "igkd_hpo.trial.comparison",
}
LIGHT_IN_ASSETS = ["igkd_hpo.assets.store", "igkd_hpo.assets.progress"]


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=280, check=False
    )


def light_modules(package: Path) -> list[str]:
    """Every module that must start fast, found on disk so that a new one is not forgotten."""
    found = [
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
        for folder in sorted(path.name for path in package.iterdir() if path.is_dir())
        if folder not in ("assets", "distillation", "__pycache__")
        for path in sorted((package / folder).rglob("*.py"))
    ]
    return [name for name in found if name not in WITH_TORCH] + LIGHT_IN_ASSETS


def test_start_up_is_light(repository: Path) -> None:
    modules = light_modules(repository / "igkd_hpo")
    assert "igkd_hpo.cli.app" in modules
    assert "igkd_hpo.engines.worker" in modules
    program = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        f"    heavy = [module for module in {HEAVY!r} if module in sys.modules]\n"
        "    assert not heavy, f'{name} imports {heavy}'\n"
    )
    done = run(sys.executable, "-c", program, cwd=repository)
    assert done.returncode == 0, done.stderr


def test_modules_stay_under_400_lines(repository: Path) -> None:
    sizes = {
        path.relative_to(repository).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in (repository / "igkd_hpo").rglob("*.py")
    }
    assert {name: size for name, size in sizes.items() if size >= 400} == {}


def commands_of_readme(repository: Path) -> list[str]:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    return [line for block in re.findall(r"```sh\n(.*?)```", readme, re.DOTALL) for line in block.splitlines()]


def test_ci_runs_the_test_command_of_the_readme(repository: Path) -> None:
    (command,) = [line for line in commands_of_readme(repository) if "tests/check.py" in line]
    assert command in (repository / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_readme_has_every_command_and_no_other(repository: Path) -> None:
    from igkd_hpo.cli.app import COMMANDS

    rows = re.findall(r"^\| `(\w+)[^|]*\|", (repository / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(COMMANDS)


def test_every_variable_is_known(repository: Path) -> None:
    listed = run("git", "ls-files", "igkd_hpo", "docs", "docker-compose.yml", "Dockerfile", cwd=repository)
    names: set[bytes] = set()
    for name in listed.stdout.splitlines():
        names |= set(re.findall(rb"\bIGKD_HPO_[A-Z_]+\b", (repository / name).read_bytes()))
    assert {name.decode() for name in names} == VARIABLES


def test_every_relative_link_leads_somewhere(repository: Path) -> None:
    listed = run("git", "ls-files", "-co", "--exclude-standard", "*.md", cwd=repository)
    names = listed.stdout.splitlines()
    assert "README.md" in names
    dead = []
    for name in names:
        page = repository / name
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            target = link.partition("#")[0]
            if "://" not in link and target and not (page.parent / target).exists():
                dead.append(f"{name}: {link}")
    assert dead == []
