"""The plan of the tables: the tasks with their files and budgets, the tables, their single runs.

    runs = planned(TASKS, tables=["table1"], tasks=["srl"], seeds=[0, 1, 2])    # in order, each once
    recipe_flags(runs[0], TASKS)                        # the options of its recipe, with DATA for the folder

A baseline has the same sentences, budget, word vectors and letters as its ELMo. The changes to the recipes'
settings, which are the paper's, are here; they fit two cores. Dropout, learning rate and the scale of the
word vectors are chosen on dev for each kind of task, with and without ELMo, from the same small grid
(search.py).
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

CUT = "RUNS/data"  # the folder of files that inputs.py makes
VECTORS = "VECTORS"  # stands for the file of word vectors


class Choice(NamedTuple):
    """What search.py chose for the baseline ("none"), with ELMo ("elmo") or with a tuned biLM ("tuned"):
    flags, and settings for --set."""

    arm: str
    flags: tuple[str, ...]
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """`seconds` are those of one processor for an epoch with its evaluation, without and with a frozen ELMo,
    as measured with a random biLM of elmo-tiny's shape; estimates start from them. `epochs` is no budget, but
    a limit far beyond: patience ends a run, mostly after `usual` epochs."""

    title: str
    recipe: str
    files: dict[str, tuple[str, ...]]
    sizes: dict[str, int]  # examples of each split (all)
    train_size: int
    epochs: int
    patience: int
    metric: str
    place: str  # where ELMo enters, as in the paper
    mix_l2: float
    seconds: tuple[float, float]
    settings: tuple[str, ...] = ()
    flags: str = ""  # of the recipe
    paper: tuple[str, float, float] | None = None  # its task, baseline, and score with ELMo
    percent: float = 100.0  # the factor from the recipe's score to a percentage
    of: str = ""  # what the train examples are a part of, if that needs an explanation
    domain: str | None = None  # to which a biLM may be adapted
    usual: int = 12  # epochs
    scales_lambda: bool = False  # the recipe divides the paper's lambda, which `mix_l2` is here
    vectors: bool = True  # the task's own words have pretrained vectors
    search_size: int | None = None  # train examples of the search, by default a fourth
    searched_with: str = ""  # the task whose choices it shares, if it is not searched itself
    chosen: tuple[Choice, ...] = ()  # at most one for each arm


def under(folder: str, **names: str) -> dict[str, tuple[str, ...]]:
    """The files of each split from a string of names."""
    return {split: tuple(f"DATA/{folder}/{name}" for name in text.split()) for split, text in names.items()}


NER = ("NER, CoNLL-2003", 90.15, 92.22)
NER_FLAGS = "--batch-size 16"
NER_TASK = Task(
    "NER, UNER English EWT",
    "finetune_ner.py",
    {
        "train": ("DATA/ner_uner_ewt/train.conll.xz",),
        "dev": ("DATA/ner_uner_ewt_dev/en_ewt-ud-dev.iob2.xz",),
        "test": ("DATA/ner_uner_ewt/test.iob2",),
    },
    sizes={},
    train_size=12_543,
    epochs=60,
    patience=5,
    metric="f1",
    place="input",
    mix_l2=0.1,
    seconds=(45, 50),
    flags=NER_FLAGS,
    paper=NER,
    scales_lambda=True,
)
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
        epochs=60,
        patience=4,
        metric="f1",
        place="input",
        mix_l2=0.001,
        seconds=(35, 40),
        settings=("task_hidden_size=128", "task_num_layers=4"),
        flags="--batch-size 40 --optimizer adam --learning-rate 0.002",
        paper=("SRL, OntoNotes", 81.4, 84.6),
        usual=20,
    ),
    "ner-ewt": NER_TASK,
    "ner-wnut": replace(
        NER_TASK,
        title="NER, WNUT-17",
        searched_with="ner-ewt",
        files=under(
            "ner_wnut17", train="wnut17train.conll", dev="emerging.dev.conll", test="emerging.test.annotated"
        ),
        train_size=3394,
        patience=6,
        seconds=(13, 14),
        domain="tweets",
        usual=15,
    ),
    "ner-btc": replace(
        NER_TASK,
        title="NER, Broad Twitter",
        searched_with="ner-ewt",
        files=under("ner_btc", train="a.conll b.conll e.conll g.conll", dev="h.conll", test="f.conll"),
        sizes={"dev": 1000},
        train_size=5000,
        seconds=(19, 21),
        domain="tweets",
    ),
    "ner-ncbi": replace(
        NER_TASK,
        title="NER, NCBI disease",
        searched_with="ner-ewt",
        files=under("ner_ncbi_disease", train="train.tsv.xz", dev="devel.tsv.xz", test="test.tsv.xz"),
        train_size=5424,
        seconds=(28, 32),
        domain="medicine",
        usual=15,
    ),
    "sst": Task(
        "Sentiment, SST-5",
        "finetune_sst.py",
        under("sst/trees", train="train.txt.xz", dev="dev.txt.xz", test="test.txt.xz"),
        sizes={},
        train_size=33_245,  # 8,544 sentences and their phrases
        epochs=60,
        patience=3,
        metric="accuracy",
        place="both",
        mix_l2=0.001,
        seconds=(55, 80),
        settings=("task_hidden_size=100",),
        flags="--phrases 12 --learning-rate 0.001",
        paper=("SST-5", 51.4, 54.7),
        domain="movies",
        usual=8,
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
        train_size=19_999,  # of 20,000; one has a stray quotation mark and 32,872 words
        search_size=10_000,  # with fewer, what is learnt is luck
        epochs=40,
        patience=4,
        metric="accuracy",
        place="both",
        mix_l2=0.001,
        seconds=(85, 150),
        settings=("task_hidden_size=100",),
        flags="--learning-rate 0.001",
        paper=("SNLI", 88.0, 88.7),
    ),
    "squad": Task(
        "Questions, SQuAD 1.1",
        "finetune_squad.py",
        under("squad_v1.1", train="train-v1.1.rebuilt.json.xz", test="dev-v1.1.rebuilt.json.xz"),
        sizes={"dev": 500, "test": 2000},
        train_size=8000,
        searched_with="nli",  # a run takes half an hour, and teaches nothing with a fourth of the questions
        epochs=30,
        patience=3,
        metric="f1",
        place="both",
        mix_l2=0.0,
        seconds=(210, 290),
        usual=8,
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
        search_size=40,  # with fewer, nothing is found in the first epochs, and patience ends there
        epochs=40,
        patience=4,
        metric="conll_f1",
        of="188 pieces of 50 sentences",
        place="input",
        mix_l2=0.0,
        seconds=(88, 106),
        settings=("max_antecedents=50", "span_hidden_size=100", "max_span_width=8"),
        paper=("Coreference, OntoNotes", 67.2, 70.4),
    ),
}
TASKS["coref-gum"] = replace(
    TASKS["coref"],
    title="Coreference, OntoGUM",
    searched_with="coref",
    files={split: (f"{CUT}/ontogum_{split}.conll",) for split in ("train", "dev", "test")},
    train_size=120,
    of="253 pieces of 50 sentences",
    seconds=(95, 115),
)
TABLE1 = tuple(TASKS)
# With a GPU: tasks that use a part of the data, with all data and larger batches.
TASKS |= {
    "srl-all": replace(
        TASKS["srl"],
        title="SRL, PropBank EWT, all",
        searched_with="srl",
        sizes={},
        train_size=40_423,
        seconds=(60, 80),
        settings=("task_hidden_size=300", "task_num_layers=8"),
        flags="--batch-size 80 --optimizer adam --learning-rate 0.001 --cache none",
    ),
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
        searched_with="coref",
        train_size=188,
        seconds=(25, 30),
        flags="--cache none",
    ),
}
GAP = "DATA/coref_gap/gap-test.tsv.xz"  # evaluates the coreference models too
GAP_TEXTS = 500
GAP_FLAGS = ["--gap", GAP, "--limit", str(GAP_TEXTS), "--vectors", VECTORS]
DOMAINS: dict[str, tuple[str, ...]] = {  # unlabelled text to adapt a biLM to a domain
    "tweets": (*(f"DATA/ner_btc/{section}.conll" for section in "abeg"), "DATA/ner_wnut17/wnut17train.conll"),
    "movies": ("DATA/domain_movie/movie_reviews.txt.xz",),
    "medicine": ("DATA/ner_ncbi_disease/train.tsv.xz",),
}


@dataclass(frozen=True)
class Run:
    """The training of one model. `place`: where ELMo enters, or "none". `biLM`: frozen, tuned or adapted."""

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
    """`variants` are changes to a run by the name of the column; "share" is the share of the train examples.
    A table that `needs_gpu` runs only if it is named."""

    title: str
    tasks: tuple[str, ...]
    split: str
    variants: dict[str, dict[str, Any]]
    needs_gpu: bool = False


SHARES = (1, 2, 5, 10, 20, 50, 100)
# An epoch reads at least this share of all train examples, in at most so many passes over the few that a run
# has; with fewer steps the baseline finds no names at all.
MIN_SHARE, MAX_PASSES = 0.25, 8
FEW, FEW_BATCH = 0.1, 8  # up to this share batches are small; otherwise an epoch has two or three steps
EVALUATION_SHARE = 0.1  # of an epoch's time, which does not depend on the number of train examples
TUNED_FACTOR = 2.5  # the time of a tuned biLM over a frozen one, whose sentences are encoded once
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
        ("ner-ewt", "srl"),
        "test",
        {f"{share} %": {"share": share / 100} for share in SHARES},
    ),
    "tuned": Table(
        "A biLM that is tuned with the task",
        ("ner-wnut", "ner-ncbi"),
        "test",
        {"frozen": {}, "tuned": {"biLM": "tuned"}},
    ),
    "adapted": Table(
        "A biLM that is adapted to the domain",
        ("ner-ncbi", "ner-wnut", "sst"),
        "test",
        {"not adapted": {}, "adapted": {"biLM": "adapted"}},
    ),
    "whole": Table(
        "All training data, on a GPU",
        ("srl-all", "squad-all", "coref-all"),
        "test",
        {"ELMo": {}},
        needs_gpu=True,
    ),
}


SMOKE_SIZE, SMOKE_PIECES = 40, 4  # examples, and pieces of documents


def smoke_plan() -> dict[str, Task]:
    """The same plan with tiny sizes, for a minute or two."""
    return {
        name: replace(
            task,
            sizes={},
            train_size=SMOKE_PIECES if name.startswith("coref") else SMOKE_SIZE,
            epochs=1,
            usual=1,
            patience=1,
            vectors=False,
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
    """The same run without ELMo; the settings of ELMo are fixed, so that runs share a baseline."""
    return replace(run, place="none", layers="mix", mix_l2=0.0, biLM="frozen")


def planned(plan: dict[str, Task], tables: list[str], tasks: list[str], seeds: list[int]) -> list[Run]:
    """The runs of the tables in order, in each table all tasks of a seed before the next seed."""
    runs = [
        planned_run
        for table in tables
        for seed in seeds
        for task in TABLES[table].tasks
        if task in tasks
        for change in TABLES[table].variants.values()
        for run in [run_of(plan, task, change, seed)]
        for planned_run in (baseline_of(run), run)
    ]
    return list(dict.fromkeys(runs))


# ---- from runs to commands


def passes(run: Run, task: Task) -> int:
    """How often an epoch reads the train examples."""
    return min(MAX_PASSES, max(1, round(MIN_SHARE * task.train_size / run.train_size)))


def recipe_flags(run: Run, plan: dict[str, Task]) -> list[str]:
    """The options of a run's recipe but for the biLM and the output."""
    task = plan[run.task]
    flags = [part for split, paths in task.files.items() for part in (f"--{split}", *paths)]
    for split, size in {"train": run.train_size, **task.sizes}.items():
        flags += [f"--{split}-size", str(size)]
    flags += ["--epochs", str(task.epochs), "--patience", str(task.patience), *task.flags.split()]
    if passes(run, task) > 1:
        flags += ["--passes", str(passes(run, task))]
    if run.train_size <= FEW * task.train_size:
        flags += ["--batch-size", str(FEW_BATCH)]
    flags += ["--vectors", VECTORS] if task.vectors else []
    chosen = chosen_of(run, task)
    flags += [*chosen.flags, "--seeds", str(run.seed)]
    return [*flags, "--set", *task.settings, *chosen.settings, *elmo_settings(run, task.scales_lambda)]


