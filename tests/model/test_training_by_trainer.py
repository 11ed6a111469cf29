"""`Trainer` with the library's own collators and our metrics, as its users write it for any model."""

import evaluate
import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    default_data_collator,
)

from elmo_hf import ElmoForPreTraining, metrics
from tests.helpers.small_elmo import save_small_elmo
from tests.helpers.trainers import arguments

NAMES = ["O", "B-PER", "I-PER", "B-LOC"]
SENTENCES = {
    "tokens": [["Ada", "Lovelace", "sat", "in", "Paris", "."], ["Bob", "ran"], ["London", "is", "large"]],
    "ner_tags": [[1, 2, 0, 0, 3, 0], [1, 0], [3, 0, 0]],
}
TEXTS = ["A good film .", "Bad .", "Good , really good !", "Not a good film"]
QUIET = {"task_hidden_size": 8, "task_dropout": 0.0, "elmo_dropout": 0.0}


@pytest.fixture(scope="module")
def my_elmo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "my-elmo"
    return save_small_elmo(folder, ElmoForPreTraining, char_filters=[[1, 4], [2, 6]])


def words_and_labels(tokenizer, **options):
    """As `run_ner.py` of Transformers makes them: by the words' numbers, all columns kept."""

    def encode(rows):
        encoding = tokenizer(rows["tokens"], is_split_into_words=True, truncation=True, **options)
        encoding["labels"] = [
            [-100 if word is None else tags[word] for word in encoding.word_ids(batch_index=row)]
            for row, tags in enumerate(rows["ner_tags"])
        ]
        return encoding

    return Dataset.from_dict(SENTENCES).map(encode, batched=True)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("as_tensors", [True, False])
def test_the_collator_of_taggers_pads_letters_and_labels(my_elmo, side, as_tensors):
    tokenizer = AutoTokenizer.from_pretrained(my_elmo, padding_side=side)
    rows = words_and_labels(tokenizer).remove_columns(["tokens", "ner_tags"])
    rows = rows.with_format("torch") if as_tensors else rows
    batch = DataCollatorForTokenClassification(tokenizer, pad_to_multiple_of=4)(
        [rows[row] for row in range(3)]
    )
    whole = tokenizer(SENTENCES["tokens"], is_split_into_words=True, padding="max_length", max_length=8)
    for name in ("input_ids", "char_ids", "attention_mask"):
        assert batch[name].tolist() == whole[name]
    for labels, tags, mask in zip(
        batch["labels"].tolist(), SENTENCES["ner_tags"], batch["attention_mask"], strict=True
    ):
        padding = [-100] * (8 - len(tags))
        assert labels == (tags + padding if side == "right" else padding + tags)
        assert [label != -100 for label in labels] == mask.bool().tolist()


def test_the_collator_of_classifiers_pads_letters_and_types(my_elmo):
    tokenizer = AutoTokenizer.from_pretrained(my_elmo)
    rows = [
        {**tokenizer(text, "It is .", return_token_type_ids=True), "label": number}
        for number, text in enumerate(TEXTS)
    ]
    batch = DataCollatorWithPadding(tokenizer)(rows)
    whole = tokenizer(TEXTS, ["It is ."] * 4, return_token_type_ids=True, padding=True)
    assert batch.pop("labels").tolist() == [0, 1, 2, 3]
    assert {name: tensor.tolist() for name, tensor in batch.items()} == dict(whole)


def tagging_scores(prediction):
    predicted, gold = metrics.label_names(prediction.predictions.argmax(-1), prediction.label_ids, NAMES)
    spans = evaluate.load(metrics.path("spans"))
    return {"f1": spans.compute(predictions=predicted, references=gold)["f1"]}


def trainer_of(model, rows, collator, tokenizer, folder, steps=40, **options):
    return Trainer(
        model,
        arguments(folder, steps, 0.05, per_device_train_batch_size=2, **options),
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=collator,
        processing_class=tokenizer,
    )


