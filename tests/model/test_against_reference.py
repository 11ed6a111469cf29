"""The package gives the numbers of `reference.py` for every variant of ELMo that was ever published, and the
reference gives the vectors that were published with the two original implementations.

Words are cut and not ASCII, sentences are empty or one word long, batches are padded left and right, empty
or without rows, states go from batch to batch while the number of rows changes.
"""

import copy
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from elmo_hf import ElmoForPreTraining, ElmoModel, ElmoScalarMix, ElmoTokenizer
from elmo_hf.convert import convert_from_bilm
from tests.helpers.reference import (
    Elmo,
    character_ids,
    options,
    random_options,
    random_softmax,
    random_weights,
    scalar_mix,
    write_hdf5,
)

TOLERANCE = 1e-5
FIXTURE_TOLERANCE = 2e-6

# Of the LSTMs' weights: both clips are at work, and float32 is still good for TOLERANCE.
SCALE = 2.0


def without(variant: dict, *names: str) -> dict:
    variant = copy.deepcopy(variant)
    for name in names:
        for settings in variant.values():
            settings.pop(name, None)
    return variant


FILTERS_OF_SIZE_8 = ((1, 3), (2, 5))
VARIANTS = {
    "base": options(),
    "no highway": options(n_highway=0),
    "no highway, left out": without(options(n_highway=0), "n_highway"),
    "one highway": options(n_highway=1),
    "tanh": options(activation="tanh"),
    "no char projection": options(filters=FILTERS_OF_SIZE_8),
    "char projection though sizes are equal": options(filters=FILTERS_OF_SIZE_8),
    "no LSTM projection": options(dim=8, projection_dim=8),
    "no LSTM projection, fewer cells": options(dim=6, projection_dim=8),
    "no clips": options(cell_clip=None, proj_clip=None),
    "no clips, left out": without(options(), "cell_clip", "proj_clip"),
    "cell clip only": options(proj_clip=None),
    "projection clip only": options(cell_clip=None),
    "no skip": options(use_skip_connections=False),
    "no skip, left out": without(options(), "use_skip_connections"),
    "one layer": options(n_layers=1),
    "three layers": options(n_layers=3),
    "20 characters": options(max_characters=20),
    "words": options(word_level=True),
    "words in another order": options(word_level=True),
}

VOCABULARY = ["<S>", "</S>", "<UNK>", "the", ".", "cat", "sat", "on", "mat", "The", "Zürich", "日本語"]

CUT = "a" + "é" * 40  # an é is cut in two at 48 bytes, and at 18
LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
SENTENCES = [
    ["The", "cat", "sat", "on", "the", "mat", "."],
    [],
    [LONG],
    [CUT, "日本語", "日本語" * 8, "😀", "naïve", "<UNK>", "</S>", "<S>", "x"],
    ["cat", "<UNK>", "Zürich"],
]

# The rows of these batches are 3, 5, 2 and 4.
CARRIED = [
    [["The", "cat", "sat"], [], ["."]],
    SENTENCES,
    [["Zürich"], [CUT, "on", "the", "mat", "."]],
    [["on"], ["The", "<UNK>", LONG], [], ["sat", "."]],
]


@dataclass
class Case:
    """One variant: the reference, and the folder of its converted checkpoint."""

    label: str
    options: dict
    reference: Elmo
    softmax: dict
    vocabulary: list[str]
    folder: Path

    def __post_init__(self) -> None:
        self.model = ElmoModel.from_pretrained(self.folder).eval()
        self.tokenizer = ElmoTokenizer.from_pretrained(self.folder)

    def encode(self, sentences: list[list[str]], side: str = "right"):
        self.tokenizer.padding_side = side
        return self.tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt")

    @torch.no_grad()
    def run(self, sentences: list[list[str]], states=None, side: str = "right"):
        batch = self.encode(sentences, side)
        output = self.model(**batch, states=states, output_states=True, output_hidden_states=True)
        return output, batch["attention_mask"].bool()


def make_case(label: str, variant: dict, folder: Path, seed: int = 3) -> Case:
    vocabulary = VOCABULARY[::-1] if label == "words in another order" else VOCABULARY
    char_projection = True if label == "char projection though sizes are equal" else None
    weights = random_weights(variant, seed, SCALE, len(vocabulary), char_projection)
    softmax = random_softmax(variant, seed, len(vocabulary))
    source, target = folder / "bilm", folder / "converted"
    source.mkdir()
    (source / "options.json").write_text(json.dumps(variant))
    (source / "vocab.txt").write_text("".join(word + "\n" for word in vocabulary), encoding="utf-8")
    write_hdf5(source / "weights.hdf5", weights)
    write_hdf5(source / "softmax.hdf5", softmax)
    convert_from_bilm([source], target)
    return Case(label, variant, Elmo(variant, weights, vocabulary), softmax, vocabulary, target)


