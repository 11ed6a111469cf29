"""Code that was saved with a model is known if it is as it was written; an edited file is not."""

import pytest
import torch
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from elmo_hf import kernels
from tests.helpers.varied_elmo import varied_batch, varied_model

pytestmark = pytest.mark.usefixtures("default_kernels")


def load(folder, file="", old="", new=""):
    """The model by the code in its folder, one file of which is edited."""
    if file:
        text = (folder / file).read_text(encoding="utf-8")
        assert old in text
        (folder / file).write_text(text.replace(old, new), encoding="utf-8")
    model_class = get_class_from_dynamic_module("modeling_elmo.ElmoModel", folder)
    assert model_class.__module__ != "elmo_hf.model.modeling_elmo"
    return model_class.from_pretrained(folder).eval()


@pytest.fixture
def read(tmp_path):
    def read_copy(kind, *edit):
        """Why the code of a folder was not replaced, and whether all of it is known."""
        original = varied_model(kind)
        original.save_pretrained(tmp_path / "saved")
        model, (batch, _) = load(tmp_path / "saved", *edit), varied_batch(original)
        with torch.no_grad():
            actual = model(**batch, output_hidden_states=True).hidden_states
            reason = kernels.why_not()
            kernels.use("readable")
            expected = model(**batch, output_hidden_states=True).hidden_states
            kernels.use("auto")
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
        return reason, kernels.fingerprint(model) is not None

    return read_copy


@pytest.mark.parametrize("kind", ["letters", "words beside letters", "a projection of the same size"])
def test_equal_copies_are_known(read, kind):
    assert read(kind) == ("", True)


def test_an_equal_copy_of_a_table_of_words_is_known(read):
    assert read("a table of words with a projection")[1]


def test_an_equal_copy_of_a_stack_is_known(read):
    assert read("a stack") == ("stacked LSTMs have no faster code", True)


HIGHWAY = ("encoders_elmo.py", "+ (1 - gate) * x", "+ (1.5 - gate) * x")
LSTM = ("modeling_elmo.py", "torch.sigmoid(f + 1) * c", "torch.sigmoid(f + 2) * c")
MIX = ("layers_elmo.py", "self.gamma[:, None] * ", "2 * self.gamma[:, None] * ")


def test_an_edited_encoder_is_not_known(read):
    reason, is_known = read("words beside letters", *HIGHWAY)
    assert "is of a class that the kernels do not know" in reason
    assert not is_known


def test_an_edited_definition_of_the_lstm_is_not_known(read):
    reason, is_known = read("letters", *LSTM)
    assert reason == "the definition of the LSTM is patched"
    assert not is_known


@pytest.mark.parametrize("kind", ["words beside letters", "a stack"])
def test_edited_layers_are_not_known(read, kind):
    assert not read(kind, *MIX)[1]


def test_a_stack_with_other_weights_than_its_parameters():
    model = varied_model("a stack")
    assert kernels.fingerprint(model) is not None
    lstm = model.layers[0].rnn.forward_layers[1]
    lstm._flat_weights[0] = lstm._flat_weights[0].clone()
    assert kernels.fingerprint(model) is None


@pytest.mark.parametrize("name", ["rnn", "rnn.forward_layers.0", "rnn.dropout", "projection"])
def test_a_stack_with_a_hook(name):
    model = varied_model("a stack")
    assert kernels.fingerprint(model) is not None
    handle = model.layers[0].get_submodule(name).register_forward_hook(lambda *_: None)
    assert kernels.fingerprint(model) is None
    handle.remove()
    assert kernels.fingerprint(model) is not None


def test_a_patched_method_of_a_class_below(monkeypatch):
    """Of `ElmoCharacterEncoder`, which the encoder with words is a subclass of."""
    model = varied_model("words beside letters")
    batch, _ = varied_batch(model)
    with torch.no_grad():
        before = model(**batch).last_hidden_state
    base = type(model.token_encoder).__mro__[1]
    from_characters = base.from_characters
    monkeypatch.setattr(base, "from_characters", lambda self, x: from_characters(self, x) * 2)
    with torch.no_grad():
        after = model(**batch).last_hidden_state
    assert "patched" in kernels.why_not()
    assert not torch.allclose(after, before, atol=1e-4)
