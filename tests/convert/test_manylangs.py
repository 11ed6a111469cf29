"""Converted folders of ELMoForManyLangs give the vectors of its own code and of the numpy reference."""

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from elmo_hf import ElmoConfig, ElmoForPreTraining, ElmoModel, ElmoTokenizer, kernels
from elmo_hf.convert import convert, lexicons
from elmo_hf.errors import ElmoError
from tests.helpers.naive_manylangs import (
    LETTERS,
    SPECIAL_LETTERS,
    WORDS,
    ManyLangs,
    content,
    lexicon_of,
    random_content,
    read_lexicon,
    write_folder,
    write_lexicon,
)

TOLERANCE = 1e-5
DONAU = "donau" * 9 + "abc"  # as long as a word may be in a row of 50
# Known and unknown letters and words, words that are cut, the names of boundaries as text, white space.
SENTENCES = [
    ["Der", "Bär", "lief", "."],
    ["今天", "<bos>", "x🙂y", "天氣"],
    [DONAU, DONAU + "def", "<oov>", "<pad>", "<PAD>"],
    ["<eos>"],
    ["a\u3000b", "\u3000", "-'", "Zé", "der", "DER", "\N{LATIN SMALL LETTER A}\N{COMBINING DIAERESIS}"],
    ["<bow>", "B" * 60, "<eow>", "0"],
]


Read = Callable[..., list[np.ndarray]]


def reader(folder: Path) -> Read:
    tokenizer, model = ElmoTokenizer.from_pretrained(folder), ElmoModel.from_pretrained(folder).eval()
    return partial(read, tokenizer, model)


@torch.no_grad()
def read(
    tokenizer: ElmoTokenizer, model: ElmoModel, sentences: list[list[str]], side: str = "right"
) -> list[np.ndarray]:
    """All layers of each sentence, (layers + 1, words, dim), from its words on."""
    options = {"padding": True, "padding_side": side, "return_tensors": "pt"}
    batch = tokenizer(sentences, is_split_into_words=True, **options)
    states = model(**batch, output_hidden_states=True).hidden_states
    masks = batch["attention_mask"].bool()
    assert all(not layer[~masks].any() for layer in states)
    return [np.stack([layer[row][mask].numpy() for layer in states]) for row, mask in enumerate(masks)]


def assert_equal(actual: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(actual) == len(expected) > 0
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)


def assert_reads_as(folder: Path, source: Path, sentences: list[list[str]] = SENTENCES) -> None:
    """Each sentence alone, and all in batches that are padded on either side."""
    reference, read = ManyLangs(source), reader(folder)
    expected = [reference.layers(sentence) for sentence in sentences]
    for side in ("right", "left"):
        assert_equal(read(sentences, side), expected)
    assert_equal([read([sentence])[0] for sentence in sentences], expected)


def converted(tmp_path: Path, *arguments: object, **options: object) -> tuple[Path, Path]:
    """A made-up folder, and what it converts to."""
    source = write_folder(tmp_path / "source", *arguments, **options)  # type: ignore[arg-type]
    convert([source], tmp_path / "target")
    return tmp_path / "target", source


# ---- their own vectors


@pytest.fixture(params=["letters_words", "letters"])
def fixture(request: pytest.FixtureRequest, shared_fixtures: Path) -> Path:
    return shared_fixtures / "manylangs" / request.param


@pytest.fixture(params=["auto", "readable"])
def any_kernels(request: pytest.FixtureRequest, default_kernels: None) -> str:
    kernels.use(request.param)
    return str(request.param)


def test_the_reference_gives_the_vectors_of_their_code(fixture: Path) -> None:
    sentences = json.loads((fixture / "sentences.json").read_text(encoding="utf-8"))
    expected = np.load(fixture / "expected.npz")
    reference = ManyLangs(fixture)
    assert_equal([reference.layers(sentence) for sentence in sentences], [*expected.values()])


