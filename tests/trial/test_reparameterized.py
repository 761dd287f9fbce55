"""What a study says of overparameterize, powerprop_alpha and sparsity reaches its students, their costs and limits."""

from dataclasses import replace

import pytest

from igkd_hpo.config.cost import recorded_cost, why_infeasible
from igkd_hpo.config.space import Value
from igkd_hpo.config.study import Limits, Study
from igkd_hpo.distillation.reparameterization import AS_THEY_ARE
from igkd_hpo.errors import UsageError
from igkd_hpo.settings import Settings
from igkd_hpo.trial.step import StepTask, take_steps
from igkd_hpo.trial.student import count_pruned, make_body, measure_student
from tests.fixtures.networks import dataset_of, network_settings, study_of

settings = network_settings
MOBILENET: dict[str, Value] = {
    "architecture": "mobilenet_v2", "width": 0.25, "layers_removed": 16, "stages_removed": 0, **AS_THEY_ARE,
}  # fmt: skip


def cost_of(study: Study, **values: Value) -> dict[str, object]:
    cost = measure_student(study, {**MOBILENET, **values}, 10, (8, 8), None, allow_import=frozenset())
    return replace(cost, latency_ms=None, latency_ms_p95=None, latency_of=None).as_attributes()


@pytest.mark.parametrize(
    "values", [{"overparameterize": "mpo"}, {"overparameterize": "branches", "powerprop_alpha": 2.0}]
)
def test_costs_and_limits_are_those_of_the_plain_student(values: dict[str, Value]) -> None:
    study = study_of("mobilenet_v2")
    assert cost_of(study, **values) == cost_of(study)


def test_weights_that_are_not_zero_are_counted_beside_all_parameters() -> None:
    study = study_of("mobilenet_v2")
    plain, pruned = cost_of(study), cost_of(study, sparsity=0.9, overparameterize="mpo")
    body = make_body(MOBILENET, 10, (8, 8), frozenset())
    weights = sum(tensor.numel() for tensor in body.parameters() if tensor.ndim > 1)
    assert pruned == {**plain, "nonzero_parameters": plain["parameters"] - round(0.9 * weights)}  # type: ignore[operator]
    assert recorded_cost(pruned)["nonzero_parameters"] == pruned["nonzero_parameters"]
    assert "nonzero_parameters" not in recorded_cost(plain)
    cost = measure_student(study, {**MOBILENET, "sparsity": 0.9}, 10, (8, 8), None, allow_import=frozenset())
    assert why_infeasible(Limits(parameters=cost.parameters - 1), cost) is not None  # zeros are parameters too


def test_zeros_that_merging_fills_in_are_refused() -> None:
    name = "timm/mobileone_s0"
    values = {**MOBILENET, "architecture": name, "stages_removed": 3, "sparsity": 0.5}
    with pytest.raises(UsageError, match=r"sparsity is 0\.5, and timm/mobileone_s0"):
        cost_of(study_of(name), **values)
    merging_norms = make_body({**values, "architecture": "timm/tiny_vit_5m_224"}, 10, (32, 32), frozenset())
    assert count_pruned(merging_norms, "timm/tiny_vit_5m_224", 0.5) > 40_000  # scaled zeros are zeros


def test_a_students_own_network_is_tried_with_what_it_will_learn(settings: Settings) -> None:
    def task_of(name: str, **values: object) -> StepTask:
        study = study_of(name, **values)
        dataset_of(study, settings)
        return StepTask(study=study, settings=settings, device="cpu", architecture=name)

    space = {"type": "categorical", "choices": ["none", "branches"]}
    found = take_steps(task_of("nets:plain", overparameterize=space, powerprop_alpha=2.0, sparsity=0.5))
    assert found.memory_format == "channels_last"
    either = {"type": "categorical", "choices": ["none", "mpo"]}
    with pytest.raises(UsageError, match="overparameterize is mpo, and nets:plain"):
        take_steps(task_of("nets:plain", overparameterize=either))
