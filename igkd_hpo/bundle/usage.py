"""Use of a bundle without this project: what its weights' file says of itself, and plain code for people to copy."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from igkd_hpo.bundle import contents
from igkd_hpo.bundle.onnx_files import InputFacts
from igkd_hpo.config.space import Value
from igkd_hpo.distillation.architectures import Request, find_architecture
from igkd_hpo.distillation.recipe import knobs_of, own_knobs_of
from igkd_hpo.image_fit import Fit

if TYPE_CHECKING:
    from igkd_hpo.assets.weights import Weights
    from igkd_hpo.distillation.models import Network

FORMAT = "1"
_INPUT = "RGB pixels in [0, 1], float32 (N, 3, H, W), minus mean, divided by std"
# As `image_file.read_image` reads an ordinary photograph; a test compares them.
_READ = """image = Image.open("photo.jpg")
image.draft(None, (2 * width, 2 * height))
image = ImageOps.exif_transpose(image).convert("RGB")"""
_FIT: dict[Fit, str] = {
    "squeeze": "image = image.resize((width, height), Image.Resampling.BILINEAR)",
    "crop": """side = min(image.size)
left, top = (image.width - side) // 2, (image.height - side) // 2
box = (left, top, left + side, top + side)
image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)""",
    "pad": """scale = width / max(image.size)
size = [max(1, round(side * scale)) for side in image.size]
inner = image.resize(size, Image.Resampling.BILINEAR)
image = Image.new("RGB", (width, height), tuple(round(mean) for mean in ImageStat.Stat(inner).mean))
image.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))""",
}


def weights_metadata(
    network: "Network",
    facts: InputFacts,
    *,
    hyperparameters: Mapping[str, Value],
    began_with: "Weights | None",
) -> dict[str, str]:
    """Return the metadata of the weights' file: all that somebody needs to use them, lists and mappings as JSON.

    Args:
        began_with: the weights that the network had before it was trained; None where they were random.
    """
    architecture = {"name": hyperparameters["architecture"], **own_knobs_of(hyperparameters)}
    code = building_code(hyperparameters, len(facts.class_names), facts.image_size)
    return {
        "format": "pt",
        "igkd_hpo_format": FORMAT,
        "architecture": json.dumps(architecture),
        **({"build": code} if code else {}),
        **({"began_with": json.dumps(_facts(began_with))} if began_with else {}),
        "input": _INPUT,
        "channels": json.dumps(3),
        "image_size": json.dumps(facts.image_size),
        **({} if facts.fit == "squeeze" else {"fit": json.dumps(facts.fit)}),
        "mean": json.dumps(network.mean.flatten().tolist()),
        "std": json.dumps(network.std.flatten().tolist()),
        "classes": json.dumps(facts.class_names),
    }


def _facts(weights: "Weights") -> dict[str, str | None]:
    return {"source": weights.source, "licence": weights.licence, "url": weights.url, "sha256": weights.sha256}


def building_code(hyperparameters: Mapping[str, Value], num_classes: int, image_size: tuple[int, int]) -> str | None:
    """Return plain code that builds the network as `body`, as it is shipped; None for one that has no code."""
    name = str(hyperparameters["architecture"])
    write = find_architecture(name).code
    request = Request(name=name, num_classes=num_classes, image_size=image_size)
    return None if write is None else write(request, **knobs_of(hyperparameters))


def _reading(fit: Fit) -> str:
    return f"{_READ}\n{_FIT[fit]}"


def onnx_code(fit: Fit) -> str:
    """Return code that shows an image to the float ONNX file, with onnxruntime, NumPy and Pillow alone."""
    return f"""import json
import numpy as np
import onnxruntime
from PIL import Image, ImageOps{", ImageStat" * (fit == "pad")}

session = onnxruntime.InferenceSession("{contents.ONNX}")
facts = session.get_modelmeta().custom_metadata_map
height, width = json.loads(facts["image_size"])
{_reading(fit)}
(logits,) = session.run(None, {{"images": np.asarray(image).transpose(2, 0, 1)[None]}})
print(json.loads(facts["classes"])[int(logits.argmax())])"""


def torch_code(build: str, fit: Fit) -> str:
    """Return code that shows an image to the weights, with PyTorch, torchvision, safetensors and Pillow alone."""
    return f"""import json
import torch
from PIL import Image, ImageOps{", ImageStat" * (fit == "pad")}
from safetensors import safe_open
from torchvision.transforms.functional import normalize, pil_to_tensor
{build}
with safe_open("{contents.WEIGHTS}", "pt") as file:
    facts = file.metadata()
    body.load_state_dict({{name: file.get_tensor(name) for name in file.keys()}})
height, width = json.loads(facts["image_size"])
{_reading(fit)}
pixels = normalize(pil_to_tensor(image)[None] / 255, json.loads(facts["mean"]), json.loads(facts["std"]))
with torch.inference_mode():
    logits = body.eval()(pixels)
print(json.loads(facts["classes"])[int(logits.argmax())])"""
