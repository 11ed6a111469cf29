"""The exported file, run by onnxruntime, gives the vectors of the model and of the numpy reference."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from elmo_hf import ElmoConfig, ElmoForTokenClassification, ElmoModel, ElmoTokenizer
from elmo_hf.cli import app
from elmo_hf.convert import convert_from_bilm
from elmo_hf.errors import ElmoError
from tests.helpers import naive_elmo
from tests.helpers.paths import REPOSITORY
from tests.helpers.reference import Elmo, options, random_options, random_softmax, random_weights, write_hdf5
from tests.helpers.varied_elmo import KINDS, varied_batch, varied_model, weights_of

onnx = pytest.importorskip("onnx", reason="the export needs onnx; `pip install 'elmo-hf[export]'`")
onnxruntime = pytest.importorskip("onnxruntime", reason="the export needs `elmo-hf[export]`")

from elmo_hf.export import onnx as export  # noqa: E402

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
LINES = re.findall(r"^elmo-hf (export .*?) +#.*$", README, re.MULTILINE)
COMMAND = "from elmo_hf.cli import app; app(prog_name='elmo-hf')"
WORDS = ["<S>", "</S>", "<UNK>", "the", "bank", "of", "Zürich", "漢字"]


def save(folder, **config):
    torch.manual_seed(0)
    small = {"lstm_dim": 12, "projection_dim": 8, "char_embedding_dim": 4, "char_filters": [[1, 4], [3, 6]]}
    model = ElmoModel(ElmoConfig(**(small | {"cell_clip": 0.5, "proj_clip": 0.2, "vocab_size": 3} | config)))
    model.save_pretrained(folder)
    ElmoTokenizer(max_characters_per_token=model.config.max_characters_per_token).save_pretrained(folder)
    return model.eval()


def converted(folder, settings, seed, **weights):
    """A published model as a Transformers folder, and as the reference reads it."""
    arrays = random_weights(settings, seed, **weights)
    source = folder / "published"
    source.mkdir()
    (source / "options.json").write_text(json.dumps(settings), encoding="utf-8")
    (source / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    write_hdf5(source / "weights.hdf5", arrays)
    write_hdf5(source / "softmax.hdf5", random_softmax(settings, seed, len(WORDS)))
    convert_from_bilm([source], folder / "elmo")
    return folder / "elmo", Elmo(settings, arrays, WORDS)


def random_sentences(rng, rows, longest):
    """Sentences of at most `longest` words, the first of exactly as many; some words exceed a row."""
    letters = list("abcdeXYZ'é漢1")
    lengths = [longest, *rng.integers(0, longest + 1, rows - 1)]
    sizes = [1, 2, 5, 9, 70]
    sentences = [
        ["".join(rng.choice(letters, rng.choice(sizes))) for _ in range(length)] for length in lengths
    ]
    return [[rng.choice([word, "the", "Zürich"]) for word in sentence] for sentence in sentences]


def run(folder, batch):
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    names = [node.name for node in session.get_outputs()]
    inputs = {node.name: batch[node.name] for node in session.get_inputs()}
    return dict(zip(names, session.run(names, inputs), strict=True))


def as_numpy(batch):
    return {name: tensor.numpy() for name, tensor in batch.items()}


def check(folder, exported, reference, seed, shapes):
    """Every layer equals the reference, which reads one sentence at a time, and is zero at padding."""
    rng, tokenizer = np.random.default_rng(seed), ElmoTokenizer.from_pretrained(folder)
    for rows, longest in shapes:
        sentences, side = random_sentences(rng, rows, longest), ["right", "left"][rows % 2]
        batch = tokenizer(
            sentences, is_split_into_words=True, padding=True, padding_side=side, return_tensors="np"
        )
        expected, _ = reference.run(sentences)
        is_word = batch["attention_mask"].astype(bool)
        for number, (name, actual) in enumerate(run(exported, batch).items()):
            assert name == f"layer_{number}"
            assert (actual[~is_word] == 0).all()
            for row, layers in enumerate(expected):
                vectors = layers[number].reshape(-1, actual.shape[-1])
                np.testing.assert_allclose(actual[row][is_word[row]], vectors, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(8))
def test_variants_equal_the_reference(tmp_path, seed):
    fixed = {"projection_dim": 7, "dim": 7} if seed % 4 == 0 else {"dim": 12}  # without and with projection
    folder, reference = converted(tmp_path, random_options(seed, **fixed), seed)
    export.export_onnx(folder, tmp_path / "onnx", layers="all")
    check(folder, tmp_path / "onnx", reference, seed, [(1, 1), (2, 3), (3, 17), (5, 40)])


def test_random_options_cover_every_variant():
    drawn = [random_options(seed, dim=12) for seed in range(8)]
    assert {variant["char_cnn"]["activation"] for variant in drawn} == {"relu", "tanh"}
    assert {variant["char_cnn"]["n_highway"] for variant in drawn} == {0, 1, 2}
    assert {variant["lstm"]["n_layers"] for variant in drawn} == {1, 2, 3}
    assert {variant["lstm"]["use_skip_connections"] for variant in drawn} == {False, True}
    assert None in {variant["lstm"]["cell_clip"] for variant in drawn}
    assert None in {variant["lstm"]["proj_clip"] for variant in drawn}


def test_word_table(tmp_path):
    folder, reference = converted(tmp_path, options(word_level=True), 0, vocab_size=len(WORDS))
    export.export_onnx(folder, tmp_path / "onnx", layers="all")
    inputs = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx")).get_inputs()
    assert [node.name for node in inputs] == ["input_ids", "attention_mask"]
    check(folder, tmp_path / "onnx", reference, 0, [(1, 1), (4, 9)])


@pytest.mark.parametrize("kind", KINDS)
def test_other_encoders_equal_their_reference(tmp_path, kind):
    """With padding on either side and between words, and with rows that are cut after the longest word."""
    model = varied_model(kind)
    layers = export.parse_layers("top" if "no projection" in kind else "all", model.config)
    with torch.inference_mode(), export.readable_kernels():
        export.write_graph(model, layers, False, tmp_path / "model.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)
    weights = weights_of(model)
    for side in ("right", "left", "between"):
        batch, sentences = varied_batch(model, side=side)
        outputs, mask = run(tmp_path, as_numpy(batch)), batch["attention_mask"].bool().numpy()
        for row, sentence in enumerate(sentences):
            expected = naive_elmo.read(model.config, weights, sentence)
            pairs = zip(outputs.values(), expected[-len(outputs) :], strict=True)
            for actual, vectors in pairs:
                assert (actual[row][~mask[row]] == 0).all()
                words = actual[row][mask[row]]
                np.testing.assert_allclose(words, vectors.reshape(words.shape), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["letters", "words beside letters"])
def test_shorter_rows_of_letters_change_nothing(tmp_path, kind):
    model = varied_model(kind)
    with torch.inference_mode(), export.readable_kernels():
        export.write_graph(model, export.parse_layers("top", model.config), False, tmp_path / "model.onnx")
    *_, begin, end, padding = model.config.boundary_characters
    word = [5] * model.config.reads_word_column
    rows = [np.array([[[begin, 3, 4, end, *[padding] * more, *word]]]) for more in (0, 1, 4)]
    mask = np.ones((1, 1), dtype=np.int64)
    vectors = [run(tmp_path, {"char_ids": row, "attention_mask": mask})["vector"] for row in rows]
    expected = model(char_ids=torch.from_numpy(rows[-1])).last_hidden_state.detach().numpy()
    for actual in vectors:
        np.testing.assert_allclose(actual, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["words beside letters", "a stack"])
def test_int8_of_other_encoders(tmp_path, kind):
    model = varied_model(kind, lstm_dim=64, projection_dim=32)
    layers = export.parse_layers("all", model.config)
    with torch.inference_mode(), export.readable_kernels():
        for parameter in model.parameters():
            parameter.mul_(0.3)
        for int8 in (False, True):
            (tmp_path / str(int8)).mkdir()
            export.write_graph(model, layers, int8, tmp_path / str(int8) / "model.onnx")
    batch = as_numpy(varied_batch(model)[0])
    exact, rounded = (run(tmp_path / str(int8), batch)["layer_1"] for int8 in (False, True))
    assert 0 < np.abs(rounded - exact).max() < 0.1 * np.abs(exact).max()
    sizes = [(tmp_path / str(int8) / "model.onnx").stat().st_size for int8 in (True, False)]
    assert sizes[0] < 0.6 * sizes[1]


def test_layer_0_of_another_size(tmp_path):
    """Without an LSTM projection, layer 0 may have another size than the others."""
    folder, reference = converted(tmp_path, options(dim=4, projection_dim=7), 0)
    with pytest.raises(ValueError, match="layer 0 of this model has 14 numbers and the others have 8"):
        export.export_onnx(folder, tmp_path / "onnx", layers="all")
    for layer in range(3):
        export.export_onnx(folder, tmp_path / f"onnx-{layer}", layers=layer)
        batch = ElmoTokenizer.from_pretrained(folder)(["the bank of"], return_tensors="np")
        actual = run(tmp_path / f"onnx-{layer}", batch)["vector"]
        expected = reference.run([["the", "bank", "of"]])[0][0][layer]
        np.testing.assert_allclose(actual[0], expected, atol=1e-5, rtol=0)


def test_warm_initial_state(tmp_path):
    model = save(tmp_path / "elmo")
    model.warm_up("The bank of the river .\nAnother line .")
    model.config.use_warm_state = True
    model.save_pretrained(tmp_path / "elmo")
    export.export_onnx(tmp_path / "elmo", tmp_path / "onnx")
    batch = ElmoTokenizer()(["He sat on the bank .", "Why"], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**batch).last_hidden_state.numpy()
        cold = model(**batch, states=model.zero_states(2)).last_hidden_state.numpy()
    assert np.abs(expected - cold).max() > 1e-3
    actual = run(tmp_path / "onnx", as_numpy(batch))["vector"]
    np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("layers", "numbers"), [("top", [2]), ("average", [0, 1, 2]), ("0,2", [0, 2])])
def test_chosen_layers(tmp_path, layers, numbers):
    model = save(tmp_path / "elmo", num_hidden_layers=2)
    report = export.export_onnx(tmp_path / "elmo", tmp_path / "onnx", layers=layers)
    batch = ElmoTokenizer()(["He sat on the bank .", "Why"], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch, output_hidden_states=True).hidden_states
    expected = [hidden[number] for number in numbers]
    expected = [sum(expected) / 3] if layers == "average" else expected
    outputs = run(tmp_path / "onnx", as_numpy(batch))
    assert list(outputs) == report.outputs
    for output, layer in zip(outputs.values(), expected, strict=True):
        np.testing.assert_allclose(output, layer.numpy(), atol=1e-5, rtol=0)


def test_shorter_rows_of_characters_change_nothing_and_longer_ones_are_refused(tmp_path):
    save(tmp_path / "elmo", char_filters=[[1, 4], [7, 6]])
    export.export_onnx(tmp_path / "elmo", tmp_path / "onnx")
    batch = dict(ElmoTokenizer()(["He sat", "on"], padding=True, return_tensors="np"))
    whole = run(tmp_path / "onnx", batch)["vector"]
    rows = batch["char_ids"]
    for width in (5, 6, 12, 49):
        cut = run(tmp_path / "onnx", batch | {"char_ids": rows[:, :, :width]})["vector"]
        np.testing.assert_allclose(cut, whole, atol=1e-6, rtol=0)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail, match="cannot be reshaped"):
        run(tmp_path / "onnx", batch | {"char_ids": np.pad(rows, ((0, 0), (0, 0), (0, 1)))})


def test_file_is_valid_and_its_sizes_are_free(tmp_path):
    save(tmp_path / "elmo")
    export.export_onnx(tmp_path / "elmo", tmp_path / "onnx")
    model = onnx.load(tmp_path / "onnx" / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        node.name: [axis.dim_param or axis.dim_value for axis in node.type.tensor_type.shape.dim]
        for node in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {
        "char_ids": ["batch", "words", "characters"],
        "attention_mask": ["batch", "words"],
        "vector": ["batch", "words", 16],
    }
    assert {opset.domain for opset in model.opset_import} == {""}  # no operators of a single runtime


# ---- int8


def test_int8_is_smaller_and_reports_its_difference(tmp_path):
    config = {"lstm_dim": 128, "projection_dim": 32, "cell_clip": 3, "proj_clip": 3}
    model = save(tmp_path / "elmo", **config)
    exact = export.export_onnx(tmp_path / "elmo", tmp_path / "exact", layers="all")
    quantized = export.export_onnx(tmp_path / "elmo", tmp_path / "int8", layers="all", int8=True)
    assert quantized.bytes < 0.4 * exact.bytes
    batch = ElmoTokenizer()(
        ["He sat on the bank of the river .", "Why", ""], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = model(**batch, output_hidden_states=True).hidden_states
    outputs = run(tmp_path / "int8", as_numpy(batch))
    is_padding = ~batch["attention_mask"].bool().numpy()
    for number, layer in enumerate(outputs.values()):
        error = np.abs(layer - expected[number].numpy()).max()
        assert (layer[is_padding] == 0).all()
        assert error < 1e-5 if number == 0 else 1e-5 < error < 0.05 * expected[number].abs().max()
    stored = json.loads((tmp_path / "int8" / "export.json").read_text(encoding="utf-8"))
    assert stored["int8"] is True
    assert stored["differences"]["layer_2"]["largest"] == quantized.differences["layer_2"].largest > 1e-5
    assert f"layer_2 {quantized.differences['layer_2'].largest:.1e}" in str(quantized)
    assert exact.differences["layer_2"].largest < 1e-5


def test_difference():
    expected = np.float32([[3, 4], [0, 0]])
    difference = export.difference(expected + np.float32([[0, 0], [0, 0.5]]), expected)
    assert difference.largest == 0.5
    assert difference.rms == pytest.approx((0.25 / 25) ** 0.5)


# ---- the folder


def test_command_of_the_readme_and_code_of_the_readme_that_it_writes(fork_server, tmp_path):
    save(tmp_path / "my-elmo")
    process = fork_server.run(COMMAND, *LINES[0].split(), cwd=tmp_path)
    assert (process.code, process.err) == (0, "")
    folder = tmp_path / "my-elmo-onnx"
    stored = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert f"{stored['bytes']:,} bytes" in process.out
    assert (folder / "model.onnx").stat().st_size == stored["bytes"]
    assert f"{stored['differences']['vector']['largest']:.1e}" in process.out
    text = (folder / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    hide = "import sys; sys.modules['torch'] = sys.modules['elmo_hf'] = None\n"  # neither can be imported
    environment = os.environ | {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", hide + code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "(2, 6, 16)"
    assert not list(folder.glob("modeling*"))  # no code, since there are no weights for torch


def test_command_of_the_readme_for_int8(tmp_path, monkeypatch):
    save(tmp_path / "my-elmo")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, LINES[1].split())
    assert result.exit_code == 0
    stored = json.loads((tmp_path / "my-elmo-int8" / "export.json").read_text(encoding="utf-8"))
    assert stored["int8"] is True
    assert stored["model"] == "my-elmo"
    assert "largest difference from the model in torch" in result.stdout
    again = CliRunner().invoke(app, LINES[1].split())
    assert again.exit_code == 1
    assert again.stderr.startswith("elmo-hf: my-elmo-int8 exists and is not an empty folder")


def test_the_bilm_of_a_task_model_is_exported(tmp_path):
    config = ElmoConfig(
        lstm_dim=6, projection_dim=4, char_filters=[[1, 4]], vocab_size=3, num_labels=2, task_word_dim=2
    )
    head = ElmoForTokenClassification(config).eval()
    head.save_pretrained(tmp_path / "head")
    ElmoTokenizer().save_pretrained(tmp_path / "head")
    export.export_onnx(tmp_path / "head", tmp_path / "onnx")
    batch = ElmoTokenizer()(["He sat ."], return_tensors="pt")
    with torch.no_grad():
        expected = head.base_model(**batch).last_hidden_state.numpy()
    actual = run(tmp_path / "onnx", as_numpy(batch))["vector"]
    np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=0)


# ---- mistakes


def test_a_file_with_other_vectors_is_refused(tmp_path, monkeypatch):
    save(tmp_path / "elmo")
    right = export.torch_layers
    monkeypatch.setattr(export, "torch_layers", lambda *a: {k: v + 1e-3 for k, v in right(*a).items()})
    with pytest.raises(ElmoError, match=r"the exported vector differs from the model's by 1\.\de-03"):
        export.export_onnx(tmp_path / "elmo", tmp_path / "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["elmo"]


def write_faulty_models(tmp_path):
    save(tmp_path / "elmo")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "empty").mkdir()
    save(tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    save(tmp_path / "pair")
    ElmoTokenizer(max_characters_per_token=20).save_pretrained(tmp_path / "pair")
    save(tmp_path / "lacking")
    ElmoModel(
        ElmoConfig(lstm_dim=5, projection_dim=8, char_filters=[[1, 4]], vocab_size=3)
    ).config.to_json_file(tmp_path / "lacking" / "config.json")


@pytest.mark.parametrize(
    ("model", "output", "options", "message"),
    [
        ("nowhere/at-all", "onnx", {}, "no ELMo can be loaded from nowhere/at-all: "),
        ("empty", "onnx", {}, "no ELMo can be loaded from empty: "),
        ("broken", "onnx", {}, "the weights in broken are damaged: "),
        ("lacking", "onnx", {}, "lacking"),
        ("pair", "onnx", {}, "pair has a model with max_characters_per_token 50 and a tokenizer with 20"),
        ("elmo", "full", {}, "full exists and is not an empty folder"),
        (
            "elmo",
            "onnx",
            {"layers": "5"},
            "layers must be top, average, all or different numbers from 0 to 2",
        ),
    ],
)
def test_mistakes_are_refused_in_one_sentence_and_leave_nothing(
    tmp_path, monkeypatch, model, output, options, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_OFFLINE", True
    )  # the environment has been read already
    write_faulty_models(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        export.export_onnx(model, output, **options)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_without_the_extra(tmp_path, monkeypatch):
    save(tmp_path / "elmo")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ElmoError, match=r"the export needs .*`pip install 'elmo-hf\[export\]'`"):
        export.export_onnx(tmp_path / "elmo", tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_too_many_weights_for_one_file(tmp_path, monkeypatch):
    save(tmp_path / "elmo")
    monkeypatch.setattr(export, "MAX_BYTES", 12_000)
    with pytest.raises(ElmoError, match=r"the weights take [\d,]+ bytes, .* int8 takes less"):
        export.export_onnx(tmp_path / "elmo", tmp_path / "onnx")
    export.export_onnx(tmp_path / "elmo", tmp_path / "onnx", int8=True)
