"""Sections of files, the groups that read them, and windows of a text that is large enough to be cut."""

import gzip
import json
import random
from collections import Counter
from itertools import chain, islice, pairwise
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from elmo_hf.corpus import readers
from elmo_hf.corpus import sections as module
from elmo_hf.corpus.encoder import Encoder
from elmo_hf.corpus.order import Numbering
from elmo_hf.corpus.sections import Section, Shares, number_of_groups, spans_of_lines
from elmo_hf.corpus.source import Source
from elmo_hf.corpus.windows import Plan, Reader, Windows, merge_states
from tests.helpers.window_texts import LINES, TEXTS, same, until_the_end, words_of

# Python 3.12 warns of every fork of a process with threads, as pyarrow's; the loader's workers are forks.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture
def small_sections(monkeypatch):
    """The small corpus of the tests is cut as a large one is."""
    for name, value in {"SMALL_TEXT": 1, "SMALLEST": 300, "STEP": 200, "BYTES_OF_GROUP": 300}.items():
        monkeypatch.setattr(module, name, value)


def write(folder, form):
    """The corpus in files of unequal size."""
    parts = [LINES[:11], LINES[11:14], LINES[14:60], LINES[60:]]
    for number, lines in enumerate(parts):
        path = folder / f"part-{number}.{form}"
        text = "".join(line + "\n" for line in lines)
        records = "".join(json.dumps({"text": line}) + "\n" + "\n" * (number % 2) for line in lines)
        if form == "parquet":
            pyarrow.parquet.write_table(pyarrow.table({"text": lines}), path, row_group_size=4)
        elif form == "csv":
            path.write_text("text,n\n" + "".join(f"{line},1\n" for line in lines), encoding="utf-8")
        elif form == "json":
            path.write_text(json.dumps([{"text": line} for line in lines]), encoding="utf-8")
        else:
            content = (records if form == "jsonl" else text).encode()
            path.write_bytes(gzip.compress(content) if form == "txt.gz" else content)
    return Source([str(folder / f"part-{number}.{form}") for number in range(len(parts))])


FORMS = ["txt", "jsonl", "parquet", "csv", "json", "txt.gz"]
CUT = {"txt", "jsonl", "parquet"}


# ---- sections


@pytest.mark.parametrize("form", FORMS)
def test_sections_are_the_corpus(small_sections, tmp_path, form):
    """All of them together are the lines of the files, with the right numbers."""
    source = write(tmp_path, form)
    assert (len(source.sections) > 4) == (form in CUT)
    for shard in range(4):
        whole = [*chain.from_iterable(source.lines(shard))]
        parts = [section for section in source.sections if section.shard == shard]
        assert [*chain.from_iterable(lines for part in parts for lines in source.lines_of(part))] == whole
        for part, following in pairwise([*parts, Section(shard, len(whole))]):
            lines = [*chain.from_iterable(source.lines_of(part))]
            assert lines == whole[part.first : following.first]
            skipped = [*chain.from_iterable(source.lines_of(part, skip=2))]
            assert skipped == lines[2:]
        for skip in range(len(whole) + 1):
            assert [*chain.from_iterable(source.lines(shard, skip))] == whole[skip:]


@pytest.mark.parametrize("seed", range(20))
def test_lines_end_as_python_reads_them(tmp_path, seed):
    draw = random.Random(seed)
    signs = ["a", "bé", "\n", "\r\n", "\r", "\n\n", " ", "\u2028", "\x0b"]
    content = "".join(draw.choices(signs, k=draw.choice([0, 1, 40, 400])))
    path = tmp_path / "text.txt"
    path.write_text(content, encoding="utf-8", newline="")
    whole = [*chain.from_iterable(Source(path).lines(0))] if content.strip("\r\n") else []
    for step in (1, 3, 10, 1000):
        spans = [*spans_of_lines(str(path), step)]
        assert b"".join(path.read_bytes()[span.start : span.stop] for span in spans) == path.read_bytes()
        for span in spans if whole else ():
            section = Section(0, span.line, span)
            lines = [*chain.from_iterable(Source(path).lines_of(section))]
            assert lines == whole[span.line : span.line + len(lines)]
            assert content.encode()[: span.start].decode().endswith("\n") or span.start == 0


