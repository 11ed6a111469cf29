"""The probes' data are read as they were written; damaged and hostile files raise one sentence."""

import tarfile

import pytest

from tests.helpers import probing_data
from tests.helpers.paths import SHARED
from tests.helpers.probing_naive import naive_words, refused

pytest_plugins = ["tests.helpers.probing_fixtures"]

# ---- texts


def test_semcor_as_it_is(probes):
    lines = """<contextfile concordance=brown>
<context filename=br-a01 paras=yes>
<p pnum=1>
<s snum=1>
<wf cmd=ignore pos=DT>The</wf>
<wf cmd=done rdf=group pos=NNP lemma=group wnsn=1 lexsn=1:03:00:: pn=group>Fulton_County_Grand_Jury</wf>
<wf cmd=done pos=VB lemma=take_place wnsn=1 lexsn=2:30:00::>took_place</wf>
<punc>``</punc>
<wf cmd=done pos=JJ lemma=recent wnsn=2 lexsn=5:00:00:past:00>recent</wf>
<wf cmd=done pos=JJ lemma=such wnsn=0 lexsn=5:00:01:specified:00>such</wf>
<wf cmd=done pos=NN lemma=play wnsn=0;2;1 lexsn=1:10:05::;1:10:03::;1:10:01::>Plays</wf>
<wf cmd=done rdf= pos=NN ot=notag>65</wf>
<wf cmd=ignore dc=-4 rdf=cut_corners pos=VB>_</wf>
<punc>.</punc>
</s>
</p>""".splitlines()
    [sentence] = probes.data.semcor_sentences(lines, "here")
    words = 'The Fulton County Grand Jury took place " recent such Plays 65 _ .'
    assert sentence.words == words.split()
    assert [(mark.start, mark.end, mark.lemma, mark.pos, mark.keys) for mark in sentence.marks] == [
        (5, 7, "take_place", "v", ("take_place%2:30:00::",)),
        (8, 9, "recent", "a", ("recent%5:00:00:past:00",)),
        (10, 11, "play", "n", ("play%1:10:03::", "play%1:10:01::")),
    ]
    with pytest.raises(ValueError, match=r"here, line 2: '<wf what' is not SemCor's format"):
        list(probes.data.semcor_sentences(["<s snum=1>", "<wf what"], "here"))


def test_texts_come_back_as_they_were_written(texts, semcor, task):
    assert [sentence.words for sentence in semcor] == [naive_words(sentence)[0] for sentence in texts.semcor]
    for sentence, expected in zip(semcor, texts.semcor, strict=True):
        marks = [(mark.start, mark.end, mark.lemma, list(mark.keys)) for mark in sentence.marks]
        assert marks == [(start, end, item[1], item[3]) for start, end, item in naive_words(expected)[1]]
    for name, sentences in texts.tests.items():
        assert [sentence.words for sentence in task.tests[name]] == [
            naive_words(sentence)[0] for sentence in sentences
        ]
        marks = [mark for sentence in task.tests[name] for mark in sentence.marks]
        items = [item for sentence in sentences for _, _, item in naive_words(sentence)[1]]
        assert [list(mark.keys) for mark in marks] == [item[3] for item in items]
    assert task.first["harbour", "n"] == "harbour%1:15:00::"
    assert task.first["quick", "a"] == "quick%3:00:00::"


def test_treebank_as_it_is(probes, texts):
    treebank = probes.tags.read_treebank(texts.folder)
    for split, sentences in texts.treebank.items():
        rows = [
            list(zip(row.words, row.tags["upos"], row.tags["xpos"], strict=True)) for row in treebank[split]
        ]
        assert rows == sentences
    assert probes.tags.printed_words(treebank["test"])[0][-2:] == ['"', "."]


