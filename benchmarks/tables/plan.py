"""What tables.py measures, as data: the tasks with their files and budgets, the tables, their single runs.

    runs = planned(TASKS, tables=["table1"], tasks=["srl"], seeds=[0, 1, 2])    # in their order, each once
    recipe_flags(runs[0], TASKS)                        # what its recipe is told, with DATA for the folder

A baseline has the same sentences, the same budget and the same own words as its ELMo. What differs from the
recipes' settings, which are the paper's, is here: two cores are what there is.
"""

from dataclasses import dataclass, replace
from typing import Any

CUT = "RUNS/data"  # where files lie that tables.py has cut itself


@dataclass(frozen=True)
class Task:
    """`seconds`: of one processor for an epoch with its evaluation, without ELMo and with a frozen one, as
    measured with a random biLM of elmo-tiny's shape; estimates begin with them."""

    title: str
    recipe: str
    files: dict[str, tuple[str, ...]]
    sizes: dict[str, int]  # how many examples of each split; of those not named, all
    train_size: int
    epochs: int
    patience: int
    metric: str
    place: str  # where ELMo enters: the paper's choice
    mix_l2: float
    seconds: tuple[float, float]
    settings: tuple[str, ...] = ()
    flags: str = ""  # of the recipe
    paper: tuple[str, float, float] | None = None  # its task, its baseline, with ELMo
    percent: float = 100.0  # what the recipe's score is multiplied with
    of: str = ""  # of what so many train examples are a part, where they are no whole ones
    domain: str | None = None  # of what a biLM may be adapted to


def under(folder: str, **names: str) -> dict[str, tuple[str, ...]]:
    return {split: tuple(f"DATA/{folder}/{name}" for name in found.split()) for split, found in names.items()}


