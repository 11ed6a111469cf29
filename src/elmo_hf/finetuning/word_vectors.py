"""Pretrained word vectors for a task model's own words, from files of GloVe, word2vec, fastText or NumPy.

    model = ElmoForTokenClassification.from_pretrained("org/elmo", vocab_size=..., task_word_dim=50)
    share = load_word_vectors(model, tokenizer, "glove.6B.50d.txt")

| file | content |
|---|---|
| text, also packed (`.gz`, `.xz`, `.zip` ...) | a line is a word and its numbers, separated by spaces |
| `.bin`, `.bin.gz` | word2vec's binary layout |
| a folder | a table `.npy`, and its words: a `.parquet` of one column, or a `.txt`, a word a line |

A word of the tokenizer's vocabulary gets the vector of that word, or else of its lower case. All other words
get random vectors with the same mean and deviation. A trained model knows the words of its own texts;
`add_words` adds those of others.
"""

import gzip
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from elmo_hf.corpus.parquet import read_whole_parquet
from elmo_hf.corpus.readers import READING_ERRORS, check_file, read_blocks, undecodable_line
from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.files import sha256
from elmo_hf.loading import vocabulary_fields
from elmo_hf.model.task_elmo import ElmoTaskModel
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

LEAST_LIKENESS = 0.5  # of a model's vectors and those of the file: training turns them a little, if at all
LONGEST_LINE = 2**20  # characters
LONGEST_WORD = 2**12  # bytes, of word2vec's binary layout
BINARY = (".bin", ".bin.gz")
TABLES, WORDS = (".npy",), (".parquet", ".txt")  # the files of a folder


def load_word_vectors(model: ElmoTaskModel, tokenizer: Any, path: str | Path, scale: float = 1.0) -> float:
    """Fill the model's word table from a file.

    Args:
        model: a task model with `task_word_dim`.
        tokenizer: the tokenizer whose vocabulary the table has.
        path: the file or folder of vectors.
        scale: all vectors are multiplied by it.

    Returns:
        The share of the tokenizer's words that the file has.

    Raises:
        ElmoError: if the model, the tokenizer and the file do not fit, or the file is broken. The table is
            then unchanged.
    """
    config = model.config
    words = words_of(model, tokenizer)
    vectors, is_known = read_word_vectors(path, words, config.task_word_dim)
    check_known(path, is_known, config.task_word_dim, "tokenizer")
    known = vectors[is_known]
    vectors[~is_known] = torch.randn(int((~is_known).sum()), known.shape[1]) * known.std() + known.mean()
    table = model.task_words.word_table.weight
    with torch.no_grad():
        table.copy_(scale * vectors)
    return float(is_known.float().mean())


def add_words(
    model: ElmoTaskModel, tokenizer: ElmoTokenizer, words: Iterable[str], path: str | Path
) -> ElmoTokenizer:
    """Add vectors of further words to a trained model, so that it knows the words of another text as it knows
    those of its own.

    Args:
        model: a trained task model with `task_word_dim`; its word table grows.
        tokenizer: the model's.
        words: those of the text; the ones that the model or the file has not are left as they are.
        path: the vectors with which the model was trained. They are multiplied by what makes those of the
            model's own words as long as they are in the model.

    Returns:
        The tokenizer with the new words.
    """
    config = model.config
    own = words_of(model, tokenizer)
    if config.token_encoder == "words" or config.reads_word_column:
        raise ElmoError("the words of this model are those of its biLM, and no others can be added.")
    new = sorted(word for word in {*words} - {*own} if is_word_of_a_file(word))
    vectors, is_known = read_word_vectors(path, own + new, config.task_word_dim)
    table, of_own = model.task_words.word_table, is_known[: len(own)]
    check_known(path, of_own, config.task_word_dim, "model")
    ours, theirs = table.weight.detach()[of_own], vectors[: len(own)][of_own]
    if cosine_similarity(ours, theirs).median() < LEAST_LIKENESS:
        raise ElmoError(f"{path} has other vectors than this model was trained with; name those.")
    scale = ours.norm(dim=1).median() / theirs.norm(dim=1).median()
    added = [word for word, is_there in zip(new, is_known[len(own) :].tolist(), strict=True) if is_there]
    rows = scale * vectors[len(own) :][is_known[len(own) :]]
    table.weight = torch.nn.Parameter(torch.cat([table.weight.detach(), rows]), table.weight.requires_grad)
    table.num_embeddings = len(own) + len(added)
    larger = with_words(tokenizer, own + added)
    for name, value in vocabulary_fields(larger).items():
        setattr(config, name, value)
    return larger


def words_of(model: ElmoTaskModel, tokenizer: ElmoTokenizer) -> list[str]:
    """Return the words of a model's own table, in the order of their ids."""
    if not model.config.task_word_dim:
        raise ElmoError("this model has no word vectors of its own; create it with task_word_dim.")
    words = tokenizer.convert_ids_to_tokens(list(range(tokenizer.vocab_size)))  # may contain a word twice
    if len(words) != model.config.vocab_size:
        raise ElmoError(
            f"the tokenizer has {len(words)} words, but the model's vocab_size is {model.config.vocab_size}."
        )
    return words


