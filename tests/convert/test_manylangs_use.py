"""What a converted ELMoForManyLangs is used for: Auto classes, heads, embed, perplexity, ONNX, upload."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

import elmo_hf
from elmo_hf import (
    ElmoForPreTraining,
    ElmoForTokenClassification,
    ElmoLayerCache,
    ElmoModel,
    ElmoTokenizer,
    kernels,
)
from elmo_hf.cli import app
from elmo_hf.convert import convert
from elmo_hf.pretraining.perplexity import perplexity
from tests.helpers.card_folders import FACTS
from tests.helpers.naive_manylangs import ManyLangs, content, write_folder

SENTENCES = [["Der", "Bär", "lief", "."], ["今天", "<bos>", "x🙂y"], ["a"], ["donau" * 9 + "abcdef", "Der"]]
VARIANTS = {
    "both": {},
    "letters": {"word_dim": 0},
    "words": {"char_dim": 0},
    "stacked": {"encoder": "lstm"},
}


@pytest.fixture(scope="module", params=VARIANTS)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A converted language model, and its source."""
    place = tmp_path_factory.mktemp("models")
    source = write_folder(place / "source", content(**VARIANTS[request.param]), classifier=True)
    convert([source], place / "elmo")
    return place / "elmo", source


def assert_close(actual: object, expected: object) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), atol=1e-5, rtol=0)


REMOTE = """
    import sys
    import json
    from transformers import AutoModel, AutoTokenizer
    folder, sentences = sys.argv[1], json.loads(sys.argv[2])
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    batch = tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt")
    tokenizer.save_pretrained(sys.argv[3])
    model.save_pretrained(sys.argv[3])
    print(json.dumps([layer.tolist() for layer in model(**batch, output_hidden_states=True).hidden_states]))
"""


def test_without_the_package(models, fork_server, tmp_path) -> None:
    """Loaded where the package cannot be imported, saved there, and loaded so once more."""
    folder, source = models
    sentences, reference = json.dumps(SENTENCES), ManyLangs(source)
    layers = fork_server.run_without_the_package(REMOTE, folder, sentences, tmp_path / "second")
    again = fork_server.run_without_the_package(REMOTE, tmp_path / "second", sentences, tmp_path / "third")
    assert layers == again
    for row, sentence in enumerate(SENTENCES):
        expected = reference.layers(sentence)
        assert_close([layer[row][: len(sentence)] for layer in layers], expected)


def test_saving_changes_nothing(models, tmp_path) -> None:
    folder, _ = models
    tokenizer = ElmoTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(tmp_path)
    for name in ("letters.json", "vocab.txt"):
        assert (tmp_path / name).exists() == (folder / name).exists()
        if (tmp_path / name).exists():
            assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    again = ElmoTokenizer.from_pretrained(tmp_path)
    for sentence in SENTENCES:
        first, second = (x(sentence, is_split_into_words=True) for x in (tokenizer, again))
        assert dict(first) == dict(second)


@pytest.mark.parametrize("layers", ["all", "average", "top"])
@pytest.mark.parametrize("pool", [None, "mean"])
def test_embed(models, tmp_path, layers: str, pool: str | None) -> None:
    folder, source = models
    corpus, reference = tmp_path / "corpus.txt", ManyLangs(source)
    corpus.write_text("".join(" ".join(sentence) + "\n" for sentence in SENTENCES), encoding="utf-8")
    vectors = elmo_hf.embed(corpus, tmp_path / "out", folder, layers=layers, pool=pool, progress=False)
    for sentence, embedded in zip(SENTENCES, vectors, strict=True):
        assert embedded.words == sentence
        expected = reference.layers(sentence)  # (layers, words, dim)
        if layers != "all":
            expected = expected.mean(axis=0) if layers == "average" else expected[-1]
        assert_close(embedded.vectors, expected if pool is None else expected.mean(axis=-2))


