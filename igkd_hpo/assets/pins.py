"""What all hosts of a study must have alike: the content of its images and of its teacher."""

from dataclasses import dataclass

from igkd_hpo.errors import DataError, TeacherError


@dataclass(frozen=True, kw_only=True)
class AssetPins:
    """The content that all hosts of a study share, as SHA-256 in hexadecimal."""

    dataset_sha256: str
    teacher_sha256: str


def check_pins(name: str, pinned: AssetPins, here: AssetPins) -> None:
    """Raise DataError or TeacherError when this host's content is not the study's."""
    if here.dataset_sha256 != pinned.dataset_sha256:
        raise DataError(
            f"the images here (sha256 {here.dataset_sha256[:12]}) are not those of study {name!r} "
            f"({pinned.dataset_sha256[:12]}); copy the data of the host that created it, or use a new name"
        )
    if here.teacher_sha256 != pinned.teacher_sha256:
        raise TeacherError(
            f"the teacher here (sha256 {here.teacher_sha256[:12]}) is not that of study {name!r} "
            f"({pinned.teacher_sha256[:12]}); copy storage/assets of the host that created it, or use a new name"
        )
