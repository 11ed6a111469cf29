"""Doors of a pretraining run: its checkpoint and logs when it is resumed, its log when it is summed up."""

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from elmo_hf.files import MANIFEST, write_manifest
from elmo_hf.pretraining.log import log_path, read_log
from elmo_hf.pretraining.plot import draw
from elmo_hf.pretraining.summary import summarize
from tests.fuzz import folders, good, json_values, raw_bytes, safetensors_files
from tests.fuzz.door import Case, Door, Refusal
from tests.fuzz.json_values import Raw, every
from tests.fuzz.worker import sentence_in
from tests.helpers.launcher import SMOKE, TRAINING
from training import pretrain

# ---- a pretraining run

VOCABULARY = TRAINING / "runs" / "smoke_vocab.txt"
SETTINGS: dict[str, Any] = {
    "lstm_dim": 8,
    "projection_dim": 4,
    "char_embedding_dim": 4,
    "char_filters": "[[1,4]]",
    "rows": 2,
}
SETTINGS |= {
    "num_highway_layers": 1,
    "num_hidden_layers": 1,
    "max_characters_per_token": 12,
    "window": 4,
    "samples": 8,
}
SETTINGS |= {
    "workers": 0,
    "save_every": 1,
    "log_every": 1,
    "shuffle_sentences": 5,
    "seed": 7,
    "resume": "auto",
}


def prepare_run(folder: Path) -> None:
    lines = SMOKE.read_text(encoding="utf-8").splitlines(keepends=True)[:8]
    (folder / "text.txt").write_text("".join(lines), encoding="utf-8")
    words = VOCABULARY.read_text(encoding="utf-8").splitlines()[:40]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    train(folder, max_steps=2)
    shutil.rmtree(folder / "run" / "final")


def train(folder: Path, **changes: Any) -> None:
    """`training/pretrain.py`, as its command line runs it."""
    settings = (
        SETTINGS
        | {"data": folder / "text.txt", "vocab": folder / "vocab.txt", "output": folder / "run"}
        | changes
    )
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    run_command(pretrain.main, ["training/pretrain.py", *arguments, "--audit"])


def run_command(main: Callable[[], None], arguments: list[str]) -> None:
    errors = io.StringIO()
    sys.argv = arguments
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            sentence = sentence_in(errors.getvalue(), Path(arguments[0]).name)
            if end.code == 1 and sentence is not None:
                raise Refusal(sentence) from end.__context__
            raise


def damage_run(case: Case) -> str:
    """The newest checkpoint, often with a manifest that is right for it, or a file of the run."""
    run, rng = case.input / "run", case.rng
    checkpoint = max(run.glob("checkpoint-*"))
    places = {
        "log.jsonl": lambda: damage_lines(case, run / "log.jsonl"),
        "audit": lambda: damage_lines(case, run / "audit-0.jsonl"),
        "manifest": lambda: json_values.damage_file(rng, checkpoint / MANIFEST, MANIFESTS, case.outside),
        "run": lambda: folders.damage(rng, run, None, ["log.jsonl", "audit-0.jsonl"]),
        "names": lambda: add_names(case, run),
    }
    name = rng.choice([*places, *["checkpoint"] * 7])
    if name != "checkpoint":
        return f"{name}: {places[name]()}"
    note = damage_checkpoint(case, checkpoint)
    if rng.random() < 0.75:
        with contextlib.suppress(OSError):
            (checkpoint / MANIFEST).unlink()
            write_manifest(checkpoint)
        note += ", with its manifest"
    return note


MANIFESTS = [
    ("files", value) for value in ({}, [], 5, None, {"../../x": {"bytes": 1, "sha256": ""}}, {"a": 5})
]
MANIFESTS += [
    ("files", {"../../../../outside/secret.txt": {"bytes": 5, "sha256": "x"}}),
    ("files", {"/dev/zero": {"bytes": 0, "sha256": ""}}),
]
PROGRESS: list[tuple[str, Any]] = [
    (name, value)
    for name in ("step", "words", "epoch", "judged_at")
    for value in (-1, 2**70, "1", None, 1.5, 10**6)
]
PROGRESS += every("place", None, {}, [], 5, "x", [[]], {"a": 1}) + every("settings", {}, 5)


