"""The taggers: they learn, padding and order change nothing, mistakes are sentences, folders are whole."""

import json

import pytest
import torch
from transformers import AutoModelForTokenClassification, pipeline
from transformers import DataCollatorForTokenClassification as Collator

from elmo_hf import (
    ElmoConfig,
    ElmoForSemanticRoleLabeling,
    ElmoForTokenClassification,
    ElmoLayerCache,
    ElmoTokenizer,
)
from tests.helpers.trainers import learns_in_half_precision, train_until_learned

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
SENTENCES = [
    ["Ada", "Lovelace", "lived", "in", "London", "."],
    ["She", "wrote"],
    ["Paris", ",", "he", "said"],
]
GOLD = [[1, 2, 0, 0, 3, 0], [0, 0], [3, 0, 0, 0]]
CLASSES = [ElmoForTokenClassification, ElmoForSemanticRoleLabeling]
SMALL = {
    "lstm_dim": 12,
    "projection_dim": 8,
    "char_filters": [[1, 4], [2, 6]],
    "vocab_size": 3,
    "id2label": dict(enumerate(LABELS)),
    "task_hidden_size": 6,
    "predicate_dim": 4,
}


def make(model_class, **options):
    torch.manual_seed(0)
    model = model_class(ElmoConfig(**SMALL | options))
    for parameter in model.crf.parameters():
        torch.nn.init.normal_(parameter)
    return model


def encode(model, sentences=SENTENCES, gold=GOLD, **options):
    """A batch with labels, and for role labellers the word before the last as the predicate."""
    batch = ElmoTokenizer()(sentences, is_split_into_words=True, padding=True, return_tensors="pt", **options)
    labels = torch.full(batch["input_ids"].shape, -100)
    labels[batch["attention_mask"].bool()] = torch.tensor([label for row in gold for label in row])
    batch["labels"] = labels
    if isinstance(model, ElmoForSemanticRoleLabeling):
        position = labels.ne(-100).cumsum(dim=1)
        batch["predicate_mask"] = (position == position[:, -1:] - 1).long() * labels.ne(-100)
    return batch


def without_labels(batch):
    return {name: value for name, value in batch.items() if name != "labels"}


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("use_crf", [True, False])
def test_padding_changes_nothing(model_class, use_crf):
    model = make(model_class, use_crf=use_crf, elmo_at_output=True).eval()
    options = {"padding_side": "left", "pad_to_multiple_of": 9}
    batch, padded = encode(model), encode(model, **options)
    of_padded, expected = model(**padded), model(**batch)
    torch.testing.assert_close(of_padded.loss, expected.loss)
    decoded, padded_decoded = model.decode(**without_labels(batch)), model.decode(**without_labels(padded))
    alone = []
    for row, (sentence, gold) in enumerate(zip(SENTENCES, GOLD, strict=True)):
        single = encode(model, [sentence], [gold])
        output, n = model(**single), len(sentence)
        alone.append((output.loss, n))
        torch.testing.assert_close(of_padded.logits[row, -n:], output.logits[0])
        torch.testing.assert_close(expected.logits[row, :n], output.logits[0])
        path = model.decode(**without_labels(single))[0]
        assert torch.equal(decoded[row, :n], path)
        assert torch.equal(padded_decoded[row, -n:], path)
        assert (decoded[row, n:] == -100).all()
    # The loss is the mean over words, so the whole is made of its parts.
    total = sum(loss * n for loss, n in alone) / sum(n for _, n in alone)
    torch.testing.assert_close(expected.loss, total)


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("use_crf", [True, False])
def test_the_order_of_a_batch_changes_nothing(model_class, use_crf):
    model = make(model_class, use_crf=use_crf).eval()
    batch = encode(model)
    order = torch.tensor([2, 0, 1])
    output = model(**{name: value[order] for name, value in batch.items()})
    expected = model(**batch)
    torch.testing.assert_close(output.logits, expected.logits[order])
    torch.testing.assert_close(output.loss, expected.loss)
    turned = {name: value[order] for name, value in without_labels(batch).items()}
    assert torch.equal(model.decode(**turned), model.decode(**without_labels(batch))[order])


