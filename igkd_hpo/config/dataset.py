"""The section `dataset` of a study file: which images, and how they are split."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, WithJsonSchema, field_validator

from igkd_hpo.config.space import LARGEST_SEED, Frozen
from igkd_hpo.image_fit import Fit
from igkd_hpo.sources import FORMS, Source, find_source


def _known(name: str) -> str:
    find_source(name)
    return name


def _source_of(info: ValidationInfo) -> Source | None:
    """Return the source that the section names; None where it names none."""
    return find_source(info.data["name"]) if "name" in info.data else None


_PLAIN = [form for form, source in FORMS.items() if source.form is None]
SourceName = Annotated[
    str,
    AfterValidator(_known),
    WithJsonSchema({"type": "string", "anyOf": [{"enum": _PLAIN}, {"pattern": "^(torchvision|huggingface)/|:"}]}),
]
_NAMES = ", ".join(f"{name} ({source.help})" for name, source in FORMS.items()) + "."
_ROOTS = "; ".join(f"{name}: {source.about_root}" for name, source in FORMS.items() if source.root != "unused") + "."
Store = Literal["arrays", "jpeg"]
"""How the images are kept."""


class DatasetConfig(Frozen):
    """The images, and their splits. The test split is never part of a search."""

    name: SourceName = Field(description=_NAMES)
    root: str | None = Field(default=None, validate_default=True, description=_ROOTS)
    image_size: int | None = Field(default=None, ge=8, le=1024, validate_default=True)
    """Pixels: images are resized to this square; null keeps the dataset's own size, where all have one."""
    fit: Fit = Field(default="squeeze", exclude_if=lambda fit: fit == "squeeze")
    """How images that are no squares become one of image_size: crop takes the square in the middle, pad all of
    the image and its mean colour around it, squeeze all of it in another shape."""
    bits: int | None = Field(default=None, ge=8, le=16, exclude_if=lambda bits: bits is None)
    """folder: bits that 16-bit images really use, such as 12: the largest such number is white; null: all 16."""
    follow_links: bool = Field(default=False, exclude_if=lambda follow: not follow)
    """folder: read also what links, and paths in a list, lead to outside of root; what stays inside is always read."""
    image_column: str | None = Field(default=None, min_length=1, exclude_if=lambda column: column is None)
    """huggingface: the column of the images; null: the only one of that kind."""
    label_column: str | None = Field(default=None, min_length=1, exclude_if=lambda column: column is None)
    """huggingface: the column of the class labels; null: the only one of that kind."""
    store: Store = Field(default="arrays", exclude_if=lambda store: store == "arrays")
    """How images are kept: arrays as they are; jpeg in a fifth of the room, decoded in each step, which is for many
    images of more than 96 pixels. Their pixels change by 1.5 levels of 256 on average."""
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training images held out for validation, only where the dataset brings no such split (val/)."""
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share held out as the test split, only where the dataset brings none of its own."""
    split_seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    """Seed of the splits."""

    @field_validator("root")
    @classmethod
    def _root_fits(cls, root: str | None, info: ValidationInfo) -> str | None:
        source = _source_of(info)
        if root is not None and "\0" in root:
            raise ValueError(f"{root!r} holds the character 0, which no path has; remove it")
        if source and source.root == "needed" and root is None:
            name = info.data["name"]
            raise ValueError(f"a {name} dataset needs root, {source.about_root.replace('`', '')}")
        if source and source.root == "unused" and root is not None:
            raise ValueError(f"{root!r} is not used: {source.about_root}; remove root")
        return root

    @field_validator("image_size")
    @classmethod
    def _resizable(cls, image_size: int | None, info: ValidationInfo) -> int | None:
        source = _source_of(info)
        if source and not source.resizes and image_size is not None:
            raise ValueError(f"{image_size} is not used: {info.data['name']} keeps its own size; remove image_size")
        if source and source.needs_size and image_size is None:
            raise ValueError(f"{info.data['name']} has images of many sizes; give image_size, such as 64")
        return image_size

    @field_validator("fit", "bits", "follow_links", "image_column", "label_column")
    @classmethod
    def _taken_by_the_source(cls, value: int | str | None, info: ValidationInfo) -> int | str | None:
        source, key = _source_of(info), str(info.field_name)
        if source and value != cls.model_fields[key].default and key not in source.options:
            takers = ", ".join(name for name, other in FORMS.items() if key in other.options)
            shown = repr(value) if key.endswith("_column") else str(value).lower()
            raise ValueError(f"{shown} is for {takers} datasets, not for {info.data['name']}; remove {key}")
        return value

    @field_validator("fit")
    @classmethod
    def _fits_a_square(cls, fit: Fit, info: ValidationInfo) -> Fit:
        if fit != "squeeze" and "image_size" in info.data and info.data["image_size"] is None:
            raise ValueError(f"{fit} makes squares of image_size, which is not given; add image_size, or remove fit")
        return fit
