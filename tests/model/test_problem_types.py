"""Classifiers of one label, of several at once, and of numbers, as Transformers' `problem_type` says."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, pipeline

from elmo_hf import ElmoConfig, ElmoForSemanticRoleLabeling, ElmoForTokenClassification, ElmoTokenizer
from tests.helpers.small_classifiers import CLASSIFIERS, SMALL, encode, make

SEVERAL = [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 1, 1]]
NUMBERS = [0.5, -3.0, 20.0]
MULTI, SINGLE = "multi_label_classification", "single_label_classification"


def loss_of(model, batch, labels):
    """The loss without the penalty of the mixes, and the logits in float64."""
    model.eval()
    output = model(**batch, labels=labels)
    penalty = sum(mix.penalty().item() for mix in (model.input_mix, model.output_mix) if mix is not None)
    return output.loss.item() - penalty, output.logits.detach().double().numpy()


def binary_cross_entropy(logits, labels):
    shares = 1 / (1 + np.exp(-logits))
    return -np.mean(labels * np.log(shares) + (1 - labels) * np.log(1 - shares))


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({}, torch.tensor(SEVERAL).float()),
        ({"problem_type": MULTI}, torch.tensor(SEVERAL).float()),
        ({"problem_type": MULTI}, torch.tensor(SEVERAL)),
        ({"problem_type": MULTI}, torch.tensor(SEVERAL).double() * 0.75),
    ],
)
def test_several_labels_at_once(classifier, options, labels):
    model = make(classifier, **options)
    loss, logits = loss_of(model, encode(classifier), labels)
    assert loss == pytest.approx(binary_cross_entropy(logits, labels.numpy()), rel=1e-5)
    assert model.config.problem_type == MULTI
    assert model.decode(**encode(classifier)).tolist() == (logits > 0).astype(int).tolist()


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize(
    ("num_labels", "problem_type", "labels"),
    [
        (1, None, torch.tensor(NUMBERS)),
        (1, "regression", torch.tensor(NUMBERS)[:, None]),
        (1, None, torch.tensor([3, 0, -2])),
        (4, "regression", torch.tensor(SEVERAL) * 2.5),
    ],
)
def test_regression(classifier, num_labels, problem_type, labels):
    model = make(classifier, num_labels=num_labels, problem_type=problem_type)
    loss, logits = loss_of(model, encode(classifier), labels)
    assert loss == pytest.approx(np.mean((logits - labels.numpy().reshape(logits.shape)) ** 2), rel=1e-5)
    assert model.config.problem_type == "regression"
    numbers = logits[:, 0] if num_labels == 1 else logits
    np.testing.assert_allclose(model.decode(**encode(classifier)).detach(), numbers, rtol=1e-5, atol=1e-8)


def test_whole_numbers_are_single_labels_by_default():
    model = make("bcn")
    loss_of(model, encode("bcn"), torch.tensor([0, 3, 1], dtype=torch.uint8))
    assert model.config.problem_type == SINGLE
    with pytest.raises(ValueError, match="labels must be a tensor of whole numbers, but is of"):
        loss_of(model, encode("bcn"), torch.tensor(SEVERAL).float())


@pytest.mark.parametrize("problem_type", [MULTI, "regression"])
def test_every_number_learns(problem_type):
    model = make("bcn", problem_type=problem_type, task_dropout=0.0, elmo_dropout=0.0)
    model.train()
    model(**encode("bcn"), labels=torch.tensor(SEVERAL).float()).loss.backward()
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in learnt[2:])


@pytest.mark.parametrize(
    ("options", "labels", "message"),
    [
        ({}, torch.tensor(SEVERAL), "(3, 4); for several labels at once set problem_type='multi_label_"),
        ({}, torch.tensor(NUMBERS), "labels must have the shape (3, 4), a number from 0 to 1 for each label"),
        ({"problem_type": MULTI}, torch.tensor([1, 0, 1]), "must have the shape (3, 4)"),
        ({"problem_type": MULTI}, torch.tensor(SEVERAL) * 2, "must be from 0 to 1, but hold 2."),
        ({"problem_type": MULTI}, torch.full((3, 4), torch.nan), "must be from 0 to 1, but hold nan."),
        ({"problem_type": SINGLE}, torch.tensor(NUMBERS), "must be a tensor of whole numbers"),
        ({"problem_type": "regression"}, torch.tensor(NUMBERS), "must have the shape (3, 4), but have (3,)"),
        ({"num_labels": 1}, torch.tensor([1.0, torch.inf, 0]), "must be finite, but hold NaN or an infinite"),
        ({"num_labels": 1}, torch.tensor([[1.0, 2, 0]]), "must have the shape (3,), but have (1, 3)"),
        ({"num_labels": 1}, torch.tensor([1j, 0, 0]), "labels must be a tensor of numbers of any type"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(options, labels, message):
    with pytest.raises(ValueError, match=r"\.$") as error:
        make("bcn", **options)(**encode("bcn"), labels=labels)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{"problem_type": "ranking"}, {"problem_type": SINGLE, "num_labels": 1}])
def test_configs_without_sense_are_refused(options):
    with pytest.raises(ValueError, match=r"problem_type.*\.$") as error:
        make("bcn", **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("model_class", [ElmoForTokenClassification, ElmoForSemanticRoleLabeling])
def test_taggers_give_each_word_one_label(model_class):
    with pytest.raises(
        ValueError, match=r"gives each word one label, so problem_type must not be 'regr.*\.$"
    ):
        model_class(ElmoConfig(**SMALL, problem_type="regression"))


@pytest.mark.parametrize("labels", [torch.zeros(0), torch.zeros(0, 1)])
def test_a_batch_of_no_rows(labels):
    batch = {name: tensor[:0] for name, tensor in encode("bcn").items()}
    assert make("bcn", num_labels=1, mix_l2=0.0)(**batch, labels=labels).loss == 0


@pytest.mark.parametrize(
    ("options", "labels", "kind"),
    [
        ({"num_labels": 1}, torch.tensor(NUMBERS), "none"),
        ({"num_labels": 4}, torch.tensor(SEVERAL).float(), "sigmoid"),
        ({"num_labels": 4}, torch.tensor([0, 3, 1]), "softmax"),
    ],
)
def test_a_saved_model_answers_as_it_was_trained(options, labels, kind, tmp_path):
    model, tokenizer = make("bcn", **options), ElmoTokenizer()
    loss_of(model, encode("bcn"), labels)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    text = "Ada sat in London ."
    with torch.no_grad():
        logits = model.eval()(**tokenizer(text, return_tensors="pt")).logits[0].double().numpy()
    exponentials = np.exp(logits)
    expected = {
        "none": logits,
        "sigmoid": 1 / (1 + 1 / exponentials),
        "softmax": exponentials / exponentials.sum(),
    }
    (answers,) = pipeline("text-classification", model=str(tmp_path), top_k=None)([text])
    scores = {answer["label"]: answer["score"] for answer in answers}
    np.testing.assert_allclose([scores[f"LABEL_{n}"] for n in range(len(logits))], expected[kind], rtol=1e-5)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.config.problem_type == model.config.problem_type
