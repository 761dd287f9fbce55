"""One trial of `syne_search.py`, in a process of its own, as Syne Tune starts it."""

import argparse
from pathlib import Path

from distil import train_student
from syne_tune import Reporter

SETTINGS = ("temperature", "alpha", "overlay_probability", "overlay_strength", "learning_rate")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser()
    for name in SETTINGS:
        parser.add_argument(f"--{name}", type=float, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    given, _ = parser.parse_known_args()  # Syne Tune names a folder for checkpoints too
    report = Reporter()
    settings = {name: getattr(given, name) for name in SETTINGS}
    for epoch, reached in train_student(given.folder, settings, epochs=given.epochs, seed=given.seed):
        report(epoch=epoch, accuracy=reached)


if __name__ == "__main__":
    main()
