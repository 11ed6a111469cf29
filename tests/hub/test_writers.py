"""What each command writes into `results/` gives the card that its file of elmo_hf 0.1.0 gave."""

import json
import sys
from argparse import Namespace

import pytest
from typer.testing import CliRunner

from benchmarks.language_models import domain, kneser_ney
from benchmarks.probing import __main__ as probing
from benchmarks.speed import shapes
from elmo_hf.cli import app
from elmo_hf.corpus.vocabulary import Vocabulary
from elmo_hf.finetuning.run import write_evaluation
from elmo_hf.hub.card import render_card
from elmo_hf.loading import describe_model
from tests.helpers.card_folders import RESULTS, RUN, perplexity, save_checkpoint, write


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "elmo-test")


def write_perplexity(path, checkpoint, monkeypatch):
    text = path.with_name("valid.poems.txt")
    text.write_text("He sat on the bank .\nHe sat .\n", encoding="utf-8")
    arguments = ["perplexity", str(text), "--model", str(checkpoint), "--json"]
    monkeypatch.setattr(sys, "argv", ["elmo-hf", *arguments])
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    path.write_text(result.stdout, encoding="utf-8")
    content = json.loads(result.stdout)
    assert content["command"] == "elmo-hf perplexity valid.poems.txt --model elmo-test --json"
    assert content["results"][0]["rows"][0]["text"] == "valid.poems"


def write_kneser_ney(path, checkpoint, monkeypatch):
    heldout = {f"valid.{name}.txt.xz": perplexity(mean) for name, mean in (("wiki", 321.5), ("new", 123.5))}
    options = Namespace(data=["a.txt"], vocab="v", heldout=[], temporary=None, memory="1G", output=path)
    monkeypatch.setattr(kneser_ney, "read_options", lambda: options)
    monkeypatch.setattr(kneser_ney, "build_kenlm", lambda: None)
    monkeypatch.setattr(kneser_ney, "open_source", lambda *_: [])
    monkeypatch.setattr(kneser_ney, "measure", lambda *_: {"training": {"tokens": 7}, "heldout": heldout})
    monkeypatch.setattr(Vocabulary, "load", lambda _: Namespace(words=["a"]))
    kneser_ney.main()


def write_evaluation_of_a_recipe(path, checkpoint, monkeypatch):
    write_evaluation(path, {"dev": {"f1": 0.75, "exact_match": 1}, "test": {"f1": 0.5}}, seed=3)


def write_shapes(path, checkpoint, monkeypatch):
    row = {"settings": {"rows": 2}, "parameters": 7, "words_per_second": 3.25, "perplexity": perplexity(77.5)}
    options = Namespace(candidates=["8/4", "6/4"], turns=1, minutes=1.5, output=path)
    monkeypatch.setattr(shapes, "read_options", lambda: options)
    monkeypatch.setattr(shapes, "speeds_of_steps", lambda *_: [1.0])
    monkeypatch.setattr(shapes, "train", lambda options, name, speed: {"name": name, **row})
    shapes.main()


def write_probes(path, checkpoint, monkeypatch):
    probes = RESULTS["probes"]["probes"] | {"neighbours": {"bank": ["river"]}}
    tags = {
        "accuracy": {"xpos": probes["tags"]["accuracy"]["xpos"] | {"random weights, layer 0": {"test": 7}}}
    }
    monkeypatch.setattr(probing, "tables", lambda *_: "")
    probing.write({"command": "probe", "seed": 0, "probes": probes | {"tags": tags}}, path)


def write_domain(path, checkpoint, monkeypatch):
    options = Namespace(domains=[("law", []), ("news", [])], keep=None, output=path)
    row = {"epochs": 1, "before": perplexity(400.0), "after": perplexity(200.0), "factor": 2.0}
    monkeypatch.setattr(domain, "read_options", lambda: options)
    monkeypatch.setattr(domain, "adapt", lambda name, *_: {"domain": name, **row})
    domain.main()


@pytest.mark.parametrize(
    ("name", "writer", "line"),
    [
        ("perplexity-valid.poems", write_perplexity, "elmo-hf perplexity valid.poems.txt --model elmo-test"),
        ("kneser_ney", write_kneser_ney, "| valid.new | 5-gram, Kneser-Ney | zero | 122.0 |"),
        ("evaluation-ner", write_evaluation_of_a_recipe, "| ner | dev | exact match | 1 |"),
        ("shapes", write_shapes, "| 6/4 | 7 | 3.250 | 77.50 |"),
        ("probes", write_probes, "tags (XPOS) by layer 1 (91.50): not senses above tags"),
        ("domain", write_domain, "| news | 1 | 400.0 | 200.0 | 2.000 |"),
    ],
)
def test_a_command_writes_what_a_card_shows(name, writer, line, checkpoint, tmp_path, monkeypatch):
    run = RUN | {"model": describe_model(checkpoint)}
    card = write(tmp_path / "card", results=RESULTS | {"run": run})
    path = card / "results" / f"{name}.json"
    writer(path, checkpoint, monkeypatch)
    new_card, content = render_card(card), json.loads(path.read_text(encoding="utf-8"))
    assert line in new_card
    assert (content.pop("schema"), bool(content.pop("results"))) == (1, True)
    path.write_text(json.dumps(content), encoding="utf-8")
    assert render_card(card) == new_card