def flag_of(task: Task, name: str, default: str) -> str:
    """The value of a flag of the task's recipe."""
    words = task.flags.split()
    return words[words.index(name) + 1] if name in words else default


def learning_rate(task: Task, multiple: float) -> str:
    """A multiple of the plan's learning rate, as a flag's value."""
    return f"{multiple * float(flag_of(task, '--learning-rate', '0.001')):g}"


def arm_of(run: Run) -> str:
    """Whose settings a run has. With ELMo at the output alone, a network reads what the baseline reads, so it
    has the baseline's: the scale of the word vectors depends on what stands beside them."""
    if run.biLM == "tuned":
        return "tuned"
    return "none" if run.place in ("none", "output") else "elmo"


def chosen_of(run: Run, task: Task) -> Choice:
    """What is chosen for this task and arm; nothing, if it is not searched."""
    chosen = {choice.arm: choice for choice in task.chosen}
    arm = arm_of(run)
    if arm == "tuned" and arm not in chosen:
        arm = "elmo"  # a tuned biLM then learns as fast as the rest
    return chosen.get(arm, Choice(arm, (), ()))


def elmo_settings(run: Run, scales_lambda: bool = False) -> list[str]:
    settings = [
        f"elmo_at_input={str(run.place in ('input', 'both')).lower()}",
        f"elmo_at_output={str(run.place in ('output', 'both')).lower()}",
    ]
    if run.place != "none":
        settings.append(f"elmo_layers={run.layers}")
        settings += [] if scales_lambda else [f"mix_l2={run.mix_l2:g}"]
        settings += ["freeze_elmo=false"] if run.biLM == "tuned" else []
    return settings


def estimate(run: Run, plan: dict[str, Task]) -> float:
    """Seconds of one processor for the usual number of epochs."""
    task = plan[run.task]
    without, with_elmo = task.seconds
    epoch = without if run.place == "none" else with_elmo * (TUNED_FACTOR if run.biLM == "tuned" else 1)
    share = passes(run, task) * run.train_size / task.train_size
    return task.usual * epoch * (EVALUATION_SHARE + (1 - EVALUATION_SHARE) * share)
