"""TensorFlow's checkpoints, modules and annotators become the models that their HDF5 files become."""

import json
import os
import re
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from elmo_hf import ElmoConfig, ElmoForPreTraining, ElmoForTokenClassification, ElmoModel, ElmoTokenizer
from elmo_hf.convert import convert, convert_to_bilm
from elmo_hf.convert.plan import ACCUMULATORS, Plan
from elmo_hf.convert.tensorflow import hdf5_name
from elmo_hf.embedding.job import embed
from elmo_hf.embedding.vectors import read_vectors
from elmo_hf.errors import ElmoError
from elmo_hf.export.onnx import export_onnx
from elmo_hf.hub.push import prepare
from elmo_hf.loading import load_language_model
from elmo_hf.pretraining.perplexity import perplexity
from tests.helpers.bilm_files import (
    VOCABULARY,
    assert_one_sentence,
    read_hdf5,
    settings,
    write_source,
)
from tests.helpers.reference import options, random_options
from tests.helpers.tensor_bundles import (
    module_variables,
    training_name,
    training_variables,
    write_bundle,
    write_module,
    write_training_folder,
)

Variables = dict[str, np.ndarray]


def write_vocabulary(folder: Path) -> Path:
    path = folder / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return path


def assert_same_parameters(ours: Path, theirs: Path, kind: Any = ElmoModel) -> None:
    expected = kind.from_pretrained(theirs).state_dict()
    actual = kind.from_pretrained(ours).state_dict()
    assert actual.keys() == expected.keys()
    for name, parameter in expected.items():
        assert torch.equal(actual[name], parameter), name


def refused(sources: list[Path], *words: str, **how: Any) -> str:
    """The conversion fails with a sentence that holds these words, and leaves nothing."""
    place = sources[0].parent / "place"
    place.mkdir()
    with pytest.raises(ElmoError) as caught:
        convert(sources, place / "target", **how)
    assert list(place.iterdir()) == []
    place.rmdir()
    message = str(caught.value)
    assert_one_sentence(message)
    for word in words:
        assert word in message, message
    return message


# ---- training folders

VARIANTS: dict[str, dict] = {
    "base": options(),
    "one layer": options(n_layers=1),
    "three layers": options(n_layers=3),
    "no highway, no character projection": options(n_highway=0, filters=((1, 3), (2, 5))),
    "no LSTM projection": options(dim=8, projection_dim=8),
    "no clips, tanh": options(cell_clip=None, proj_clip=None, activation="tanh", use_skip_connections=False),
    "words": options(word_level=True),
    "words, one layer, no LSTM projection": options(word_level=True, n_layers=1, dim=8, projection_dim=8),
} | {f"random {seed}": random_options(seed) for seed in range(4)}


@pytest.mark.parametrize("label", VARIANTS)
def test_a_checkpoint_equals_the_hdf5_of_the_same_model(label: str, tmp_path: Path) -> None:
    content = VARIANTS[label]
    source = write_source(tmp_path / "hdf5", content, seed=3, softmax=True)
    training = write_training_folder(tmp_path / "training", content, seed=3)
    write_vocabulary(training)
    convert([source], tmp_path / "theirs")
    convert([training], tmp_path / "ours")
    assert_same_parameters(tmp_path / "ours", tmp_path / "theirs", ElmoForPreTraining)
    assert settings(tmp_path / "ours") == settings(tmp_path / "theirs")
    assert ElmoTokenizer.from_pretrained(tmp_path / "ours").get_vocab()["Zürich"] == 6


