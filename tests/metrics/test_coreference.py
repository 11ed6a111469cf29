"""Coreference scores against the published examples, and against the definitions written out slowly."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elmo_hf.metrics import coreference_scores, pronoun_scores, without_singletons


def ratios(scores, metric):
    return tuple(scores[f"{metric}_{ratio}"] for ratio in ("recall", "precision", "f1"))


# ---- published examples


def test_the_example_of_the_official_scorers_paper():
    """Pradhan et al. (2014), figure 2 and its tables; worked out by hand from the definitions there."""
    scores = coreference_scores([["ab", "cd", "fghi"]], [["abc", "defg"]])
    assert ratios(scores, "muc") == pytest.approx((2 / 5, 2 / 5, 0.4))
    b_cubed = (4 / 3 + 1 / 3 + 1 / 4 + 4 / 4) / 7, (4 / 2 + 1 / 2 + 1 / 2 + 4 / 4) / 8
    assert ratios(scores, "b_cubed")[:2] == pytest.approx(b_cubed)
    assert [round(value, 2) for value in ratios(scores, "b_cubed")[:2]] == [0.42, 0.50]
    assert ratios(scores, "ceaf_m") == pytest.approx((4 / 7, 4 / 8, 8 / 15))
    assert ratios(scores, "ceaf_e") == pytest.approx((1.3 / 2, 1.3 / 3, 0.52))
    assert ratios(scores, "mentions") == pytest.approx((6 / 7, 6 / 8, 0.8))
    f1s = [scores[f"{metric}_f1"] for metric in ("muc", "b_cubed", "ceaf_e")]
    assert scores["conll_f1"] == pytest.approx(sum(f1s) / 3)


TRUTH = ["12345", "67", "89ABC"]
RESPONSES = {  # Luo (2005), figure 1 and table 1: MUC, B-cubed, CEAF by mentions, CEAF by entities
    ("12345", "6789ABC"): (0.947, 0.865, 0.833, 0.733),
    ("1234589ABC", "67"): (0.947, 0.737, 0.583, 0.667),
    ("123456789ABC",): (0.900, 0.545, 0.417, 0.294),
    tuple("123456789ABC"): (0.0, 0.400, 0.250, 0.178),
}


@pytest.mark.parametrize("response", RESPONSES)
def test_the_table_of_ceafs_paper(response):
    scores = coreference_scores([response], [TRUTH])
    f1s = [scores[f"{metric}_f1"] for metric in ("muc", "b_cubed", "ceaf_m", "ceaf_e")]
    assert f1s == pytest.approx(RESPONSES[response], abs=0.0006)


def test_the_examples_of_b_cubeds_paper():
    """Bagga and Baldwin (1998): MUC's precision is the same for both, B-cubed's is not."""
    first = coreference_scores([["12345", "6789ABC"]], [TRUTH])
    second = coreference_scores([["1234589ABC", "67"]], [TRUTH])
    assert first["muc_precision"] == second["muc_precision"] == pytest.approx(9 / 10)
    assert first["b_cubed_precision"] == pytest.approx(16 / 21)
    assert second["b_cubed_precision"] == pytest.approx(7 / 12)
    assert first["b_cubed_recall"] == second["b_cubed_recall"] == 1


# ---- the definitions, slowly


@st.composite
def partitions(draw):
    """Some of eight mentions in clusters."""
    places = draw(st.lists(st.integers(-1, 3), min_size=8, max_size=8))
    return [{m for m, p in enumerate(places) if p == number} for number in range(4) if number in places]


def linked(cluster, others):
    """How many links a spanning tree of the cluster can take over, joined mention by mention."""
    root, links = {mention: mention for mention in cluster}, 0
    for first, second in itertools.combinations(sorted(cluster), 2):
        if root[first] != root[second] and any({first, second} <= cluster_ for cluster_ in others):
            links += 1
            root = {m: root[first] if r == root[second] else r for m, r in root.items()}
    return links


def slow_muc(key, answer):
    return sum(linked(cluster, answer) for cluster in key), sum(len(cluster) - 1 for cluster in key)


def slow_b_cubed(key, answer):
    shares = []
    for mention in sorted(set().union(*key)):
        ours = next(cluster for cluster in key if mention in cluster)
        theirs = next((cluster for cluster in answer if mention in cluster), set())
        shares.append(len(ours & theirs) / len(ours))
    return sum(shares), len(shares)


def slow_ceaf(key, answer, phi):
    few, many = sorted([key, answer], key=len)
    best = max(
        sum(phi(one, other) for one, other in zip(few, chosen, strict=True))
        for chosen in itertools.permutations(many, len(few))
    )
    return best, sum(phi(cluster, cluster) for cluster in key)


SLOW = {
    "muc": slow_muc,
    "b_cubed": slow_b_cubed,
    "ceaf_e": lambda key, answer: slow_ceaf(key, answer, lambda a, b: 2 * len(a & b) / (len(a) + len(b))),
    "ceaf_m": lambda key, answer: slow_ceaf(key, answer, lambda a, b: len(a & b)),
    "mentions": lambda key, answer: (
        len(set().union(*key) & set().union(*answer)),
        len(set().union(*key)),
    ),
}


@settings(deadline=None)
@given(st.lists(st.tuples(partitions(), partitions()), max_size=3))
def test_scores_are_the_definitions(documents):
    predicted, gold = [ours for ours, _ in documents], [theirs for _, theirs in documents]
    scores = coreference_scores(predicted, gold)
    for name, slow in SLOW.items():
        recalls = [slow(theirs, ours) for ours, theirs in documents]
        precisions = [slow(ours, theirs) for ours, theirs in documents]
        recall, precision = (
            sum(shared for shared, _ in counts) / sum(total for _, total in counts)
            if any(total for _, total in counts)
            else 0.0
            for counts in (recalls, precisions)
        )
        f1 = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
        assert ratios(scores, name) == pytest.approx((recall, precision, f1))


def test_many_clusters_are_matched_quickly():
    """A document in which every mention is alone on both sides."""
    singletons = [[number] for number in range(300)]
    assert coreference_scores([singletons], [singletons])["ceaf_e_f1"] == 1


# ---- what is counted, and what is refused


def test_numbers_are_added_up_over_documents_before_they_are_divided():
    gold = [["ab"], ["abcd"]]
    scores = coreference_scores([["ab"], []], gold)
    assert ratios(scores, "muc") == pytest.approx((1 / 4, 1.0, 0.4))
    assert ratios(scores, "b_cubed") == pytest.approx((2 / 6, 1.0, 0.5))
    assert coreference_scores([], [])["conll_f1"] == 0
    assert coreference_scores(gold, gold)["conll_f1"] == 1


def test_singletons_count_as_they_stand_unless_left_out():
    gold = ["ab", "c"]
    assert without_singletons(gold) == [frozenset("ab")]
    assert coreference_scores([["ab"]], [gold])["b_cubed_recall"] == pytest.approx(2 / 3)
    assert coreference_scores([["ab"]], [without_singletons(gold)])["conll_f1"] == 1
    assert coreference_scores([["ab", ""]], [["ab"]])["conll_f1"] == 1  # no mentions are no cluster


@pytest.mark.parametrize(
    ("predicted", "gold", "message"),
    [
        ([[]], [], "there are 1 predicted documents for 0 gold documents"),
        ([[], ["ab", "bc"]], [[], []], "document 1 has the mention 'b' in 2 predicted clusters"),
        ([[]], [["ab", "ca"]], "document 0 has the mention 'a' in 2 gold clusters"),
    ],
)
def test_mistakes_are_one_sentence(predicted, gold, message):
    with pytest.raises(ValueError, match=message) as error:
        coreference_scores(predicted, gold)
    assert "\n" not in str(error.value)


def test_pronouns_of_gap():
    yes_no, no_yes, neither = (True, False), (False, True), (False, False)
    scores = pronoun_scores([yes_no, yes_no, neither, (True, True)], [yes_no, no_yes, neither, no_yes])
    assert scores == {"accuracy": 2 / 4, "recall": 2 / 3, "precision": 2 / 4, "f1": 4 / 7, "number": 4}
    assert pronoun_scores([], [])["f1"] == 0
    with pytest.raises(ValueError, match="1 predicted pronouns for 0"):
        pronoun_scores([yes_no], [])
