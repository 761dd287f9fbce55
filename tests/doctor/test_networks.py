"""What `validate` and `doctor` say of networks that others made."""

from typing import Any

import pytest

from igkd_hpo.api.validate import validate
from igkd_hpo.config.study import Study
from igkd_hpo.doctor.check import CheckVerdict
from igkd_hpo.doctor.networks import check_students_licences, check_teachers_licence
from igkd_hpo.doctor.study_file import check_study_file
from igkd_hpo.errors import StudyFileError
from tests.assets.conftest import make_study
from tests.doctor.conftest import Patient

OK, WARNING = CheckVerdict.OK, CheckVerdict.WARNING


def of(*names: str, **hyperparameters: Any) -> dict[str, Any]:
    return {"architecture": {"type": "categorical", "choices": list(names)}, **hyperparameters}


def verdict(study: Study, name: str) -> CheckVerdict | None:
    return {check.name: check.verdict for check in check_study_file(study)}.get(name)


def test_students_are_tried_each_by_itself(patient: Patient) -> None:
    both = of("quarters:Corners", "quarters:NoGradient")
    found = patient.examine(hyperparameters=both, n_trials=60)
    assert found.faults == {"students: quarters:NoGradient"}
    assert "channels_last" in found["students: quarters:Corners"].found
    alone = patient.examine(hyperparameters={"architecture": "quarters:Corners"})
    assert alone.faults == set()
    assert alone.warnings == {"teacher: size"}  # a student as large


def test_a_teacher_that_will_be_trained_here_is_tried_too(patient: Patient) -> None:
    """Torchvision's RegNet draws its weights with numbers, which there are none of on the meta device."""
    teacher = {"architecture": "torchvision/regnet_y_400mf", "weights": "begin.pt", "normalize": "dataset"}
    found = patient.examine(teacher=teacher)
    assert found.faults == set()
    assert found["teacher: training step"].verdict is OK
    assert found["teacher: size"].verdict is OK


@pytest.mark.parametrize(
    ("count", "n_trials", "wanted"),
    [(1, 5, None), (3, 60, OK), (3, 59, WARNING), (3, 6, WARNING), (8, 160, OK), (9, 180, WARNING)],
)
def test_each_architecture_needs_its_trials(count: int, n_trials: int, wanted: CheckVerdict | None) -> None:
    names = [f"my.networks:number_{n}" for n in range(count)]
    study = make_study(hyperparameters=of(*names), n_trials=n_trials)
    assert verdict(study, "architectures") is wanted


@pytest.mark.parametrize(
    ("init", "normalize", "name", "wanted"),
    [
        ("pretrained", "dataset", "timm/lcnet_050", WARNING),
        ("pretrained", "weights", "timm/lcnet_050", OK),
        ("random", "dataset", "timm/lcnet_050", None),
    ],
)
def test_pretrained_students_want_the_input_that_they_know(
    init: str, normalize: str, name: str, wanted: CheckVerdict | None
) -> None:
    study = make_study(hyperparameters={"architecture": name, "init": init}, student={"normalize": normalize})
    assert verdict(study, "pretrained") is wanted


def test_names_that_no_library_has_are_told_of_both_networks() -> None:
    sections = {"teacher": {"architecture": "resnet19", "normalize": "dataset"}}
    with pytest.raises(StudyFileError) as told:
        validate(make_study(**sections, hyperparameters={"architecture": "timm/lcnet_51"}), progress=False)
    teacher, student = str(told.value).splitlines()
    assert "teacher.architecture" in teacher
    assert "did you mean resnet18" in teacher
    assert "hyperparameters.architecture" in student
    with pytest.raises(StudyFileError, match=r"'' is no tag .*known: ra2_in1k"):  # what follows the dot
        validate(make_study(hyperparameters={"architecture": "timm/lcnet_050."}), progress=False)
    fine = make_study(**sections | {"teacher": {"architecture": "resnet18"}})
    assert validate(fine, progress=False).study_file == fine


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("timm/convnextv2_atto.fcmae_ft_in1k", WARNING),  # cc-by-nc-4.0
        ("timm/lcnet_050", OK),
        ("torchvision/resnet18", OK),  # which does not tell
    ],
)
def test_a_licence_that_forbids_commerce_is_told(name: str, wanted: CheckVerdict) -> None:
    student = make_study(hyperparameters={"architecture": name, "init": "pretrained"})
    (check,) = check_students_licences(student)
    assert check.verdict is wanted
    assert check_teachers_licence(student) == []
    (of_teacher,) = check_teachers_licence(make_study(teacher={"architecture": name, "weights": "pretrained"}))
    assert of_teacher.verdict is wanted
    own = make_study(
        hyperparameters={"architecture": name, "init": "pretrained"}, student={"weights": {name: "own.safetensors"}}
    )
    assert check_students_licences(own) == []
