"""Inputs are checked once, by the outermost model, and never by waiting for a GPU."""

from collections import Counter

import pytest
import torch

from elmo_hf import ElmoForPreTraining, ElmoForTokenClassification, ElmoLayerCache, ElmoModel
from elmo_hf.model import (
    checks_elmo,
    modeling_elmo_classification,
    modeling_elmo_question_answering,
)
from elmo_hf.model.crf_elmo import ElmoCRF
from tests.helpers import small_classifiers, small_coreference, small_question_answering
from tests.model import test_modeling_elmo_tagging as tagging

OWN_WORDS = {"task_word_dim": 3, "task_char_filters": [[2, 3]], "elmo_at_output": True}


@pytest.fixture
def counts(monkeypatch):
    """How often each tensor's numbers were checked, by name."""
    counter, check_range = Counter(), checks_elmo.check_range

    def counting(name, *args):
        counter[name] += 1
        check_range(name, *args)

    modules = (modeling_elmo_classification, modeling_elmo_question_answering)
    for module in (checks_elmo, *modules):
        monkeypatch.setattr(module, "check_range", counting)
    return counter


def make_tagger():
    model = tagging.make(ElmoForTokenClassification, **OWN_WORDS)
    return model, tagging.encode(model)


def make_pairs():
    model = small_classifiers.make("esim", **OWN_WORDS)
    return model, small_classifiers.encode("esim") | {"labels": small_classifiers.LABELS}


def make_documents():
    batch = small_coreference.encode([small_coreference.SENTENCES], [small_coreference.GOLD])
    return small_coreference.make(**OWN_WORDS), batch


def make_questions():
    return small_question_answering.make(**OWN_WORDS), small_question_answering.pairs(
        places=small_question_answering.PLACES
    )


def make_language_model():
    model, batch = make_tagger()
    del batch["labels"]
    config = model.config.__class__(**tagging.SMALL | {"vocab_size": 30})
    return ElmoForPreTraining(config), batch


WORDS = {"char_ids": 1, "input_ids": 1, "attention_mask": 1}
PLACES = {"token_type_ids": 1, "start_positions": 1, "end_positions": 1}


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (make_tagger, WORDS | {"labels": 1}),
        (make_pairs, WORDS | {"token_type_ids": 1, "labels": 1}),
        (make_questions, WORDS | PLACES),
        (make_documents, WORDS),
        (make_language_model, {"char_ids": 1, "attention_mask": 1, "labels": 1}),
    ],
)
def test_each_tensor_is_checked_once(counts, make, expected, cached):
    model, batch = make()
    if cached:
        model.elmo_cache = ElmoLayerCache()
    model(**batch)
    assert counts == expected


def test_windows_are_checked_once(counts):
    model, batch = make_tagger()
    model.elmo.read_windows(torch.stack([batch["char_ids"], batch["char_ids"].flip(1)]))
    assert counts == {"char_ids": 1}


# ---- on a GPU


class OnGpu(torch.Tensor):
    """A tensor that says that it is on a GPU, and fails where Python would wait for a number of it."""

    is_cpu, is_cuda = False, True

    def refuse(self, *_):
        raise AssertionError("waited for the GPU")

    __bool__ = __int__ = __float__ = __index__ = tolist = item = cpu = nonzero = numpy = refuse


def on_gpu(tensor):
    return tensor.as_subclass(OnGpu)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, None),
        (261, None),
        (262, "char_ids must be from 0 to 261."),
        (-1, "char_ids must be from 0 to 261."),
    ],
)
def test_numbers_on_a_gpu_are_asserted_there(value, message):
    ids = on_gpu(torch.full((1, 2, 50), value))
    config = make_tagger()[0].config
    if message is None:
        assert isinstance(checks_elmo.word_mask(config, char_ids=ids), OnGpu)
        return
    with pytest.raises(RuntimeError) as error:  # here at once, on a GPU at the next synchronisation
        checks_elmo.word_mask(config, char_ids=ids)
    assert str(error.value) == message