@pytest.mark.parametrize("model_class", CLASSES)
def test_logits_are_log_probabilities(model_class):
    model = make(model_class, use_crf=True).eval()
    batch = encode(model)
    probabilities = model(**batch).logits.exp()[batch["attention_mask"].bool()]
    torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(12))
    assert (model(**batch).logits[0, 0].exp()[[2, 4]] == 0).all()  # no sentence begins inside a name


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("use_crf", [True, False])
def test_decoding_keeps_to_the_scheme_where_the_likeliest_labels_do_not(model_class, use_crf):
    model = make(model_class, use_crf=use_crf).eval()
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([0.0, -5.0, 5.0, -5.0, 6.0]))
    names = [
        [LABELS[label] for label in row if label >= 0]
        for row in model.decode(**without_labels(encode(model)))
    ]
    for row in names:
        for before, label in zip(["O", *row], row, strict=False):
            assert label[:2] != "I-" or before[2:] == label[2:], row
    assert any(label != "O" for row in names for label in row)


def random_examples(model_class, number):
    """Sentences of made-up words whose labels follow from the words and, for roles, from the predicate."""
    generator = torch.Generator().manual_seed(0)

    def draw(high):
        return int(torch.randint(high, (1,), generator=generator))

    examples = []
    for _ in range(number):
        words, labels = [], []
        while len(words) < 2 + draw(4):
            entity, length = draw(3), 1 + draw(2)
            words += ["".join("abcdefgh"[draw(8)] for _ in range(4)).title() for _ in range(length)]
            labels += [[0, 0], [1, 2], [3, 4]][entity][:length]
        examples.append({"words": words, "labels": labels, "predicate": draw(len(words))})
    if model_class is ElmoForSemanticRoleLabeling:
        # The same sentences with other labels for another predicate: the model has to look at it.
        for example, pair in zip(examples[::2], examples[1::2], strict=True):
            pair["words"] = example["words"]
            pair["labels"] = pair["labels"][: len(example["words"])] + [0] * (
                len(example["words"]) - len(pair["labels"])
            )
            pair["predicate"] = (example["predicate"] + 1) % len(example["words"])
    return examples


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("use_crf", [True, False])
def test_fifty_examples_are_memorised(model_class, use_crf):
    examples = random_examples(model_class, 50)
    layers = 2 if model_class is ElmoForTokenClassification else 3
    options = {"task_hidden_size": 40, "task_num_layers": layers, "task_dropout": 0.0, "elmo_dropout": 0.0}
    options |= {"lstm_dim": 32, "projection_dim": 16, "task_char_filters": [[4, 40]]}
    model = make(model_class, use_crf=use_crf, **options)
    batch = encode(
        model, [example["words"] for example in examples], [example["labels"] for example in examples]
    )
    if "predicate_mask" in batch:
        places = torch.tensor([example["predicate"] for example in examples])
        batch["predicate_mask"] = torch.nn.functional.one_hot(places, batch["labels"].shape[1])
    model.elmo_cache = ElmoLayerCache()
    optimizer = torch.optim.Adam((weight for weight in model.parameters() if weight.requires_grad), lr=0.02)
    for step in range(400):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        if step % 10 == 9 and torch.equal(model.eval().decode(**without_labels(batch)), batch["labels"]):
            return
        model.train()
    pytest.fail("still not learnt after 400 steps")


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": torch.zeros(3, 5, dtype=torch.long)},
            r"labels must have the shape \(3, 6\) of the words",
        ),
        ({"labels": torch.zeros(3, dtype=torch.long)}, r"labels must have the shape \(3, 6\)"),
        ({"labels": torch.zeros(3, 6)}, "labels must be a tensor of whole numbers, but is of torch.float32"),
        (
            {"labels": torch.zeros(3, 6).bool()},
            "labels must be a tensor of whole numbers, but is of torch.bool",
        ),
        ({"labels": [[0] * 6] * 3}, "labels must be a tensor of whole numbers, but is list"),
        ({"labels": torch.full((3, 6), 5)}, "labels must be from 0 to 4, but holds 5"),
        ({"labels": torch.full((3, 6), -1)}, "labels must be from 0 to 4, but holds -1"),
        ({"labels": torch.full((3, 6), 2)}, "row 0: I-PER begins a row"),
        ({"attention_mask": torch.ones(3, 2)}, r"attention_mask must have the shape \(3, 6\)"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(model_class, change, message):
    model = make(model_class)
    with pytest.raises(ValueError, match=message) as error:
        model(**encode(model) | change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (None, "pass predicate_mask"),
        ([[0] * 6] * 3, "predicate_mask must be a tensor, but is list"),
        (torch.zeros(3, 5), r"predicate_mask must have the shape \(3, 6\)"),
        (torch.full((3, 6), 2), "predicate_mask must be from 0 to 1, but holds 2"),
    ],
)
def test_roles_need_a_predicate(mask, message):
    model = make(ElmoForSemanticRoleLabeling)
    with pytest.raises(ValueError, match=message):
        model(**encode(model) | {"predicate_mask": mask})


