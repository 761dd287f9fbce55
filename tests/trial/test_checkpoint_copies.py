"""Copies of checkpoints reach attempts on other hosts whole, or not at all."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import read_study
from igkd_hpo.distillation.metrics import EpochMetrics
from igkd_hpo.errors import AssetError
from igkd_hpo.remote import Remote
from igkd_hpo.trial import checkpoint_copies
from igkd_hpo.trial.checkpoint import open_journal
from igkd_hpo.trial.checkpoint_copies import CheckpointCopies, remove_copies
from igkd_hpo.trial.task import TrialTask
from tests.cli.conftest import wait_until

METRICS = EpochMetrics(
    epoch=1, train_loss=1.0, validation_accuracy=0.5, validation_loss=1.0, learning_rate=0.1, images_per_second=1.0,
    seconds=1.0,
)  # fmt: skip


@pytest.fixture
def url(tmp_path: Path) -> str:
    (tmp_path / "remote").mkdir()
    return f"file://{tmp_path}/remote"


def host(tmp_path: Path, name: str, attempt: int) -> Path:
    """The file of an attempt on a host with a folder of its own."""
    return tmp_path / name / "checkpoints" / "study" / "trial-00003" / f"attempt-{attempt:03d}.pt"


@pytest.fixture
def sent(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only copy, after one host has sent two checkpoints of an attempt."""
    monkeypatch.setattr(checkpoint_copies, "PAUSE_SECONDS", 0.0)
    copies = CheckpointCopies(url, host(tmp_path, "a", 1))
    copies.start()
    remote, place = Remote(url), "checkpoints/study/trial-00003"

    def there() -> list[bytes]:  # one may go between its name and its content, which is then empty
        return [b"".join(remote.read(f"{place}/{name}")) for name in remote.names(place)]

    for content in (b"first", b"second"):
        copies.offer(content)
        wait_until(lambda: there() == [content], "it alone")  # noqa: B023
    (copy,) = (tmp_path / "remote" / place).iterdir()
    return copy


def test_a_folder_that_was_out_of_reach_at_first_gets_what_is_offered_later(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def away_at_first(url: str) -> Remote:
        asked.append(url)
        if len(asked) == 1:
            raise AssetError("nobody answers")
        return Remote(url)

    monkeypatch.setattr(checkpoint_copies, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint_copies, "Remote", away_at_first)
    copies = CheckpointCopies(url, host(tmp_path, "a", 1))
    copies.start()
    copies.offer(b"first")
    wait_until(lambda: asked, "a look")
    copies.offer(b"second")
    wait_until(lambda: Remote(url).names("checkpoints/study/trial-00003"), "a copy")


def test_a_trial_goes_on_where_another_host_s_last_copy_ends(tmp_path: Path, url: str) -> None:
    study = read_study(builtin_studies()["digits"])
    task, pins = TrialTask(study=study, hyperparameters={}, seed=3), AssetPins(dataset_sha256="d", teacher_sha256="t")
    training: Any = SimpleNamespace(
        state_dict=lambda: {"epoch": 1}, network=SimpleNamespace(body=torch.nn.Linear(1, 1))
    )
    open_journal(host(tmp_path, "a", 1), task, pins, remote=url).keep(training, METRICS)
    wait_until(lambda: Remote(url).names("checkpoints/study/trial-00003"), "a copy")
    earlier = open_journal(host(tmp_path, "b", 2), task, pins, remote=url).earlier
    assert earlier is not None
    assert (earlier.metrics, earlier.training) == ((METRICS,), {"epoch": 1})
    assert open_journal(host(tmp_path, "c", 2), task, pins).earlier is None


def test_another_host_finds_the_newest(tmp_path: Path, url: str, sent: Path) -> None:
    path = host(tmp_path, "b", 2)
    CheckpointCopies(url, path).fetch()
    (found,) = path.parent.iterdir()
    assert found.match("attempt-001.*.pt")
    assert found.read_bytes() == b"second"


def test_the_host_that_trained_keeps_its_own(tmp_path: Path, url: str, sent: Path) -> None:
    own = host(tmp_path, "a", 1)
    own.parent.mkdir(parents=True)
    own.write_bytes(b"further")
    CheckpointCopies(url, host(tmp_path, "a", 2)).fetch()
    assert [path.read_bytes() for path in own.parent.iterdir()] == [b"further"]


def test_what_is_damaged_or_nobody_s_is_left_there(
    tmp_path: Path, url: str, sent: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sent.write_bytes(b"secon")
    sent.with_name("attempt-001.pt").write_bytes(b"without a hash")
    path = host(tmp_path, "b", 2)
    with caplog.at_level(logging.WARNING):
        CheckpointCopies(url, path).fetch()
    assert not path.parent.exists()
    assert "damaged" in caplog.text


def test_a_trial_that_ended_leaves_none(url: str, tmp_path: Path, sent: Path) -> None:
    other = "checkpoints/study/trial-00004/attempt-001.x.pt"
    Remote(url).write(other, [b"x"])
    remove_copies(url, host(tmp_path, "b", 2))
    assert not sent.parent.exists()
    assert list(Remote(url).read(other)) == [b"x"]


def test_a_folder_out_of_reach_is_told_and_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"a file")
    path = host(tmp_path, "b", 2)
    with caplog.at_level(logging.WARNING):
        CheckpointCopies(f"file://{tmp_path}/file", path).fetch()
    remove_copies(f"file://{tmp_path}/file", path)
    assert "goes on from what is here" in caplog.text