def test_resuming_reads_nothing_before(small_sections, tmp_path, monkeypatch):
    """Of a text file only its line ends are counted; of a Parquet file, earlier row groups stay unread."""
    source = write(tmp_path, "parquet")
    numbers = []
    read = pyarrow.parquet.ParquetFile.iter_batches
    monkeypatch.setattr(
        pyarrow.parquet.ParquetFile,
        "iter_batches",
        lambda self, rows, groups, *others, **options: (
            numbers.extend(groups),
            read(self, rows, groups, *others, **options),
        )[1],
    )
    list(source.lines(2, skip=21))
    assert numbers[0] == 5  # rows 20 to 23
    source = write(tmp_path, "txt")
    starts, bytes_of_span = [], readers.bytes_of_span
    monkeypatch.setattr(
        readers,
        "bytes_of_span",
        lambda file, span: (starts.append(span.start), bytes_of_span(file, span))[1],
    )
    list(source.lines(2, skip=30))
    assert min(starts) > 1000


OPEN_FILES = Path("/proc/self/fd")


@pytest.mark.skipif(not OPEN_FILES.is_dir(), reason="the system does not list open files")
def test_a_plain_file_is_open_only_while_it_is_read(tmp_path):
    """As hundreds of rows may read a section each."""
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES * 100), encoding="utf-8")
    source = Source(path)
    section = Section(0, span=module.Span(0, path.stat().st_size, "byte", 0))
    unfinished = [source.lines_of(section) for _ in range(20)]
    assert all(len(next(lines)) < 100 * len(LINES) / 2 for lines in unfinished)
    # Not their number: what earlier tests left open may be closed by the collector meanwhile.
    assert path not in [file.resolve() for file in OPEN_FILES.iterdir()]
    with path.open():
        assert path in [file.resolve() for file in OPEN_FILES.iterdir()]


def test_errors_name_lines_of_the_file(small_sections, tmp_path):
    path = tmp_path / "text.jsonl"
    lines = [json.dumps({"text": line}) for line in LINES]
    path.write_text("\n".join([*lines[:70], "{broken", *lines[70:]]) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"text\.jsonl, line 71 is no JSON"):
        read_sections(Source(path))
    path.write_text("\n".join([*lines[:70], '{"text": 5}', *lines[70:]]) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"text\.jsonl, record 71: column 'text' should be text"):
        read_sections(Source(path))
    path = tmp_path / "text.txt"
    path.write_bytes(b"".join(line.encode() + b"\n" for line in LINES[:70]) + b"\xff\n" + 9000 * b"word\n")
    with pytest.raises(ValueError, match=r"text\.txt, line 71 is not UTF-8"):
        read_sections(Source(path))


def read_sections(source):
    return [line for section in source.sections for lines in source.lines_of(section) for line in lines]


@pytest.mark.parametrize("form", FORMS)
def test_heldout_lines_are_the_same_by_sections(small_sections, tmp_path, form):
    files = write(tmp_path, form).files
    source = Source(files, heldout_every=7)
    for side in (source, source.heldout()):
        by_section = read_sections(side)
        assert by_section == [line for shard in range(4) for lines in side.lines(shard) for line in lines]
    assert sum(map(bool, by_section)) == pytest.approx(len(TEXTS) / 7, abs=2)


# ---- groups


def test_number_of_groups():
    sized = [Section(shard, size=2**24) for shard in range(64)]
    assert number_of_groups(sized, 384) == 16  # files that stay open
    spans = [section._replace(span=module.Span(0, 2**24, "byte")) for section in sized]
    assert number_of_groups(spans, 384) == 64
    assert number_of_groups(spans, 100) == 50
    assert number_of_groups(spans, 7) == 7
    assert number_of_groups(spans, 1) == 1
    assert number_of_groups([*spans, spans[0]._replace(size=2**30)], 384) == 2  # half of the text in one
    assert number_of_groups(sized[:1], 384) == 1
    assert number_of_groups([Section(0, size=2**20)] * 5, 384) == 1  # a small text
    assert number_of_groups([Section(shard) for shard in range(64)], 384) == 8  # of unknown size
    assert number_of_groups([Section(shard) for shard in range(7)], 384) == 1


def test_groups_have_even_shares_of_uneven_sections():
    draw = np.random.default_rng(0)
    sections = [Section(shard, size=int(size)) for shard, size in enumerate(draw.pareto(2, 1000) * 1000)]
    orders = [draw.permutation(1000) for _ in range(5)]
    shares = Shares(sections, 8, lambda epoch: orders[epoch])
    total = np.zeros(8)
    for epoch in (3, 1, 4, 0, 2):  # whatever is asked first
        parts = [shares.of(epoch, group) for group in range(8)]
        assert sorted(chain.from_iterable(parts)) == sorted(sections)
        total += [sum(section.size for section in part) for part in parts]
    assert max(total) - min(total) <= max(section.size for section in sections)
    again = Shares(sections, 8, lambda epoch: orders[epoch])
    assert [again.of(4, group) for group in range(8)] == [shares.of(4, group) for group in range(8)]


