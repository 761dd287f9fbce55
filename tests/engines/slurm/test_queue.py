"""What the queue of Slurm is asked, and when it is left in peace."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igkd_hpo.engines.slurm import queue
from igkd_hpo.engines.slurm.queue import Queue, count_waiting
from igkd_hpo.search.counts import count
from igkd_hpo.search.status import StudyStatus
from igkd_hpo.settings import Paths, Settings

DIGITS = StudyStatus(name="digits", n_trials=8, counts=count([]), epochs=4)
SQUEUE = """\
#!/bin/bash
echo "$@" >> asked
printf '7 Resources\\n7 Resources\\n9 ReqNodeNotAvail, Reserved for maintenance\\n'
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    paths = Paths(root=tmp_path / "storage")
    return Settings(
        paths=paths, storage_url=f"sqlite:///{paths.database}", data_root=tmp_path, allow_import=frozenset()
    )


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stand-in for squeue was asked, a line each time."""
    (tmp_path / "squeue").write_text(SQUEUE)
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "asked").touch()
    return tmp_path / "asked"


def submitted(settings: Settings, *jobs: tuple[int, str, str]) -> None:
    settings.paths.logs.mkdir(parents=True)
    records = [{"job": job, "study": study, "storage": storage} for job, study, storage in jobs]
    settings.paths.slurm_jobs.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_tasks_of_this_database_that_wait_are_counted_by_reason(settings: Settings, asked: Path) -> None:
    here = settings.storage_url
    submitted(settings, (7, "digits", here), (8, "digits", "sqlite:///other.db"), (9, "more", here), (10, "done", here))
    studies = [DIGITS, replace(DIGITS, name="more"), replace(DIGITS, name="done", finished=True)]
    maintenance = "ReqNodeNotAvail, Reserved for maintenance"
    assert Queue(settings).waiting(studies) == {"digits": {"Resources": 2}, "more": {maintenance: 1}}
    assert asked.read_text().split("--jobs=") == [asked.read_text().split("--jobs=")[0], "7,9\n"]
    assert "2 for Resources" in Queue(settings).in_words(studies)["digits"]


def test_the_controller_is_asked_twice_a_minute_at_most(settings: Settings, asked: Path) -> None:
    now = [0.0]
    watched = Queue(settings, clock=lambda: now[0])
    submitted(settings, (7, "digits", settings.storage_url), (9, "digits", settings.storage_url))
    for seconds in (0, 2, 29, 31, 33):
        now[0] = seconds
        assert watched.waiting([DIGITS])
    assert len(asked.read_text().splitlines()) == 2


@pytest.mark.parametrize("notes", [None, "", "{", '{"job": 7}\n', "[]\n"])
def test_nobody_asks_where_nothing_was_submitted(settings: Settings, asked: Path, notes: str | None) -> None:
    if notes is not None:
        submitted(settings)
        settings.paths.slurm_jobs.write_text(notes)
    assert Queue(settings).waiting([DIGITS]) == {}
    assert asked.read_text() == ""


JOBS = {7: "digits", 9: "more"}
OURS = st.tuples(st.sampled_from(sorted(JOBS)), st.sampled_from(["Resources", "Held by a person"]))
OTHERS = st.text().filter(lambda text: not {line.partition(" ")[0] for line in text.splitlines()} & {"7", "9"})


@given(st.lists(OURS | OTHERS))
def test_what_else_stands_among_the_lines_counts_for_nothing(told: list[tuple[int, str] | str]) -> None:
    ours = [one for one in told if not isinstance(one, str)]
    text = "\n".join(one if isinstance(one, str) else f"{one[0]} {one[1]}" for one in told)
    counted = Counter((study, why) for study, whys in count_waiting(text, JOBS).items() for why in whys.elements())
    assert counted == Counter((JOBS[job], why) for job, why in ours)


def test_what_is_no_text_among_the_lines_counts_for_nothing(settings: Settings, asked: Path) -> None:
    asked.with_name("squeue").write_text("#!/bin/bash\nprintf 'Gr\\374ezi\\n\\n10 Resources\\n7 Resources\\n'\n")
    submitted(settings, (7, "digits", settings.storage_url))
    assert Queue(settings).waiting([DIGITS]) == {"digits": {"Resources": 1}}


@pytest.mark.parametrize("squeue", [None, "#!/bin/sh\nexec sleep 600\n", "#!/bin/sh\necho no controller >&2\nexit 1\n"])
def test_a_queue_out_of_reach_disturbs_nobody(
    settings: Settings, asked: Path, monkeypatch: pytest.MonkeyPatch, squeue: str | None
) -> None:
    monkeypatch.setattr(queue, "_PATIENCE_SECONDS", 0.05)
    submitted(settings, (7, "digits", settings.storage_url))
    if squeue is None:
        monkeypatch.setenv("PATH", "/nowhere")
    else:
        asked.with_name("squeue").write_text(squeue)
    assert Queue(settings).waiting([DIGITS]) == {}