def test_a_scheme_that_the_labels_do_not_follow_is_refused():
    with pytest.raises(ValueError, match="label 'NOUN' is not O"):
        make(ElmoForTokenClassification, id2label={0: "O", 1: "NOUN"}, tag_scheme="BIO")
    make(ElmoForTokenClassification, id2label={0: "O", 1: "NOUN"})


# ---- saved, and loaded elsewhere


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("options", [{}, {"use_crf": False, "elmo_at_output": True, "task_word_dim": 3},
                                     {"elmo_at_input": False, "task_char_filters": [[2, 3]]}])  # fmt: skip
def test_saving_and_loading_changes_nothing(model_class, options, tmp_path):
    model = make(model_class, **options).eval()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert type(loaded) is model_class
    batch = encode(model)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    # The same to the bit but for where in memory the weights happen to lie, which products depend on.
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits, rtol=1e-6, atol=1e-6)
    assert torch.equal(loaded.decode(**without_labels(batch)), model.decode(**without_labels(batch)))
    frozen = [not parameter.requires_grad for parameter in model.parameters()]
    assert [not parameter.requires_grad for parameter in loaded.parameters()] == frozen


REMOTE = """
    import sys
    import json
    from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification, AutoTokenizer
    words = json.loads(sys.argv[1])

    def read(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
        model = AutoModelForTokenClassification.from_pretrained(folder, trust_remote_code=True).eval()
        batch = tokenizer(words, is_split_into_words=True, padding=True, return_tensors="pt")
        if "SemanticRole" in type(model).__name__:
            batch["predicate_mask"] = (batch["attention_mask"].cumsum(1) == 2).long()
        AutoModel.from_pretrained(folder, trust_remote_code=True)
        model.save_pretrained(folder + "-again")
        tokenizer.save_pretrained(folder + "-again")
        return {"logits": model(**batch).logits.tolist(), "labels": model.decode(**batch).tolist()}

    found = []
    for folder in sys.argv[2:]:
        found.append(read(folder))
        assert read(folder + "-again") == found[-1]
    print(json.dumps(found))
"""


def test_a_saved_folder_loads_without_the_package(fork_server, tmp_path):
    """Heads with their tokenizer, where the package cannot be imported, saved there, loaded again."""
    expected, folders = [], []
    for model_class in CLASSES:
        model, folder = make(model_class).eval(), tmp_path / model_class.__name__
        model.save_pretrained(folder)
        ElmoTokenizer().save_pretrained(folder)
        folders.append(str(folder))
        batch = without_labels(encode(model))
        if "predicate_mask" in batch:
            batch["predicate_mask"] = (batch["attention_mask"].cumsum(1) == 2).long()
        expected.append((model(**batch).logits, model.decode(**batch).tolist()))
    outputs = fork_server.run_without_the_package(REMOTE, json.dumps(SENTENCES), *folders)
    for output, (logits, labels) in zip(outputs, expected, strict=True):
        torch.testing.assert_close(torch.tensor(output["logits"]), logits)
        assert output["labels"] == labels


def test_the_auto_map_names_every_class_of_the_folder(tmp_path):
    expected = {
        "AutoConfig": "configuration_elmo.ElmoConfig",
        "AutoModel": "modeling_elmo.ElmoModel",
        "AutoModelForTokenClassification": "modeling_elmo_tagging.ElmoForTokenClassification",
        "AutoTokenizer": ["tokenization_elmo.ElmoTokenizer", None],
    }
    make(ElmoForTokenClassification).save_pretrained(tmp_path / "with")
    assert json.loads((tmp_path / "with" / "config.json").read_text())["auto_map"] == expected
    del expected["AutoModel"]  # there is none in it
    make(ElmoForTokenClassification, elmo_at_input=False, task_word_dim=3).save_pretrained(
        tmp_path / "without"
    )
    assert json.loads((tmp_path / "without" / "config.json").read_text())["auto_map"] == expected


# ---- Trainer and pipeline


