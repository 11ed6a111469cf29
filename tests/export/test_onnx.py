"""The exported file, run by onnxruntime, gives the vectors of the model and of the plain reference."""

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
from elmo_hf.convert.bilm import convert_from_bilm
from tests.helpers.paths import REPOSITORY
from tests.helpers.reference import Elmo, options, random_options, random_softmax, random_weights, write_hdf5

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


def published(folder, settings, seed, **weights):
    """A model in the originals' files, as a Transformers folder, and as the reference reads it."""
    arrays = random_weights(settings, seed, **weights)
    source = folder / "published"
    source.mkdir()
    (source / "options.json").write_text(json.dumps(settings), encoding="utf-8")
    (source / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    write_hdf5(source / "weights.hdf5", arrays)
    write_hdf5(source / "softmax.hdf5", random_softmax(settings, seed, len(WORDS)))
    convert_from_bilm([source], folder / "elmo")
    return folder / "elmo", Elmo(settings, arrays, WORDS)


def made_up(rng, rows, longest):
    """Sentences up to so many words, the first of just so many, with words that are longer than any row."""
    letters = list("abcdeXYZ'é漢1")
    lengths = [longest, *rng.integers(0, longest + 1, rows - 1)]
    sizes = [1, 2, 5, 9, 70]
    sentences = [
        ["".join(rng.choice(letters, rng.choice(sizes))) for _ in range(length)] for length in lengths
    ]
    return [[rng.choice([word, "the", "Zürich"]) for word in sentence] for sentence in sentences]


def run(folder, batch):
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    names = [one.name for one in session.get_outputs()]
    return dict(
        zip(
            names,
            session.run(names, {one.name: batch[one.name] for one in session.get_inputs()}),
            strict=True,
        )
    )


def check(folder, exported, reference, seed, shapes):
    """Every layer of sentences of such shapes, beside the reference that knows no batch; zero at padding."""
    rng, tokenizer = np.random.default_rng(seed), ElmoTokenizer.from_pretrained(folder)
    for rows, longest in shapes:
        sentences, side = made_up(rng, rows, longest), ["right", "left"][rows % 2]
        batch = tokenizer(
            sentences, is_split_into_words=True, padding=True, padding_side=side, return_tensors="np"
        )
        wanted, _ = reference.run(sentences)
        is_word = batch["attention_mask"].astype(bool)
        for number, (name, found) in enumerate(run(exported, batch).items()):
            assert name == f"layer_{number}"
            assert (found[~is_word] == 0).all()
            for row, layers in enumerate(wanted):
                expected = layers[number].reshape(-1, found.shape[-1])
                np.testing.assert_allclose(found[row][is_word[row]], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(8))
def test_every_variant_in_every_shape_is_the_reference(tmp_path, seed):
    fixed = {"projection_dim": 7, "dim": 7} if seed % 4 == 0 else {"dim": 12}  # without and with projection
    folder, reference = published(tmp_path, random_options(seed, **fixed), seed)
    export.export_onnx(folder, tmp_path / "onnx", layers="all")
    check(folder, tmp_path / "onnx", reference, seed, [(1, 1), (2, 3), (3, 17), (5, 40)])


def test_the_variants_were_all_there():
    found = [random_options(seed, dim=12) for seed in range(8)]
    assert {one["char_cnn"]["activation"] for one in found} == {"relu", "tanh"}
    assert {one["char_cnn"]["n_highway"] for one in found} == {0, 1, 2}
    assert {one["lstm"]["n_layers"] for one in found} == {1, 2, 3}
    assert {one["lstm"]["use_skip_connections"] for one in found} == {False, True}
    assert None in {one["lstm"]["cell_clip"] for one in found}
    assert None in {one["lstm"]["proj_clip"] for one in found}


def test_a_table_of_words_in_place_of_characters(tmp_path):
    folder, reference = published(tmp_path, options(word_level=True), 0, vocab_size=len(WORDS))
    export.export_onnx(folder, tmp_path / "onnx", layers="all")
    inputs = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx")).get_inputs()
    assert [one.name for one in inputs] == ["input_ids", "attention_mask"]
    check(folder, tmp_path / "onnx", reference, 0, [(1, 1), (4, 9)])


def test_an_lstm_wider_than_its_input(tmp_path):
    """Without a projection, layer 0 may have another size than the others."""
    folder, reference = published(tmp_path, options(dim=4, projection_dim=7), 0)
    with pytest.raises(ValueError, match="layer 0 of this model has 14 numbers and the others have 8"):
        export.export_onnx(folder, tmp_path / "onnx", layers="all")
    for layer in range(3):
        export.export_onnx(folder, tmp_path / f"onnx-{layer}", layers=layer)
        batch = ElmoTokenizer.from_pretrained(folder)(["the bank of"], return_tensors="np")
        found = run(tmp_path / f"onnx-{layer}", batch)["vector"]
        wanted = reference.run([["the", "bank", "of"]])[0][0][layer]
        np.testing.assert_allclose(found[0], wanted, atol=1e-5, rtol=0)


def test_the_states_that_a_model_starts_from_go_along(tmp_path):
    model = save(tmp_path / "elmo")
    model.warm_up("The bank of the river .\nAnother line .")
    model.config.use_warm_state = True
    model.save_pretrained(tmp_path / "elmo")
    export.export_onnx(tmp_path / "elmo", tmp_path / "onnx")
    batch = ElmoTokenizer()(["He sat on the bank .", "Why"], padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = model(**batch).last_hidden_state.numpy()
        cold = model(**batch, states=model.zero_states(2)).last_hidden_state.numpy()
    assert np.abs(wanted - cold).max() > 1e-3
    found = run(tmp_path / "onnx", {name: one.numpy() for name, one in batch.items()})["vector"]
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("layers", "wanted"), [("top", [2]), ("average", [0, 1, 2]), ("0,2", [0, 2])])
def test_the_layers_that_were_asked_for(tmp_path, layers, wanted):
    model = save(tmp_path / "elmo", num_hidden_layers=2)
    found = export.export_onnx(tmp_path / "elmo", tmp_path / "onnx", layers=layers)
    batch = ElmoTokenizer()(["He sat on the bank .", "Why"], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch, output_hidden_states=True).hidden_states
    expected = [hidden[number] for number in wanted]
    expected = [sum(expected) / 3] if layers == "average" else expected
    outputs = run(tmp_path / "onnx", {name: one.numpy() for name, one in batch.items()})
    assert list(outputs) == found.outputs
    for output, one in zip(outputs.values(), expected, strict=True):
        np.testing.assert_allclose(output, one.numpy(), atol=1e-5, rtol=0)


def test_shorter_rows_of_characters_are_the_same_and_longer_ones_are_refused(tmp_path):
    save(tmp_path / "elmo", char_filters=[[1, 4], [7, 6]])
    export.export_onnx(tmp_path / "elmo", tmp_path / "onnx")
    batch = dict(ElmoTokenizer()(["He sat", "on"], padding=True, return_tensors="np"))
    whole = run(tmp_path / "onnx", batch)["vector"]
    rows = batch["char_ids"]
    for width in (5, 6, 12, 49):
        np.testing.assert_allclose(
            run(tmp_path / "onnx", batch | {"char_ids": rows[:, :, :width]})["vector"],
            whole,
            atol=1e-6,
            rtol=0,
        )
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail, match="cannot be reshaped"):
        run(tmp_path / "onnx", batch | {"char_ids": np.pad(rows, ((0, 0), (0, 0), (0, 1)))})


