"""The text of elmo-tiny from its public sources: Wikipedia of 2014 and 2015, and books in the public domain.

    python training/runs/elmo_tiny_text.py DATA

writes into DATA, a paragraph a line and a blank line after each document:

    lm_pretrain/train.{wiki,books}.txt.xz     what the model is trained on, documents in a random order
    lm_pretrain/valid.{wiki,books}.txt.xz     other articles, and books by other authors
    lm_small/train.wiki.txt.xz                a small part of Wikipedia, which is in no other file
    index.tsv                                 file, address and title of each document: the address leads to
                                              its authors, whom Wikipedia's licence asks to name

It needs git, 400 MB from GitHub, and minutes. elmo-tiny's own text was made from these sources by nearly the
same rules, but in another order, with other excerpts of books, and without the articles of WikiText's test.
"""

import argparse
import lzma
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from elmo_hf.errors import ElmoError, one_sentence
from elmo_hf.files import new_folder, whole_file


@dataclass(frozen=True)
class Source:
    """A commit of a repository on GitHub, its files with text, and the least words of a document."""

    repository: str
    commit: str
    files: str
    min_words: int


@dataclass(frozen=True)
class Document:
    address: str
    title: str
    author: str
    paragraphs: list[str]


WIKIPEDIA = (
    Source("jason-feng/wikiVisual", "1c0fac92f29f17c1603bfffbe864e0dfdff66897", "/text/", 120),
    Source("ZhouYii/PatchedDistro", "961716d8a5a0df1a6373a4d61e360a0b5d1b85cd", "/data/", 900),
)
BOOKS = Source("mlschmitt/classic-books-markdown", "944882722e9a96fa6cf2739dc2ea757e101f412f", "/*", 120)
HELDOUT_AUTHORS = ("Silvio Pellico", "Hans Christian Andersen", "John Reed")
PRETRAIN = "lm_pretrain"
HELDOUT_ARTICLES, SMALL_ARTICLES = 110, 1300
MAX_BOOK_WORDS = 34_000  # an excerpt of each book, so that none outweighs the others
MAX_FILE = 2**25  # bytes; the longest book has 7 MB

ARTICLE = re.compile(r'<doc id="(\d+)" url="[^"]*" title="([^"]*)">\n(.*?)</doc>', re.DOTALL)
MARKUP = re.compile(r"[<>{}|\[\]=]|https?:|www\.|&\w+;")
LIST_OR_HEADING = re.compile(r"\s*(#|[-*+] |\d+\. |-{3,}|\|)")
EMPHASIS = re.compile(r"(?<!\w)([_*]{1,3})(?=\S)(.+?)(?<=\S)\1(?!\w)")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="the folder to write into")
    parser.add_argument(
        "--host", default="https://github.com", help="where the repositories are, such as a mirror"
    )
    options = parser.parse_args()
    with one_sentence("elmo_tiny_text.py"):
        make(options.data, options.host)


def make(data: Path, host: str) -> None:
    """Write all files: lm_pretrain appears when all of it is written, and the index comes last."""
    if (data / "index.tsv").exists():
        raise ElmoError(f"{data / 'index.tsv'} exists; delete it to make the text again.")
    with new_folder(data / PRETRAIN) as pretrain, tempfile.TemporaryDirectory() as sources:
        articles, books = read_sources(host, Path(sources))
        files = files_with_documents(articles, books)
        for name, documents in files.items():
            path = Path(name)
            write_documents(pretrain / path.name if path.parent.name == PRETRAIN else data / path, documents)
    write_index(data / "index.tsv", files)


def read_sources(host: str, folder: Path) -> tuple[list[Document], list[Document]]:
    """All articles and books; `folder` is for the copies of the repositories."""
    seen: set[int] = set()  # of all paragraphs
    articles = [
        document
        for source in WIKIPEDIA
        for document in articles_of(files_of(source, host, folder), source.min_words, seen)
    ]
    books = list(books_of(files_of(BOOKS, host, folder), seen))
    if not articles or not books:
        raise ElmoError("the sources have no text; are they the repositories that this script names?")
    return articles, books


def files_with_documents(articles: list[Document], books: list[Document]) -> dict[str, list[Document]]:
    """The documents of each file, in a random order."""
    generator = random.Random(20181)
    generator.shuffle(articles)
    generator.shuffle(books)
    end = HELDOUT_ARTICLES + SMALL_ARTICLES
    return {
        "lm_pretrain/valid.wiki.txt.xz": articles[:HELDOUT_ARTICLES],
        "lm_small/train.wiki.txt.xz": articles[HELDOUT_ARTICLES:end],
        "lm_pretrain/train.wiki.txt.xz": articles[end:],
        "lm_pretrain/valid.books.txt.xz": [book for book in books if book.author in HELDOUT_AUTHORS],
        "lm_pretrain/train.books.txt.xz": [book for book in books if book.author not in HELDOUT_AUTHORS],
    }


# ---- reading a repository


