"""What the name of a corpus stands for: files, a pattern, a folder, an address, or a data set of the Hub."""

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from elmo_hf.corpus.readers import check_file, suffix_of
from elmo_hf.corpus.unpacking import PACKED
from elmo_hf.errors import ElmoError
from elmo_hf.remote import is_address, local_path, matching

KINDS = {  # of files by their suffix, as `datasets` calls them; any other file is text
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
}
SECONDS_FOR_HUB = 10  # until it answers
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+|\w[\w-]*")


def is_hub_name(name: str) -> bool:
    """ "org/name" or "name", unless a file could be meant: its folder is here, or it ends like a file."""
    suffix = Path(name).suffix
    is_like_a_file = Path(name).exists() or suffix in KINDS or suffix in PACKED or suffix == ".txt"
    is_in_a_folder = "/" in name and Path(name).parent.is_dir()
    return not is_like_a_file and not is_in_a_folder and _HUB_NAME.fullmatch(name) is not None


@contextmanager
def offline_without_hub() -> Iterator[None]:
    """If the Hub does not answer, `datasets` looks at once for what was downloaded before. By itself, it
    would try for most of a minute first, also for a mistyped file's name."""
    import datasets
    from huggingface_hub.utils import get_session

    was_offline = datasets.config.HF_HUB_OFFLINE
    try:
        if not was_offline:
            get_session().head(datasets.config.HF_ENDPOINT, timeout=SECONDS_FOR_HUB)
    except Exception:  # of a library below, which may be another one tomorrow
        datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = was_offline


def files_of(item: Any) -> list[str]:
    """The files that a path, a pattern or an address stands for, in an order that does not change."""
    name = str(item)
    if is_address(name):
        path = local_path(name)
        return matching(name) if path is None else files_of(path)
    if Path(name).is_file():
        return [name]
    if Path(name).is_dir():
        raise ElmoError(
            f"{name} is a folder, which can only be read alone; say {name}/* for the files in it."
        )
    files = sorted(path for path in glob.glob(name, recursive=True) if Path(path).is_file())  # noqa: PTH207
    if not files:
        check_file(name)
        raise ElmoError(f"there is no file {name}.")
    return files


def kind_of(files: list[str]) -> str:
    kinds = [(suffix_of(file) == ".tsv", KINDS.get(suffix_of(file), "text")) for file in files]
    for file, kind in zip(files, kinds, strict=True):
        if kind != kinds[0]:
            raise ElmoError(f"{files[0]} and {file} are files of different kinds; read one kind at a time.")
    return kinds[0][1]


def is_usual(config: Any) -> bool:
    """Whether `datasets` would read these files with no other options than ours."""
    kind = type(config).__name__.removesuffix("Config").lower()
    files = [file for files in config.data_files.values() for file in files]
    if kind not in {*KINDS.values(), "text"} or {KINDS.get(suffix_of(file), "text") for file in files} != {
        kind
    }:
        return False
    usual = type(config)(**{"sep": "\t"} if suffix_of(files[0]) == ".tsv" else {})
    ignored = ("name", "version", "data_dir", "data_files", "description")
    names = [field.name for field in fields(config) if field.name not in ignored]
    return all(getattr(config, name) == getattr(usual, name) for name in names)
