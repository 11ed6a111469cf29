"""The script that makes the text of elmo-tiny, on small repositories of the sources' form."""

import dataclasses
import lzma
import shutil
import subprocess

import pytest

from elmo_hf.errors import ElmoError
from training.runs import elmo_tiny_text

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

SENTENCE = "The river rose above its banks in spring and the people of the valley moved their cattle"


def prose(number, times=1):
    """A paragraph that no other number has, of 20 words and more."""
    return f"{SENTENCE} in {1000 + number}" + " and waited" * times + "."


def article(number, title, paragraphs):
    lines = "\n".join([title, "", "History.", *paragraphs])
    address = f"http://en.wikipedia.org/wiki?curid={number}"
    return f'<doc id="{number}" url="{address}" title="{title}">\n{lines}\n\n</doc>\n'


def commit_of(folder, files):
    """A repository of these files and its commit."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        else:
            path.symlink_to(*content)
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "text"], check=True)
    return subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def host(tmp_path, monkeypatch):
    """The three repositories, with what is to be dropped and what is to be kept."""
    secret = tmp_path / "secret.md"
    secret.write_text("\n\n".join(prose(900 + number) for number in range(20)), encoding="utf-8")
    wiki = [
        article(
            number,
            f"Article {number}",
            [*(prose(10 * number + k) for k in range(6)), "Short one.", f"{prose(1)} {{| table |}}."],
        )
        for number in range(2, 12)
    ]
    again = article(99, "The same again", [prose(20 + k) for k in range(6)])
    long = article(500, "Long", [prose(600 + k, times=30) for k in range(20)])
    short = article(501, "Not long", [prose(700 + k) for k in range(6)])
    chapters = [
        f"## CHAPTER {k}\n\n_{prose(300 + k)}_\n\n- a list of {prose(1)}\n\nShort." for k in range(10)
    ]
    files = {
        "jason-feng/wikiVisual": {"text/AA/wiki_00": "".join(wiki) + again, "README.md": prose(1)},
        "ZhouYii/PatchedDistro": {
            "data/AA/wiki_02": long + short,
            "other/wiki_00": article(9, "Other", [prose(800)] * 9),
        },
        "mlschmitt/classic-books-markdown": {
            "README.md": prose(1),
            "Jane Doe/A Book.md": "# Title: A Book\n\n" + "\n\n".join(chapters),
            "John Reed/Ten Days.md": "\n\n".join(prose(400 + k) for k in range(20)),
            "Jane Doe/A Link.md": (secret,),
        },
    }
    commits = {name: commit_of(tmp_path / "host" / name, content) for name, content in files.items()}
    wikipedia = [
        dataclasses.replace(source, commit=commits[source.repository]) for source in elmo_tiny_text.WIKIPEDIA
    ]
    books = dataclasses.replace(elmo_tiny_text.BOOKS, commit=commits[elmo_tiny_text.BOOKS.repository])
    monkeypatch.setattr(elmo_tiny_text, "WIKIPEDIA", tuple(wikipedia))
    monkeypatch.setattr(elmo_tiny_text, "BOOKS", books)
    monkeypatch.setattr(elmo_tiny_text, "HELDOUT_ARTICLES", 2)
    monkeypatch.setattr(elmo_tiny_text, "SMALL_ARTICLES", 3)
    monkeypatch.setattr(elmo_tiny_text, "MAX_BOOK_WORDS", 200)
    return (tmp_path / "host").as_uri()


def documents_of(path):
    """The paragraphs of each document."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [document.split("\n") for document in file.read().split("\n\n") if document]


def test_the_text_has_what_the_rules_keep(host, tmp_path):
    data = tmp_path / "data"
    elmo_tiny_text.make(data, host)
    wiki = {
        name: documents_of(data / name)
        for name in (
            "lm_pretrain/valid.wiki.txt.xz",
            "lm_small/train.wiki.txt.xz",
            "lm_pretrain/train.wiki.txt.xz",
        )
    }
    assert [len(documents) for documents in wiki.values()] == [2, 3, 6]
    articles = {tuple(document) for documents in wiki.values() for document in documents}
    expected = {tuple(prose(10 * number + k) for k in range(6)) for number in range(2, 12)}
    assert articles == expected | {tuple(prose(600 + k, times=30) for k in range(20))}
    # The list, the headings and short lines are gone, emphasis too; the excerpt ends before 200 words.
    (book,) = documents_of(data / "lm_pretrain/train.books.txt.xz")
    assert book == [prose(300 + k) for k in range(len(book))]
    assert len(book) == 200 // len(prose(300).split())
    # A held-out book is whole, and the link led to no file.
    assert documents_of(data / "lm_pretrain/valid.books.txt.xz") == [[prose(400 + k) for k in range(20)]]


def test_the_index_names_every_document(host, tmp_path):
    elmo_tiny_text.make(tmp_path / "data", host)
    rows = [
        line.split("\t") for line in (tmp_path / "data/index.tsv").read_text(encoding="utf-8").splitlines()
    ]
    assert len(rows) == 13
    assert {row[1] for row in rows if row[2] == "Article 7"} == {"https://en.wikipedia.org/?curid=7"}
    (reed,) = [row for row in rows if row[2] == "Ten Days"]
    assert reed[0] == "lm_pretrain/valid.books.txt.xz"
    assert reed[1].endswith("/John Reed/Ten Days.md")


def test_the_same_text_is_made_again_by_the_same_command(host, tmp_path):
    for name in ("one", "two"):
        elmo_tiny_text.make(tmp_path / name, host)
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_text_that_exists_is_not_made_again(host, tmp_path):
    elmo_tiny_text.make(tmp_path, host)
    with pytest.raises(ElmoError, match=r"index\.tsv exists; delete it"):
        elmo_tiny_text.make(tmp_path, host)


def test_a_host_that_does_not_answer_is_one_sentence(host, tmp_path):
    nowhere = (tmp_path / "nowhere").as_uri()
    with pytest.raises(ElmoError, match=r"git fetch .* failed: .+"):
        elmo_tiny_text.make(tmp_path / "data", nowhere)
    assert not (tmp_path / "data").exists()


def test_an_interruption_leaves_no_folder_that_looks_whole(host, tmp_path, monkeypatch):
    """elmo_tiny.sh takes the folder for all of the text."""
    write = elmo_tiny_text.write_documents

    def interrupted(path, documents):
        if path.name == "train.books.txt.xz":
            raise KeyboardInterrupt
        write(path, documents)

    with monkeypatch.context() as patch:
        patch.setattr(elmo_tiny_text, "write_documents", interrupted)
        with pytest.raises(KeyboardInterrupt):
            elmo_tiny_text.make(tmp_path / "data", host)
    assert not (tmp_path / "data" / "lm_pretrain").exists()
    elmo_tiny_text.make(tmp_path / "data", host)
    assert len(list((tmp_path / "data" / "lm_pretrain").iterdir())) == 4


def test_a_folder_of_other_text_is_not_touched(host, tmp_path):
    own = tmp_path / "lm_pretrain" / "train.own.txt.xz"
    own.parent.mkdir()
    own.write_bytes(b"mine")
    with pytest.raises(ElmoError, match=r"lm_pretrain exists and is not an empty folder"):
        elmo_tiny_text.make(tmp_path, host)
    assert [path.name for path in own.parent.iterdir()] == ["train.own.txt.xz"]
