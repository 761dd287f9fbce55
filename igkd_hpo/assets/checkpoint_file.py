"""Look at a checkpoint before anything of it is loaded: a regular file, of a known format, no larger than it says."""

import json
import os
import stat
import struct
import zipfile
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from igkd_hpo.assets.host_memory import free_memory
from igkd_hpo.errors import DataError, first_line
from igkd_hpo.files import kind_of_file, open_regular

_SAVE = "save it as torch.save(model.state_dict(), path)"
# What torch.save writes of names, shapes and everything that is no tensor; an unpickler makes some 60 bytes of each.
# With its optimizer, a network of 1,000 tensors has 0.6 MB.
_LARGEST_PICKLE = 1 << 24
_LARGEST_HEADER = 1 << 24  # of safetensors: 100,000 tensors have 10 MB
_HEAD = 64
_OLD_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # of torch.save before 1.6, and without its zip since
_ELSE = {  # beginnings of what people have under the name of a checkpoint
    b"version https://git-lfs": ("is a Git LFS pointer and not the file", "run git lfs pull"),
    b"<": ("is a web page", "download the file itself"),
    b"\x89HDF": ("is an HDF5 file, as Keras writes them", _SAVE),
    b"\x1f\x8b": ("is compressed with gzip", "unpack it first"),
    b"\x80": ("is a bare pickle, which could run code when it is loaded", _SAVE),
}


class Format(Enum):
    """The format of a checkpoint."""

    ZIP = "torch.save"
    OLD = "torch.save before 1.6"
    SAFETENSORS = "safetensors"


def find_format(path: Path, *, called: str = "teacher.checkpoint") -> Format:
    """Return the format of a checkpoint, of which only the beginning and the table of contents are read.

    Raises:
        DataError: it is not there, is no regular file (a folder, a pipe, a device), is of no known format, holds less
            or more than it says, or needs more memory than there is.
    """
    name = f"{called} {path}"
    try:
        mode = path.stat().st_mode  # before it is opened: that alone waits at a pipe, and does things to some devices
        if not stat.S_ISREG(mode):
            raise DataError(f"{name} is {kind_of_file(mode)} and no file; give the path of a state dict")
        with open_regular(path) as file:
            status, head = os.fstat(file.fileno()), file.read(_HEAD)
            found = _recognise(name, head, status.st_size)
            if found is Format.ZIP:
                _check_zip(name, file, status.st_size)
            elif found is Format.SAFETENSORS:
                file.seek(0)
                _check_safetensors(name, file.read(8 + struct.unpack("<Q", head[:8])[0]), status.st_size)
    except FileNotFoundError:
        raise DataError(f"{name} is not there; give the path of a state dict") from None
    except (OSError, ValueError) as error:  # a path with a zero in it is a ValueError
        raise DataError(f"{name} cannot be read ({first_line(error)}); check the path and its permissions") from None
    if found is Format.OLD and status.st_size > (free := free_memory()):  # the others are mapped, not read
        raise DataError(f"{name} has {status.st_size:,} bytes and {free:,} are free; {_SAVE}")
    return found


def _recognise(name: str, head: bytes, size: int) -> Format:
    if not head:
        raise DataError(f"{name} is empty; {_SAVE}")
    if head.startswith(b"PK\x03\x04"):
        return Format.ZIP
    if head[:1] == b"\x80" and _OLD_MAGIC in head:
        return Format.OLD
    if len(head) > 8 and head[8:9] == b"{":
        length = struct.unpack("<Q", head[:8])[0]
        if length > min(size - 8, _LARGEST_HEADER):
            raise DataError(
                f"{name} is damaged: its safetensors header says {length:,} bytes, the file has {size:,}; copy it again"
            )
        return Format.SAFETENSORS
    for beginning, (what, advice) in _ELSE.items():
        if head.lstrip().startswith(beginning) or head.startswith(beginning):
            raise DataError(f"{name} {what}; {advice}")
    raise DataError(f"{name} is no file of torch.save or safetensors; {_SAVE}")


def _check_zip(name: str, file: BinaryIO, size: int) -> None:
    try:
        entries = zipfile.ZipFile(file).infolist()
    except Exception as error:  # a table of contents that is cut off or changed shows itself in many ways
        raise DataError(f"{name} is cut off or damaged ({first_line(error)}); copy it again") from None
    if any("/code/" in entry.filename for entry in entries):
        raise DataError(f"{name} is a TorchScript program; {_SAVE}")
    pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
    if len(pickles) != 1:
        raise DataError(f"{name} is a zip file, and not one of torch.save; {_SAVE}")
    # torch.save compresses nothing, so what lies in the file cannot be more than the file.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(e.file_size for e in entries) > size:
        raise DataError(f"{name} is compressed or damaged; {_SAVE}")
    if pickles[0].file_size > _LARGEST_PICKLE:
        raise DataError(f"{name} has {pickles[0].file_size:,} bytes of what is no tensor; {_SAVE}")


def _check_safetensors(name: str, head: bytes, size: int) -> None:
    try:
        header = json.loads(head[8:])
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        fits = max(ends, default=0) + len(head) == size
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        fits = False
    if not fits:
        raise DataError(f"{name} is damaged: its safetensors header does not describe the file; copy it again")
