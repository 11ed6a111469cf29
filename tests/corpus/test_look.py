"""What is said about the first lines of a text, and about which texts nothing is said."""

import itertools
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from elmo_hf.cli import app
from elmo_hf.corpus.look import Sample, _unknown_share, doubts, model_doubts, training_doubts
from elmo_hf.corpus.source import InMemory, Source, open_records
from elmo_hf.corpus.vocabulary import Vocabulary, count_words, write_vocabulary
from elmo_hf.model.words_elmo import split_text

RAW = """\
He sat on the bank, and she rowed (see below) to the other side.
"Why?" asked Mr. Smith, who had lent them the boat.
Nobody knew the answer. The river was high, and it was late.
In 1999 there were 1,250 boats; now there are none.""".splitlines()
SPLIT = [" ".join(split_text(line, "penn").words) for line in RAW]
PARAGRAPHS = [" ".join(RAW + RAW)] * 3
RAW_TEXTS = {
    "English": RAW,
    "one sentence": ["He sat on the bank, and she sat there, too."],
    "German": ["Er saß am Ufer, und sie ruderte hinüber.", "„Warum?“, fragte Herr Schmidt."],
    "French": [
        "Il était assis sur la rive, et elle ramait.",
        "« Pourquoi ? » demanda M. Petit, étonné.",
        "Oui !",
    ],
    "Spanish": ["Él estaba en la orilla, y ella remaba.", "¿Por qué no vienes, Juan?"],
    "Russian": ["Он сидел на берегу, а она гребла.", "Почему?"],
    "Greek": ["Καθόταν στην όχθη, και εκείνη κωπηλατούσε.", "Γιατί;"],
    "Arabic": ["جلس على الضفة، وهي تجدف.", "لماذا جاء؟"],
    "Hindi": ["वह किनारे पर बैठा था।", "वह नाव चला रही थी।"],
    "Korean": ["그는 강둑에 앉아 있었다.", "그녀는 노를 저었다."],
}
UNSPACED = {
    "Chinese": ["他坐在河岸上，她在划船。", "为什么呢？没有人知道答案。"],
    "Japanese": ["彼は川岸に座っていた。彼女は舟を漕いでいた。"],
    "Thai": ["เขานั่งอยู่ริมฝั่งแม่น้ำและเธอพายเรือ"],
}
SPLIT_TEXTS = {
    "English": SPLIT,
    "lower case": [line.lower() for line in SPLIT],
    "abbreviations": ["Mr. Smith of Smith Inc. met Mrs. Jones .", "The U.S. Senate voted , too ."],
    "without signs": ["the cat sat on the mat", "the dog did not"],
    "Chinese": ["他 坐 在 河岸 上 ， 她 在 划船 。"],
    "Thai": ["เขา นั่ง อยู่ ริม ฝั่ง แม่น้ำ"],
    "boundaries": ["<S> the mat was flat . </S>", "<unk> cat , too .", "<s> a <eos>"],
    "words": ["cat", "dog", "mat", "St."],
    "verse": ["Shall I compare thee to a summer 's day ?", "Thou art more lovely and more temperate :"],
}
CODE = {
    "Python": Path(json.__file__).read_text(encoding="utf-8").partition("import")[2],
    "C": "#include <stdio.h>\nint main(int argc, char **argv) {\n  for (int i = 0; i < argc; i++) {\n"
    '    printf("%s\\n", argv[i]);  // one.\n  }\n  return 0;\n}\n',
    "JavaScript": "const a = b.map((x) => x + 1);\nexport function f(x, y) {\n  return a[x] + y;\n}\n",
}
FORMS = {
    "JSON lines": ('{"text": "He sat, and sat."}\n{"text": "Why?"}\n', "name the file .jsonl"),
    "JSON": (
        '[\n  {\n    "text": "He sat."\n  },\n  {\n    "text": "Why?"\n  }\n]\n',
        "name the file .json ",
    ),
    "CSV": ('id,text\n1,"He sat, and sat."\n2,Why?\n', "name the file .csv"),
    "a table with tabs": ("id\ttext\n1\tHe sat, and sat.\n2\tWhy not?\n", "name the file .tsv"),
    "HTML or XML": ("<html>\n<body>\n<p>He sat, and sat.</p>\n</body></html>\n", "take the text out"),
    "columns": ("EU B-ORG\nrejects O\nGerman B-MISC\ncall O\n\nPeter B-PER\n", "each sentence on a line"),
}