def test_vectors_of_their_code(fixture: Path, any_kernels: str, tmp_path: Path) -> None:
    sentences = json.loads((fixture / "sentences.json").read_text(encoding="utf-8"))
    expected = [*np.load(fixture / "expected.npz").values()]
    convert([fixture], tmp_path / "elmo")
    read = reader(tmp_path / "elmo")
    for side in ("right", "left"):
        assert_equal(read(sentences, side), expected)
        assert_equal(read(sentences[::-1], side), expected[::-1])
    assert_equal([read([sentence])[0] for sentence in sentences], expected)
    assert_reads_as(tmp_path / "elmo", fixture)


# ---- made-up folders


@pytest.mark.parametrize("seed", range(24))
def test_random_folders(tmp_path: Path, seed: int) -> None:
    folder, source = converted(tmp_path, random_content(seed), seed)
    assert_reads_as(folder, source)


def test_random_folders_cover_every_variant() -> None:
    drawn = [random_content(seed) for seed in range(24)]
    encoders, embedders = ([x[name] for x in drawn] for name in ("encoder", "token_embedder"))
    assert {(x["word_dim"] > 0, x["char_dim"] > 0) for x in embedders} == {(0, 1), (1, 0), (1, 1)}
    assert {x["n_layers"] for x in encoders} == {1, 2, 3}
    assert {x["activation"] for x in embedders} == {"relu", "tanh"}
    assert {x["n_highway"] for x in embedders} == {0, 1, 2}
    assert {x["max_characters_per_token"] for x in embedders} == {7, 20, 50}
    assert {x["cell_clip"] for x in encoders} == {None, 0, 0.3, 3}
    assert {np.sign(x["projection_dim"] - x["dim"]) for x in encoders} == {-1, 0, 1}


@pytest.mark.parametrize("name", ["cell_clip", "proj_clip"])
def test_clips_are_reached(tmp_path: Path, name: str) -> None:
    """Otherwise the tests above would not notice a clip that is not kept."""
    source = write_folder(tmp_path / "source", content(), 0)
    reference = ManyLangs(source)
    clipped = reference.layers(SENTENCES[0])
    reference.encoder_settings[name] = None
    assert abs(reference.layers(SENTENCES[0]) - clipped).max() > 0.01


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("sizes", [{"word_dim": 0}, {"char_dim": 0}, {}])
def test_stacked_lstms(tmp_path: Path, layers: int, sizes: dict) -> None:
    """Encoder "lstm". The reference of a sentence is that of the sentence alone."""
    folder, source = converted(tmp_path, content(encoder="lstm", n_layers=layers, **sizes))
    assert_reads_as(folder, source)


