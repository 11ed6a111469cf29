"""Doors of AllenNLP's files: state dicts, and archives with a tagger, its settings and vocabularies."""

import gzip
import io
import tarfile
from pathlib import Path
from random import Random
from typing import Any

from elmo_hf.convert import convert
from elmo_hf.files import remove
from tests.fuzz import folders, json_values, packed, raw_bytes, state_dicts
from tests.fuzz.door import Case, Door
from tests.fuzz.json_values import every
from tests.helpers import reference
from tests.helpers.allennlp_files import (
    LABELS,
    Tagger,
    bilm_weights,
    packed_state,
    state_of,
    tagger_members,
    training,
    write_archive,
)

OPTIONS = reference.options(dim=5, projection_dim=3, n_layers=1, filters=((1, 2), (2, 3)), n_highway=1)
WORDS = ["@@UNKNOWN@@", "He", "sat", "bank"]


def write_state(folder: Path) -> None:
    state = state_of(bilm_weights(OPTIONS, 0), mixes=[(0.5, 1.0, 1.5)])
    (folder / "best.th").write_bytes(packed_state(state))
    (folder / "weights.th").write_bytes(packed_state(state, is_zip=False))


def write_tagger(folder: Path) -> None:
    """An archive of a tagger that is taken whole."""
    tagger = Tagger("BIOUL", 6 + 5, 2, 1, seed=0, has_ends=True)
    state = {**state_of(bilm_weights(OPTIONS, 0), mixes=[(0.5, 1.0, 1.5)]), **tagger.state()}
    state["text_field_embedder.token_embedder_tokens.weight"] = tagger.transitions[:5, :5].clone()
    content = training("BIOUL", size=2, words=True)
    members = tagger_members(OPTIONS, state, content, LABELS["BIOUL"], WORDS)
    write_archive(folder / "model.tar.gz", members)


def damage_state(case: Case) -> str:
    name, rng = ["best.th", "weights.th"][case.number % 2], case.rng
    if rng.random() < 0.05:
        return folders.damage(rng, case.input, None, [name])
    return state_dicts.damage(rng, case.input / name, is_zip=case.number % 2 == 0)


def enter_state(case: Case) -> object:
    name = ["best.th", "weights.th"][case.number % 2]
    convert([case.input / name], case.output / "elmo")
    return case.output / "elmo"


# ---- archives

