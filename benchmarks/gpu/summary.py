"""The few lines of a step's output that say what it found: `summary.py STEP OUTPUT FOLDER`."""

import json
import re
import sys
from pathlib import Path

RUN = re.compile(r"Run\(arrangement='(\w+)', trials=(\d+), images_per_second=([\d.e+]+), memory=(\d+)\)")


def tests(text: str, _: Path) -> list[str]:
    """What pytest counted, and what failed or was skipped."""
    told = [line for line in text.splitlines() if re.match(r"(FAILED|ERROR|SKIPPED) ", line)][:12]
    return told + [
        line.strip("= ") for line in text.splitlines() if re.search(r"\d+ (passed|failed|skipped|error)", line)
    ]


def speed(text: str, _: Path) -> list[str]:
    """The benchmark's own table and goals."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if "parameters, batch" in line), None)
    if start is None:
        return ["no table; rounds that ended: " + str(sum(" done" in line for line in lines))]
    return [line for line in lines[max(0, start - 1) :] if line.strip()]


def placement(text: str, out: Path) -> list[str]:
    """Images per second of every arrangement that was run, also where the time ended."""
    runs = [(name, int(count), float(rate), int(memory)) for name, count, rate, memory in RUN.findall(text)]
    alone = [rate for name, _, rate, _ in runs if name == "alone"]
    if not alone:
        return ["nothing was measured"]
    base = sum(alone) / len(alone)
    del out
    return [
        f"{name:10} {count:3}: {rate:12,.0f} images/s, {rate / base:5.2f} times one alone, {memory / 2**20:9,.0f} MiB"
        for name, count, rate, memory in runs
    ]


def profile(text: str, _: Path) -> list[str]:
    """The share of time in which nothing ran."""
    return [line for line in text.splitlines() if "an operator ran for" in line] or ["no result"]


def assets(text: str, _: Path) -> list[str]:
    """What took how long."""
    wanted = r"^(images|teacher|logits|maps): |^the teacher: |one process asks|^MPS"
    return [line for line in text.splitlines() if re.search(wanted, line)]


def record30(_: str, out: Path) -> list[str]:
    """One line for each run."""
    path = out / "record30.json"
    if not path.exists():
        return ["no run ended"]
    found = json.loads(path.read_text())
    return [
        f"{run['arm']}, batch {run['batch']}: {100 * run['test_accuracy']:.2f} % of {run['n_test']:,} after "
        f"{run['seconds']} s ({run['epochs']} of {run['epochs_planned']} epochs of {run['epoch_seconds']} s, "
        f"{run['compile']}, {run['parameters']:,} parameters; making the trial took {run['setup_seconds']} s)"
        for run in found["runs"]
    ]


def launch(text: str, _: Path) -> list[str]:
    """What the commands said, without bars."""
    wanted = (
        r"^(workers|worker \d+|time|  .* each without|device-launch: ready)|finished|complete|best|FAIL|error|doctor: "
    )
    return [line[:200] for line in text.splitlines() if re.search(wanted, line)][:24]


def accuracy(text: str, _: Path) -> list[str]:
    """The table."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if re.match(r"MPS (on|off);", line)), None)
    return lines[start:] if start is not None else lines[-6:]


def main() -> int:
    """The command."""
    step, output, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    text = output.read_text(errors="replace") if output.exists() else ""
    for line in globals()[step](text, out):
        print(f"   {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
