"""The door of corpora: text and tables, plain and packed."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from elmo_hf.corpus.source import Source, open_records
from tests.fuzz import folders, good, json_values, packed, parquet_files
from tests.fuzz.door import Case, Door
from tests.fuzz.json_values import every

ROW: list[tuple[str, Any]] = every("text", None, 5, [], ["a"], {}, True, "", "\0", [None], [["a"]])
ROW += every("tokens", None, 5, "a", ["a", None], [5], [[]], {}, ["a b", ""])


def damage_corpus(case: Case) -> str:
    rng = case.rng
    path = case.input / corpus_name(case)
    if rng.random() < 0.06:
        return folders.damage(rng, case.input, None, [path.name])
    if path.suffix == ".parquet":
        return f"{path.name}, {parquet_files.damage(rng, path)}"
    if path.suffix in packed.PACKERS:
        data, note = packed.damage(
            rng, packed.unpacked(path) if path.suffix != ".zst" else plain(path), path.suffix
        )
    elif path.suffix in (".jsonl", ".json") and rng.random() < 0.6:
        data, note = damage_json(case, path)
    else:
        data, note = packed.damage_text(rng, path.read_bytes())
    path.write_bytes(data)
    return f"{path.name}, {note}"


def corpus_name(case: Case) -> str:
    """Text and packed text more often than tables."""
    plain_names = [
        "text.txt",
        "rows.jsonl",
        "words.jsonl",
        "array.json",
        "rows.csv",
        "rows.tsv",
        "rows.parquet",
        "words.parquet",
    ]
    packed_names = [f"{name}{suffix}" for suffix in packed.PACKERS for name in ("text.txt", "rows.jsonl")]
    names = plain_names + packed_names
    return names[case.number % len(names)]


def plain(path: Path) -> bytes:
    return path.with_suffix("").read_bytes()


def damage_json(case: Case, path: Path) -> tuple[bytes, str]:
    rng, is_lines = case.rng, path.suffix == ".jsonl"
    text = path.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()] if is_lines else json.loads(text)
    number = rng.randrange(len(rows))
    rows[number], note = json_values.damage(rng, rows[number], ROW)
    lines = [json_values.dumps(row) for row in rows]
    joined = "\n".join(lines) + "\n" if is_lines else "[" + ",\n".join(lines) + "]"
    return json_values.encoded(rng, joined), f"row {number + 1}: {note}"


def enter_corpus(case: Case) -> str:
    """As `embed` and `perplexity` read it, and as `vocab` and the pretraining do."""
    path = case.input / corpus_name(case)
    if case.number % 3:
        return start_of(str(record) for record in open_records(path).records())
    is_text = "words" not in path.name
    source = Source(
        str(path), raw=is_text and case.number % 2 == 0, split_sentences=is_text and case.number % 4 == 0
    )
    return start_of(" ".join(words) for words in source)


def start_of(records: Iterable[str], most: int = 100_000) -> str:
    """All of it is read, and the first of it kept."""
    kept: list[str] = []
    size = 0
    for record in records:
        if size < most:
            kept.append(record[:most])
            size += len(record)
    return "\n".join(kept)


DOORS = [Door("corpora", good.write_corpora, damage_corpus, enter_corpus)]