def test_published_checkpoints(shared_fixtures: Path, tmp_path: Path) -> None:
    """bilm-tf's own files and its own dumps of them, and back."""
    for name in ("one", "two"):
        folder = shared_fixtures / "tensorflow" / name
        checkpoint, dump = folder / "model.ckpt-7.index", folder / "weights.hdf5"
        convert([checkpoint], tmp_path / name)
        convert([dump, folder / "options.json"], tmp_path / f"{name}-hdf5")
        assert_same_parameters(tmp_path / name, tmp_path / f"{name}-hdf5")
        assert settings(tmp_path / name) == settings(tmp_path / f"{name}-hdf5")
        back = read_hdf5(convert_to_bilm(tmp_path / name, tmp_path / f"{name}-back") / "weights.hdf5")
        expected = {
            array.replace("/RNN/LSTMCell/", "/RNN/MultiRNNCell/Cell0/LSTMCell/"): values
            for array, values in read_hdf5(dump).items()
        }
        assert back.keys() == expected.keys()
        for array, values in expected.items():
            assert back[array].tobytes() == values.tobytes(), array

        (tmp_path / "vocab.txt").write_text("\n".join(["<S>", "</S>", "<UNK>", *map(str, range(47))]))
        convert([checkpoint, tmp_path / "vocab.txt"], tmp_path / f"{name}-softmax")
        variables = np.load(folder / "expected.npz")
        model, _ = load_language_model(tmp_path / f"{name}-softmax")
        assert model.lm_head.weight.detach().numpy().tobytes() == variables["lm/softmax/W"].tobytes()
        assert model.lm_head.bias.detach().numpy().tobytes() == variables["lm/softmax/b"].tobytes()
        sums = load_file(tmp_path / f"{name}-softmax" / ACCUMULATORS)
        check_sums(sums, {key: variables[key] for key in variables.files}, single=name == "one")


def check_sums(sums: dict[str, torch.Tensor], variables: Variables, single: bool) -> None:
    """Some of Adagrad's sums, whose places are written out here."""
    encoder, cell = "elmo.token_encoder", "rnn/lstm_cell" if single else "rnn/multi_rnn_cell/cell_0/lstm_cell"
    width = variables["lm/CNN_proj/b_proj"].size
    for direction in range(2):
        kernel = torch.from_numpy(variables[f"lm/RNN_{direction}/{cell}/kernel/Adagrad"])
        assert torch.equal(sums["elmo.layers.0.input_weight"][direction], kernel[:width])
        assert torch.equal(sums["elmo.layers.0.recurrent_weight"][direction], kernel[width:])
        bias = torch.from_numpy(variables[f"lm/RNN_{direction}/{cell}/bias/Adagrad"])
        assert torch.equal(sums["elmo.layers.0.bias"][direction], bias)
    letters = sums[f"{encoder}.char_embedding.weight"]
    assert torch.equal(letters[1:], torch.from_numpy(variables["lm/char_embed/Adagrad"]))
    assert (letters[0] == 1).all()
    carry = torch.from_numpy(variables["lm/CNN_high_1/W_carry/Adagrad"])
    assert torch.equal(sums[f"{encoder}.highways.1.carry.weight"].T, carry)
    assert torch.equal(sums["lm_head.weight"], torch.from_numpy(variables["lm/softmax/W/Adagrad"]))
    assert torch.equal(sums["lm_head.bias"], torch.from_numpy(variables["lm/softmax/b/Adagrad"]))


def test_sums_of_adagrad(tmp_path: Path) -> None:
    training = write_training_folder(tmp_path / "training", options(), seed=3)
    convert([training], tmp_path / "without")
    model = ElmoForPreTraining(ElmoConfig.from_pretrained(tmp_path / "without"))
    sums = load_file(tmp_path / "without" / ACCUMULATORS)
    assert sums.keys() == {name for name, _ in model.named_parameters() if not name.startswith("lm_head.")}
    convert([training, write_vocabulary(tmp_path)], tmp_path / "with")
    sums = load_file(tmp_path / "with" / ACCUMULATORS)
    assert sums.keys() == {name for name, _ in model.named_parameters()}
    check_sums(sums, training_variables(options(), 3), single=False)


def test_incomplete_or_other_slots_are_left_out(tmp_path: Path) -> None:
    variables = training_variables(options(n_layers=1))
    variables = {name.replace("/Adagrad", "/Adam"): array for name, array in variables.items()}
    variables["lm/char_embed/Adagrad"] = variables["lm/char_embed/Adam"]
    plan = plan_of(tmp_path, variables, options(n_layers=1))
    assert plan.accumulators == []
    assert any("Adagrad's sums of squares, as that of CNN/W_cnn_0 is missing" in text for text in plan.left)
    assert any("other variables (lm/CNN/W_cnn_0/Adam, " in text for text in plan.left)


