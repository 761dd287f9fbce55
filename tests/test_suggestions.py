"""The name that an unknown one is taken to mean."""

import pytest

from igkd_hpo.errors import nearest

NETWORKS = ["lcnet_035", "lcnet_050", "lcnet_075", "lcnet_100", "resnet18", "resnet34"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("lcnet_05", "lcnet_050"),
        ("LCNET_100", "lcnet_100"),
        ("res", "resnet18"),
        ("vit", None),
    ],
)
def test_of_several_near_names_the_one_that_was_cut_short_is_meant(given: str, meant: str | None) -> None:
    assert nearest(given, NETWORKS) == meant
