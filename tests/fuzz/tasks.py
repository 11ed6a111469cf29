"""The door of the data of tasks."""

import io
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from elmo_hf.finetuning.coreference import read_archive, read_conll, read_gap
from elmo_hf.finetuning.squad import read_squad
from elmo_hf.finetuning.word_vectors import read_word_vectors
from tests.fuzz import folders, good, json_values, packed, raw_bytes
from tests.fuzz.door import Case, Door
from training import finetune_ner, finetune_nli, finetune_pos, finetune_srl, finetune_sst

READERS: dict[str, Callable[[Path], Any]] = {
    "pos.conllu": partial(finetune_pos.read, column=3),
    "ner.txt": finetune_ner.read,
    "srl.conll": finetune_srl.read,
    "sst.txt": finetune_sst.read,
    "nli.tsv": finetune_nli.read,
    "coref.conll": read_conll,
    "coref.tar.gz": read_archive,
    "gap.tsv": read_gap,
    "squad.json": read_squad,
    "vectors.txt": partial(read_word_vectors, words=good.WORDS, dim=4),
}
NAMES = sorted(READERS)
SPLITS = ("\t", " ", "(", ")", "*", "|")


def damage_task(case: Case) -> str:
    rng, name = case.rng, NAMES[case.number % len(NAMES)]
    path, choice = case.input / name, rng.random()
    if choice < 0.06:
        return folders.damage(rng, case.input, None, [name])
    if path.suffix == ".gz":
        return damage_archive(case, path)
    if path.suffix == ".json":
        return json_values.damage_file(rng, path, [("data", 5), ("data", [{}])], case.outside)
    if choice < 0.5:
        data, note = damage_columns(case, path.read_text(encoding="utf-8"))
    elif choice < 0.75:
        data, note = packed.damage_text(rng, path.read_bytes())
    else:
        data, note = raw_bytes.damage(rng, path.read_bytes())
    if rng.random() < 0.15 and name != "vectors.txt":  # `.xz` is unpacked
        data, packing = packed.damage(rng, data, ".xz")
        note += "; " + packing
    path.write_bytes(data)
    return f"{name}, {note}"


def damage_columns(case: Case, text: str) -> tuple[bytes, str]:
    """A column is gone, doubled, or holds something else."""
    rng = case.rng
    sign = rng.choice([sign for sign in SPLITS if sign in text])
    fields = text.split(sign)
    number = rng.randrange(len(fields))
    odd = [
        "",
        sign,
        sign * 500,
        "x",
        "-1",
        "999999999999",
        "9" * 5000,
        "(0",
        "0)",
        "B-",
        "I-X",
        "*)",
        "(A*",
        "NaN",
        "1e999",
        "\u2028",
    ]
    fields[number : number + rng.choice([0, 1, 2])] = [
        rng.choice([*odd, "\x85", "(" * 5000, "_", "-DOCSTART-", "#begin document"])
    ]
    return sign.join(fields).encode(), f"column {number}: {fields[number][:30]!r}"


def damage_archive(case: Case, path: Path) -> str:
    rng = case.rng
    if rng.random() < 0.4:
        data, note = packed.damage(rng, good.tar_of(case.input / "coref.conll"), ".gz")
        path.write_bytes(data)
        return f"{path.name}, {note}"
    member = tarfile.TarInfo(
        rng.choice(
            ["coref.conll", "../x.conll", "/etc/x.conll", "x" * 300 + ".conll", "\udcff.conll", "x.txt"]
        )
    )
    member.type = rng.choice(
        [
            tarfile.REGTYPE,
            tarfile.SYMTYPE,
            tarfile.LNKTYPE,
            tarfile.FIFOTYPE,
            tarfile.DIRTYPE,
            tarfile.CHRTYPE,
        ]
    )
    member.linkname = rng.choice(["/etc/passwd", "coref.conll", "../x", str(case.outside / "secret.txt")])
    member.mode, member.mtime = rng.choice([0, 0o777, 0o4777]), rng.choice([0, -1, 2**40])
    content, _ = damage_columns(case, good.CONLL)
    with tarfile.open(path, rng.choice(["w", "w:gz", "w:xz", "w:bz2"])) as archive:
        member.size = len(content) if member.type == tarfile.REGTYPE else 0
        archive.addfile(member, io.BytesIO(content))
    if rng.random() < 0.3:
        return f"{member.name[:30]}; {raw_bytes.damage_file(rng, path, near_start=True)}"
    return f"{path.name}, {member.name[:30]} of type {member.type!r}"


def enter_task(case: Case) -> str:
    name = NAMES[case.number % len(NAMES)]
    examples = READERS[name](case.input / name)
    return repr(list(examples) if isinstance(examples, list | Iterator) else examples)[:100_000]


DOORS = [Door("tasks", good.write_task_data, damage_task, enter_task)]