def plan_of(folder: Path, variables: Variables, content: dict | None, **how: Any) -> Plan:
    """The plan of a checkpoint with a vocabulary; nothing is written."""
    write_bundle(folder / "made" / "model.ckpt-7", variables)
    if content is not None:
        (folder / "made" / "options.json").write_text(json.dumps(content))
    write_vocabulary(folder / "made")
    return convert([folder / "made"], folder / "nothing", dry_run=True, **how)


def test_what_is_said(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, training_variables(options()), options())
    assert plan.model_class is ElmoForPreTraining
    assert plan.assumed == []
    assert plan.left == [
        "global_step, the counter of training steps (7)",
        "other variables (train_perplexity)",
    ]
    assert sorted(plan.files) == ["checkpoint", "numbers 1 of 1", "options", "vocabulary"]
    (tmp_path / "made" / "vocab.txt").unlink()
    plan = convert([tmp_path / "made"], tmp_path / "nothing", dry_run=True)
    assert plan.model_class is ElmoModel
    assert plan.left[0] == "the softmax (lm/softmax/...); give its vocabulary (.txt) to take it, too"
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("n_layers", [1, 2])
def test_names_of_older_versions(n_layers: int, tmp_path: Path) -> None:
    """TensorFlow 1.0 and 1.1 called the variables weights and biases; 0.x as bilm-tf's HDF5 does."""
    content = options(n_layers=n_layers)
    expected = write_training_folder(tmp_path / "new", content, seed=2)
    convert([expected], tmp_path / "expected")
    variables = training_variables(content, 2)
    middle = {
        name.replace("/kernel", "/weights").replace("/bias", "/biases"): array
        for name, array in variables.items()
    }
    oldest = {oldest_name(name): array for name, array in variables.items()}
    assert ("lm/RNN_0/RNN/MultiRNNCell/Cell1/LSTMCell/W_P_0/Adagrad" in oldest) == (n_layers == 2)
    for label, names in (("middle", middle), ("oldest", oldest)):
        assert names.keys() != variables.keys()
        write_bundle(tmp_path / label / "model.ckpt-7", names)
        shutil.copy(expected / "options.json", tmp_path / label)
        convert([tmp_path / label], tmp_path / f"{label}-converted")
        assert_same_parameters(tmp_path / f"{label}-converted", tmp_path / "expected")
        sums = (tmp_path / f"{label}-converted" / ACCUMULATORS).read_bytes()
        assert sums == (tmp_path / "expected" / ACCUMULATORS).read_bytes()


def oldest_name(name: str) -> str:
    name = re.sub(r"/rnn/multi_rnn_cell/cell_(\d)/", r"/RNN/MultiRNNCell/Cell\1/", name)
    name = name.replace("/rnn/lstm_cell", "/RNN/lstm_cell").replace(
        "lstm_cell/projection/kernel", "lstm_cell/W_P_0"
    )
    return (
        name.replace("lstm_cell/kernel", "lstm_cell/W_0")
        .replace("lstm_cell/bias", "lstm_cell/B")
        .replace("lstm_cell", "LSTMCell")
    )


def test_names_that_are_no_weights() -> None:
    for name in (
        "Variable",
        "RNN_0/rnn/lstm_cell/kernel/Adam",
        "RNN_2/rnn/lstm_cell/kernel",
        "CNN/W_cnn_x",
        "x/char_embed",
    ):
        assert hdf5_name(name) is None
    for layer in (0, 11):
        name = f"RNN_1/RNN/MultiRNNCell/Cell{layer}/LSTMCell/W_P_0"
        assert hdf5_name(training_name(name)) == name


def test_partitioned_and_sharded(tmp_path: Path) -> None:
    content = options()
    write_training_folder(tmp_path / "plain", content)
    cuts = {
        "lm/softmax/W": (0, 3),
        "lm/softmax/W/Adagrad": (0, 3),
        "lm/char_embed": (0, 5),
        "lm/CNN/W_cnn_2": (3, 2),
    }
    write_training_folder(tmp_path / "cut", content, cuts=cuts, shards=3)
    for name in ("plain", "cut"):
        write_vocabulary(tmp_path / name)
        convert([tmp_path / name], tmp_path / f"{name}-converted")
    assert_same_parameters(tmp_path / "cut-converted", tmp_path / "plain-converted", ElmoForPreTraining)
    sources = json.loads((tmp_path / "cut-converted" / "results" / "source.json").read_text())["files"]
    assert "model.ckpt-7.data-00002-of-00003" in sources


