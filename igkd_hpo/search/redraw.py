"""Sampler that draws again while the student that another one draws is known to be too large for its stratum."""

from collections.abc import Iterable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.space import Value
from igkd_hpo.config.strata import Stratum
from igkd_hpo.distillation.architectures import find_architecture
from igkd_hpo.distillation.recipe import own_knobs_of
from igkd_hpo.search.space import as_setting, distributions
from igkd_hpo.search.trial_cost import cost_of

DRAWS = 8
"""Draws of a sampler, some milliseconds each, under the study's lock. After them it has not learned the stratum yet."""
DRAWS_BY_CHANCE = 200
"""Draws by chance after those; the last one stands."""

Shape = tuple[str, tuple[float, ...]]
"""An architecture and its knobs, turned so that a larger number is a larger student."""


class TooLarge:
    """Students that are beyond a stratum, as far as the trials so far tell.

    A student that is nowhere smaller than one of the same architecture that is beyond the end is beyond it too.
    """

    def __init__(self, stratum: Stratum, trials: Iterable[FrozenTrial], hyperparameters: Hyperparameters) -> None:
        later = hyperparameters.fixed()  # what the format got since a trial was at its default
        found = {
            _shape(later | trial.user_attrs["hyperparameters"])
            for trial in trials
            if "hyperparameters" in trial.user_attrs and (cost_of(trial, stratum.cost) or 0) > stratum.end
        }
        self._smallest: list[Shape] = []
        for shape in sorted(found):
            if not self.holds(shape):
                self._smallest.append(shape)

    def holds(self, shape: Shape) -> bool:
        """Tell whether a student is known to be too large."""
        name, knobs = shape
        return any(
            name == other and all(mine >= theirs for mine, theirs in zip(knobs, smaller, strict=True))
            for other, smaller in self._smallest
        )

    def __contains__(self, hyperparameters: Mapping[str, Value]) -> bool:
        return self.holds(_shape(hyperparameters))


class Redraw(BaseSampler):
    """Draws all hyperparameters of a new trial at once, and again while they are known to be too large.

    Args:
        sampler: asked first, `draws` times at most.
        chance: asked then.
    """

    def __init__(
        self,
        sampler: BaseSampler,
        chance: BaseSampler,
        hyperparameters: Hyperparameters,
        too_large: TooLarge,
        *,
        draws: int = DRAWS,
    ) -> None:
        self._sampler, self._draws = sampler, [sampler] * draws + [chance] * DRAWS_BY_CHANCE
        self._hyperparameters, self._too_large = hyperparameters, too_large

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return all that is searched, whatever earlier trials have."""
        return distributions(self._hyperparameters)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw values for the whole search space."""
        values: dict[str, Any] = {}
        for sampler in self._draws:
            values = _draw(sampler, study, trial, search_space)
            if self._as_settings(values) not in self._too_large:
                break
        return values

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one value, where that of the whole is not in its range any more."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Let the sampler prepare, as Optuna does."""
        self._sampler.before_trial(study, trial)

    def _as_settings(self, values: Mapping[str, Any]) -> dict[str, Value]:
        searched = self._hyperparameters.searched()
        drawn = {name: as_setting(searched[name], value) for name, value in values.items()}
        return self._hyperparameters.fixed() | drawn


def _draw(
    sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial, space: Mapping[str, BaseDistribution]
) -> dict[str, Any]:
    """Draw as Optuna does: together what the sampler draws together, the rest one by one."""
    together = sampler.infer_relative_search_space(study, trial)
    values = sampler.sample_relative(study, trial, together)
    for name, distribution in space.items():
        if name in values:
            continue
        match distribution:  # a sampler is never asked for the only value that there is
            case CategoricalDistribution(choices=(only,)):
                values[name] = only
            case FloatDistribution(low=only) | IntDistribution(low=only) if distribution.single():
                values[name] = only
            case _:
                values[name] = sampler.sample_independent(study, trial, name, distribution)
    return values


def _shape(hyperparameters: Mapping[str, Value]) -> Shape:
    name = str(hyperparameters["architecture"])
    knobs = find_architecture(name).knobs
    sizes = own_knobs_of(hyperparameters).items()
    return name, tuple(float(value) * (1 if knobs[knob].smallest == "low" else -1) for knob, value in sizes)
