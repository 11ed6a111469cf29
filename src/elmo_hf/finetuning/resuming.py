"""The folder of a run that was started before: which seeds are finished, and whether it is the same run.

A seed is finished when `results.json` has its scores and `seed-N/` its model. A seed that was stopped begins
anew. It ends in the scores of an undisturbed run, because nothing goes over from one seed to the next.
"""

import argparse
import hashlib
import json
import os
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from elmo_hf.embedding.job import fingerprint
from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.files import open_plain, read_json
from elmo_hf.finetuning.data import Example
from elmo_hf.finetuning.flags import RESULTS
from elmo_hf.finetuning.word_vectors import digest_of_vectors
from elmo_hf.loading import load, load_config
from elmo_hf.model.modeling_elmo import ElmoModel

# Flags that may change: places, since their content is compared, which seeds are trained, how fast,
# and who watches.
FREE_FLAGS = {"output", "seeds", "train", "dev", "test", "data", "elmo", "vectors", "report-to", "threads"}
FREE_FLAGS |= {"predictions", "evaluate"}
# Flags that older versions do not have, with the defaults that do what those did.
NEWER_FLAGS = {"vector_scale": 1.0, "labels": None, "elmo_learning_rate": None}


def inputs_of(flags: argparse.Namespace, data: dict[str, list[Example]]) -> dict[str, str | None]:
    """Digests of the examples, the biLM and the word vectors."""
    inputs: dict[str, str | None] = {split: digest_of(examples) for split, examples in data.items()}
    inputs["elmo"] = fingerprint(*load(flags.elmo, ElmoModel)) if flags.elmo else None
    inputs["vectors"] = digest_of_vectors(flags.vectors) if flags.vectors else None
    return inputs


def digest_of(examples: list[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(example, sort_keys=True, default=repr).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def read_before(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The results that the folder has, without seeds whose model is missing; an empty dictionary if none.

    Args:
        settings: the `task`, `flags` and `inputs` of this run, which must be those of the results.
    """
    path = folder / RESULTS
    if not path.exists():
        return {}
    before = read_json(path)
    if not has_form(before):
        raise ElmoError(f"{path} is damaged; remove it, and the same command trains all seeds again.")
    check_same(folder, values_of(before), values_of(json.loads(json.dumps(settings))))
    runs = dict(before["runs"])
    for seed in set(map(str, settings["flags"]["seeds"])) & {*runs}:
        if not is_kept(folder / f"seed-{seed}", before["task"], seed, runs[seed]):
            del runs[seed]
    return before | {"runs": runs}


def has_form(results: Any) -> bool:
    """Whether the content is what `finetune` writes, as far as it is used again."""
    try:
        runs = [run for seed, run in results["runs"].items() if int(seed) >= 0]
        scores = [[run[split] for split in ("dev", "test")] for run in runs]
        numbers = [value for splits in scores for split in splits for value in split.values()]
        names = {tuple(tuple(split) for split in splits) for splits in scores}
        return (
            all(isinstance(results[name], dict) for name in ("flags", "config", "examples"))
            and isinstance(results["task"], str)
            and all(isinstance(value, int | float) and not abs(value) > 1e15 for value in numbers)
            and len(names) <= 1
        )
    except (TypeError, KeyError, ValueError, AttributeError):
        return False


def values_of(results: dict[str, Any]) -> dict[str, Any]:
    """What must be the same, by the name that a message has for it."""
    flags = {f"--{name.replace('_', '-')}": value for name, value in (NEWER_FLAGS | results["flags"]).items()}
    free = {f"--{name}" for name in FREE_FLAGS}
    named = {name: value for name, value in flags.items() if name not in free}
    inputs = results.get("inputs")
    inputs = inputs if isinstance(inputs, dict) else {}
    return {"task": results["task"]} | named | {f"content of --{name}": inputs.get(name) for name in inputs}


def check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in now.items():
        if before.get(name) != value:
            raise ElmoError(
                f"{folder} holds the results of a run with another {name} ({reprlib.repr(before.get(name))}, "
                f"now {reprlib.repr(value)}); go on with the same, or name another --output."
            )


def is_kept(folder: Path, task: str, seed: str, run: dict[str, Any]) -> bool:
    """Whether a seed's folder has its scores and an undamaged model."""
    try:
        evaluation = read_json(folder / "results" / f"evaluation-{task}.json")
        os.close(open_plain(folder / "model.safetensors"))
        load_config(folder)
        with safe_open(folder / "model.safetensors", "pt"):
            is_same = evaluation["mean"] == {split: run[split] for split in ("dev", "test")}
        return is_same and evaluation["seed"] == int(seed)
    except (ValueError, OSError, KeyError, TypeError, SafetensorError):
        return False


@contextmanager
def written_to(folder: Path) -> Iterator[None]:
    """One sentence for a full disk, which each library reports in its own way."""
    try:
        yield
    except BrokenPipeError:  # of the output, not of the folder
        raise
    except (OSError, SafetensorError, RuntimeError) as error:
        is_torch_save = "inline_container" in str(error) or "PytorchStreamWriter" in str(error)
        if isinstance(error, RuntimeError) and not is_torch_save:
            raise
        names = (getattr(error, "filename2", None), getattr(error, "filename", None))  # 2: the copy's
        place = names[0] or names[1] or folder
        reason = "a file could not be written" if is_torch_save else reason_of(error)
        raise ElmoError(f"{place}: {reason}; mend that, and the same command goes on.") from error