def as_batch(tokenizer):
    """What gathers rows of tokens, labels, and predicates where there are any."""
    pad = Collator(tokenizer)

    def collate(rows):
        places = [row.pop("predicate_mask", None) for row in map(dict, rows)]
        batch = pad([{name: row[name] for name in row if name != "predicate_mask"} for row in rows])
        if places[0] is not None:
            batch["predicate_mask"] = torch.zeros_like(batch["input_ids"])
            for row, predicate_mask in zip(batch["predicate_mask"], places, strict=True):
                row[: len(predicate_mask)] = torch.tensor(predicate_mask)
        return batch

    return collate


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("use_crf", [True, False])
def test_the_trainer_trains_the_tagger(model_class, use_crf, tmp_path):
    model, tokenizer = make(model_class, task_dropout=0.0, use_crf=use_crf), ElmoTokenizer()
    examples = []
    for words, labels in zip(SENTENCES, GOLD, strict=True):
        row = dict(tokenizer(words, is_split_into_words=True), labels=labels)
        if model_class is ElmoForSemanticRoleLabeling:
            row["predicate_mask"] = [int(position == 1) for position in range(len(words))]
        examples.append(row)
    train_until_learned(model, examples, as_batch(tokenizer), tmp_path, steps=40, learning_rate=0.05)


@pytest.mark.parametrize("model_class", CLASSES)
def test_half_precision(model_class):
    model = make(model_class).eval()
    learns_in_half_precision(model, encode(model))


def groups(words, probabilities):
    """Neighbours of one type, but for a B- that begins another: their type, their words, their mean score."""
    grouped = []
    for word, row in zip(words, probabilities, strict=True):
        label = LABELS[row.argmax()]
        if not grouped or grouped[-1][0] != label[2:] or label[:2] == "B-":
            grouped.append((label[2:], [], []))
        grouped[-1][1].append(word)
        grouped[-1][2].append(row.max().item())
    return [
        (entity or "O", " ".join(group_words), sum(scores) / len(scores))
        for entity, group_words, scores in grouped
    ]


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_pipeline_shows_true_probabilities(strategy, batch_size, tmp_path):
    """Every aggregation strategy, raw text, a word a token: scores are the model's own probabilities."""
    model = make(ElmoForTokenClassification).eval()
    model.save_pretrained(tmp_path)
    ElmoTokenizer().save_pretrained(tmp_path)
    tagger = pipeline("token-classification", model=str(tmp_path), batch_size=batch_size,
                      aggregation_strategy=strategy, ignore_labels=[])  # fmt: skip
    texts = [" ".join(words) for words in SENTENCES]
    for text, words, predictions in zip(texts, SENTENCES, tagger(texts), strict=True):
        probabilities = model(**encode(model, [words], [[0] * len(words)])).logits[0].exp()
        if strategy == "none":
            assert [prediction["word"] for prediction in predictions] == words
            assert [prediction["entity"] for prediction in predictions] == [
                LABELS[row.argmax()] for row in probabilities
            ]
            scores = [prediction["score"] for prediction in predictions]
            assert scores == pytest.approx(probabilities.amax(dim=-1).tolist(), abs=1e-5)
        else:
            expected = [
                (entity, group_words, pytest.approx(score, abs=1e-5))
                for entity, group_words, score in groups(words, probabilities)
            ]
            assert [
                (prediction["entity_group"], prediction["word"], prediction["score"])
                for prediction in predictions
            ] == expected
        assert all(
            text[prediction["start"] : prediction["end"]] == prediction["word"] for prediction in predictions
        )


@pytest.mark.parametrize("use_crf", [True, False])
@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_labels_are_any_whole_numbers_and_those_of_padding_do_not_matter(use_crf, dtype):
    model = make(ElmoForTokenClassification, use_crf=use_crf).eval()
    batch = encode(model)
    expected = model(**batch).loss
    for at_padding in (-100, 99, -7):
        labels = batch["labels"].masked_fill(~batch["attention_mask"].bool(), at_padding).to(dtype)
        torch.testing.assert_close(model(**batch | {"labels": labels}).loss, expected)


def test_a_pipeline_reads_an_empty_text_among_others():
    model = make(ElmoForTokenClassification).eval()
    tagger = pipeline("token-classification", model=model, tokenizer=ElmoTokenizer(), batch_size=2)
    texts = ["", "Ada wrote", "   ", "Paris"]
    assert tagger(texts) == [tagger(text) for text in texts]
    assert [len(predictions) for predictions in tagger(texts, ignore_labels=[])] == [0, 2, 0, 1]
