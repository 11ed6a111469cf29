"""What it costs, and what it changes, to keep the rules of roles: labels decoded with and without.

    OMP_NUM_THREADS=1 python -m benchmarks.role_rules dev.conll.xz      # as training/finetune_srl.py reads it

No trained model is needed: a word's scores are random numbers (normal, deviation 1), and its right label gets
so much more (`right`). The more, the better the labeller: F1 tells how good. With 0 nearly every row breaks
many rules, which is the worst that can come. Times are those of decoding alone, in seconds of the processor;
`broken` counts the rows in which a rule is broken, `not_exact` those with too many roles for an exact search.
"""

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.report import RESULTS, machine
from elmo_hf.finetuning.data import labels_of
from elmo_hf.metrics import role_scores
from elmo_hf.model.crf_elmo import ElmoCRF
from elmo_hf.model.roles_elmo import ElmoRoles, broken_roles
from training.finetune_srl import read

BATCH = 64
Batch = tuple[Tensor, Tensor]


def made_up_scores(rows: list[list[str]], labels: list[str], right: float) -> list[Batch]:
    """Scores (batch, words, labels), and where there are words (batch, words), of each batch."""
    torch.manual_seed(0)
    batches = []
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        lengths = torch.tensor([len(row) for row in some])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        gold = torch.zeros(mask.shape, dtype=torch.long)
        gold[mask] = torch.tensor([labels.index(label) for row in some for label in row])
        scores = torch.randn(*mask.shape, len(labels))
        batches.append((scores.scatter_add(2, gold[:, :, None], torch.full((*mask.shape, 1), right)), mask))
    return batches


def decode(crf: ElmoCRF, batches: list[Batch], roles: ElmoRoles | None) -> tuple[list[list[str]], float, int]:
    """The rows' labels, the seconds that took, and how many rows are not exact."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        begun = time.process_time()
        paths = [crf.decode(scores, mask, roles) for scores, mask in batches]
        seconds = time.process_time() - begun
    rows = [[crf.labels[label] for label in row if label >= 0] for part in paths for row in part.tolist()]
    return rows, round(seconds, 2), len(told)


def compare(gold: list[list[str]], labels: list[str], right: float) -> dict[str, Any]:
    crf, batches = ElmoCRF(labels, learned=False, scheme="BIO"), made_up_scores(gold, labels, right)
    content: dict[str, Any] = {"right": right, "rows": len(gold), "words": sum(map(len, gold))}
    for way, roles in (("bio", None), ("roles", ElmoRoles(labels))):
        rows, seconds, not_exact = decode(crf, batches, roles)
        found = role_scores(rows, gold)
        content[way] = {name: round(found[name], 5) for name in ("f1", "precision", "recall")}
        content[way] |= {"seconds": seconds, "broken": sum(bool(broken_roles(row)) for row in rows)}
        content[way]["not_exact"] = not_exact
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--hard-rows", type=int, default=20, help="of the worst case")
    parser.add_argument("--output", type=Path, default=RESULTS / "tasks" / "role-rules.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    examples = read(options.file)
    labels, gold = labels_of({"all": examples}, scheme="BIO"), [one["labels"] for one in examples]
    content = {
        "machine": machine(),
        "torch": torch.__version__,
        "labels": len(labels),
        "right_labels": {"rows": len(gold), "broken": sum(bool(broken_roles(row)) for row in gold)},
        "runs": [
            *(compare(gold[: options.rows], labels, right) for right in (6.0, 5.0, 4.0, 3.5)),
            compare(gold[: options.hard_rows], labels, 0.0),
        ],
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