def files_of(source: Source, host: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Name and content of the files in a source's folder, in order; only these are fetched."""
    copy = folder / source.repository.replace("/", "+")
    print(f"Fetching {source.repository} from {host} ...", file=sys.stderr)
    git(["init", "--quiet", str(copy)])
    git(["remote", "add", "origin", f"{host}/{source.repository}"], copy)
    git(["fetch", "--quiet", "--depth", "1", "--filter=blob:none", "origin", source.commit], copy)
    git(["sparse-checkout", "set", "--no-cone", source.files], copy)
    # A link in the repository becomes a file with its target's name, so no file outside is read.
    git(["-c", "core.symlinks=false", "-c", "advice.detachedHead=false", "checkout", source.commit], copy)
    paths = [path for path in sorted(copy.rglob("*")) if path.is_file() and ".git" not in path.parts]
    for path in tqdm(paths, desc=source.repository, unit=" files", disable=None):
        name = path.relative_to(copy).as_posix()
        if path.stat().st_size > MAX_FILE:
            raise ElmoError(f"{name} of {source.repository} has {path.stat().st_size:,} bytes, too many.")
        yield name, path.read_text(encoding="utf-8", errors="replace")


def git(arguments: list[str], folder: Path = Path()) -> None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ElmoError("there is no program git; install it.") from None
    if done.returncode:
        reason = " ".join(done.stderr.split())
        raise ElmoError(f"git {' '.join(arguments)} failed: {reason}")


# ---- cleaning


def articles_of(files: Iterable[tuple[str, str]], min_words: int, seen: set[int]) -> Iterator[Document]:
    """The articles in the output of WikiExtractor; the first line of an article is its title."""
    for _, content in files:
        for number, title, text in ARTICLE.findall(content):
            paragraphs = [line.strip() for line in text.split("\n")[1:] if is_prose(line.strip())]
            address = f"https://en.wikipedia.org/?curid={number}"
            yield from document_of(address, title, "", paragraphs, min_words, seen)


def is_prose(paragraph: str) -> bool:
    """Whether it is whole sentences in English, and no heading, list, table, formula or markup."""
    if len(paragraph) < 60 or paragraph[-1] not in ".!?" or MARKUP.search(paragraph):
        return False
    letters = sum(
        character.isascii() and (character.isalpha() or character == " ") for character in paragraph
    )
    first = paragraph.lstrip("\"'(")[0]
    return (first.isupper() or first.isdigit()) and letters >= 0.85 * len(paragraph)


def books_of(files: Iterable[tuple[str, str]], seen: set[int]) -> Iterator[Document]:
    """The beginning of each book, which is a file AUTHOR/TITLE.md; held-out books are whole."""
    for name, content in files:
        author, _, title = name.rpartition("/")
        if author and title.endswith(".md"):
            address = f"https://github.com/{BOOKS.repository}/blob/{BOOKS.commit}/{name}"
            most_words = sys.maxsize if author in HELDOUT_AUTHORS else MAX_BOOK_WORDS
            paragraphs = excerpt(plain_paragraphs(content), most_words)
            yield from document_of(
                address, title.removesuffix(".md"), author, paragraphs, BOOKS.min_words, seen
            )


def plain_paragraphs(markdown: str) -> Iterator[str]:
    """Its paragraphs without marks of emphasis and links; no headings, lists and verses, no short lines."""
    for block in re.split(r"\n\s*\n", markdown):
        if LIST_OR_HEADING.match(block):
            continue
        text = LINK.sub(r"\1", " ".join(block.split()))
        text = EMPHASIS.sub(r"\2", text).replace("\\", "")
        if len(text) >= 40 and not text.isupper():
            yield text


def excerpt(paragraphs: Iterable[str], most_words: int) -> list[str]:
    kept: list[str] = []
    words = 0
    for paragraph in paragraphs:
        words += len(paragraph.split())
        if words > most_words:
            break
        kept.append(paragraph)
    return kept


def document_of(
    address: str, title: str, author: str, paragraphs: list[str], min_words: int, seen: set[int]
) -> Iterator[Document]:
    """The document with the paragraphs that no document before it had, if that is enough."""
    fresh = [paragraph for paragraph in dict.fromkeys(paragraphs) if hash(paragraph) not in seen]
    if sum(len(paragraph.split()) for paragraph in fresh) >= min_words:
        seen.update(hash(paragraph) for paragraph in fresh)
        yield Document(address, title, author, fresh)


# ---- writing


def write_documents(path: Path, documents: list[Document]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        partial = stack.enter_context(whole_file(path))
        file = stack.enter_context(lzma.open(partial, "wt", encoding="utf-8", preset=1))
        for document in tqdm(documents, desc=path.name, unit=" documents", disable=None):
            file.write("\n".join(document.paragraphs) + "\n\n")
    words = sum(len(paragraph.split()) for document in documents for paragraph in document.paragraphs)
    print(f"{path.name}: {len(documents):,} documents, {words:,} words.")


def write_index(path: Path, files: dict[str, list[Document]]) -> None:
    rows = [
        f"{name}\t{document.address}\t{document.title}\n"
        for name, documents in files.items()
        for document in documents
    ]
    with whole_file(path) as partial:
        partial.write_text("".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