def damage_checkpoint(case: Case, checkpoint: Path) -> str:
    rng = case.rng
    name = rng.choice(
        ["training/progress.json"] * 4
        + ["training/optimizer.safetensors", "training/rows.safetensors"] * 2
        + good.MODEL_FILES
    )
    path = checkpoint / name
    if rng.random() < 0.1:
        return folders.damage(rng, checkpoint, None, [name])
    if path.suffix == ".safetensors":
        return safetensors_files.damage(rng, path)
    if path.suffix == ".json":
        return json_values.damage_file(rng, path, PROGRESS if path.stem == "progress" else (), case.outside)
    return raw_bytes.damage_file(rng, path)


def add_names(case: Case, run: Path) -> str:
    """Folders with names of checkpoints."""
    rng = case.rng
    name = rng.choice(
        [
            "checkpoint-9999999",
            "checkpoint-0000001x",
            "checkpoint-" + "9" * 200,
            "checkpoint-²",
            "checkpoint--1",
        ]
    )
    name = rng.choice(
        [
            name,
            ".unfinished-checkpoint-0000002",
            ".unfinished-final",
            ".unfinished-final-old",
            "final",
            "lock",
        ]
    )
    path = run / name
    choice = rng.randrange(4)
    if choice == 0:
        path.write_bytes(b"x")
    elif choice == 1:
        path.symlink_to(rng.choice(["checkpoint-0000001", ".", "nothing"]))
    else:
        path.mkdir()
        (path / rng.choice(["x", MANIFEST])).write_bytes(rng.choice([b"{}", b'{"files": {}}', b""]))
    return name[:40]


LOG: list[tuple[str, Any]] = [
    (name, value)
    for name in ("step", "loss", "words", "words_per_second")
    for value in (-1, 0, 2**70, "1", None, True)
]
LOG += [
    (name, value)
    for name in ("forward", "backward", "mean", "text")
    for value in (-1, 0, Raw("NaN"), "x", None, [], 1e308)
]
LOG += every("kind", "start", "step", "evaluation", "resume", "end", "x", None, 5, [], {"a": 1})
LOG += every("settings", {}, 5, None, [], {"rows": []}) + every("processes", 0, "x", None, 10**9)
LOG += every("device", 5, None, "cuda:7") + every("forward", []) + every("backward", {})


def damage_lines(case: Case, path: Path) -> str:
    rng = case.rng
    lines = path.read_text(encoding="utf-8").splitlines()
    number, choice = rng.randrange(len(lines)), rng.random()
    if choice < 0.2:
        return raw_bytes.damage_file(rng, path)
    if choice < 0.4:
        odd = [
            "",
            "{}",
            "[]",
            "5",
            "null",
            '"x"',
            "{",
            "x" * 100_000,
            "[" * 100_000,
            lines[number][:10],
            "\0" * 512,
            "\ufeff" + lines[0],
        ]
        lines.insert(number, rng.choice(odd))
        note = "a line more"
    elif choice < 0.5:
        rng.shuffle(lines)
        note = "another order"
    elif choice < 0.55:
        lines *= rng.choice([2, 300])
        note = "repeated"
    else:
        entry, note = json_values.damage(rng, json.loads(lines[number]), LOG, case.outside)
        lines[number] = json_values.dumps(entry)
    end = rng.choice(["\n", "\n", "\n", "", "\r\n"])
    path.write_bytes(("\n".join(lines) + end).encode("utf-8", "surrogatepass"))
    return f"{path.name}, line {number + 1}: {note}"


def enter_run(case: Case) -> None:
    train(case.input, max_steps=3)


# ---- the log


def prepare_log(folder: Path) -> None:
    prepare_run(folder)
    train(folder, max_steps=3, heldout=folder / "text.txt")


def damage_log(case: Case) -> str:
    run, rng = case.input / "run", case.rng
    if rng.random() < 0.08:
        return folders.damage(rng, run, None, ["log.jsonl"])
    if rng.random() < 0.2:
        checkpoint = max(run.glob("checkpoint-*"))
        return json_values.damage_file(rng, checkpoint / "training" / "progress.json", PROGRESS, case.outside)
    return damage_lines(case, run / "log.jsonl")


def enter_log(case: Case) -> str:
    """The summary; seldom the picture, which takes long."""
    if case.number % 8 == 0:
        path = log_path(case.input / "run")
        draw(read_log(path), case.output / "log.png", name=path.resolve().parent.name)
        return ""
    return json.dumps(summarize(case.input / "run", "a machine"))


DOORS = [
    Door("checkpoint", prepare_run, damage_run, enter_run, may_write=("in/run", "in/run/*")),
    Door("logs", prepare_log, damage_log, enter_log),
]
