"""Uploads that are refused before anything is sent or fail on the way; the state of the Hub afterwards."""

import json

import pytest
import torch
from huggingface_hub import constants

import elmo_hf.hub.push
from elmo_hf import ElmoForPreTraining, ElmoModel
from elmo_hf.hub.push import push
from tests.helpers.card_folders import FACTS, write
from tests.helpers.hub_folders import NAME, edit, refused

# huggingface_hub sends a file by an option of its HTTP library that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


# ---- refused before anything is sent


def spoil_weights(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])


def spoil_config(folder):
    edit(folder / "config.json", lstm_dim=32)


def without(name, key):
    """Remove one class from the auto_map."""

    def spoil(folder):
        found = json.loads((folder / name).read_text(encoding="utf-8"))["auto_map"]
        edit(folder / name, auto_map={other: value for other, value in found.items() if other != key})

    return spoil


def spoil_head(folder):
    edit(folder / "config.json", architectures=["ElmoForPoetry"])


def spoil_numbers(folder):
    model = ElmoForPreTraining.from_pretrained(folder)
    torch.nn.init.constant_(next(iter(model.elmo.layers.parameters())), float("nan"))
    model.save_pretrained(folder)


def spoil_length(folder):
    edit(folder / "tokenizer_config.json", max_characters_per_token=40)


def spoil_head_weights(folder):
    """A language model's config, and weights without the softmax."""
    config = (folder / "config.json").read_bytes()
    ElmoModel.from_pretrained(folder).save_pretrained(folder)
    (folder / "config.json").write_bytes(config)


def remove(name):
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_weights, "are damaged: model.safetensors is no safetensors file"),
        (spoil_config, "does not load: "),
        (without("config.json", "AutoModel"), "config.json has no AutoModel in its auto_map; save it with"),
        (without("config.json", "AutoConfig"), "config.json has no AutoConfig in its auto_map; save it with"),
        (without("tokenizer_config.json", "AutoTokenizer"), "has no AutoTokenizer in its auto_map; save it"),
        (spoil_head, "names no Auto class for ElmoForPoetry in its auto_map"),
        (spoil_head_weights, "does not load: its weights do not fit its config, as lm_head."),
        (spoil_numbers, "has weights that are no numbers, as elmo.layers.0."),
        (remove("config.json"), "holds no model: it has no config.json"),
        (remove("model.safetensors"), "has no model.safetensors; save the model with save_pretrained."),
        (remove("vocab.txt"), "has a model of 9 words, and a tokenizer of 3"),
        (spoil_length, "max_characters_per_token 50 and a tokenizer with 40; save them as one"),
        (remove("tokenizer_config.json"), "tokenizer_config.json has no AutoTokenizer"),
        (remove("words_elmo.py"), "lacks words_elmo.py, which its model needs"),
        (remove("modeling_elmo.py"), "lacks modeling_elmo.py, which its model needs"),
        (remove("facts.yaml"), "has no card: write facts.yaml"),
        (remove("results/perplexity.json"), "the card lacks results/perplexity.json"),
        (lambda f: (f / "README.md").write_text("# Old"), "README.md is not what its facts and results give"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_refused_before_anything_is_sent(hub, folder, spoil, message):
    spoil(folder)
    assert message in refused(folder)
    assert hub.requests == []


@pytest.mark.parametrize(
    "text", ["# No metadata\n", "---\nlicense: mit\n---\n[More Information Needed]\n", "---\na: [\n---\n"]
)
def test_a_readme_with_missing_fields(hub, folder, text):
    (folder / "facts.yaml").unlink()
    (folder / "README.md").write_text(text, encoding="utf-8")
    assert "the card of" in refused(folder)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["elmo", "a/b/c", "some one/elmo", "someone/--elmo", ""])
def test_invalid_names(hub, folder, name):
    sentence = refused(folder, name)
    assert "is no name on the Hub" in sentence or "as ORG/NAME" in sentence
    assert hub.requests == []


def test_no_credentials(hub, folder, monkeypatch):
    monkeypatch.setattr(elmo_hf.hub.push, "get_token", lambda: None)
    assert refused(folder) == "there are no credentials for the Hub; run `hf auth login`, or set HF_TOKEN."
    assert hub.requests == []


