"""Model cards: what they say, that every number is that of its JSON, and that none has a hole."""

import copy
import hashlib
import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard_data import ModelCardData
from typer.testing import CliRunner

from elmo_hf import ElmoConfig, ElmoForPreTraining, ElmoModel, ElmoTokenizer
from elmo_hf.cli import app
from elmo_hf.hub_cards import check_card, render_card, write_card
from elmo_hf.hub_facts import NEEDED, describe_model, read_facts, tensor_shapes
from elmo_hf.hub_results import number, probe_table, table

CARDS = Path(__file__).resolve().parent.parent / "hub_cards"
FACTS = {
    "kind": "base",
    "name": "elmo-test",
    "repo": "someone/elmo-test",
    "title": "A test",
    "summary": "An ELMo that was made up for a test.",
    "languages": ["en", "la"],
    "licence": "apache-2.0",
    "licence_note": "Nothing else binds its use.",
    "data": [{"name": "Made-up text", "licence": "public domain", "description": "Sentences by a grammar."}],
    "limits": ["It is not trained."],
    "authors": ["A. Nobody", "B. Nobody"],
}
WORDS = ["<S>", "</S>", "<UNK>", "He", "sat", "on", "the", "bank", "."]
WEB = "https://example.org/elmo"


def perplexity(mean, states="zero"):
    figures = {"forward": mean - 1.5, "backward": mean + 1.75, "mean": mean, "arithmetic_mean": mean + 0.125}
    return figures | {"tokens": int(mean * 1000), "sentences": 77, "unknown": mean / 10_000, "states": states}


