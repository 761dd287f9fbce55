"""Where things are: what wins over what, and what is never shown."""

from pathlib import Path

import pytest
from sqlalchemy import URL

import igkd_hpo
from igkd_hpo.errors import StudyFileError, UsageError
from igkd_hpo.search.storage_url import check_url, mask
from igkd_hpo.settings import Settings, host_name, sqlite_url


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


@pytest.mark.parametrize("name", ["why?1", "no. #1", "50%", "a%20b", "two words", "Blüten ☘", "{x}", "a&mode=memory"])
def test_the_default_database_is_in_the_folder_whatever_its_name(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    url = Settings.resolve().storage_url
    assert check_url(url) == check_url(mask(url)) == URL.create("sqlite", database=f"{folder}/storage/igkd_hpo.db")


def test_a_folder_that_no_url_can_name_is_refused() -> None:
    with pytest.raises(UsageError, match="is not UTF-8"):
        sqlite_url(Path("/data/gr\udcfcn"))


def test_a_tilde_is_the_home_folder_wherever_a_path_comes_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("IGKD_HPO_DATA", "~/pictures")
    assert Settings.resolve().data_path("flowers") == tmp_path / "pictures" / "flowers"
    assert Settings.resolve().data_path("~/flowers") == tmp_path / "flowers"
    assert check_url("sqlite:///~/x.db").database == f"{tmp_path}/x.db"
    (tmp_path / "own.yaml").write_text("name: own")
    with pytest.raises(StudyFileError, match="dataset"):  # it was read
        igkd_hpo.validate("~/own.yaml")
    with pytest.raises(UsageError, match="home folder that is not known"):
        check_url("sqlite:///~nobody-of-this-name/x.db")


def test_an_error_names_the_variable_that_the_storage_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", "mysql://of/another_project")
    for call in (igkd_hpo.status, igkd_hpo.open_study, igkd_hpo.launch):
        with pytest.raises(UsageError, match="OPTUNA_STORAGE"):
            call()
    monkeypatch.setenv("IGKD_HPO_STORAGE", "sqlite:///ours.db")
    with pytest.raises(UsageError, match="IGKD_HPO_STORAGE"):
        igkd_hpo.status()
    with pytest.raises(UsageError, match="no database") as error:
        igkd_hpo.status(storage="sqlite:///given.db")
    assert "_STORAGE" not in str(error.value)


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


@pytest.mark.parametrize("text", ["some", "0"])
def test_which_checkpoints_stay(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    assert not Settings.resolve().keep_checkpoints
    monkeypatch.setenv("IGKD_HPO_KEEP_CHECKPOINTS", "all")
    assert Settings.resolve().keep_checkpoints
    monkeypatch.setenv("IGKD_HPO_KEEP_CHECKPOINTS", text)
    with pytest.raises(UsageError, match=f"IGKD_HPO_KEEP_CHECKPOINTS is '{text}'"):
        Settings.resolve()
