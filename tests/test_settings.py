"""Where things are: what wins over what, and what is never shown."""

from pathlib import Path

import pytest

from igkd_hpo.errors import UsageError
from igkd_hpo.settings import Settings, host_name


def test_a_flag_wins_over_variables_and_variables_over_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Settings.resolve().storage_url == f"sqlite:///{tmp_path}/storage/igkd_hpo.db"
    monkeypatch.setenv("OPTUNA_STORAGE", "sqlite:///optuna.db")
    assert Settings.resolve().storage_url == "sqlite:///optuna.db"
    monkeypatch.setenv("IGKD_HPO_STORAGE", "sqlite:///ours.db")
    assert Settings.resolve().storage_url == "sqlite:///ours.db"
    assert Settings.resolve(storage_url="sqlite:///flag.db").storage_url == "sqlite:///flag.db"


def test_relative_paths_of_a_study_file_start_at_the_data_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Settings.resolve().data_path("pictures") == tmp_path / "pictures"
    monkeypatch.setenv("IGKD_HPO_DATA", "/data")
    assert Settings.resolve().data_path("pictures") == Path("/data/pictures")
    assert Settings.resolve().data_path("/else/where") == Path("/else/where")


def test_no_traceback_or_log_can_show_the_password() -> None:
    assert "s3cret" not in repr(Settings.resolve(storage_url="postgresql+psycopg://ann:s3cret@host/db"))


def test_the_lease_time_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.resolve().lease_seconds == 60
    monkeypatch.setenv("IGKD_HPO_LEASE_SECONDS", "7.5")
    assert Settings.resolve().lease_seconds == 7.5
    for wrong in ("0", "-3", "nan", "inf", "a minute"):
        monkeypatch.setenv("IGKD_HPO_LEASE_SECONDS", wrong)
        with pytest.raises(UsageError, match="IGKD_HPO_LEASE_SECONDS is '"):
            Settings.resolve()


def test_a_host_may_be_given_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    own = host_name()
    monkeypatch.setenv("IGKD_HPO_HOST", "rack-3")
    assert host_name() == "rack-3" != own
