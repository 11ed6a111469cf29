"""The recipe for coreference: its input, its errors, a whole run, and GAP."""

import io
import json
import lzma
import tarfile

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict

from elmo_hf import ElmoForCoreferenceResolution, ElmoTokenizer
from elmo_hf.finetuning import coreference
from elmo_hf.finetuning.coreference import (
    as_clusters,
    collate_documents,
    from_row,
    parse_conll,
    read_archive,
    read_conll,
    read_documents,
    read_gap,
    resolved,
    split_documents,
    windows,
)
from elmo_hf.finetuning.word_vectors import words_of
from training import (
    evaluate_gap,
    finetune_coref,
)

SENTENCES = [["Ada", "saw", "the", "old", "man", "'s", "dog"], ["He", "liked", "her"], ["Why", "?"]]
CLUSTERS = [[(0, 0, 0), (1, 2, 2)], [(0, 2, 4), (1, 0, 0)], [(0, 2, 6)]]
MARKS = [["(0)", "-", "(1|(2", "-", "1)", "-", "2)"], ["(1)", "-", "(0)"], ["-", "-"]]


def conll(name="book", sentences=SENTENCES, marks=MARKS, blank="-", tab=" "):
    lines = [f"#begin document ({name}); part 000"]
    for words, row in zip(sentences, marks, strict=True):
        for number, (word, mark) in enumerate(zip(words, row, strict=True)):
            lines.append(tab.join([name, "0", str(number), word, "_", blank if mark == "-" else mark]))
        lines.append("")
    return "\n".join([*lines, "#end document", ""])


def archive(path, files, mode="w:xz"):
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("text", [conll(), conll(blank="", tab="\t"), conll().replace("\n", "\r\n")])
def test_marks_become_clusters(text, tmp_path):
    path = tmp_path / "book.conll.xz"
    path.write_bytes(lzma.compress(text.encode()))
    (document,) = read_conll(path)
    assert document["sentences"] == SENTENCES
    assert document["tokens"] == [word for sentence in SENTENCES for word in sentence]
    assert sorted(map(sorted, document["clusters"])) == CLUSTERS
    assert document["name"] == "(book); part 000"


def test_mentions_of_a_cluster_may_be_nested():
    marks = [["(0", "(0)", "0)"]]
    (document,) = parse_conll(conll(sentences=[["he", "himself", "there"]], marks=marks), "x")
    assert document["clusters"] == [[(0, 1, 1), (0, 0, 2)]]