def test_a_softmax_that_is_the_word_table(tmp_path: Path) -> None:
    content = options(word_level=True)
    variables = training_variables(content, 1)
    del variables["lm/softmax/W"], variables["lm/softmax/W/Adagrad"]
    plan = plan_of(tmp_path, variables, content)
    assert "that the words' table and the softmax are one; each has its copy" in plan.left
    convert([tmp_path / "made"], tmp_path / "converted")
    model, _ = load_language_model(tmp_path / "converted")
    assert torch.equal(model.lm_head.weight, torch.from_numpy(variables["lm/embedding"]))
    assert torch.equal(model.elmo.token_encoder.word_embedding.weight, model.lm_head.weight)
    sums = load_file(tmp_path / "converted" / ACCUMULATORS)
    assert torch.equal(sums["lm_head.weight"], torch.from_numpy(variables["lm/embedding/Adagrad"]))


# ---- which checkpoint


def test_the_newest_of_several_checkpoints(tmp_path: Path) -> None:
    content = options(n_layers=1)
    training = write_training_folder(tmp_path / "training", content, seed=1, step=7)
    write_bundle(training / "model.ckpt-12", training_variables(content, seed=2))
    plan = convert([training], tmp_path / "converted")
    assert plan.files["checkpoint"].name == "model.ckpt-7.index"
    assert plan.left[0] == "model.ckpt-12, as the file 'checkpoint' names model.ckpt-7 as the newest"
    (training / "checkpoint").write_text(
        'model_checkpoint_path: "/home/somebody/model.ckpt-12"\nall_model_checkpoint_paths: "model.ckpt-7"\n'
    )
    plan = convert([training], tmp_path / "x", dry_run=True)
    assert plan.files["checkpoint"] == training / "model.ckpt-12.index"
    plan = convert([training / "model.ckpt-7.index"], tmp_path / "x", dry_run=True)
    assert plan.files["checkpoint"] == training / "model.ckpt-7.index"
    assert plan.files["options"] == training / "options.json"
    for text in ("", "model_checkpoint_path: 3", 'model_checkpoint_path: "model.ckpt-9"'):
        (training / "checkpoint").write_text(text)
        refused(
            [training],
            "several checkpoints",
            "model.ckpt-12.index, model.ckpt-7.index",
            "name the .index of one",
        )


def test_a_checkpoint_file_that_leads_outside(tmp_path: Path) -> None:
    content = options(n_layers=1)
    training = write_training_folder(tmp_path / "training", content)
    write_bundle(training / "model.ckpt-12", training_variables(content))
    write_training_folder(tmp_path / "outside", content, step=9)
    (training / "checkpoint").write_text('model_checkpoint_path: "../outside/model.ckpt-9"\n')
    refused([training], "several checkpoints")
    (training / "checkpoint").unlink()
    os.mkfifo(training / "checkpoint")
    refused([training], "several checkpoints")


def test_all_files_of_a_checkpoint_may_be_named(tmp_path: Path) -> None:
    training = write_training_folder(tmp_path / "training", options(n_layers=1))
    (training / "model.ckpt-7.meta").write_bytes(b"graph")
    plan = convert(sorted(training.iterdir()), tmp_path / "x", dry_run=True)
    assert plan.files["checkpoint"].name == "model.ckpt-7.index"
    refused([training / "model.ckpt-7.meta"], "there are no", "a TensorFlow checkpoint (.index)")


