"""The character encoder by tables and by products equals `from_embeddings`: vectors and gradients.

Memory that is handed out without a value is filled with NaN, so that reading it before it is written shows.
"""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer, kernels
from elmo_hf.kernels import characters
from tests.helpers.small_elmo import small_model

pytestmark = pytest.mark.usefixtures("nan_in_empty_tensors", "default_kernels")

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}

networks = st.fixed_dictionaries(
    {
        "char_filters": st.lists(
            st.tuples(st.integers(1, 7), st.integers(1, 9)),
            min_size=1,
            max_size=4,
            unique_by=lambda width_and_number: width_and_number[0],
        ),
        "char_embedding_dim": st.integers(1, 5),
        "char_activation": st.sampled_from(["relu", "tanh"]),
        "num_highway_layers": st.integers(0, 2),
        "max_characters_per_token": st.sampled_from([7, 12, 50]),
    }
)
# Few letters make words that repeat, letters that repeat within a word, and padding that wins or ties.
texts = st.lists(st.lists(st.text("abé", max_size=14), min_size=3, max_size=3), min_size=1, max_size=5)


def encoder_of(dtype=torch.float32, seed=0, **options):
    torch.manual_seed(seed)
    config = {"lstm_dim": 4, "projection_dim": 5, "char_embedding_dim": 4, "char_filters": [[1, 4], [5, 6]]}
    encoder = ElmoModel(ElmoConfig(**(config | options))).token_encoder.to(dtype)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.5)  # also the row of the padding, which no gradient may change
    return encoder


def char_ids_of(words, length=50):
    tokenizer = ElmoTokenizer(max_characters_per_token=length)
    return tokenizer(words, is_split_into_words=True, padding=True, return_tensors="pt")["char_ids"]


def readable(encoder, char_ids):
    return encoder.from_embeddings(encoder.char_embedding(char_ids))


def by_tables(encoder, char_ids):
    return characters.encode(encoder, char_ids, True)


def by_products(encoder, char_ids):
    """As on a GPU."""
    words = characters.encode_by_products(encoder, char_ids.flatten(0, -2))
    return words.unflatten(0, char_ids.shape[:-1])


def results(function, encoder, char_ids):
    """Vectors and gradients, of a loss that changes when two numbers are exchanged."""
    encoder.zero_grad()
    words = function(encoder, char_ids)
    if words.requires_grad:
        (words * torch.linspace(1, 2, words.numel()).view(words.shape).to(words)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    return {"words": words.detach(), **gradients}


def assert_same(encoder, char_ids):
    expected = results(readable, encoder, char_ids)
    for function in (by_tables, by_products):
        actual = results(function, encoder, char_ids)
        for name, want in expected.items():
            if want is None:
                assert actual[name] is None, name
                continue
            assert actual[name].dtype == want.dtype
            size = max(1.0, want.abs().max().item()) if want.numel() else 1.0
            difference = (actual[name] - want).abs() / size
            assert (difference < TOLERANCE[want.dtype]).all(), (function, name, difference.max())
    return expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=60, deadline=None)
@given(network=networks, words=texts, seed=st.integers(0, 2**16), threads=st.sampled_from([1, 2]))
@example(
    network={"char_filters": [(7, 9), (1, 9)], "max_characters_per_token": 50, "num_highway_layers": 2},
    words=[["aaaaaaaa", "", "aaaaaaaa"], ["abababababab", "é", "b" * 14]],
    seed=1,
    threads=2,
)
def test_any_network_equals_the_readable_one(dtype, network, words, seed, threads):
    torch.set_num_threads(threads)
    network = network | {"char_filters": [list(pair) for pair in network["char_filters"]]}
    char_ids = char_ids_of(words, network["max_characters_per_token"])
    assert_same(encoder_of(dtype, seed, **network), char_ids)


