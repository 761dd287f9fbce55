"""Loading of a teacher's weights from a file: tensors only, out of the usual wrappings, checked first."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from igkd_hpo.errors import DataError, first_line

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "body")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
_LAST_BLOCK = 18  # of MobileNet-V2's 19, counted from 0
_BLOCK_KEY = re.compile(r"features\.(\d+)\.")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the state dict from a file that torch.save wrote, without its wrappings.

    Raises:
        DataError: no such file, no file of torch.save, one that holds code and not only tensors, or no state dict.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"teacher.checkpoint {path} is not there; give the path of a state dict") from None
    except pickle.UnpicklingError as error:
        if not zipfile.is_zipfile(path):  # nor one of torch.save's; its oldest files, bare pickles, are not taken
            raise DataError(
                f"teacher.checkpoint {path} is not a file of torch.save; give one of torch.save(model.state_dict(), …)"
            ) from error
        raise DataError(
            f"teacher.checkpoint {path} holds more than tensors, which could run code when it is loaded; "
            "save it again as torch.save(model.state_dict(), path)"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise DataError(
            f"teacher.checkpoint {path} cannot be read ({first_line(error)}); "
            "it must be a file of torch.save(model.state_dict(), …)"
        ) from error
    return _unwrap(content, path)


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping) and (inner := [k for k in _WRAPPERS if isinstance(content.get(k), Mapping)]):
        content = content[inner[0]]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        shown = f"the keys {', '.join(map(str, list(content)[:4]))}" if isinstance(content, Mapping) else type(content)
        raise DataError(f"teacher.checkpoint {path} holds {shown} and no state dict; save model.state_dict()")
    state = {str(key): value for key, value in content.items()}
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def layers_removed(state: Mapping[str, Tensor]) -> int:
    """Return how many blocks a mobilenet_v2 state dict lacks at its end, from 0 to 17."""
    blocks = [int(match[1]) for key in state if (match := _BLOCK_KEY.match(key))]
    return min(max(_LAST_BLOCK - max(blocks, default=_LAST_BLOCK), 0), _LAST_BLOCK - 1)


def load_weights(body: nn.Module, state: Mapping[str, Tensor], *, path: Path, num_classes: int) -> None:
    """Load a state dict whose keys are all those of the body. Raises DataError with the likely cause if it differs."""
    expected = body.state_dict()
    missing = [key for key in expected if key not in state]
    unknown = [key for key in state if key not in expected]
    if missing or unknown:
        example = f"it lacks {missing[0]}" if missing else f"it has {unknown[0]}"
        raise DataError(
            f"teacher.checkpoint {path} is of another architecture ({example}; {len(missing)} keys missing, "
            f"{len(unknown)} unknown); set teacher.architecture to the one it was saved from"
        )
    differing = [key for key in expected if state[key].shape != expected[key].shape]
    if differing:
        first = differing[0]
        have, want = tuple(state[first].shape), tuple(expected[first].shape)
        if len(want) <= 2 and have[1:] == want[1:] and want[0] == num_classes:
            raise DataError(
                f"teacher.checkpoint {path} tells {have[0]} classes apart and the dataset has {num_classes}; "
                "fine-tune it on these classes first"
            )
        raise DataError(
            f"teacher.checkpoint {path} does not fit: {first} is {have} in the file and {want} in the network "
            f"({len(differing)} such); check teacher.width and teacher.architecture"
        )
    body.load_state_dict(state, strict=True)
