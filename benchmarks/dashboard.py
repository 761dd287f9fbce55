"""The dashboard of a large study, ours against stock optuna-dashboard on the same database, in one run and interleaved.

    python benchmarks/dashboard.py --check             # 5,000 trials, 3 rounds
    python benchmarks/dashboard.py --browser           # also until Chromium has drawn the page; needs playwright

Both are started as a person starts them, each in a process of its own. A round asks each in turn for what the page
asks: the list of studies, the whole study (first load, then the reload of a second browser), and every few seconds
the changes since. Between two refreshes the running trials report one more epoch.
"""

import argparse
import gzip
import json
import math
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from optuna.distributions import FloatDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import read_study
from igkd_hpo.search.note import save_study_note
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.search.study import create_or_open

EPOCHS = 20
CONTROLS = ("student", "kd", "ig", "kd_ig")
RUNNING = 4
REFRESH_SECONDS = 10.5  # the page asks every 10 s, and optuna-dashboard keeps what it read of a large study as long
GOALS = {"first load": 0.5, "second browser": 0.5, "refresh": 0.1}
"""Our time over stock's, at most."""
SERVERS: dict[str, Callable[[str, int], list[str]]] = {
    "stock": lambda url, port: [str(Path(sys.executable).parent / "optuna-dashboard"), url, "--port", str(port)],
    "ours": lambda url, port: [sys.executable, "-m", "igkd_hpo", "dashboard", "--storage", url, "--port", str(port)],
}


def make_study(path: Path, n_trials: int) -> SharedStorage:
    """A study of that many ended trials and a few that run, as our workers leave them, written in bulk."""
    storage = open_storage(f"sqlite:///{path}", create=True)
    digits = read_study(builtin_studies()["digits"])
    training = digits.training.model_copy(update={"epochs": EPOCHS})
    file = digits.model_copy(update={"n_trials": n_trials + RUNNING, "controls": (), "training": training})
    pins = AssetPins(dataset_sha256="d" * 64, teacher_sha256="e" * 64)
    study = create_or_open(storage, file, n_trials=None, pins=pins)
    save_study_note(study)
    randoms = random.Random(0)
    ranges = {
        name: FloatDistribution(low=setting.low, high=setting.high, log=setting.log)
        for name, setting in file.hyperparameters.searched().items()
    }
    rows: dict[Any, list[dict[str, Any]]] = {table: [] for table in _TABLES}
    rounds = (n_trials + RUNNING) // 4
    begun = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=100 * rounds)  # in UTC, as Optuna writes it
    for number in range(n_trials + RUNNING):
        _add_trial(rows, study.study_id, number, number >= n_trials, file, ranges, begun, randoms)
    with storage.engine.begin() as connection:
        for table, some in rows.items():
            connection.execute(table.__table__.insert(), some)
    return storage


_TABLES = (
    models.TrialModel,
    models.TrialValueModel,
    models.TrialParamModel,
    models.TrialIntermediateValueModel,
    models.TrialUserAttributeModel,
    models.TrialSystemAttributeModel,
)


