"""A converted model of every family is used as any other: fast code, a head, a stored mix, `embed`, ONNX,
upload, and remote code without the package."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import elmo_hf
from elmo_hf import ElmoForPreTraining, ElmoForTokenClassification, ElmoModel, ElmoTokenizer, kernels
from elmo_hf.convert import convert, convert_to_bilm
from elmo_hf.errors import ElmoError
from elmo_hf.hub.push import prepare
from elmo_hf.pretraining.perplexity import perplexity
from tests.helpers.allennlp_files import bilm_weights, packed_state, state_of, write_archive
from tests.helpers.bilm_files import write_source
from tests.helpers.naive_manylangs import content, write_folder
from tests.helpers.reference import options
from tests.helpers.tensor_bundles import write_module, write_training_folder

SENTENCES = [["Der", "Bär", "lief", "."], ["a"], ["🙂", "x" * 60, "Der"]]


def hdf5(place: Path) -> list[Path]:
    return [write_source(place / "source", options(), softmax=True)]


def one_layer(place: Path) -> list[Path]:
    """bilm-tf's dump of a single layer, under other names."""
    source = write_source(place / "source", options(n_layers=1))
    with h5py.File(source / "weights.hdf5", "r+") as file:
        for direction in ("RNN_0/RNN", "RNN_1/RNN"):
            file.move(f"{direction}/MultiRNNCell/Cell0/LSTMCell", f"{direction}/LSTMCell")
            del file[f"{direction}/MultiRNNCell"]
    return [source]


def tensorflow(place: Path) -> list[Path]:
    source = write_training_folder(place / "source", options(), vocab_size=8)
    words = write_source(place / "words", options(), softmax=True) / "vocab.txt"
    return [source, words]


def savedmodel(place: Path) -> list[Path]:
    return [write_module(place / "source", options())]


def archive(place: Path) -> list[Path]:
    state = state_of(bilm_weights(options(), seed=0), mixes=[(0.5, -1, 2, 1.5), (0, 1, 0, 0.5)])
    return [write_archive(place / "model.tar.gz", {"weights.th": packed_state(state), "config.json": "{}"})]


def manylangs(place: Path) -> list[Path]:
    return [write_folder(place / "source", content(), classifier=True)]


FAMILIES: list[Callable[[Path], list[Path]]] = [hdf5, one_layer, tensorflow, savedmodel, archive, manylangs]
HAS_SOFTMAX, MIXES = {"hdf5", "tensorflow", "manylangs"}, {"savedmodel": 1, "archive": 2}


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.__name__)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The family's name, and a converted model."""
    place = tmp_path_factory.mktemp(request.param.__name__)
    convert(request.param(place), place / "elmo")
    return request.param.__name__, place / "elmo"


def batch_of(folder: Path):
    tokenizer = ElmoTokenizer.from_pretrained(folder)
    return tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")


@torch.no_grad()
def layers_of(folder: Path) -> list[np.ndarray]:
    """All layers of each sentence, (layers, words, dim)."""
    output = ElmoModel.from_pretrained(folder).eval()(**batch_of(folder), output_hidden_states=True)
    stacked = torch.stack(output.hidden_states, dim=1)
    return [rows[:, : len(words)].numpy() for rows, words in zip(stacked, SENTENCES, strict=True)]


def test_fast_code_gives_the_same_vectors(family, default_kernels) -> None:
    fast = layers_of(family[1])
    kernels.use("readable")
    for ours, readable in zip(fast, layers_of(family[1]), strict=True):
        np.testing.assert_allclose(ours, readable, atol=1e-5)


def test_a_tagger_on_it_learns(family) -> None:
    torch.manual_seed(0)
    sizes = {"num_labels": 3, "task_hidden_size": 4}
    model = ElmoForTokenClassification.from_pretrained(family[1], **sizes).train()
    before = {name: weight.clone() for name, weight in model.named_parameters() if weight.requires_grad}
    batch = batch_of(family[1])
    labels = torch.where(batch["attention_mask"].bool(), 1, -100)
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=0.05)
    model(**batch, labels=labels).loss.backward()
    optimizer.step()
    same = [
        name for name, weight in model.named_parameters() if name in before and weight.equal(before[name])
    ]
    assert same == []
    assert not any(weight.grad is not None for weight in model.elmo.parameters())


