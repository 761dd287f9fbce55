"""The budget of a first study: how long to train teacher and students, and how many of them, in about two hours."""

from dataclasses import dataclass, field

from igkd_hpo.starting.networks import StepTime

SECONDS = 2 * 3600.0
"""For all of it, on the machine that was measured."""
TRIALS_EACH = 20
"""Of an architecture, before a sampler knows anything of it, as `doctor` says too."""
_TEACHER_SHARE, _ANSWERS_SHARE, _MAPS_SHARE = 0.25, 0.15, 0.2  # of the seconds, at most
_GIVEN_EPOCHS = (15, 12, 8, 5, 3)  # of fine-tuning
_OWN_EPOCHS = (100, 60, 40, 30, 20)
_SEEN = {True: 8000, False: 20_000}  # images, over all epochs: of few images there must be more epochs
_MOST_EPOCHS = 200
_VIEWS = (16, 8, 4)
_MAP_STEPS = 16  # points on a path, as is usual where `auto` chooses them; each costs a training step
_TRIED_IMAGES, _TRIED_STEPS = 32, 64 + 8 + 12 + 16  # of which `auto` makes maps until it has chosen so many
_LADDER = (  # epochs and trials, the richest first
    (200, 60), (100, 60), (100, 40), (60, 40), (60, 30), (40, 40), (40, 30), (40, 24), (30, 24), (30, 20), (30, 16),
    (20, 20), (20, 16), (20, 12), (15, 12), (10, 12),
)  # fmt: skip
# On photographs, for which teachers have published weights, long trials before many: students of 60 epochs were some
# 7 points better than those of 30, see docs/experiments.md.
_GIVEN_LADDER = (
    (200, 60), (100, 60), (100, 40), (60, 40), (60, 30), (60, 24), (60, 16), (60, 12), (40, 12), (30, 12), (20, 12),
    (15, 12), (10, 12),
)  # fmt: skip
_FEWEST_OF_MANY = 30  # epochs, before trials are divided between architectures
_LONG_EPOCHS = 200  # only where an epoch is but a few steps
_FEW_IMAGES = 1000
_CONTROLS = {True: 4, False: 2}  # with and without maps; they run to their end
_BEGINNING = 2.0  # seconds of a trial before its first step
_EPOCHS_LEFT = 0.65  # of the epochs of the others, when pruning is done from a third of them on


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What is done, and its seconds.

    Args:
        views: of each image in the table of the teacher's answers; as given where they are no random crops.
        maps: whether there is time for attribution maps.
        trial_seconds: of a trial that runs to its end.
        seconds: of each part, by its name for people.
    """

    teacher_epochs: int
    views: int | None
    maps: bool
    epochs: int
    n_trials: int
    trial_seconds: float
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Seconds for all of it."""
        return sum(self.seconds.values())

    @property
    def fits(self) -> bool:
        """Whether all of it takes no longer than it should."""
        return self.total <= SECONDS


def plan_budget(
    *,
    n_train: int,
    n_validation: int,
    decoding: float,
    teacher: StepTime,
    given: bool,
    student: StepTime,
    architectures: int,
    views: int | None,
) -> Budget:
    """Choose what fits into the time; the least that is sensible where nothing does.

    Args:
        n_train, n_validation: images.
        decoding: seconds, of all images.
        teacher: its times.
        given: whether the teacher begins with published weights, and so needs few epochs.
        student: the times of the mean student.
        architectures: how many the students have.
        views: random resized crops of each image; None: crops by padding, of which there is a table of 2 to 162.
    """
    epoch = n_train * teacher.training
    usual = _GIVEN_EPOCHS if given else _OWN_EPOCHS
    choices = (max(usual[0], min(_MOST_EPOCHS, _SEEN[given] // n_train)), *usual)
    teacher_epochs = next((n for n in choices if n * epoch <= _TEACHER_SHARE * SECONDS), choices[-1])
    answer = n_train * teacher.forward
    table = views
    if views is not None:
        table = next((n for n in _VIEWS if n <= views and n * answer <= _ANSWERS_SHARE * SECONDS), _VIEWS[-1])
    trying = min(_TRIED_IMAGES, n_train) * _TRIED_STEPS * teacher.training
    mapping = n_train * _MAP_STEPS * teacher.training
    maps = trying + mapping <= _MAPS_SHARE * SECONDS
    before = {
        "images": decoding,
        "teacher": teacher_epochs * epoch,
        "its answers": (table or _VIEWS[0]) * answer,
        "trying how many steps its maps need": trying if maps else 0.0,
        "its maps": mapping if maps else 0.0,
    }
    left = SECONDS - sum(before.values())

    each_epoch = n_train * student.training + n_validation * student.forward

    def trials(epochs: int, n_trials: int) -> float:
        full = _CONTROLS[maps]
        return n_trials * _BEGINNING + epochs * each_epoch * (full + _EPOCHS_LEFT * (n_trials - full))

    ladder = [
        (epochs, n_trials)
        for epochs, n_trials in (_GIVEN_LADDER if given else _LADDER)
        if (epochs < _LONG_EPOCHS or n_train <= _FEW_IMAGES)
        and (architectures == 1 or (epochs >= _FEWEST_OF_MANY and n_trials >= TRIALS_EACH * architectures))
    ]
    epochs, n_trials = next((step for step in ladder if trials(*step) <= left), ladder[-1])
    return Budget(
        teacher_epochs=teacher_epochs,
        views=table,
        maps=maps,
        epochs=epochs,
        n_trials=n_trials,
        trial_seconds=_BEGINNING + epochs * each_epoch,
        seconds={**before, "trials": trials(epochs, n_trials)},
    )


def affordable(teacher: StepTime, *, n_train: int, given: bool) -> bool:
    """Return whether a teacher can be trained for a sensible number of epochs in its share of the time."""
    epochs = _GIVEN_EPOCHS[-2] if given else _OWN_EPOCHS[-3]
    return epochs * n_train * teacher.training <= _TEACHER_SHARE * SECONDS
