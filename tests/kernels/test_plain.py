"""Whatever is changed in a model's modules, `auto` gives the numbers of the readable code, and says why."""

import re

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils import parametrizations, parametrize, prune
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from elmo_hf import ElmoModel, kernels
from elmo_hf.kernels import kept
from elmo_hf.model import encoders_elmo, modeling_elmo
from tests.helpers.small_elmo import encoded_texts, read_texts, small_model

pytestmark = pytest.mark.usefixtures("default_kernels")


class Scaled(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 1.5


class OtherHighway(encoders_elmo.ElmoHighway):
    def forward(self, x):
        return super().forward(x) + x.mean()


class Adapter(nn.Module):
    """As PEFT's: in the place of a module, whose weights it passes on."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    weight = property(lambda self: self.base.weight)
    bias = property(lambda self: self.base.bias)

    def forward(self, x):
        return self.base(x) + 1


class Half(nn.Module):
    def forward(self, weight):
        return weight * 0.5


class HalfOfTheOutput(ModelHook):
    def post_forward(self, module, output):
        return output * 0.5


def subclass(model):
    projection = model.token_encoder.projection
    model.token_encoder.projection = Scaled(projection.in_features, projection.out_features)


def adapter(model):
    model.token_encoder.convolutions[0] = Adapter(model.token_encoder.convolutions[0])


def other_highway(model):
    model.token_encoder.highways[0] = OtherHighway(model.config.num_filters)


def own_forward(model):
    carry = model.token_encoder.highways[0].carry
    forward = carry.forward
    carry.forward = lambda x: forward(x) * 1.5


def own_method(model):
    encoder = model.token_encoder
    from_embeddings = encoder.from_embeddings
    encoder.from_embeddings = lambda vectors: from_embeddings(vectors) + 1


def stride(model):
    model.token_encoder.convolutions[1].stride = (2,)


def no_bias(model):
    model.token_encoder.highways[0].transform.bias = None


def max_norm(model):
    model.token_encoder.char_embedding.max_norm = 0.1


def double(module, inputs, output=None):
    return inputs[0] * 2 if output is None else output * 2


# What is changed, and the module and the reason that `why_not` names.
CHANGES = {
    "a subclass": (subclass, r"\.projection \(Scaled\) is of a class"),
    "an adapter": (adapter, r"\.convolutions\.0 \(Adapter\) is of a class"),
    "a subclass of ours": (other_highway, r"\.highways\.0 \(OtherHighway\) is of a class"),
    "a forward of its own": (own_forward, r"\.highways\.0\.carry .* another forward"),
    "a hook of accelerate": (
        lambda m: add_hook_to_module(m.token_encoder.convolutions[0], HalfOfTheOutput()),
        r"\.convolutions\.0 \(Conv1d\) has another forward",
    ),
    "a method of its own": (own_method, None),
    "a hook": (lambda m: m.token_encoder.highways[0].register_forward_hook(double), r"\.highways\.0 .*hook"),
    "a pre-hook": (
        lambda m: m.token_encoder.projection.register_forward_pre_hook(double),
        r"\.projection \(Linear\) has a hook",
    ),
    "weight norm": (
        lambda m: parametrizations.weight_norm(m.token_encoder.convolutions[0]),
        r"\.convolutions\.0 \(ParametrizedConv1d\)",
    ),
    "a parametrization": (
        lambda m: parametrize.register_parametrization(m.token_encoder.projection, "weight", Half()),
        r"\.projection \(ParametrizedLinear\)",
    ),
    "pruning": (
        lambda m: prune.l1_unstructured(m.token_encoder.projection, "weight", 0.5),
        r"\.projection \(Linear\) has a hook",
    ),
    "a stride": (stride, r"\.convolutions\.1 \(Conv1d\) has stride=\(2,\)"),
    "no bias": (no_bias, r"\.transform \(Linear\) has no parameter bias"),
    "a limit of the embedding": (max_norm, r"\.char_embedding \(Embedding\) has max_norm=0\.1"),
}


def assert_reads_as_the_readable_code(model, **options):
    actual = read_texts(model, **options).hidden_states
    reason = kernels.why_not()
    kernels.use("readable")
    expected = read_texts(model, **options).hidden_states
    kernels.use("auto")
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    return reason


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("was_called", [False, True])
def test_a_changed_module(name, was_called):
    change, reason = CHANGES[name]
    model = small_model()
    before = read_texts(model).hidden_states[0] if was_called else None
    change(model)
    actual = assert_reads_as_the_readable_code(model)
    if reason is not None:
        assert re.search(reason, actual)
    if before is not None:
        assert not torch.equal(read_texts(model).hidden_states[0], before)


def test_a_hook_that_is_removed():
    model = small_model()
    handle = model.token_encoder.projection.register_forward_hook(double)
    assert "hook" in assert_reads_as_the_readable_code(model)
    handle.remove()
    assert assert_reads_as_the_readable_code(model) == ""


@pytest.mark.parametrize("register", [register_module_forward_hook, register_module_forward_pre_hook])
def test_a_hook_of_all_modules(register):
    model = small_model()
    read_texts(model)
    handle = register(
        lambda module, *values: double(module, *values) if isinstance(module, nn.Linear) else None
    )
    try:
        assert assert_reads_as_the_readable_code(model) == "a hook is registered for all modules"
    finally:
        handle.remove()
    assert assert_reads_as_the_readable_code(model) == ""


@pytest.mark.parametrize("cls", [nn.Linear, nn.Embedding, encoders_elmo.ElmoHighway])
def test_a_patched_class(cls, monkeypatch):
    model = small_model()
    before = read_texts(model)
    forward = cls.forward
    monkeypatch.setattr(cls, "forward", lambda self, x: forward(self, x) * 1.5)
    assert "patched" in assert_reads_as_the_readable_code(model)
    assert not torch.equal(read_texts(model).last_hidden_state, before.last_hidden_state)
    monkeypatch.undo()
    assert assert_reads_as_the_readable_code(model) == ""


def test_a_patched_definition(monkeypatch):
    model, definition = small_model(), modeling_elmo.lstm
    monkeypatch.setattr(modeling_elmo, "lstm", lambda *arguments: definition(*arguments))
    read_texts(model)
    assert kernels.why_not() == "the definition of the LSTM is patched"


HOOKED = {
    "a layer": lambda m: m.layers[0],
    "the character encoder": lambda m: m.token_encoder,
    "dropout": lambda m: m.layers[1].dropout,
}


@pytest.mark.parametrize("name", HOOKED)
def test_a_hook_after_a_first_call(name):
    """The state after sentence begin was kept without the hook."""
    model = small_model()
    read_texts(model)
    HOOKED[name](model).register_forward_hook(
        lambda module, inputs, output: (
            tuple(x * 0.5 for x in output) if isinstance(output, tuple) else output * 2
        )
    )
    assert_reads_as_the_readable_code(model)


SETTINGS = {
    "cell clip": lambda m: setattr(m.config, "cell_clip", 0.05),
    "projection clip": lambda m: setattr(m.config, "proj_clip", 0.05),
    "activation": lambda m: setattr(m.config, "char_activation", "tanh"),
    "skip connection": lambda m: setattr(m.layers[1], "adds_input", False),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_is_changed_after_a_call(name):
    model = small_model()
    before = read_texts(model).last_hidden_state
    SETTINGS[name](model)
    assert assert_reads_as_the_readable_code(model) == ""
    assert not torch.equal(read_texts(model).last_hidden_state, before)


def test_a_subclass_of_the_model():
    class Louder(ElmoModel):
        louder = 1.0

        def _first_words(self):
            return super()._first_words() * self.louder

    model = Louder(small_model().config).eval()
    read_texts(model)
    model.louder = 2.0
    assert_reads_as_the_readable_code(model)


class Doubling(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        return result * 2 if function is torch.nn.functional.linear else result


class Counting(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [Doubling, Counting])
def test_a_mode_that_intercepts_functions(mode):
    model = small_model()
    with mode():
        assert "intercepts" in assert_reads_as_the_readable_code(model)
    assert assert_reads_as_the_readable_code(model) == ""


def test_the_default_device_is_no_obstacle():
    model = small_model()
    with torch.device("cpu"):
        assert assert_reads_as_the_readable_code(model) == ""


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by torch itself
def test_forward_mode_derivatives():
    model = small_model()
    embedded = torch.randn(1, 3, model.config.projection_dim)
    tangents = []
    for choice in ("auto", "readable"):
        kernels.use(choice)
        with torch.no_grad(), forward_ad.dual_level():
            dual = forward_ad.make_dual(embedded, torch.ones_like(embedded))
            tangents.append(forward_ad.unpack_dual(model(inputs_embeds=dual).last_hidden_state).tangent)
    assert tangents[0].abs().max() > 0
    torch.testing.assert_close(tangents[0], tangents[1])


class Tagged(torch.Tensor):
    pass


def test_tensors_of_other_classes():
    model = small_model()
    layer = model.layers[0]
    layer.bias = nn.Parameter(layer.bias.detach().as_subclass(Tagged))
    assert type(layer.bias) is Tagged
    assert assert_reads_as_the_readable_code(model) == "a tensor is of the class Tagged"


# ---- what is looked at, and how often


@pytest.fixture
def digests(monkeypatch):
    """The weights whose bytes were read."""
    weights, digest = [], kept._digest
    monkeypatch.setattr(kept, "_digest", lambda weight: weights.append(weight.data_ptr()) or digest(weight))
    return weights


def test_each_weight_is_looked_at_once_in_a_call(digests):
    model = small_model()
    for _ in range(2):
        digests.clear()
        read_texts(model)
        assert digests
        assert len(digests) == len(set(digests))


def test_a_frozen_model_is_not_looked_at(digests):
    model = small_model()
    with kernels.frozen(model):
        read_texts(model)
        digests.clear()
        before = read_texts(model).last_hidden_state
        assert digests == []
        with torch.no_grad():
            model.layers[0].bias.add_(1)  # PyTorch counts this change
        changed = read_texts(model).last_hidden_state
        assert not torch.equal(changed, before)
        with kernels.frozen(model):  # a job within a job
            pass
        model.layers[0].recurrent_weight.data.add_(1)  # and not this one: the promise is broken
        assert torch.equal(read_texts(model).last_hidden_state, changed)
    assert not torch.equal(read_texts(model).last_hidden_state, changed)
    assert_reads_as_the_readable_code(model)


@pytest.mark.parametrize("name", ["input_weight", "recurrent_weight", "bias", "projection"])
def test_a_change_between_two_single_sentences_of_a_frozen_model(name):
    """With the layer's weights laid out for the product with the input, and other weights changed as well."""
    model = small_model(lstm_dim=300, projection_dim=64)
    sentence = {key: value[:1] for key, value in encoded_texts().items()}
    with torch.no_grad(), kernels.frozen(model):
        before = model(**sentence).last_hidden_state
        getattr(model.layers[1], name).mul_(1.5).add_(0.1)  # PyTorch counts this change
        after = model(**sentence).last_hidden_state
        assert kernels.why_not() == ""
        kernels.use("readable")
        expected = model(**sentence).last_hidden_state
        kernels.use("auto")
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=1e-5)
    assert (after - before).abs().max() > 1e-3


def test_a_hook_in_a_frozen_model():
    model = small_model()
    with kernels.frozen(model):
        read_texts(model)
        model.token_encoder.projection.register_forward_hook(double)
        assert "hook" in assert_reads_as_the_readable_code(model)


def test_a_weight_that_is_edited_between_two_times_of_being_frozen():
    model = small_model()
    with kernels.frozen(model):
        read_texts(model)
    model.layers[0].projection.data[0, 3] = 0
    with kernels.frozen(model):
        assert_reads_as_the_readable_code(model)


def test_sentence_begin_and_end_are_encoded_with_the_words(monkeypatch):
    model, shapes = small_model(), []
    encode = kernels.characters.encode
    monkeypatch.setattr(
        kernels.characters, "encode", lambda *a, **k: shapes.append(a[1].shape) or encode(*a, **k)
    )
    assert_reads_as_the_readable_code(model)
    words = encoded_texts()["char_ids"].shape[:2].numel()
    assert [shape[0] for shape in shapes] == [words + 2]