def test_a_stored_mix(family) -> None:
    name, folder = family
    model = ElmoModel.from_pretrained(folder)
    assert model.config.num_mixes == MIXES.get(name, 0)
    if model.scalar_mix is None:
        return
    layers = [torch.ones(1, 1, 4) * number for number in range(model.config.num_hidden_layers + 1)]
    mixed = model.scalar_mix(layers)
    for number, mix in enumerate(mixed if isinstance(mixed, tuple) else [mixed]):
        weights, gamma = model.scalar_mix.weights[number].numpy(), model.scalar_mix.gamma[number].item()
        shares = np.exp(weights) / np.exp(weights).sum()
        np.testing.assert_allclose(mix, gamma * (shares * np.arange(len(shares))).sum(), rtol=1e-5)


def test_embed_gives_the_models_layers(family, tmp_path) -> None:
    vectors = elmo_hf.embed(SENTENCES, tmp_path / "out", family[1], layers="all", progress=False)
    for embedded, layers in zip(vectors, layers_of(family[1]), strict=True):
        np.testing.assert_allclose(embedded.vectors, layers, atol=1e-5)


def test_perplexity_where_there_is_a_softmax(family) -> None:
    name, folder = family
    architecture = json.loads((folder / "config.json").read_text())["architectures"]
    assert architecture == ["ElmoForPreTraining" if name in HAS_SOFTMAX else "ElmoModel"]
    if name in HAS_SOFTMAX:
        model = ElmoForPreTraining.from_pretrained(folder).eval()
        tokenizer = ElmoTokenizer.from_pretrained(folder)
        result = perplexity(model, SENTENCES, tokenizer)
        with torch.no_grad():
            output = model(**batch_of(folder))
        assert result.forward_loss == pytest.approx(output.forward_loss.item(), rel=1e-5)
        assert result.backward_loss == pytest.approx(output.backward_loss.item(), rel=1e-5)


def test_onnx(family, tmp_path) -> None:
    pytest.importorskip("onnx", reason="the export needs `elmo-hf[export]`")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the export needs `elmo-hf[export]`")
    from elmo_hf.export.onnx import export_onnx

    export_onnx(family[1], tmp_path / "onnx", layers="all")
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"))
    batch = {name: tensor.numpy() for name, tensor in batch_of(family[1]).items()}
    outputs = session.run(None, {node.name: batch[node.name] for node in session.get_inputs()})
    for row, layers in enumerate(layers_of(family[1])):
        actual = np.stack([output[row, : layers.shape[1]] for output in outputs])
        np.testing.assert_allclose(actual, layers, atol=1e-5)


@torch.no_grad()
def test_the_way_back_to_bilm_is_the_same_model_or_refused(family, tmp_path, caplog) -> None:
    name, folder = family
    if name == "manylangs":
        with pytest.raises(ElmoError, match=r"stacked in each direction|letters of its own"):
            convert_to_bilm(folder, tmp_path / "back")
        assert list(tmp_path.iterdir()) == []
        return
    with caplog.at_level(logging.WARNING, "elmo_hf"):
        back = convert_to_bilm(folder, tmp_path / "back")
    assert ("the trained mix of its layers" in caplog.text) == (name in MIXES)
    convert([back], tmp_path / "again")
    for ours, same in zip(layers_of(folder), layers_of(tmp_path / "again"), strict=True):
        np.testing.assert_array_equal(ours, same)


def test_an_upload_has_all_that_loads(family) -> None:
    folder = family[1]
    facts = (folder / "facts.yaml").read_text(encoding="utf-8")
    assert "kind: converted" in facts
    filled = re.sub(r"(url: )TODO .*", r"\1https://example.org/elmo", facts).replace("TODO ", "")
    filled = re.sub(r"languages: .*", "languages: [en]", filled)
    filled = re.sub(r"licence: .*", "licence: apache-2.0", filled)
    (folder / "facts.yaml").write_text(filled, encoding="utf-8")
    files = prepare(folder, "someone/elmo").files
    (folder / "facts.yaml").write_text(facts, encoding="utf-8")
    needed = {"config.json", "model.safetensors", "modeling_elmo.py", "encoders_elmo.py", "README.md"}
    assert needed <= files.keys()
    assert ("letters.json" in files) == (folder / "letters.json").exists()


REMOTE = """
    import sys
    import json
    from transformers import AutoModel, AutoTokenizer
    folder, sentences = sys.argv[1], json.loads(sys.argv[2])
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    batch = tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt")
    print(json.dumps([layer.tolist() for layer in model(**batch, output_hidden_states=True).hidden_states]))
"""


def test_remote_code_without_the_package(family, fork_server) -> None:
    layers = fork_server.run_without_the_package(REMOTE, family[1], json.dumps(SENTENCES))
    for row, expected in enumerate(layers_of(family[1])):
        actual = np.stack([np.array(layer[row])[: expected.shape[1]] for layer in layers])
        np.testing.assert_allclose(actual, expected, atol=1e-5)