@pytest.mark.parametrize("threads", [1, 2])
def test_more_words_than_are_looked_up_at_once(threads):
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(0, 46, (3 * characters.BLOCK_WORDS,), generator=generator).tolist()
    words = ["".join(chr(97 + n) for n in torch.randint(26, (k,), generator=generator)) for k in lengths]
    encoder = encoder_of(torch.float64, char_filters=[[1, 8], [3, 40], [6, 50]], num_highway_layers=1)
    actual = assert_same(encoder, char_ids_of([words]))
    assert all((gradient != 0).any() for gradient in actual.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_and_rows_of_padding(dtype):
    """Also without words. An id of 0 stands where there is no word; its row gets no gradient."""
    encoder = encoder_of(dtype, max_characters_per_token=9)
    noise = torch.randint(262, (20, 9), generator=torch.Generator().manual_seed(0))
    for rows in (noise, noise * 0, noise * (noise < 131), noise[:0], noise[:1], noise[:, :1].expand(20, 9)):
        actual = assert_same(encoder, rows)
        gradient = actual["char_embedding.weight"]
        assert gradient is None or (gradient[0] == 0).all()


def test_places_with_the_same_maximum():
    """A word of one repeated letter has the maximum at every place but the first and the last."""
    encoder = encoder_of(torch.float64, char_filters=[[2, 3]], num_highway_layers=0)
    with torch.no_grad():
        encoder.char_embedding.weight.zero_()
        encoder.char_embedding.weight[98] = 1.0  # the letter a
        encoder.convolutions[0].weight.abs_()
    actual = assert_same(encoder, char_ids_of([["a" * 20, "aa", "aaab"]]))
    gradient = actual["char_embedding.weight"].abs().sum(dim=1)
    assert gradient.nonzero().flatten().tolist() == [98]


def test_gradients_equal_finite_differences():
    encoder = encoder_of(torch.float64, char_filters=[[1, 2], [3, 3]], max_characters_per_token=8)
    rows = char_ids_of([["ab", "aab", "ab", ""]], 8).flatten(0, 1)
    blocks = [rows[:1], rows[1:]]
    tables = [table.detach().requires_grad_() for table, _ in characters.make_tables(encoder)]
    # Most of a table is not looked up; differences are computed at the characters that are.
    used = rows.unique()
    for table in tables:
        used_rows = table.detach()[:, used].requires_grad_()

        def look_up(used_rows, table=table):
            return characters.SumAndMaximum.apply(blocks, table.detach().index_copy(1, used, used_rows))

        assert torch.autograd.gradcheck(look_up, used_rows)


NAMES = ["char_embedding.weight", "convolutions.0.weight", "convolutions.1.bias", "projection.weight"]


@pytest.mark.parametrize("trained", [*([name] for name in NAMES), NAMES[:2], []])
def test_frozen_parameters(trained):
    encoder = encoder_of()
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(name in trained)
    actual = assert_same(encoder, char_ids_of([["Some", "words", "and", "some", "words"]]))
    assert {name for name, tensor in actual.items() if tensor is not None} == {"words", *trained}


def record_tables(monkeypatch):
    """A list that grows with each use of the tables."""
    calls, function = [], characters.encode_by_tables
    monkeypatch.setattr(characters, "encode_by_tables", lambda *a: calls.append(1) or function(*a))
    return calls


def test_a_model_in_training_uses_tables(monkeypatch):
    calls, encoder, char_ids = record_tables(monkeypatch), encoder_of(), char_ids_of([["A", "word"]])
    encoder(char_ids).sum().backward()
    assert calls
    calls.clear()
    encoder_of(torch.float64)(char_ids).sum().backward()
    kernels.use("readable")
    encoder(char_ids).sum().backward()
    assert not calls


def test_training_in_bfloat16_uses_tables_in_float32(monkeypatch):
    """Only the products after them are bfloat16. Types are those of the readable code, and so are the numbers
    within what bfloat16 resolves."""
    calls, encoder = record_tables(monkeypatch), encoder_of()
    char_ids = char_ids_of([["A", "word", "and", "others"]])
    with torch.autocast("cpu", torch.bfloat16):
        expected = results(readable, encoder, char_ids)
        assert not calls
        actual = results(lambda encoder, char_ids: encoder(char_ids), encoder, char_ids)
    assert calls
    exact = results(readable, encoder, char_ids)
    for name, want in expected.items():
        assert actual[name].dtype == want.dtype
        assert (actual[name] - exact[name]).norm() < 0.02 * exact[name].norm(), name


def test_a_gpu_uses_products(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    calls = []
    products = characters.encode_by_products
    monkeypatch.setattr(characters, "encode_by_products", lambda *a: calls.append(1) or products(*a))
    encoder, char_ids = encoder_of(), char_ids_of([["Some", "words"]])
    words = characters.encode(encoder, char_ids, by_tables=False)
    torch.testing.assert_close(words, readable(encoder, char_ids))
    assert calls == [1]


def test_weights_that_are_nan():
    encoder = encoder_of()
    with torch.no_grad():
        encoder.convolutions[0].weight.fill_(float("nan"))
    actual = results(by_tables, encoder, char_ids_of([["A", "word"]]))
    assert actual["words"].isnan().all()
    assert actual["char_embedding.weight"].isnan().any()


def test_a_second_derivative_is_refused():
    encoder = encoder_of()
    score = by_tables(encoder, char_ids_of([["A", "word"]])).sum()  # linear: its own gradient is constant
    with pytest.raises(RuntimeError, match=r"no derivative here .*use\('readable'\)"):
        torch.autograd.grad(score, encoder.convolutions[0].weight, create_graph=True)


def test_two_backward_passes():
    encoder = encoder_of()
    loss = by_tables(encoder, char_ids_of([["A", "word"]])).square().sum()
    weights = list(encoder.parameters())
    first = torch.autograd.grad(loss, weights, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, weights), first, rtol=0, atol=0)


# ---- words as the tokenizer makes them


WORDS = ["a", "word", "a", "", "x" * 47, "y" * 48, "z" * 60, "été", "<S>", "</S>", "word"]


@pytest.mark.parametrize("by_tables", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"char_activation": "tanh", "num_highway_layers": 0},
        {"char_filters": [[3, 8]], "max_characters_per_token": 5},
        {"char_filters": [[7, 3]], "char_projection": True, "max_characters_per_token": 7},
    ],
)
def test_odd_words_and_noise(by_tables, options):
    encoder = small_model(**options).token_encoder
    length = encoder.config.max_characters_per_token
    rows = ElmoTokenizer(max_characters_per_token=length)(WORDS, is_split_into_words=True)["char_ids"]
    torch.manual_seed(1)
    noise = torch.randint(0, 262, (20, length))
    cases = [
        torch.tensor(rows),
        torch.tensor(rows[:1]),
        torch.tensor(rows)[:0],
        noise,
        torch.zeros_like(noise),
    ]
    for rows in cases:
        with torch.no_grad():
            expected = readable(encoder, rows)
            actual = characters.encode(encoder, rows, by_tables)
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_equal_words_are_encoded_once_and_gradients_are_the_same():
    encoder = small_model().train().token_encoder
    rows = torch.tensor(ElmoTokenizer()(WORDS, is_split_into_words=True)["char_ids"])
    distinct, index = characters.distinct_rows(rows)
    assert len(distinct) == len(set(WORDS))
    assert torch.equal(distinct[index], rows)
    by_hash, index = characters.distinct_by_hash(rows)  # as on a GPU
    assert len(by_hash) == len(set(WORDS))
    assert torch.equal(by_hash[index], rows)
    gradients = []
    for choice in ("readable", "auto"):
        kernels.use(choice)
        encoder.zero_grad()
        encoder(rows).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in encoder.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-5)


def test_different_rows_with_one_hash(monkeypatch):
    monkeypatch.setattr(
        torch, "randint", lambda high, size, generator=None: torch.zeros(size, dtype=torch.int64)
    )
    rows = torch.tensor([[1, 2], [3, 4], [1, 2]])
    distinct, index = characters.distinct_by_hash(rows)
    assert len(distinct) == 2
    assert torch.equal(distinct[index], rows)