LINE = "book 0 0 Ada _ "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LINE + "-\n", "x, line 1: a word is outside of any document."),
        (
            "#begin document (b)\n" + LINE + "(0\n\n",
            "x, line 3: a mention of cluster 0 has no end in its sentence",
        ),
        (
            "#begin document (b)\n" + LINE + "0)\n",
            "x, line 2: a mention of cluster 0 ends that has not begun",
        ),
        ("#begin document (b)\n" + LINE + "0\n", "x, line 2: '0' is no mark of a mention"),
        ("#begin document (b)\n" + LINE + "(1234567890)\n", "line 2: '.1234567890.' is no mark of a mention"),
        ("#begin document (b)\nAda (0)\n", "x, line 2: a line needs at least five columns, but this has 2."),
        ("#begin document (b)\n" + LINE + "-\n", "x: document .b. has no end; is the file cut off"),
        (
            "#begin document (b)\n" + LINE + "-\n\n#begin document (c)\n" + LINE + "-\n#end document\n",
            "x, line 4: document .b. has no end before the next one begins.",
        ),
        ("#begin document (b)\n#end document\n", "x, line 2: document .b. has no words."),
        (
            "#begin document (b)\n" + LINE + "(0)|(0)\n#end document\n",
            r"x, line 3: a cluster has the mention \(0, 0, 0\) twice\.",
        ),
    ],
)
def test_a_broken_document_is_named(text, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_conll(text, "x")
    assert "\n" not in str(error.value)


def test_an_archive_is_read_in_the_order_of_names(tmp_path):
    files = {f"a/{name}.conll": conll(name).encode() for name in ("b2", "b1")}
    files |= {"a/notes.txt": b"\xff", "a/link.conll": None}
    books_read = read_archive(archive(tmp_path / "books.tar.xz", files))
    assert [book["name"][:4] for book in books_read] == ["(b1)", "(b2)"]
    documents = [{"name": str(number)} for number in range(25)]
    split = split_documents(documents)
    assert [document["name"] for document in split["dev"]] == ["8", "18"]
    assert [document["name"] for document in split["test"]] == ["9", "19"]
    assert len(split["train"]) == 21


def test_parts_of_a_document_stay_in_one_split():
    documents = [{"name": f"(book {number}); part {part:03}"} for number in range(10) for part in range(3)]
    split = split_documents(documents)
    assert split == {"train": documents[:24], "dev": documents[24:27], "test": documents[27:]}


def test_a_document_that_an_archive_has_twice_is_refused(tmp_path):
    files = {f"bc/cctv_0001.v4_{kind}_conll": conll().encode() for kind in ("auto", "gold")}
    with pytest.raises(ValueError, match=r"a\.tar has the document \(book\); part 000 2 times; leave one"):
        read_archive(archive(tmp_path / "a.tar", files, "w"))


def test_documents_without_clusters_or_words_are_not_trained_on(tmp_path, call):
    def fails(text, message):
        path.write_text(text, encoding="utf-8")
        files = [part for split in ("train", "dev", "test") for part in (f"--{split}", path)]
        with pytest.raises(ValueError, match=message):
            call(finetune_coref, *files, "--smoke", "--output", tmp_path / "run")
        assert not (tmp_path / "run").exists()

    path = tmp_path / "a.conll"
    lines = [line + "\t" if line.startswith("book") else line for line in conll(tab="\t").split("\n")]
    fails("\n".join(lines), "^no two mentions of the train documents are in one cluster; are the marks")
    skeleton = [["[WORD]"] * len(words) for words in SENTENCES]
    fails(conll(sentences=skeleton), r"^all words of the train sentences are '\[WORD\]'; add the words")


def test_a_file_of_another_task_is_no_conll_2012():
    text = "#begin document a\n1\tHe\the\the\tN\t(1)\n#end document a\n"
    with pytest.raises(ValueError, match="x, line 2: the third column numbers the words, but this has 'he'"):
        parse_conll(text, "x")


def test_a_file_of_an_archive_may_begin_with_a_byte_order_mark(tmp_path):
    content = conll().encode("utf-8-sig")
    (tmp_path / "book.conll").write_bytes(content)
    books_read = read_archive(archive(tmp_path / "books.tar", {"book.conll": content}, "w"))
    assert books_read == read_conll(tmp_path / "book.conll") == parse_conll(conll(), "x")


@pytest.mark.parametrize(
    ("limit", "value"), [("LARGEST_FILE", 100), ("LARGEST_ARCHIVE", 100), ("MOST_FILES", 1)]
)
def test_an_archive_over_a_limit_is_refused_before_it_is_read(tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(coreference, limit, value)
    path = archive(tmp_path / "books.tar", {"1.conll": b"", "2.conll": conll().encode()}, "w")
    with pytest.raises(ValueError, match=r"too large for a corpus: 2\.conll in it is over a limit"):
        read_archive(path)


def test_files_of_an_archive_have_one_of_two_endings(tmp_path):
    content = conll().encode()
    other = conll("other").encode()
    files = {
        "a/1.v4_gold_conll": content,
        "a/2.conll": other,
        "a/readme.txt": b"none",
        "a/._2.conll": b"\xff",
    }
    names = [document["name"] for document in read_archive(archive(tmp_path / "a.tar", files, "w"))]
    assert names == ["(book); part 000", "(other); part 000"]
    with pytest.raises(ValueError, match=r"b\.tar has no document in files \*\.conll or \*_conll\.$"):
        read_archive(archive(tmp_path / "b.tar", {"readme.txt": b"none"}, "w"))


def test_a_broken_archive_is_named(tmp_path):
    path = archive(tmp_path / "1.tar.xz", {"1.conll": conll().encode() * 50})
    (tmp_path / "2.tar.xz").write_bytes(path.read_bytes()[:-200])
    (tmp_path / "3.tar.xz").write_bytes(b"no archive")
    archive(tmp_path / "4.tar.xz", {"4.conll": b"\xff"})
    messages = {"2": "could not be read as a tar archive", "3": "could not be read as a tar archive",
                "4": r"4\.conll is no text in UTF-8", "5": "could not be read"}  # fmt: skip
    for name, message in messages.items():
        with pytest.raises(ValueError, match=message) as error:
            read_archive(tmp_path / f"{name}.tar.xz")
        assert "\n" not in str(error.value)


def test_a_window_has_the_mentions_inside_it():
    (document,) = parse_conll(conll(), "x")
    first, second = windows(document, 2)
    assert first["sentences"] == SENTENCES[:2]
    assert sorted(map(sorted, first["clusters"])) == CLUSTERS
    assert (second["sentences"], second["clusters"]) == ([["Why", "?"]], [])
    later = windows(document, 1)[1]
    assert sorted(later["clusters"]) == [[(0, 0, 0)], [(0, 2, 2)]]
    assert later["tokens"] == SENTENCES[1]


def test_a_batch_holds_documents_and_gives_them_back():
    (document,) = parse_conll(conll(), "x")
    batch = collate_documents(ElmoTokenizer(), [document, windows(document, 2)[1], document])
    assert batch["document_ids"].tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert batch["labels"].shape == (3, 5, 4)
    assert batch["char_ids"].shape == (7, 7, 50)
    clusters = as_clusters(np.asarray(batch["labels"]))
    assert [sorted(map(sorted, document)) for document in clusters] == [CLUSTERS, [], CLUSTERS]


# ---- whole runs


def books(number):
    """Books in which names are known by their words, and pronouns by the last name."""
    generator = torch.Generator().manual_seed(0)
    files = {}
    for book in range(number):
        sentences, marks = [], []
        for who in torch.randint(2, (12,), generator=generator).tolist():
            sentences += [[["Ada", "Tom"][who], "came", "in", "."], [["She", "He"][who], "left", "."]]
            marks += [[f"({who})", "-", "-", "-"], [f"({who})", "-", "-"]]
        files[f"{book}.conll"] = conll(f"b{book:02d}", sentences, marks).encode()
    return files


GAP = "\t".join(coreference._COLUMNS) + "\n"


def gap_line(text, pronoun, a, b, *gold):
    columns = ["1", text, pronoun, str(text.rindex(pronoun))]
    for name, coref in zip((a, b), gold, strict=True):
        columns += [name, str(text.index(name)), coref]
    return "\t".join([*columns, "http://x"]) + "\n"


def test_a_run_learns_writes_its_results_and_is_evaluated_on_gap(tmp_path, call):
    data, run = archive(tmp_path / "books.tar", books(12), "w"), tmp_path / "run"
    call(finetune_coref, "--smoke", "--data", data, "--output", run, "--learning-rate", 0.01, "--predictions",
                  "--set", "task_word_dim=8", "task_dropout=0.0")  # fmt: skip
    results = json.loads((run / "results.json").read_text())
    assert results["examples"] == {"train": 8, "dev": 1, "test": 1}
    scores = results["mean"]["test"]
    f1s = [scores[f"{metric}_f1"] for metric in ("muc", "b_cubed", "ceaf_e")]
    assert scores["conll_f1"] == pytest.approx(sum(f1s) / 3, abs=1e-4)
    assert {"ceaf_m_f1", "mentions_recall", "conll_f1_with_singletons"} < set(scores)
    path = tmp_path / "gap.tsv"
    text = "Ada met Tom . She left ."
    path.write_text(GAP + gap_line(text, "She", "Ada", "Tom", "TRUE", "FALSE"), encoding="utf-8")
    call(evaluate_gap, "--model", run / "seed-0", "--gap", path, "--output", tmp_path / "gap.json")
    scores = json.loads((tmp_path / "gap.json").read_text())["scores"]
    assert scores["number"] == 1
    model = ElmoForCoreferenceResolution.from_pretrained(run / "seed-0")
    tokenizer = ElmoTokenizer.from_pretrained(run / "seed-0")
    (example,) = read_gap(path)
    table = zip(words_of(model, tokenizer), model.task_words.word_table.weight.tolist(), strict=True)
    lines = [" ".join([word, *map(str, numbers)]) + "\n" for word, numbers in table]
    (tmp_path / "vectors.txt").write_text("".join(lines) + f"met {' 1' * 8}\n", encoding="utf-8")
    vectors = ["--vectors", tmp_path / "vectors.txt", "--output", tmp_path / "gap-vectors.json"]
    call(evaluate_gap, "--model", run / "seed-0", "--gap", path, *vectors)
    assert json.loads((tmp_path / "gap-vectors.json").read_text())["scores"]["number"] == 1
    answers = resolved(model.predict(example["sentences"], tokenizer), example)
    assert scores["accuracy"] == float(answers == (True, False))
    (row,) = map(json.loads, (run / "predictions" / "seed-0-test.jsonl").read_text().splitlines())
    clusters = model.predict(row["sentences"], tokenizer)
    assert row["predicted"] == [[list(mention) for mention in cluster] for cluster in clusters]


def test_rows_of_a_dataset_are_documents(tmp_path):
    documents = [book for content in books(3).values() for book in parse_conll(content.decode(), "x")]
    rows = [{"sentences": book["sentences"], "clusters": book["clusters"]} for book in documents]
    splits = {
        split: Dataset.from_list([row]) for split, row in zip(("train", "dev", "test"), rows, strict=True)
    }
    DatasetDict(splits).save_to_disk(tmp_path / "dataset")
    flags = finetune_coref.make_parser("").parse_args(["--data", str(tmp_path / "dataset"), "--output", "x"])
    flags.window = 50
    data = finetune_coref.read(flags)
    for split, document in zip(("train", "dev", "test"), documents, strict=True):
        assert data[split][0]["clusters"] == document["clusters"]
        assert data[split][0]["sentences"] == document["sentences"]


@pytest.mark.parametrize(
    ("mention", "message"),
    [
        ([0, 1], r"is \[sentence, first word, last word\], but this is \(0, 1\)"),
        ([2, 0, 0], r"but this is \(2, 0, 0\)"),
        ([-1, 0, 0], r"but this is \(-1, 0, 0\)"),
        ([0.0, 0.0, 0.0], r"but this is \(0.0, 0.0, 0.0\)"),
        (["0", "0", "0"], "but this is .'0', '0', '0'."),
        ([0, None, 0], r"but this is \(0, None, 0\)"),
        ([[0], [0], [0]], "but this is "),
        ([1, 0, 1], ".1, 0, 1. is not within the words of its sentence"),
        ([1, 0, -1], ".1, 0, -1. is not within"),
        ([0, 0, 1], ".0, 0, 1. twice"),
    ],
)
def test_a_row_with_a_mention_that_is_none_is_refused(mention, message):
    row = {"sentences": [["Ada", "left"], ["Why"]], "clusters": [[[0, 0, 1], mention]]}
    with pytest.raises(ValueError, match=message):
        from_row(row, "row 2 of the test split")


def test_wrong_flags_are_one_sentence(tmp_path, call):
    few = archive(tmp_path / "few.tar", books(8), "w")
    cases = {
        (): "name files by --train",
        ("--data", few): "too few documents in .*few.tar; none is left for dev",
        ("--data", few, "--window", 0): "--window must be at least 1, but is 0",
    }
    for flags, message in cases.items():
        with pytest.raises(ValueError, match=message) as error:
            call(finetune_coref, "--smoke", "--output", tmp_path / "run", *flags)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="no ELMo can be loaded from /absent"):
        call(evaluate_gap, "--model", "/absent", "--gap", "x", "--output", tmp_path / "gap.json")
    gap = ("--model", "/absent", "--gap", "x", "--output")
    with pytest.raises(ValueError, match="is a folder; name a file for the scores by --output"):
        call(evaluate_gap, *gap, tmp_path)
    with pytest.raises(ValueError, match=r"few\.tar is a file, and no folder"):
        call(evaluate_gap, *gap, few / "gap.json")


# ---- GAP


def test_names_and_pronouns_are_located_in_the_text(tmp_path):
    path = tmp_path / "gap.tsv"
    text = "Mr. Smith wrote to Bob Jones Jr. He liked John's dog, but she didn't."
    path.write_text(GAP + gap_line(text, "she", "Smith", "Bob Jones", "TRUE", "FALSE"), encoding="utf-8")
    (example,) = read_gap(path)
    words = example["sentences"]
    for name, value in (("pronoun", ["she"]), ("A", ["Smith"]), ("B", ["Bob", "Jones"])):
        sentence, first, last = example[name]
        assert words[sentence][first : last + 1] == value
    assert example["gold"] == (True, False)


def test_a_pronoun_means_a_name_that_its_cluster_has():
    example = {"pronoun": (1, 0, 0), "A": (0, 0, 1), "B": (0, 5, 5)}
    assert resolved([[(1, 0, 0), (0, 0, 1)]], example) == (True, False)
    assert resolved([[(1, 0, 0), (0, 0, 3)]], example) == (True, False)  # "Ada Smith of York"
    assert resolved([[(1, 0, 0), (0, 0, 5)]], example) == (False, False)  # "Ada Smith's friend Bob"
    assert resolved([[(1, 0, 0), (0, 1, 1)]], example) == (False, False)  # "Smith" alone
    assert resolved([[(1, 0, 0), (0, 5, 5)], [(0, 0, 1)]], example) == (False, True)
    assert resolved([[(0, 0, 1), (0, 5, 5)]], example) == (False, False)
    assert resolved([[(1, 0, 0), (0, 0, 1)]], example | {"B": None}) == (True, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ID\tText\n", "does not have the columns of GAP"),
        (GAP + "1\tAda left.\n", "line 2: the columns do not agree"),
        (GAP + gap_line("Ada met Tom. She left.", "She", "Ada", "Tom", "TRUE", "x"), "line 2: the columns"),
        (GAP + gap_line("Ada met Tom. She left.", "She", "Ada", "Tom", "TRUE", "FALSE").replace("\t8", "\t7"),
         "each name must be at its offset"),
    ],
)  # fmt: skip
def test_a_broken_file_of_gap_is_named(tmp_path, text, message):
    path = tmp_path / "gap.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        read_gap(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"sentences": ["She left"]},
            "^row 2 of the test split: `sentences` must be lists of words, but are .'She left'.",
        ),
        ({"sentences": []}, "^row 2 of the test split: a document must have sentences"),
        ({"clusters": None}, "^row 2 of the test split: `clusters` must be lists of mentions, but are None"),
        ({"clusters": [[[0, 0, 9]]]}, "^row 2 of the test split: the mention .0, 0, 9. is not within"),
    ],
)
def test_a_wrong_row_of_a_dataset_is_one_sentence(change, message):
    row = {"sentences": [["She", "left"]], "clusters": [[[0, 0, 0]]]} | change
    with pytest.raises(ValueError, match=message):
        from_row(row, "row 2 of the test split")


