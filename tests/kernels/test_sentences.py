"""Whole sentences by one graph equal the readable model, in every form that a call may have.

`FakeCapture` imitates CUDA on the CPU; code is chosen as on a GPU.
"""

import gc
import weakref

import pytest
import torch

from elmo_hf import ElmoTokenizer, kernels
from elmo_hf.kernels import cell, graphs, sentences
from tests.helpers.fake_cuda_graphs import FakeCapture
from tests.helpers.small_elmo import encoded_texts, small_model

WORDS = {"token_encoder": "words", "vocab_size": 20, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 20}


@pytest.fixture(autouse=True)
def capture(monkeypatch):
    capture = FakeCapture()
    monkeypatch.setattr(graphs, "capture", capture)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(cell, "HAS_TRITON", False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: 0)
    monkeypatch.setattr(kernels, "_why_not_reading", lambda *tensors: kernels.NOT_CPU)
    yield capture
    kernels.use("auto")


@torch.no_grad()
def read(choice, model, **call):
    kernels.use(choice)
    output = model(**call, output_hidden_states=True)
    assert output.last_hidden_state is output.hidden_states[-1]
    return output.hidden_states


def assert_same(model, tolerance=1e-5, **call):
    expected = read("readable", model, **call)
    for _ in range(2):  # the first of a size has no graph
        actual = read("auto", model, **call)
        assert [layer.dtype for layer in actual] == [layer.dtype for layer in expected]
        torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)
    assert kernels.why_not() == ""


MODELS = [
    {},
    {"use_skip_connections": False},
    {"num_hidden_layers": 3, "cell_clip": 0.1, "proj_clip": 0.05},
    {"num_hidden_layers": 1, "cell_clip": None, "proj_clip": None},
    {"char_activation": "tanh", "num_highway_layers": 0},
]


@pytest.mark.parametrize("options", MODELS, ids=lambda options: ",".join(options) or "usual")
def test_models(options, capture):
    model = small_model(**options)
    assert_same(model, **encoded_texts())
    assert (capture.captures, capture.replays) == (1, 1)


def test_a_model_with_a_word_table(capture):
    model = small_model(**WORDS)
    ids = torch.randint(0, 20, (3, 5))
    ids[1, 3:] = 20
    assert_same(model, input_ids=ids)
    assert capture.replays == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types(dtype, capture):
    assert_same(
        small_model().to(dtype), tolerance=0.05 if dtype == torch.bfloat16 else 1e-11, **encoded_texts()
    )
    assert capture.replays == 1


def test_sizes_in_turn_and_padding_on_either_side(capture):
    model, generator = small_model(), torch.Generator().manual_seed(0)
    tokenizer = ElmoTokenizer()
    texts = ["Ice cream is cold .", "a b c d e f g h i j k", "", "x"]
    for _ in range(3):
        for number in (1, 4, 2, 3):
            call = tokenizer(texts[:number], padding=True, return_tensors="pt")
            call["attention_mask"] = torch.rand(call["attention_mask"].shape, generator=generator) < 0.7
            assert_same(model, **call)
    left = ElmoTokenizer(padding_side="left")(texts, padding=True, return_tensors="pt")
    assert_same(model, **left)
    assert capture.captures <= 8  # layers have graphs of their own where a size comes for the first time


def test_unwritten_memory_is_not_read(nan_in_empty_tensors):
    assert_same(small_model(), **encoded_texts())


def test_weights_that_change_are_seen(capture):
    model = small_model()
    assert_same(model, **encoded_texts())
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(0.9)
    assert_same(model, **encoded_texts())
    assert capture.captures == 1
    captures = capture.captures
    model.layers[1].bias.data = model.layers[1].bias.detach() * 0.5  # at another address
    assert_same(model, **encoded_texts())
    assert capture.captures > captures


def test_results_belong_to_the_caller():
    model, other = small_model(), ElmoTokenizer()(["Another one here ."] * 4, return_tensors="pt")
    assert_same(model, **encoded_texts())
    first = read("auto", model, **encoded_texts())
    expected = [layer.clone() for layer in first]
    read("auto", model, **other)
    torch.testing.assert_close(list(first), expected, rtol=0, atol=0)


def test_a_graph_is_freed_with_its_model(capture):
    model = small_model()
    assert_same(model, **encoded_texts())
    [work], owner = capture.works, weakref.ref(model)
    assert work() is not None
    del model
    gc.collect()
    assert owner() is None
    assert work() is None


def test_no_operator_reads_a_tensor_back():
    """Tensors of the device "meta" have shapes and no numbers: to ask for one is an error."""
    model = small_model().to("meta")
    ids, boundaries = torch.zeros(2, 4, 50, device="meta").long(), torch.zeros(2, 50, device="meta").long()
    mask = torch.ones(2, 4, device="meta").bool()
    with torch.no_grad():
        layers = sentences.read_sentences(model.token_encoder, [*model.layers], ids, mask, boundaries)
    assert [tuple(layer.shape) for layer in layers] == [(2, 4, 16)] * 3


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.layers[0].register_forward_hook(lambda *_: None),
        lambda model: model.token_encoder.register_forward_pre_hook(lambda *_: None),
        lambda model: model.layers[1].dropout.train() and model.layers[1].train(),
        lambda model: setattr(model.layers[1], "forward", model.layers[1].forward),
    ],
    ids=["hook of a layer", "hook of the encoder", "training", "method"],
)
def test_what_is_not_plain_is_read_by_the_model(change, capture, monkeypatch):
    model = small_model()
    change(model)
    calls = []
    monkeypatch.setattr(sentences, "SentenceGraph", lambda *arguments: calls.append(arguments))
    for _ in range(3):
        read("auto", model, **encoded_texts())
    assert calls == []


def test_calls_that_have_no_graph(capture, monkeypatch):
    model, call = small_model(), encoded_texts()
    calls = []
    monkeypatch.setattr(sentences, "read", lambda *arguments: calls.append(arguments))
    model(**call)  # with gradients
    with torch.no_grad():
        model(**call, output_states=True)
        model(**call, keep_boundaries=True)
        model(**call, states=model.zero_states(4))
        model(inputs_embeds=torch.zeros(1, 3, 8))
        model(char_ids=call["char_ids"].repeat(9, 1, 1))
        model(char_ids=call["char_ids"].repeat(1, 12, 1))
        with torch.autocast("cpu", torch.bfloat16):
            model(**call)
        model.train()(**call)
        model.eval()
        kernels.use("readable")
        model(**call)
    assert calls == []


def test_a_failed_capture_leaves_it_to_the_model(capture):
    capture.error = RuntimeError("out of luck")
    model, call = small_model(), encoded_texts()
    expected = read("readable", model, **call)
    for _ in range(3):
        torch.testing.assert_close(read("auto", model, **call), expected, atol=1e-5, rtol=1e-5)