@pytest.mark.parametrize(("rows", "groups"), [(6, 3), (6, 1), (6, 6), (4, 6), (5, 3), (12, 8)])
def test_every_sentence_has_a_row_and_the_way_back(rows, groups):
    for renumberings in ([], [{"rows": 4, "begun": [5, 2, 3, 3], "used": [1, 0, 2, 0]}]):
        numbering = Numbering(rows, groups, renumberings)
        turns = {}
        for group in range(groups):
            row_numbers, numbers, _ = numbering.deal(group, 0, 60)
            for sentence, (row, number) in enumerate(zip(row_numbers, numbers, strict=True)):
                if number >= 0:
                    assert turns.setdefault((row, number), (group, sentence)) == (group, sentence)
                    assert numbering.sentence(int(row), int(number)) == (group, sentence)
                    if numbering.is_regular(int(row), int(number)):
                        assert group in numbering.groups_of(int(row))
        for row in range(rows):  # without gaps
            assert {number for other, number in turns if other == row} >= {*range(8)}


def test_rows_of_a_group_are_neighbours():
    numbering = Numbering(6, 3, [])
    assert [[*numbering.groups_of(row)] for row in range(6)] == [[0], [0], [1], [1], [2], [2]]


# ---- windows


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shared", [False, True])
def test_every_number_of_readers_makes_the_same_windows(small_sections, tmp_path, encoder, form, shared):
    source = write(tmp_path, form)
    plan = Plan(rows=6, steps=5, seed=1, shuffle_sentences=10, epochs=2, shared=shared)
    reader = Reader(source, encoder, plan)
    assert reader.groups == {"txt": 6, "jsonl": 6, "parquet": 6}.get(form, 2)
    whole = until_the_end(reader)
    counts = Counter((s.direction, *s[2:]) for window in whole for s in window.sentence_starts)
    lines = [*filled_lines(source)]
    assert counts == Counter((d, epoch, *line, 0) for d in (0, 1) for epoch in (0, 1) for line in lines)
    for processes, workers in ((1, 2), (2, 0), (3, 1), (6, 0)):
        options = {"processes": processes, "workers": workers, "prefetch": 2}
        parts = [list(Windows(source, encoder, plan, process=p, **options)) for p in range(processes)]
        for step in range(min(map(len, parts))):
            joined = np.concatenate([part[step].char_ids for part in parts], axis=1)
            assert np.array_equal(joined, whole[step].char_ids)
            assert merge_states([part[step].state for part in parts]) == whole[step].state
        assert max(map(len, parts)) == len(whole)


def filled_lines(source):
    for shard in range(source.num_shards):
        for number, line in enumerate(chain.from_iterable(source.lines(shard))):
            if line:
                yield shard, number


@pytest.mark.parametrize("seed", range(25))
def test_killed_anywhere_and_resumed_with_any_rows_and_readers(small_sections, tmp_path, encoder, seed):
    """Rows, readers, length of windows: all change at random, and still every word is read once an epoch."""
    draw = random.Random(seed)
    source = write(tmp_path, draw.choice(["txt", "jsonl", "parquet"]))
    shuffle, shared, state, read, rows = draw.choice([6, 100]), draw.random() < 0.3, None, [], 6
    while True:
        plan = Plan(rows, draw.randint(1, 12), 5, shuffle, shared, epochs=2)
        inner = draw.sample(range(1, rows), k=draw.randint(0, min(2, rows - 1)))
        bounds = pairwise([0, *sorted(inner), rows])
        readers = [Reader(source, encoder, plan, first, last, state) for first, last in bounds]
        windows = []
        for _ in range(draw.choice([0, 1, 2, 5, 9])):
            windows.append([reader.window() for reader in readers])
            if not any(window.mask.any() for window in windows[-1]):
                break
        state = json.loads(json.dumps(merge_states([reader.state() for reader in readers])))
        read += chain.from_iterable(windows)
        if windows and not any(window.mask.any() for window in windows[-1]):
            break
        rows = draw.choice([rows, rows, draw.randint(1, 9)])
    assert state["settings"]["groups"] == 6
    starts = Counter((s.direction, *s[2:]) for window in read for s in window.sentence_starts)
    assert {*starts.values()} == {1}
    assert len(starts) == 2 * 2 * len(TEXTS)
    for direction, boundary in ((0, "<S>"), (1, "</S>")):
        rows_read = ((window, row) for window in read for row in range(window.mask.shape[1]))
        words = Counter(chain.from_iterable(words_of(window, direction, row) for window, row in rows_read))
        assert words.pop(boundary) == 2 * len(TEXTS)
        assert words == Counter(dict.fromkeys(" ".join(TEXTS).split(), 2))


