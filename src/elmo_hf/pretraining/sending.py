"""The main process's checkpoint on all machines, when a run is resumed.

with on_all_machines(processes, checkpoint, settings) as folder:
    ...                                   # in every process: a folder with the checkpoint's files
"""

import contextlib
import hashlib
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import torch
from accelerate.utils import gather_object

from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.files import MANIFEST, UNFINISHED, clear_unfinished, read_bytes, remove
from elmo_hf.pretraining.checkpoints import checkpoints, find_damage
from elmo_hf.pretraining.processes import Processes
from elmo_hf.pretraining.progress import step_of
from elmo_hf.pretraining.settings import Settings

CHUNK = 2**26  # bytes that are sent at a time


def refuse_later_checkpoints(processes: Processes, output: Path) -> None:
    """Refuse to begin anew, or further back, where another machine has a later checkpoint of this run."""
    newest = gather_object([(_newest_name(output), str(output))])
    (main_name, _), main = newest[0], processes.places[0]
    for place, (name, folder) in zip(processes.places, newest, strict=True):
        if step_of(Path(name)) > step_of(Path(main_name)):
            has = f"has only {main_name}" if main_name else "has none"
            raise ElmoError(
                f"{place} has {folder}/{name}, and {main}, which keeps the checkpoints of all, {has}; copy "
                "the folder there, start the other machine as machine 0, or remove its folder."
            )


def _newest_name(folder: Path) -> str:
    """The name of the newest checkpoint in a folder, or an empty text."""
    return max((path.name for path in checkpoints(folder)), key=lambda name: step_of(Path(name)), default="")


def manifest_of(checkpoint: Path) -> str:
    """A digest of the manifest, and so of all files; an empty text if it cannot be read."""
    with contextlib.suppress(ElmoError):
        return hashlib.sha256(read_bytes(checkpoint / MANIFEST, 2**24)).hexdigest()
    return ""


class Copy:
    """A checkpoint of the main process on a machine that has not got it.

    Args:
        output: the run's folder on this machine, which gets a folder for the copy and loses it at the end.
    """

    def __init__(self, output: Path, machine: int) -> None:
        self.folder = output / f"{UNFINISHED}copy-{machine}"
        self.made = [path for path in [output, *output.absolute().parents] if not path.exists()]

    def begin(self) -> None:
        try:
            clear_unfinished(self.folder)
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise ElmoError(
                f"{self.folder.parent} cannot be written ({reason_of(error)}); name another folder."
            ) from error

    def check(self) -> None:
        damage = find_damage(self.folder)
        if damage is not None:
            raise ElmoError(f"the copy of the checkpoint that was received is damaged: {damage}.")

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            remove(self.folder)
            for folder in self.made:
                folder.rmdir()


def send_files(processes: Processes, source: Path | None, target: Path | None) -> None:
    """Send the files of a folder of the main process to all processes; those with a target write them.

    All processes take part to the end, whatever fails in one of them; `raise_errors` says it.
    """
    names: list[tuple[str, int]] = []
    with processes.collect_errors():
        if source is not None:
            paths = sorted(path for path in source.rglob("*") if path.is_file())
            names = [(path.relative_to(source).as_posix(), path.stat().st_size) for path in paths]
    processes.raise_errors()
    for name, size in gather_object([names])[0]:
        reader = source / name if source is not None else None
        writer = target / name if target is not None else None
        _send_file(processes, reader, writer, size)
    processes.raise_errors()


def _send_file(processes: Processes, source: Path | None, target: Path | None, size: int) -> None:
    with contextlib.ExitStack() as stack:
        reader = writer = None
        with processes.collect_errors():
            if source is not None:
                reader = stack.enter_context(source.open("rb"))
            if target is not None:
                writer = stack.enter_context(_open_target(target))
        for start in range(0, size, CHUNK):
            content = torch.zeros(min(CHUNK, size - start), dtype=torch.uint8)
            with processes.collect_errors():
                if reader is not None and reader.readinto(content.numpy().data) != len(content):
                    raise ElmoError(f"{source} has changed while it was sent.")
            content = content.to(processes.accelerator.device)
            torch.distributed.broadcast(content, 0)
            with processes.collect_errors():
                if writer is not None:
                    _write(writer, content.cpu().numpy().data, str(target))


def _open_target(path: Path) -> FileIO:
    path.parent.mkdir(exist_ok=True)
    return FileIO(path, "wb")


def _write(file: FileIO, content: memoryview, name: str) -> None:
    """A disk that is nearly full takes a part, and then says so."""
    try:
        while content:
            content = content[file.write(content) :]
    except OSError as error:
        raise ElmoError(
            f"{name} cannot be written ({reason_of(error)}); make room for a copy of the checkpoint, or name "
            "another folder by --output."
        ) from error


@contextlib.contextmanager
def on_all_machines(
    processes: Processes, checkpoint: Path | None, settings: Settings
) -> Iterator[Path | None]:
    """Where this process reads the main one's checkpoint: in the run's folder, if the machines share it, and
    otherwise in a copy. All processes must call it together.

    Args:
        checkpoint: of the main process; the others' is not used.
        settings: of this machine.
    """
    if processes.count == 1:
        yield checkpoint
        return
    is_main = processes.accelerator.is_main_process
    mine = (str(checkpoint), manifest_of(checkpoint)) if checkpoint is not None and is_main else None
    main = gather_object([mine])[0]
    if main is None:
        yield None
        return
    path, copy = _own_path(processes, main[0], main[1], settings), None
    if path is None and processes.accelerator.is_local_main_process:
        copy = Copy(Path(settings.output), processes.place.machine)
    try:
        if any(gather_object([copy is not None])):
            _receive(processes, checkpoint if is_main else None, copy)
        folders = gather_object([str(copy.folder) if copy is not None else str(path)])
        machines = [place.machine for place in processes.places]
        yield Path(folders[machines.index(processes.place.machine)])
    finally:
        if copy is not None:
            copy.remove()


def _receive(processes: Processes, source: Path | None, copy: Copy | None) -> None:
    with processes.collect_errors():
        if copy is not None:
            copy.begin()
    processes.raise_errors()
    send_files(processes, source, copy.folder if copy is not None else None)
    with processes.collect_errors():
        if copy is not None:
            copy.check()
    processes.raise_errors()


def _own_path(processes: Processes, path: str, manifest: str, settings: Settings) -> Path | None:
    """Where this machine has the checkpoint of the main process; None if it has not got it, or not intact."""
    if processes.accelerator.is_main_process:
        return Path(path)
    if processes.accelerator.is_local_main_process:
        for own in (Path(settings.output) / Path(path).name, Path(settings.resume)):
            if manifest_of(own) == manifest and find_damage(own) is None:
                return own
    return None
