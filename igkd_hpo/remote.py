"""A folder at a URL, for hosts that share no other: in S3, in Google's or Azure's storage, behind SSH, on a disk.

fsspec speaks the protocols, with the package for each. What is written under a name is there whole or not at all.
"""

import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from igkd_hpo.errors import AssetError, UsageError, first_line

CHUNK_BYTES = 1 << 25  # 32 MiB, of a file that goes from host to host
_OF_ONE_PROCESS = ("memory://",)


class Remote:
    """The folder; it is there, and one object is for one thread. Methods raise AssetError where it cannot be used.

    Args:
        url: as fsspec reads it: s3://bucket/folder.

    Raises:
        UsageError: it is no URL, or the package for its protocol is missing.
    """

    def __init__(self, url: str) -> None:
        self.shown = re.sub(r"//[^/@]*@", "//***@", url)  # a user's password may stand there
        if "://" not in url or url.startswith(_OF_ONE_PROCESS):
            raise UsageError(f"IGKD_HPO_REMOTE {self.shown} is no place that hosts share; give s3://bucket/folder")
        try:
            from fsspec.core import url_to_fs

            self._files, self._root = url_to_fs(url, skip_instance_cache=True)
        except (ImportError, ValueError) as error:  # fsspec names the package that is missing
            raise UsageError(f"IGKD_HPO_REMOTE {self.shown} cannot be used: {first_line(error)}") from None
        except Exception as error:  # each protocol's package has its own errors, here and below
            raise self._refused("used", error) from None
        self._made: set[str] = set()

    def check(self) -> None:
        """Write a file and remove it. Raises UsageError: this host may not, or reaches nothing there."""
        try:
            self.write(name := f"checks/{secrets.token_hex(8)}", [b"igkd-hpo"])
            self.remove(name)
        except AssetError as error:
            raise UsageError(f"{error}; see that the address is right, and that this host may write there") from None

    def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write a file, in one step."""
        with self._told(f"write {name}"):
            self._make_folder(name.rpartition("/")[0])
            with self._files.transaction, self._files.open(self._path(name), "wb") as file:
                for chunk in chunks:
                    file.write(chunk)

    def read(self, name: str) -> Iterator[bytes]:
        """Yield a file in chunks; nothing where there is none."""
        with self._told(f"read {name}"):
            try:
                file = self._files.open(self._path(name), "rb")
            except FileNotFoundError:
                return
            with file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder; none where there is no such folder."""
        with self._told(f"list {folder}"):
            self._files.invalidate_cache()
            try:
                found = self._files.ls(self._path(folder), detail=False)
            except FileNotFoundError:
                return []
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all in it, where there is one."""
        with self._told(f"remove {name}"):
            self._files.invalidate_cache()
            try:
                self._files.rm(self._path(name), recursive=True)
            except FileNotFoundError:
                return

    def _make_folder(self, name: str) -> None:
        """Make a folder, but not the remote one itself, which may be a bucket misspelt, or a disk not mounted."""
        if not name or name in self._made:
            return
        self._make_folder(name.rpartition("/")[0])
        with suppress(FileExistsError):
            self._files.mkdir(self._path(name), create_parents=False)
        self._made.add(name)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise self._refused(what, error) from error

    def _refused(self, what: str, error: Exception) -> AssetError:
        return AssetError(f"cannot {what} at {self.shown}: {type(error).__name__}: {first_line(error)}")