# ---- failures on the way


def test_an_unknown_token(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "guessed")
    assert "does not accept your token" in refused(folder)
    assert hub.repositories == {}


def test_no_rights(hub, folder, monkeypatch):
    push(folder, NAME)
    monkeypatch.setenv("HF_TOKEN", "guest")
    before = len(hub.repositories[NAME].commits)
    edit(folder / "results" / "shapes.json", minutes=7)
    sentence = refused(folder, overwrite_card=True)
    assert sentence == f"your token has no right to write to {NAME}; nothing was uploaded."
    assert len(hub.repositories[NAME].commits) == before
    assert "no right to write to elsewhere/elmo" in refused(folder, "elsewhere/elmo")
    assert list(hub.repositories) == [NAME]


def test_a_private_repository_of_somebody_else(hub, folder, monkeypatch):
    """It looks as if it did not exist, and it cannot be made."""
    push(folder, NAME, private=True)
    monkeypatch.setenv("HF_TOKEN", "guest")
    assert "no right to write to" in refused(folder)


def test_a_connection_that_is_cut_once(hub, folder):
    hub.cut_uploads = 1
    push(folder, NAME)
    assert hub.files(NAME)["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_a_connection_that_stays_cut(hub, folder):
    hub.cut_uploads = 1000
    sentence = refused(folder)
    assert sentence.startswith(f"the connection to {hub.url} failed (")
    assert sentence.endswith(f" The repository {NAME} was made for it.")
    assert list(hub.files(NAME)) == [".gitattributes"]
    assert hub.stored == {}
    hub.cut_uploads = 0
    push(folder, NAME)
    before = dict(hub.files(NAME))
    model = ElmoForPreTraining.from_pretrained(folder)
    torch.nn.init.ones_(next(model.parameters()))
    model.save_pretrained(folder)
    hub.cut_uploads = 1000
    sentence = refused(folder)
    assert sentence.endswith(f"so look at {NAME}, and try again.")
    assert hub.files(NAME) == before


def test_no_hub_at_all(hub, folder, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert refused(folder).startswith("the connection to http://127.0.0.1:9 failed (")


def test_an_upload_that_fails_in_some_other_way(hub, folder, monkeypatch):
    """As the library of the Xet storage reports it."""
    push(folder, NAME)
    edit(folder / "results" / "shapes.json", minutes=7)

    def fail(*_, **__):
        raise RuntimeError("no room\nfor this")

    monkeypatch.setattr("huggingface_hub.HfApi.preupload_lfs_files", fail)
    sentence = refused(folder, overwrite_card=True)
    assert sentence.startswith(
        f"the upload to {hub.url} failed (no room); a commit is made whole or not at all"
    )


def test_somebody_elses_commit_in_between(hub, folder):
    push(folder, NAME)
    edit(folder / "results" / "shapes.json", minutes=7)
    hub.before_commit = lambda: hub.commit(NAME, {"theirs.txt": b"1"})
    sentence = refused(folder, overwrite_card=True)
    assert (
        sentence
        == f"{NAME} was changed in the meantime, and nothing was uploaded; look at it, and try again."
    )
    assert hub.files(NAME)["theirs.txt"] == b"1"
    assert b'"minutes": 7' not in hub.files(NAME)["results/shapes.json"]


@pytest.mark.parametrize(
    "part", ["/preupload/", "/commit/", "objects/batch", "/lfs/", "/revision/", "/repos/create"]
)
def test_server_errors(hub, folder, part):
    hub.broken = {part: 500}
    sentence = refused(folder)
    assert "the Hub answered 500 (something broke" in sentence
    assert NAME not in hub.repositories or list(hub.files(NAME)) == [".gitattributes"]


def test_metadata_that_the_hub_refuses(hub, folder):
    write(folder, FACTS | {"licence": "no-such"}, {})
    assert refused(folder) == 'Invalid metadata in README.md. - "license" must be known.'
    assert list(hub.files(NAME)) == [".gitattributes"]