def test_the_reference_of_stacked_lstms_is_torch(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", content(encoder="lstm", n_layers=3))
    reference = ManyLangs(source)
    rnn = torch.nn.LSTM(6, 12, 3, bidirectional=True, batch_first=True).double()
    weights = {name: torch.from_numpy(array) for name, array in reference.encoder.items()}
    rnn.load_state_dict(
        {name.removeprefix("encoder."): x for name, x in weights.items() if name.startswith("encoder.")}
    )
    x = np.random.default_rng(0).standard_normal((5, 6))
    with torch.no_grad():
        halves = rnn(torch.from_numpy(x)[None])[0][0].chunk(2, dim=-1)
        outputs = [half @ weights["projection.weight"].T + weights["projection.bias"] for half in halves]
    np.testing.assert_allclose(reference.stacked_lstm(x), torch.cat(outputs, dim=-1).numpy(), atol=1e-12)


@pytest.mark.parametrize("max_characters", [7, 50])
@pytest.mark.parametrize("token_embedder", ["cnn", "lstm", "CNN"])
def test_words_alone(tmp_path: Path, token_embedder: str, max_characters: int) -> None:
    """An LSTM "of letters" without letters is a table of words, and does not cut them."""
    sizes = content(token_embedder=token_embedder, char_dim=0, max_characters=max_characters)
    source = write_folder(tmp_path / "source", sizes)
    if token_embedder == "lstm":
        del sizes["token_embedder"]["max_characters_per_token"]
        (source / "cfg.json").write_text(json.dumps(sizes))
    convert([source], tmp_path / "target")
    reference = ManyLangs(write_folder(tmp_path / "same", content(char_dim=0, max_characters=max_characters)))
    reference.settings["name"] = token_embedder.lower()
    expected = [reference.layers(sentence) for sentence in SENTENCES]
    assert_equal(reader(tmp_path / "target")(SENTENCES), expected)
    is_cut = np.allclose(expected[2][0][0], expected[2][0][1])  # DONAU and a longer word
    assert is_cut == (token_embedder != "lstm")


# ---- what becomes of names, rows and sizes


def test_arrays_become_the_right_parameters(tmp_path: Path) -> None:
    folder, source = converted(tmp_path, content(classifier="softmax"), 3, classifier=True)
    ours = ElmoForPreTraining.from_pretrained(folder).state_dict()
    embedder, encoder, softmax = (
        torch.load(source / f"{name}.pkl", weights_only=True)
        for name in ("token_embedder", "encoder", "classifier")
    )
    name = "elmo.token_encoder"
    assert not ours[f"{name}.char_embedding.weight"][0].any()
    assert ours[f"{name}.char_embedding.weight"][1:].equal(embedder["char_emb_layer.embedding.weight"])
    assert ours[f"{name}.word_embedding.weight"].equal(embedder["word_emb_layer.embedding.weight"])
    assert ours[f"{name}.convolutions.1.weight"].equal(embedder["convolutions.1.weight"])
    rows = embedder["highways._layers.1.weight"]
    assert ours[f"{name}.highways.1.transform.weight"].equal(rows[:12])
    assert ours[f"{name}.highways.1.carry.weight"].equal(-rows[12:])
    assert ours[f"{name}.highways.1.carry.bias"].equal(-embedder["highways._layers.1.bias"][12:])
    assert ours[f"{name}.projection.weight"].equal(embedder["projection.weight"])
    i, f, g, o = encoder["backward_layer_1.state_linearity.bias"].split(12)
    assert ours["elmo.layers.1.bias"][1].equal(torch.cat([i, g, f - 1, o]))
    i, f, g, o = encoder["backward_layer_1.input_linearity.weight"].split(12)
    assert ours["elmo.layers.1.input_weight"][1].T.equal(torch.cat([i, g, f, o]))
    i, f, g, o = encoder["forward_layer_0.state_linearity.weight"].split(12)
    assert ours["elmo.layers.0.recurrent_weight"][0].T.equal(torch.cat([i, g, f, o]))
    projection = encoder["forward_layer_0.state_projection.weight"]
    assert ours["elmo.layers.0.projection"][0].T.equal(projection)
    assert ours["lm_head.weight"].equal(softmax["hidden2tag.weight"])
    assert ours["lm_head.bias"].equal(softmax["hidden2tag.bias"])


def test_letters_and_config(tmp_path: Path) -> None:
    folder, source = converted(tmp_path, content())
    ids = ManyLangs(source).letters
    assert ids is not None
    letters = json.loads((folder / "letters.json").read_text(encoding="utf-8"))
    assert {name: letters["letters"][name] - 1 for name in LETTERS} == {name: ids[name] for name in LETTERS}
    names = ["<bos>", "<eos>", "<eow>", "<bow>", "<pad>"]
    config = ElmoConfig.from_pretrained(folder)
    assert config.boundary_characters == [ids[name] + 1 for name in names]
    assert letters["unknown"] == ids["<oov>"] + 1
    assert (config.num_characters, config.vocab_size) == (len(ids) + 1, len(WORDS))
    assert (config.bos_token_id, config.eos_token_id, config.unk_token_id) == (1, 2, 0)
    assert (config.word_embedding_dim, config.lstm_projection, config.char_projection) == (5, True, True)
    assert config.architectures == ["ElmoModel"]
    tokenizer = ElmoTokenizer.from_pretrained(folder)
    assert tokenizer("Der  Bär, lief.").tokens() == ["Der", "Bär,", "lief."]


def test_a_word_may_have_white_space_around_it(tmp_path: Path) -> None:
    names = [*WORDS, "Bär ", "\u00a0", "今 天", "<PAD>"]
    sentence = ["Bär ", "Bär", "\u00a0", "\u3000", "今 天", "<PAD>", "<<PAD>>"]
    for sizes in ({}, {"char_dim": 0}):
        path = tmp_path / str(sizes)
        folder, source = converted(path, content(**sizes), words=lexicon_of(names))
        assert ManyLangs(source).words["\u3000"] == len(WORDS) + 1  # type: ignore[index]
        assert_reads_as(folder, source, [sentence])


# ---- lexicons as they are


def swapped(names: list[str]) -> dict[str, int]:
    """Ids in another order than the lines."""
    return {name: len(names) - 1 - number for number, name in enumerate(names)}


LETTER_NAMES = list(dict.fromkeys(["<bos>", "<eos>", *LETTERS, *SPECIAL_LETTERS]))
LEXICONS = {
    "another order": (swapped(LETTER_NAMES), swapped(WORDS)),
    "equal ids": (
        lexicon_of(LETTER_NAMES) | {"D": 5, "<bow>": 4, "<pad>": 4, "<eow>": 5},
        lexicon_of(WORDS) | {"Der": 0, "lief": 5, "<eos>": 5},
    ),
    "no words for boundaries": (None, {"<pad>": 1, "<oov>": 2, "Der": 3, "Bär": 0}),
    "unknown words after others": (None, {"Der": 0, "<pad>": 1, "Bär": 2, "<oov>": 3, ".": 4}),
    "unused names": (lexicon_of(LETTER_NAMES) | {"ab": -7, "<XX>": 99_999}, None),
}


@pytest.mark.parametrize("label", LEXICONS)
@pytest.mark.parametrize("sizes", [{}, {"char_dim": 0}])
def test_lexicons_that_their_code_accepts(tmp_path: Path, label: str, sizes: dict) -> None:
    letters, words = LEXICONS[label]
    folder, source = converted(tmp_path, content(**sizes), letters=letters, words=words)
    assert_reads_as(folder, source)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\u2028", "\x85", "\x0b", "\r"])
def test_line_breaks(tmp_path: Path, end: str) -> None:
    source = write_folder(tmp_path / "source", content())
    for name in ("char.dic", "word.dic"):
        text = (source / name).read_bytes().decode("utf-8")
        (source / name).write_bytes(text.replace("\n", end).encode("utf-8"))
    convert([source], tmp_path / "target")
    assert_reads_as(tmp_path / "target", source)


def test_lexicons_are_read_as_by_their_code(tmp_path: Path) -> None:
    """Random lines, names, white space and line breaks: the same ids, or both refuse the file."""
    rng, path, accepted = random.Random(0), tmp_path / "char.dic", 0
    pieces = ["a\t1\n", "b\t2\r\n", "3\n", "\t4\n", " c \t 5 \n", "é\u3000\t6\u2028", "\x1f\t7\n", "a\t8\x85"]
    pieces += ["\ufeffd\t9\x0b", "e\t٣\r", "f\t+1_0\x1c", "g" * 80 + "\t2\n", "🙂\t0\n", "h\t-1\x1e"]
    for number in range(400):
        text = "".join(
            rng.choices([*pieces, "\n", "x\n", "\r"] if number % 4 == 0 else pieces, k=rng.randrange(30))
        )
        path.write_bytes(text.encode("utf-8"))
        try:
            expected = read_lexicon(path)
        except ValueError:
            with pytest.raises(ElmoError):
                lexicons.read_lexicon(path, 10_000)
            continue
        assert lexicons.read_lexicon(path, 10_000) == expected
        accepted += 1
    assert 200 < accepted < 380


def test_the_last_of_two_equal_names_counts(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", content())
    for name, line in (("char.dic", "e\t0\n"), ("word.dic", "Der\t3\n")):
        (source / name).write_text(line + (source / name).read_text(encoding="utf-8"), encoding="utf-8")
    convert([source], tmp_path / "target")
    assert_reads_as(tmp_path / "target", source)
    write_lexicon(source / "extra.dic", {})  # another file does not matter
    with (source / "word.dic").open("a", encoding="utf-8") as file:
        file.write("Der\t0\n")
    convert([source], tmp_path / "again")
    assert_reads_as(tmp_path / "again", source)
