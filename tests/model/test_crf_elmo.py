"""The CRF against a sum over all paths, one by one."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elmo_hf.model.crf_elmo import ElmoCRF

LABEL_SETS = [
    ["O"],
    ["O", "B-X", "I-X"],
    ["B-X", "I-X", "O", "I-Y", "B-Y"],
    ["O", "B-X", "I-X", "L-X", "U-X"],
    ["L-X", "U-Y", "B-X", "O", "L-Y", "B-Y"],
    ["NOUN", "VERB"],
    ["N", "V", "A", "D"],
]


def is_bioul(labels):
    return any(name.startswith("L-") for name in labels)


def may_follow(before, label, labels):
    """The rules, said once more: None is before the first and after the last label."""
    if is_bioul(labels):
        in_chunk = before is not None and before[0] in "BI"
        if in_chunk:
            return label in ("I-" + before[2:], "L-" + before[2:])
        return label is None or label[0] in "OBU"
    is_bio = all(name == "O" or name[:2] in ("B-", "I-") for name in labels)
    if not is_bio or label is None or not label.startswith("I-"):
        return True
    return before in ("B-" + label[2:], "I-" + label[2:])


def every_path(crf, scores):
    """(path, score) of every allowed path over the rows of scores, (words, labels)."""
    start, end = crf.start.tolist(), crf.end.tolist()
    transitions, scores = crf.transitions.tolist(), scores.tolist()
    for path in itertools.product(range(len(crf.labels)), repeat=len(scores)):
        names = [None, *(crf.labels[label] for label in path), None]
        if all(may_follow(*pair, crf.labels) for pair in itertools.pairwise(names)):
            total = start[path[0]] + end[path[-1]]
            total += sum(row[label] for row, label in zip(scores, path, strict=True))
            yield (
                path,
                total + sum(transitions[label][next_label] for label, next_label in itertools.pairwise(path)),
            )


def log_sum(values):
    return math.log(math.fsum(math.exp(value) for value in values))


def make_crf(labels, seed, scheme=None):
    torch.manual_seed(seed)
    scheme = "BIOUL" if scheme is None and is_bioul(labels) else scheme
    crf = ElmoCRF(labels, learned=True, scheme=scheme).double()
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    return crf


@st.composite
def cases(draw):
    labels = draw(st.sampled_from(LABEL_SETS))
    rows, words = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    mask = torch.tensor(draw(st.lists(st.lists(st.booleans(), min_size=words, max_size=words),
                                      min_size=rows, max_size=rows)))  # fmt: skip
    crf = make_crf(labels, draw(st.integers(0, 1000)))
    scores = 3 * torch.randn(rows, words, len(labels), dtype=torch.float64)
    return crf, scores, mask


@settings(max_examples=60, deadline=None)
@given(cases())
def test_sums_and_best_paths_are_those_over_all_paths(case):
    """Partition, marginals and Viterbi, with words anywhere in the row."""
    crf, scores, mask = case
    with torch.no_grad():
        marginals, total = crf._marginals(scores, mask)
    decoded = crf.decode(scores, mask)
    assert (decoded[~mask] == -100).all()
    assert (marginals[~mask] == 0).all()
    for row, words in enumerate(mask):
        if not words.any():
            assert total[row] == 0
            continue
        paths = dict(every_path(crf, scores[row][words]))
        assert total[row].item() == pytest.approx(log_sum(paths.values()), abs=1e-9)
        best = max(paths, key=paths.get)
        assert tuple(decoded[row][words].tolist()) == best
        for position, probabilities in enumerate(marginals[row][words]):
            for label, value in enumerate(probabilities.tolist()):
                through = [score for path, score in paths.items() if path[position] == label]
                expected = math.exp(log_sum(through) - total[row]) if through else 0.0
                assert math.exp(value) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_the_loss_is_minus_the_log_probability_of_the_known_labels(case, random):
    """A label that is not known is summed over."""
    crf, scores, mask = case
    gold, losses, known = torch.full(mask.shape, -100), [], 0
    for row, words in enumerate(mask):
        if not words.any():
            continue
        paths = dict(every_path(crf, scores[row][words]))
        labels = [label if random.random() < 0.7 else -100 for label in random.choice(list(paths))]
        gold[row][words] = torch.tensor(labels)
        through = [
            score
            for path, score in paths.items()
            if all(label in (-100, taken) for label, taken in zip(labels, path, strict=True))
        ]
        losses.append(log_sum(paths.values()) - log_sum(through))
        known += sum(label != -100 for label in labels)
    _, loss = crf(scores, mask, gold)
    assert loss.item() == pytest.approx(sum(losses) / max(known, 1), abs=1e-9)


def test_gradients_are_those_of_finite_differences():
    crf = make_crf(LABEL_SETS[2], seed=0)
    mask = torch.tensor([[True, True, True], [False, True, True]])
    gold = torch.tensor([[0, 1, 2], [-100, 3 + 1, 3]])
    scores = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, 5, dtype=torch.float64)

    def outputs(scores, *_):
        marginals, loss = crf(scores, mask, gold)
        return loss, (marginals.exp() * weights).sum()

    assert torch.autograd.gradcheck(outputs, (scores, *crf.parameters()))


def test_long_and_extreme_sentences_stay_finite():
    crf = ElmoCRF(LABEL_SETS[2], learned=True, scheme=None)
    mask = torch.ones(1, 400, dtype=torch.bool)
    scores = (100 * torch.randn(1, 400, 5)).requires_grad_()
    gold = crf.decode(scores, mask)
    marginals, loss = crf(scores, mask, gold)
    loss.backward()
    assert torch.isfinite(marginals).all()
    assert torch.isfinite(scores.grad).all()
    torch.testing.assert_close(marginals.exp().sum(dim=-1), torch.ones(1, 400), rtol=0.02, atol=0)


def test_probabilities_of_long_sentences_sum_to_one():
    """However large the sums of their paths have become."""
    torch.manual_seed(0)
    crf = ElmoCRF(["O", "B-X", "I-X"], learned=True, scheme="BIO")
    scores, mask = 20 * torch.randn(1, 2000, 3), torch.ones(1, 2000, dtype=torch.bool)
    probabilities = crf(scores, mask)[0].exp()
    torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(1, 2000), atol=1e-5, rtol=0)
    exact = crf.double()(scores.double(), mask)[0].exp()
    assert (probabilities - exact).abs().max() < 0.02


def test_half_precision_is_summed_in_single():
    crf = ElmoCRF(LABEL_SETS[1], learned=True, scheme=None).to(torch.bfloat16)
    scores, mask = torch.randn(1, 5, 3), torch.ones(1, 5, dtype=torch.bool)
    marginals, loss = crf(scores.to(torch.bfloat16), mask, torch.zeros(1, 5, dtype=torch.long))
    assert marginals.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(marginals.exp().sum(dim=-1), torch.ones(1, 5))


def test_without_transitions_each_word_has_its_own_softmax_and_the_rules_bind_only_the_best_path():
    crf = ElmoCRF(["O", "B-X", "I-X"], learned=False, scheme=None)
    assert not list(crf.parameters())
    scores = torch.tensor([[[1.0, 0.0, 3.0], [0.0, 0.0, 3.0], [2.0, 0.0, 1.9]]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    marginals, loss = crf(scores, mask, torch.tensor([[1, 2, -100]]))
    torch.testing.assert_close(marginals, scores.log_softmax(dim=-1))
    torch.testing.assert_close(loss, -(marginals[0, 0, 1] + marginals[0, 1, 2]) / 2)
    assert crf.decode(scores, mask).tolist() == [[1, 2, 0]]
    free = ElmoCRF(["O", "B-X", "I-X"], learned=False, scheme="none")
    assert free.decode(scores, mask).tolist() == [[2, 2, 0]]


def test_empty_rows_and_batches():
    for learned in (True, False):
        crf = ElmoCRF(["O", "B-X", "I-X"], learned, None)
        for shape in ((0, 3), (2, 0), (2, 3)):
            mask, scores = torch.zeros(shape, dtype=torch.bool), torch.randn(*shape, 3, requires_grad=True)
            marginals, loss = crf(scores, mask, torch.full(shape, -100))
            assert marginals.shape == (*shape, 3)
            assert loss.item() == 0
            assert crf.decode(scores, mask).shape == shape
            loss.backward()


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        ([[0, 2]], "row 0: I-X follows O, which BIO labels never do"),
        ([[2, 2]], "row 0: I-X begins a row"),
        ([[1, 2], [1, 4]], "row 1: I-Y follows B-X"),
    ],
)
@pytest.mark.parametrize("learned", [True, False])
def test_labels_that_the_scheme_forbids_are_refused(gold, message, learned):
    crf = ElmoCRF(["O", "B-X", "I-X", "B-Y", "I-Y"], learned, None)
    gold = torch.tensor(gold)
    with pytest.raises(ValueError, match=message):
        crf(torch.randn(*gold.shape, 5), torch.ones_like(gold, dtype=torch.bool), gold)
    # Padding between them does not hide what follows what, and an unknown label may be anything.
    row = torch.tensor([[1, -100, 2], [1, 0, 2]])
    crf(torch.randn(2, 3, 5), torch.tensor([[True, True, True], [True, False, True]]), row)


def test_a_scheme_is_followed_or_refused():
    assert not ElmoCRF(["O", "B-X", "I-X", "NP"], True, None).forbidden.any()
    assert not ElmoCRF(["O", "B-X", "I-X"], True, "none").forbidden.any()
    assert ElmoCRF(["O", "B-X", "I-X"], True, "BIO").forbidden.sum() == 2  # after O, and at the beginning
    with pytest.raises(ValueError, match="label 'NP' is not O"):
        ElmoCRF(["O", "B-X", "NP"], True, "BIO")


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        ([[0, 3]], "row 0: L-X follows O, which BIOUL labels never do"),
        ([[1, 0]], "row 0: O follows B-X"),
        ([[2, 3]], "row 0: I-X begins a row"),
        ([[0, 4], [0, 1]], "row 1: B-X ends a row"),
    ],
)
def test_labels_that_bioul_forbids_are_refused(gold, message):
    crf = ElmoCRF(["O", "B-X", "I-X", "L-X", "U-X"], True, "BIOUL")
    gold = torch.tensor(gold)
    with pytest.raises(ValueError, match=message):
        crf(torch.randn(*gold.shape, 5), torch.ones_like(gold, dtype=torch.bool), gold)
    row = torch.tensor([[1, -100, 3], [4, 0, 0], [0, 0, 1]])
    mask = torch.tensor([[True, True, True], [True, False, True], [False, False, False]])
    crf(torch.randn(3, 3, 5), mask, row)
    with pytest.raises(ValueError, match=r"label 'S-X' is not O, B-\.\.\., I-\.\.\., U-\.\.\. or L-\.\.\.; "):
        ElmoCRF(["O", "S-X"], True, "BIOUL")