def with_words(tokenizer: ElmoTokenizer, words: list[str]) -> ElmoTokenizer:
    """Return a tokenizer with these words."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("".join(word + "\n" for word in words), encoding="utf-8")
        return tokenizer.with_vocabulary(path)


def is_word_of_a_file(word: str) -> bool:
    """Whether a vocabulary can hold it: no blanks, no NUL, no half of a character."""
    return word.split() == [word] and "\0" not in word and word.encode("utf-8", "ignore").decode() == word


def read_word_vectors(path: str | Path, words: list[str], dim: int) -> tuple[Tensor, Tensor]:
    """Return vectors (words, dim), zero for words that the file lacks, and whether it has each (words,)."""
    path = Path(path)
    needed = {*words, *(word.lower() for word in words)}
    vectors: dict[str, Tensor] = {}
    for word, vector in _pairs(path, needed, dim):
        vectors.setdefault(word, vector)
    table, is_known = torch.zeros(len(words), dim), torch.zeros(len(words), dtype=torch.bool)
    for number, word in enumerate(words):
        found = vectors.get(word, vectors.get(word.lower()))
        if found is not None:
            table[number], is_known[number] = found, True
    return table, is_known


def check_known(path: str | Path, is_known: Tensor, dim: int, owner: str) -> None:
    """Refuse a file that has none of the words; `owner` is whose they are."""
    if is_known.any():
        return
    size, reason = dim, ""
    with suppress(ElmoError):  # of an empty file
        size = vector_size(path)
    if size != dim:
        reason = f"; its vectors have {size} numbers, and task_word_dim is {dim}"
    raise ElmoError(f"{path} has none of the {owner}'s {len(is_known)} words{reason}.")


def vector_size(path: str | Path) -> int:
    """Return how many numbers a word has in a file of vectors, as its first vector says."""
    path = Path(path)
    if _is_folder(path):
        table, _ = _files_of(path)
        return int(_table(table).shape[1])
    if _is_binary(path):
        with _opened(path) as file:
            return _binary_header(path, file)[1]
    for number, line in _lines(path):
        if not _is_header(number, line):
            return max(len(line.split(" ")) - 1, 1)
    raise ElmoError(f"{path} has no word vectors.")


def digest_of_vectors(path: str | Path) -> str:
    """Return a digest of a file of vectors, or of the files of a folder."""
    path = Path(path)
    if not _is_folder(path):
        return sha256(path)
    return "+".join(sha256(file) for file in _files_of(path))


def _pairs(path: Path, needed: set[str], dim: int) -> Iterable[tuple[str, Tensor]]:
    """Yield the needed words of a file of any kind, and their vectors."""
    if _is_folder(path):
        return _folder_pairs(path, needed, dim)
    if path.name.endswith((".kv", ".model")):
        raise ElmoError(
            f"{path} is a pickle of gensim, which can run any code when it is read; write the vectors as "
            "text with gensim's save_word2vec_format, and name that file."
        )
    return _binary_pairs(path, needed, dim) if _is_binary(path) else _text_pairs(path, needed, dim)


def _is_folder(path: Path) -> bool:
    return path.is_dir()


def _is_binary(path: Path) -> bool:
    return path.name.endswith(BINARY)


# ---- text


def _text_pairs(path: Path, needed: set[str], dim: int) -> Iterator[tuple[str, Tensor]]:
    for number, line in _lines(path):
        word, *values = line.rsplit(" ", dim)
        if _is_header(number, line):
            continue
        if len(values) != dim:
            raise ElmoError(
                f"{path}, line {number}: {len(values)} numbers follow the word, not task_word_dim's {dim}."
            )
        if word in needed:
            yield word, _numbers(values, path, number)


def _is_header(number: int, line: str) -> bool:
    """word2vec and fastText begin with two counts"""
    return number == 1 and len(line.split()) == 2 and line.replace(" ", "").isdecimal()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers."""
    check_file(str(path))
    number, left = 0, ""
    try:
        for block in read_blocks(str(path), newline=""):
            *lines, left = (left + block).split("\n")
            if len(left) >= LONGEST_LINE:
                lines.append(left)
            for line in lines:
                number += 1
                if len(line) >= LONGEST_LINE:
                    raise ElmoError(f"{path}, line {number} is longer than any vector; is it a text file?")
                if line.strip():
                    yield number, line.rstrip("\r\n ")  # other white space may be a word
        if left.strip():
            yield number + 1, left.rstrip("\r\n ")
    except ElmoError:
        raise
    except UnicodeDecodeError as error:
        place = undecodable_line(str(path)) or path
        raise ElmoError(f"{place} is not UTF-8 text ({error.reason}).") from None
    except READING_ERRORS as error:
        raise ElmoError(f"{path} could not be read ({reason_of(error)}).") from None


