"""`predict` of taggers, role labellers and classifiers: texts, words, batches and pairs, and mistakes."""

import random

import numpy as np
import pytest
import torch
from datasets import Dataset
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, Entities
from transformers import BertTokenizer

from elmo_hf import ElmoConfig, ElmoForSemanticRoleLabeling, ElmoForTokenClassification, ElmoTokenizer
from elmo_hf.model.predicting_elmo import spans_of
from elmo_hf.model.words_elmo import split_text
from tests.helpers.small_classifiers import FIRST, SECOND, make

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TEXTS = ["Ada Lovelace didn't live in  London.", "", "Why?"]
WORDS = [["Ada", "Lovelace", "didn", "'t", "live", "in", "London", "."], [], ["Why", "?"]]
TOKENIZER = ElmoTokenizer()
SMALL = {"lstm_dim": 12, "projection_dim": 8, "char_filters": [[1, 4], [2, 6]], "vocab_size": 3}


def make_tagger(model_class=ElmoForTokenClassification, labels=LABELS, **options):
    torch.manual_seed(1)
    sizes = SMALL | {"task_hidden_size": 6, "predicate_dim": 4, "id2label": dict(enumerate(labels))}
    model = model_class(ElmoConfig(**sizes | options))
    for parameter in [*model.crf.parameters(), *model.classifier.parameters()]:
        torch.nn.init.normal_(parameter)
    model.input_mix.gamma.data.fill_(100.0)  # so that words have different labels
    return model.train()


@pytest.mark.parametrize("use_crf", [True, False])
def test_the_words_of_a_text_with_labels_and_places(use_crf):
    model = make_tagger(use_crf=use_crf)
    words = model.predict(TEXTS[0], TOKENIZER)
    assert [word["word"] for word in words] == WORDS[0]
    assert [TEXTS[0][word["start"] : word["end"]] for word in words] == WORDS[0]
    assert model.training
    encoding = TOKENIZER(TEXTS[0], return_tensors="pt")
    model.eval()
    labels = model.decode(**encoding)[0].tolist()
    assert [word["label"] for word in words] == [LABELS[label] for label in labels]
    shares = model(**encoding).logits[0].softmax(dim=-1)
    expected = [shares[place, label].item() for place, label in enumerate(labels)]
    assert [word["score"] for word in words] == pytest.approx(expected, rel=1e-5)
    assert len({word["label"] for word in words}) > 1


@pytest.mark.parametrize("side", ["right", "left"])
def test_batches_give_what_single_texts_give(side):
    model = make_tagger()
    tokenizer = ElmoTokenizer(padding_side=side)
    single = [model.predict(text, TOKENIZER) for text in TEXTS]
    for batch_size in (1, 2, 32):
        results = model.predict(TEXTS, tokenizer, batch_size=batch_size)
        assert [len(words) for words in results] == [8, 0, 2]
        for words, expected in zip(results, single, strict=True):
            scores = [word.pop("score") for word in words]
            assert scores == pytest.approx([word["score"] for word in expected], rel=1e-4)
            assert words == [{k: v for k, v in word.items() if k != "score"} for word in expected]
    assert model.predict([], TOKENIZER) == []
    column = Dataset.from_dict({"text": TEXTS})["text"]
    for texts in (column, np.array(TEXTS), tuple(TEXTS), iter(TEXTS)):
        assert [len(words) for words in model.predict(texts, TOKENIZER)] == [8, 0, 2]


def test_lists_of_words_have_no_places_in_a_text():
    model = make_tagger()
    (words, _, _), expected = model.predict(WORDS, TOKENIZER), model.predict(TEXTS[0], TOKENIZER)
    assert [set(word) for word in words] == [{"word", "label", "score"}] * 8
    assert [word["label"] for word in words] == [word["label"] for word in expected]
    assert model.predict(WORDS[0], TOKENIZER, is_split_into_words=True)[3]["word"] == "'t"


def test_spans_join_words():
    model = make_tagger()
    path = torch.tensor([1, 2, 0, 3, 4, 4, 0, 1])
    model._best_paths = lambda words, scores: path.expand(len(scores), -1).masked_fill(~words.mask, -100)
    words, spans = (model.predict(TEXTS[0], TOKENIZER, spans=choice) for choice in (False, True))
    expected = get_entities([word["label"] for word in words])
    assert [(span["label"], *span["words"]) for span in spans] == [(k, a, b + 1) for k, a, b in expected]
    assert len(spans) == 3
    for span in spans:
        first, end = span["words"]
        assert span["text"] == TEXTS[0][span["start"] : span["end"]]
        assert (
            span["text"].split()
            == " ".join(WORDS[0][first:end]).replace(" 't", "'t").replace(" .", ".").split()
        )
        assert span["score"] == pytest.approx(sum(word["score"] for word in words[first:end]) / (end - first))
    (by_words, *_) = model.predict(WORDS, TOKENIZER, spans=True)
    assert [span["text"] for span in by_words] == [
        " ".join(WORDS[0][slice(*span["words"])]) for span in spans
    ]
    assert "start" not in by_words[0]


