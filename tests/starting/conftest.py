"""What images, machines and networks can be, without any of them."""

from typing import Any

from igkd_hpo.config.cost import StudentCost
from igkd_hpo.config.study import Limits
from igkd_hpo.starting.balance import choose_balance
from igkd_hpo.starting.choice import Choice, choose_study
from igkd_hpo.starting.images import ImageFacts
from igkd_hpo.starting.networks import BUILT_IN, Machine, Network, StepTime, Survey, students_of
from igkd_hpo.starting.size import sizes_to_try
from igkd_hpo.starting.students import fitting_students
from igkd_hpo.starting.teacher import Wanted, candidates, choose_teacher
from igkd_hpo.starting.weights import Place

CPU = Machine(device="cpu", cores=2, free_bytes=8 << 30)
GPU = Machine(device="Some GPU", cores=8, free_bytes=40 << 30)
LITE0 = {"timm/tf_efficientnet_lite0": Place("/w/lite0.pth", "of a package")}
PRETRAINED = LITE0 | {"torchvision/shufflenet_v2_x0_5": Place(None, "in a cache")}  # a student too
PARAMETERS = {
    "timm/lcnet_050": 600_000,
    "timm/mobilenetv4_conv_small_050": 960_000,
    "torchvision/shufflenet_v2_x0_5": 340_000,
    "timm/starnet_s050": 410_000,
    "timm/mobilenetv3_small_100": 1_500_000,
    "timm/mobilenetv4_conv_small": 2_500_000,
    "timm/tf_efficientnet_lite0": 3_400_000,
    "torchvision/mobilenet_v2": 2_200_000,
    "torchvision/resnet50": 25_000_000,
    BUILT_IN: 2_200_000,
}


def photographs(**changes: Any) -> ImageFacts:
    """Two thousand photographs in four classes, a little longer than wide."""
    facts: dict[str, Any] = {
        "root": "photos",
        "class_names": ("ash", "birch", "elm", "oak"),
        "train": (500,) * 4,
        "validation": (0,) * 4,
        "test": (0,) * 4,
        "looked_at": 2000,
        "short": 300,
        "long": 400,
        "smallest": 200,
        "largest": 900,
        "elongated": 0.9,
        "ink": 0.1,
    }
    return ImageFacts(**(facts | changes))


def cost_of(network: Network) -> StudentCost:
    """A cost that grows with the side, and falls with what is removed."""
    knobs: dict[str, Any] = dict(network.knobs)
    share = 0.2 ** knobs.get("stages_removed", 0) * (1 - knobs.get("layers_removed", 0) / 20) * knobs.get("width", 1.0)
    parameters = int(PARAMETERS[network.architecture] * share)
    return StudentCost(parameters=parameters, macs=parameters * network.side**2, size_kb=parameters * 4 / 1024)


def choose(
    images: ImageFacts,
    machine: Machine = CPU,
    *,
    limits: Limits | None = None,
    places: dict[str, Place] | None = None,
    seconds: float | None = 1e-3,
    wanted: Wanted | None = None,
) -> Choice:
    """The study of these images at the first size, where a step takes `seconds` for an image and each million
    parameters; None where no step came to its end."""
    limits, places = limits or Limits(), LITE0 if places is None else places
    balance, sizing = choose_balance(images), sizes_to_try(images, machine)[0]
    students = students_of(sizing.side)
    plans = candidates(images, machine, sizing, places, wanted)
    networks = [*students, *(plan.network for plan in plans)]
    costs = {network: cost_of(network) for network in networks}
    timed = networks if seconds is not None else []
    times = {n: StepTime(*((seconds or 0) * costs[n].parameters / 1e6 * share for share in (1, 0.3))) for n in timed}
    survey = Survey(costs=costs, times=times, weights=places)
    return choose_study(
        name="photos",
        images=images,
        machine=machine,
        limits=limits,
        sizing=sizing,
        balance=balance,
        survey=survey,
        teacher=choose_teacher(plans, survey, balance.n_train),
        students=fitting_students(students, survey, limits, below=costs[plans[0].network].parameters),
    )