def _add_trial(
    rows: dict[Any, list[dict[str, Any]]],
    study_id: int,
    number: int,
    running: bool,
    file: Any,
    ranges: dict[str, FloatDistribution],
    begun: datetime,
    randoms: random.Random,
) -> None:
    trial_id = number + 1
    values: dict[str, float] = {
        name: math.exp(randoms.uniform(math.log(r.low), math.log(r.high))) if r.log else randoms.uniform(r.low, r.high)
        for name, r in ranges.items()
    }
    control = CONTROLS[number] if number < len(CONTROLS) else None
    pruned = control is None and randoms.random() < 0.5
    epochs = 1 if running else randoms.randint(3, EPOCHS - 1) if pruned else EPOCHS
    top = 0.97 - 0.3 * (values["overlay_strength"] - 0.4) ** 2 - 0.1 * (values["alpha"] - 0.6) ** 2
    top -= 0.08 * abs(math.log10(values["learning_rate"]) + 1) + (0.1 if pruned else 0) - randoms.gauss(0, 0.008)
    curve = [max(0.1, min(1.0, top * (1 - 0.7 * math.exp(-epoch / 4)))) for epoch in range(1, epochs + 1)]
    start = begun + timedelta(seconds=number // 4 * 100 + randoms.random() * 5)
    state = TrialState.RUNNING if running else TrialState.PRUNED if pruned else TrialState.COMPLETE
    ends = None if running else start + timedelta(seconds=4.5 * epochs)
    times = {"datetime_start": start, "datetime_complete": ends}
    rows[models.TrialModel].append(
        {"trial_id": trial_id, "number": number, "study_id": study_id, "state": state, **times}
    )
    if not running:
        value = {"objective": 0, "value": curve[-1], "value_type": models.TrialValueModel.TrialValueType.FINITE}
        rows[models.TrialValueModel].append({"trial_id": trial_id, **value})
    rows[models.TrialParamModel] += [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": value,
            "distribution_json": distribution_to_json(ranges[name]),
        }
        for name, value in values.items()
    ]
    finite = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
    rows[models.TrialIntermediateValueModel] += [
        {"trial_id": trial_id, "step": epoch, "intermediate_value": value, "intermediate_value_type": finite}
        for epoch, value in enumerate(curve, start=1)
    ]
    attributes: dict[str, Any] = {
        "hyperparameters": file.hyperparameters.fixed() | values,
        "seed": number,
        "attempts": 2 if randoms.random() < 0.02 else 1,
        "worker": f"gpu-host-4711-{number % 4}",
        "host": "gpu-host",
        "pid": 10_000 + number,
        "device": "cuda:0",
        "execution": {
            "device": "cuda",
            "threads": 4,
            "precision": "bfloat16",
            "memory_format": "channels_last",
            "compile": "none",
            "torch": "2.15.0",
        },
        "parameters": 151_882,
        "compression_factor": 4.612,
        "macs": 1_180_256,
        "size_kb": 593.3,
        "peak_ram_kb": 19.5,
        "latency_ms": round(randoms.gauss(1.8, 0.1), 3),
        "latency_ms_p95": round(randoms.gauss(2.2, 0.1), 3),
        "latency_of": "1 image of 8x8, torch 2.15.0, float32, 1 CPU thread, 100 runs after 5",
    }
    if control:
        attributes["control"] = control
    if not running:
        attributes |= {"images_per_second": round(randoms.gauss(2000, 50), 1), "validation_loss": 1.2 - curve[-1]}
        attributes |= {"train_loss": 1.1 - curve[-1]}
    if pruned:
        attributes["reason"] = f"its best accuracy by epoch {epochs} is below that of half of the trials at that epoch"
    rows[models.TrialUserAttributeModel] += [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attributes.items()
    ]
    for name in ("learning curve.png", "overlays.png"):
        artifact_id = f"{randoms.getrandbits(128):032x}"
        meta = {"artifact_id": artifact_id, "filename": name, "mimetype": "image/png", "encoding": None}
        rows[models.TrialSystemAttributeModel].append(
            {"trial_id": trial_id, "key": f"artifacts:{artifact_id}", "value_json": json.dumps(json.dumps(meta))}
        )


@contextmanager
def served(name: str, url: str) -> Iterator[int]:
    """The port of a fresh server, once it listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(SERVERS[name](url, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def asked(port: int, path: str) -> dict[str, float]:
    """Seconds until the whole answer is here, and its bytes on the wire and unpacked."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        begun = time.perf_counter()
        connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
        response = connection.getresponse()
        body = response.read()
        seconds = time.perf_counter() - begun
    if response.status != 200:
        raise RuntimeError(f"{path} answered {response.status}")
    content = gzip.decompress(body) if response.headers["Content-Encoding"] == "gzip" else body
    return {"seconds": seconds, "wire_mb": len(body) / 1e6, "mb": len(content) / 1e6}