NER = ("NER, CoNLL-2003", 90.15, 92.22)
NER_FLAGS = "--batch-size 8 --learning-rate 0.002"  # few epochs, so more steps of one
SMALL_VECTORS = "task_word_dim=100"
TASKS = {
    "srl": Task(
        "SRL, PropBank EWT",
        "finetune_srl.py",
        under(
            "srl_propbank_ewt",
            train="ewt_srl_train.conll.xz",
            dev="ewt_srl_dev.conll.xz",
            test="ewt_srl_test.conll.xz",
        ),
        sizes={"dev": 1500},
        train_size=10_000,
        epochs=10,
        patience=4,
        metric="f1",
        place="input",
        mix_l2=0.001,
        seconds=(64, 84),
        settings=("task_hidden_size=128", "task_num_layers=4"),
        flags="--batch-size 40 --optimizer adam --learning-rate 0.002",
        paper=("SRL, OntoNotes", 81.4, 84.6),
        domain="web",
    ),
    "ner-wnut": Task(
        "NER, WNUT-17",
        "finetune_ner.py",
        under(
            "ner_wnut17",
            train="wnut17train.conll",
            dev="emerging.dev.conll",
            test="emerging.test.annotated",
        ),
        sizes={},
        train_size=3394,
        epochs=12,
        patience=4,
        metric="f1",
        place="input",
        mix_l2=0.1,
        seconds=(27, 33),
        flags=NER_FLAGS,
        paper=NER,
        domain="tweets",
    ),
    "ner-btc": Task(
        "NER, Broad Twitter",
        "finetune_ner.py",
        under("ner_btc", train="a.conll b.conll e.conll g.conll", dev="h.conll", test="f.conll"),
        sizes={"dev": 1000},
        train_size=5000,
        epochs=8,
        patience=4,
        metric="f1",
        place="input",
        mix_l2=0.1,
        seconds=(37, 42),
        flags=NER_FLAGS,
        paper=NER,
        domain="tweets",
    ),
    "sst": Task(
        "Sentiment, SST-5",
        "finetune_sst.py",
        under("sst/trees", train="train.txt.xz", dev="dev.txt.xz", test="test.txt.xz"),
        sizes={},
        train_size=8544,
        epochs=12,
        patience=4,
        metric="accuracy",
        place="both",
        mix_l2=0.001,
        seconds=(34, 47),
        settings=(SMALL_VECTORS, "task_hidden_size=100"),
        flags="--phrases 0 --learning-rate 0.001",
        paper=("SST-5", 51.4, 54.7),
        domain="movies",
    ),
    "nli": Task(
        "Entailment, MNLI-20k",
        "finetune_nli.py",
        {
            "train": ("DATA/nli_mnli_20k/mnli_train.tsv.xz",),
            "dev": (f"{CUT}/mnli_dev.tsv",),
            "test": (f"{CUT}/mnli_test.tsv",),
        },
        sizes={"dev": 1000},
        train_size=19_999,  # of 20,000; one has a stray quotation mark, and 32,872 words
        epochs=6,
        patience=3,
        metric="accuracy",
        place="both",
        mix_l2=0.001,
        seconds=(80, 170),
        settings=(SMALL_VECTORS, "task_hidden_size=100"),
        flags="--learning-rate 0.001",
        paper=("SNLI", 88.0, 88.7),
    ),
    "squad": Task(
        "Questions, SQuAD 1.1",
        "finetune_squad.py",
        under("squad_v1.1", train="train-v1.1.rebuilt.json.xz", test="dev-v1.1.rebuilt.json.xz"),
        sizes={"dev": 500, "test": 2000},
        train_size=8000,
        epochs=3,
        patience=3,
        metric="f1",
        place="both",
        mix_l2=0.0,
        seconds=(350, 430),
        settings=(SMALL_VECTORS,),
        flags="--batch-size 16 --max-context 200 --optimizer adam --learning-rate 0.001",
        paper=("SQuAD", 81.1, 85.8),
        percent=1.0,
    ),
    "coref": Task(
        "Coreference, LitBank",
        "finetune_coref.py",
        {"data": ("DATA/coref_litbank/litbank_coref_entities.tar.xz",)},
        sizes={},
        train_size=80,
        epochs=7,
        patience=3,
        metric="conll_f1",
        of="188 pieces of 50 sentences",
        place="input",
        mix_l2=0.0,
        seconds=(88, 106),
        settings=("max_antecedents=50", "span_hidden_size=100", "max_span_width=8"),
        paper=("Coreference, OntoNotes", 67.2, 70.4),
    ),
}
TABLE1 = tuple(TASKS)
# With a GPU, of the tasks that learn from a part: all there is, in batches that keep it busy.
TASKS |= {
    "squad-all": replace(
        TASKS["squad"],
        title="Questions, SQuAD 1.1, all",
        sizes={"dev": 1000},
        train_size=82_033,
        seconds=(90, 150),
        flags="--batch-size 64 --max-context 200 --optimizer adam --learning-rate 0.001 --cache none",
        of="83,345, whose answer is in the beginning of its text",
    ),
    "coref-all": replace(
        TASKS["coref"],
        title="Coreference, LitBank, all",
        train_size=188,
        seconds=(25, 30),
        flags="--cache none",
    ),
}
GAP = "DATA/coref_gap/gap-test.tsv.xz"  # what a model of coreference is judged on besides
GAP_TEXTS = 500
# Unlabelled text for adapting a biLM to a task's field, and the column of its words, where there are columns.
DOMAINS: dict[str, tuple[tuple[str, ...], int]] = {
    "web": (("DATA/srl_propbank_ewt/ewt_srl_train.conll.xz",), 2),
    "tweets": (
        (*(f"DATA/ner_btc/{part}.conll" for part in "abeg"), "DATA/ner_wnut17/wnut17train.conll"),
        0,
    ),
    "movies": (("DATA/domain_movie/movie_reviews.txt.xz",), 0),
}


@dataclass(frozen=True)
class Run:
    """One model, learnt once. `place`: where ELMo enters, or "none"; `biLM`: frozen, tuned or adapted."""

    task: str
    place: str
    layers: str
    mix_l2: float
    biLM: str
    train_size: int
    seed: int

    def name(self, model: str) -> str:
        end = f"n{self.train_size}.seed-{self.seed}"
        if self.place == "none":
            return f"{self.task}.none.{end}"
        return f"{model}.{self.task}.{self.place}.{self.layers}.l2-{self.mix_l2:g}.{self.biLM}.{end}"


@dataclass(frozen=True)
class Table:
    """`variants`: what is changed in a run, by the name of the row. With "share", it is the share of the
    train examples. `wants_gpu`: is run only if it is asked for by its name."""

    title: str
    tasks: tuple[str, ...]
    split: str
    variants: dict[str, dict[str, Any]]
    wants_gpu: bool = False