def test_files_of_two_formats(tmp_path: Path) -> None:
    training = write_training_folder(tmp_path / "training", options())
    source = write_source(tmp_path / "hdf5", options())
    named = [training / "model.ckpt-7.index", source / "weights.hdf5"]
    refused(named, "weights.hdf5", "model.ckpt-7.index", "different formats")
    plan = convert([training, source / "weights.hdf5"], tmp_path / "x", dry_run=True)
    assert plan.files["weights"] == source / "weights.hdf5"
    shutil.copy(source / "weights.hdf5", training)  # as bilm-tf's dump beside its checkpoint
    plan = convert([training], tmp_path / "x", dry_run=True)
    assert "checkpoint" in plan.files
    assert any("weights.hdf5, which is another format" in sentence for sentence in plan.left)


# ---- modules


@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize("n_layers", [1, 2, 4])
def test_modules_equal_the_hdf5_of_the_same_model(n_layers: int, mix: bool, tmp_path: Path) -> None:
    content = options(n_layers=n_layers, cell_clip=3, proj_clip=3)
    convert([write_source(tmp_path / "hdf5", content, seed=3)], tmp_path / "theirs")
    plan = convert([write_module(tmp_path / "module", content, seed=3, mix=mix)], tmp_path / "ours")
    expected = ElmoModel.from_pretrained(tmp_path / "theirs")
    actual = ElmoModel.from_pretrained(tmp_path / "ours")
    for name, parameter in expected.named_parameters():
        assert torch.equal(actual.state_dict()[name], parameter), name
    assert settings(tmp_path / "ours") == settings(tmp_path / "theirs") | {"num_mixes": int(mix)}
    assert len(plan.assumed) == 5 + mix
    assert plan.left == ["states of the LSTMs (bilm/Variable, bilm/Variable_1, bilm/Variable_2, ...)"]
    if mix:
        variables = module_variables(content, 3)
        assert torch.equal(actual.scalar_mix.weights[0], torch.from_numpy(variables["aggregation/weights"]))
        assert actual.scalar_mix.gamma.tolist() == [1.5]


def test_assumed_settings_can_be_overridden(tmp_path: Path) -> None:
    module = write_module(tmp_path / "module", options())
    chosen = {"cell_clip": None, "char_activation": "tanh", "max_characters_per_token": 20}
    plan = convert([module], tmp_path / "converted", settings=chosen)
    assert [text.partition(" ")[0] for text in plan.assumed] == ["outputs", "layers", "aggregation/weights"]
    config = ElmoConfig.from_pretrained(tmp_path / "converted")
    assert (config.cell_clip, config.proj_clip, config.char_activation) == (None, 3.0, "tanh")
    assert ElmoTokenizer.from_pretrained(tmp_path / "converted").max_characters_per_token == 20
    (module / "options.json").write_text(json.dumps(options(cell_clip=5)))
    plan = convert([module], tmp_path / "x", dry_run=True)
    assert len(plan.assumed) == 1
    assert plan.config.cell_clip == 5
    plan = convert([module], tmp_path / "x", dry_run=True, settings={"cell_clip": 4.0})
    assert plan.config.cell_clip == 4


def test_one_model_of_several(tmp_path: Path) -> None:
    variables = module_variables(options(), 1) | training_variables(options(dim=9))
    write_bundle(tmp_path / "both" / "variables" / "variables", variables)
    refused([tmp_path / "both"], "several models (bilm, lm)", "--name")
    refused([tmp_path / "both"], "no ELMo named 'x'", name="x")
    plan = convert([tmp_path / "both"], tmp_path / "x", dry_run=True, name="lm")
    assert (plan.config.lstm_dim, plan.config.num_mixes) == (9, 1)


# ---- Spark NLP's annotators


