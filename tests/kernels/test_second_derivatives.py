"""Second derivatives are right, or refused with a sentence that says what to do; they are never dropped.

A gradient penalty is the usual case: the gradient of a score, with `create_graph=True`, is part of the loss.
Where the score is linear in what a function returns, an autograd function that can be differentiated once
returns a gradient that does not depend on anything, and the penalty has none, without a word.
"""

import re
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.gradcheck import GradcheckError

from elmo_hf import ElmoConfig, ElmoForTokenClassification, ElmoModel, kernels
from elmo_hf.kernels import training
from elmo_hf.model.cells_elmo import ElmoGRU, ElmoHighwayLSTM
from elmo_hf.model.layers_elmo import ElmoScalarMix
from elmo_hf.model.modeling_elmo import lstm
from elmo_hf.model.words_elmo import character_ids
from elmo_hf.pretraining.sampling import draw_samples, sampled_loss, select_rows
from tests.helpers.random_elmo import CHARACTERS, SENTENCES
from tests.helpers.small_elmo import small_model

pytestmark = pytest.mark.usefixtures("default_kernels")

SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": torch.sum,
    "square": lambda x: x.square().sum(),
}
SCORE = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)


READABLE = r"kernels\.use\(.readable.\)"  # the way out that a refusal names


def refusal(compute: Callable[[], Any], way_out: str = READABLE) -> bool:
    """Whether it is refused. (A wrong number is a `GradcheckError`, which is a RuntimeError, too.)"""
    try:
        compute()
    except RuntimeError as error:
        if isinstance(error, GradcheckError) or not re.search(way_out, str(error)):
            raise
        return True
    return False


def assert_right_or_refused(compute: Callable[[], Any], tolerance: float = 1e-7) -> None:
    kernels.use("readable")
    expected = compute()
    kernels.use("auto")
    if not refusal(compute):
        assert_close(compute(), expected, tolerance)


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-7) -> None:
    """Compare tensors, or several by name or number, each by its largest number."""
    if isinstance(expected, Tensor):
        size = expected.abs().max().clamp(min=1.0)
        torch.testing.assert_close(actual / size, expected / size, atol=tolerance, rtol=0)
        return
    assert len(actual) == len(expected)
    for key in expected if isinstance(expected, dict) else range(len(expected)):
        assert_close(actual[key], expected[key], tolerance)


def assert_gradgrad_right_or_refused(
    function: Callable[..., Any], *leaves: Tensor | None, way_out: str = READABLE
) -> None:
    refusal(lambda: assert_gradgrad_right(function, *leaves), way_out)


def assert_gradgrad_right(function: Callable[..., Any], *leaves: Tensor | None) -> None:
    leaves = tuple(leaf.detach().requires_grad_() for leaf in leaves if leaf is not None)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@pytest.fixture(params=[False, True], ids=["short steps", "long steps"])
def _step_length(request, monkeypatch):
    """Both ways of training on a CPU."""
    if request.param:
        monkeypatch.setattr(training, "SHORT_STEP", -1)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def model_of(**options: Any) -> ElmoModel:
    model = small_model(**options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(randn(*parameter.shape), alpha=0.2)
    return model


def penalty(score: Tensor, inputs: list[Tensor]) -> Tensor:
    """The sum of the squared gradient of the score."""
    gradients = torch.autograd.grad(score, inputs, create_graph=True, allow_unused=True)
    return sum((g.square().sum() for g in gradients if g is not None), torch.zeros((), dtype=score.dtype))


def gradients_of_penalty(model: nn.Module, score: Tensor, inputs: list[Tensor]) -> dict[str, Tensor]:
    """With part of the score, so that there is a gradient also where the penalty has lost its own."""
    model.zero_grad()
    (1e-3 * score + penalty(score, inputs)).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# ---- whole models


@SCORE
@pytest.mark.parametrize("options", [{}, {"projection_dim": 12, "cell_clip": None, "num_hidden_layers": 1}])
@pytest.mark.usefixtures("_step_length")
def test_penalty_on_word_vectors(score, options):
    model = model_of(**options)
    vectors = randn(3, 4, model.config.projection_dim).requires_grad_()
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 1]])

    def compute():
        output = model(inputs_embeds=vectors, attention_mask=mask)
        return gradients_of_penalty(model, score(output.last_hidden_state), [vectors])

    assert_right_or_refused(compute)


