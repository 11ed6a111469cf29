"""Adagrad's sums of squares of a checkpoint: a run that starts from it goes on as TensorFlow would have."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from elmo_hf.convert import convert
from elmo_hf.convert.plan import ACCUMULATORS
from elmo_hf.errors import ElmoError
from elmo_hf.loading import load_language_model
from elmo_hf.pretraining.learner import Learner
from elmo_hf.pretraining.optimizers import RowGradient
from elmo_hf.pretraining.settings import Settings
from elmo_hf.pretraining.start import start_model
from tests.helpers.bilm_files import VOCABULARY, assert_one_sentence
from tests.helpers.launcher import read_lines, small_run
from tests.helpers.reference import options
from tests.helpers.tensor_bundles import training_variables, write_module, write_training_folder

CONTENT = options(n_layers=1, max_characters=12)
MODEL = ("lstm_dim", "projection_dim", "char_embedding_dim", "char_filters", "num_highway_layers")
MODEL += ("num_hidden_layers", "max_characters_per_token")


@pytest.fixture
def training(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return write_training_folder(tmp_path / "training", CONTENT, seed=4)


@pytest.fixture
def converted(training: Path, tmp_path: Path) -> Path:
    convert([training, tmp_path / "vocab.txt"], tmp_path / "converted")
    return tmp_path / "converted"


def make_settings(start: Path, **changes) -> Settings:
    return Settings(start=str(start), dropout=0.0, clip=float("inf"), **changes)


def make_learner(settings: Settings) -> Learner:
    start = start_model(settings, None)
    learner = Learner(start.model, settings, Accelerator(cpu=True))
    learner.optimizer.set_sums(start.sums)
    return learner


# ---- a step


@pytest.mark.parametrize("samples", [0, 4], ids=["full softmax", "sampled softmax"])
@pytest.mark.parametrize("directly", [False, True], ids=["folder", "checkpoint"])
def test_a_step_equals_tensorflows(
    training: Path, converted: Path, tmp_path: Path, samples: int, directly: bool
) -> None:
    """sum += g^2, weight -= rate g / sqrt(sum), from the sums that the checkpoint's files hold."""
    vocab = str(tmp_path / "vocab.txt") if directly else None
    source = training / "model.ckpt-7.index" if directly else converted
    learner = make_learner(make_settings(source, vocab=vocab, samples=samples))
    model, random = learner.model, np.random.default_rng(0)
    before = {name: weight.detach().numpy().astype("f8") for name, weight in model.named_parameters()}
    gradients = {name: random.normal(size=array.shape).astype("f4") for name, array in before.items()}
    ids = [1, 4, 6]
    if samples:
        others = [row for row in range(8) if row not in ids]
        gradients["lm_head.weight"][others] = gradients["lm_head.bias"][others] = 0
        head = (torch.from_numpy(gradients[f"lm_head.{name}"][ids]) for name in ("weight", "bias"))
        rows = RowGradient(torch.tensor(ids), *head)
    for name, weight in model.named_parameters():
        weight.grad = torch.from_numpy(gradients[name].copy())
    learner.optimizer.step(rows if samples else None)

    sums = sums_of(training_variables(CONTENT, 4))
    assert sums.keys() == before.keys()
    for name, weight in model.named_parameters():
        gradient = gradients[name].astype("f8")
        expected = before[name] - 0.2 * gradient / np.sqrt(sums[name] + gradient**2)
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-6, atol=1e-7, err_msg=name)