def test_the_file_is_correct_by_the_format_and_all_its_sizes_are_free(tmp_path):
    save(tmp_path / "elmo")
    export.export_onnx(tmp_path / "elmo", tmp_path / "onnx")
    model = onnx.load(tmp_path / "onnx" / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        one.name: [axis.dim_param or axis.dim_value for axis in one.type.tensor_type.shape.dim]
        for one in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {
        "char_ids": ["batch", "words", "characters"],
        "attention_mask": ["batch", "words"],
        "vector": ["batch", "words", 16],
    }
    assert {one.domain for one in model.opset_import} == {""}  # no operators of one runtime only


# ---- eight bits


def test_eight_bits_are_smaller_and_nearly_right_and_say_how_far_they_are_away(tmp_path):
    config = {"lstm_dim": 128, "projection_dim": 32, "cell_clip": 3, "proj_clip": 3}
    model = save(tmp_path / "elmo", **config)
    exact = export.export_onnx(tmp_path / "elmo", tmp_path / "exact", layers="all")
    rough = export.export_onnx(tmp_path / "elmo", tmp_path / "rough", layers="all", int8=True)
    assert rough.bytes < 0.4 * exact.bytes
    batch = ElmoTokenizer()(
        ["He sat on the bank of the river .", "Why", ""], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        wanted = model(**batch, output_hidden_states=True).hidden_states
    found = run(tmp_path / "rough", {name: one.numpy() for name, one in batch.items()})
    is_padding = ~batch["attention_mask"].bool().numpy()
    for number, layer in enumerate(found.values()):
        apart = np.abs(layer - wanted[number].numpy()).max()
        assert (layer[is_padding] == 0).all()
        assert apart < 1e-5 if number == 0 else 1e-5 < apart < 0.05 * wanted[number].abs().max()
    kept = json.loads((tmp_path / "rough" / "export.json").read_text(encoding="utf-8"))
    assert kept["int8"] is True
    assert kept["differences"]["layer_2"]["largest"] == rough.differences["layer_2"].largest > 1e-5
    assert f"layer_2 {rough.differences['layer_2'].largest:.1e}" in str(rough)
    assert exact.differences["layer_2"].largest < 1e-5


def test_differences_are_what_they_say():
    wanted = np.float32([[3, 4], [0, 0]])
    found = export.difference(wanted + np.float32([[0, 0], [0, 0.5]]), wanted)
    assert found.largest == 0.5
    assert found.rms == pytest.approx((0.25 / 25) ** 0.5)


# ---- the folder


def test_the_readmes_lines_and_those_of_the_readme_that_they_write(nursery, tmp_path):
    save(tmp_path / "my-elmo")
    done = nursery.run(COMMAND, *LINES[0].split(), cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    folder = tmp_path / "my-elmo-onnx"
    kept = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert f"{kept['bytes']:,} bytes" in done.out
    assert (folder / "model.onnx").stat().st_size == kept["bytes"]
    assert f"{kept['differences']['vector']['largest']:.1e}" in done.out
    text = (folder / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    alone = "import sys; sys.modules['torch'] = sys.modules['elmo_hf'] = None\n"  # neither can be imported
    environment = os.environ | {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", alone + code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "(2, 6, 16)"
    assert not list(folder.glob("modeling*"))  # no weights for torch, and no code for them


def test_the_readmes_line_for_eight_bits(tmp_path, monkeypatch):
    save(tmp_path / "my-elmo")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, LINES[1].split())
    assert done.exit_code == 0
    kept = json.loads((tmp_path / "my-elmo-int8" / "export.json").read_text(encoding="utf-8"))
    assert kept["int8"] is True
    assert kept["model"] == "my-elmo"
    assert "largest difference from the model in torch" in done.stdout
    again = CliRunner().invoke(app, LINES[1].split())
    assert again.exit_code == 1
    assert again.stderr.startswith("elmo-hf: my-elmo-int8 exists and is not an empty folder")


def test_a_head_gives_its_bilm(tmp_path):
    config = ElmoConfig(
        lstm_dim=6, projection_dim=4, char_filters=[[1, 4]], vocab_size=3, num_labels=2, task_word_dim=2
    )
    head = ElmoForTokenClassification(config).eval()
    head.save_pretrained(tmp_path / "head")
    ElmoTokenizer().save_pretrained(tmp_path / "head")
    export.export_onnx(tmp_path / "head", tmp_path / "onnx")
    batch = ElmoTokenizer()(["He sat ."], return_tensors="pt")
    with torch.no_grad():
        wanted = head.base_model(**batch).last_hidden_state.numpy()
    found = run(tmp_path / "onnx", {name: one.numpy() for name, one in batch.items()})["vector"]
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=0)


# ---- mistakes


def test_a_file_that_is_not_the_model_is_refused(tmp_path, monkeypatch):
    save(tmp_path / "elmo")
    monkeypatch.setattr(ElmoModel, "_after_first", lambda self: self.zero_states(1))
    wrong = export.torch_layers
    monkeypatch.setattr(export, "torch_layers", lambda *a: {k: v + 1e-3 for k, v in wrong(*a).items()})
    with pytest.raises(ValueError, match=r"the exported vector differs from the model's by 1\.\de-03"):
        export.export_onnx(tmp_path / "elmo", tmp_path / "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["elmo"]


def mistakes(tmp_path):
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
def test_mistakes_are_one_sentence_and_leave_nothing(tmp_path, monkeypatch, model, output, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the environment was read before
    mistakes(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        export.export_onnx(model, output, **options)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_without_the_extra(tmp_path, monkeypatch):
    save(tmp_path / "elmo")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"the export needs .*`pip install 'elmo-hf\[export\]'`"):
        export.export_onnx(tmp_path / "elmo", tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_too_much_for_one_file(tmp_path, monkeypatch):
    save(tmp_path / "elmo")
    monkeypatch.setattr(export, "MAX_BYTES", 12_000)
    with pytest.raises(ValueError, match=r"the weights take [\d,]+ bytes, .* int8 takes less"):
        export.export_onnx(tmp_path / "elmo", tmp_path / "onnx")
    export.export_onnx(tmp_path / "elmo", tmp_path / "onnx", int8=True)
