"""The rules of roles: the search against every path, one by one, and the role labeller that uses it."""

import itertools
import re
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elmo_hf import ElmoConfig, ElmoForSemanticRoleLabeling, ElmoTokenizer
from elmo_hf.model import modeling_elmo_tagging
from elmo_hf.model.crf_elmo import ElmoCRF
from elmo_hf.model.modeling_elmo_tagging import ElmoRoles, broken_roles

LABEL_SETS = [
    ["O", "B-ARG0", "I-ARG0", "B-ARG1"],
    ["B-A0", "I-A0", "B-C-A0", "O", "B-R-A0", "I-R-A0"],
    ["B-AM-TMP", "B-C-AM-TMP", "B-R-AM-TMP", "B-AA", "O"],
    ["O", "B-V", "B-C-V", "B-R-ARG2", "B-C-ARG2", "B-ARG2"],
    ["O", "B-C-A1", "B-R-C-A1", "B-A1"],
    ["O", "B-R-ARG3"],
]


def keeps_the_rules(path):
    """BIO and the rules of roles, said once more and word by word."""
    for position, label in enumerate(path):
        before = path[:position]
        if label.startswith("I-") and (not before or before[-1] not in (label, "B-" + label[2:])):
            return False
        if re.match(r"B-(ARG[0-5A]|A[0-5A])$", label) and label in before:
            return False
        if label.startswith("B-C-") and "B-" + label[4:] not in before:
            return False
        if label.startswith("B-R-") and "B-" + label[4:] not in path:
            return False
    return True


def score_of(path, crf, scores):
    total = sum(row[label] for row, label in zip(scores.tolist(), path, strict=True))
    if crf.learned:
        total += crf.start[path[0]].item() + crf.end[path[-1]].item()
        total += sum(
            crf.transitions[label, next_label].item() for label, next_label in itertools.pairwise(path)
        )
    return total


def best_of_all(crf, scores, allowed=keeps_the_rules):
    paths = itertools.product(range(len(crf.labels)), repeat=len(scores))
    kept = [path for path in paths if allowed([crf.labels[label] for label in path])]
    return max(kept, key=lambda path: score_of(path, crf, scores))


@st.composite
def cases(draw):
    labels = draw(st.sampled_from(LABEL_SETS))
    rows, words = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    mask = torch.tensor(draw(st.lists(st.lists(st.booleans(), min_size=words, max_size=words),
                                      min_size=rows, max_size=rows)))  # fmt: skip
    torch.manual_seed(draw(st.integers(0, 10_000)))
    crf = ElmoCRF(labels, learned=draw(st.booleans()), scheme="BIO").double()
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    scores = 3 * torch.randn(rows, words, len(labels), dtype=torch.float64)
    scores[..., labels.index("O")] -= draw(st.sampled_from([0.0, 4.0]))  # many roles: the rules bind
    return crf, scores, mask


@settings(max_examples=60, deadline=None)
@given(cases())
def test_the_path_is_the_best_of_all_that_keep_the_rules(case):
    crf, scores, mask = case
    decoded = crf.decode(scores, mask, ElmoRoles(crf.labels).repair)
    assert (decoded[~mask] == -100).all()
    for row, words in enumerate(mask):
        if words.any():
            assert tuple(decoded[row, words].tolist()) == best_of_all(crf, scores[row, words])


@settings(max_examples=40, deadline=None)
@given(cases())
def test_with_too_many_roles_the_path_is_the_best_without_those_that_a_warning_names(case):
    crf, scores, mask = case
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        patch.setattr(modeling_elmo_tagging, "MAX_TRACKED_ROLES", 1)
        decoded = crf.decode(scores, mask, ElmoRoles(crf.labels).repair)
    left_out = {}
    for warning in messages:
        row, names = re.fullmatch(r"row (\d): .* without (.*)\.", str(warning.message)).groups()
        left_out[int(row)] = names.split(", ")
    for row, words in enumerate(mask):
        without = {f"B-{prefix}{name}" for name in left_out.get(row, []) for prefix in ("", "C-", "R-")}

        def allowed(path, without=without):
            return keeps_the_rules(path) and not without & {*path}

        if words.any():
            assert tuple(decoded[row, words].tolist()) == best_of_all(crf, scores[row, words], allowed)


