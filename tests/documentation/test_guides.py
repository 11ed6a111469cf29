"""The guides of docs/guides run from top to bottom, and give what they say."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from elmo_hf import ElmoConfig, ElmoModel
from tests.helpers.allennlp_files import (
    Tagger,
    bilm_weights,
    state_of,
    tagger_members,
    training,
    write_archive,
)
from tests.helpers.documents import REPOSITORY, DocumentRunner, write_published
from tests.helpers.naive_manylangs import content, write_folder
from tests.helpers.reference import options
from tests.helpers.tensor_bundles import write_module

GUIDES = REPOSITORY / "docs" / "guides"
# Flags that make the networks of the recipes small.
SMALL = dict.fromkeys(["names", "roles", "pairs", "questions"], "--set task_hidden_size=6 task_num_layers=1")
SMALL["clusters"] = "--set task_hidden_size=6 span_hidden_size=6"
SMALL["without"] = "task_hidden_size=6 task_num_layers=1"  # its command ends with a --set of its own


@pytest.fixture
def guide(tmp_path, monkeypatch, launcher):
    """Run a guide in an empty folder, and return the runner with its variables and the commands that ran."""
    monkeypatch.chdir(tmp_path)

    def guide(name, extra_flags=None, hub=None):
        runner = DocumentRunner(tmp_path, launcher, hub)
        runner.run(GUIDES / name, extra_flags)
        assert runner.skipped == []
        return runner

    return guide


def test_every_guide_is_run_here():
    source = Path(__file__).read_text(encoding="utf-8")
    names = [path.name for path in GUIDES.glob("*.md")]
    assert len(names) == 5
    assert all(f'guide("{name}"' in source for name in names)


def test_vectors(guide):
    names = guide("vectors.md").names
    assert [array.shape for array in names["vectors"]] == [(7, 256), (6, 256), (6, 256)]
    assert names["cosine"](names["river"], names["shore"]) > names["cosine"](names["river"], names["money"])
    similar, other = (names["cosine"](names["array_of_texts"][0], names["array_of_texts"][n]) for n in (1, 2))
    assert similar > other
    assert names["words"] == [["He", "sat", "on", "the", "bank"], ["Why"]]
    assert names["batch"]["input_ids"].shape == (2, 5)


def test_converting(guide, tmp_path):
    """Each published form is made here with random weights."""
    write_published(tmp_path / "published-elmo")
    for name in ("english", "seqvec"):
        shutil.copytree("published-elmo", name)
    write_module(tmp_path / "hub-module", options(), mix=True)
    write_folder(tmp_path / "179", content())
    tagger = Tagger("BIOUL", 16, 3, 1, seed=5, has_ends=True)
    state = {**state_of(bilm_weights(options(), 3), mixes=[(0.5, -1.0, 2.0, 1.5)]), **tagger.state()}
    members = tagger_members(options(), state, training("BIOUL"), tagger.labels)
    write_archive(tmp_path / "model.tar.gz", members)
    names = guide("convert.md").names
    assert np.load("proteins.npz")["insulin"].shape == (24, 16)
    assert np.load("each.npz")["insulin"].shape == (16,)
    assert len(names["before"]) > 10
    for name in ("my-elmo", "my-english", "my-module", "my-tagger", "my-chinese", "my-seqvec"):
        assert ElmoConfig.from_pretrained(name).hidden_size > 0


def test_pretraining(guide):
    runner = guide("pretrain.md")
    log = [json.loads(line) for line in Path("runs/mine/log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert max(line.get("epoch", 0) for line in log) >= 1
    assert Path("runs/mine/log.png").stat().st_size > 1000
    assert runner.names["vectors"][0].shape == (7, 64)
    first = json.loads(Path("runs/two/log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["processes"] == 2
    assert ElmoModel.from_pretrained("runs/law/final").config.lstm_dim == 64


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set:UserWarning")
def test_tasks(guide):
    names = guide("tasks.md", {f"--output runs/{run}": flags for run, flags in SMALL.items()}).names
    runs = sorted(path.parent.name for path in Path("runs").glob("*/results.json"))
    assert runs == sorted(SMALL)
    configs = {run: json.loads(Path("runs", run, "results.json").read_text())["config"] for run in runs}
    assert all(config["task_hidden_size"] == 6 for config in configs.values())
    assert configs["without"]["elmo_at_input"] is False
    assert configs["names"]["elmo_at_input"] is True
    assert names["answerer"].config.model_type == "elmo"


# huggingface_hub uses a deprecated option of its HTTP library to send a file.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_publishing(guide, hub):
    guide("publish.md", hub=hub)
    assert {"README.md", "model.safetensors", "modeling_elmo.py"} <= set(hub.files("someone/my-elmo"))
    assert hub.files("someone/my-elmo")["model.safetensors"] == Path("my-elmo/model.safetensors").read_bytes()
