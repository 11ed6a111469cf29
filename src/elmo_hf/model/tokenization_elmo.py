"""ElmoTokenizer: words to character ids, and to word ids where there is a vocabulary.

    tokenizer = ElmoTokenizer()
    tokenizer("He didn't pay.", return_tensors="pt")                       # raw text is split into words
    tokenizer(["He", "did", "not"], is_split_into_words=True)              # your own words stay as they are

One token is one word. `input_ids` (batch, words) are word ids, all `<UNK>` without a vocabulary;
`char_ids` (batch, words, 50) are the characters that the model reads. The model itself adds sentence begin
and end, so labels and `word_ids()` are one to one with the words. Only a pair of sentences has `</S>` and
`<S>` between them, as in the text that an ELMo is trained on.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from transformers import BatchEncoding, PreTrainedTokenizer
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils import PaddingStrategy

from .examples_elmo import ElmoEncoding, Pair, as_batch, truncated
from .folder_elmo import HUB_OPTIONS, ElmoFolder, library_errors, quoted
from .letters_elmo import LetterLexicon
from .words_elmo import (
    BOUNDARIES,
    MAX_CHARACTERS,
    NUM_CHARACTER_IDS,
    SPLITTERS,
    Sentence,
    character_ids,
    read_vocabulary,
    split_text,
)

# Options that say how a model of another library reads words; others are not in tokenizer_config.json.
DEFAULT_SWITCHES = {"word_column": False, "cut_words": False, "strip_words": True}


class ElmoTokenizer(PreTrainedTokenizer):
    """Splits text into words, each of them one token, and encodes a word as a row of character ids.

    >>> tokenizer.tokenize("Don't sit.")
    ['Don', "'t", 'sit', '.']
    >>> tokenizer("Don't sit.", return_tensors="pt")["char_ids"].shape  # (texts, words, letters of a row)
    torch.Size([1, 4, 50])
    >>> tokenizer.decode(tokenizer("Don't sit.")["input_ids"])
    "Don 't sit ."

    Args:
        vocab_file: one word per line, in the order of the language model's softmax; `None` for none. `<S>`,
            `</S>` and `<UNK>` are found by name, and follow the last word if the file lacks them.
        max_characters_per_token: length of a row of character ids.
        word_splitter: how raw text is split: `"penn"`, as the published models' text was, or `"whitespace"`.
        pad_token: a name that is no word of the vocabulary, so that its id is one past the last word's.
        letters_file: a lexicon of letters, `letters.json`, for a model that reads code points; `None` for
            one that reads bytes. A `LetterLexicon` in its place is used as it is.
        word_column: rows of `char_ids` end with 1 + the word's id, for a model with a table of words beside
            its letters.
        cut_words: cut words to `max_characters_per_token - 2` code points also before their ids are looked
            up.
        strip_words: drop spaces around the words of `vocab_file`.
    """

    vocab_files_names = {"vocab_file": "vocab.txt", "letters_file": "letters.json"}  # noqa: RUF012 (as the base)
    model_input_names = ["input_ids", "char_ids", "attention_mask"]  # noqa: RUF012
    # The token classification pipeline reads this to learn whether tokens are parts of words. They are not.
    _tokenizer = SimpleNamespace(model=SimpleNamespace(continuing_subword_prefix="##"))

    def __init__(
        self,
        vocab_file: str | Path | None = None,
        max_characters_per_token: int = 50,
        word_splitter: str = "penn",
        bos_token: str = "<S>",
        eos_token: str = "</S>",
        unk_token: str = "<UNK>",
        pad_token: str = "<PAD>",
        letters_file: str | Path | LetterLexicon | None = None,
        word_column: bool = False,
        cut_words: bool = False,
        strip_words: bool = True,
        **kwargs: Any,
    ) -> None:
        _check_options(max_characters_per_token, word_splitter, kwargs)
        switches = {"word_column": word_column, "cut_words": cut_words, "strip_words": strip_words}
        _check_switches(switches, vocab_file)
        self.max_characters_per_token = max_characters_per_token
        self.word_splitter = word_splitter
        self.word_column, self.cut_words = word_column, cut_words
        self.lexicon = LetterLexicon(letters_file) if isinstance(letters_file, str | Path) else letters_file
        self._lines = read_vocabulary(vocab_file, strip_words) if vocab_file is not None else []
        self._words = list(self._lines)
        # As in bilm-tf, the last of two equal lines counts.
        self._word_ids = {word: number for number, word in enumerate(self._words)}
        for special in (bos_token, eos_token, unk_token):
            if str(special) not in self._word_ids:
                self._word_ids[str(special)] = len(self._words)
                self._words.append(str(special))
        self._word_ids.setdefault(str(pad_token), len(self._words))
        super().__init__(
            max_characters_per_token=max_characters_per_token,
            word_splitter=word_splitter,
            bos_token=bos_token,
            eos_token=eos_token,
            unk_token=unk_token,
            pad_token=pad_token,
            **{name: value for name, value in switches.items() if value is not DEFAULT_SWITCHES[name]},
            **kwargs,
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **options: Any) -> Any:
        """As in Transformers. The files are checked before any is read."""
        name = pretrained_model_name_or_path
        with library_errors(name):
            if Path(name).is_file():  # a vocabulary, which Transformers reads only for classes with one file
                own = {key: value for key, value in options.items() if key not in HUB_OPTIONS}
                return cls(name, *args, **{"name_or_path": str(name)} | own)
            ElmoFolder(name, options).check_tokenizer()
            return super().from_pretrained(name, *args, **options)

    def with_vocabulary(self, vocab_file: str | Path) -> "ElmoTokenizer":
        """The same letters, rules and columns, with other words."""
        return ElmoTokenizer(
            vocab_file,
            self.max_characters_per_token,
            self.word_splitter,
            letters_file=self.lexicon,
            word_column=self.word_column,
            cut_words=self.cut_words,
            split_special_tokens=self.split_special_tokens,
        )

    # ---- vocabulary

    @property
    def is_fast(self) -> bool:
        """True, because pipelines and collators read this before they use offsets and `word_ids()`."""
        return True

    @property
    def vocab_size(self) -> int:
        """Number of word ids. It does not include padding, whose id is one past the last."""
        return len(self._words)

    def get_vocab(self) -> dict[str, int]:
        return dict(self._word_ids)

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids([token])[0]

    def _ids(self, words: Sequence[str]) -> list[int]:
        """Word ids, as `input_ids` has them."""
        unknown = self._word_ids[str(self._special_tokens_map["unk_token"])]
        if self.cut_words:
            room, whole = self.max_characters_per_token - 2, set(map(str, self._special_tokens_map.values()))
            words = [word if word in whole else word[:room] for word in words]
        return [self._word_ids.get(word, unknown) for word in words]

    def _convert_id_to_token(self, index: int) -> str:
        if index == self.pad_token_id:
            return self.pad_token
        return self._words[index]

    def _add_tokens(self, new_tokens: Iterable[Any], special_tokens: bool = False) -> int:
        unknown = [str(token) for token in new_tokens if str(token) not in self._word_ids]
        if unknown:
            raise ValueError(
                f"ElmoTokenizer cannot add {quoted(unknown[0])!r}: word ids are the rows of the trained "
                "model, and any word can be read letter by letter without being added."
            )
        return 0

    def __setattr__(self, key: str, value: Any) -> None:
        name = key.removesuffix("_id")
        if name in ("bos_token", "eos_token", "unk_token") and value is None:
            raise ValueError(
                f"ElmoTokenizer cannot do without its {name}; set another word of the vocabulary."
            )
        if key in self.SPECIAL_TOKENS_ATTRIBUTES and value is not None:
            self._add_tokens([value])  # refuses what is no word of the vocabulary
        super().__setattr__(key, value)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        prefix = filename_prefix + "-" if filename_prefix else ""
        vocabulary, letters = (
            Path(save_directory, prefix + name) for name in self.vocab_files_names.values()
        )
        paths = []
        if self._lines:
            vocabulary.write_bytes("".join(word + "\n" for word in self._lines).encode("utf-8"))
            paths.append(str(vocabulary))
        if self.lexicon is not None:
            self.lexicon.save(letters)
            paths.append(str(letters))
        return tuple(paths)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return " ".join(tokens)

    # ---- text to words

    def tokenize(  # type: ignore[override]
        self, text: str, pair: str | None = None, **kwargs: Any
    ) -> list[str]:
        sides = [text] if pair is None else [text, pair]
        split_special = kwargs.get("split_special_tokens")
        return [word for side in sides for word in self._split(side, split_special).words]

    def _split(self, text: str, split_special_tokens: bool | None = None) -> Sentence:
        if not isinstance(text, str):
            raise ValueError(
                f"ElmoTokenizer reads text, but got {type(text).__name__}; for words that are split already, "
                "pass lists of strings with is_split_into_words=True."
            )
        split_special = self.split_special_tokens if split_special_tokens is None else split_special_tokens
        return split_text(text, self.word_splitter, whole=() if split_special else self.all_special_tokens)

    def _as_sentence(self, words: Iterable[str]) -> Sentence:
        words = list(words)
        for number, word in enumerate(words):
            if not isinstance(word, str):
                raise ValueError(
                    f"word {number} is {quoted(word)}, a {type(word).__name__}; with "
                    "is_split_into_words=True a sentence is a list of strings."
                )
        return Sentence(words, [(0, len(word)) for word in words])

    # ---- words to ids

    def _encode_plus(  # type: ignore[override]  # arguments by name, as the base class calls it
        self,
        text: Any,
        text_pair: Any = None,
        add_special_tokens: bool = True,
        padding_strategy: PaddingStrategy = PaddingStrategy.DO_NOT_PAD,
        truncation_strategy: TruncationStrategy = TruncationStrategy.DO_NOT_TRUNCATE,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: Any = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        split_special_tokens: bool | None = None,
        **kwargs: Any,
    ) -> BatchEncoding:
        if kwargs:
            raise ValueError(f"ElmoTokenizer has no argument '{next(iter(kwargs))}'.")

        def split(text: Any) -> Sentence:
            return self._as_sentence(text) if is_split_into_words else self._split(text, split_special_tokens)

        limit = None if truncation_strategy == TruncationStrategy.DO_NOT_TRUNCATE else max_length
        examples, is_batch = as_batch(text, text_pair, is_split_into_words)
        encodings, sources = [], []
        for number, (first, second) in enumerate(examples):
            pair = (split(first), split(second) if second is not None else None)
            options = (limit, truncation_strategy, stride, add_special_tokens, return_overflowing_tokens)
            windows = self._encode_windows(pair, *options)
            encodings += windows
            sources += [number] * len(windows)
        for encoding in encodings:
            self._eventual_warn_about_too_long_sequence(encoding.ids, max_length, verbose)
        self._pad_encodings(encodings, padding_strategy, max_length, pad_to_multiple_of, padding_side)

        columns = {
            "input_ids": ("ids", True),
            "token_type_ids": ("type_ids", return_token_type_ids),
            "attention_mask": ("attention_mask", return_attention_mask is not False),
            "special_tokens_mask": ("special_tokens_mask", return_special_tokens_mask),
            "offset_mapping": ("offsets", return_offsets_mapping),
        }
        data: dict[str, Any] = {
            name: [getattr(encoding, attribute) for encoding in encodings]
            for name, (attribute, is_wanted) in columns.items()
            if is_wanted
        }
        data["char_ids"] = self._char_rows_of(encodings)
        if return_length:
            data["length"] = [len(encoding) for encoding in encodings]
        if return_overflowing_tokens:
            data["overflow_to_sample_mapping"] = sources
        return self._finish(data, encodings, return_tensors, is_batch or return_overflowing_tokens)

    def _encode_windows(
        self,
        pair: Pair,
        limit: int | None,
        strategy: TruncationStrategy,
        stride: int,
        add_special_tokens: bool,
        keeps_all: bool,
    ) -> list[ElmoEncoding]:
        """The pair cut to `limit` tokens; with `keeps_all`, also the windows over the words cut off."""
        has_two = pair[1] is not None
        if keeps_all and has_two and strategy == TruncationStrategy.LONGEST_FIRST:
            raise ValueError(
                "windows over a pair need to know which sentence to cut; pass truncation='only_first' or "
                "'only_second'."
            )
        special = self.num_special_tokens_to_add(has_two) if add_special_tokens else 0
        windows = truncated(pair, limit, strategy, stride, special, self.truncation_side)
        return [self._encode(window, add_special_tokens) for window in windows[: None if keeps_all else 1]]

    def _finish(
        self, data: dict[str, Any], encodings: list[ElmoEncoding], return_tensors: Any, is_batch: bool
    ) -> BatchEncoding:
        """Make tensors, or lists of rows, or the lists of a single row."""
        if return_tensors is not None:
            if not encodings:  # a batch of no sentences still has its dimensions
                data = {"input_ids": np.zeros((0, 0), int), "attention_mask": np.zeros((0, 0), int)}
                data["char_ids"] = np.zeros((0, 0, self.char_ids_length), int)
            if "offset_mapping" in data:  # (words, 2), also of no words
                data["offset_mapping"] = [np.array(row, int).reshape(-1, 2) for row in data["offset_mapping"]]
            return BatchEncoding(data, encodings, return_tensors)  # type: ignore[arg-type]
        data["char_ids"] = [rows.tolist() for rows in data["char_ids"]]
        if not is_batch:
            data = {name: values[0] for name, values in data.items()}
        return BatchEncoding(data, encodings)  # type: ignore[arg-type]

    def _encode(self, pair: Pair, add_special_tokens: bool) -> ElmoEncoding:
        first, second = pair
        encoding = ElmoEncoding(n_sequences=1 if second is None else 2)
        self._append(encoding, first, sequence=0)
        if second is not None:
            if add_special_tokens:
                self._append_separators(encoding)
            self._append(encoding, second, sequence=1)
        encoding.attention_mask = [1] * len(encoding)
        return encoding

    def _append(self, encoding: ElmoEncoding, sentence: Sentence, sequence: int) -> None:
        encoding.ids += self._ids(sentence.words)
        encoding.tokens += sentence.words
        encoding.offsets += sentence.offsets
        encoding.word_ids += range(sentence.start, sentence.start + len(sentence))
        encoding.sequence_ids += [sequence] * len(sentence)
        encoding.type_ids += [sequence] * len(sentence)
        encoding.special_tokens_mask += [0] * len(sentence)

    def _append_separators(self, encoding: ElmoEncoding) -> None:
        encoding.ids += self.build_inputs_with_special_tokens([], [])
        encoding.tokens += [self.eos_token, self.bos_token]
        encoding.offsets += [(0, 0), (0, 0)]
        encoding.word_ids += [None, None]
        encoding.sequence_ids += [None, None]
        encoding.type_ids += [0, 1]
        encoding.special_tokens_mask += [1, 1]

    def _pad_encodings(
        self,
        encodings: list[ElmoEncoding],
        strategy: PaddingStrategy,
        max_length: int | None,
        multiple: int | None,
        side: str | None,
    ) -> None:
        if strategy == PaddingStrategy.DO_NOT_PAD:
            return
        longest = max(map(len, encodings), default=0)
        length = max_length if strategy == PaddingStrategy.MAX_LENGTH and max_length is not None else longest
        if multiple:
            length = -(-length // multiple) * multiple
        for encoding in encodings:
            encoding.pad(length, side or self.padding_side, self.pad_token, self.pad_token_id)

    @property
    def char_ids_length(self) -> int:
        """Length of a word's row of `char_ids`."""
        return self.max_characters_per_token + self.word_column

    @property
    def num_characters(self) -> int:
        """Ids of letters, from 0, that rows of `char_ids` may hold."""
        return NUM_CHARACTER_IDS if self.lexicon is None else self.lexicon.num_characters

    @property
    def boundary_characters(self) -> list[int]:
        """As in `ElmoConfig`."""
        return list(BOUNDARIES) if self.lexicon is None else self.lexicon.boundaries

    def char_rows(self, words: Sequence[str], max_characters: int | None = None) -> np.ndarray:
        """Rows of `char_ids`: (words, char_ids_length).

        Args:
            max_characters: letters of a row, `max_characters_per_token` by default.
        """
        letters: Callable[..., np.ndarray] = character_ids if self.lexicon is None else self.lexicon
        length = self.max_characters_per_token if max_characters is None else max_characters
        rows = letters(words, length, self.bos_token, self.eos_token)
        if not self.word_column:
            return rows
        ids = np.fromiter(self._ids(words), dtype=np.int64, count=len(words))
        ids[ids >= self.vocab_size] = self.unk_token_id  # the padding token as text has no word vector
        return np.concatenate([rows, ids[:, None] + 1], axis=1)

    def _char_rows_of(self, encodings: list[ElmoEncoding]) -> list[np.ndarray]:
        """Rows of `char_ids` of each encoding, computed for the whole batch at once."""
        if not encodings:
            return []
        is_word = np.concatenate([np.array(encoding.attention_mask, dtype=bool) for encoding in encodings])
        tokens = [token for encoding in encodings for token in encoding.tokens]
        words = [token for token, real in zip(tokens, is_word, strict=True) if real]
        rows = np.zeros((len(is_word), self.char_ids_length), dtype=np.int64)
        rows[is_word] = self.char_rows(words)
        return np.split(rows, np.cumsum([len(encoding) for encoding in encodings])[:-1])

    # ---- special tokens and padding, for the library's helpers and the Trainer's collators

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        if token_ids_1 is None:
            return token_ids_0
        return [*token_ids_0, self.eos_token_id, self.bos_token_id, *token_ids_1]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        if token_ids_1 is None:
            return [0] * len(token_ids_0)
        return [0] * (len(token_ids_0) + 1) + [1] * (len(token_ids_1) + 1)

    def get_special_tokens_mask(
        self,
        token_ids_0: list[int],
        token_ids_1: list[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        if already_has_special_tokens:
            special = {self.bos_token_id, self.eos_token_id, self.pad_token_id}
            return [int(token in special) for token in token_ids_0]
        if token_ids_1 is None:
            return [0] * len(token_ids_0)
        return [0] * len(token_ids_0) + [1, 1] + [0] * len(token_ids_1)

    def prepare_for_model(self, *args: Any, **kwargs: Any) -> BatchEncoding:
        raise ValueError(
            "ElmoTokenizer cannot build model inputs from word ids, because a word's letters are needed; "
            "call tokenizer(words, is_split_into_words=True)."
        )

    def pad(self, encoded_inputs: Any, *args: Any, **kwargs: Any) -> BatchEncoding:
        padded = super().pad(encoded_inputs, *args, **kwargs)
        rows = padded.get("char_ids")
        if rows is not None and hasattr(rows, "reshape"):  # tensors of empty sentences lose a dimension
            padded["char_ids"] = rows.reshape(*padded["input_ids"].shape, self.char_ids_length)
        return padded

    def _pad(self, encoded_inputs: Any, *args: Any, **kwargs: Any) -> dict:
        length = len(encoded_inputs["input_ids"])
        side = kwargs.get("padding_side") or self.padding_side
        padded = super()._pad(encoded_inputs, *args, **kwargs)
        empty: dict[str, Any] = {"char_ids": [0] * self.char_ids_length, "offset_mapping": (0, 0)}
        for name, value in empty.items():
            if name in padded:
                old = np.asarray(padded[name]).tolist() if name == "char_ids" else list(padded[name])
                missing = [value] * (len(padded["input_ids"]) - length)
                padded[name] = old + missing if side == "right" else missing + old
        return padded


def _check_switches(switches: dict[str, bool], vocab_file: object) -> None:
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, but is {quoted(value)!r}.")
    if switches["word_column"] and vocab_file is None:
        raise ValueError("word_column needs vocab_file, whose lines are the rows of the table of words.")


def _check_options(max_characters: object, splitter: object, options: dict[str, Any]) -> None:
    """Those that the base class stores as they are, and that would fail at the first sentence."""
    if not isinstance(splitter, str) or splitter not in SPLITTERS:
        raise ValueError(f"word_splitter must be one of {list(SPLITTERS)}, but is {quoted(splitter)!r}.")
    if type(max_characters) is not int or not 3 <= max_characters <= MAX_CHARACTERS:
        raise ValueError(
            "max_characters_per_token must be a whole number of at least 3 (word begin, one letter, word "
            f"end), and at most {MAX_CHARACTERS}, but is {quoted(max_characters)!r}."
        )
    length, names = options.get("model_max_length"), options.get("model_input_names")
    if length is not None and (
        isinstance(length, bool) or not isinstance(length, (int, float)) or not length > 0
    ):
        raise ValueError(f"model_max_length must be a number above 0, but is {quoted(length)!r}.")
    known = {*ElmoTokenizer.model_input_names, "token_type_ids"}
    if names is not None and not (isinstance(names, (list, tuple)) and set(map(str, names)) <= known):
        raise ValueError(f"model_input_names must be a list of {sorted(known)}, but is {quoted(names)!r}.")
    if not isinstance(options.get("split_special_tokens", False), bool):
        raise ValueError("split_special_tokens must be true or false.")


ElmoTokenizer.register_for_auto_class("AutoTokenizer")