def _numbers(values: list[str], path: str | Path, line: int) -> Tensor:
    try:
        vector = torch.tensor([float(value) for value in values])
    except ValueError:
        raise ElmoError(f"{path}, line {line}: a value after the word is no number.") from None
    if not torch.isfinite(vector).all():
        raise ElmoError(f"{path}, line {line}: a number is not finite.")
    return vector


# ---- word2vec's binary layout: two counts, then each word, a blank, and its numbers in four bytes each


def _binary_pairs(path: Path, needed: set[str], dim: int) -> Iterator[tuple[str, Tensor]]:
    with _opened(path) as file:
        count, size = _binary_header(path, file)
        if size != dim:
            raise ElmoError(f"{path}: {size} numbers follow a word, not task_word_dim's {dim}.")
        for number in range(1, count + 1):
            word, content = _binary_word(path, file, number), file.read(4 * dim)
            if len(content) < 4 * dim:
                raise ElmoError(f"{path} ends inside of word {number} of {count}; is it cut off?")
            if word in needed:
                yield word, _finite(np.frombuffer(content, "<f4"), f"{path}, word {number}")


def _binary_header(path: Path, file: Any) -> tuple[int, int]:
    line = file.readline(64).split()
    if len(line) != 2 or not all(field.isdigit() for field in line) or not int(line[1]):
        raise ElmoError(f"{path} does not begin with two counts, as word2vec's binary files do.")
    return int(line[0]), int(line[1])


def _binary_word(path: Path, file: Any, number: int) -> str:
    word = bytearray()
    while (sign := file.read(1)) != b" ":
        word += sign
        if not sign or len(word) > LONGEST_WORD:
            raise ElmoError(f"{path}: word {number} does not end; is it word2vec's binary layout?")
    return bytes(word).lstrip(b"\n").decode("utf-8", "replace")


class _opened:
    """A binary file, unpacked if it is packed; a fault while it is read is one sentence."""

    def __init__(self, path: Path) -> None:
        check_file(str(path))
        self.path = path

    def __enter__(self) -> Any:
        try:
            self.file: Any = gzip.open(self.path) if self.path.suffix == ".gz" else self.path.open("rb")
        except OSError as error:
            raise ElmoError(f"{self.path} could not be read ({reason_of(error)}).") from None
        return self.file

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.file.close()
        if isinstance(error, (OSError, EOFError, zlib.error)) and not isinstance(error, ElmoError):
            raise ElmoError(f"{self.path} could not be read ({reason_of(error)}).") from None


# ---- a folder with a table of NumPy and its words


def _folder_pairs(path: Path, needed: set[str], dim: int) -> Iterator[tuple[str, Tensor]]:
    file, words_file = _files_of(path)
    table, words = _table(file), _words(words_file)
    if len(words) != len(table):
        raise ElmoError(
            f"{file.name} in {path} has {len(table)} rows, but {words_file.name} {len(words)} words."
        )
    if table.shape[1] != dim:
        raise ElmoError(f"{file}: a word has {table.shape[1]} numbers, not task_word_dim's {dim}.")
    for number, word in enumerate(words):
        if word in needed:
            yield word, _finite(table[number], f"{file}, row {number + 1}")


def _files_of(path: Path) -> tuple[Path, Path]:
    """Return the table and the words of a folder, which must have one of each."""
    chosen = []
    for kinds, name in ((TABLES, "table"), (WORDS, "file of words")):
        files = [file for file in sorted(path.iterdir()) if file.suffix in kinds]
        if len(files) != 1:
            raise ElmoError(
                f"{path} must have one {name} ({' or '.join(kinds)}) of word vectors, but has {len(files)}."
            )
        chosen.append(files[0])
    return chosen[0], chosen[1]


def _table(file: Path) -> np.ndarray:
    try:
        table = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ElmoError(f"{file} could not be read as a table of NumPy ({reason_of(error)}).") from None
    if table.ndim != 2 or table.dtype.kind != "f" or not table.shape[1]:
        raise ElmoError(
            f"{file} must be a table of numbers (words, numbers), but is {table.dtype}{table.shape}."
        )
    return table


def _words(file: Path) -> list[str]:
    if file.suffix == ".txt":
        return [line for _, line in _lines(file)]
    words: list[str] = []
    for columns in read_whole_parquet(str(file)):
        if len(columns) != 1:
            raise ElmoError(f"{file} must have one column, the words, but has {', '.join(columns)}.")
        words += map(str, next(iter(columns.values())))
    return words


def _finite(values: np.ndarray, where: str) -> Tensor:
    vector = torch.from_numpy(np.array(values, dtype=np.float32))
    if not torch.isfinite(vector).all():
        raise ElmoError(f"{where}: a number is not finite.")
    return vector
