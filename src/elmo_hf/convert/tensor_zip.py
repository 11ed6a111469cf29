"""The zip in a Spark NLP annotator's folder (`elmo_tensorflow`), or of a SavedModel: its variables."""

import shutil
import zipfile
import zlib
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from elmo_hf.convert import files
from elmo_hf.convert.files import check_readable
from elmo_hf.convert.tensor_bundle import ALWAYS_ALLOWED_BYTES, MAX_GROWTH, SHARD_NAME
from elmo_hf.errors import ElmoError

SPARK_NLP = "elmo_tensorflow"
INDEX = "variables.index"
FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    NotImplementedError,
    EOFError,
    ValueError,
    LookupError,
)

damage_in = partial(
    files.damage_in, faults=FAULTS, fault="is no intact zip", advice="download or copy it again"
)


def is_zip(path: Path) -> bool:
    """Whether this is a zip of variables, maybe a damaged one."""
    if path.name == SPARK_NLP:
        return path.is_file()
    if path.suffix.lower() != ".zip":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(PurePosixPath(name).name == INDEX for name in archive.namelist())
    except (OSError, *FAULTS):
        return False


def unpack(path: Path, open_files: ExitStack) -> Path:
    """The index of the variables in a temporary folder, which is removed with the stack.

    Only the files of the variables are taken, under names that are known beforehand, and no more bytes than
    the zip's size allows.
    """
    check_readable(path)
    folder = Path(open_files.enter_context(TemporaryDirectory(prefix="elmo-hf-")))
    with damage_in(path), zipfile.ZipFile(path) as archive:
        members = variables_of(path, archive)
        size = sum(member.file_size for member in members.values())
        if size > MAX_GROWTH * path.stat().st_size + ALWAYS_ALLOWED_BYTES:
            raise ElmoError(
                f"{path} would unpack to {size:,} bytes, too many for its size; give another file."
            )
        for name, member in members.items():
            with archive.open(member) as packed, (folder / name).open("wb") as file:
                shutil.copyfileobj(packed, file)
    return folder / INDEX


def variables_of(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The index and its files of numbers, by their plain names."""
    places = [PurePosixPath(info.filename) for info in archive.infolist()]
    indexes = [place for place in places if place.name == INDEX]
    if len(indexes) != 1:
        raise ElmoError(f"{path} holds {len(indexes)} files {INDEX}, and not one; give another file.")
    members: dict[str, zipfile.ZipInfo] = {}
    for info, place in zip(archive.infolist(), places, strict=True):
        is_variable = place.name == INDEX or SHARD_NAME.fullmatch(place.name)
        if place.parent != indexes[0].parent or not is_variable or info.is_dir():
            continue
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ElmoError(f"{path} is packed in an unusual way; unpack it and pack it by 'zip'.")
        if place.name in members:
            raise ElmoError(f"{path} holds {place.name} twice; give another file.")
        members[place.name] = info
    return members
