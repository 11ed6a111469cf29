"""The words of raw text by the rule of the published models' text ("penn"), at the speed of a dictionary.

    words = RawWords()
    words.split("He didn't pay Mr. Smith.")     # ['He', 'didn', "'t", 'pay', 'Mr.', 'Smith', '.']

No word goes over a blank, and the rule looks at what stands between two blanks, and at whether a blank
follows. So each piece between blanks is split once and kept; most pieces of a text are frequent ones.
"""

from elmo_hf.model.words_elmo import split_text

LONGEST_WORD = 10_000  # letters; the model reads the first 48 bytes of a word
MOST_PIECES = 100_000  # that are kept
LONGEST_PIECE = 40  # letters of a piece that is kept


class RawWords:
    def __init__(self) -> None:
        self._pieces: dict[str, list[str]] = {}

    def split(self, text: str) -> list[str]:
        pieces = _short_pieces(text)
        if not pieces:
            return []
        words: list[str] = []
        known = self._pieces
        last = None if text[-1].isspace() else pieces.pop()
        for piece in pieces:
            words += known[piece] if piece in known else self._split_new(piece)
        if last is not None:
            words += _split(last)
        return words

    def _split_new(self, piece: str) -> list[str]:
        words = _split(piece + " ")
        if len(self._pieces) >= MOST_PIECES:
            self._pieces.clear()
        if len(piece) <= LONGEST_PIECE:
            self._pieces[piece] = words
        return words


def _split(text: str) -> list[str]:
    return split_text(text, "penn", whole=("<UNK>",)).words


def _short_pieces(text: str) -> list[str]:
    """What stands between blanks. Letters without a blank for pages, as files of all kinds have, are cut
    where no word would reach."""
    pieces = text.split()
    if len(text) <= LONGEST_WORD or max(map(len, pieces), default=0) <= LONGEST_WORD:
        return pieces
    starts = ((piece, range(0, len(piece), LONGEST_WORD)) for piece in pieces)
    return [piece[start : start + LONGEST_WORD] for piece, places in starts for start in places]
