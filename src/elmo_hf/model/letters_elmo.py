"""Words to rows of letter ids by a lexicon of letters, the file `letters.json` of a model's folder.

    lexicon = LetterLexicon("letters.json")
    lexicon(["He", "paid"], max_characters=50)  # (2, 50)

The original ELMo reads bytes (`character_ids` in words_elmo.py), which need no file. ELMoForManyLangs reads
code points, each with an id of its own. `letters.json` has these ids as the model reads them:

    {"letters": {"a": 5, "天": 6, ...}, "sentence_begin": 18, "sentence_end": 19, "word_begin": 23,
     "word_end": 22, "padding": 21, "unknown": 20}

Id 0 means "no word here", so ids begin at 1. A key of several code points, such as "<bos>", has an id and
equals no letter of a word.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .folder_elmo import quoted, read_object

ENTRIES = ("sentence_begin", "sentence_end", "word_begin", "word_end", "padding", "unknown")
MAX_LETTER = 2**21  # ids; Unicode has 1.1 million code points


class LetterLexicon:
    """Letters and their ids. Called with words, it returns their rows of ids, as `character_ids` does.

    Args:
        path: of `letters.json`.
    """

    def __init__(self, path: str | Path) -> None:
        if not Path(path).is_file():
            raise ValueError(
                f"{quoted(path, 200)} is no plain file; give a lexicon of letters, letters.json."
            )
        self.content = read_object(Path(path), unique_keys=True)
        _check(self.content, quoted(path, 200))
        self.ids: dict[str, int] = {name: self.content[name] for name in ENTRIES}
        letters = {ord(key): number for key, number in self.content["letters"].items() if len(key) == 1}
        # The last entry stands for all code points beyond, which `take` clips to it.
        self._table = np.full(max(letters, default=-1) + 2, self.ids["unknown"], dtype=np.int64)
        self._table[list(letters)] = list(letters.values())

    @property
    def boundaries(self) -> list[int]:
        """The ids of sentence begin and end, word begin and end, and padding within a word."""
        return [self.ids[name] for name in ENTRIES[:5]]

    @property
    def num_characters(self) -> int:
        """Rows of the table of letter vectors that the ids need: the highest id and one, for id 0."""
        return max(*self.ids.values(), *self.content["letters"].values()) + 1

    def __call__(
        self, words: Sequence[str], max_characters: int, begin: str = "<bos>", end: str = "<eos>"
    ) -> np.ndarray:
        """Letter ids, (words, max_characters): in each row word begin, the word's letters, word end, padding.

        A word is cut before it is compared with `begin` and `end`, as in ELMoForManyLangs.
        """
        room, ids = max_characters - 2, self.ids
        lengths = np.minimum(np.fromiter(map(len, words), dtype=np.int64, count=len(words)), room)
        # A fixed-width array of code points cuts long words and fills short ones.
        codes = np.array(words, dtype=f"U{room}").view(np.uint32).reshape(len(words), room)
        is_letter = np.arange(room) < lengths[:, None]
        rows = np.full((len(words), max_characters), ids["padding"], dtype=np.int64)
        rows[:, 0] = ids["word_begin"]
        rows[:, 1:-1][is_letter] = self._table.take(codes[is_letter], mode="clip")
        rows[np.arange(len(words)), lengths + 1] = ids["word_end"]
        for sign, boundary in ((begin, ids["sentence_begin"]), (end, ids["sentence_end"])):
            numbers = [number for number, word in enumerate(words) if sign in (word, word[:room])]
            rows[numbers, 1:] = [boundary, ids["word_end"]] + [ids["padding"]] * (max_characters - 3)
        return rows

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.content) + "\n", encoding="utf-8")


def _check(content: dict[str, Any], name: str) -> None:
    """Refuse what is no lexicon, in one sentence."""
    for key in ("letters", *ENTRIES):
        if key not in content:
            raise ValueError(f"{name} lacks the entry '{key}'; convert or download the model again.")
    for key in content:
        if key not in ("letters", *ENTRIES):
            raise ValueError(
                f"{name} has the entry {quoted(key)!r}, which no lexicon of letters has; remove it."
            )
    letters = content["letters"]
    if not isinstance(letters, dict) or not letters:
        raise ValueError(f"{name} must have an object of letters and their ids for 'letters'.")
    for key, number in [*letters.items(), *((key, content[key]) for key in ENTRIES)]:
        if not key:
            raise ValueError(f"{name} has an empty letter; a letter is one code point.")
        if type(number) is not int or not 1 <= number <= MAX_LETTER:
            raise ValueError(
                f"{name} has {quoted(number)!r} for {quoted(key)!r}; an id is a whole number from 1 to "
                f"{MAX_LETTER}."
            )