RESULTS = {
    "perplexity": {
        "command": "elmo-hf perplexity held-out.txt --model m --json",
        "texts": {"valid.books": perplexity(111.5), "valid.wiki": {"zero": perplexity(222.25)}},
    },
    "kneser_ney": {"command": "lm 5", "order": 5, "valid.books": perplexity(155.75)},
    "shapes": {
        "command": ["shapes one", "shapes two"],
        "hours_each": 0.25,
        "rows": [
            {"shape": [512, 64], "parameters": 1_234_567, "words_per_second": 4321.0, "perplexity": 177.5},
            {"shape": [1024, 128], "parameters": 7_654_321, "words_per_second": 1234.0, "perplexity": 199.75},
        ],
    },
    "probes": {
        "command": "probe",
        "wsd": {"metric": "F1", "layers": [0.51, 0.62, 0.63], "random": 0.31, "baselines": {"first": 0.64}},
        "pos": {"metric": "accuracy", "layers": [0.91, 0.92, 0.93], "random": 0.81},
    },
    "domain": {"command": "domain", "law": {"before": perplexity(411.5), "after": perplexity(311.5)}},
}
RUN = {
    "command": "accelerate launch training/pretrain.py --data books.txt",
    "settings": {"data": ["books.txt"], "rows": 31, "learning_rate": 0.21, "optimizer": "adagrad"},
    "machine": {"cpu": "EPYC", "cores": 2},
    "steps": 1017,
    "words": 7_654_123,
    "epochs": 1.27,
    "hours": 3.19,
    "words_per_second": 4117.2,
    "resumed": 2,
    "finished": True,
    "heldout": {"valid.books": {"best": perplexity(133.5)}},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A saved language model with its tokenizer."""
    folder = tmp_path_factory.mktemp("checkpoint") / "elmo-test"
    vocabulary = folder.with_name("words.txt")
    vocabulary.write_text("\n".join(WORDS), encoding="utf-8")
    torch.manual_seed(0)
    config = ElmoConfig(
        lstm_dim=16,
        projection_dim=8,
        vocab_size=len(WORDS),
        char_filters=[[1, 4], [2, 8]],
        num_highway_layers=1,
    )
    ElmoForPreTraining(config).save_pretrained(folder)
    ElmoTokenizer(vocabulary).save_pretrained(folder)
    return folder


def write(folder, facts=FACTS, results=RESULTS):
    (folder / "results").mkdir(parents=True, exist_ok=True)
    (folder / "facts.yaml").write_text(yaml.safe_dump(facts, sort_keys=False), encoding="utf-8")
    for name, content in results.items():
        (folder / "results" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture
def run(checkpoint):
    return RUN | {"model": describe_model(checkpoint)}


@pytest.fixture
def card(tmp_path, run):
    """A folder of a card only, as in hub_cards."""
    return write(tmp_path / "card", results=RESULTS | {"run": run})


# ---- the cards of this repository


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in CARDS.glob("*/facts.yaml")), ids=lambda f: f.name
)
def test_a_committed_card_is_that_of_its_results(folder):
    readme = folder / "README.md"
    facts = read_facts(folder / "facts.yaml")
    assert facts["name"] == folder.name
    if not readme.exists():  # not yet: then it must lack something
        with pytest.raises(ValueError, match=r"lacks|no config"):
            render_card(folder)
        return
    text = readme.read_text(encoding="utf-8")
    assert text == render_card(folder), "python hub_cards/render.py"
    parsed = check_card(text, folder.name)
    assert isinstance(parsed.data, ModelCardData)
    assert parsed.data.model_name == facts["name"]
    assert all(isinstance(one, EvalResult) for one in parsed.data.eval_results)
    for link in re.findall(r"\]\((results/[^)]+)\)", text):
        assert (folder / link).is_file()


def test_all_cards_are_rendered_by_one_command(tmp_path, run, monkeypatch, capsys):
    script = Path(shutil.copy(CARDS / "render.py", tmp_path))
    write(tmp_path / "one", results=RESULTS | {"run": run})
    write(tmp_path / "untrained", results={})

    def render(*options):
        monkeypatch.setattr(sys, "argv", ["render.py", *options])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(script), run_name="__main__")
        return end.value.code, capsys.readouterr().out.splitlines()

    untrained = "untrained: no results yet, so it has no card."
    assert render("--check") == (1, [untrained, "Out of date: one"])
    assert not (tmp_path / "one" / "README.md").exists()
    assert render() == (0, [untrained, "Written: one"])
    assert (tmp_path / "one" / "README.md").read_text(encoding="utf-8") == render_card(tmp_path / "one")
    assert not (tmp_path / "untrained" / "README.md").exists()
    assert render("--check") == (0, [untrained, "Out of date: nothing"])
    write(tmp_path / "one", facts=FACTS | {"title": "Another"}, results={})
    assert render("--check") == (1, [untrained, "Out of date: one"])
    (tmp_path / "one" / "results" / "perplexity.json").unlink()
    assert "the card lacks results/perplexity.json" in render()[0]


# ---- what a card says


def test_a_card_parses_and_its_index_holds_the_perplexities(card):
    data = ModelCard(render_card(card)).data
    assert data.license == "apache-2.0"
    assert data.language == ["en", "la"]
    assert data.library_name == "transformers"
    assert data.model_name == "elmo-test"
    found = {
        (one.dataset_name, one.metric_name.split(", ")[1]): one.metric_value for one in data.eval_results
    }
    assert found == {
        ("valid.books", "mean"): 111.5,
        ("valid.books", "forward"): 110.0,
        ("valid.books", "backward"): 113.25,
        ("valid.wiki", "mean"): 222.25,
        ("valid.wiki", "forward"): 220.75,
        ("valid.wiki", "backward"): 224.0,
    }
    assert all("zero states, full softmax" in one.metric_name for one in data.eval_results)


@pytest.mark.parametrize(
    "row",
    [
        "| valid.books | this model | zero | 110.0 | 113.2 | 111.5 | 111.6 | 111,500 | 1.11% |",
        "| valid.books | 5-gram, Kneser-Ney | zero | 154.2 | 157.5 | 155.8 | 155.9 | 155,750 | 1.56% |",
        "| valid.wiki | this model | zero | 220.8 | 224.0 | 222.2 | 222.4 | 222,250 | 2.22% |",
        "| 512 / 64 | 1,234,567 | 4,321 | 177.5 |",
        "| probe | metric | layer 0 | layer 1 | layer 2 | random | first |",
        "| word sense | F1 | 0.5100 | 0.6200 | 0.6300 | 0.3100 | 0.6400 |",
        "| part of speech | accuracy | 0.9100 | 0.9200 | 0.9300 | 0.8100 | – |",
        "| law | 411.5 | 311.5 |",
        "| learning rate | 0.21 |",
        "| valid.books | zero | 132.0 | 135.2 | 133.5 | 133.6 | 133,500 | 1.33% |",
        "| LSTM cells, a direction | 16 |",
        "| filters over letters | 4 of width 1, 8 of width 2 |",
        "| of them in the softmax | 81 |",  # 9 words, 8 weights and a bias
        "Hours each: 0.2500.",
        "shapes one",
        "- It is not trained.",
        "- Made-up text (public domain): Sentences by a grammar.",
        "This model is by A. Nobody, B. Nobody.",
        "accelerate launch training/pretrain.py --data books.txt",
    ],
)
def test_lines_of_a_card(card, row):
    assert row in render_card(card).split("\n")


def test_the_run_is_told_in_words(card):
    text = " ".join(render_card(card).split())
    assert (
        "7,654,123 words, a direction, in 1,017 updates (1.270 readings of the text), in 3.190 hours" in text
    )
    assert "work on EPYC, 2 cores: 4,117 words a second." in text
    assert "taken up again 2 times" in text
    assert "ended before" not in text


def test_every_number_of_the_results_reaches_the_card(card):
    """Another number in a JSON is another card: the test above would see it."""
    before, unseen = render_card(card), []
    for name, content in (RESULTS | {"run": RUN}).items():
        path = card / "results" / f"{name}.json"
        original = json.loads(path.read_text(encoding="utf-8"))
        for place in numbers_in(content):
            changed = copy.deepcopy(original)
            part = changed
            for key in place[:-1]:
                part = part[key]
            part[place[-1]] = 3 * part[place[-1]] + 1
            path.write_text(json.dumps(changed), encoding="utf-8")
            if render_card(card) == before:
                unseen.append(".".join(map(str, (name, *place))))
        path.write_text(json.dumps(original), encoding="utf-8")
    # A perplexity's `sentences` has no column; a table of other results shows the mean of both directions.
    assert all(name.endswith(".sentences") or name.startswith("domain.law.") for name in unseen), unseen
    assert not [name for name in unseen if name.endswith(".mean")]


def numbers_in(content, place=()):
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from numbers_in(value, (*place, key))
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield place


def test_the_python_lines_of_a_card_work(card, checkpoint, monkeypatch):
    """With the folder in place of the name on the Hub."""
    blocks = re.findall(r"^```python\n(.*?)^```", render_card(card, repo=str(checkpoint)), re.M | re.S)
    names: dict = {}
    for block in blocks:
        exec(compile(block, "card", "exec"), names)
    assert len(blocks) == 1
    assert names["output"].last_hidden_state.shape == (2, 6, 16)
    assert len(names["output"].hidden_states) == 3


def test_the_commands_of_a_card_work(card, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("corpus.txt", "held-out.txt"):
        Path(name).write_text("He sat on the bank .\nHe sat .\n", encoding="utf-8")
    usage = render_card(card, repo=str(checkpoint)).split("## Data")[0]
    lines = [
        line
        for block in re.findall(r"^```shell\n(.*?)^```", usage, re.M | re.S)
        for line in block.splitlines()
    ]
    assert [line.split()[1] for line in lines] == ["vectors", "embed", "perplexity"]
    for line in lines:
        words = re.findall(r'"[^"]*"|\S+', line)[1:]
        found = CliRunner().invoke(app, [word.strip('"') for word in words])
        assert found.exit_code == 0, found.output


# ---- holes


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_fact_is_named(card, name):
    write(card, facts={key: value for key, value in FACTS.items() if key != name}, results={})
    with pytest.raises(ValueError, match=rf"^the card lacks '{name}'; say it in .*facts\.yaml\.$"):
        write_card(card)
    assert not (card / "README.md").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": ""}, "title must be a text, but is ''"),
        ({"title": None}, "title must be a text, but is None"),
        ({"summary": "TODO"}, "summary has a hole: 'TODO'; fill it first"),
        ({"summary": "It is [More Information Needed]."}, "has a hole"),
        ({"limits": []}, "limits must be a list of texts"),
        ({"limits": "none"}, "limits must be a list of texts"),
        ({"languages": [None]}, "languages must be a text"),
        ({"kind": "great"}, "kind must be base, task, converted, but is 'great'"),
        ({"autors": ["me"]}, "autors is no fact of a card; there are kind, name"),
        ({"data": [{"name": "x", "licence": "y"}]}, "data, text 1 lacks 'description'"),
        ({"data": [FACTS["data"][0] | {"words": "7"}]}, "data, text 1 has 'words', but only name"),
        ({"data": ["x"]}, "data, text 1 must have name, licence, description"),
        ({"kind": "task"}, "config.json names no class with a head"),
        ({"kind": "converted"}, "the card lacks 'source'; say it in"),
        ({"commands": "x"}, "commands must be `result: command` lines"),
    ],
)
def test_facts_that_are_wrong(card, changes, message):
    write(card, facts=FACTS | changes, results={})
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        write_card(card)
    assert str(error.value).endswith(".")
    assert not (card / "README.md").exists()


@pytest.mark.parametrize("text", ["- a\n- b\n", "", "a: [", "\xff"])
def test_facts_that_are_none(card, text):
    (card / "facts.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"facts\.yaml (is no YAML|must hold)"):
        write_card(card)
    (card / "facts.yaml").unlink()
    with pytest.raises(ValueError, match=r"there is no .*facts\.yaml; a card needs"):
        write_card(card)


@pytest.mark.parametrize(
    ("missing", "message"),
    [("perplexity", "the card lacks results/perplexity.json"), ("run", "no results/run.json tells what")],
)
def test_a_missing_result_is_named(card, missing, message):
    (card / "results" / f"{missing}.json").unlink()
    with pytest.raises(ValueError, match=re.escape(message)):
        write_card(card)


def test_a_checkpoint_without_its_run(checkpoint, tmp_path):
    write(tmp_path / "card")
    with pytest.raises(
        ValueError, match=r"lacks results/run\.json, which `python training/summarize_run\.py"
    ):
        render_card(checkpoint, tmp_path / "card" / "facts.yaml", tmp_path / "card" / "results")


@pytest.mark.parametrize("name", ["command", "settings", "hours", "words", "machine"])
def test_a_run_that_lacks_something(card, run, name):
    write(card, results={"run": {key: value for key, value in run.items() if key != name}})
    with pytest.raises(ValueError, match=rf"results/run\.json lacks '{name}'"):
        render_card(card)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('{"mean": NaN}', "NaN is no number"),
        ("3", "holds no results"),
        ("{}", "holds no results"),
        ('{"command": "x", "mean": 3}', "has no entry with forward, backward, mean"),
    ],
)
def test_results_that_are_none(card, text, message):
    (card / "results" / "perplexity.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(message)):
        render_card(card)


def test_a_result_needs_its_command(card):
    """In the JSON, or in the facts by the file's name: `elmo-hf perplexity --json` tells none."""
    write(card, results={"perplexity-valid.txt": perplexity(99.0)})
    with pytest.raises(ValueError, match=r"results/perplexity-valid\.txt\.json has no command"):
        render_card(card)
    write(card, facts=FACTS | {"commands": {"perplexity": "elmo-hf perplexity --json"}}, results={})
    text = render_card(card)
    assert "\nelmo-hf perplexity --json\n" in text
    assert "| valid | this model | zero | 97.50 |" in text


def test_a_run_of_another_model(checkpoint, tmp_path, run):
    other = copy.deepcopy(run)
    other["model"]["config"]["lstm_dim"] = 17
    write(tmp_path / "card", results=RESULTS | {"run": other})
    with pytest.raises(ValueError, match=r"run\.json is of a model with lstm_dim 17, but .* has 16"):
        render_card(checkpoint, tmp_path / "card" / "facts.yaml", tmp_path / "card" / "results")


def test_only_what_the_command_wrote_is_overwritten(card):
    path = write_card(card)
    first = path.read_text(encoding="utf-8")
    assert write_card(card) == path
    assert path.read_text(encoding="utf-8") == first
    path.write_text("# Mine\n", encoding="utf-8")
    with pytest.raises(ValueError, match="was not written by this command"):
        write_card(card)
    assert path.read_text(encoding="utf-8") == "# Mine\n"
    assert sorted(one.name for one in card.iterdir()) == ["README.md", "facts.yaml", "results"]
    with pytest.raises(ValueError, match="there is no folder"):
        write_card(card, output=card / "nowhere" / "README.md")


# ---- the other kinds


def test_a_converted_original(checkpoint, tmp_path):
    folder = tmp_path / "converted"
    tokenizer = ElmoTokenizer.from_pretrained(checkpoint)
    ElmoModel.from_pretrained(checkpoint).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    source = {"title": "Their ELMo", "url": WEB, "authors": ["C. Else"], "licence": "CC BY 4.0"}
    write(folder, FACTS | {"kind": "converted", "source": source, "citation": "@misc{else}"}, {})
    with pytest.raises(ValueError, match=r"lacks results/source\.json, which `elmo-hf card FOLDER --source"):
        render_card(folder)
    original = tmp_path / "weights.hdf5"
    original.write_bytes(b"weights")
    found = CliRunner().invoke(app, ["card", str(folder), "--source", str(original)])
    assert found.exit_code == 0, found.output
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert f"| weights.hdf5 | 7 | `{hashlib.sha256(b'weights').hexdigest()}` |" in text
    assert f"[Their ELMo]({WEB}) by C. Else" in text
    assert "The original's licence: CC BY 4.0." in text
    assert "elmo-hf convert weights.hdf5 elmo-test/" in text
    assert "```bibtex\n@misc{else}\n```" in text
    assert "Perplexity" not in text
    assert ModelCard(text).data.eval_results is None
    write(folder, FACTS | {"kind": "converted", "source": source}, {"perplexity": RESULTS["perplexity"]})
    assert "| valid.books | this model | zero | 110.0 |" in render_card(folder)
    found = CliRunner().invoke(app, ["card", str(folder), "--source", "nowhere"])
    assert found.stderr == "elmo-hf: there is no file nowhere among the sources.\n"


def test_a_task_model(checkpoint, tmp_path):
    """Of the config alone: the heads have cards before this test knows them."""
    folder = tmp_path / "task"
    ElmoModel.from_pretrained(checkpoint).save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["auto_map"]["AutoModelForTokenClassification"] = "modeling_elmo_tagging.ElmoForTokenClassification"
    config["architectures"] = ["ElmoForTokenClassification"]
    config["id2label"] = {"0": "O", "1": "B-PER"}
    config["label2id"] = {"O": 0, "B-PER": 1}
    path.write_text(json.dumps(config), encoding="utf-8")
    facts = FACTS | {"kind": "task", "base_model": "someone/elmo-tiny"}
    write(folder, facts, {})
    with pytest.raises(ValueError, match=r"the card lacks results/evaluation\.json"):
        render_card(folder)
    figures = {"dataset": "WNUT 17", "split": "test", "metrics": {"f1": 0.4321}, "command": "evaluate"}
    recipe = {
        "mean": {"dev": {"f1": 0.8123, "f1_deviation": 0.0034}, "test": {"f1": 0.7654}},
        "command": "go",
    }
    trainer = {"eval_accuracy": 0.9876, "eval_runtime": 3.5, "epoch": 3.0, "command": "train"}
    write(folder, facts, {"evaluation": figures, "evaluation-EWT": trainer, "evaluation-NER": recipe})
    text = render_card(folder)
    assert "| WNUT 17 | test | f1 | 0.4321 |" in text
    assert "| EWT | – | accuracy | 0.9876 |" in text
    assert "| NER | dev | f1 deviation | 0.0034 |" in text
    assert "| NER | test | f1 | 0.7654 |" in text
    assert "3.5" not in text
    assert "Labels: `O`, `B-PER`." in text
    assert 'pipeline("token-classification", model="someone/elmo-test", trust_remote_code=True)' in text
    data = ModelCard(text).data
    assert data.pipeline_tag == "token-classification"
    assert data.base_model == "someone/elmo-tiny"
    found = {(one.dataset_name, one.metric_type): one.metric_value for one in data.eval_results}
    assert found.pop(("NER", "f1-deviation")) == 0.0034
    assert found == {("WNUT 17", "f1"): 0.4321, ("EWT", "accuracy"): 0.9876, ("NER", "f1"): 0.7654}
    config["architectures"] = [
        "ElmoForSemanticRoleLabeling"
    ]  # which token classification does not know to ask
    path.write_text(json.dumps(config), encoding="utf-8")
    text = render_card(folder)
    assert "pipeline(" not in text
    assert "from transformers import AutoModelForTokenClassification, AutoTokenizer" in text


# ---- small things


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[
            (7, "7"),
            (1234567, "1,234,567"),
            (0.0, "0.0000"),
            (0.5, "0.5000"),
            (1.0, "1.000"),
            (12.375, "12.38"),
        ],
        *[(999.96, "1000.0"), (1234.6, "1,235"), (-3.25, "-3.250"), (0.00012, "0.00012")],
    ],
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    "content",
    [
        [{"shape": "a", "words_per_second": 3}, {"shape": "b", "words_per_second": 4}],
        {"rows": [{"shape": "a", "words_per_second": 3}, {"shape": "b", "words_per_second": 4}]},
        {"a": {"words_per_second": 3}, "b": {"words_per_second": 4}, "command": "x"},
        {"shapes": {"a": {"words_per_second": 3}, "b": {"words_per_second": 4}}},
    ],
)
def test_rows_by_any_form(content):
    assert table(content, "shape") == "| shape | words/s |\n| --- | ---: |\n| a | 3 |\n| b | 4 |"


