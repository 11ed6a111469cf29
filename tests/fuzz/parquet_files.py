"""Damage to Parquet files: other types, sizes and encodings, lies in the footer."""

from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import raw_bytes


def damage(rng: Random, path: Path) -> str:
    choice = rng.random()
    if choice < 0.25:
        return raw_bytes.damage_file(rng, path)
    if choice < 0.6:
        data = path.read_bytes()
        size = min(len(data), 4 + rng.choice([8, 1000, 2000]))  # the footer is at the end
        changed, note = raw_bytes.damage(rng, data[-size:-8])
        path.write_bytes(data[:-size] + changed + data[-8:])
        return "footer, " + note
    if choice < 0.7:
        data = path.read_bytes()
        length = rng.choice([0, 1, len(data), 2**31 - 1, 2**31, 2**32 - 1])
        path.write_bytes(data[:-8] + length.to_bytes(4, "little") + rng.choice([b"PAR1", b"PARE", b"XXXX"]))
        return f"footer of length {length}"
    return write_table(rng, path)


def write_table(rng: Random, path: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet

    texts = ["He sat .", "", None, "x" * 100_000, "\0"]
    columns: dict[str, Any] = {
        "null": pa.nulls(5),
        "numbers": pa.array(range(5)),
        "binary": pa.array([b"\xff", b"a", None, b"", b"\0"]),
        "large": pa.array(texts, pa.large_string()),
        "dictionary": pa.array(texts).dictionary_encode(),
        "lists": pa.array([[text] for text in texts]),
        "nested": pa.array([[[text]] for text in texts]),
        "structs": pa.array([{"text": text} for text in texts]),
        "numbers in lists": pa.array([[1, 2], [], None, [None], [5]]),
        "times": pa.array([1, 2, 3, 4, 2**62], pa.timestamp("us")),
        "long": pa.array(["x " * 5_000_000 if rng.random() < 0.05 else "x"] * 5),
        "repeated": pa.array(["x" * 1000] * (500_000 if rng.random() < 0.02 else 5)),
    }
    kind = rng.choice(sorted(columns))
    names = rng.choice([["text"], ["tokens"], ["text", "tokens"], ["text", "text"], ["x"], [""], ["a\nb"]])
    table = pa.Table.from_arrays([columns[kind]] * len(names), names=names)
    table = table.replace_schema_metadata(
        {b"huggingface": rng.choice([b"{", b"[]", b'{"info": {"features": {"text": 5}}}', b""])}
    )
    pa.parquet.write_table(
        table,
        path,
        compression=rng.choice(["none", "gzip", "zstd", "brotli", "lz4", "snappy"]),
        row_group_size=rng.choice([1, 5, None]),
        version=rng.choice(["1.0", "2.6"]),
    )
    return f"{kind} as {names}"
