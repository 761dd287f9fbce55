"""An exported trial, trained again where nothing is there yet, is the same trial to the last bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from igkd_hpo.assets import attribution_maps, map_plan, threads
from igkd_hpo.assets.map_plan import MapPlan
from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.study_assets import open_assets, prepare_assets
from igkd_hpo.assets.teacher_check import TeacherCheck
from igkd_hpo.config.provenance import Provenance
from igkd_hpo.config.resolution import resolve_autos
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.teaching import OnlineLogits
from igkd_hpo.settings import Paths, Settings
from igkd_hpo.trial.build import make_trial
from igkd_hpo.trial.train import train_student

from .conftest import make_study

CPU = torch.device("cpu")
QUIET = SilentProgress()
SMALL = {"layers_removed": 17, "width": 0.25, "batch_size": 32}
pytestmark = pytest.mark.usefixtures("images")


@pytest.fixture
def fresh(settings: Settings, tmp_path: Path) -> Settings:
    """Another empty folder of assets, for the same images."""
    return replace(settings, paths=Paths(root=tmp_path / "fresh"))


def searched(**sections) -> Study:
    """A study whose `auto` comes to a table: 18 views against 100 trials of 2 epochs."""
    values = {"alpha": 0.5, "overlay_probability": 0.5, **SMALL}
    shape = {"hyperparameters": values, "training": {"epochs": 2}, "attribution": {"n_steps": "auto"}, "controls": []}
    return make_study(**{**shape, "n_trials": 100, **sections})


def exported(study: Study, settings: Settings, *, accuracy: float = 0.5) -> tuple[Study, dict[str, torch.Tensor]]:
    """Train the study's one trial, and return the file that export writes of it, and its weights."""
    prepare_assets(study, settings, device="cpu", progress=QUIET)
    trial = make_trial(study, study.hyperparameters.fixed(), open_assets(study, settings), seed=7, device=CPU)
    accuracy = list(trial.training.epochs())[-1].validation_accuracy
    provenance = Provenance(study=study.name, trial=0, validation_accuracy=accuracy, execution=trial.execution)
    once = study.training.model_copy(update={"seed": 7})
    changed = {"n_trials": 5, "training": once, "provenance": provenance}
    file = resolve_autos(study.model_copy(update=changed), trial.execution)
    return file, trial.training.network.body.state_dict()


@pytest.mark.parametrize("teacher", [{"architecture": "own_teacher:good"}, {"architecture": "mobilenet_v2"}])
def test_a_fresh_folder_gives_the_same_student(teacher, settings, fresh, own_teacher, tmp_path, monkeypatch):
    """A table stays a table, steps stay as many, threads and points are those of the trial, whatever is faster now."""
    given = {**teacher, "normalize": "dataset", "width": 0.1, "epochs": 2}
    monkeypatch.setattr(map_plan, "choose_steps", lambda _: (8, 0.99))
    monkeypatch.setattr(threads, "_fastest", lambda _: 1)
    checked = [TeacherCheck(name="accuracy", accuracy=1.0)]
    monkeypatch.setattr("igkd_hpo.assets.teacher.examine_teacher", lambda *_, **__: checked)
    file, weights = exported(searched(teacher=given), settings)
    assert file.provenance.execution.logits == "cached"
    monkeypatch.setattr(threads, "_fastest", lambda _: pytest.fail("the file says how many"))
    monkeypatch.setattr(attribution_maps, "make_plan", lambda *_, **__: pytest.fail("the file says how many"))
    trained = train_student(
        file, fresh, seed=None, device="cpu", evaluate=None, output=tmp_path / "out", progress=QUIET
    )
    assert trained.notes == ()
    assert trained.validation_accuracy == file.provenance.validation_accuracy
    assert trained.execution == file.provenance.execution.model_dump(mode="json")
    again = torch.load(tmp_path / "out" / "student.pt", weights_only=True)
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())


def test_where_the_assets_are_there_none_is_made_again(settings, own_teacher, monkeypatch):
    file, _ = exported(searched(), settings)
    before = sorted(path.name for path in settings.paths.assets.iterdir())
    prepare_assets(file, settings, device="cpu", progress=QUIET)
    assert sorted(path.name for path in settings.paths.assets.iterdir()) == before
    assert open_assets(file, settings).maps.facts["n_steps"] == file.attribution.n_steps
    other = file.model_copy(update={"attribution": file.attribution.model_copy(update={"n_steps": 5})})
    prepare_assets(other, settings, device="cpu", progress=QUIET)
    assert open_assets(other, settings).maps.facts["n_steps"] == 5


def test_tables_and_maps_are_made_with_one_thread_on_any_machine(settings, own_teacher, monkeypatch):
    """So that another number of cores, and whatever else ran meanwhile, changes no bit of them."""
    seen = set()
    logits, explain = OnlineLogits.logits, map_plan.explain

    def watched(self, *arguments):
        seen.add(("logits", torch.get_num_threads()))
        return logits(self, *arguments)

    def watched_maps(*arguments, **options):
        seen.add(("maps", torch.get_num_threads()))
        return explain(*arguments, **options)

    monkeypatch.setattr(OnlineLogits, "logits", watched)
    monkeypatch.setattr(attribution_maps, "explain", watched_maps)
    monkeypatch.setattr(threads, "_fastest", lambda _: 2)
    monkeypatch.setattr(attribution_maps, "make_plan", lambda *_, **__: MapPlan(n_steps=2, agreement=None, points=8))
    prepare_assets(searched(), settings, device="cpu", progress=QUIET)
    assert seen == {("logits", 1), ("maps", 1)}


@pytest.mark.parametrize(
    ("recorded", "told"),
    [
        ({"processor": "Z80, none", "torch": "0.1"}, ("Z80", "0.1", torch.__version__)),
        ({"pointwise": None}, ("convolution", "matmul")),
    ],
    ids=["another machine", "an older record"],
)
def test_what_the_last_bits_depend_on_is_told_in_one_line(recorded, told, settings, own_teacher, tmp_path):
    file, _ = exported(searched(), settings)
    there = file.provenance.execution.model_copy(update=recorded)
    file = file.model_copy(update={"provenance": file.provenance.model_copy(update={"execution": there})})
    trained = train_student(
        file, settings, seed=None, device="cpu", evaluate=None, output=tmp_path / "out", progress=QUIET
    )
    (note,) = trained.notes
    assert all(fact in note for fact in told)


def test_a_student_without_a_teacher_makes_no_table(settings, own_teacher):
    """The control of a study with a table is exported with `cached`, and has no use for one."""
    plain = {"alpha": 0.0, "overlay_probability": 0.0}
    study = searched(teacher={"logits": "cached"}, hyperparameters={**SMALL, **plain})
    prepare_assets(study, settings, device="cpu", progress=QUIET)
    assert list(settings.paths.assets.glob("logits-*")) == []
    assert open_assets(study, settings).logits is None
