"""Making a study, opening it again, changing its total, and refusing what is not the same study; on both databases."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.config.controls import make_control
from igkd_hpo.config.fingerprint import fingerprint
from igkd_hpo.config.study import Study
from igkd_hpo.errors import DataError, StudyFileError, TeacherError, UsageError
from igkd_hpo.search.lease import Claim, Leases, Worker
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.search.study import (
    SearchStudy,
    check_unchanged,
    create_or_open,
    latest_study,
    next_version,
    open_study,
    study_names,
)

PINS = AssetPins(dataset_sha256="a" * 64, teacher_sha256="b" * 64)


def changed(study: Study, **changes: object) -> Study:
    return Study.model_validate(study.model_dump() | changes)


def test_a_new_study_and_its_controls(storage: SharedStorage, study_file: Study) -> None:
    controls = ("student", "kd", "ig", "kd_ig", "paper")
    file = changed(study_file, controls=controls)
    assert check_unchanged(storage, file) is None
    study = create_or_open(storage, file, n_trials=None, pins=PINS)
    assert study.config == file
    record = study.read()
    assert (record.n_trials, record.pins, record.stopped) == (8, PINS, None)
    assert study.read().attributes["fingerprint"] == fingerprint(file)
    trials = study.trials()
    assert [trial.state for trial in trials] == [TrialState.WAITING] * 5
    assert study.counts().waiting == 5
    for name, trial in zip(controls, trials, strict=True):
        control = make_control(name, file.hyperparameters)
        assert trial.user_attrs == {"control": name, "hyperparameters": control.hyperparameters}
        assert trial.system_attrs["fixed_params"] == control.params
    assert create_or_open(storage, file, n_trials=None, pins=None).trials() == trials


def test_controls_that_a_small_total_ended_come_back_with_a_larger_one(
    storage: SharedStorage, study_file: Study, worker: Worker
) -> None:
    file = changed(study_file, controls=("student", "kd", "ig"))

    def launched(n_trials: int) -> list[tuple[str, TrialState]]:
        study = create_or_open(storage, file, n_trials=n_trials, pins=None)
        leases = Leases(study)
        while isinstance(claim := leases.claim(worker), Claim):
            assert leases.complete(claim, 0.5, {})
        return [(trial.user_attrs.get("control", "searched"), trial.state) for trial in study.trials()]

    create_or_open(storage, file, n_trials=8, pins=None)
    done, lost = TrialState.COMPLETE, TrialState.FAIL
    first = [("student", done), ("kd", lost), ("ig", lost)]
    assert launched(1) == first
    assert launched(1) == first
    assert launched(2) == [*first, ("kd", done)]
    assert launched(4) == [*first, ("kd", done), ("ig", done), ("searched", done)]


def test_the_total_follows_the_flag_then_a_changed_file(storage: SharedStorage, study_file: Study) -> None:
    def total(file: Study, n_trials: int | None = None) -> int:
        return create_or_open(storage, file, n_trials=n_trials, pins=None).read().n_trials

    assert total(study_file) == 8
    assert total(study_file, 12) == 12
    assert total(study_file) == 12
    assert total(changed(study_file, n_trials=20)) == 20
    assert total(changed(study_file, n_trials=20), 30) == 30
    assert total(changed(study_file, n_trials=20)) == 30
    with pytest.raises(UsageError, match="0 trials"):
        total(study_file, 0)
    with pytest.raises(UsageError, match="2 controls"):
        total(changed(study_file, name="other", controls=("student", "kd")), 1)
    assert study_names(storage) == [study_file.name]


def test_a_changed_file_is_refused_with_the_difference(storage: SharedStorage, study_file: Study) -> None:
    study = create_or_open(storage, study_file, n_trials=None, pins=None)
    same = changed(study_file, max_retries=9, max_failures=9)
    unchanged = check_unchanged(storage, same)
    assert unchanged is not None
    assert unchanged.study_id == study.study_id
    assert create_or_open(storage, same, n_trials=None, pins=None).config.max_retries == 9
    other = changed(study_file, attribution={"n_steps": 32})
    for call in (
        lambda: check_unchanged(storage, other),
        lambda: create_or_open(storage, other, n_trials=None, pins=None),
    ):
        with pytest.raises(StudyFileError) as error:
            call()
        assert str(error.value) == (
            "study 'digits' was created from a file that meant something else: attribution.n_steps: 16 -> 32. "
            "Give the file a new name, or run it as digits-v2 with --new-version"
        )


def test_another_hosts_content_is_refused(storage: SharedStorage, study_file: Study) -> None:
    create_or_open(storage, study_file, n_trials=None, pins=None)
    assert create_or_open(storage, study_file, n_trials=None, pins=PINS).read().pins == PINS
    data = AssetPins(dataset_sha256="c" * 64, teacher_sha256="b" * 64)
    teacher = AssetPins(dataset_sha256="a" * 64, teacher_sha256="c" * 64)
    with pytest.raises(DataError, match=r"images .*cccccccccccc.*'digits'"):
        create_or_open(storage, study_file, n_trials=None, pins=data)
    with pytest.raises(TeacherError, match=r"teacher .*cccccccccccc.*'digits'"):
        create_or_open(storage, study_file, n_trials=None, pins=teacher)


def test_a_study_keeps_whether_its_images_brought_a_validation_split(storage: SharedStorage, study_file: Study) -> None:
    own = replace(PINS, dataset_sha256="with val", own_validation=True)
    create_or_open(storage, study_file, n_trials=None, pins=PINS)
    with pytest.raises(DataError, match="move val elsewhere"):
        create_or_open(storage, study_file, n_trials=None, pins=own)
    other = changed(study_file, name="other")
    create_or_open(storage, other, n_trials=None, pins=own)
    assert create_or_open(storage, other, n_trials=None, pins=own).read().pins == own


def test_a_study_keeps_its_teachers_accuracy_also_one_of_an_earlier_version(
    storage: SharedStorage, study_file: Study
) -> None:
    create_or_open(storage, study_file, n_trials=None, pins=PINS)
    for given, kept in ((None, None), (0.875, 0.875), (0.5, 0.875)):
        pins = (
            create_or_open(storage, study_file, n_trials=None, pins=replace(PINS, teacher_accuracy=given)).read().pins
        )
        assert pins is not None
        assert pins.teacher_accuracy == kept


def test_studies_of_other_tools_are_refused(storage: SharedStorage, study_file: Study) -> None:
    optuna.create_study(study_name="digits", storage=storage, direction="maximize")
    for call in (
        lambda: check_unchanged(storage, study_file),
        lambda: create_or_open(storage, study_file, n_trials=None, pins=None),
        lambda: open_study(storage, "digits"),
    ):
        with pytest.raises(UsageError, match="was not made by igkd-hpo"):
            call()
    assert study_names(storage) == []


def test_a_study_that_minimises_is_refused(storage: SharedStorage, study_file: Study) -> None:
    theirs = optuna.create_study(study_name="digits", storage=storage, direction="minimize")
    theirs.set_user_attr("fingerprint", fingerprint(study_file))
    with pytest.raises(UsageError, match="does not maximise"):
        open_study(storage, "digits")


def test_where_no_study_is_yet_it_is_told_what_is_made_for_one(
    storage: SharedStorage, study_file: Study, tmp_path: Path
) -> None:
    storage.assets = tmp_path / "assets"
    with AssetStore(storage.assets).build("teacher", {}, SilentProgress()):
        with pytest.raises(UsageError, match=r"no studies, .*\btrains the teacher\b"):
            latest_study(storage)
        create_or_open(storage, study_file, n_trials=None, pins=None)
        with pytest.raises(UsageError, match=r"'other' .*, .*\btrains the teacher\b"):
            open_study(storage, "other")
    with pytest.raises(UsageError) as refused:
        open_study(storage, "other")
    assert "teacher" not in str(refused.value)


def test_names(storage: SharedStorage, study_file: Study) -> None:
    with pytest.raises(UsageError, match="holds no studies; igkd-hpo launch makes one"):
        latest_study(storage)
    with pytest.raises(UsageError, match="holds no studies; igkd-hpo launch makes one"):
        open_study(storage, "digits")
    for name in ("digits", "cifar10", "digits-v2"):
        create_or_open(storage, changed(study_file, name=name), n_trials=None, pins=None)
    create_or_open(storage, study_file, n_trials=None, pins=None)  # launched again
    assert study_names(storage) == ["cifar10", "digits-v2", "digits"]
    assert latest_study(storage) == "digits"
    assert next_version(storage, "digits") == "digits-v3"
    assert next_version(storage, "digits-v2") == "digits-v3"
    assert next_version(storage, "cifar10") == "cifar10-v2"
    with pytest.raises(UsageError, match=r"'digts' .*digits\?"):
        open_study(storage, "digts")
    with pytest.raises(UsageError, match="there are: cifar10, digits-v2, digits"):
        open_study(storage, "zzz")


def test_optuna_stays_silent(make_study: Callable[..., SearchStudy], capfd: pytest.CaptureFixture[str]) -> None:
    study = make_study(controls=("student",), pruner={"name": "median", "patience": 2})
    study.optuna_study.enqueue_trial({"alpha": 0.5})
    assert capfd.readouterr() == ("", "")


def test_a_snapshot_is_of_one_moment(storage: SharedStorage, study_file: Study) -> None:
    study = create_or_open(storage, study_file, n_trials=None, pins=PINS)
    other = open_storage(storage.url.render_as_string(hide_password=False), create=False)
    with storage.snapshot():
        assert study.read().n_trials == 8
        create_or_open(other, study_file, n_trials=9, pins=None)
        assert study.read().n_trials == 8
    assert study.read().n_trials == 9
    other.engine.dispose()


def test_a_snapshot_within_a_transaction_sees_what_that_one_wrote(storage: SharedStorage, study_file: Study) -> None:
    study = create_or_open(storage, study_file, n_trials=None, pins=PINS)
    with study.transaction():
        storage.set_study_user_attr(study.study_id, "stopped", "here")
        with study.snapshot():
            assert study.read().stopped == "here"
        storage.set_study_user_attr(study.study_id, "stopped", "there")
    assert study.read().stopped == "there"


def test_opening_and_making_leave_optunas_verbosity_to_the_caller(
    database_url: str, study_file: Study, capfd: pytest.CaptureFixture[str]
) -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        opened = open_storage(database_url, create=True)
        create_or_open(opened, study_file, n_trials=None, pins=PINS)
        opened.engine.dispose()
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
    assert capfd.readouterr() == ("", "")


def test_no_study_is_called_by_bytes_that_are_not_utf8(storage: SharedStorage, study_file: Study) -> None:
    create_or_open(storage, study_file, n_trials=None, pins=PINS)
    with pytest.raises(UsageError, match="no study") as error:
        open_study(storage, "caf\udce9")
    assert str(error.value).encode()
