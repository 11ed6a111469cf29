"""What a checkpoint knows of its run (`training/progress.json`): counters, settings, position in the text.

    progress = read_progress(checkpoint)        # every value is checked here, and nowhere else
    progress.step, progress.settings

A checkpoint is compared with its manifest before it is used, which finds accidents. A file that was made up
fits its manifest; so its values are distrusted as well.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from reprlib import repr as short
from typing import Any

from elmo_hf.errors import ElmoError
from elmo_hf.files import read_json
from elmo_hf.pretraining.settings import Settings, check_type
from elmo_hf.pretraining.text_record import TextRecord, check_record

PREFIX = "checkpoint-"
TRAINING = "training"
PROGRESS = f"{TRAINING}/progress.json"
LARGEST = 2**53  # of a counter
# The lists of the rows hold a number for each; 2**28 bytes are enough for a million rows.
MAX_BYTES = 2**28


@dataclass
class Progress:
    """
    step, words, epoch: what has been done: updates, words (in one direction), passes over the text.
    evaluated_at: step of the last evaluation, or -1.
    position: where to read on, a state of `Windows`.
    text: record of the text files; None in checkpoints of version 0.1.0.
    seconds: that the run has taken; 0 without `max_minutes`, as in checkpoints of version 0.1.0.
    """

    step: int
    words: int
    epoch: int
    evaluated_at: int
    settings: dict[str, Any]
    position: dict[str, Any]
    text: TextRecord | None = None
    seconds: float = 0.0

    def write(self, checkpoint: Path) -> None:
        """The names are those of version 0.1.0."""
        entries = asdict(self)
        entries |= {"judged_at": entries.pop("evaluated_at"), "place": entries.pop("position")}
        (checkpoint / PROGRESS).write_text(json.dumps(entries, allow_nan=False) + "\n", encoding="utf-8")


def read_progress(checkpoint: Path) -> Progress:
    """Read and check the progress of a checkpoint.

    Raises:
        ElmoError: a value is missing, or no run can have written it.
    """
    path = checkpoint / PROGRESS
    content = read_json(path, MAX_BYTES)
    try:
        content = _dictionary("it", content)
        step = whole("step", content.get("step"), at_least=1)
        if step_of(checkpoint) not in (-1, step):
            raise ElmoError(f"step is {step}, which is not that of its folder")
        progress = Progress(
            step=step,
            words=whole("words", content.get("words")),
            epoch=whole("epoch", content.get("epoch")),
            evaluated_at=whole("judged_at", content.get("judged_at"), at_least=-1),
            settings=_dictionary("settings", content.get("settings")),
            position=_dictionary("place", content.get("place")),
            text=content.get("text"),
            seconds=_number("seconds", content.get("seconds", 0.0)),
        )
        _check_settings(progress.settings)
        _check_position(progress)
        check_record(progress.text)
    except ElmoError as error:
        raise ElmoError(f"{path} is damaged: {str(error).rstrip('.')}.") from None
    return progress


def step_of(path: Path) -> int:
    """The step in a checkpoint's name, or -1 for another name."""
    text = path.name.removeprefix(PREFIX)
    return int(text) if text.isdecimal() and path.name.startswith(PREFIX) else -1


# ---- checks


def whole(name: str, value: Any, at_least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value < LARGEST:
        raise ElmoError(f"{name} must be a whole number of at least {at_least}, but is {short(value)}")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LARGEST:
        raise ElmoError(f"{name} must be a number of at least 0, but is {short(value)}")
    return float(value)


def _dictionary(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ElmoError(f"{name} must be an object, but is {short(value)}")
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _whole_numbers(name: str, values: Any, count: int) -> list[int]:
    if not isinstance(values, list) or len(values) != count:
        raise ElmoError(f"{name} must be a list of {count} numbers, but is {short(values)}")
    return [whole(name, value) for value in values]


def _check_settings(settings: dict[str, Any]) -> None:
    """Of the settings that there are; those of an earlier version may be fewer."""
    for setting in fields(Settings):
        if setting.name in settings:
            check_type(setting, settings[setting.name])
    for name in ("rows", "shared_reading", "epochs"):
        if name not in settings:
            raise ElmoError(f"settings has no {name}")
    for name in ("rows", "epochs"):
        whole(name, settings[name], at_least=1)


def _check_position(progress: Progress) -> None:
    position, rows = progress.position, progress.settings["rows"]
    _dictionary("place.settings", position.get("settings"))
    if position.get("rows") != rows or position.get("first") != 0:
        raise ElmoError(f"place is not that of all {rows} rows")
    orders, readings = 1 if progress.settings["shared_reading"] else 2, position.get("readings")
    if not isinstance(readings, list) or len(readings) != orders:
        raise ElmoError(f"place.readings must be a list of {orders}, but is {short(readings)}")
    for reading in readings:
        _check_reading(_dictionary("place.readings", reading), rows, progress)


def _check_places(reading: dict[str, Any], progress: Progress) -> list[int]:
    """Returns how many sentences of each group come before its place."""
    groups = whole("groups", progress.position["settings"].get("groups", 1), at_least=1)
    if groups > 1:
        places = _list(reading.get("places"))
    elif "digest" in reading:
        places = [0, reading["digest"], *_list(reading.get("place"))]
    else:
        raise ElmoError("place has no digest")
    if len(places) != 7 * groups:
        raise ElmoError(f"place must have {5 * groups} numbers, but is {short(places)}")
    sentences = []
    for group in range(groups):
        number, digest, *position = places[7 * group : 7 * group + 7]
        if whole("place", number) != group:
            raise ElmoError(f"places are not those of all {groups} groups")
        if digest is not None:
            whole("digest", digest)
        epoch, *_, sentence = _whole_numbers("place", position, 5)
        if epoch >= progress.settings["epochs"]:
            raise ElmoError(f"place is in epoch {epoch} of {progress.settings['epochs']}")
        sentences.append(sentence)
    return sentences


def _check_reading(reading: dict[str, Any], rows: int, progress: Progress) -> None:
    """A state of `Rows`."""
    words = progress.words
    sentences = _check_places(reading, progress)
    renumberings = reading.get("deals")
    if not isinstance(renumberings, list):
        raise ElmoError(f"deals must be a list, but is {short(renumberings)}")
    for renumbering in renumberings:
        renumbering = _dictionary("deals", renumbering)
        _check_rows(renumbering, whole("rows", renumbering.get("rows"), at_least=1), words)
    started = _check_rows(reading, rows, words)
    if not renumberings and not _are_read(sentences, started):
        raise ElmoError("begun and place are not of one position")


def _are_read(sentences: list[int], started: list[int]) -> bool:
    """Whether the rows have started all sentences before the places of their groups. The rows of a group are
    neighbours: of 3, row r of them starts its sentences r, r + 3, r + 6 ..."""
    size = len(started) // len(sentences)
    rows = [started[group * size : (group + 1) * size] for group in range(len(sentences))]
    return all(
        turn * size + row >= sentence
        for sentence, turns in zip(sentences, rows, strict=True)
        for row, turn in enumerate(turns)
    )


def _check_rows(reading: dict[str, Any], rows: int, words: int) -> list[int]:
    """How many sentences each row has started. Each has at least a word, and both directions have read the
    same number of words, except at the end of the text."""
    started = _whole_numbers("begun", reading.get("begun"), rows)
    _whole_numbers("used", reading.get("used"), rows)
    if sum(started) > 2 * words + rows:
        raise ElmoError(f"begun has {sum(started):,} sentences, but there were {words:,} words")
    return started
