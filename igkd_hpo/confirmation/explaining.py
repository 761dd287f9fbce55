"""Explaining of a confirmation's students: their maps beside the teacher's, on validation images; the figures are kept.

Validation images, and never those of the test split: nobody trained on them either, no trial was chosen by its maps,
and the test split stays closed, also when maps are made, or looked at, a second time.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.study_assets import Assets, open_assets
from igkd_hpo.confirmation.confirmation import Confirmation, ConfirmedArm
from igkd_hpo.confirmation.evaluation import kept_networks
from igkd_hpo.confirmation.explanations import ATTRIBUTE, Agreement, Example, ExplainedArm, Explanations, judge
from igkd_hpo.confirmation.scene import (
    N_STEPS,
    Figures,
    another_look,
    choose_rows,
    compare,
    examine,
    look_as_teacher,
    sensitivity_rows,
)
from igkd_hpo.confirmation.statistics import Estimate, two_way_interval
from igkd_hpo.distillation.device import choose_device
from igkd_hpo.distillation.models import Network
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings
from igkd_hpo.trial.build import make_student

_EXAMPLES = 6


def explain(
    linked: SearchStudy, confirmation: Confirmation, settings: Settings, *, device: str, progress: Progress
) -> None:
    """Explain the search's best, the same without IG, plain training and what export takes; keep the figures.

    Nothing is done where these networks were explained before.

    Raises:
        AssetMissing: weights are not on this host.
        TeacherError: there is no validation image that the teacher gets right.
        IgkdError: what opening the assets raises.
    """
    answers = {answer.question: answer.without for answer in confirmation.answers}
    wanted = (confirmation.subject, answers["ig"], answers["both"], confirmation.chosen)
    sound = {arm.number: arm for arm in confirmation.arms if arm.diverged == 0}
    arms = [sound[number] for number in dict.fromkeys(wanted) if number in sound]
    kept = confirmation.explanations
    if kept is not None and [(arm.number, arm.trials) for arm in kept.arms] == [(a.number, a.trials) for a in arms]:
        return
    assets, chosen = open_assets(linked.config, settings), choose_device(device)
    by_number = {trial.number: trial for trial in linked.trials()}
    trials = [by_number[number] for arm in arms for number in arm.trials]
    networks = kept_networks(linked, trials, assets, settings, consequence="nothing was explained")
    rows = choose_rows(assets, chosen)
    kind = another_look(linked.config.augmentation, len(assets.teachers.members))
    looks = {None: 1, "teachers": 1 + len(assets.teachers.members)}.get(kind, 2)
    runs = looks + len(networks) + len(arms[0].trials)
    with progress.task(f"explaining {len(networks)} students of {confirmation.study}", runs * len(rows)) as advance:
        scene, ceiling = look_as_teacher(assets, rows, kind, chosen, advance)
        untrained = [
            compare(make_untrained(assets, arms[0], seed).to(chosen), scene, advance)[1] for seed in arms[0].seeds
        ]
        figures = {n: examine(network.to(chosen), scene, advance) for n, network in networks.items()}
    found = sum_up(
        [(arm, [figures[number] for number in arm.trials]) for arm in arms],
        subject=confirmation.subject,
        without=answers["ig"],
        untrained=untrained,
        ceiling=ceiling,
        ceiling_of=kind,
        rows=rows,
    )
    with linked.transaction():
        linked.storage.set_study_user_attr(linked.study_id, ATTRIBUTE, asdict(found))


def make_untrained(assets: Assets, arm: ConfirmedArm, seed: int) -> Network:
    """Build an arm's student with random weights, in evaluation mode on the CPU."""
    return make_student(assets.study, {**arm.hyperparameters, "init": "random"}, assets, seed=seed).network.eval()


def sum_up(
    arms: Sequence[tuple[ConfirmedArm, Sequence[Figures]]],
    *,
    subject: int,
    without: int | None,
    untrained: Sequence[Figures],
    ceiling: Figures | None,
    ceiling_of: str | None,
    rows: Tensor,
) -> Explanations:
    """Sum up the figures of each arm's networks, one or more, with intervals over images and seeds.

    Args:
        arms: the first is the one that floors and examples are of.
        without: number of the arm that is the subject without IG.
        untrained: of the first arm's networks with random weights.
        rows: int64 (N,), of the images among those of the validation split.
    """
    of = {arm.number: figures for arm, figures in arms}
    difference = None
    if subject in of and without in of:
        groups = (values_of(of[subject], "correlation"), values_of(of[without], "correlation"))
        difference = two_way_interval(*groups).within(-2, 2)
    first = arms[0][1]
    by_image = values_of(first, "correlation").mean(axis=0)
    ordered = by_image.argsort(kind="stable")
    shown = ordered[np.linspace(0, len(ordered) - 1, min(_EXAMPLES, len(ordered))).astype(int)]
    return Explanations(
        arms=tuple(_sum_up_arm(arm, figures) for arm, figures in arms),
        subject=subject,
        without=without,
        difference=difference,
        verdict=judge(without, difference),
        shuffled=_agreement(first, "shuffled_") if "shuffled_correlation" in first[0] else None,
        untrained=_agreement(untrained),
        ceiling=None if ceiling is None else _agreement([ceiling]),
        ceiling_of=ceiling_of,
        n_images=len(rows),
        n_sensitivity=len(sensitivity_rows(len(rows))),
        n_steps=N_STEPS,
        examples=tuple(Example(row=int(rows[i]), correlation=float(by_image[i])) for i in shown),
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def values_of(networks: Sequence[Figures], name: str) -> npt.NDArray[np.float64]:
    """Return one of the figures of several networks, float64 (S, N)."""
    return torch.stack([figures[name] for figures in networks]).double().numpy()


def _sum_up_arm(arm: ConfirmedArm, networks: Sequence[Figures]) -> ExplainedArm:
    def share(name: str) -> Estimate:
        return two_way_interval(values_of(networks, name)).within(0, 1)

    moved = values_of(networks, "sensitivity")
    return ExplainedArm(
        number=arm.number,
        name=arm.name,
        trials=arm.trials,
        agreement=_agreement(networks),
        deletion=share("deletion"),
        deletion_by_lot=share("deletion_by_lot"),
        insertion=share("insertion"),
        insertion_by_lot=share("insertion_by_lot"),
        sensitivity=None if moved.shape[1] < 2 else two_way_interval(moved).within(0, math.inf),
    )


def _agreement(networks: Sequence[Figures], prefix: str = "") -> Agreement:
    return Agreement(
        correlation=two_way_interval(values_of(networks, f"{prefix}correlation")).within(-1, 1),
        overlap=two_way_interval(values_of(networks, f"{prefix}overlap")).within(0, 1),
    )
