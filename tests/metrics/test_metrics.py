"""Scores against the official scorers' rules, written once more in another way, and examples by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elmo_hf.metrics.tags import accuracy, arguments, role_scores, span_scores, spans

TYPES = ["A0", "A1", "C-A0", "C-A1", "R-A0", "V"]
LABELS = st.sampled_from(["O", "O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in TYPES)])


@st.composite
def rows(draw):
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
    sentence = [st.lists(LABELS, min_size=length, max_size=length) for length in lengths]
    return draw(st.tuples(*sentence)), draw(st.tuples(*sentence))


def conlleval_spans(labels):
    """conlleval looks at two neighbours at a time and asks whether a chunk ends between them, or begins."""
    chunks, inside = [], None
    for place in range(len(labels) + 1):
        before = labels[place - 1] if place else "O"
        here = labels[place] if place < len(labels) else "O"
        before_tag, before_type = (before[0], before[2:])
        tag, type_ = (here[0], here[2:])
        ends = before_tag in "BI" and tag in "BO"
        ends = ends or (before_tag != "O" and before_type != type_)
        begins = tag == "B" or (before_tag == "O" and tag == "I")
        begins = begins or (tag != "O" and before_type != type_)
        if inside is not None and ends:
            chunks.append((inside[0], inside[1], place))
            inside = None
        if begins:
            inside = (type_, place)
    return chunks


def conll_props(labels):
    """The scorer goes through the phrases in order and keeps, for each role, the argument it saw last."""
    props, latest = [], {}
    for number, (kind, start, end) in enumerate(conlleval_spans(labels)):
        name = kind[2:] if kind[:2] == "C-" else kind
        if kind[:2] == "C-" and name in latest:
            props[latest[name]][1].add((start, end))
            continue
        latest[name] = len(props)
        props.append((name, {(start, end)}, number))
    return [(name, frozenset(pieces)) for name, pieces, _ in props if name != "V"]


def counted(find, predicted, gold):
    """(corr., excess, missed), as the scorers print them."""
    correct = excess = missed = 0
    for one, other in zip(predicted, gold, strict=True):
        left = list(find(other))
        for argument in find(one):
            if argument in left:
                left.remove(argument)
                correct += 1
            else:
                excess += 1
        missed += len(left)
    return correct, excess, missed


@given(rows())
@pytest.mark.parametrize(("score", "find"), [(span_scores, conlleval_spans), (role_scores, conll_props)])
def test_scores_are_the_official_ones(score, find, pair):
    predicted, gold = pair
    correct, excess, missed = counted(find, predicted, gold)
    precision = correct / (correct + excess) if correct + excess else 0
    recall = correct / (correct + missed) if correct + missed else 0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
    found = score(predicted, gold)
    assert found["precision"] == pytest.approx(precision)
    assert found["recall"] == pytest.approx(recall)
    assert found["f1"] == pytest.approx(f1)
    assert found["number"] == correct + missed
    assert sum(one["number"] for one in found["by_type"].values()) == found["number"]


@given(rows())
def test_spans_are_conllevals(pair):
    for labels in pair[0]:
        assert spans(labels) == conlleval_spans(labels)


def test_examples_by_hand():
    assert spans(["B-PER", "I-PER", "O", "I-LOC", "I-PER", "B-PER"]) == [
        ("PER", 0, 2), ("LOC", 3, 4), ("PER", 4, 5), ("PER", 5, 6)
    ]  # fmt: skip
    found = span_scores([["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "O", "B-ORG"]])
    assert (found["precision"], found["recall"], found["f1"]) == (0.5, 0.5, 0.5)
    assert found["by_type"]["PER"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "number": 1}
    assert found["by_type"]["LOC"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "number": 0}


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
        (lambda: accuracy([["A"]], []), "1 predicted rows for 0 that are right"),
        (lambda: span_scores([["O"]], [["O", "O"]]), "row 0 has 1 predicted labels for 2 words"),
        (lambda: spans(["O", "S-PER"]), "word 1 has 'S-PER'"),
    ],
)
def test_mistakes_are_said_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