def write_annotator(folder: Path, content: dict, seed: int = 0, inside: str = "") -> Path:
    module = write_module(folder / "module", content, seed)
    (folder / "annotator" / "metadata").mkdir(parents=True)
    (folder / "annotator" / "metadata" / "part-00000").write_text("{}")
    with zipfile.ZipFile(folder / "annotator" / "elmo_tensorflow", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(module / "saved_model.pb", f"{inside}saved_model.pb")
        for path in (module / "variables").iterdir():
            archive.write(path, inside + path.name)
    return folder / "annotator"


@pytest.mark.parametrize("inside", ["", "variables/"])
def test_annotators(tmp_path: Path, inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    annotator = write_annotator(tmp_path, options(), seed=3, inside=inside)
    convert([tmp_path / "module"], tmp_path / "theirs")
    plan = convert([annotator], tmp_path / "ours")
    assert plan.files["checkpoint"] == annotator / "elmo_tensorflow"
    assert_same_parameters(tmp_path / "ours", tmp_path / "theirs")
    assert settings(tmp_path / "ours") == settings(tmp_path / "theirs")
    assert list((tmp_path / "temporary").iterdir()) == []


ZIPS: dict[str, tuple[dict[str, bytes], str]] = {
    "outside": (
        {"../variables.index": b"x" * 99, "../../x": b"y"},
        "elmo_tensorflow/variables.index is truncated",
    ),
    "absolute": ({"/tmp/variables.index": b"x" * 99}, "elmo_tensorflow/variables.index is truncated"),
    "none": ({"saved_model.pb": b"x"}, "holds 0 files variables.index"),
    "two": ({"a/variables.index": b"x", "b/variables.index": b"x"}, "holds 2 files variables.index"),
    "bomb": ({"variables.index": b"x", "variables.data-00000-of-00001": bytes(80 << 20)}, "would unpack to"),
}


@pytest.mark.parametrize("label", ZIPS)
def test_hostile_zips(label: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members, message = ZIPS[label]
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    path = tmp_path / "annotator" / "elmo_tensorflow"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    before = sorted(tmp_path.rglob("*"))
    refused([path.parent], message)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_zips_packed_in_other_ways(tmp_path: Path, kind: int) -> None:
    (tmp_path / "annotator").mkdir()
    with zipfile.ZipFile(tmp_path / "annotator" / "elmo_tensorflow", "w", kind) as archive:
        archive.writestr("variables.index", b"x" * 99)
    refused([tmp_path / "annotator"], "elmo_tensorflow is packed in an unusual way")


def test_a_zip_with_a_link_and_broken_zips(tmp_path: Path) -> None:
    annotator = write_annotator(tmp_path, options(n_layers=1))
    path = annotator / "elmo_tensorflow"
    whole = path.read_bytes()
    for content in (b"", b"PK\x03\x04", whole[:-30], whole[: len(whole) // 2]):
        path.write_bytes(content)
        refused([annotator], "elmo_tensorflow is no intact zip")
    link = zipfile.ZipInfo("variables.index")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    refused([annotator], "elmo_tensorflow/variables.index is truncated")  # the link's text is the index


# ---- what is refused


def without(name: str) -> Callable[[Variables], Any]:
    return lambda variables: variables.pop(name)


def with_array(name: str, array: np.ndarray) -> Callable[[Variables], None]:
    return lambda variables: variables.update({name: array})


KERNEL = "lm/RNN_1/rnn/multi_rnn_cell/cell_1/lstm_cell/kernel"
WRONG: dict[str, tuple[Callable[[Variables], Any], str]] = {
    "missing": (
        without("lm/CNN_high_1/W_carry"),
        "variable 'lm/CNN_high_1/W_carry' of shape (15, 15) is missing",
    ),
    "another layer": (
        without(KERNEL),
        "'lm/RNN_1/RNN/MultiRNNCell/Cell1/LSTMCell/W_0' of shape (16, 48) is missing",
    ),
    "shape": (
        with_array("lm/char_embed", np.zeros((260, 4), "f4")),
        "must have shape (261, 4), but has (260, 4)",
    ),
    "type": (
        with_array("lm/char_embed", np.zeros((261, 4), "i4")),
        "must hold float32 numbers, but holds int32",
    ),
    "NaN": (with_array("lm/softmax/b", np.full(8, np.nan, "f4")), "variable 'lm/softmax/b' holds NaN"),
    "too large": (with_array("lm/softmax/b", np.full(8, 1e99)), "float32 cannot hold"),
    "one too many": (with_array("lm/CNN/b_cnn_3", np.zeros(3, "f4")), "'lm/CNN/b_cnn_3' has no place"),
    "twice": (
        with_array("lm/RNN_1/RNN/MultiRNNCell/Cell1/LSTMCell/W_0", np.zeros((16, 48), "f4")),
        "is there twice",
    ),
    "rows": (with_array("lm/softmax/W", np.zeros((9, 8), "f4")), "has 9 rows, but"),
    "NaN of Adagrad": (
        with_array("lm/softmax/b/Adagrad", np.full(8, np.inf, "f4")),
        "'lm/softmax/b/Adagrad' holds NaN",
    ),
}


@pytest.mark.parametrize("label", WRONG)
def test_variables_that_do_not_fit(label: str, tmp_path: Path) -> None:
    change, message = WRONG[label]
    variables = training_variables(options())
    change(variables)
    write_bundle(tmp_path / "made" / "model.ckpt-7", variables)
    (tmp_path / "made" / "options.json").write_text(json.dumps(options()))
    write_vocabulary(tmp_path / "made")
    refused([tmp_path / "made"], "model.ckpt-7.index", message)


def test_models_that_are_no_elmo(tmp_path: Path) -> None:
    write_bundle(tmp_path / "other" / "m", {"dense/kernel": np.zeros((2, 2), "f4")})
    refused([tmp_path / "other"], "m.index holds no ELMo")
    names = {"lm/rnn/multi_rnn_cell/cell_0/lstm_cell/kernel": np.zeros((2, 2), "f4")}
    write_bundle(tmp_path / "forward" / "m", names)
    refused([tmp_path / "forward"], "language model of one direction")
    training = write_training_folder(tmp_path / "training", {**options(), "bidirectional": False})
    refused([training], "'bidirectional' must be true")


def test_shapes_that_tell_no_sizes(tmp_path: Path) -> None:
    for name, array, message in (
        ("bilm/CNN/W_cnn_0", np.zeros((4, 4), "f4"), "must have 4 dimensions"),
        ("bilm/char_embed", np.zeros((262, 0), "f4"), "char_embedding_dim"),
        ("bilm/RNN_0/RNN/MultiRNNCell/Cell0/rnn/lstm_cell/bias", np.zeros(3, "f4"), "outputs of 0"),
    ):
        folder = tmp_path / name.replace("/", "-")
        write_bundle(folder / "variables" / "variables", module_variables(options()) | {name: array})
        refused([folder], "variables.index", message)


# ---- the converted model is a model like any other


def test_uses_of_a_converted_model(tmp_path: Path) -> None:
    content = options(cell_clip=3, proj_clip=3)
    module = convert([write_module(tmp_path / "m", content, seed=1)], tmp_path / "module")
    training = write_training_folder(tmp_path / "t", content, seed=1)
    convert([training, write_vocabulary(tmp_path)], tmp_path / "training")
    (tmp_path / "text.txt").write_text("the cat .\nZürich\n", encoding="utf-8")
    model, tokenizer = load_language_model(tmp_path / "training")
    assert perplexity(model, tmp_path / "text.txt", tokenizer).tokens == 6
    assert np.array_equal(embedded(tmp_path, "module"), embedded(tmp_path, "training"))
    tagger = ElmoForTokenClassification.from_pretrained(tmp_path / "module", num_labels=3)
    logits = tagger(**tokenizer(["the cat ."], return_tensors="pt")).logits
    assert logits.shape == (1, 3, 3)
    export_onnx(tmp_path / "module", tmp_path / "onnx")
    assert module.config.num_mixes == 1
    assert "model.safetensors" in prepare_upload(tmp_path / "training").sizes()


def embedded(folder: Path, model: str) -> np.ndarray:
    embed(folder / "text.txt", folder / f"{model}-vectors", str(folder / model), progress=False)
    vectors = read_vectors(folder / f"{model}-vectors")
    return np.concatenate([np.asarray(vectors[number][1], "f4") for number in range(len(vectors))])


def prepare_upload(folder: Path) -> Any:
    facts = (folder / "facts.yaml").read_text(encoding="utf-8")
    facts = facts.replace("TODO of the weights, such as apache-2.0", "apache-2.0").replace(
        "TODO a code such as en", "en"
    )
    facts = facts.replace("url: TODO where its files are", "url: https://example.org/elmo").replace(
        "TODO ", ""
    )
    (folder / "facts.yaml").write_text(facts, encoding="utf-8")
    return prepare(folder, "someone/elmo")
