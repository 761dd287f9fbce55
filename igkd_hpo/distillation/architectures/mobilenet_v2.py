"""MobileNet-V2 for small images, shortened from its end."""

from typing import TYPE_CHECKING, cast

from igkd_hpo.distillation.architectures import Architecture, Knob, Request, Taps
from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role

if TYPE_CHECKING:
    from torch import Tensor, nn

# Rows of (expansion, channels, blocks, first stride). Against the ImageNet form, the stem and the 24-channel stage keep
# the resolution, since 32x32 images have none to give away.
_SETTING = [[1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]]
_STRIDES = [1, *(1 if number else stride for *_, blocks, stride in _SETTING for number in range(blocks)), 1]
_BLOCKS = 19  # the stem, the 17 blocks of the setting, and the last 1x1 convolution


def mobilenet_v2(*, num_classes: int, width: float = 1.0, layers_removed: int = 0, dropout: float = 0.0) -> "nn.Module":
    """Return a MobileNet-V2 for small images, without its last `layers_removed` blocks, freshly initialised.

    Takes float32 (B, 3, H, W) of any H and W from 1 up, gives logits (B, num_classes). State-dict keys are
    `features.<block>.*` and `classifier.1.*`. Weights are drawn from torch's global generator. Arguments outside their
    ranges raise ValueError.

    Args:
        width: above 0; multiplies every channel count, which is then rounded to a multiple of 8.
        layers_removed: 0 to 17; 5 of the full-width network leaves 543,498 parameters for 10 classes.
        dropout: probability before the last layer, in [0, 1).

    Source: Sandler et al. 2018, arXiv 1801.04381; shortened as in arXiv 2503.13008.
    """
    from torch import nn
    from torchvision.models import MobileNetV2

    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; a classifier needs 2 or more")
    if not width > 0:
        raise ValueError(f"width is {width}; it must be above 0")
    if not 0 <= layers_removed <= _BLOCKS - 2:
        raise ValueError(f"layers_removed is {layers_removed}; it must be 0 to {_BLOCKS - 2}")
    network = MobileNetV2(num_classes=num_classes, width_mult=width, inverted_residual_setting=_SETTING)
    network.features[0][0].stride = (1, 1)
    network.features = network.features[: _BLOCKS - layers_removed]
    head = nn.Linear(network.features[-1].out_channels, num_classes)
    nn.init.normal_(head.weight, std=0.01)  # torchvision's own initialisation of the layer that this one replaces
    nn.init.zeros_(head.bias)
    network.classifier = nn.Sequential(nn.Dropout(dropout), head)
    return cast("nn.Module", network)


def build(request: Request, *, width: float, layers_removed: int) -> "nn.Module":
    """Return the `mobilenet_v2` that is asked for."""
    return mobilenet_v2(num_classes=request.num_classes, width=width, layers_removed=layers_removed)


def plain_code(request: Request, *, width: float, layers_removed: int) -> str:
    """Return code that builds what `mobilenet_v2` builds, but for the weights that it begins with."""
    num_classes = request.num_classes
    return f"""from torch import nn
from torchvision.models import MobileNetV2

setting = {_SETTING}
body = MobileNetV2(num_classes={num_classes}, width_mult={width!r}, inverted_residual_setting=setting)
body.features[0][0].stride = (1, 1)
body.features = body.features[:{_BLOCKS - layers_removed}]
body.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(body.features[-1].out_channels, {num_classes}))"""


def take_apart(body: "nn.Module") -> Taps | None:
    """Return the blocks of a MobileNet-V2, which have the resolution of the teacher's blocks of the same number.

    That of the ImageNet form, whose blocks have other resolutions, is None.
    """
    import torch.nn.functional as F
    from torch import nn
    from torchvision.models import MobileNetV2

    if not isinstance(body, MobileNetV2):
        return None
    convolutions = ([part for part in block.modules() if isinstance(part, nn.Conv2d)] for block in body.features)
    if [max((part.stride[0] for part in parts), default=1) for parts in convolutions] != _STRIDES[: len(body.features)]:
        return None

    def head(feature: "Tensor") -> "Tensor":
        return cast("Tensor", body.classifier(F.adaptive_avg_pool2d(feature, (1, 1)).flatten(1)))

    return Taps(body.features, [block.out_channels for block in body.features], head)


_LAYERS_REMOVED = Hyperparameter(
    "Blocks cut from the end of MobileNet-V2; 5 of the full-width one is the paper's 4.1x student.",
    Role.ARCHITECTURE, whole=True, high=_BLOCKS - 2, default=5)  # fmt: skip
WIDTH = Hyperparameter("Channel multiplier.", Role.ARCHITECTURE, low=0.1, high=4, default=1.0)
ARCHITECTURE = Architecture(
    called="MobileNet-V2, cut and scaled",
    build=build,
    taps=take_apart,
    code=plain_code,
    knobs={"layers_removed": Knob(_LAYERS_REMOVED, "high"), "width": Knob(WIDTH, "low")},
)