def test_spans_of_random_labels_are_those_of_seqeval():
    draw = random.Random(0)
    for _ in range(300):
        labels = draw.choices(LABELS, k=draw.randrange(9))
        assert spans_of(labels) == [(kind, first, last + 1) for kind, first, last in get_entities(labels)]


def test_spans_of_bioul():
    labels = ["O", "U-PER", "B-LOC", "I-LOC", "L-LOC", "U-LOC", "B-PER", "L-PER", "B-PER", "L-PER"]
    (entities,) = Entities([labels], BILOU).entities
    assert spans_of(labels) == [(entity.tag, entity.start, entity.end) for entity in entities]
    unfit = ["B-PER", "L-PER", "I-PER", "L-PER", "U-PER", "I-PER"]  # what is closed is not continued
    assert spans_of(unfit) == [("PER", 0, 2), ("PER", 2, 4), ("PER", 4, 5), ("PER", 5, 6)]


def test_roles_of_a_predicate():
    labels = ["O", "B-V", "B-ARG0", "I-ARG0", "B-ARG1", "I-ARG1"]
    model = make_tagger(ElmoForSemanticRoleLabeling, labels, role_rules=True)
    text = "Ada wrote a letter ."
    words = model.predict(text, TOKENIZER, predicate=1)
    encoding = TOKENIZER([text], return_tensors="pt")
    mask = torch.tensor([[0, 1, 0, 0, 0]])
    model.eval()
    decoded = model.decode(**encoding, predicate_mask=mask)[0].tolist()
    assert [word["label"] for word in words] == [labels[label] for label in decoded]
    twice = model.predict([text, "He left"], ElmoTokenizer(padding_side="left"), predicate=[1, 0])
    assert [word["label"] for word in twice[0]] == [word["label"] for word in words]
    assert [word["word"] for word in twice[1]] == ["He", "left"]
    spans = model.predict(text.split(), TOKENIZER, 1, spans=True, is_split_into_words=True)
    assert [span["label"] for span in spans] == [
        kind for kind, *_ in get_entities([w["label"] for w in words])
    ]


def probabilities(model, *texts):
    with torch.no_grad():
        return model.eval()(**TOKENIZER(*texts, return_tensors="pt")).logits[0].softmax(dim=-1).tolist()


def test_the_label_of_a_text():
    model = make("bcn").train()
    texts = [" ".join(words) for words in FIRST]
    answer = model.predict(texts[0], TOKENIZER)
    assert model.training
    shares = probabilities(model, texts[0])
    assert answer == {"label": f"LABEL_{shares.index(max(shares))}", "score": pytest.approx(max(shares))}
    ranking = model.predict(texts[0], TOKENIZER, top_k=3)
    assert [each["score"] for each in ranking] == pytest.approx(sorted(shares, reverse=True)[:3])
    assert ranking[0] == answer
    by_words = model.predict(FIRST, TOKENIZER)
    for batch_size in (1, 2, 8):
        answers = model.predict(texts, TOKENIZER, batch_size=batch_size)
        assert [each["label"] for each in answers] == [each["label"] for each in by_words]
        assert answers[0]["score"] == pytest.approx(answer["score"])
    assert model.predict(FIRST[0], TOKENIZER, is_split_into_words=True)["score"] == pytest.approx(
        answer["score"]
    )


def test_the_label_of_a_pair():
    model = make("esim")
    first, second = ([" ".join(words) for words in texts] for texts in (FIRST, SECOND))
    for number, answer in enumerate(model.predict(first, TOKENIZER, second, batch_size=2)):
        shares = probabilities(model, first[number], second[number])
        assert answer == {"label": f"LABEL_{shares.index(max(shares))}", "score": pytest.approx(max(shares))}
    single = model.predict(FIRST[2], TOKENIZER, SECOND[2], is_split_into_words=True)
    assert single == {"label": answer["label"], "score": pytest.approx(answer["score"])}
    assert model.predict("a </S> <S> b", TOKENIZER, "c")["score"] > 0