SHARES = (1, 2, 5, 10, 20, 50, 100)
# An epoch reads this share of all train examples at least, the few that there are so often at most: or the
# baseline would not begin to find names.
LEAST_READ, MOST_PASSES = 0.25, 8
FEW, FEW_BATCH = 0.1, 8  # up to this share, batches are small, or there would be two or three steps an epoch
EVALUATED = 0.1  # the share of an epoch's time that does not shrink with the train examples
TUNED_TIMES = 4  # as long as with a frozen biLM, whose sentences are encoded once
TABLES = {
    "table1": Table("Table 1. With and without ELMo", TABLE1, "test", {"ELMo": {}}),
    "table2": Table(
        "Table 2. Which layers",
        ("srl", "sst"),
        "dev",
        {
            "top layer": {"layers": "top"},
            "all layers, lambda 1": {"mix_l2": 1.0},
            "all layers, lambda 0.001": {"mix_l2": 0.001},
        },
    ),
    "table3": Table(
        "Table 3. Where ELMo enters",
        ("srl", "sst"),
        "dev",
        {"input": {"place": "input"}, "input and output": {"place": "both"}, "output": {"place": "output"}},
    ),
    "figure1": Table(
        "Figure 1. How many examples it takes",
        ("ner-btc",),
        "test",
        {f"{share} %": {"share": share / 100} for share in SHARES},
    ),
    "tuned": Table(
        "A biLM that is tuned with the task",
        ("srl", "ner-wnut", "ner-btc", "sst"),
        "test",
        {"frozen": {}, "tuned": {"biLM": "tuned"}},
    ),
    "adapted": Table(
        "A biLM that was adapted to the field's text",
        ("srl", "ner-wnut", "sst"),
        "test",
        {"as it is": {}, "adapted": {"biLM": "adapted"}},
    ),
    "whole": Table(
        "All there is to learn from, on a GPU",
        ("squad-all", "coref-all"),
        "test",
        {"ELMo": {}},
        wants_gpu=True,
    ),
}


SMOKE_SIZE, SMOKE_PIECES = 40, 4  # examples, and pieces of documents


def smoke_plan() -> dict[str, Task]:
    """All of it in a minute or two."""
    return {
        name: replace(
            task,
            sizes={},
            train_size=SMOKE_PIECES if name.startswith("coref") else SMOKE_SIZE,
            epochs=1,
            patience=1,
        )
        for name, task in TASKS.items()
    }


# ---- from tables to runs


def run_of(plan: dict[str, Task], name: str, change: dict[str, Any], seed: int) -> Run:
    task, change = plan[name], dict(change)
    size = round(task.train_size * change.pop("share", 1))
    run = Run(name, task.place, "mix", task.mix_l2, "frozen", max(1, size), seed)
    return replace(run, **change)


def baseline_of(run: Run) -> Run:
    """The same without ELMo; what is said about ELMo does not matter, and is the same for all."""
    return replace(run, place="none", layers="mix", mix_l2=0.0, biLM="frozen")


def planned(plan: dict[str, Task], tables: list[str], tasks: list[str], seeds: list[int]) -> list[Run]:
    """Table after table, and of each the first seed of all tasks before the second."""
    runs = [
        one
        for table in tables
        for seed in seeds
        for task in TABLES[table].tasks
        if task in tasks
        for change in TABLES[table].variants.values()
        for run in [run_of(plan, task, change, seed)]
        for one in (baseline_of(run), run)
    ]
    return list(dict.fromkeys(runs))


# ---- from runs to commands


def passes(run: Run, task: Task) -> int:
    """How often an epoch reads the train examples."""
    return min(MOST_PASSES, max(1, round(LEAST_READ * task.train_size / run.train_size)))


def recipe_flags(run: Run, plan: dict[str, Task]) -> list[str]:
    """All but the biLM and the output."""
    task = plan[run.task]
    flags = [part for split, paths in task.files.items() for part in (f"--{split}", *paths)]
    for split, size in {"train": run.train_size, **task.sizes}.items():
        flags += [f"--{split}-size", str(size)]
    flags += ["--epochs", str(task.epochs), "--patience", str(task.patience), *task.flags.split()]
    if passes(run, task) > 1:
        flags += ["--passes", str(passes(run, task))]
    if run.train_size <= FEW * task.train_size:
        flags += ["--batch-size", str(FEW_BATCH)]
    flags += ["--seeds", str(run.seed)]
    return [*flags, "--set", *task.settings, *elmo_settings(run)]


def elmo_settings(run: Run) -> list[str]:
    found = [
        f"elmo_at_input={str(run.place in ('input', 'both')).lower()}",
        f"elmo_at_output={str(run.place in ('output', 'both')).lower()}",
    ]
    if run.place != "none":
        found += [f"elmo_layers={run.layers}", f"mix_l2={run.mix_l2:g}"]
        found += ["freeze_elmo=false"] if run.biLM == "tuned" else []
    return found


def estimate(run: Run, plan: dict[str, Task]) -> float:
    """Seconds of one processor, if no run stops early."""
    task = plan[run.task]
    without, with_elmo = task.seconds
    an_epoch = without if run.place == "none" else with_elmo * (TUNED_TIMES if run.biLM == "tuned" else 1)
    share = passes(run, task) * run.train_size / task.train_size
    return task.epochs * an_epoch * (EVALUATED + (1 - EVALUATED) * share)
