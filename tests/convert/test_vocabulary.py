"""Models with a table of word vectors, and vocabularies: which are converted, and which are refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from elmo_hf import ElmoConfig, ElmoModel
from elmo_hf.convert import convert_from_bilm, convert_to_bilm
from tests.helpers.bilm_files import VOCABULARY, read_hdf5, refused, settings, write_source
from tests.helpers.reference import options, write_hdf5


def write_table(folder: Path, rows: int = len(VOCABULARY)) -> Path:
    table = np.random.default_rng(3).normal(size=(rows, 8)).astype(np.float32)
    write_hdf5(folder / "token_embeddings.hdf5", {"embedding": table})
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return folder / "token_embeddings.hdf5"


def test_table_beside_characters_is_ignored(source: Path, tmp_path: Path) -> None:
    write_table(source, rows=5)  # too small for the vocabulary
    config = ElmoConfig.from_pretrained(convert_from_bilm([source], tmp_path / "target"))
    assert config.token_encoder == "characters"


@pytest.mark.parametrize("weights_have_characters", [True, False])
def test_named_table_replaces_the_characters(
    source: Path, tmp_path: Path, weights_have_characters: bool
) -> None:
    table = write_table(source)
    lstm = {name: array for name, array in read_hdf5(source / "weights.hdf5").items() if "RNN" in name}
    if not weights_have_characters:
        write_hdf5(source / "weights.hdf5", lstm)
    folder = convert_from_bilm([source, table], tmp_path / "target")
    model = ElmoModel.from_pretrained(folder)
    assert model.config.token_encoder == "words"
    assert np.array_equal(model.token_encoder.word_embedding.weight.detach(), read_hdf5(table)["embedding"])
    assert (folder / "options.json").read_bytes() == (source / "options.json").read_bytes()

    # The original options describe characters, so new ones are written.
    back = convert_to_bilm(folder, tmp_path / "back")
    assert "char_cnn" not in json.loads((back / "options.json").read_text())
    assert read_hdf5(back / "weights.hdf5").keys() == lstm.keys() | {"embedding"}
    assert settings(convert_from_bilm([back], tmp_path / "again")) == settings(folder)


def test_table_for_options_without_characters(tmp_path: Path) -> None:
    """The folder of a word-level model has its table in a separate file."""
    source = write_source(tmp_path / "source", options(word_level=True))
    arrays = read_hdf5(source / "weights.hdf5")
    write_hdf5(source / "table.hdf5", {"embedding": arrays.pop("embedding")})
    write_hdf5(source / "weights.hdf5", arrays)
    folder = convert_from_bilm([source], tmp_path / "target")
    table = ElmoModel.from_pretrained(folder).token_encoder.word_embedding.weight
    assert np.array_equal(table.detach(), read_hdf5(source / "table.hdf5")["embedding"])
    # A second table in the weights is refused.
    write_hdf5(source / "weights.hdf5", {**arrays, "embedding": np.ones((8, 8), np.float32)})
    refused([source], "weights.hdf5", "'embedding'")


def test_words_need_a_vocabulary(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", options(word_level=True))
    (source / "vocab.txt").unlink()
    refused([source], "weights.hdf5", "'embedding'", "vocabulary")


def test_softmax_needs_a_vocabulary(language_model: Path) -> None:
    (language_model / "vocab.txt").unlink()
    refused([language_model], "softmax.hdf5", "'softmax/W'", "vocabulary")


@pytest.mark.parametrize("words", [VOCABULARY[:-1], [*VOCABULARY, "more"], VOCABULARY[1:]])
def test_vocabulary_of_another_size(language_model: Path, tmp_path: Path, words: list[str]) -> None:
    (language_model / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    if "<S>" not in words:  # it is appended, which makes the number right
        convert_from_bilm([language_model], tmp_path / "target")
        return
    refused([language_model], "softmax.hdf5", "'softmax/W'", " 8 ", f" {len(words)} ", "vocab.txt")


def test_table_of_another_size(source: Path) -> None:
    table = write_table(source, rows=5)
    refused([source, table], "token_embeddings.hdf5", "'embedding'", " 5 ", " 8 ", "vocab.txt")


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "empty"), (b" \n\n", "empty"), ("<S>\nZürich".encode("latin-1"), "UTF-8")]
)
def test_hostile_vocabulary(source: Path, content: bytes, word: str) -> None:
    (source / "vocab.txt").write_bytes(content)
    refused([source], str(source / "vocab.txt"), word)


def test_huge_vocabulary(source: Path) -> None:
    with (source / "vocab.txt").open("wb") as file:
        file.truncate(1 << 40)  # sparse on the disk, but not in memory
    refused([source], str(source / "vocab.txt"), "too large")
