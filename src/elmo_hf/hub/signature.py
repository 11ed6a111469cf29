"""The line by which a card or a file of results says that it was generated, and whether it was edited since.

    text = sign(f"<!-- {MARK} -->\\n# A card\\n")     # the line gets the checksum of the text without it
    is_unedited(text)                                # True, until somebody changes a letter

elmo_hf 0.1.0 wrote the line without a checksum. Nothing tells whether such a text was edited.
"""

import hashlib
import re

MARK = "Written by `elmo-hf card` from facts.yaml and results/; change those, not this."
LINE = re.compile(rf"^((?:<!--|#) {re.escape(MARK)})(?: SHA-256: ([0-9a-f]{{64}}))?( -->)?$", re.MULTILINE)


def sign(text: str) -> str:
    """The text with its checksum in the first line of this form."""
    return LINE.sub(rf"\1 SHA-256: {_digest(text)}\3", text, count=1)


def unsigned(text: str) -> str:
    """The text without its checksum, as elmo_hf 0.1.0 wrote it."""
    return LINE.sub(r"\1\3", text, count=1)


def is_signed(text: str) -> bool:
    """There is a checksum, right or wrong."""
    line = LINE.search(text)
    return line is not None and line[2] is not None


def is_unedited(text: str) -> bool:
    """There is a checksum, and it is that of the text."""
    line = LINE.search(text)
    return line is not None and line[2] == _digest(unsigned(text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
