"""Download the wheels that the GPU machine lacks, at the project's own lower bounds, and check that nothing is missing.

For `fetch-wheels`. Uses nothing but the standard library and what pip brings.
"""

import argparse
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name, parse_wheel_filename

# Lacking there, or pure Python and there in a version that may be below the project's bound.
CARRIED = [
    "captum", "optuna", "alembic", "mako", "colorlog", "sqlalchemy", "optuna-dashboard", "bottle",
    "pydantic", "annotated-types", "typing-inspection", "typing-extensions", "ruamel.yaml",
    "typer", "annotated-doc", "shellingham", "rich", "filelock", "psutil", "safetensors", "waitress",
    "psycopg",  # SQLite is used there, but the tests' own fixtures import it
]  # fmt: skip
# On that machine already, as far as the carried ones need them.
THERE = {
    "torch", "torchvision", "numpy", "scipy", "scikit-learn", "matplotlib", "jinja2", "pillow", "markupsafe", "tqdm",
    "pyyaml", "packaging", "markdown-it-py", "pygments", "click",
}  # fmt: skip
MANYLINUX = [f"manylinux_2_{minor}_x86_64" for minor in (39, 35, 34, 31, 28, 27, 24, 17)] + [
    "manylinux2014_x86_64", "manylinux1_x86_64",
]  # fmt: skip


def download(requirements: list[str], target: Path, python: str) -> None:
    """No dependencies: what is needed is named."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(target)]
    command += ["--python-version", python, "--implementation", "cp"]
    for name in MANYLINUX:
        command += ["--platform", name]
    subprocess.run([*command, *requirements], check=True, timeout=1200)


def needs(wheel: Path, python: str) -> list[Requirement]:
    """What a wheel says it needs, for that Python on Linux, extras left out."""
    with zipfile.ZipFile(wheel) as content:
        name = next(name for name in content.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        lines = content.read(name).decode().splitlines()
    found = [Requirement(line.partition(":")[2].strip()) for line in lines if line.startswith("Requires-Dist:")]
    where = {"python_version": python, "python_full_version": f"{python}.0", "extra": "", "sys_platform": "linux",
             "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix",
             "platform_python_implementation": "CPython", "implementation_name": "cpython"}  # fmt: skip
    return [one for one in found if one.marker is None or one.marker.evaluate(where)]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pyproject", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--python", default="3.12")
    options = parser.parse_args()
    project = tomllib.loads(options.pyproject.read_text())["project"]
    bounds = {canonicalize_name(one.name): one for one in map(Requirement, project["dependencies"])}
    carried = {canonicalize_name(name) for name in CARRIED}
    if unknown := sorted(set(bounds) - carried - THERE):
        print(f"the project needs {', '.join(unknown)}, which the kit does not know: add it to CARRIED or THERE "
              f"in {__file__}", file=sys.stderr)  # fmt: skip
        return 1
    options.target.mkdir(parents=True, exist_ok=True)
    download([f"{name}{bounds[name].specifier if name in bounds else ''}" for name in sorted(carried)],
             options.target, options.python)  # fmt: skip
    core = next(one for one in needs(next(options.target.glob("pydantic-*.whl")), options.python)
                if one.name == "pydantic-core")  # fmt: skip
    driver = parse_wheel_filename(next(options.target.glob("psycopg-*.whl")).name)[1]
    download([str(core), f"psycopg-binary=={driver}"], options.target, options.python)
    wheels = sorted(options.target.glob("*.whl"))
    versions = {name: version for name, version, *_ in (parse_wheel_filename(wheel.name) for wheel in wheels)}
    faults = [f"two versions of {name}" for name in versions
              if sum(parse_wheel_filename(wheel.name)[0] == name for wheel in wheels) > 1]  # fmt: skip
    for wheel in wheels:
        for one in needs(wheel, options.python):
            name = canonicalize_name(one.name)
            if name in versions and not one.specifier.contains(versions[name], prereleases=True):
                faults.append(f"{wheel.name} needs {one}, carried is {versions[name]}")
            if name not in versions and name not in THERE:
                faults.append(f"{wheel.name} needs {one}, which is neither carried nor there")
    for fault in faults:
        print(fault, file=sys.stderr)
    size = sum(wheel.stat().st_size for wheel in wheels)
    print(f"{len(wheels)} wheels for Python {options.python}, {size / 2**20:.1f} MiB: "
          + ", ".join(f"{name} {version}" for name, version in versions.items()))  # fmt: skip
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
