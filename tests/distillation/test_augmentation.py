import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from igkd_hpo.distillation.augmentation import jitter_colors, rand_augment


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


def test_random_changes_follow_torchs_seed_and_are_alike_for_eight() -> None:
    pixels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).expand(20, -1, -1, -1)
    torch.manual_seed(4)
    changed = rand_augment(pixels, 20)
    torch.manual_seed(4)
    assert torch.equal(rand_augment(pixels, 20), changed)
    assert changed.shape == pixels.shape
    assert ((changed >= 0) & (changed <= 1)).all()
    groups = [part.unique(dim=0) for part in changed.split(8)]
    assert [len(group) for group in groups] == [1, 1, 1]
    assert len(torch.cat(groups).unique(dim=0)) > 1
