"""Hashes of a study's images and teacher, which must be the same on all its hosts."""

from dataclasses import dataclass, field

from igkd_hpo.errors import DataError, TeacherError


@dataclass(frozen=True, kw_only=True)
class AssetPins:
    """Hashes of the content that all hosts of a study share, SHA-256 in hexadecimal.

    Args:
        weights_sha256: of what students begin with; None where they begin at random.
        shown_sha256: of the images at the teacher's own size; None where it sees the student's, and for studies from
            before it had its own.
        teacher_accuracy: on the validation images, a fraction; told to people, and not compared. None while unknown.
        own_validation: whether the images bring their validation split; false also for studies from before it was read.
    """

    dataset_sha256: str
    teacher_sha256: str
    own_validation: bool = False
    weights_sha256: str | None = None
    shown_sha256: str | None = None
    teacher_accuracy: float | None = field(default=None, compare=False)


def check_images_pin(name: str, pinned: AssetPins, *, sha256: str, own_validation: bool, change: str = "") -> None:
    """Raise DataError when this host's images are not the study's.

    Args:
        sha256: of the images here.
        own_validation: whether they bring their validation split.
        change: what is known of the difference, in words.
    """
    if sha256 == pinned.dataset_sha256:
        return
    if own_validation and not pinned.own_validation:
        raise DataError(
            f"study {name!r} was made when val was not read, and validated on a share of train; "
            "move val elsewhere to go on with it, or use a new name"
        )
    advice = "change that back" if change else "copy the data of the host that created it"
    raise DataError(
        f"the images here (sha256 {sha256[:12]}) are not those of study {name!r} ({pinned.dataset_sha256[:12]})"
        f"{change and ': '}{change}; {advice}, or use a new name"
    )


def check_pins(name: str, pinned: AssetPins, own: AssetPins) -> None:
    """Raise DataError or TeacherError when this host's own content is not the study's."""
    check_images_pin(name, pinned, sha256=own.dataset_sha256, own_validation=own.own_validation)
    if own.weights_sha256 != pinned.weights_sha256:
        here, there = ((pins.weights_sha256 or "none")[:12] for pins in (own, pinned))
        raise DataError(
            f"the weights here that students begin with (sha256 {here}) are not those of study {name!r} ({there}); "
            "copy storage/assets of the host that created it, or use a new name"
        )
    if own.shown_sha256 != pinned.shown_sha256:
        if pinned.shown_sha256 is None:
            raise DataError(
                f"study {name!r} was made when a teacher with input_size saw the student's images, enlarged, and not "
                "the files at its own size; use a new name"
            )
        raise DataError(
            f"the images here at the teacher's size (sha256 {(own.shown_sha256 or 'none')[:12]}) are not those of "
            f"study {name!r} ({pinned.shown_sha256[:12]}); copy storage/assets of the host that created it, or use a "
            "new name"
        )
    if own.teacher_sha256 != pinned.teacher_sha256:
        raise TeacherError(
            f"the teacher here (sha256 {own.teacher_sha256[:12]}) is not that of study {name!r} "
            f"({pinned.teacher_sha256[:12]}); copy storage/assets of the host that created it, or use a new name"
        )
