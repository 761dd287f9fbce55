"""Parts of the report's figures that are not seen in its text."""

import pytest

from igkd_hpo.config.space import WordChoices
from igkd_hpo.report import figures
from igkd_hpo.report.pictures import new_figure


@pytest.mark.parametrize(
    ("choices", "slant"),
    [(("kd", "dkd"), 0), (("timm/lcnet_050", "timm/mobilenetv4_conv_small_050", "torchvision/resnet18"), 45)],
)
def test_names_that_do_not_fit_side_by_side_are_slanted_and_cut(choices: tuple[str, ...], slant: int) -> None:
    axis = new_figure(width=2, height=2).subplots()
    figures._scale(axis, WordChoices(type="categorical", choices=choices))
    labels = axis.get_xticklabels()
    assert [label.get_rotation() for label in labels] == [slant] * len(choices)
    assert all("/" not in label.get_text() and len(label.get_text()) <= 20 for label in labels)
