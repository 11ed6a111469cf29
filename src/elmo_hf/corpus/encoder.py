"""Words to the numbers that a language model reads and predicts.

encoder = Encoder(Vocabulary.load("vocab.txt"), tokenizer=tokenizer)
encoder.inputs(["<S>", "He", "paid"])   # (3, 50) character ids
encoder.targets(["He", "paid", "</S>"])  # (3,) word ids
"""

from itertools import islice

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
        cache_words: distinct words whose character ids are kept, 100 bytes each.
        tokenizer: the model's, which makes its rows of character ids; without one they are `max_characters`
            bytes.
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
        self._slots, self._tokenizer = _Slots(), tokenizer
        length, dtype = max_characters, np.dtype(np.int16)
        if tokenizer is not None:
            length = tokenizer.char_ids_length
            ids = max(tokenizer.num_characters, tokenizer.word_column * (tokenizer.vocab_size + 1))
            dtype = np.dtype(np.int16 if ids <= 2**15 else np.int32)
        self._character_ids = np.empty((cache_words, length), dtype)

    def targets(self, words: list[str]) -> np.ndarray:
        """The words' ids: (words,)."""
        return np.fromiter(map(self.vocabulary.ids.__getitem__, words), dtype=np.int64, count=len(words))

    def inputs(self, words: list[str]) -> np.ndarray:
        """Character ids (words, characters), or for a model with a table of words their ids (words,)."""
        if not self.reads_characters:
            return self.targets(words)
        capacity, length = self._character_ids.shape
        if len(self._slots) + len(words) > capacity:
            self._slots = _Slots()
            self._character_ids = np.empty((max(capacity, len(words)), length), self._character_ids.dtype)
        slots = np.fromiter(map(self._slots.__getitem__, words), dtype=np.int64, count=len(words))
        if self._slots.new:
            new = slice(len(self._slots) - len(self._slots.new), len(self._slots))
            self._character_ids[new] = self.rows(self._slots.new)
            self._slots.new = []
        return self._character_ids[slots]

    def rows(self, words: list[str]) -> np.ndarray:
        """Character ids of words, (words, characters), which are not kept."""
        if self._tokenizer is None:
            return character_ids(words, self._character_ids.shape[1])
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
    """Rows 0, 1, 2, ... of a table, given to words when they are first asked for; these are in `new` then."""

    def __init__(self) -> None:
        self.new: list[str] = []

    def __missing__(self, word: str) -> int:
        slot = self[word] = len(self)
        self.new.append(word)
        return slot