def said(lines, **options):
    return doubts(Source(InMemory(lines), **options))


@pytest.mark.parametrize("name", RAW_TEXTS)
def test_raw_text_needs_raw(name):
    [doubt] = said(RAW_TEXTS[name])
    assert doubt.startswith("the list looks like raw text: words such as '")
    assert doubt.endswith("keep their punctuation; use --raw.")
    assert said(RAW_TEXTS[name], raw=True) == []


@pytest.mark.parametrize("name", SPLIT_TEXTS)
def test_nothing_is_said_about_text_that_is_split(name):
    assert said(SPLIT_TEXTS[name]) == []


def test_text_that_is_split_needs_no_raw():
    [doubt] = said(SPLIT, raw=True)
    assert "split already" in doubt
    assert doubt.endswith("leave out --raw.")
    assert said(SPLIT_TEXTS["without signs"], raw=True) == []


def test_paragraphs_need_split_sentences():
    [doubt] = said(PARAGRAPHS)
    assert doubt.endswith("and lines have 10 sentences and 92 words on average; use --raw --split-sentences.")
    [doubt] = said(PARAGRAPHS, raw=True)
    assert doubt.endswith("on average; use --split-sentences.")
    assert said(PARAGRAPHS, raw=True, split_sentences=True) == []
    [doubt] = said([" ".join(SPLIT + SPLIT)])
    assert "text in paragraphs" in doubt
    assert "--raw" not in doubt
    one_long_line = [*(SPLIT * 5), " ".join(SPLIT) * 100]
    assert said(one_long_line) == []


def test_lines_that_end_with_the_page():
    words = " ".join(RAW * 10).split()
    lines = [" ".join(words[start : start + 11]) for start in range(0, len(words), 11)]
    for options in ({"raw": True}, {"raw": True, "split_sentences": True}):
        [doubt] = said(lines, **options)
        assert "join the lines of each paragraph first" in doubt
    assert said(RAW * 10, raw=True) == []


@pytest.mark.parametrize("name", UNSPACED)
def test_languages_without_blanks_need_a_segmenter(name):
    for options in ({}, {"raw": True}):
        [doubt] = said(UNSPACED[name], **options)
        assert "word segmenter" in doubt


@pytest.mark.parametrize("name", CODE)
def test_nothing_is_said_about_code(name):
    assert said(CODE[name].splitlines()) == []


@pytest.mark.parametrize("name", FORMS)
def test_files_of_other_forms(tmp_path, name):
    content, advice = FORMS[name]
    path = tmp_path / "text.txt"
    path.write_text(content, encoding="utf-8")
    [doubt] = doubts(Source(path))
    assert f"text.txt looks like {name}" in doubt
    assert advice in doubt


def test_columns_of_a_table_are_looked_at_as_text(tmp_path):
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in RAW), encoding="utf-8")
    assert len(doubts(Source(path))) == 1
    assert doubts(Source(path, raw=True)) == []
    assert said([line.split() for line in RAW]) == []  # lists of words


def test_the_look_reads_the_first_lines_only():
    read = []

    def lines():
        for number in itertools.count():
            read.append(number)
            yield SPLIT[number % 4]

    sample = Sample.of(Source(InMemory(lines())))
    assert len(sample.lines) == 500
    assert len(read) < 600
    assert len(Sample.of(Source(InMemory(["ab " * 10**6] * 20))).lines) == 5


