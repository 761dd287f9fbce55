"""People's own networks: `module:function`, whose module this machine was told to trust."""

from typing import TYPE_CHECKING

from igkd_hpo.distillation.architectures import Architecture, Request
from igkd_hpo.errors import UsageError
from igkd_hpo.own_code import call_function, code_version

if TYPE_CHECKING:
    from torch import nn


def build(request: Request) -> "nn.Module":
    """Return what the function returns, of a module that is installed or lies in the working directory.

    It is given `num_classes` and `image_size` where it takes arguments of these names.

    Raises:
        UsageError: the module is not among those that may be imported, or has no such function, or it raises, or does
            not return a network whose layers have their sizes.
    """
    from torch import nn
    from torch.nn.parameter import is_lazy

    name = request.name
    body = call_function(name, request.allow_import, num_classes=request.num_classes, image_size=request.image_size)
    if not isinstance(body, nn.Module):
        raise UsageError(f"{name} returned {type(body).__name__}; it must return a torch.nn.Module")
    if any(is_lazy(value) for value in (*body.parameters(), *body.buffers())):
        raise UsageError(
            f"{name} has layers that learn their size from their first input; "
            "run it once on a tensor (1, 3, height, width) in that function"
        )
    return body


def version(request: Request) -> str:
    """Return the hash of the file that the function is in, which is not run; "unknown" where none is found."""
    return code_version(request.name)


def deploy(body: "nn.Module") -> "nn.Module":
    """Return the network that its own method `deploy` returns, or has made of itself; itself where it has none.

    The method is called on a copy. RepVGG's code has an attribute of that name, which is none.
    """
    import copy

    from torch import nn

    if not callable(getattr(body, "deploy", None)):
        return body
    copied = copy.deepcopy(body)
    made = copied.deploy()  # type: ignore[operator]
    return made if isinstance(made, nn.Module) else copied


ARCHITECTURE = Architecture(build=build, form="module:function", deploy=deploy, foreign=True, version=version)