@pytest.mark.parametrize("form", ["txt", "parquet", "txt.gz"])
def test_resumed_with_the_same_rows_it_is_the_same_stream(small_sections, tmp_path, encoder, form):
    source = write(tmp_path, form)
    plan = Plan(rows=6, steps=6, seed=2, shuffle_sentences=9, epochs=2)
    whole = until_the_end(Reader(source, encoder, plan))
    for step in range(0, len(whole), 3):
        state = json.loads(json.dumps(whole[step].state))
        reader = Reader(source, encoder, plan, state=state)
        assert reader.state() == state
        following = whole[step + 1 : step + 5]
        assert all(same(*pair) for pair in zip(islice(reader, len(following)), following, strict=True))


def test_a_run_of_version_0_1_0_goes_on_with_one_group(small_sections, tmp_path, encoder, monkeypatch):
    """Its states know of no groups."""
    source = write(tmp_path, "txt")
    plan = Plan(rows=6, steps=6, seed=2, shuffle_sentences=9, epochs=2)
    with monkeypatch.context() as context:
        context.setattr(module, "SMALL_TEXT", 2**40)
        old = until_the_end(Reader(Source(source.files), encoder, plan))
    assert "groups" not in old[3].state["settings"]
    reader = Reader(source, encoder, plan, state=old[3].state)
    assert reader.groups == 1
    assert all(same(*pair) for pair in zip(islice(reader, 9), old[4:13], strict=True))


def test_a_reader_opens_the_files_of_its_groups_alone(small_sections, tmp_path, encoder, monkeypatch):
    source = write(tmp_path, "txt")
    source.sections  # noqa: B018 (counts the lines)
    read = []
    lines_of = Source.lines_of
    monkeypatch.setattr(
        Source, "lines_of", lambda self, part, skip=0: (read.append(part), lines_of(self, part, skip))[1]
    )
    plan = Plan(rows=6, steps=6, shuffle_sentences=9, epochs=1)
    sizes = []
    for row in range(6):
        read.clear()
        until_the_end(Reader(source, encoder, plan, row, row + 1))
        sizes.append(sum(section.size for section in read))
    assert sum(sizes) == 2 * sum(section.size for section in source.sections)


def test_a_changed_corpus_is_noticed(small_sections, tmp_path, encoder):
    source = write(tmp_path, "txt")
    plan = Plan(rows=6, shuffle_sentences=20)
    state = [*islice(Reader(source, encoder, plan), 5)][-1].state
    path = tmp_path / "part-2.txt"
    path.write_bytes(path.read_bytes().replace(b"w", b"v"))
    with pytest.raises(ValueError, match="has changed since the training stopped"):
        list(Windows(Source(source.files), encoder, plan, state=state))


def test_windows_do_not_depend_on_the_table_of_words(source, encoder):
    """Its words are forgotten in the midst of sentences."""
    plan = Plan(rows=5, steps=4, seed=2, shuffle_sentences=9, epochs=2)
    whole = until_the_end(Reader(source, encoder, plan))
    small = Encoder(encoder.vocabulary, 16, cache_words=30)
    assert all(same(*pair) for pair in zip(whole, until_the_end(Reader(source, small, plan)), strict=True))
    assert small.generation > 5


def test_a_text_that_cannot_be_divided_is_noted(small_sections, tmp_path, encoder):
    def note(form, readers, **options):
        plan = Plan(**({"rows": 6} | options))
        return Windows(write(tmp_path, form), encoder, plan, processes=readers).note

    assert note("txt", 6) == note("txt.gz", 2) == note("txt.gz", 1) == ""
    assert "is divided among 2 of 3 readers, as its files are not plain text" in note("txt.gz", 3)
    assert note("txt.gz", 3).endswith("unpack it, or write about 3 files of the same size.")
    assert "among 1 of 3 readers, as its order is kept" in note("txt", 3, shuffle_sentences=0)
