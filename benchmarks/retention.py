"""How large `storage/` is after a long search: short trials written straight into the database, files as they are left.

    python benchmarks/retention.py [--trials 5000] [--check]

Half of the trials completed. Their checkpoints are as large as a student of the paper's size leaves them, and as files
without content, which take no room here; pictures and logs are counted, at the size of one that is drawn here.
Students have one of eight sizes, with a latency that was measured anew for each trial: the most frontiers that
`best --under` can be asked about.
"""

import argparse
import random
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from dashboard import make_study
from sqlalchemy import text

from igkd_hpo.engines.retention import remove_checkpoints
from igkd_hpo.search.best import best_trial, completed_trials
from igkd_hpo.search.study import open_study
from igkd_hpo.settings import Paths
from igkd_hpo.trial.pictures import draw_curve
from igkd_hpo.words import byte_size

CHECKPOINT = 4 * 543_498 + 40_000  # weights in float32, and what is around them
INSERT = "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (:trial, :key, :value)"
GOAL_KEPT, GOAL_SECONDS = 512 << 20, 0.6  # bytes of checkpoints; a hundredth of a trial of a minute


def main() -> int:
    """Print the sizes; with --check end with 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        paths = Paths(root=Path(folder) / "storage")
        paths.root.mkdir()
        storage = make_study(paths.database, options.trials)
        draw = random.Random(0)
        with storage.engine.begin() as connection:
            connection.execute(text("DELETE FROM trial_user_attributes WHERE key IN ('parameters', 'latency_ms')"))
            for trial_id in range(1, options.trials + 1):
                size = draw.randint(1, 8)
                for key, cost in (("parameters", 70_000 * size), ("latency_ms", size * draw.uniform(0.9, 1.1))):
                    row = {"trial": trial_id, "key": key, "value": str(cost)}
                    connection.execute(text(INSERT), row)
        study = open_study(storage, "digits")
        completed = completed_trials(study)
        for trial in completed:
            path = paths.checkpoint(study.folder, trial.number, 1)
            path.parent.mkdir(parents=True)
            with path.open("wb") as file:
                file.truncate(CHECKPOINT)
        before = len(completed) * CHECKPOINT
        remove_checkpoints(study, paths)
        begun = time.process_time()
        remove_checkpoints(study, paths)  # as after each trial from then on
        seconds = time.process_time() - begun
        left = sorted((paths.checkpoints / study.folder).glob("*/*.pt"))
        kept = len(left) * CHECKPOINT
        best = best_trial(study).number
        assert paths.checkpoint(study.folder, best, 1) in left
        picture = len(draw_curve([(epoch, 0.9) for epoch in range(1, 21)], "trial 1", epochs=20, metric="accuracy"))
        print(
            f"{options.trials} trials, {len(completed)} completed: database {byte_size(paths.database.stat().st_size)}"
        )
        print(f"checkpoints: {byte_size(before)} before, {byte_size(kept)} after ({len(left)}); {seconds:.3f} s of CPU")
        print(f"learning curves, one for each: {byte_size(picture * options.trials)} ({byte_size(picture)} each)")
        storage.engine.dispose()
    return int(options.check and (kept > GOAL_KEPT or seconds > GOAL_SECONDS))


if __name__ == "__main__":
    sys.exit(main())