@pytest.mark.parametrize("classifier", ["sampled_softmax", "softmax"])
@pytest.mark.parametrize("variant", ["both", "letters", "words"])
def test_perplexity(tmp_path, variant: str, classifier: str) -> None:
    source = write_folder(
        tmp_path / "source", content(classifier=classifier, **VARIANTS[variant]), classifier=True
    )
    convert([source], tmp_path / "elmo")
    model, tokenizer = (x.from_pretrained(tmp_path / "elmo") for x in (ElmoForPreTraining, ElmoTokenizer))
    result = perplexity(model.eval(), SENTENCES, tokenizer)
    reference = ManyLangs(source)
    words = reference.words or {name: x for x, name in enumerate(tokenizer.convert_ids_to_tokens(range(10)))}
    forward, backward = [], []
    for sentence in SENTENCES:
        losses = reference.losses(sentence, words)
        forward += losses[: len(losses) // 2]
        backward += losses[len(losses) // 2 :]
    assert result.tokens == len(forward) == len(backward) == sum(map(len, SENTENCES)) + len(SENTENCES)
    assert_close([result.forward_loss, result.backward_loss], [np.mean(forward), np.mean(backward)])
    batch = tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        assert_close(model(**batch).loss, (np.mean(forward) + np.mean(backward)) / 2)


@pytest.mark.parametrize("layers", ["all", "average"])
def test_onnx(models, tmp_path, layers: str) -> None:
    pytest.importorskip("onnx", reason="the export needs `elmo-hf[export]`")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the export needs `elmo-hf[export]`")
    from elmo_hf.export.onnx import export_onnx

    folder, source = models
    export_onnx(folder, tmp_path / "onnx", layers=layers)
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"))
    tokenizer, reference = ElmoTokenizer.from_pretrained(folder), ManyLangs(source)
    for side in ("right", "left"):
        batch = tokenizer(
            SENTENCES, is_split_into_words=True, padding=True, padding_side=side, return_tensors="np"
        )
        outputs = session.run(None, {node.name: batch[node.name] for node in session.get_inputs()})
        for row, sentence in enumerate(SENTENCES):
            expected = reference.layers(sentence)
            is_word = batch["attention_mask"][row].astype(bool)
            expected = expected if layers == "all" else expected.mean(axis=0, keepdims=True)
            assert_close([output[row][is_word] for output in outputs], expected)


def tagger(folder: Path) -> ElmoForTokenClassification:
    torch.manual_seed(0)
    options = {"num_labels": 3, "task_hidden_size": 6, "elmo_dropout": 0.0, "task_dropout": 0.0}
    return ElmoForTokenClassification.from_pretrained(folder, **options)


def test_a_tagger_learns(models, tmp_path) -> None:
    """On top of the vectors that their code gives, mixed; the biLM stays as it is."""
    folder, source = models
    model, tokenizer = tagger(folder), ElmoTokenizer.from_pretrained(folder)
    batch = tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")
    labels = (torch.arange(batch["input_ids"].numel()) % 3).reshape(batch["input_ids"].shape)
    labels = labels.masked_fill(~batch["attention_mask"].bool(), -100)
    before = {name: x.clone() for name, x in model.elmo.state_dict().items()}
    optimizer = torch.optim.Adam([x for x in model.parameters() if x.requires_grad], lr=0.05)
    losses = []
    for _ in range(15):
        loss = model(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(before[name].equal(x) for name, x in model.elmo.state_dict().items())

    (mix,) = [x for x in model.modules() if isinstance(x, elmo_hf.ElmoScalarMix)]
    assert mix.weights.std() > 0.001  # it has learned
    with torch.no_grad():
        states = model.elmo(**batch, output_hidden_states=True).hidden_states
        mixed = mix.eval()(states, batch["attention_mask"])
    weights = mix.weights[0].softmax(dim=-1).detach().numpy()
    for row, sentence in enumerate(SENTENCES):
        expected = mix.gamma.item() * np.einsum("k,ktd->td", weights, ManyLangs(source).layers(sentence))
        assert_close(mixed[row][batch["attention_mask"][row].bool()], expected)

    model.eval().save_pretrained(tmp_path)
    again = ElmoForTokenClassification.from_pretrained(tmp_path).eval()
    again.elmo_cache = ElmoLayerCache()
    with torch.no_grad():
        logits = model(**batch).logits
        for _ in range(2):  # computed, and from the cache
            torch.testing.assert_close(again(**batch).logits, logits)


def test_kernels(models, default_kernels) -> None:
    """They serve the letters and the LSTM, but no stacked LSTM."""
    folder, _ = models
    model, tokenizer = ElmoModel.from_pretrained(folder).eval(), ElmoTokenizer.from_pretrained(folder)
    batch = tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")
    outputs = []
    for choice in ("auto", "readable"):
        kernels.use(choice)
        with torch.no_grad():
            outputs.append(model(**batch).last_hidden_state)
        if choice == "auto" and model.config.token_encoder == "characters":
            reason = "stacked LSTMs have no faster code" if model.config.stacked_lstm_layers else ""
            assert kernels.why_not() == reason
    assert_close(outputs[0], outputs[1])


def test_push(tmp_path) -> None:
    source = write_folder(tmp_path / "source", content())
    convert([source], tmp_path / "elmo")
    facts = yaml.safe_load((tmp_path / "elmo" / "facts.yaml").read_text(encoding="utf-8"))
    known = {name: x for name, x in FACTS.items() if name not in ("kind", "name", "data")}
    source_facts = {
        "title": "161",
        "url": "https://example.org/161.zip",
        "authors": ["They"],
        "licence": "mit",
    }
    facts |= known | {"source": source_facts, "data": FACTS["data"]}
    (tmp_path / "elmo" / "facts.yaml").write_text(yaml.safe_dump(facts), encoding="utf-8")
    result = CliRunner().invoke(app, ["push", str(tmp_path / "elmo"), "someone/elmo-test", "--dry-run"])
    assert result.exit_code == 0, result.output
    sent = {line.split()[1] for line in result.stdout.splitlines() if line.split()[0][0].isdigit()}
    assert {"letters.json", "letters_elmo.py", "vocab.txt", "model.safetensors", "README.md"} <= sent


def test_the_command(tmp_path) -> None:
    source = write_folder(tmp_path / "source", content())
    arguments = ["convert", str(source), str(tmp_path / "elmo")]
    result = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("a folder of ELMoForManyLangs, as ElmoModel\n")
    assert not (tmp_path / "elmo").exists()
    assert CliRunner().invoke(app, arguments).exit_code == 0
    files = json.loads((tmp_path / "elmo" / "results" / "source.json").read_text(encoding="utf-8"))["files"]
    names = {"cfg.json", "token_embedder.pkl", "encoder.pkl", "char.dic", "word.dic"}
    assert {name: files[name]["bytes"] for name in files} == {x: (source / x).stat().st_size for x in names}