def test_labels_and_places_on_a_gpu_are_asserted_there():
    mask = on_gpu(torch.ones(1, 3, dtype=torch.bool))
    crf = ElmoCRF(["O", "B-X", "I-X"], learned=True, scheme=None)
    crf._check(on_gpu(torch.tensor([[1, 2, -100]])), mask)
    checks_elmo.check_labels(on_gpu(torch.tensor([[1, 2, -100]])), mask, 3)
    with pytest.raises(RuntimeError, match=r"^labels: an I-X follows neither B-X nor I-X, which BIO labels"):
        crf._check(on_gpu(torch.tensor([[0, 2, -100]])), mask)
    with pytest.raises(RuntimeError, match=r"^labels must be from 0 to 2\.$"):
        checks_elmo.check_labels(on_gpu(torch.tensor([[1, 3, -100]])), mask, 3)
    in_context = on_gpu(torch.tensor([[False, True, True]]))
    modeling_elmo_question_answering.check_places("start_positions", on_gpu(torch.tensor([1])), in_context)
    with pytest.raises(RuntimeError, match=r"^start_positions must be words of the context\.$"):
        modeling_elmo_question_answering.check_places(
            "start_positions", on_gpu(torch.tensor([0])), in_context
        )


def test_shapes_and_types_are_checked_where_there_are_no_numbers():
    """On "meta", a model runs, and a wrong shape is still a sentence."""
    with torch.device("meta"):
        model = ElmoModel(make_tagger()[0].config)
        ids = torch.ones(2, 3, 50, dtype=torch.long)
        assert checks_elmo.word_mask(model.config, char_ids=ids).shape == (2, 3)
        with pytest.raises(ValueError, match="attention_mask must have the shape"):
            checks_elmo.word_mask(
                model.config, char_ids=ids, attention_mask=torch.ones(2, 4, dtype=torch.bool)
            )
        with pytest.raises(ValueError, match="char_ids must be a tensor of whole numbers"):
            model(char_ids=ids.float())


# ---- tensors of other kinds


def other_kinds(tensor):
    yield tensor.numpy()
    yield tensor.tolist()
    yield {"a": tensor}
    yield tensor.to(torch.complex64)
    yield tensor.to("meta")
    yield tensor.to_sparse()
    if tensor.dim() > 1:
        yield torch.nested.nested_tensor(list(tensor), layout=torch.jagged)
    yield torch.nn.UninitializedBuffer()
    yield tensor.float() + 0.5
    yield torch.full(tensor.shape, torch.nan)
    yield tensor[None]
    yield torch.cat([tensor, tensor])
    yield -tensor - 200


@pytest.mark.parametrize(
    "make", [make_tagger, make_pairs, make_questions, make_documents, make_language_model]
)
def test_tensors_of_other_kinds_are_refused_in_one_sentence(make):
    model, batch = make()
    read = set(batch) - ({"input_ids"} if make is make_language_model else set())
    for name in read:
        for wrong in list(other_kinds(batch[name]))[: -1 if name == "document_ids" else None]:  # any number
            with pytest.raises(ValueError, match=r"^[^\n]*(must|has)[^\n]*\.$"):
                model(**batch | {name: wrong})


def test_states_of_other_kinds_are_refused_in_one_sentence():
    tagger, batch = make_tagger()
    model, ids = tagger.elmo, batch["char_ids"]
    h, c = model.zero_states(len(ids))
    for wrong in (
        *({"h": h, "c": c}, (h,), (h, c, c), h, "hc", 3, (h, None), (c.numpy(), c), (h.long(), c)),
        *((h.cfloat(), c), (h[0], c[0]), (h[:, :, :1], c), (h.to("meta"), c), (h.to_sparse(), c)),
    ):
        with pytest.raises(ValueError, match=r"^[^\n]*states[^\n]*\.$"):
            model(char_ids=ids, states=wrong)
    assert model(char_ids=ids, states=[h, c.double()]).last_hidden_state.isfinite().all()


def test_vectors_are_of_the_models_type_and_on_its_device():
    model = make_tagger()[0].elmo
    words = torch.zeros(1, 2, model.config.projection_dim)
    for wrong in (words.half(), words.long(), words.to("meta"), words.numpy(), words[..., :-1], words[0]):
        with pytest.raises(ValueError, match=r"^inputs_embeds must [^\n]*\.$"):
            model(inputs_embeds=wrong)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(inputs_embeds=words.bfloat16()).last_hidden_state.isfinite().all()