@SCORE
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.usefixtures("_step_length")
def test_penalty_on_letters(score, activation):
    model = model_of(char_activation=activation, max_characters_per_token=CHARACTERS)
    letters = randn(2, 3, CHARACTERS, model.config.char_embedding_dim).requires_grad_()

    def compute():
        return gradients_of_penalty(model, score(model(inputs_embeds=letters).last_hidden_state), [letters])

    assert_right_or_refused(compute)


@SCORE
@pytest.mark.parametrize(
    "name", ["layers.1.bias", "layers.0.recurrent_weight", "layers.0.projection", "layers.0.input_weight"]
)
@pytest.mark.usefixtures("_step_length")
def test_penalty_on_a_weight(score, name, char_ids):
    """Alone, and among all others."""
    model = model_of(max_characters_per_token=CHARACTERS)
    weight = model.get_parameter(name)
    for needed in (True, False):
        model.requires_grad_(needed)
        weight.requires_grad_(True)

        def compute():
            output = model(char_ids=char_ids, output_hidden_states=True)
            return gradients_of_penalty(model, score(torch.cat(output.hidden_states, -1)), [weight])

        assert_right_or_refused(compute)


@pytest.fixture
def char_ids() -> Tensor:
    rows = [torch.from_numpy(character_ids(sentence, CHARACTERS)) for sentence in SENTENCES]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


FLOATS = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 1e-5)])
ENCODERS = [{}, {"char_activation": "tanh", "num_highway_layers": 1}, {"num_highway_layers": 0}]


@FLOATS  # there are tables for float32 only
@SCORE
@pytest.mark.parametrize("options", ENCODERS)
def test_penalty_on_the_weights_of_the_character_encoder(score, options, dtype, tolerance, char_ids):
    """Each weight alone, and all together."""
    encoder = model_of(max_characters_per_token=CHARACTERS, **options).to(dtype).token_encoder
    weights = list(encoder.parameters())
    for chosen in [[weight] for weight in weights] + [weights]:
        assert_right_or_refused(
            lambda chosen=chosen: gradients_of_penalty(encoder, score(encoder(char_ids)), chosen), tolerance
        )


@FLOATS
def test_hessian_vector_product(dtype, tolerance, char_ids):
    model = model_of(max_characters_per_token=CHARACTERS).to(dtype)
    weights = list(model.parameters())

    def compute():
        score = model(char_ids=char_ids).last_hidden_state.square().sum()
        gradients = torch.autograd.grad(score, weights, create_graph=True, allow_unused=True)
        product = sum((g * randn(*g.shape).to(dtype)).sum() for g in gradients if g is not None)
        return torch.autograd.grad(product, weights, allow_unused=True, materialize_grads=True)

    assert_right_or_refused(compute, tolerance)


@pytest.mark.usefixtures("_step_length")
def test_first_derivatives_with_create_graph(char_ids):
    model = model_of(max_characters_per_token=CHARACTERS)

    def compute():
        score = model(char_ids=char_ids).last_hidden_state.square().sum()
        return torch.autograd.grad(score, list(model.parameters()), create_graph=True)

    assert_right_or_refused(compute)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # which forward mode calls
@pytest.mark.parametrize("on_weights", [True, False])
def test_derivatives_in_forward_mode(on_weights, char_ids):
    """`torch.autograd.forward_ad` is no transform of `torch.func`, and `no_grad` does not switch it off."""
    model = model_of(max_characters_per_token=CHARACTERS).float().requires_grad_(False)
    vectors = randn(2, 3, model.config.projection_dim).float()
    bias = model.layers[0].bias

    def compute():
        with forward_ad.dual_level(), torch.no_grad():
            if on_weights:
                dual = forward_ad.make_dual(bias.detach(), randn(*bias.shape, seed=1).float())
                with mock.patch.dict(model.layers[0]._parameters, {"bias": dual}):
                    output = model(char_ids=char_ids).last_hidden_state
            else:
                dual = forward_ad.make_dual(vectors, randn(*vectors.shape, seed=1).float())
                output = model(inputs_embeds=dual).last_hidden_state
            return forward_ad.unpack_dual(output).tangent

    assert_right_or_refused(compute)


# ---- parts, against finite differences


@pytest.mark.parametrize("options", ENCODERS)
def test_character_encoder(options, char_ids):
    encoder = model_of(max_characters_per_token=CHARACTERS, **options).token_encoder
    names = [name for name, _ in encoder.named_parameters() if "char_embedding" not in name]

    def function(*weights):
        for name, weight in zip(names, weights, strict=True):
            module, _, attribute = name.rpartition(".")
            encoder.get_submodule(module)._parameters[attribute] = weight
        return encoder(char_ids[:1, :2])

    assert_gradgrad_right_or_refused(function, *(encoder.get_parameter(name) for name in names))


