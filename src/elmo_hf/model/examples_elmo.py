"""Between text and ids in ElmoTokenizer: the examples of a batch, windows over long ones, and the origin of
each token."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from transformers.tokenization_utils_base import CharSpan, TruncationStrategy

from .words_elmo import Sentence

Pair = tuple[Sentence, Sentence | None]


@dataclass
class ElmoEncoding:
    """The origin of each token of a row, in the form that `BatchEncoding` uses.

    One token is one word. Padding and separators have the word id `None`.
    """

    ids: list[int] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    offsets: list[tuple[int, int]] = field(default_factory=list)
    word_ids: list[int | None] = field(default_factory=list)
    sequence_ids: list[int | None] = field(default_factory=list)
    type_ids: list[int] = field(default_factory=list)
    special_tokens_mask: list[int] = field(default_factory=list)
    attention_mask: list[int] = field(default_factory=list)
    n_sequences: int = 1

    def __len__(self) -> int:
        return len(self.ids)

    def pad(self, length: int, side: str, token: str, token_id: int) -> None:
        missing = length - len(self)
        empty: dict[str, Any] = {"ids": token_id, "tokens": token, "offsets": (0, 0), "word_ids": None}
        empty |= {"sequence_ids": None, "type_ids": 0, "special_tokens_mask": 1, "attention_mask": 0}
        for name, value in empty.items():
            old = getattr(self, name)
            setattr(self, name, old + [value] * missing if side == "right" else [value] * missing + old)

    def token_to_sequence(self, token: int) -> int | None:
        return self.sequence_ids[token]

    def token_to_word(self, token: int) -> int | None:
        return self.word_ids[token]

    def token_to_chars(self, token: int) -> tuple[int, int] | None:
        return self.offsets[token] if self.word_ids[token] is not None else None

    def word_to_tokens(self, word: int, sequence: int = 0) -> tuple[int, int] | None:
        for token, ids in enumerate(zip(self.word_ids, self.sequence_ids, strict=True)):
            if ids == (word, sequence):
                return token, token + 1
        return None

    def word_to_chars(self, word: int, sequence: int = 0) -> CharSpan | None:
        tokens = self.word_to_tokens(word, sequence)
        return CharSpan(*self.offsets[tokens[0]]) if tokens else None

    def char_to_token(self, char: int, sequence: int = 0) -> int | None:
        for token, (start, end) in enumerate(self.offsets):
            if self.sequence_ids[token] == sequence and start <= char < end:
                return token
        return None

    def char_to_word(self, char: int, sequence: int = 0) -> int | None:
        token = self.char_to_token(char, sequence)
        return self.word_ids[token] if token is not None else None


def as_batch(text: Any, text_pair: Any, is_split_into_words: bool) -> tuple[list[tuple[Any, Any]], bool]:
    """Any input that the library's tokenizers accept as a list of (first, second or None); and if a batch."""
    if isinstance(text, str):
        if is_split_into_words:
            raise ValueError("is_split_into_words=True needs a list of words, but got one string.")
        return [(text, text_pair)], False
    if not isinstance(text, Iterable):
        raise ValueError(f"ElmoTokenizer reads strings and lists of strings, but got {type(text).__name__}.")
    texts = list(text)
    if is_split_into_words and texts and isinstance(texts[0], str):
        return [(texts, text_pair)], False
    if is_split_into_words and isinstance(text, tuple) and text_pair is None and len(texts) == 2:
        return [(texts[0], texts[1])], False
    if text_pair is None:
        pair_types = tuple if is_split_into_words else (tuple, list)
        return [_as_pair(item) if isinstance(item, pair_types) else (item, None) for item in texts], True
    pairs = list(text_pair)
    if isinstance(text_pair, str) or len(pairs) != len(texts):
        raise ValueError(
            f"text is a batch of {len(texts)}, so text_pair must be a list of {len(texts)} as well."
        )
    return list(zip(texts, pairs, strict=True)), True


def _as_pair(item: Any) -> tuple[Any, Any]:
    if len(item) != 2:
        raise ValueError(
            f"a batch holds strings or pairs of them, but one entry is a list of {len(item)}; for words that "
            "are split already, pass is_split_into_words=True."
        )
    return item[0], item[1]


def truncated(
    pair: Pair, limit: int | None, strategy: TruncationStrategy, stride: int, num_special: int, side: str
) -> list[Pair]:
    """The pair cut to `limit` tokens, followed by windows over the words that were cut off.

    Args:
        limit: tokens of a row, of which `num_special` are separators; None for no limit.
        stride: words that a window shares with the one before.
        side: where words are cut off, "right" or "left".
    """
    first, second = pair
    excess = len(first) + len(second or ()) + num_special - (limit or 0)
    if limit is None or excess <= 0:
        return [pair]
    if second is not None and strategy == TruncationStrategy.LONGEST_FIRST:
        return [_cut_longest_first(first, second, max(limit - num_special, 0), side)]
    long = second if second is not None and strategy == TruncationStrategy.ONLY_SECOND else first
    room = len(long) - excess
    if room < 1 or stride >= room:
        raise ValueError(
            f"max_length {limit} leaves {max(room, 0)} words of a sentence of {len(long)}, which must be "
            f"more than stride {stride}; raise max_length, lower stride, or truncate the other sentence."
        )
    starts = range(0, len(long) - stride, room - stride)
    spans = [
        (start, min(start + room, len(long))) for start in starts if start == 0 or start + stride < len(long)
    ]
    if side == "left":
        spans = [(len(long) - end, len(long) - start) for start, end in spans]
    cuts = [long.cut(start, end) for start, end in spans]
    return [(cut, second) if long is first else (first, cut) for cut in cuts]


def _cut_longest_first(first: Sentence, second: Sentence, room: int, side: str) -> Pair:
    """Shorten the longer sentence until both have the same length, then both in turn."""
    keep_second = min(len(second), max(room // 2, room - len(first)))
    keep_first = min(len(first), room - keep_second)
    if side == "left":
        starts = len(first) - keep_first, len(second) - keep_second
        return first.cut(starts[0], len(first)), second.cut(starts[1], len(second))
    return first.cut(0, keep_first), second.cut(0, keep_second)
