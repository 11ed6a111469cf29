"""The best labels of a predicate's arguments that keep the rules of roles (He et al. 2017).

    roles = ElmoRoles(["O", "B-V", "B-ARG0", "I-ARG0", "B-R-ARG0", ...])
    paths = best_paths(scores, mask, *chain)         # (batch, words), of crf_elmo.py
    paths = roles.mend(paths, scores, mask, *chain)  # those that broke a rule, by the best that breaks none

Three rules bind a whole sentence, and no transition from one label to the next can tell of them:

    unique         a core role (ARG0 to ARG5, ARGA, or A0 to A5, AA) is there at most once,
    continuation   C-X stands somewhere behind an X,
    reference      R-X needs an X, before or behind it.

He et al. search for the best path with A*. Here the same path is found by dynamic programming, exactly: for
some roles X, the state beside a label tells whether X is absent, owed (an R-X waits for it) or there, so the
best path among those that keep the rules of these X is known. It begins with none, which is Viterbi. If the
best path breaks the rules of a role, that role is watched, too, and all is done again; a path that breaks no
rule is the best of all that break none, as it is the best of even more. Most rows break none to begin with.

Each watched role makes the work three times as much, so that there are at most `MOST_WATCHED`. A role that
would be one too many is then left out of the sentence, with its C-X and R-X: what is found is the best of the
paths that keep all rules and do without that role, and a warning names it.
"""

import itertools
import re
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

CORE = re.compile(r"(ARG|A)[0-5A]")
ABSENT, OWED, THERE = range(3)
MOST_WATCHED = 6

Chain = tuple[np.ndarray, np.ndarray, np.ndarray]  # scores of the begin, of transitions, of the end


def broken_roles(labels: Sequence[str]) -> list[str]:
    """The roles X whose rules a row of labels breaks, core roles first."""
    begun = [label[2:] for label in labels if label.startswith("B-")]
    found = []
    for place, role in enumerate(begun):
        if CORE.fullmatch(role) and role in begun[:place]:
            found.append(role)
        if role.startswith("C-") and role[2:] not in begun[:place]:
            found.append(role[2:])
        if role.startswith("R-") and role[2:] not in begun:
            found.append(role[2:])
    return sorted(set(found), key=lambda role: (not CORE.fullmatch(role), role))


class ElmoRoles:
    """labels: names by number, all of them `O`, `B-...` or `I-...`."""

    def __init__(self, labels: Sequence[str]) -> None:
        if "O" not in labels or any(label != "O" and label[:2] not in ("B-", "I-") for label in labels):
            raise ValueError(
                "role_rules needs the labels O, B-... and I-..., but config.id2label has "
                f"{', '.join(map(repr, labels))}; rename them, or set role_rules=False."
            )
        self.labels = list(labels)

    def mend(
        self, paths: Tensor, scores: Tensor, mask: Tensor, start: Tensor, transitions: Tensor, end: Tensor
    ) -> Tensor:
        """paths (batch, words) and scores (batch, words, labels), words being where the mask is True; start
        and end (labels,), transitions (labels, labels), from the first label to the second."""
        start_scores, between, end_scores = (
            part.double().cpu().numpy() for part in (start, transitions, end)
        )
        mended = paths.clone()
        for row, words in enumerate(mask):
            broken = broken_roles([self.labels[label] for label in paths[row, words].tolist()])
            if broken:
                of_row = scores[row, words].double().cpu().numpy()
                path, left_out = self._search(of_row, (start_scores, between, end_scores), broken)
                mended[row, words] = torch.tensor(path, device=paths.device)
                if left_out:
                    warnings.warn(
                        f"row {row}: too many roles for an exact search; its labels are the best without "
                        f"{', '.join(left_out)}.",
                        stacklevel=3,
                    )
        return mended

    def _search(self, scores: np.ndarray, chain: Chain, broken: list[str]) -> tuple[list[int], list[str]]:
        """The best path, and the roles that it has to do without. `broken`: by the best path of all."""
        watched: list[str] = []
        left_out: list[str] = []
        path: list[int] = []
        while broken:
            room = MOST_WATCHED - len(watched)
            watched += broken[:room]
            left_out += broken[room:]
            path = best_path(scores, chain, *self._states(watched, left_out))
            broken = broken_roles([self.labels[label] for label in path])
        return path, left_out

    def _states(self, watched: list[str], left_out: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """A state is what each watched role is, ABSENT, OWED or THERE; the first is all of them ABSENT.

        (states, labels): the state to which a label leads, or -1 where it may not stand; and (states,):
        whether a sentence may end there.
        """
        states = np.array(list(itertools.product(range(3), repeat=len(watched))))
        after = np.tile(np.arange(len(states))[:, None], len(self.labels))
        for number, label in enumerate(self.labels):
            role = label[2:] if label.startswith("B-") else ""
            if any(role in (other, f"C-{other}", f"R-{other}") for other in left_out):
                after[:, number] = -1
            for place, other in enumerate(watched):
                was = states[:, place]
                becomes, allowed = was, np.ones(len(was), dtype=bool)
                if role == other:
                    becomes = np.full_like(was, THERE)
                    allowed = (was != THERE) | (not CORE.fullmatch(role))
                elif role == f"C-{other}":
                    allowed = was == THERE
                elif role == f"R-{other}":
                    becomes = np.maximum(was, OWED)
                step = (becomes - was) * 3 ** (len(watched) - 1 - place)
                after[:, number] = np.where(allowed & (after[:, number] >= 0), after[:, number] + step, -1)
        return after, (states != OWED).all(axis=1)


def best_path(scores: np.ndarray, chain: Chain, after: np.ndarray, may_end: np.ndarray) -> list[int]:
    """Viterbi over pairs of a state and a label: scores (words, labels), the rest as `_states` has it."""
    start, transitions, end = chain
    states, labels = after.shape
    allowed = after >= 0
    to = np.where(allowed, after, 0) * labels + np.arange(labels)  # (states, labels): where each one goes
    tables = [np.full((states, labels), -np.inf)]  # the best score of a path to each pair, for every word
    tables[0].flat[to[0, allowed[0]]] = (start + scores[0])[allowed[0]]
    for of_word in scores[1:]:
        come = (tables[-1][:, :, None] + transitions).max(axis=1) + of_word
        table = np.full(states * labels, -np.inf)
        np.maximum.at(table, to[allowed], come[allowed])
        tables.append(table.reshape(states, labels))
    final = np.where(may_end[:, None], tables[-1] + end, -np.inf)
    state, label = divmod(int(final.argmax()), labels)
    path = [label]
    for table in tables[-2::-1]:
        comes = np.where((after[:, label] == state)[:, None], table + transitions[:, label], -np.inf)
        state, label = divmod(int(comes.argmax()), labels)
        path.append(label)
    return path[::-1]
