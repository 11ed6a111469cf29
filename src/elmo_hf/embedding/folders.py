"""The folder that a job writes and `read_vectors` reads: on this machine, or at an address.

    folder = open_folder("s3://bucket/vectors")
    with folder.writing() as path:           # a folder of this machine
        write_json(path / "index.json", {})  # is uploaded when it is complete
    with folder.reading("index.json") as path:
        read_json(path / "index.json")

A file at an address is there whole or not at all: an object store shows an upload when it is complete, and
elsewhere a file gets its name when it is. There are no locks; two jobs with the same arguments write the same
bytes.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from elmo_hf.embedding.shards import Header, header_file, header_in, read_header
from elmo_hf.errors import ElmoError
from elmo_hf.files import PARTIAL, locked_folder
from elmo_hf.remote import file_system, is_address, local_path, protocol_of, reachable

# These show a file only when it was sent whole. Elsewhere, it is sent under another name and renamed.
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "hf", "memory"}


class Folder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def file(self, name: str) -> str:
        """A file's name for messages."""
        return str(self.path / name)

    def names(self) -> list[str]:
        """The names of what is in the folder; none, if there is no folder."""
        if self.path.exists() and not self.path.is_dir():
            raise ElmoError(f"the output {self.path} is a file; name a folder.")
        return sorted(path.name for path in self.path.iterdir()) if self.path.exists() else []

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def subfolders(self) -> list["Folder"]:
        return [Folder(path) for path in sorted(self.path.iterdir()) if path.is_dir()]

    @contextmanager
    def reading(self, *names: str) -> Iterator[Path]:
        """A folder of this machine with these files."""
        yield self.path

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """A folder of this machine; the files that are written into it are in this folder afterwards."""
        yield self.path

    def header(self, name: str) -> Header | None:
        """A shard's header, or None if there is no shard or it is damaged."""
        return read_header(self.path / name)

    def remove(self, name: str) -> None:
        (self.path / name).unlink()

    def locked(self) -> AbstractContextManager[None]:
        return locked_folder(self.path)


class RemoteFolder(Folder):
    """A folder at an address."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self.system, self.root = file_system(self.address)

    def __str__(self) -> str:
        return self.address

    def file(self, name: str) -> str:
        return f"{self.address}/{name}"

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def names(self) -> list[str]:
        with reachable(self.address):
            self.system.invalidate_cache()
            if self.system.isfile(self.root):
                raise ElmoError(f"the output {self.address} is a file; name a folder.")
            with suppress(FileNotFoundError):
                paths = self.system.ls(self.root, detail=False)
                return sorted(path.rstrip("/").rpartition("/")[2] for path in paths if path != self.root)
        return []

    def has(self, name: str) -> bool:
        with reachable(self.file(name)):
            self.system.invalidate_cache()
            return bool(self.system.isfile(self._path(name)))

    def subfolders(self) -> list[Folder]:
        names = self.names()
        with reachable(self.address):
            return [RemoteFolder(self.file(name)) for name in names if self.system.isdir(self._path(name))]

    @contextmanager
    def reading(self, *names: str) -> Iterator[Path]:
        with TemporaryDirectory(prefix="elmo-hf-") as copies:
            for name in names:
                with reachable(self.file(name)):
                    self.system.get_file(self._path(name), str(Path(copies) / name))
            with named_as(self.address, copies):
                yield Path(copies)

    @contextmanager
    def writing(self) -> Iterator[Path]:
        with TemporaryDirectory(prefix="elmo-hf-") as copies:
            yield Path(copies)
            written = sorted(Path(copies).iterdir(), key=lambda path: (path.suffix == ".json", path.name))
            for path in written:  # a .json says that what lies beside it is complete
                with reachable(self.file(path.name), "cannot be written: there is no such bucket or folder"):
                    self._upload(path)

    def _upload(self, path: Path) -> None:
        target = self._path(path.name)
        if protocol_of(self.address) in OBJECT_STORES:
            self.system.put_file(str(path), target)
            return
        self.system.makedirs(self.root, exist_ok=True)
        self.system.put_file(str(path), target + PARTIAL)
        self.system.mv(target + PARTIAL, target)

    def header(self, name: str) -> Header | None:
        """From some bytes of the shard, which is not downloaded."""
        holder = self._path(header_file(name))
        if not self.has(name) or not self.has(header_file(name)):
            return None
        with reachable(self.file(name)), self.system.open(holder, "rb") as file:
            return header_in(file, self.system.size(holder), name)

    def remove(self, name: str) -> None:
        with reachable(self.file(name)):
            self.system.rm_file(self._path(name))

    def locked(self) -> AbstractContextManager[None]:
        return nullcontext()


@contextmanager
def named_as(address: str, copies: str) -> Iterator[None]:
    """An error of a copy names what was copied."""
    try:
        yield
    except ElmoError as error:
        raise ElmoError(str(error).replace(copies, address)) from error.__cause__


def open_folder(name: Any) -> Folder:
    """The folder that a path or an address names; it need not be there."""
    if not is_address(name):
        return Folder(Path(name))
    path = local_path(str(name))
    return Folder(path) if path is not None else RemoteFolder(str(name))
