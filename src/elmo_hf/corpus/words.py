"""The words of raw text by the rule of the published models' text ("penn"), at the speed of a dictionary.

    words = RawWords()
    words.split("He didn't pay Mr. Smith.")     # ['He', 'didn', "'t", 'pay', 'Mr.', 'Smith', '.']

No word goes over a blank, and the rule looks at what stands between two blanks, and at whether a blank
follows. So each piece between blanks is split once and kept; most pieces of a text are frequent ones.
"""

from itertools import chain

from elmo_hf.model.words_elmo import split_text

LONGEST_WORD = 10_000  # letters; the model reads the first 48 bytes of a word
MOST_PIECES = 200_000  # that are kept
LONGEST_PIECE = 40  # letters of a piece that is kept


class RawWords:
    def __init__(self) -> None:
        self._inner, self._last = _Pieces(" "), _Pieces("")

    def split(self, text: str) -> list[str]:
        pieces = _short_pieces(text)
        if not pieces:
            return []
        last = self._last if not text[-1].isspace() else self._inner
        final = last[pieces.pop()]
        return [*chain.from_iterable(map(self._inner.__getitem__, pieces)), *final]


class _Pieces(dict[str, list[str]]):
    """The words of pieces, with what follows on each in the text: a blank, or nothing."""

    def __init__(self, following: str) -> None:
        self.following = following

    def __missing__(self, piece: str) -> list[str]:
        words = split_text(piece + self.following, "penn", whole=("<UNK>",)).words
        if len(self) >= MOST_PIECES:
            self.clear()
        if len(piece) <= LONGEST_PIECE:
            self[piece] = words
        return words

    def __reduce__(self) -> tuple[type["_Pieces"], tuple[str]]:
        return _Pieces, (self.following,)


def _short_pieces(text: str) -> list[str]:
    """What stands between blanks. Letters without a blank for pages, as files of all kinds have, are cut
    where no word would reach."""
    pieces = text.split()
    if len(text) <= LONGEST_WORD or max(map(len, pieces), default=0) <= LONGEST_WORD:
        return pieces
    starts = ((piece, range(0, len(piece), LONGEST_WORD)) for piece in pieces)
    return [piece[start : start + LONGEST_WORD] for piece, places in starts for start in places]
