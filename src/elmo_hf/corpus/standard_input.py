"""Standard input as a file, so that a corpus may be piped into a command.

with as_file("-") as file:
    source = Source(file)
"""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from elmo_hf.corpus.readers import READING_ERRORS, read_blocks
from elmo_hf.errors import ElmoError


@contextmanager
def as_file(source: Any) -> Iterator[Any]:
    """What is read for a source: for "-", a copy of standard input, which a corpus reads more than once."""
    if not is_standard_input(source):
        yield source
        return
    with TemporaryDirectory(prefix="elmo-hf-") as folder:
        path = Path(folder) / "input.txt"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        if holds_objects(path):
            path = path.rename(path.with_suffix(".jsonl"))
        try:
            yield path
        except ElmoError as error:
            raise ElmoError(str(error).replace(str(path), "standard input")) from error.__cause__


def is_standard_input(source: Any) -> bool:
    return isinstance(source, str | Path) and str(source) == "-"


def holds_objects(path: Path) -> bool:
    """Whether the first line of a file is a JSON object, so that it has columns."""
    with suppress(*READING_ERRORS):
        start = "".join(islice(read_blocks(str(path)), 16)).lstrip()
        if start.startswith("{"):
            return isinstance(json.loads(start.split("\n", 1)[0]), dict)
    return False
