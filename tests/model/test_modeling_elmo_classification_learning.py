"""The classifiers learn, are saved and loaded elsewhere, and serve Trainer and pipelines."""

import json

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    pipeline,
)

from elmo_hf import ElmoForSequenceClassification, ElmoLayerCache, ElmoTokenizer
from tests.helpers.small_classifiers import CLASSIFIERS, FIRST, LABELS, SECOND, encode, make, make_trainable
from tests.helpers.trainers import learns_in_half_precision, train_until_learned

# ---- learning


def random_examples(number):
    """First sentences, second ones, and labels that follow from neither: made-up words, drawn by chance."""
    generator = torch.Generator().manual_seed(0)

    def sentence():
        length = 2 + int(torch.randint(5, (1,), generator=generator))
        letters = torch.randint(8, (length, 3), generator=generator).tolist()
        return ["".join("abcdefgh"[letter] for letter in word) for word in letters]

    first, second = [sentence() for _ in range(number)], [sentence() for _ in range(number)]
    labels = torch.randint(4, (number,), generator=generator)
    return first, second, labels


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize("options", [{}, {"elmo_at_output": True, "maxout_pieces": 0}])
def test_fifty_examples_are_memorised(classifier, options):
    first, second, labels = random_examples(50)
    if classifier == "esim":
        first[1::2] = first[::2]  # only the second sentence tells the two apart
    options = options | {"task_hidden_size": 16, "task_num_layers": 1}
    model = make_trainable(classifier, lstm_dim=32, projection_dim=16, **options)
    batch = ElmoTokenizer()(first, second if classifier == "esim" else None, is_split_into_words=True,
                            padding=True, return_tensors="pt")  # fmt: skip
    model.elmo_cache = ElmoLayerCache()
    optimizer = torch.optim.Adam(
        (parameter for parameter in model.parameters() if parameter.requires_grad), lr=0.01
    )
    for _ in range(300):
        output = model(**batch, labels=labels)
        if torch.equal(output.logits.argmax(dim=-1), labels):
            return
        optimizer.zero_grad()
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    pytest.fail("still not learnt after 300 steps")


# ---- saved, and loaded elsewhere


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize("options", [{}, {"maxout_pieces": 0, "elmo_at_output": True, "task_word_dim": 3},
                                     {"elmo_at_input": False, "task_char_filters": [[2, 3]]}])  # fmt: skip
def test_saving_and_loading_changes_nothing(classifier, options, tmp_path):
    model = make(classifier, **options).eval()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is ElmoForSequenceClassification
    weights = model.state_dict()
    assert loaded.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
    # Products may be rounded differently, for loaded weights lie in memory as they lay in the file.
    batch = encode(classifier)
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-7)


def test_a_pretrained_biLM_is_loaded_and_the_head_is_new(tmp_path):
    source = make("bcn")
    source.elmo.save_pretrained(tmp_path)
    for classifier in CLASSIFIERS:
        model = AutoModelForSequenceClassification.from_pretrained(
            tmp_path, classifier=classifier, num_labels=3
        ).eval()
        for name, value in source.elmo.state_dict().items():
            assert torch.equal(model.elmo.state_dict()[name], value)
        logits = model(**encode(classifier)).logits
        assert logits.shape == (3, 3)
        assert torch.isfinite(logits).all()
        assert all(value.abs().max() < 10 for value in model.state_dict().values())


REMOTE = """
    import sys
    import json
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer
    source, target, first, second = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:])
    logits = {}
    for name, pair in {"bcn": (first,), "esim": (first, second)}.items():
        folder = f"{source}/{name}"
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
        model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
        batch = tokenizer(*pair, is_split_into_words=True, padding=True, return_tensors="pt")
        logits[name] = model(**batch).logits.tolist()
        AutoModel.from_pretrained(folder, trust_remote_code=True)
        model.save_pretrained(f"{target}/{name}")
        tokenizer.save_pretrained(f"{target}/{name}")
    print(json.dumps(logits))
"""


def test_a_saved_folder_loads_without_the_package(fork_server, tmp_path):
    """Loaded where the package cannot be imported, and what is saved there once more."""
    expected = {}
    for classifier in CLASSIFIERS:
        model = make(classifier).eval()
        model.save_pretrained(tmp_path / "first" / classifier)
        ElmoTokenizer().save_pretrained(tmp_path / "first" / classifier)
        expected[classifier] = model(**encode(classifier)).logits
    texts = [json.dumps(FIRST), json.dumps(SECOND)]
    logits = fork_server.run_without_the_package(REMOTE, tmp_path / "first", tmp_path / "second", *texts)
    again = fork_server.run_without_the_package(REMOTE, tmp_path / "second", tmp_path / "third", *texts)
    assert again == logits
    for classifier in CLASSIFIERS:
        torch.testing.assert_close(torch.tensor(logits[classifier]), expected[classifier])
        config = json.loads((tmp_path / "second" / classifier / "config.json").read_text())
        assert config["auto_map"]["AutoModelForSequenceClassification"] == (
            "modeling_elmo_classification.ElmoForSequenceClassification"
        )


# ---- Trainer and pipeline


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_the_trainer_trains(classifier, tmp_path):
    model, tokenizer = make_trainable(classifier, task_hidden_size=10, task_num_layers=1), ElmoTokenizer()
    examples = []
    for first, second, label in zip(FIRST, SECOND, LABELS.tolist(), strict=True):
        pair = (first, second) if classifier == "esim" else (first,)
        examples.append(dict(tokenizer(*pair, is_split_into_words=True), label=label))
    collate = DataCollatorWithPadding(tokenizer)
    trainer = train_until_learned(model, examples, collate, tmp_path, steps=40, learning_rate=0.02)
    predicted = trainer.predict(examples)
    assert predicted.predictions.argmax(axis=-1).tolist() == LABELS.tolist()


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_half_precision(classifier):
    batch = encode(classifier) | {"labels": LABELS}
    learns_in_half_precision(make(classifier).eval(), batch)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_pipeline_classifies_texts_and_pairs(classifier, batch_size, tmp_path):
    names = ["bad", "fair", "good", "great"]
    model = make(classifier, id2label=dict(enumerate(names))).eval()
    model.save_pretrained(tmp_path)
    ElmoTokenizer().save_pretrained(tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path), batch_size=batch_size, top_k=None)
    texts = [" ".join(words) for words in FIRST]
    if classifier == "esim":
        texts = [
            {"text": text, "text_pair": " ".join(words)} for text, words in zip(texts, SECOND, strict=True)
        ]
    for row, predictions in enumerate(classify(texts)):
        scores = model(**encode(classifier, [row])).logits[0].softmax(dim=-1).tolist()
        expected = dict(zip(names, scores, strict=True))
        assert {prediction["label"]: prediction["score"] for prediction in predictions} == pytest.approx(
            expected, abs=1e-5
        )
    if classifier == "esim":
        assert classify(texts[0])[0]["label"] in names
        with pytest.raises(ValueError, match="row 0 is no pair"):
            classify("Only one sentence .")