@pytest.mark.parametrize("output", [2, None])
@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("function", [training.lstm, lstm])
@pytest.mark.usefixtures("_step_length")
def test_lstm(function, output, padding):
    h_size = output or 3
    mask = torch.ones(2, 2, 2, dtype=torch.bool)
    if padding:
        mask[0, 0, 1] = mask[1, 0, 0] = False
    x, h, c = randn(2, 2, 2, 2), randn(2, 2, h_size, seed=1), randn(2, 2, 3, seed=2)
    weights = randn(2, 2, 12, seed=3), randn(2, h_size, 12, seed=4), randn(2, 12, seed=5)
    projection = randn(2, 3, h_size, seed=6) if output else None

    def of_leaves(x, h, c, *weights):
        weights = weights if output else (*weights, None)
        return function(x, mask, h, c, *weights, 3.0, 3.0)

    assert_gradgrad_right_or_refused(of_leaves, x, h, c, *weights, projection)


def test_mix():
    mix = ElmoScalarMix(3, num_mixes=2, layer_norm=True).double()
    layers = [randn(1, 2, 3, seed=seed) for seed in range(3)]

    def function(weights, gamma, *layers):
        return torch.func.functional_call(mix, {"weights": weights, "gamma": gamma}, (layers,))

    assert_gradgrad_right_or_refused(function, randn(2, 3, seed=4), randn(2, seed=5), *layers)


def highway_lstm():
    return with_random_weights(ElmoHighwayLSTM(2, 3, dropout=0.0))


def with_random_weights(layer):
    for seed, parameter in enumerate(layer.double().parameters()):
        nn.init.zeros_(parameter).data.copy_(randn(*parameter.shape, seed=seed))
    return layer


@pytest.mark.parametrize("layer", [ElmoHighwayLSTM(2, 3, dropout=0.0), ElmoGRU(2, 3)], ids=["highway", "gru"])
def test_recurrent_layers_with_a_written_out_gradient(layer):
    layer = with_random_weights(layer)
    names = [name for name, _ in layer.named_parameters()]

    def function(x, *weights):
        output = torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,))
        return output if isinstance(output, Tensor) else output[0]

    assert_gradgrad_right(function, randn(2, 3, 2, seed=9), *layer.parameters())


@SCORE
def test_penalty_on_the_highway_lstm_is_that_of_the_definition(score):
    layer = highway_lstm()
    x = randn(2, 3, 2, seed=9).requires_grad_()

    def definition():
        h = c = torch.zeros(2, 3, dtype=torch.float64)
        outputs = []
        for word in x.unbind(1):
            from_input, carried = (word @ layer.input_weight).split([15, 3], dim=-1)
            i, j, f, o, r = (from_input + layer.bias + h @ layer.recurrent_weight).chunk(5, dim=-1)
            c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(j)
            r = torch.sigmoid(r)
            h = r * torch.sigmoid(o) * torch.tanh(c) + (1 - r) * carried
            outputs.append(h)
        return torch.stack(outputs, dim=1)

    torch.testing.assert_close(layer(x), definition())
    expected = gradients_of_penalty(layer, score(definition()), [x])
    assert_close(gradients_of_penalty(layer, score(layer(x)), [x]), expected)


def test_penalty_on_a_tagger():
    torch.manual_seed(0)
    config = ElmoConfig(lstm_dim=6, projection_dim=4, char_filters=[[1, 4]], id2label={0: "O", 1: "B-X"})
    config.freeze_elmo, config.task_hidden_size = False, 3
    model = ElmoForTokenClassification(config).double().eval()
    vectors, mask = randn(2, 3, 4).requires_grad_(), torch.tensor([[1, 1, 1], [1, 0, 0]])

    def compute():
        logits = model(inputs_embeds=vectors, attention_mask=mask).logits
        return gradients_of_penalty(model, logits.square().sum(), [vectors])

    assert_right_or_refused(compute)


def test_sampled_loss():
    samples = draw_samples(4, 10, seed=(0,))
    targets = torch.tensor([[1, 2], [3, 0]])
    selected = select_rows(targets, samples)
    number = selected.ids.numel()
    leaves = randn(2, 2, 3), randn(number, 3, seed=1), randn(number, seed=2)
    way_out = "use the softmax over all words"
    assert_gradgrad_right_or_refused(
        lambda *leaves: sampled_loss(*leaves, selected), *leaves, way_out=way_out
    )