def sums_of(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The sums by the names of our parameters, written out without the package's table."""
    of = {
        name.removeprefix("lm/").removesuffix("/Adagrad"): a.astype("f8")
        for name, a in variables.items()
        if "Adag" in name
    }
    encoder, layer = "elmo.token_encoder", "elmo.layers.0"
    sums = {f"{encoder}.char_embedding.weight": np.concatenate([np.ones((1, 4)), of["char_embed"]])}
    for i in range(3):
        sums[f"{encoder}.convolutions.{i}.weight"] = of[f"CNN/W_cnn_{i}"][0].transpose(2, 1, 0)
        sums[f"{encoder}.convolutions.{i}.bias"] = of[f"CNN/b_cnn_{i}"]
    for k in range(2):
        for gate in ("carry", "transform"):
            sums[f"{encoder}.highways.{k}.{gate}.weight"] = of[f"CNN_high_{k}/W_{gate}"].T
            sums[f"{encoder}.highways.{k}.{gate}.bias"] = of[f"CNN_high_{k}/b_{gate}"]
    sums[f"{encoder}.projection.weight"] = of["CNN_proj/W_proj"].T
    sums[f"{encoder}.projection.bias"] = of["CNN_proj/b_proj"]
    cells = [f"RNN_{direction}/rnn/lstm_cell" for direction in range(2)]
    sums[f"{layer}.input_weight"] = np.stack([of[f"{cell}/kernel"][:8] for cell in cells])
    sums[f"{layer}.recurrent_weight"] = np.stack([of[f"{cell}/kernel"][8:] for cell in cells])
    sums[f"{layer}.bias"] = np.stack([of[f"{cell}/bias"] for cell in cells])
    sums[f"{layer}.projection"] = np.stack([of[f"{cell}/projection/kernel"] for cell in cells])
    return sums | {"lm_head.weight": of["softmax/W"], "lm_head.bias": of["softmax/b"]}


# ---- another vocabulary, another optimizer


@pytest.mark.parametrize("samples", [0, 4])
def test_words_that_both_vocabularies_have_keep_their_sums(
    converted: Path, tmp_path: Path, samples: int
) -> None:
    words = ["<S>", "</S>", "<UNK>", "okapi", "cat", "the", "zebra"]
    (tmp_path / "new.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    learner = make_learner(make_settings(converted, vocab=str(tmp_path / "new.txt"), samples=samples))
    state = learner.optimizer.state_dict()
    prefix = "softmax." if samples else "dense.lm_head."
    old = sums_of(training_variables(CONTENT, 4))
    for key in ("weight", "bias"):
        for row, word in enumerate(words):
            expected = old[f"lm_head.{key}"][VOCABULARY.index(word)] if word in VOCABULARY else 1.0
            assert (state[f"{prefix}{key}.sum"][row].numpy() == expected).all(), word
    name = "elmo.layers.0.bias"
    assert (state[f"dense.{name}.sum"].numpy() == old[name]).all()


def test_a_model_without_a_softmax(training: Path, tmp_path: Path) -> None:
    convert([training], tmp_path / "bare")
    learner = make_learner(make_settings(tmp_path / "bare", vocab=str(tmp_path / "vocab.txt"), samples=0))
    state = learner.optimizer.state_dict()
    assert (state["dense.lm_head.weight.sum"] == 1).all()
    old = sums_of(training_variables(CONTENT, 4))["elmo.layers.0.bias"]
    assert (state["dense.elmo.layers.0.bias.sum"].numpy() == old).all()


def test_what_is_said(training: Path, converted: Path, tmp_path: Path) -> None:
    start = start_model(make_settings(converted), None)
    assert start.notes == [f"Adagrad continues with the sums of squares of {converted}."]
    start = start_model(make_settings(converted, optimizer="adamw", learning_rate=1e-3), None)
    assert start.sums == {}
    assert start.notes == [
        f"Adagrad's sums of squares of {converted} are not used: the optimizer is another."
    ]
    assert start_model(make_settings(converted), converted).sums == {}  # resumed: the run has its own
    (converted / ACCUMULATORS).unlink()
    assert start_model(make_settings(converted), None).notes == []
    module = write_module(tmp_path / "module", options(max_characters=50))
    start = start_model(make_settings(module, vocab=str(tmp_path / "vocab.txt")), None)
    assert start.model.config.vocab_size == 8
    assert f"{module}: assumed that cells are clipped at 3 (--cell-clip)." in start.notes


def test_a_vocabulary_of_any_name_and_none(training: Path, tmp_path: Path) -> None:
    words = (tmp_path / "vocab.txt").rename(tmp_path / "words.dic")
    start = start_model(make_settings(training, vocab=str(words)), None)
    assert start.model.config.vocab_size == 8
    with pytest.raises(ElmoError, match="holds no vocabulary; name that of its softmax by --vocab"):
        start_model(make_settings(training), None)
    words.write_text("<S>\n</S>\n<UNK>\nthe\n")
    with pytest.raises(ElmoError, match="has 8 rows, but"):
        start_model(make_settings(training, vocab=str(words)), None)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda sums: sums | {"elmo.layers.0.bias": torch.ones(3)},
            r"not of this model \(elmo.layers.0.bias\)",
        ),
        (lambda sums: sums | {"x": torch.ones(3)}, r"not of this model \(x\)"),
        (lambda sums: sums | {"lm_head.bias": torch.zeros(8)}, "lm_head.bias has values that are no sums"),
        (lambda sums: sums | {"lm_head.bias": torch.full((8,), torch.inf)}, "are no sums of squares"),
        (lambda sums: sums | {"lm_head.bias": torch.ones(8, dtype=torch.int32)}, "not of this model"),
    ],
)
def test_files_of_another_model(converted: Path, damage, message: str) -> None:
    save_file(damage(load_file(converted / ACCUMULATORS)), converted / ACCUMULATORS)
    with pytest.raises(ElmoError, match=message) as caught:
        start_model(make_settings(converted), None)
    assert_one_sentence(str(caught.value))


def test_damaged_files_and_links(converted: Path, tmp_path: Path) -> None:
    path = converted / ACCUMULATORS
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ElmoError, match=r"adagrad.safetensors cannot be read"):
        start_model(make_settings(converted), None)
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(ElmoError, match="leads out of the folder"):
        start_model(make_settings(converted), None)


# ---- the run


def test_a_run_from_a_checkpoint_and_its_continuation(launcher, training: Path, tmp_path: Path) -> None:
    same = dict.fromkeys(MODEL) | {"start": training, "vocab": tmp_path / "vocab.txt", "samples": 3}
    run = launcher.start(small_run(tmp_path, max_steps=2, save_every=1, **same))
    assert run.wait() == [0], run.err
    assert f"Adagrad continues with the sums of squares of {training}." in run.out
    assert read_lines(tmp_path / "run" / "log.jsonl")[0]["kind"] == "start"
    state = load_file(next((tmp_path / "run").glob("checkpoint-*2")) / "training" / "optimizer.safetensors")
    old = sums_of(training_variables(CONTENT, 4))
    assert (state["softmax.bias.sum"].numpy() >= old["lm_head.bias"].astype("f4")).all()

    (tmp_path / "gone").mkdir()
    training.rename(tmp_path / "gone" / "training")  # the run goes on without it
    run = launcher.start(small_run(tmp_path, max_steps=3, save_every=1, **same))
    assert run.wait() == [0], run.err
    assert "Adagrad" not in run.out
    assert "Resuming after step 2." in run.out
    load_language_model(str(tmp_path / "run" / "final"))