@pytest.fixture(scope="module", params=VARIANTS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(request.param, VARIANTS[request.param], tmp_path_factory.mktemp("variant"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case("base", VARIANTS["base"], tmp_path_factory.mktemp("base"))


def assert_close(ours, expected: np.ndarray, what: str, tolerance: float = TOLERANCE) -> None:
    assert tuple(ours.shape) == expected.shape, what
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=tolerance, err_msg=what)


def assert_layers_equal(output, mask: torch.Tensor, layers: list, what: str = "") -> int:
    """Every layer of every word; padding holds no word but must be finite. -> number of words"""
    assert len(layers) == len(mask)
    words = 0
    for row, sentence in enumerate(layers):
        assert len(sentence) == len(output.hidden_states)
        for k, expected in enumerate(sentence):
            ours = output.hidden_states[k][row][mask[row]]
            assert_close(ours, expected, f"{what} sentence {row}, layer {k}")
        words += len(sentence[0])
    assert all(torch.isfinite(layer).all() for layer in output.hidden_states)
    assert torch.equal(output.last_hidden_state, output.hidden_states[-1])
    return words


def assert_states_equal(ours, expected, what: str = "") -> None:
    for name, got, reference in zip(("h", "c"), ours, expected, strict=True):
        assert_close(got, reference, f"{what} state {name}")


# ---- The reference itself.


def read_hdf5(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: arrays.update({name: item[()]} if isinstance(item, h5py.Dataset) else {})
        )
    return arrays


SENTENCE_FILES = {"allennlp": "sentences.json", "bilm-tf": "lm_embeddings_sentences.json"}


def published_batches(folder: Path) -> Iterator[tuple[list[list[str]], list[np.ndarray]]]:
    """The ten batches of three sentences, and the top layer (words, 2 * P) of each sentence."""
    rows = json.loads((folder / SENTENCE_FILES[folder.name]).read_text(encoding="utf-8"))
    vectors = [read_hdf5(folder / f"lm_embeddings_{row}.hdf5") for row in range(3)]
    for number in range(10):
        sentences = [row[number].split() for row in rows]
        yield sentences, [np.concatenate(list(row[str(number)]), axis=1) for row in vectors]


def published_reference(folder: Path) -> Elmo:
    return Elmo(json.loads((folder / "options.json").read_text()), read_hdf5(folder / "lm_weights.hdf5"))


def published_tokens(folder: Path) -> tuple[list[str], np.ndarray]:
    words = (folder / "vocab_test.txt").read_text(encoding="utf-8").split("\n")
    return words, read_hdf5(folder / "elmo_token_embeddings.hdf5")["embedding"]


@pytest.mark.parametrize("name", SENTENCE_FILES)
def test_reference_gives_the_published_vectors(shared_fixtures: Path, name: str) -> None:
    reference, states, compared = published_reference(shared_fixtures / name), None, 0
    for sentences, expected in published_batches(shared_fixtures / name):
        layers, states = reference.run(sentences, states)
        for ours, theirs in zip(layers, expected, strict=True):
            np.testing.assert_allclose(ours[-1], theirs, rtol=0, atol=FIXTURE_TOLERANCE)
            compared += 1
    assert compared == 30


def test_reference_gives_the_published_token_vectors(shared_fixtures: Path) -> None:
    reference = published_reference(shared_fixtures / "allennlp")
    words, expected = published_tokens(shared_fixtures / "allennlp")
    assert len(words) == len(expected) == 458
    ours = np.stack([reference.word_vector(word) for word in words])
    np.testing.assert_allclose(ours, expected, rtol=0, atol=FIXTURE_TOLERANCE)


def test_reference_character_rows() -> None:
    """The rows that the format's description spells out."""
    assert character_ids("<S>") == [259, 257, 260] + [261] * 47
    assert character_ids("</S>") == [259, 258, 260] + [261] * 47
    assert character_ids("a") == [259, ord("a") + 1, 260] + [261] * 47
    assert character_ids("a" * 60) == [259] + [ord("a") + 1] * 48 + [260]
    assert character_ids("<UNK>", 8) == [259, *(byte + 1 for byte in b"<UNK>"), 260, 261]
    for limit in (20, 50):
        kept = CUT.encode()[: limit - 2]
        assert character_ids(CUT, limit) == [259, *(byte + 1 for byte in kept), 260]
        with pytest.raises(UnicodeDecodeError):
            kept.decode()


class WatchedElmo(Elmo):
    """Notes the smallest and largest numbers of each direction's h and c."""

    def cell(self, path: str, *inputs):
        output = super().cell(path, *inputs)
        for name, vector in zip(("h", "c"), output, strict=True):
            seen = self.extremes.setdefault((name, path[: len("RNN_0")]), [0.0, 0.0])
            seen[:] = min(seen[0], vector.min()), max(seen[1], vector.max())
        return output


def test_clips_fire_in_both_directions(case: Case) -> None:
    """Or the comparisons below would not see that a clip is missing, or one too many."""
    watched = WatchedElmo(case.options, case.reference.weights, case.vocabulary)
    watched.extremes = {}
    watched.run(SENTENCES)
    assert len(watched.extremes) == 4
    lstm, usual = case.options["lstm"], options()["lstm"]
    for (name, _), (smallest, largest) in watched.extremes.items():
        key = {"h": "proj_clip", "c": "cell_clip"}[name]
        is_projected = lstm["projection_dim"] < lstm["dim"]
        if lstm.get(key) is None or (name == "h" and not is_projected):
            assert min(-smallest, largest) > usual[key]
        else:
            assert (smallest, largest) == (-lstm[key], lstm[key])


# ---- The package against the published vectors.


@pytest.fixture(params=SENTENCE_FILES)
def published(request: pytest.FixtureRequest, shared_fixtures: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A published fixture set, and its converted checkpoint."""
    folder, source, target = shared_fixtures / request.param, tmp_path / "bilm", tmp_path / "converted"
    source.mkdir()
    shutil.copyfile(folder / "options.json", source / "options.json")
    shutil.copyfile(folder / "lm_weights.hdf5", source / "weights.hdf5")
    convert_from_bilm([source], target)
    return folder, target


@torch.no_grad()
def test_published_vectors(published: tuple[Path, Path]) -> None:
    folder, target = published
    model, tokenizer = ElmoModel.from_pretrained(target).eval(), ElmoTokenizer.from_pretrained(target)
    states, compared = None, 0
    for sentences, expected in published_batches(folder):
        batch = tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt")
        output = model(**batch, states=states, output_states=True)
        states = output.states
        for row, theirs in enumerate(expected):
            ours = output.last_hidden_state[row][batch["attention_mask"][row].bool()]
            assert_close(ours, theirs, f"row {row}", FIXTURE_TOLERANCE)
            compared += 1
    assert compared == 30


@torch.no_grad()
@pytest.mark.parametrize("published", ["allennlp"], indirect=True)
def test_published_token_vectors(published: tuple[Path, Path]) -> None:
    folder, target = published
    words, expected = published_tokens(folder)
    model, tokenizer = ElmoModel.from_pretrained(target).eval(), ElmoTokenizer.from_pretrained(target)
    batch = tokenizer([[word] for word in words], is_split_into_words=True, return_tensors="pt")
    layer = model(**batch, output_hidden_states=True).hidden_states[0][:, 0]
    half = layer.shape[-1] // 2
    assert len(layer) == 458
    assert_close(layer[:, :half], expected, "first half", FIXTURE_TOLERANCE)
    assert_close(layer[:, half:], expected, "second half", FIXTURE_TOLERANCE)


# ---- The package against the reference.


def test_every_variant_is_tested() -> None:
    assert len(VARIANTS) == 20
    assert [len(batch) for batch in CARRIED] == [3, 5, 2, 4]


def test_character_ids(case: Case) -> None:
    limit = case.options.get("char_cnn", {}).get("max_characters_per_token", 50)
    words = [word for sentence in SENTENCES for word in sentence] + ["", "\0", "a\0"]
    rows = case.encode([words])["char_ids"][0].tolist()
    assert rows == [character_ids(word, limit) for word in words]


def test_word_ids(case: Case) -> None:
    words = [word for sentence in SENTENCES for word in sentence]
    known = [word if word in case.vocabulary else "<UNK>" for word in words]
    assert case.encode([words])["input_ids"][0].tolist() == [case.vocabulary.index(word) for word in known]


@pytest.mark.parametrize("side", ["right", "left"])
def test_layers(case: Case, side: str) -> None:
    output, mask = case.run(SENTENCES, side=side)
    assert not mask[:, -1 if side == "right" else 0].all()
    layers, states = case.reference.run(SENTENCES)
    assert assert_layers_equal(output, mask, layers) == 20
    assert_states_equal(output.states, states)


def test_each_sentence_alone(case: Case) -> None:
    words = 0
    for sentence in SENTENCES:
        output, mask = case.run([sentence])
        words += assert_layers_equal(output, mask, case.reference.run([sentence])[0])
    assert words == 20


def test_without_masks(case: Case) -> None:
    """Rows of zeros are padding by themselves, and so is padding's word id."""
    batch = case.encode(SENTENCES)
    mask = batch.pop("attention_mask").bool()
    with torch.no_grad():
        output = case.model(**batch, output_hidden_states=True)
    assert assert_layers_equal(output, mask, case.reference.run(SENTENCES)[0]) == 20


def test_states_are_carried(case: Case) -> None:
    ours = theirs = None
    rows, words = 0, 0
    for number, sentences in enumerate(CARRIED):
        output, mask = case.run(sentences, ours, side=["right", "left"][number % 2])
        layers, theirs = case.reference.run(sentences, theirs)
        words += assert_layers_equal(output, mask, layers, f"batch {number}")
        assert_states_equal(output.states, theirs, f"batch {number}")
        ours, rows = output.states, max(rows, len(sentences))
        assert ours[0].shape[2] == ours[1].shape[2] == rows
    assert words == 36


def test_states_are_not_kept_inside(case: Case) -> None:
    first, _ = case.run(SENTENCES)
    case.run(CARRIED[0], first.states)
    again, _ = case.run(SENTENCES)
    assert torch.equal(first.last_hidden_state, again.last_hidden_state)


def test_batch_of_empty_sentences(case: Case) -> None:
    _, earlier = case.reference.run(SENTENCES[:3])
    carried = tuple(torch.tensor(state, dtype=torch.float32) for state in earlier)
    for ours, theirs in ((None, None), (carried, earlier)):
        output, mask = case.run([[], [], []], ours)
        layers, states = case.reference.run([[], [], []], theirs)
        assert mask.shape == (3, 0)
        assert assert_layers_equal(output, mask, layers) == 0
        assert_states_equal(output.states, states)


def test_batch_without_rows(case: Case) -> None:
    output, _ = case.run(SENTENCES)
    batch = {name: tensor[:0] for name, tensor in case.encode(SENTENCES).items()}
    shapes = [(0, *layer.shape[1:]) for layer in output.hidden_states]
    for states in (None, output.states):
        with torch.no_grad():
            empty = case.model(**batch, states=states, output_states=True, output_hidden_states=True)
        assert [layer.shape for layer in empty.hidden_states] == shapes
        _, expected = case.reference.run([], states and tuple(state.numpy() for state in states))
        assert_states_equal(empty.states, expected)


@torch.no_grad()
@pytest.mark.parametrize("side", ["right", "left"])
def test_losses(case: Case, side: str) -> None:
    model = ElmoForPreTraining.from_pretrained(case.folder).eval()
    batch = case.encode(SENTENCES, side)
    labels = batch["input_ids"].masked_fill(~batch["attention_mask"].bool(), -100)
    output = model(**batch, labels=labels)

    ids = [row[mask.bool()].tolist() for row, mask in zip(labels, batch["attention_mask"], strict=True)]
    begin, end = case.vocabulary.index("<S>"), case.vocabulary.index("</S>")
    forward, backward, count = case.reference.losses(SENTENCES, ids, case.softmax, begin, end)
    assert count == 20 + len(SENTENCES)
    assert output.forward_loss.item() == pytest.approx(forward, abs=TOLERANCE)
    assert output.backward_loss.item() == pytest.approx(backward, abs=TOLERANCE)
    assert output.loss.item() == pytest.approx(0.5 * (forward + backward), abs=TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("layer_norm", [False, True], ids=["plain", "layer norm"])
def test_scalar_mix(base: Case, layer_norm: bool, side: str) -> None:
    output, mask = base.run(SENTENCES, side=side)
    layers, _ = base.reference.run(SENTENCES)
    mixer = ElmoScalarMix(num_layers=3, num_mixes=2, layer_norm=layer_norm).eval()
    mixer.weights.copy_(torch.tensor([[0.5, -1.0, 2.0], [-3.0, 0.0, 0.25]]))
    mixer.gamma.copy_(torch.tensor([0.75, -2.0]))
    mixes = mixer(output.hidden_states, mask)
    assert len(mixes) == 2
    for mix, weights, gamma in zip(mixes, mixer.weights, mixer.gamma, strict=True):
        expected = scalar_mix(layers, weights.double().numpy(), gamma.item(), layer_norm)
        for row, sentence in enumerate(expected):
            assert_close(mix[row][mask[row]], sentence, f"sentence {row}")


@pytest.mark.parametrize("seed", range(12))
def test_random_variants(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    case = make_case("random", random_options(seed), tmp_path, seed)
    letters = list("abcXYZ0.-é日😀") + VOCABULARY
    ours = theirs = None
    words = 0
    for number in range(3):
        sentences = [
            ["".join(rng.choice(letters, rng.integers(1, 30))) for _ in range(rng.integers(0, 8))]
            for _ in range(rng.integers(1, 6))
        ]
        output, mask = case.run(sentences, ours, side=["left", "right"][number % 2])
        layers, theirs = case.reference.run(sentences, theirs)
        ours = output.states
        words += assert_layers_equal(output, mask, layers, f"batch {number}")
        assert_states_equal(ours, theirs, f"batch {number}")
    assert words > 5
