"""Scores of labels against the official scorers' rules in another form, against seqeval, and by hand."""

import warnings

import pytest
import seqeval.metrics
import seqeval.scheme
from hypothesis import given
from hypothesis import strategies as st

from elmo_hf.metrics.tags import accuracy, arguments, role_scores, span_scores, spans, strict_span_scores

TYPES = ["A0", "A1", "C-A0", "C-A1", "R-A0", "V"]
LABELS = st.sampled_from(["O", "O", *(f"{prefix}-{name}" for prefix in "BI" for name in TYPES)])


@st.composite
def rows(draw):
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
    sentence = [st.lists(LABELS, min_size=length, max_size=length) for length in lengths]
    return draw(st.tuples(*sentence)), draw(st.tuples(*sentence))


def conlleval_spans(labels):
    """conlleval looks at two neighbours at a time and asks whether a chunk ends between them, or begins."""
    chunks, inside = [], None
    for index in range(len(labels) + 1):
        before = labels[index - 1] if index else "O"
        label = labels[index] if index < len(labels) else "O"
        before_tag, before_type = (before[0], before[2:])
        tag, type_ = (label[0], label[2:])
        ends = before_tag in "BI" and tag in "BO"
        ends = ends or (before_tag != "O" and before_type != type_)
        begins = tag == "B" or (before_tag == "O" and tag == "I")
        begins = begins or (tag != "O" and before_type != type_)
        if inside is not None and ends:
            chunks.append((inside[0], inside[1], index))
            inside = None
        if begins:
            inside = (type_, index)
    return chunks


def conll_props(labels):
    """The scorer goes through the phrases in order and keeps, for each role, the argument it saw last."""
    props, latest = [], {}
    for number, (type_, start, end) in enumerate(conlleval_spans(labels)):
        name = type_[2:] if type_[:2] == "C-" else type_
        if type_[:2] == "C-" and name in latest:
            props[latest[name]][1].add((start, end))
            continue
        latest[name] = len(props)
        props.append((name, {(start, end)}, number))
    return [(name, frozenset(pieces)) for name, pieces, _ in props if name != "V"]


def counted(find, predicted, gold):
    """(corr., excess, missed), as the scorers print them."""
    correct = excess = missed = 0
    for labels, reference in zip(predicted, gold, strict=True):
        remaining = list(find(reference))
        for argument in find(labels):
            if argument in remaining:
                remaining.remove(argument)
                correct += 1
            else:
                excess += 1
        missed += len(remaining)
    return correct, excess, missed


@given(rows())
@pytest.mark.parametrize(("score", "find"), [(span_scores, conlleval_spans), (role_scores, conll_props)])
def test_scores_are_the_official_ones(score, find, pair):
    predicted, gold = pair
    correct, excess, missed = counted(find, predicted, gold)
    precision = correct / (correct + excess) if correct + excess else 0
    recall = correct / (correct + missed) if correct + missed else 0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
    scores = score(predicted, gold)
    assert scores["precision"] == pytest.approx(precision)
    assert scores["recall"] == pytest.approx(recall)
    assert scores["f1"] == pytest.approx(f1)
    assert scores["number"] == correct + missed
    assert sum(row["number"] for row in scores["by_type"].values()) == scores["number"]


@given(rows())
def test_spans_are_conllevals(pair):
    for labels in pair[0]:
        assert spans(labels) == conlleval_spans(labels)


def seqeval_scores(predicted, gold, **options):
    rows = [list(map(list, labels)) for labels in (gold, predicted)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scores that are undefined
        report = seqeval.metrics.classification_report(*rows, output_dict=True, **options)
    names = {"f1-score": "f1", "support": "number"}
    rows = {type_: {names.get(name, name): n for name, n in row.items()} for type_, row in report.items()}
    return rows.pop("micro avg"), {type_: row for type_, row in rows.items() if not type_.endswith(" avg")}


def is_legal(labels):
    """Every I- continues a span of its type, so that strict and lenient readings agree."""
    previous = ["O", *labels]
    return all(
        label[0] != "I" or before[1:] == label[1:] for before, label in zip(previous, labels, strict=False)
    )


@given(rows())
def test_seqeval_gives_the_same_numbers_of_any_labels(pair):
    scores = span_scores(*pair)
    if scores["by_type"]:  # seqeval fails where there is no span
        overall, by_type = seqeval_scores(*pair)
        assert by_type.keys() == scores["by_type"].keys()
        for type_, row in by_type.items():
            assert row == pytest.approx(scores["by_type"][type_])
        assert overall == pytest.approx({name: scores[name] for name in overall})


@given(rows())
def test_strict_scores_are_seqevals_and_differ_for_illegal_labels_alone(pair):
    strict = strict_span_scores(*pair)
    if strict["by_type"]:
        overall, by_type = seqeval_scores(*pair, mode="strict", scheme=seqeval.scheme.IOB2)
        assert overall == pytest.approx({name: strict[name] for name in overall})
        for type_, row in by_type.items():
            assert row == pytest.approx(strict["by_type"][type_])
        assert by_type.keys() == strict["by_type"].keys()
    if all(is_legal(labels) for rows in pair for labels in rows):
        lenient = span_scores(*pair)
        assert strict == lenient


def test_where_strict_and_lenient_scores_differ():
    gold, illegal = [["O", "B-A", "I-A"]], [["O", "I-A", "I-A"]]
    assert span_scores(illegal, gold)["f1"] == 1.0
    assert strict_span_scores(illegal, gold)["f1"] == 0.0
    nothing = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "number": 0, "by_type": {}}
    for rows_ in ([], [[]], [["O"]], [["I-A"]]):
        assert strict_span_scores(rows_, rows_) == nothing


def test_examples_by_hand():
    assert spans(["B-PER", "I-PER", "O", "I-LOC", "I-PER", "B-PER"]) == [
        ("PER", 0, 2), ("LOC", 3, 4), ("PER", 4, 5), ("PER", 5, 6)
    ]  # fmt: skip
    scores = span_scores([["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "O", "B-ORG"]])
    assert (scores["precision"], scores["recall"], scores["f1"]) == (0.5, 0.5, 0.5)
    assert scores["by_type"]["PER"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "number": 1}
    assert scores["by_type"]["LOC"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "number": 0}


def test_an_argument_in_pieces_is_one_and_the_verb_is_none():
    labels = ["B-A1", "B-V", "B-C-A1", "I-C-A1", "B-R-A1", "B-C-A0"]
    assert arguments(labels) == [("A1", ((0, 1), (2, 4))), ("R-A1", ((4, 5),)), ("A0", ((5, 6),))]
    wrong_piece = ["B-A1", "B-V", "B-C-A1", "O", "B-R-A1", "B-C-A0"]
    assert role_scores([wrong_piece], [labels])["f1"] == pytest.approx(2 / 3)
    assert role_scores([["O", "B-V"]], [["B-V", "O"]])["number"] == 0


def test_accuracy_counts_words_not_sentences():
    assert accuracy([["A"], ["A", "B", "C"]], [["B"], ["A", "B", "C"]]) == 0.75
    assert accuracy([], []) == accuracy([[]], [[]]) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accuracy([["A"]], []), "1 predicted rows for 0 gold rows"),
        (lambda: span_scores([["O"]], [["O", "O"]]), "row 0 has 1 predicted labels for 2 words"),
        (lambda: spans(["O", "S-PER"]), "word 1 has 'S-PER'"),
    ],
)
def test_mistakes_are_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