@pytest.mark.parametrize(("use_crf", "side"), [(True, "right"), (False, "left")])
def test_a_tagger(my_elmo, use_crf, side, tmp_path):
    """Trained, stopped, resumed from the checkpoint, saved and loaded."""
    tokenizer = AutoTokenizer.from_pretrained(my_elmo, padding_side=side)
    rows, collator = words_and_labels(tokenizer), DataCollatorForTokenClassification(tokenizer)
    options = {"id2label": dict(enumerate(NAMES)), "use_crf": use_crf, "task_char_filters": [[3, 12]]}

    def make(steps):
        torch.manual_seed(0)
        model = AutoModelForTokenClassification.from_pretrained(my_elmo, **QUIET, **options)
        kept = {"save_strategy": "steps", "save_steps": 20, "lr_scheduler_type": "constant"}
        trainer = trainer_of(model, rows, collator, tokenizer, tmp_path / "run", steps, **kept)
        trainer.compute_metrics = tagging_scores
        return trainer

    first = make(20)
    assert first.evaluate()["eval_f1"] < 0.9
    first.train()
    resumed, whole = make(40), make(40)
    resumed.train(resume_from_checkpoint=True)
    whole.train()
    assert resumed.evaluate()["eval_f1"] == 1.0
    assert resumed.evaluate()["eval_loss"] == pytest.approx(whole.evaluate()["eval_loss"], abs=1e-5)
    resumed.save_model(tmp_path / "saved")
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path / "saved")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    words = loaded.predict(SENTENCES["tokens"], tokenizer)
    assert [[NAMES.index(word["label"]) for word in row] for row in words] == SENTENCES["ner_tags"]


def test_a_tagger_of_rows_that_are_padded_already(my_elmo, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(my_elmo)
    rows = words_and_labels(tokenizer, padding="max_length", max_length=8)
    names = dict(enumerate(NAMES))
    model = AutoModelForTokenClassification.from_pretrained(my_elmo, id2label=names, **QUIET)
    trainer = trainer_of(model, rows, default_data_collator, tokenizer, tmp_path, steps=2)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before


KINDS = {
    "one": ([1, 0, 1, 0], {"num_labels": 2}),
    "several": ([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], {"num_labels": 3}),
    "numbers": ([0.5, -1.0, 1.5, 0.0], {"num_labels": 1}),
}


@pytest.mark.parametrize(
    ("kind", "classifier"), [("one", "bcn"), ("one", "esim"), ("several", "bcn"), ("numbers", "esim")]
)
def test_a_classifier(my_elmo, kind, classifier, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(my_elmo)
    labels, options = KINDS[kind]
    second = ["It is good ."] * 4 if classifier == "esim" else None
    rows = Dataset.from_dict({"text": TEXTS, "label": labels, "idx": [0, 1, 2, 3]})
    rows = rows.map(lambda row: tokenizer(row["text"], second and second[0]))
    torch.manual_seed(1)
    own = {"task_char_filters": [[3, 12]], "maxout_pieces": 0}
    model = AutoModelForSequenceClassification.from_pretrained(
        my_elmo, classifier=classifier, **QUIET, **own, **options
    )
    trainer = trainer_of(model, rows, DataCollatorWithPadding(tokenizer), tokenizer, tmp_path, steps=100)
    before = trainer.evaluate()["eval_loss"]
    trainer.args.learning_rate = 0.02
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.3 * before
    answers = model.predict(TEXTS, tokenizer, second)
    if kind == "one":
        assert [answer["label"] for answer in answers] == [f"LABEL_{label}" for label in labels]
        accuracy = evaluate.load(metrics.path("accuracy"))
        predicted = trainer.predict(rows).predictions.argmax(-1)
        assert accuracy.compute(predictions=predicted, references=labels) == {"accuracy": 1.0}
    elif kind == "numbers":
        assert [answer["score"] for answer in answers] == pytest.approx(labels, abs=0.5)
    else:
        got = [{answer["label"] for answer in each} for each in answers]
        assert got == [{f"LABEL_{n}" for n, label in enumerate(row) if label} for row in labels]
