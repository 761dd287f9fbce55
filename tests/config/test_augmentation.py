"""Crops by padding, or numbered boxes: each says what the other cannot have."""

from typing import Any

import pytest
from pydantic import ValidationError

from igkd_hpo.config.study import Augmentation


def test_padding_is_the_default_and_is_written_as_it_always_was() -> None:
    assert Augmentation().model_dump() == {"crop_padding": 4, "horizontal_flip": True}
    assert Augmentation(crop_padding=None) == Augmentation(crop_padding=4)


def test_boxes_have_a_scale_and_no_padding_and_can_be_read_again() -> None:
    boxes = Augmentation(views=16)
    assert (boxes.crop_padding, boxes.scale) == (0, (0.35, 1.0))
    assert Augmentation.model_validate(boxes.model_dump(mode="json")) == boxes


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("views", {"views": 0}),
        ("views", {"views": 1001}),
        ("scale", {"scale": [0.5, 1.0]}),
        ("scale", {"views": 4, "scale": [0.9, 0.5]}),
        ("scale", {"views": 4, "scale": [0.0, 1.0]}),
        ("scale", {"views": 4, "scale": [0.5, 1.1]}),
        ("scale", {"views": 4, "scale": [0.5, 0.7, 0.9]}),
        ("crop_padding", {"views": 4, "crop_padding": 4}),
        ("mixed", {"mixed": 0.5}),
        ("mixed", {"views": 4, "mixed": 0.0}),
        ("mixed", {"views": 4, "mixed": 1.5}),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(key: str, given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        Augmentation.model_validate(given)
    assert refused.value.errors()[0]["loc"][0] == key