SETTINGS: list[tuple[str, Any]] = every("model", {}, 5, [], None, "x")
SETTINGS += every("dataset_reader", {}, 5, [], None, {"token_indexers": {"elmo": 5}})
TYPES = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"?", b"\0"]
TYPES += [
    tarfile.GNUTYPE_SPARSE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.CONTTYPE,
]
NAMES = [
    "../weights.th",
    "/tmp/x",
    "a/../../b",
    "x" * 300,
    "",
    ".",
    "./config.json",
    "a\\b",
    "\u202e",
    "vocabulary",
]
SIZES = [0, 1, 511, 512, 513, 1 << 20, 1 << 32, 8**11 - 1]
PAX = [b"17 path=../../a.b\n", b"21 size=999999999999\n", b"9999999999999999999 x=1\n", b"5 x=\n", b"x", b""]
PAX += [b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n", b"20 GNU.sparse.map=0,\n"]


def damage_archive(case: Case) -> str:
    path, rng = case.input / "model.tar.gz", case.rng
    choice = rng.random()
    if choice < 0.03:
        return folders.damage(rng, case.input, None, [path.name])
    if choice < 0.15:
        data, note = packed.damage(rng, gzip.decompress(path.read_bytes()), ".gz")
        path.write_bytes(data)
        return f"{path.name} {note}"
    members = read_members(path)
    if choice < 0.55:
        note = damage_content(rng, members, case.folder)
        write_archive(path, members)
        return f"{path.name} {note}"
    data, note = damaged_tar(rng, members)
    path.write_bytes(data if rng.random() < 0.3 else gzip.compress(data, 1))
    return f"{path.name} {note}"


def read_members(path: Path) -> dict[str, bytes | str]:
    with tarfile.open(path) as archive:
        return {header.name: archive.extractfile(header).read() for header in archive}  # type: ignore[union-attr]


def damage_content(rng: Random, members: dict[str, bytes | str], folder: Path) -> str:
    name = rng.choice([*members, "weights.th"])
    content, file = members[name], folder / Path(name).name
    assert isinstance(content, bytes)
    file.write_bytes(content)
    if name == "weights.th":
        note = state_dicts.damage(rng, file, is_zip=True)
    elif name == "config.json":
        note = json_values.damage_file(rng, file, SETTINGS, folder)
    elif name.endswith("options_file"):
        note = json_values.damage_file(rng, file, [], folder)
    else:
        note = raw_bytes.damage_file(rng, file)
    members[name] = file.read_bytes() if file.is_file() else b""
    remove(file)
    return f"{name}: {note}"


def damaged_tar(rng: Random, members: dict[str, bytes | str]) -> tuple[bytes, str]:
    stream, notes = io.BytesIO(), []
    names = list(members)
    rng.shuffle(names)
    target = rng.choice(names)
    for name in names:
        data = members[name]
        assert isinstance(data, bytes)
        header = tarfile.TarInfo(name)
        header.size = len(data)
        if name == target:
            change = rng.choice([rename, retype, resize, extended, twice, drop, nested])
            notes.append(f"{change.__name__} {name}")
            data = change(rng, header, data, stream)
        if data is not None:
            stream.write(
                header.tobuf(rng.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), "utf-8", "replace")
            )
            stream.write(data + b"\0" * (-len(data) % 512))
    content = stream.getvalue() + b"\0" * rng.choice([0, 512, 1024, 10_240])
    if rng.random() < 0.3:
        content, note = raw_bytes.damage(rng, content, near_start=True)
        notes.append(note)
    return content, "tar: " + " ".join(notes)


def rename(rng: Random, header: tarfile.TarInfo, data: bytes, stream: io.BytesIO) -> bytes:
    header.name = rng.choice(NAMES)
    return data


def retype(rng: Random, header: tarfile.TarInfo, data: bytes, stream: io.BytesIO) -> bytes:
    header.type = rng.choice(TYPES)
    header.linkname = rng.choice(["/etc/passwd", "../x", "config.json", ""])
    return data


def resize(rng: Random, header: tarfile.TarInfo, data: bytes, stream: io.BytesIO) -> bytes:
    header.size = rng.choice([*SIZES, len(data) + 1, max(len(data) - 1, 0)])
    return data


def extended(rng: Random, header: tarfile.TarInfo, data: bytes, stream: io.BytesIO) -> bytes:
    """Headers of the next file that say something else than its own."""
    for _ in range(rng.choice([1, 1, 2, 3000])):
        content = rng.choice(PAX)
        before = tarfile.TarInfo("././@LongLink")
        before.type = rng.choice([tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
        before.size = rng.choice([len(content), len(content), *SIZES])
        stream.write(before.tobuf(tarfile.GNU_FORMAT) + content + b"\0" * (-len(content) % 512))
    return data


def twice(rng: Random, header: tarfile.TarInfo, data: bytes, stream: io.BytesIO) -> bytes:
    for _ in range(rng.choice([1, 2, 12_000])):
        stream.write(header.tobuf(tarfile.GNU_FORMAT) + data[: header.size] + b"\0" * (-len(data) % 512))
        if len(data) > 2000:
            break
    return data


def drop(rng: Random, header: tarfile.TarInfo, data: bytes, stream: io.BytesIO) -> None:
    return None


def nested(rng: Random, header: tarfile.TarInfo, data: bytes, stream: io.BytesIO) -> bytes:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        archive.addfile(header, io.BytesIO(data))
    header.size = len(inner.getvalue())
    return inner.getvalue()


def enter_archive(case: Case) -> object:
    convert([case.input / "model.tar.gz"], case.output / "elmo", dry_run=case.number % 4 > 0)
    return case.output / "elmo"


DOORS = [
    Door("statedict", write_state, damage_state, enter_state, places=("tensor",)),
    Door("archive", write_tagger, damage_archive, enter_archive, places=("tensor",)),
]