def test_the_names_of_special_tokens_are_ordinary_words_of_a_text():
    text = "Why </S> <S> not <UNK> ?"
    words = split_text(text, "penn").words
    assert "</S>" not in words
    model = make("bcn")
    expected = model.predict(words, TOKENIZER, is_split_into_words=True)
    assert model.predict(text, TOKENIZER) == {
        "label": expected["label"],
        "score": pytest.approx(expected["score"]),
    }


def test_several_labels_and_numbers():
    model = make("bcn", problem_type="multi_label_classification")
    with torch.no_grad():
        logits = model.eval()(**TOKENIZER("Why not ?", return_tensors="pt")).logits[0]
    answers = model.predict("Why not ?", TOKENIZER, top_k=4)
    shares = {f"LABEL_{number}": share for number, share in enumerate(logits.sigmoid().tolist())}
    assert {each["label"]: each["score"] for each in answers} == pytest.approx(shares)
    likely = model.predict("Why not ?", TOKENIZER)
    assert likely == [each for each in answers if shares[each["label"]] >= 0.5]
    numbers = make("bcn", num_labels=3, problem_type="regression").predict("Why not ?", TOKENIZER)
    assert [each["label"] for each in numbers] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert set(make("bcn", num_labels=1).predict("Why ?", TOKENIZER)) == {"label", "score"}


ROLES = ["O", "B-V"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_tagger().predict(3, TOKENIZER), "text must be a string or a list, but is 3."),
        (
            lambda: make_tagger().predict({"text": "a"}, TOKENIZER),
            "text must be a string or a list, but is {",
        ),
        (lambda: make_tagger().predict(["a", ["b"]], TOKENIZER), "strings only, or lists of words only"),
        (lambda: make_tagger().predict([["a", 3]], TOKENIZER), "entry 0 of text must be a string or a list"),
        (lambda: make_tagger().predict("a b", TOKENIZER, is_split_into_words=True), "text is one string"),
        (lambda: make_tagger().predict("a", None), "must be the ElmoTokenizer that was saved with the model"),
        (lambda: make_tagger().predict("a", BertTokenizer), "tokenizer must be the ElmoTokenizer"),
        (lambda: make_tagger().predict("a", TOKENIZER, batch_size=0), "batch_size must be a whole number"),
        (
            lambda: make_tagger(labels=["NOUN", "VERB"]).predict("a", TOKENIZER, spans=True),
            "label 'NOUN' is not O, B-... or I-..., so words with it make no spans; leave spans out.",
        ),
        (
            lambda: make_tagger(ElmoForSemanticRoleLabeling, ROLES).predict("a b", TOKENIZER, 2),
            "the predicate of text 0 must be the number of a word, from 0 to 1, but is 2.",
        ),
        (
            lambda: make_tagger(ElmoForSemanticRoleLabeling, ROLES).predict(["a", ""], TOKENIZER, [0, 0]),
            "text 1 has no words, and so no predicate.",
        ),
        (
            lambda: make_tagger(ElmoForSemanticRoleLabeling, ROLES).predict(["a", "b"], TOKENIZER, 0),
            "predicate must be a list of 2 numbers, one a text, but is 0.",
        ),
        (
            lambda: make("bcn").predict("a", TOKENIZER, "b"),
            "classifier 'bcn' reads one text; leave text_pair",
        ),
        (lambda: make("esim").predict("a", TOKENIZER), "compares two sentences, so predict needs text_pair."),
        (lambda: make("esim").predict("a", TOKENIZER, ["b"]), "text and text_pair must be of the same form"),
        (lambda: make("esim").predict(["a"], TOKENIZER, ["b", "c"]), "must be of the same form"),
        (lambda: make("bcn").predict("a", TOKENIZER, top_k=0), "top_k must be a whole number, at least 1"),
        (lambda: make("bcn", num_labels=1).predict("a", TOKENIZER, top_k=1), "leave top_k out."),
    ],
)
def test_mistakes_are_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=r"\.$") as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_spans_of_a_bioul_tagger():
    labels = ["O", "U-PER", "B-PER", "I-PER", "L-PER", "U-LOC"]
    model = make_tagger(labels=labels, tag_scheme="BIOUL")
    words, spans = (model.predict(WORDS[0], TOKENIZER, chosen, 32, True) for chosen in (False, True))
    (entities,) = Entities([[word["label"] for word in words]], BILOU).entities
    assert [(span["label"], *span["words"]) for span in spans] == [(e.tag, e.start, e.end) for e in entities]
    assert spans
