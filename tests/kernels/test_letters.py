"""Letters of a lexicon and words beside them, by tables and by products: the numbers of the readable code.

Tables of all letters are made and kept only where they are small; else those of a batch's letters.
"""

import pytest
import torch

from elmo_hf import kernels
from elmo_hf.kernels import characters
from tests.helpers.varied_elmo import varied_batch, varied_model

pytestmark = pytest.mark.usefixtures("nan_in_empty_tensors", "default_kernels")

KINDS = ["letters", "words beside letters", "words beside bytes"]
WAYS = ["kept tables", "tables of the batch", "products", "as written"]


def encode(way, encoder, ids, monkeypatch):
    if way == "readable":
        kernels.use("readable")
        words = encoder(ids)
        kernels.use("auto")
        return words
    monkeypatch.setattr(characters, "MAX_KEPT", 0 if way == "tables of the batch" else 2**30)
    if way == "products":  # as on a GPU
        return characters.encode_by_products(encoder, ids.flatten(0, -2)).unflatten(0, ids.shape[:-1])
    return characters.encode(encoder, ids, by_tables="tables" in way)


def results(way, encoder, ids, monkeypatch):
    """Vectors without gradients, with gradients, and the gradients, of a loss in which each number counts."""
    encoder.zero_grad()
    with torch.no_grad():
        read = encode(way, encoder, ids, monkeypatch)
    words = encode(way, encoder, ids, monkeypatch)
    (words * torch.linspace(1, 2, words.numel()).view(words.shape).to(words)).sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in encoder.named_parameters()}
    return {"read": read, "trained": words.detach()} | gradients


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(4))
def test_vectors_and_gradients(kind, way, seed, monkeypatch):
    model = varied_model(kind, seed, char_filters=[[1, 3], [2, 4], [5, 2]])
    monkeypatch.setattr(characters, "BLOCK_WORDS", 3)  # several blocks
    ids, encoder = varied_batch(model, seed, "between")[0]["char_ids"], model.token_encoder
    for rows in (ids, ids[:0], ids[2:3], encoder.boundary_ids()):
        expected = results("readable", encoder, rows, monkeypatch)
        actual = results(way, encoder, rows, monkeypatch)
        for name, value in expected.items():
            size = max(1.0, value.abs().max().item()) if value.numel() else 1.0
            torch.testing.assert_close(actual[name] / size, value / size, atol=1e-5, rtol=0)
        assert (actual["char_embedding.weight"][0] == 0).all()


@pytest.mark.parametrize("way", WAYS)
def test_padding_within_a_word_counts(way, monkeypatch):
    """Its vector is a letter's like any other, and takes part in the maximum."""
    encoder = varied_model("letters").token_encoder
    padding = encoder.config.boundary_characters[-1]
    with torch.no_grad():
        encoder.char_embedding.weight[padding] = 5.0
        for conv in encoder.convolutions:
            conv.weight.abs_()
    ids = torch.tensor([[36, 1, 37] + [padding] * 5])
    results_of = results(way, encoder, ids, monkeypatch)
    assert results_of["char_embedding.weight"][padding].abs().sum() > 0
    kernels.use("readable")
    torch.testing.assert_close(results_of["read"], encoder(ids))


def test_equal_letters_of_two_words_are_two_words(monkeypatch):
    encoder = varied_model("words beside letters").token_encoder
    ids = torch.tensor([[36, 1, 37, 39, 39, 39, 39, 39, word] for word in (3, 4, 3)])
    with torch.no_grad():
        first, other, again = encode("kept tables", encoder, ids, monkeypatch)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)


LARGE = {"num_characters": 20_000, "char_filters": [[1, 8], [7, 60]]}  # tables of all letters: 33 MiB


@pytest.fixture
def sizes(monkeypatch):
    """The numbers of letters of which tables were made."""
    numbers, make = [], characters.make_tables

    def record(*arguments):
        tables = make(*arguments)
        numbers.append(tables[0][0].shape[1])
        return tables

    monkeypatch.setattr(characters, "make_tables", record)
    return numbers


@pytest.mark.parametrize("learns", [False, True])
def test_a_large_lexicon_needs_no_table_of_all_letters(learns, sizes):
    encoder = varied_model("letters", **LARGE).token_encoder
    ids = torch.tensor([[36, 19_999, 37, 39, 39, 39, 39, 39], [36, 7, 8, 37, 39, 39, 39, 39]])
    with torch.set_grad_enabled(learns):
        actual = encoder(ids)
        encoder(ids)
    assert sizes == [7, 7]  # 36, 37, 39, 7, 8, 19_999, and 0
    kernels.use("readable")
    expected = encoder(ids)
    assert (actual - expected).abs().max() < 1e-5 * expected.abs().max()


def test_tables_of_a_small_lexicon_are_kept(sizes):
    encoder = varied_model("letters").token_encoder
    ids = encoder.boundary_ids()
    with torch.no_grad():
        encoder(ids)
        encoder(ids)
    assert sizes == [40]


def test_rows_of_letters_that_do_not_occur_have_no_gradient():
    encoder = varied_model("letters", **LARGE).token_encoder
    ids = torch.tensor([[36, 19_999, 37, 39, 39, 39, 39, 39]])
    encoder(ids).sum().backward()
    touched = encoder.char_embedding.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert set(touched) <= {36, 37, 39, 19_999}
    assert 19_999 in touched


@pytest.mark.parametrize("choice", ["bf16", "int8"])
def test_rounded_choices_are_near(choice):
    model = varied_model("words beside letters", lstm_dim=64, projection_dim=32)
    batch, _ = varied_batch(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.3)
        exact = model(**batch).last_hidden_state
        kernels.use(choice)
        rounded = model(**batch).last_hidden_state
    assert kernels.why_not() == ""
    error = (rounded - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert 0 < error < 0.05


def test_words_beside_letters_are_served():
    model = varied_model("words beside letters")
    batch, _ = varied_batch(model)
    with torch.no_grad():
        model(**batch)
        assert kernels.why_not() == ""
        model.token_encoder.word_embedding.register_forward_hook(lambda *_: None)
        model(**batch)
    assert r".word_embedding (Embedding) has a hook" in kernels.why_not()


def test_a_changed_word_changes_what_is_kept():
    """The state after sentence begin depends on the word vector of that word."""
    model = varied_model("words beside letters")
    batch, _ = varied_batch(model)
    with torch.no_grad():
        before = model(**batch).last_hidden_state
        model.token_encoder.word_embedding.weight.data[model.config.bos_token_id] += 1
        after = model(**batch).last_hidden_state
        kernels.use("readable")
        assert not torch.allclose(after, before, atol=1e-4)
        torch.testing.assert_close(after, model(**batch).last_hidden_state, atol=1e-5, rtol=1e-5)
