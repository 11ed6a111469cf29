"""A record of the text that a run reads, by which a resumed run notices any change of it.

    record = record_text(settings.data, source, "all")      # at the start of a run; in every checkpoint
    compare(record_of_the_checkpoint, record)               # ElmoError names the first file that differs

The record has each file in the order of reading: its name, its size and the SHA-256 of its bytes. Files that
were moved or renamed are the same text, if their contents and their order are the same. A data set on the Hub
has its revision (commit). Other addresses (https://, s3:// ...) are compared by their names alone.
"""

from pathlib import Path
from reprlib import repr as short
from typing import Any

from elmo_hf.corpus.encoded import EncodedText
from elmo_hf.corpus.source import Source
from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.files import checksum

TextRecord = list[dict[str, Any]]
TYPES = {"name": str, "bytes": int, "sha256": str, "revision": str}


def record_text(data: list[str], source: Source | EncodedText, check: str) -> TextRecord:
    """
    Args:
        data: what the source was opened with.
        check: "all" for sizes and checksums, "sizes" for sizes alone.
    """
    files = source.files
    if not files and Path(data[0]).is_dir():
        files = sorted(str(path) for path in Path(data[0]).rglob("*") if path.is_file())
    if not files:
        return [{"name": data[0], "revision": _revision(data[0])}]
    return [{"name": file} if "://" in file else _record_file(Path(file), check) for file in files]


def _record_file(path: Path, check: str) -> dict[str, Any]:
    try:
        facts = checksum(path) if check == "all" else {"bytes": path.stat().st_size}
    except OSError as error:
        raise ElmoError(f"{path} cannot be read ({reason_of(error)}).") from error
    return {"name": str(path), **facts}


def _revision(name: str) -> str | None:
    """The commit of a data set on the Hub, or None where the Hub is not reached."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(name).sha
    except Exception:  # of the network, in whichever library
        return None


def check_record(record: Any) -> None:
    """Refuse what `record_text` has not written."""
    if record is None:
        return
    is_list = isinstance(record, list) and all(isinstance(entry, dict) for entry in record)
    for entry in record if is_list else []:
        for name, expected in TYPES.items():
            if not isinstance(entry.get(name), expected if name == "name" else expected | None):
                raise ElmoError(f"{name} of the text is {short(entry.get(name))}")
    if not is_list:
        raise ElmoError(f"text must be a list of objects, but is {short(record)}")


def compare(old: TextRecord, new: TextRecord) -> None:
    """Refuse another text than that of the record. A value that one of them lacks is not compared."""
    if len(old) != len(new):
        _refuse(f"the text has {len(new):,} files, and had {len(old):,} when the run was begun")
    for before, now in zip(old, new, strict=True):
        if "bytes" not in before and "bytes" not in now and before["name"] != now["name"]:
            _refuse(f"the run was begun with {before['name']:.200}, and now reads {now['name']:.200}")
        for name in ("bytes", "sha256", "revision"):
            values = before.get(name), now.get(name)
            if None not in values and values[0] != values[1]:
                _refuse(_difference(before, now, old))


def _difference(before: dict[str, Any], now: dict[str, Any], old: TextRecord) -> str:
    """In which way a file differs from the one at its place in the record."""
    if "revision" in now:
        return f"{now['name']:.200} has another revision than when the run was begun"
    if now.get("sha256") and now["sha256"] in [entry.get("sha256") for entry in old]:
        return f"{now['name']:.200} is read at another place in the order of the files"
    if before["bytes"] != now["bytes"]:
        sizes = f"{now['bytes']:,} bytes and had {before['bytes']:,}"
        return f"{now['name']:.200} has changed since the run was begun (it has {sizes})"
    return f"{now['name']:.200} has changed since the run was begun"


def _refuse(difference: str) -> None:
    raise ElmoError(
        f"{difference}; go on with the same text in the same order, or start another run from the checkpoint "
        "by --start."
    )
