import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from igkd_hpo.distillation.augmentation import jitter_colors


def test_colors_change_as_torchvision_changes_them() -> None:
    pixels = torch.rand(6, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    changes = 2 * torch.rand(6, 3, generator=torch.Generator().manual_seed(1)) - 1
    found = jitter_colors(pixels, changes)
    for j, (brightness, contrast, saturation) in enumerate((1 + changes).tolist()):
        expected = reference.adjust_brightness(pixels[j], brightness)
        expected = reference.adjust_contrast(expected, contrast)
        expected = reference.adjust_saturation(expected, saturation)
        torch.testing.assert_close(found[j], expected, atol=1e-3, rtol=0)  # whose weights have four digits


@pytest.mark.parametrize("shape", [(2, 3, 4, 4)])
def test_no_change_leaves_the_pixels_as_they_are(shape: tuple[int, ...]) -> None:
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(jitter_colors(pixels, torch.zeros(2, 3)), pixels)
