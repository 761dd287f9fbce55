"""The table of students in the guide: parameters, multiply-adds, memory, and what an image costs in PyTorch and ONNX.

    python benchmarks/students.py
    python benchmarks/students.py --of timm/lcnet_050 torchvision/shufflenet_v2_x0_5 --sizes 96

Times are CPU time of one image on one thread, the median, as limits.latency_ms and a bundle have them. Weights are
random: of int8 the table says what it costs in time, never in accuracy.
"""

import argparse
import platform
import tempfile
from pathlib import Path

import numpy as np
import torch

from igkd_hpo.bundle.onnx_files import InputFacts, write_onnx
from igkd_hpo.bundle.quantisation import WAYS, write_int8
from igkd_hpo.bundle.runtime import OnnxStudent
from igkd_hpo.distillation.cost import count_macs, time_forward
from igkd_hpo.distillation.device import processor
from igkd_hpo.distillation.models import Network, count_parameters
from igkd_hpo.distillation.peak_memory import count_peak_activations
from igkd_hpo.trial.student import deployed, make_body

STUDENTS = (
    "mobilenet_v2",
    "torchvision/shufflenet_v2_x0_5",
    "timm/lcnet_050",
    "timm/starnet_s050",
    "timm/tinynet_e",
    "timm/mobilenetv4_conv_small_050",
    "timm/mobilenetv4_conv_small",
    "timm/mobilenetv3_small_100",
    "torchvision/mobilenet_v2",
    "timm/efficientnet_lite0",
    "timm/mobileone_s0",
    "timm/repvgg_a0",
    "timm/resnet18",
)
CLASSES = 10
_CALIBRATION = 8  # images: the time of an operator does not depend on its ranges


def measure(name: str, size: int, folder: Path) -> dict[str, float]:
    """Return the costs of a student of this name for images of this size, in the form that is shipped."""
    values = {"architecture": name, "layers_removed": 5, "width": 1.0, "stages_removed": 0}
    torch.manual_seed(0)
    trained = make_body(values, CLASSES, (size, size), frozenset())
    body = deployed(trained, name)
    latency = time_forward(body, (size, size)).median
    macs = count_macs(body, (size, size))
    ram = count_peak_activations(body, (size, size)) / 1024
    found = {
        "trained": count_parameters(trained),
        "parameters": count_parameters(body),
        "macs": macs,
        "ram": ram,
        "torch": latency,
    }
    network = Network(body, (0.5,) * 3, (0.25,) * 3).eval()
    classes = tuple(map(str, range(CLASSES)))
    write_onnx(
        network, folder / "f.onnx", InputFacts(class_names=classes, image_size=(size, size), bits=None, fit="squeeze")
    )
    images = np.random.default_rng(0).integers(0, 256, (_CALIBRATION, 3, size, size), dtype=np.uint8)
    write_int8(folder / "f.onnx", folder / "i.onnx", images, images, ways=WAYS[:1])
    for key, file in (("float", "f.onnx"), ("int8", "i.onnx")):
        found[key] = OnnxStudent(folder / file).latency(images[:1]).median
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", nargs="+", default=STUDENTS, metavar="NAME")
    parser.add_argument("--sizes", nargs="+", type=int, default=[96, 224], metavar="PIXELS")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{processor(torch.device('cpu'))}, Python {platform.python_version()}, torch {torch.__version__}\n")
    print("| student | pixels | parameters | M multiply-adds | peak KiB | PyTorch ms | ONNX ms | int8 ms |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in options.of:
        for size in options.sizes:
            with tempfile.TemporaryDirectory() as folder:
                found = measure(name, size, Path(folder))
            trained = f" ({found['trained']:,} trained)" if found["trained"] != found["parameters"] else ""
            print(
                f"| `{name}` | {size} | {found['parameters']:,}{trained} | {found['macs'] / 1e6:.1f} | "
                f"{found['ram']:,.0f} | {found['torch']:.2f} | {found['float']:.2f} | {found['int8']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