ONTOGUM = """# begin document
0\tAda\t(12)
1\tleft\t_
2\t.\t_
3\t"\t_
4\tHer\t(7(12)
5\town\t_
6\tdog\t7)
7\tv.\t_
8\t.\t_
9\tit\t(7)(9)
10\tran\t_

# end document
"""


def test_clusters_with_a_mention_in_common_are_one():
    """As OntoNotes has them; the last cluster joins two that had nothing in common."""
    marks = ["(0)", "(1)", "(2)", "(0)|(1)|(3)", "(2)|(4)", "(3)|(4)"]
    text = "#begin document (b)\n" + "".join(f"{LINE}{mark}\n" for mark in marks) + "#end document\n"
    (example,) = parse_conll(text, "x")
    assert [sorted(cluster) for cluster in example["clusters"]] == [[(0, word, word) for word in range(6)]]
    (example,) = parse_conll(text.replace("(3)|(4)", "-"), "x")
    words = [[word for _, word, _ in sorted(cluster)] for cluster in example["clusters"]]
    assert words == [[0, 1, 3], [2, 4]]


def test_files_of_ontogum_have_three_columns_and_no_blank_lines(tmp_path):
    (tmp_path / "GUM_bio_ada.conll").write_text(ONTOGUM, encoding="utf-8")
    (example,) = read_documents(tmp_path / "GUM_bio_ada.conll")
    assert example["name"] == "GUM_bio_ada.conll"
    assert example["sentences"] == [
        ["Ada", "left", ".", '"'],
        ["Her", "own", "dog", "v.", "."],
        ["it", "ran"],
    ]
    # `it` is in two clusters, of which the first counts
    assert example["clusters"] == [[(0, 0, 0), (1, 0, 0)], [(1, 0, 2), (2, 0, 0)]]
    path = archive(tmp_path / "gum.tar.xz", dict.fromkeys(("a.conll", "b.conll"), ONTOGUM.encode()))
    assert [document["name"] for document in read_documents(path)] == [
        "gum.tar.xz, a.conll",
        "gum.tar.xz, b.conll",
    ]


def test_a_sentence_does_not_end_within_a_mention(tmp_path):
    text = ONTOGUM.replace("1\tleft\t_", "1\tleft\t(3").replace("4\tHer\t(7(12)", "4\tHer\t(12)3)")
    (tmp_path / "a.conll").write_text(text.replace("dog\t7)", "dog\t_"), encoding="utf-8")
    (example,) = read_documents(tmp_path / "a.conll")
    assert example["sentences"][0][:5] == ["Ada", "left", ".", '"', "Her"]
