"""Words to the numbers that a language model reads and predicts.

    encoder = Encoder(Vocabulary.load("vocab.txt"), tokenizer=tokenizer)
    encoder.inputs(["<S>", "He", "paid"])   # (3, 50) character ids
    encoder.targets(["He", "paid", "</S>"])  # (3,) word ids

Each distinct word is encoded once: it gets a slot, a row of a table of character ids and of word ids. The
words of many sentences are then taken from the tables at once.

    slots = encoder.slots(["He", "paid"])    # of <S>, He, paid, </S>
    encoder.input_rows(slots), encoder.target_ids(slots)
"""

from array import array
from itertools import islice
from typing import Any

import numpy as np

from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import BEGIN, END, SPECIALS, Vocabulary
from elmo_hf.errors import ElmoError
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.model.words_elmo import character_ids


class Encoder:
    """Words to what the model reads (`inputs`) and predicts (`targets`).

    Args:
        vocabulary: ids of the words.
        max_characters: length of a word's row of character ids.
        token_encoder: "characters", or "words" for a model with a table of words, as in `ElmoConfig`.
        cache_words: distinct words after which `forget_words` empties the tables, of about 200 bytes a word.
        tokenizer: the model's, which makes its rows of character ids; without one they are `max_characters`
            bytes.

    Attributes:
        generation: how often the tables were emptied; slots of an earlier generation mean nothing.
        row_shape, dtype: of what the model reads for a word.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        max_characters: int = 50,
        token_encoder: str = "characters",
        cache_words: int = 100_000,
        tokenizer: ElmoTokenizer | None = None,
    ) -> None:
        if token_encoder not in ("characters", "words"):
            raise ElmoError(f"token_encoder must be 'characters' or 'words', but is {token_encoder!r}.")
        self.vocabulary, self.reads_characters = vocabulary, token_encoder == "characters"
        self._tokenizer, self._cache_words = tokenizer, cache_words
        self._length = max_characters
        self.dtype: np.dtype[Any] = np.dtype(np.int16)
        if tokenizer is not None:
            self._length = tokenizer.char_ids_length
            ids = max(tokenizer.num_characters, tokenizer.word_column * (tokenizer.vocab_size + 1))
            self.dtype = np.dtype(np.int16 if ids <= 2**15 else np.int32)
        self.row_shape = (self._length,) if self.reads_characters else ()
        if not self.reads_characters:
            self.dtype = np.dtype(np.int64)
        self.generation = -1
        self._empty_tables()

    def _empty_tables(self) -> None:
        self.generation += 1
        self._slots, self._filled = _Slots(), 0
        self._input_rows = np.empty((0, *self.row_shape), self.dtype)
        self._target_ids = np.empty(0, np.int64)
        self._slots[BEGIN], self._slots[END]  # their slots are 0 and 1

    # ---- by slots

    def slots(self, words: list[str]) -> "array[int]":
        """The slots of a sentence's words, between those of its boundaries."""
        return array("i", [0, *map(self._slots.__getitem__, words), 1])

    def target_ids(self, slots: Any) -> np.ndarray:
        """Word ids of an array of slots: (slots,)."""
        self._fill_tables()
        return self._target_ids[np.frombuffer(slots, dtype=np.intc)]

    def input_rows(self, slots: Any, out: np.ndarray | None = None) -> np.ndarray:
        """What the model reads for an array of slots: (slots, *row_shape), into `out` if that is given."""
        self._fill_tables()
        return self._input_rows.take(np.frombuffer(slots, dtype=np.intc), axis=0, out=out, mode="clip")

    def forget_words(self) -> None:
        """Empty the tables, if they have many words."""
        if self._filled > max(self._cache_words, len(SPECIALS)):
            self._empty_tables()

    def _fill_tables(self) -> None:
        """Encode the words that have a slot since the last time."""
        if self._filled == len(self._slots):
            return
        words, self._slots.new = self._slots.new, []
        if len(self._slots) > len(self._target_ids):
            size = max(1024, 2 * len(self._slots))
            self._input_rows = _longer(self._input_rows, size)
            self._target_ids = _longer(self._target_ids, size)
        new = slice(self._filled, len(self._slots))
        self._target_ids[new] = self.targets(words)
        self._input_rows[new] = self.inputs(words)
        self._filled = len(self._slots)

    # ---- by words

    def targets(self, words: list[str]) -> np.ndarray:
        """The words' ids: (words,)."""
        return np.fromiter(map(self.vocabulary.ids.__getitem__, words), dtype=np.int64, count=len(words))

    def inputs(self, words: list[str]) -> np.ndarray:
        """Character ids (words, characters), or for a model with a table of words their ids (words,)."""
        return self.rows(words).astype(self.dtype) if self.reads_characters else self.targets(words)

    def rows(self, words: list[str]) -> np.ndarray:
        """Character ids of words: (words, characters)."""
        if self._tokenizer is None:
            return character_ids(words, self._length)
        names = {BEGIN: self._tokenizer.bos_token, END: self._tokenizer.eos_token}
        return self._tokenizer.char_rows([names.get(word, word) for word in words])

    def check(self, source: Source, sentences: int = 1000) -> None:
        """Refuse a corpus that is empty, or whose first sentences have no word of the vocabulary."""
        words = {word: None for sentence in islice(source, sentences) for word in sentence}
        if not words:
            raise ElmoError(f"{source.name} is empty; there is no word in it.")
        if not any(word in self.vocabulary.ids and word not in SPECIALS for word in words):
            raise ElmoError(
                f"no word of the first {sentences} sentences of {source.name} is in {self.vocabulary.name} "
                f"(such as {next(iter(words))!r:.60}); make the vocabulary from this corpus, split likewise."
            )


class _Slots(dict[str, int]):
    """Slots 0, 1, 2, ... in the order in which words are first asked for; these are in `new` then."""

    def __init__(self) -> None:
        self.new: list[str] = []

    def __missing__(self, word: str) -> int:
        slot = self[word] = len(self)
        self.new.append(word)
        return slot

    def __reduce__(self) -> tuple[Any, ...]:
        return _Slots, (), {"new": self.new}, None, iter(self.items())


def _longer(table: np.ndarray, size: int) -> np.ndarray:
    longer = np.empty((size, *table.shape[1:]), table.dtype)
    longer[: len(table)] = table
    return longer