def test_what_the_probes_write():
    """As benchmarks/probes.py does, whose counts and comparisons stay out of the card."""
    senses = {
        "first sense": {"senseval2": 63.1, "all": 60.5},
        "trained, layer 1": {"senseval2": 65.2, "all": 62.0},
    }
    tags = {
        kind: {"trained, layer 1": {"dev": 90.0, "test": value, "epoch": 3}}
        for kind, value in (("upos", 91.5), ("xpos", 92.25))
    }
    probes = {
        "senses": {"f1": senses, "counts": {"words": 7}, "paper": {"layer 1": 67.4}},
        "tags": {"accuracy": tags, "counts": {"words": {"test": 7}}},
        "neighbours": {"bank": ["river"]},
    }
    assert probe_table({"probes": probes, "seed": 0, "shape": {"lstm_dim": 7}}).splitlines() == [
        "| word senses, F1 | senseval2 | all |",
        "| --- | ---: | ---: |",
        "| first sense | 63.10 | 60.50 |",
        "| trained, layer 1 | 65.20 | 62.00 |",
        "",
        "| tags, accuracy on test | upos | xpos |",
        "| --- | ---: | ---: |",
        "| trained, layer 1 | 91.50 | 92.25 |",
    ]
    with pytest.raises(ValueError, match=r"is not as benchmarks/probes\.py writes it"):
        probe_table({"probes": {"tags": {"accuracy": {"upos": {"x": {"dev": 1}}}}}})


def test_a_table_cannot_be_broken_by_its_words():
    assert "| a \\| b c | 3 |" in table([{"name": "a | b\nc", "x": 3}], "name")
    with pytest.raises(ValueError, match="there is no number in the results of the shapes"):
        table({"a": {"b": "c"}}, "shape")


@pytest.mark.parametrize(
    "content", [b"", b"1234567", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", b"\x03" + b"\0" * 7]
)
def test_weights_that_are_none(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no safetensors file"):
        tensor_shapes(path)


def test_describing_loads_no_weight(checkpoint):
    found = describe_model(checkpoint)
    model = ElmoForPreTraining.from_pretrained(checkpoint)
    assert found["parameters"] == model.num_parameters()
    assert found["hidden_size"] == 16
    content = (checkpoint / "model.safetensors").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    assert found["files"] == {"model.safetensors": {"bytes": len(content), "sha256": sha256}}


def test_the_command_says_what_is_wrong_in_one_sentence(tmp_path):
    found = CliRunner().invoke(app, ["card", str(tmp_path / "nowhere")])
    assert found.exit_code == 1
    assert found.stderr.startswith("elmo-hf: there is no folder")
    assert len(found.stderr.splitlines()) == 1