def test_a_line_that_begins_with_very_many_blanks():
    assert said([" " * 30_000 + "far away", *SPLIT]) == said(SPLIT)
    assert said([" " * 30_000 + "far away"]) == []


# ---- words outside of a vocabulary


@pytest.fixture
def vocab(tmp_path):
    def write(name, lines, **options):
        write_vocabulary(tmp_path / name, count_words(Source(InMemory(lines), **options)))
        return Vocabulary.load(tmp_path / name)

    return write


def test_the_share_of_unknown_words_by_hand():
    source = Source(InMemory(["a b a", "<UNK> c"]))
    share, unknown = _unknown_share(source, Sample.of(source), {"a"})
    assert (share, unknown) == (2 / 5, ["b", "c"])


def test_a_text_that_is_not_read_as_its_vocabulary_was(vocab):
    raw_words = vocab("raw.txt", RAW, raw=True)
    numbers = [f"{number} boats" for number in range(100)]  # which are not raw text, and not split either
    assert training_doubts(Source(InMemory(RAW), raw=True), raw_words) == []
    [doubt] = training_doubts(Source(InMemory(SPLIT), raw=False), vocab("glued.txt", RAW))
    assert doubt.endswith("split it as the text of the vocabulary was.") or "split otherwise" in doubt
    [doubt] = training_doubts(Source(InMemory(numbers)), raw_words)
    assert doubt.startswith("50% of the first words of the list are not in ")
    assert "(0% of the text that it was counted on)" in doubt


def test_a_small_vocabulary_is_no_mistake(vocab, tmp_path):
    text = [f"the w{number}" for number in range(100)]
    write_vocabulary(tmp_path / "small.txt", count_words(Source(InMemory(text))), max_words=1)
    assert training_doubts(Source(InMemory(text)), Vocabulary.load(tmp_path / "small.txt")) == []


def test_a_trained_model_reads_text_as_it_was_trained(vocab):
    split_words, glued_words = vocab("split.txt", SPLIT), vocab("glued.txt", RAW)
    text = open_records(RAW)
    [doubt] = model_doubts(text, split_words.ids, "my-elmo")
    assert doubt.endswith("use --raw.")
    [doubt] = model_doubts(text, split_words.ids, "my-elmo", splits=False)
    assert "with words and punctuation apart; split it" in doubt
    assert model_doubts(text, glued_words.ids, "my-elmo", splits=False) == []  # trained on `bank.` as a word


# ---- the commands


def test_vocab_warns_before_it_counts_and_says_why_much_is_unknown(tmp_path, monkeypatch):
    (tmp_path / "raw.txt").write_text("\n".join(RAW) + "\n", encoding="utf-8")
    arguments = ["vocab", str(tmp_path / "raw.txt"), "--no-progress", "--min-count", "2"]
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "a.txt")])
    assert result.exit_code == 0
    first, second = result.stderr.splitlines()
    assert "raw.txt looks like raw text" in first
    assert "of the words of the text are <UNK>" in second
    assert second.endswith("see above.")
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "b.txt"), "--raw"])
    [only] = result.stderr.splitlines()
    assert only.endswith("count more text, or lower --min-count.")
    result = CliRunner().invoke(app, [*arguments[:3], str(tmp_path / "c.txt"), "--raw", "--max-words", "5"])
    [only] = result.stderr.splitlines()
    assert "a higher --max-words than 5" in only


def test_perplexity_warns_of_raw_text(tmp_path):
    (tmp_path / "raw.txt").write_text("\n".join(RAW) + "\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["perplexity", str(tmp_path / "raw.txt"), "--no-progress"])
    assert result.exit_code == 0
    assert result.stderr.count("use --raw.\n") == 1
    result = CliRunner().invoke(app, ["perplexity", str(tmp_path / "raw.txt"), "--no-progress", "--raw"])
    assert (result.exit_code, result.stderr) == (0, "")
