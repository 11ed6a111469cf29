"""The experiments around elmo-tiny: the 5-gram baseline, adaptation to domains, the choice of its shape."""

import json
import lzma
import math
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.language_models import domain, kneser_ney
from benchmarks.speed import shapes
from elmo_hf import ElmoConfig, ElmoForPreTraining, ElmoTokenizer

SENTENCES = [["the", "cat", "sat"], [], ["Zürich", "sat"]]


def test_the_5_gram_reads_each_sentence_from_both_ends(tmp_path):
    count = kneser_ney.write_sentences(SENTENCES, {"the", "sat"}, tmp_path / "text")
    assert count == {"sentences": 2, "tokens": 7, "unknown": 2}
    assert (tmp_path / "text.forward").read_text() == "the <RARE> sat\n<RARE> sat\n"
    assert (tmp_path / "text.backward").read_text() == "sat <RARE> the\nsat <RARE>\n"


@pytest.mark.skipif(
    not (kneser_ney.KENLM / "bin" / "lmplz").exists(),
    reason="KenLM is not compiled; benchmarks.language_models.kneser_ney does it",
)
def test_the_5_gram_prefers_its_training_text(tmp_path):
    text = [list("ahbgcfdeedfcgbha"[number % 8 :]) for number in range(200)]
    kneser_ney.write_sentences(text, set("abcdefgh"), tmp_path / "train")
    model = kneser_ney.train(tmp_path / "train.forward", "100M")
    losses = []
    for number, sentence in enumerate(["ahbgcfde", "hhhaaagg"]):
        kneser_ney.write_sentences([list(sentence)], set("abcdefgh"), tmp_path / f"{number}")
        losses.append(kneser_ney.loss_of(model, tmp_path / f"{number}.forward", 9))
    assert 0 < losses[0] < math.log(8) < losses[1]


def test_text_of_a_domain_by_line_or_by_column(tmp_path):
    packed, columns = tmp_path / "lines.txt.xz", tmp_path / "a.conll"
    packed.write_bytes(lzma.compress("the cat sat\n\nZürich sat\n".encode()))
    columns.write_text("the\tO\ncat\tB\nsat\tO\n\n\nZürich\tB\nsat\tO", encoding="utf-8")
    expected = [["the", "cat", "sat"], ["Zürich", "sat"]]
    table = tmp_path / "a.tsv.xz"
    table.write_bytes(lzma.compress(columns.read_bytes()))
    for path in (packed, columns, table):
        assert list(domain.read_sentences(path)) == expected


def test_a_model_is_adapted_and_kept(tmp_path, monkeypatch):
    """As benchmarks.tables calls it: evaluated before and after on sentences that it is not trained on."""
    words = [f"word{number}" for number in range(9)]
    sentences = [" ".join(words[: 2 + number % 8]) for number in range(200)]
    text, folder = tmp_path / "news.txt", tmp_path / "folder"
    text.write_text("\n".join(sentences), encoding="utf-8")
    (tmp_path / "vocab.txt").write_text("\n".join(["<S>", "</S>", "<UNK>", *words]), encoding="utf-8")
    tokenizer = ElmoTokenizer(tmp_path / "vocab.txt")
    sizes = {"lstm_dim": 8, "projection_dim": 4, "char_filters": [[1, 4], [2, 4]]}
    source = ElmoForPreTraining(ElmoConfig(vocab_size=tokenizer.vocab_size, **sizes))
    for saved in (source, tokenizer):
        saved.save_pretrained(tmp_path / "model")
    arguments = ["--model", tmp_path / "model", "--domains", f"news={text}", "--keep", folder, "--rows", "4"]
    arguments += ["--learning-rate", "0.01", "--output", tmp_path / "news.json"]
    monkeypatch.setattr(sys, "argv", ["domain.py", *map(str, arguments)])
    domain.main()
    [row] = json.loads((tmp_path / "news.json").read_text(encoding="utf-8"))["rows"]
    assert row["domain"] == "news"
    assert row["train_sentences"] == 190
    assert row["factor"] == row["before"]["mean"] / row["after"]["mean"] > 1
    assert (folder / "news.txt").read_text(encoding="utf-8").split("\n")[:-1] == sentences[190:]
    tuned = ElmoForPreTraining.from_pretrained(folder / "news" / "final")
    assert not torch.equal(tuned.elmo.layers[0].bias, source.elmo.layers[0].bias)


def test_a_domain_needs_a_name_and_files(tmp_path):
    (tmp_path / "text").touch()
    assert domain.domain(f"news={tmp_path}/text") == ("news", [tmp_path / "text"])
    for wrong in (f"{tmp_path}/text", f"news={tmp_path}/text,{tmp_path}/none"):
        with pytest.raises(Exception, match="NAME=FILE,FILE"):
            domain.domain(wrong)


def test_candidates_are_settings_of_pretraining():
    from elmo_hf.pretraining.settings import make_parser, with_type

    for candidate in shapes.CANDIDATES.values():
        flags = shapes.settings_of(candidate)
        parsed = vars(make_parser().parse_args(domain.arguments_of(flags | {"raw": False})))
        for name, value in flags.items():
            if name != "char_filters":
                assert parsed[name] == with_type(name, value)
        assert parsed["char_filters"] == json.loads(flags["char_filters"])
        assert "raw" not in parsed or not parsed["raw"]


def test_shapes_are_timed_and_evaluated(tmp_path, monkeypatch):
    smoke = Path(domain.PRETRAIN).parent / "runs" / "smoke.txt"
    words = sorted({word for line in smoke.read_text(encoding="utf-8").splitlines() for word in line.split()})
    vocab, heldout, output = (tmp_path / name for name in ("vocab.txt", "heldout.txt", "shapes.json"))
    vocab.write_text("\n".join(["<S>", "</S>", "<UNK>", *words]) + "\n", encoding="utf-8")
    heldout.write_text(
        "\n".join(smoke.read_text(encoding="utf-8").splitlines()[:20]) + "\n", encoding="utf-8"
    )
    tiny = {"projection_dim": 4, "filters": "narrow", "rows": 2, "samples": 8}
    monkeypatch.setitem(shapes.FILTERS, "narrow", [[1, 4]])
    monkeypatch.setattr(shapes, "CANDIDATES", {f"{size}/4": {"lstm_dim": size, **tiny} for size in (6, 8)})
    arguments = ["--data", smoke, "--vocab", vocab, "--heldout", heldout, "--minutes", "0.001"]
    arguments += ["--turns", "1", "--candidates", "8/4", "--output", output]
    monkeypatch.setattr("sys.argv", ["shapes.py", *map(str, arguments)])
    shapes.main()
    content = json.loads(output.read_text(encoding="utf-8"))
    assert [row["name"] for row in content["rows"]] == ["8/4"]
    assert [row["settings"]["lstm_dim"] for row in content["rows"]] == [8]
    for row in content["rows"]:
        assert row["steps"] >= 1
        assert row["words"] == row["steps"] * 40
        assert 1 < row["perplexity"]["mean"] < 2 * len(words)