def test_too_many_roles_give_a_warning():
    """Every core role is the likeliest one twice."""
    labels = ["O", *(f"B-ARG{number}" for number in "012345A")]
    crf, scores = ElmoCRF(labels, learned=False, scheme=None), torch.zeros(1, 14, 8)
    for word in range(14):
        scores[0, word, 1 + word % 7] = 5.0 + word / 100
    mask = torch.ones(1, 14, dtype=torch.bool)
    with pytest.warns(UserWarning, match=r"row 0: too many roles .* the best without ARGA\.$"):
        decoded = crf.decode(scores, mask, ElmoRoles(labels).repair)[0].tolist()
    assert decoded == [0] * 7 + [1, 2, 3, 4, 5, 6, 0]


def test_broken_rules_are_listed_by_role():
    assert broken_roles(["B-ARG0", "I-ARG0", "B-V", "B-ARG1", "B-C-ARG1", "B-R-ARG0"]) == []
    assert broken_roles(["B-ARG0", "O", "B-ARG0"]) == ["ARG0"]
    assert broken_roles(["B-ARGM-TMP", "O", "B-ARGM-TMP"]) == []  # no core role
    assert broken_roles(["B-C-ARGM-LOC", "B-ARGM-LOC", "B-A1", "B-A1"]) == ["A1", "ARGM-LOC"]
    assert broken_roles(["B-R-ARG1", "B-V", "B-ARG1"]) == []
    assert broken_roles(["B-R-ARG1", "B-V"]) == ["ARG1"]


def test_half_precision_and_rows_of_nothing():
    labels = LABEL_SETS[1]
    crf, roles = ElmoCRF(labels, learned=True, scheme=None).to(torch.bfloat16), ElmoRoles(labels).repair
    scores, mask = torch.zeros(2, 3, 6, dtype=torch.bfloat16), torch.tensor([[False] * 3, [True] * 3])
    scores[1] = torch.tensor([[4.0, 0, 0, 1, 0, 0], [5.0, 0, 0, 1, 0, 0], [4.0, 0, 0, 1, 0, 0]])
    assert crf.decode(scores, mask, roles).tolist() == [[-100] * 3, [3, 0, 3]]
    assert crf.decode(scores[:, :0], mask[:, :0], roles).shape == (2, 0)


@pytest.mark.parametrize("labels", [["O", "NP"], ["B-ARG0", "I-ARG0"]])
def test_labels_without_the_scheme_are_refused(labels):
    with pytest.raises(ValueError, match="role_rules needs the labels O, B-"):
        ElmoRoles(labels)
    config = ElmoConfig(**SMALL | {"id2label": dict(enumerate(labels)), "role_rules": True})
    with pytest.raises(ValueError, match="rename them, or set role_rules=False"):
        ElmoForSemanticRoleLabeling(config)


# ---- the model

SMALL = {
    "lstm_dim": 12,
    "projection_dim": 8,
    "char_filters": [[1, 4], [2, 6]],
    "vocab_size": 3,
    "id2label": dict(enumerate(["O", "B-V", "B-ARG0", "I-ARG0", "B-R-ARG0", "B-C-ARG0"])),
    "task_hidden_size": 6,
    "predicate_dim": 4,
}


@pytest.mark.parametrize("use_crf", [True, False])
def test_the_role_labeller_keeps_the_rules_with_role_rules(use_crf, tmp_path):
    torch.manual_seed(0)
    model = ElmoForSemanticRoleLabeling(ElmoConfig(**SMALL | {"use_crf": use_crf})).eval()
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([0.0, 0.0, 3.0, 0.0, 0.5, 1.0]))
        model.classifier.weight.mul_(20)
    batch = ElmoTokenizer()(["Ada gave Bob the book", "He left"], padding=True, return_tensors="pt")
    batch["predicate_mask"] = (batch["attention_mask"].cumsum(dim=1) == 2).long()
    free = model.decode(**batch)
    model.save_pretrained(tmp_path)
    model = ElmoForSemanticRoleLabeling.from_pretrained(tmp_path, role_rules=True)
    bound = model.decode(**batch)
    names = model.crf.labels
    for paths, expected in ((free, False), (bound, True)):
        rows = [[names[label] for label in row if label >= 0] for row in paths.tolist()]
        assert all(keeps_the_rules(row) for row in rows) is expected
    model.save_pretrained(tmp_path / "again")
    again = ElmoForSemanticRoleLabeling.from_pretrained(tmp_path / "again")
    assert again.config.role_rules
    assert torch.equal(again.decode(**batch), bound)
