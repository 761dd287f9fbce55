"""The student for each rung: the nearest that a study's architectures reach by their knobs. Needs torch."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import torch

from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.study_assets import Assets
from igkd_hpo.compression.rung import TOLERANCE, Rung, is_near, student_in_words
from igkd_hpo.config.space import Value
from igkd_hpo.distillation.architectures import Knob, find_architecture
from igkd_hpo.distillation.features import check_comparable
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.distillation.models import count_parameters
from igkd_hpo.distillation.recipe import weights
from igkd_hpo.errors import IgkdError, UsageError, first_line
from igkd_hpo.trial.build import make_student
from igkd_hpo.trial.student import deployed, make_body
from igkd_hpo.words import counted, percent, times

_HALVINGS = 12  # of a knob's range
_TURNED = 2  # the nearest cuts of which a width is tried

Student = Mapping[str, Value]
Found = tuple[float, Student]
"""A compression factor, and the student that has it."""


def find_students(
    assets: Assets, values: Mapping[str, Value], factors: Sequence[float], taken: Sequence[Rung], progress: Progress
) -> list[Rung]:
    """Return a rung for each factor, in that order, with its student or why it is left out.

    Of the architecture that `values` name, first the knobs that are whole numbers are turned, which cut blocks or
    stages; the others stay as they are unless no cut comes within TOLERANCE. The study's other architectures follow.
    No student is on two rungs.

    Args:
        values: all hyperparameters of the configuration whose settings the students are trained with.
        taken: rungs that the ladder has already.

    Raises UsageError where code of an architecture is not allowed, or does not build.
    """
    sizes, rungs = _Sizes(assets, values), list(taken)
    with progress.task(
        f"finding students for {counted(len(factors), 'rung')} of {assets.study.name}", len(factors)
    ) as advance:
        for asked in factors:
            rungs.append(_rung(sizes, asked, rungs))
            advance(1)
    return rungs[len(taken) :]


def _rung(sizes: "_Sizes", asked: float, others: Sequence[Rung]) -> Rung:
    reached, student = sizes.nearest(asked)
    if not is_near(reached, asked):
        fixed = "" if sizes.may_turn else ", and weights that students begin with are of one width"
        return _left_out(
            asked,
            f"no student comes within {percent(TOLERANCE, 0)} of it{fixed}; the nearest is {times(reached)} times "
            f"({student_in_words(student)}), which --rungs {reached:.4g} takes",
        )
    same = next((other for other in others if other.student == student), None)
    if same is not None:
        return _left_out(asked, f"its nearest student, {times(reached)} times, is that of {same.title}")
    if (reason := sizes.why_untrainable(student)) is not None:
        return _left_out(asked, f"{student_in_words(student)} cannot be trained with these settings: {reason}")
    return Rung(asked=asked, reached=reached, parameters=sizes.parameters(student), student=student)


def _left_out(asked: float, reason: str) -> Rung:
    return Rung(asked=asked, student={}, left_out=reason)


class _Sizes:
    """The sizes of the students that a study's architectures have, each counted once.

    `may_turn`: whether a width may differ, which it may not for students that begin with given weights.
    """

    def __init__(self, assets: Assets, values: Mapping[str, Value]) -> None:
        self._assets, self._values = assets, values
        own = str(values["architecture"])
        self._names = list(dict.fromkeys([own, *assets.study.hyperparameters.words("architecture")]))
        self.may_turn = values["init"] == "random"
        self._counted: dict[tuple[Value, ...], int | None] = {}

    def parameters(self, student: Student) -> int | None:
        """Count what a student learns, in the form that is shipped; None where the network cannot be cut like that."""
        key = tuple(student.values())
        if key not in self._counted:
            self._counted[key] = self._count(student)
        return self._counted[key]

    def _count(self, student: Student) -> int | None:
        dataset, name = self._assets.dataset, str(student["architecture"])
        values = {**self._values, **student}
        try:
            with torch.random.fork_rng(devices=[]):  # the weights do not matter
                body = make_body(values, dataset.num_classes, dataset.image_size, self._assets.settings.allow_import)
        except UsageError:
            if any(value for knob, value in student.items() if knob in _whole_knobs(name)):
                return None
            raise
        return count_parameters(deployed(body, name))

    def nearest(self, asked: float) -> Found:
        """Return the student whose factor is the nearest to `asked`, as `find_students` says."""
        found: list[Found] = []
        for name in self._names:
            cuts = sorted(self._sized(_cuts(name, self._values)), key=lambda one: _distance(one[0], asked))
            found += cuts[:1]
            if cuts and is_near(cuts[0][0], asked):
                return cuts[0]
            turned = [self._turn(student, asked) for _, student in cuts[:_TURNED]] if self.may_turn else []
            found += [one for one in turned if one is not None]
            best = min(found, key=lambda one: _distance(one[0], asked))
            if is_near(best[0], asked):
                return best
        return min(found, key=lambda one: _distance(one[0], asked))

    def _sized(self, students: Iterator[Student]) -> Iterator[Found]:
        for student in students:
            count = self.parameters(student)
            if count is not None:
                yield self._assets.teacher_parameters / count, student

    def _turn(self, student: Student, asked: float) -> Found | None:
        """Return the nearest student that differs by a width alone, by halving its range; None without such a knob."""
        knobs = _knobs(str(student["architecture"]))
        name = next((name for name, knob in knobs.items() if not knob.declared.whole), None)
        if name is None:
            return None
        knob, found = knobs[name], []
        low, high = max(knob.declared.low, 1e-3), knob.declared.high
        for _ in range(_HALVINGS):
            value = float(f"{math.sqrt(low * high):.3g}")
            one = next(self._sized(iter([{**student, name: value}])), None)
            if one is None:
                break
            found.append(one)
            if (one[0] > asked) == (knob.smallest == "low"):  # too small a student
                low = value
            else:
                high = value
        return min(found, key=lambda one: _distance(one[0], asked), default=None)

    def why_untrainable(self, student: Student) -> str | None:
        """Say why a student cannot begin, or be compared with the teacher, as the settings ask; None where it can."""
        values, study = {**self._values, **student}, self._assets.study
        try:
            network = make_student(study, values, self._assets, seed=0).network
            if any(float(values[weight]) > 0 for weight in weights(Role.FEATURES)):
                teacher = self._assets.teachers.members[0].network
                in_pairs = float(values["skt_inter_weight"]) > 0
                check_comparable(network, teacher, self._assets.dataset.image_size, in_pairs=in_pairs)
        except (IgkdError, ValueError) as error:
            return first_line(error)
        return None


def _knobs(name: str) -> dict[str, Knob]:
    return find_architecture(name).knobs_of(name)


def _whole_knobs(name: str) -> list[str]:
    return [key for key, knob in _knobs(name).items() if knob.declared.whole]


def _cuts(name: str, values: Mapping[str, Value]) -> Iterator[Student]:
    """Yield the architecture's students by all its whole knobs, the others as the configuration has them."""
    knobs = _knobs(name)
    whole = _whole_knobs(name)
    ranges = [range(int(knobs[key].declared.low), int(knobs[key].declared.high) + 1) for key in whole]
    for chosen in product(*ranges):
        turned = dict(zip(whole, chosen, strict=True))
        yield {"architecture": name, **{key: turned.get(key, values[key]) for key in knobs}}


def _distance(reached: float, asked: float) -> float:
    return abs(math.log(reached / asked))