def measure(
    storage: SharedStorage, url: str, n_trials: int, rounds: int
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """What each server took, by what was asked; the order of the two alternates."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in SERVERS}
    whole, since = "/api/studies/1?after=0", f"/api/studies/1?after={n_trials}"
    for turn in range(rounds):
        with ExitStack() as servers:
            ports = {}
            for name in _in_turn(turn):
                ports[name] = servers.enter_context(served(name, url))
                for what, path in (
                    ("list of studies", "/api/studies"),
                    ("first load", whole),
                    ("second browser", whole),
                ):
                    found[name].setdefault(what, []).append(asked(ports[name], path))
            time.sleep(REFRESH_SECONDS)
            for trial_id in range(n_trials + 1, n_trials + RUNNING + 1):
                storage.set_trial_intermediate_value(trial_id, 2 + turn, 0.5)
            for name in _in_turn(turn):
                found[name].setdefault("refresh", []).append(asked(ports[name], since))
    return found


def draw(url: str, rounds: int) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Seconds until Chromium has the study's charts on the screen, from a server that has answered once before."""
    from playwright.sync_api import sync_playwright

    found: dict[str, dict[str, list[dict[str, float]]]] = {name: {"page drawn": []} for name in SERVERS}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for turn in range(rounds):
            for name in _in_turn(turn):
                with (
                    served(name, url) as port,
                    closing(browser.new_page(viewport={"width": 1400, "height": 1000})) as page,
                ):
                    asked(port, "/api/studies/1?after=0")
                    begun = time.perf_counter()
                    page.goto(f"http://127.0.0.1:{port}/dashboard/studies/1")
                    page.wait_for_function(_DRAWN, timeout=170_000)
                    found[name]["page drawn"].append({"seconds": time.perf_counter() - begun})
        browser.close()
    return found


# The chart of all trials has points, and the page has answered two frames in a row: nothing is being drawn any more.
_DRAWN = """() => document.querySelector('#plot-history .points path') !== null
  && new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => done(true), 0))))"""


def _in_turn(turn: int) -> list[str]:
    return list(SERVERS)[:: 1 if turn % 2 == 0 else -1]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--browser", action="store_true", help="only until Chromium has drawn the page")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a goal is missed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.db"
        storage = make_study(path, options.trials)
        url = f"sqlite:///{path}"
        found = draw(url, options.rounds) if options.browser else measure(storage, url, options.trials, options.rounds)
        storage.engine.dispose()
    rows = {what: {name: found[name][what] for name in SERVERS} for what in found["ours"]}
    middle = {
        what: {name: median(one["seconds"] for one in many) for name, many in row.items()} for what, row in rows.items()
    }
    ratios = {what: row["ours"] / row["stock"] for what, row in middle.items()}
    reached = {what: ratios[what] <= most for what, most in GOALS.items() if what in ratios}
    versions = {package: version(package) for package in ("optuna", "optuna-dashboard", "igkd-hpo")}
    if options.json:
        facts = {"trials": options.trials, "epochs": EPOCHS, "versions": versions, "seconds": rows, "ratios": ratios}
        print(json.dumps(facts | {"goals": reached}, indent=2))
    else:
        print(
            f"{options.trials:,} trials of up to {EPOCHS} epochs, n = {options.rounds}; median (least to most); "
            + ", ".join(f"{package} {number}" for package, number in versions.items())
        )
        for what, row in rows.items():
            print(
                f"{what:16}", *(f"{name} {_told(many):42}" for name, many in row.items()), f"ratio {ratios[what]:.3f}"
            )
        for what, holds in reached.items():
            print(f"{'reached' if holds else 'MISSED':8} {what}: ratio at most {GOALS[what]}")
    return int(options.check and not all(reached.values()))


def _told(many: list[dict[str, float]]) -> str:
    seconds = sorted(one["seconds"] for one in many)
    size = f", {many[-1]['wire_mb']:.2f} MB sent" if "wire_mb" in many[-1] else ""
    return f"{median(seconds):.3f} s ({seconds[0]:.3f} to {seconds[-1]:.3f}){size}"


if __name__ == "__main__":
    sys.exit(main())
