"""The lists of tested versions: complete, hashed, and what pyproject.toml asks for."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LISTS = ("test", "run", "cuda")


def pinned(repository: Path, name: str) -> dict[str, set[str]]:
    """The versions of each package in a list; several where they depend on Python."""
    found: dict[str, set[str]] = {}
    text = (repository / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    for line in re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines():
        requirement, *hashes = re.split(r"\s+--hash=", line.strip())
        assert hashes, line
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for digest in hashes), line
        parsed = Requirement(requirement)
        (version,) = parsed.specifier
        assert version.operator == "=="
        found.setdefault(canonicalize_name(parsed.name), set()).add(version.version)
    return found


@pytest.mark.parametrize("name", LISTS)
def test_every_line_is_a_version_with_its_hashes_and_names_no_host(repository: Path, name: str) -> None:
    assert len(pinned(repository, name)) > 10
    assert "//" not in (repository / "requirements" / f"{name}.txt").read_text(encoding="utf-8")


def test_the_lists_hold_what_pyproject_asks_for_in_one_version(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    test, run, cuda = (pinned(repository, name) for name in LISTS)
    image = {name: versions for one in (run, cuda) for name, versions in one.items()}
    for wanted, there in (
        (project["dependencies"], image),
        ([*project["dependencies"], *(line for extra in ("bundle", "docs", "test") for line in extras[extra])], test),
    ):
        for requirement in map(Requirement, wanted):
            if requirement.name != "igkd-hpo":
                versions = there[canonicalize_name(requirement.name)]
                assert all(version in requirement.specifier for version in versions), requirement
    assert {name: versions for name, versions in image.items() if versions != test[name]} == {}
    assert not {name for name in run if name.startswith(("torch", "nvidia-", "cuda-", "triton"))}
    assert {"torch", "torchvision"} <= set(cuda)


def test_what_is_built_with_stands_in_the_lists(repository: Path) -> None:
    """Both are built without fetching a builder: `--no-build-isolation`."""
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    (builder,) = map(Requirement, project["build-system"]["requires"])
    assert {builder.name, "editables"} <= set(pinned(repository, "test"))
    assert builder.name in pinned(repository, "run")


def test_ci_and_readme_set_up_in_one_way(repository: Path) -> None:
    command = (repository / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    assert f"\n{command}\n" in (repository / "README.md").read_text(encoding="utf-8")
    assert "-r requirements/test.txt" in command


def test_the_image_installs_from_the_lists_alone(repository: Path) -> None:
    text = (repository / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    for install in re.findall(r"pip install ([^;&\n]+)", text):
        assert "--require-hashes -r" in install or "--no-deps" in install, install
    (pattern,) = re.findall(r"grep -oE '([^']+)' cuda.txt", text)
    listed = (repository / "requirements" / "cuda.txt").read_text(encoding="utf-8")
    taken = [match[0] for match in re.finditer(pattern, listed, re.MULTILINE)]
    assert [line.split("==")[0] for line in taken] == ["torch", "torchvision"]


@pytest.mark.parametrize("path", ["requirements/renew", ".ci/run"])
def test_scripts_are_bash(repository: Path, path: str) -> None:
    subprocess.run(["bash", "-n", repository / path], check=True)
    assert (repository / path).stat().st_mode & 0o100
    assert sys.version_info >= (3, 11)
