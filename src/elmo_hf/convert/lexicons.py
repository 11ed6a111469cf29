"""ELMoForManyLangs' lexicons: the letters' and the words' ids, in a text file of lines `name TAB id`.

    ids = read_lexicon(Path("char.dic"), MAX_LETTERS_BYTES)       # {"a": 0, ...}
    check_ids(Path("char.dic"), ids, needed=("<oov>",), rows=20)  # against the table of vectors
    ids, copies = one_row_each(Path("char.dic"), ids, rows=20)

A file is read as its own library reads it: lines also end at the rarer line breaks of Unicode, white space
around a line is dropped, the last of two equal names counts, and a line of an id alone is that of a name of
white space, which becomes U+3000.
"""

from collections.abc import Collection
from pathlib import Path

from elmo_hf.convert.files import check_readable
from elmo_hf.errors import ElmoError, quoted
from elmo_hf.files import read_bytes
from elmo_hf.model.words_elmo import MAX_VOCABULARY, MAX_WORDS

MAX_LETTERS_BYTES, MAX_WORDS_BYTES = 2**22, MAX_VOCABULARY
LINE_BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"  # of str.splitlines
NAME_OF_WHITE_SPACE = "\u3000"
MAX_COPIES = 10_000

Ids = dict[str, int]


def read_lexicon(path: Path, limit: int) -> Ids:
    """Names and ids.

    Args:
        limit: how many bytes the file may have.
    """
    check_readable(path)
    if path.stat().st_size > limit:
        raise ElmoError(f"{path} has more than {limit:,} bytes, too many for a lexicon; give another file.")
    try:
        text = read_bytes(path, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ElmoError(f"{path} is not UTF-8 text (byte {error.start}); save it as such.") from None
    if sum(map(text.count, LINE_BREAKS)) > MAX_WORDS:
        raise ElmoError(f"{path} has more than {MAX_WORDS:,} lines; give another file.")
    ids: Ids = {}
    for number, line in enumerate(text.splitlines(), start=1):
        name, id_ = _read_line(line, path, number)
        ids[name] = id_
    return ids


def _read_line(line: str, path: Path, number: int) -> tuple[str, int]:
    fields = line.strip().split("\t")
    if len(fields) > 2:
        count = len(fields)
        raise ElmoError(
            f"{path}, line {number} has {count} fields, but must have a name and an id; correct it."
        )
    name, id_ = fields if len(fields) == 2 else (NAME_OF_WHITE_SPACE, fields[0])
    try:
        return name, int(id_)
    except ValueError:
        raise ElmoError(
            f"{path}, line {number} has {quoted(id_)!r} for an id, which must be a whole number; correct it."
        ) from None


def check_ids(path: Path, ids: Ids, needed: Collection[str], rows: int) -> None:
    """Refuse what its own library cannot use with a table of so many rows."""
    for name in needed:
        if name not in ids:
            raise ElmoError(f"{path} lacks {name}, which every model needs; give the file of these weights.")
    for name, id_ in ids.items():
        if not 0 <= id_ < rows:
            place = f"{path} has the id {quoted(id_)} for {quoted(name)!r}"
            raise ElmoError(f"{place}, but there are {rows} vectors; give the file of these weights.")


def one_row_each(path: Path, ids: Ids, rows: int) -> tuple[Ids, dict[int, int]]:
    """Ids of which no two are equal, and the original row of each row that is new. Names may share an id in
    these files, but not in a vocabulary."""
    free = iter(sorted(set(range(rows)).difference(ids.values())))
    taken: set[int] = set()
    result, copies = dict(ids), {}
    for name, id_ in ids.items():
        if id_ in taken:
            result[name] = next(free)
            copies[result[name]] = id_
        taken.add(id_)
    if len(copies) > MAX_COPIES:
        raise ElmoError(f"{path} has {len(copies):,} names with the ids of others; give another file.")
    return result, copies