def test_damaged_and_hostile_tars(probes, texts, tmp_path, monkeypatch):
    read, good = probes.data.read_semcor, (texts.folder / probes.data.SEMCOR).read_bytes()
    path = tmp_path / "semcor.tar.xz"
    assert "there is no file" in refused(read, path)
    for bad in (good[: len(good) // 2], b"", b"no xz at all", good[:200] + b"\0\0\0\0" + good[204:]):
        path.write_bytes(bad)
        assert "is damaged" in refused(read, path)
    probing_data.write_xz(path, "no tar" * 200)
    assert "is not a tar file" in refused(read, path)
    probing_data.write_tar(path, {"semcor3.0/brown1/tagfiles/br": "<s snum=1>\n</s>\n"})
    assert "no tagfiles/ with a word that has a sense" in refused(read, path)
    probing_data.write_tar(path, {"semcor3.0/brown1/tagfiles/br": b"\xff\xfe"})
    assert "is not UTF-8" in refused(read, path)
    path.write_bytes(good)
    monkeypatch.setattr(probes.data, "MAX_MEMBER", 100)
    assert "more than 100" in refused(read, path)
    monkeypatch.setattr(probes.data, "MAX_MEMBER", 2**20)
    monkeypatch.setattr(probes.data, "MAX_TAR", 3000)
    assert "more than 3,000 bytes" in refused(read, path)


def test_nothing_of_a_tar_goes_to_the_disk(probes, texts, tmp_path):
    """Names that lead elsewhere, links and devices are only names."""
    path = tmp_path / "in" / "semcor.tar.xz"
    lines = "\n".join(probing_data.semcor_lines(texts.semcor))
    probing_data.write_tar(
        path, {"../../tagfiles/escaped": lines, str(tmp_path / "tagfiles/absolute"): lines}
    )
    assert len(probes.data.read_semcor(path)) == 2 * len(texts.semcor)
    link = tarfile.TarInfo("a/tagfiles/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(path, mode="w:xz") as tar:
        tar.addfile(link)
    assert "no tagfiles/" in refused(probes.data.read_semcor, path)
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "semcor.tar.xz"]


def test_damaged_tests_and_inventories(probes, texts, tmp_path):
    folder = tmp_path / "senseval2"
    probing_data.write_test(folder, "senseval2", texts.tests["senseval2"])
    path, gold = folder / "senseval2.data.xml.xz", folder / "senseval2.gold.key.txt"
    text, keys = probes.data.read_xz(path), gold.read_text()

    def message(xml=text, answers=keys):
        probing_data.write_xz(path, xml)
        gold.write_text(answers)
        return refused(probes.data.read_test, folder, "senseval2")

    assert "declaration" in message(text.replace("<corpus", '<!DOCTYPE x [<!ENTITY a "b">]><corpus'))
    assert "is not well-formed XML" in message(text[:-20])
    assert "lacks words, lemma" in message(answers="".join(keys.splitlines(keepends=True)[1:]))
    assert "lacks words, lemma" in message(text.replace('pos="NOUN"', 'pos="NUN"', 1))
    assert "8 instances, but its gold file has 9" in message(answers=keys + "d9 play%1:10:01::\n")
    assert "'d9' has no sense key" in message(answers=keys + "d9\n")
    gold.unlink()
    assert "there is no file" in refused(probes.data.read_test, folder, "senseval2")

    table = tmp_path / "inventory.tsv.xz"
    for bad in ("play\tn\n", "play\tn\tplay%9:10:01::\n", "play\tn\tplay\n"):
        probing_data.write_xz(table, bad)
        assert "line 1" in refused(probes.data.read_first_senses, table)
    for bad in ("1\tword\n", ""):
        probing_data.write_xz(table, bad)
        refused(probes.data.read_conllu, table)


# ---- the real texts, where they are


@pytest.fixture(scope="module")
def real():
    shared = SHARED
    folder = shared / "data"
    if not (folder / "wsd").is_dir():
        pytest.skip(f"no real data in {folder}; ELMO_HF_SHARED names their parent folder")
    return folder


def test_first_senses_of_the_real_sets(probes, real):
    """As the data's own description has them."""
    task = probes.senses.read_task(real, [])
    scores = probes.senses.score(task, probes.senses.answer_first(task))
    assert {name: round(score, 1) for name, score in scores.items()} == {
        **{"senseval2": 63.1, "senseval3": 64.6, "semeval2007": 54.3, "semeval2013": 57.1},
        "all": 61.3,
    }
    sizes = [len(probes.data.marks_of(sentences)) for sentences in task.tests.values()]
    assert sizes == [2282, 1850, 455, 1644]


def test_the_first_file_of_the_real_semcor(probes, real):
    members = probes.data.tar_members(real / probes.data.SEMCOR)
    name, text = next(member for member in members if "/tagfiles/" in member[0])
    members.close()
    sentences = list(probes.data.semcor_sentences(text.splitlines(), name))
    assert name == "semcor3.0/brown1/tagfiles/br-a01"
    assert sentences[0].words[:8] == ["The", "Fulton", "County", "Grand", "Jury", "said", "Friday", "an"]
    assert sentences[0].marks[0].keys == ("say%2:32:00::",)


def test_the_real_dev_set(probes, real):
    sentences = probes.data.read_conllu(real / probes.data.TREEBANK.format("dev"))
    assert len(sentences) == 2001
    assert sum(len(sentence.words) for sentence in sentences) == 25_147
