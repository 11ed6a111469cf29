"""The door of an embedding job that is continued, and whose vectors are read."""

import json
import random
from pathlib import Path
from typing import Any

import torch

from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer, embed, read_vectors
from tests.fuzz import folders, good, hdf5_files, json_values, parquet_files, raw_bytes, safetensors_files
from tests.fuzz.door import Case, Door
from tests.fuzz.json_values import every

FORMATS = ("safetensors", "hdf5", "parquet", "npy")


def make_model() -> tuple[ElmoModel, ElmoTokenizer]:
    torch.manual_seed(0)
    sizes = {name: value for name, value in good.SIZES.items() if name != "vocab_size"}
    return ElmoModel(ElmoConfig(**sizes)).eval(), ElmoTokenizer(None, good.SIZES["max_characters_per_token"])


def continue_job(folder: Path, format: str) -> Any:
    model, tokenizer = make_model()
    options = {"progress": False, "device": "cpu", "shard_words": 12, "batch_words": 24, "format": format}
    return embed(folder / "corpus.txt", folder / format, model, tokenizer=tokenizer, **options)


def prepare_job(folder: Path) -> None:
    draw_words = random.Random(0)
    lines = [" ".join(draw_words.choices(good.WORDS[3:], k=draw_words.choice([0, 3, 5]))) for _ in range(12)]
    (folder / "corpus.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for format in FORMATS:
        continue_job(folder, format)


def format_of(case: Case) -> str:
    return FORMATS[case.number % len(FORMATS)]


INDEX: list[tuple[str, Any]] = every("sentences", -1, 2**70, "1", None, 1.5, 0, 10**9)
INDEX += every("columns", ["x"], [])
INDEX += every("shards", [], [{}], 5, None, [{"first": 0}], [{"first": 2**70}] * 3)
INDEX += every("format", "hdf5", "parquet", "safetensors", "../x", None, 5) + every("pool", "mean", 5)
INDEX += every("dim", -1, "x", 2**40) + every("layers", 5) + every("input", {}) + every("model", "x")
INDEX += every("dtype", "evil")


def damage_job(case: Case) -> str:
    """A job that is done, or whose index is not written yet."""
    folder, rng = case.input / format_of(case), case.rng
    note = ""
    if rng.random() < 0.6:
        (folder / "index.json").unlink()
        note = "no index; "
    path = rng.choice([path for path in sorted(folder.iterdir()) if path.is_file()])
    choice = rng.random()
    if choice < 0.12:
        return note + folders.damage(rng, folder, None)
    if choice < 0.16:
        return note + folders.damage(rng, case.input, None, ["corpus.txt"])
    if path.suffix == ".json":
        return note + json_values.damage_file(rng, path, INDEX, case.outside)
    if path.suffix == ".safetensors":
        return note + (
            damage_header(case, path) if rng.random() < 0.3 else safetensors_files.damage(rng, path)
        )
    if path.suffix == ".parquet":
        return note + f"{path.name}, {parquet_files.damage(rng, path)}"
    if path.suffix == ".hdf5":
        return note + hdf5_files.damage(rng, path, case.outside)
    return note + raw_bytes.damage_file(rng, path)


HEADER: list[tuple[str, Any]] = [
    (name, value) for name in ("first", "sentences", "words") for value in (-1, 2**70, "1", None, 0, 10**9)
]
HEADER += every("digest", "x", 5, None) + every("extra", 1)


def damage_header(case: Case, path: Path) -> str:
    header, numbers = safetensors_files.read(path)
    content, note = json_values.damage(case.rng, json.loads(header["__metadata__"]["elmo_hf"]), HEADER)
    header["__metadata__"]["elmo_hf"] = json_values.dumps(content)
    safetensors_files.write(path, json_values.dumps(header).encode("utf-8", "surrogatepass"), numbers)
    return f"{path.name}, {note}"


def enter_job(case: Case) -> bytes:
    """The job goes on, and what it has made is read."""
    if case.number % 5:
        vectors = continue_job(case.input, format_of(case))
    else:
        vectors = read_vectors(case.input / format_of(case))
    return b"".join(array.tobytes() + " ".join(words or ()).encode() for words, array in vectors)


MAY_WRITE = tuple(f"in/{format}*" for format in FORMATS)
DOORS = [Door("embed", prepare_job, damage_job, enter_job, MAY_WRITE)]
