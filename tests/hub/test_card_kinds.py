"""The cards of converted originals and of models with a task's head."""

import hashlib
import json
import re

import pytest
from huggingface_hub import ModelCard
from transformers import pipeline
from typer.testing import CliRunner

from elmo_hf import ElmoForCoreferenceResolution, ElmoForSequenceClassification, ElmoModel, ElmoTokenizer
from elmo_hf.cli import app
from elmo_hf.hub.card import render_card
from tests.helpers.card_folders import FACTS, RESULTS, save_checkpoint, write

WEB = "https://example.org/elmo"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "elmo-test")


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
    result = CliRunner().invoke(app, ["card", str(folder), "--source", str(original)])
    assert result.exit_code == 0, result.output
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
    result = CliRunner().invoke(app, ["card", str(folder), "--source", "nowhere"])
    assert result.stderr == "elmo-hf: there is no file nowhere among the sources.\n"


def test_a_task_model(checkpoint, tmp_path):
    """Made of the config alone: a card does not depend on the head's code."""
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
    write(folder, FACTS | {"kind": "task"}, {})
    with pytest.raises(ValueError, match=r"the card lacks 'base_model'; say it in .*facts\.yaml\."):
        render_card(folder)
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


def task_folder(checkpoint, folder, head):
    """A saved head, with the facts of a card."""
    config = ElmoModel.from_pretrained(checkpoint).config
    config.task_word_dim, config.classifier = 4, "esim" if head is ElmoForSequenceClassification else "bcn"
    head(config).save_pretrained(folder)
    ElmoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
    figures = {"dataset": "LitBank", "split": "test", "metrics": {"f1": 0.5}, "command": "evaluate"}
    write(folder, FACTS | {"kind": "task", "base_model": "someone/elmo-tiny"}, {"evaluation": figures})
    return folder


def test_a_coreference_model_is_loaded_by_the_class_it_is_saved_for(checkpoint, tmp_path):
    text = render_card(task_folder(checkpoint, tmp_path / "task", ElmoForCoreferenceResolution))
    assert "from transformers import AutoModel, AutoTokenizer" in text
    assert "pipeline(" not in text


def test_a_classifier_of_pairs_is_shown_with_a_pair(checkpoint, tmp_path):
    folder = task_folder(checkpoint, tmp_path / "task", ElmoForSequenceClassification)
    text = render_card(folder)
    call = re.search(r"^.*reader\((.*)\).*$", text, re.MULTILINE)[1]
    reader = pipeline("text-classification", model=str(folder), tokenizer=str(folder))
    assert {"label", "score"} == set(reader(json.loads(call)))
