"""What others have published on the data of tables.py, to stand beside our baselines.

    PUBLISHED["squad"].figures[0]       # a score, its system, its source
    PUBLISHED["srl"].why                # why ours differs; or, where there is no figure, why there is none

Each figure is of a system without a pretrained language model where we know of one, and of the same test set
where that is open. `why` says in a sentence what is different; our sizes and settings are in tables_plan.py.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Figure:
    score: float  # a percentage
    system: str
    source: str
    url: str


@dataclass(frozen=True)
class Published:
    """`metric`: the score of ours that is told beside it, if it is not the task's own."""

    figures: tuple[Figure, ...]
    why: str
    metric: str | None = None


ELMO = "https://aclanthology.org/N18-1202"
GAP = "gap"
PUBLISHED = {
    "srl": Published(
        (
            Figure(
                82.6,
                "BERT-base, roles of head words",
                "dannashao, the model's page, read in 2026",
                "https://huggingface.co/dannashao/bert-base-uncased-finetuned-srl_arg",
            ),
        ),
        "Theirs is a pretrained BERT, and its data are Universal Propositions 1.0, in which a role is that "
        "of a single word; ours has to find whole spans, and learns from 10,000 of 40,423 predicates. Of "
        "spans on this division we have found no figure: PropBank's release has no words, and ours are put "
        "together with it.",
    ),
    "ner-wnut": Published(
        (
            Figure(
                41.86,
                "UH-RiTUAL, the shared task's best",
                "Aguilar et al. 2017",
                "https://aclanthology.org/W17-4419",
            ),
        ),
        "Theirs has word vectors of tweets, parts of speech and a gazetteer; ours has letters, and vectors "
        "of the train set's words that begin at random, for no others could be had.",
    ),
    "ner-btc": Published(
        (),
        "We know of no figure of a system that has learnt from these sections and is judged on this one.",
    ),
    "sst": Published(
        (
            Figure(45.0, "CNN-rand", "Kim 2014, Table 2", "https://aclanthology.org/D14-1181"),
            Figure(51.4, "BCN, the paper's baseline", "Peters et al. 2018, Table 1", ELMO),
        ),
        "CNN-rand has no pretrained word vectors either, but learns from the trees' phrases, too; BCN has "
        "pretrained vectors and is wider; ours learns from whole sentences alone.",
    ),
    "nli": Published(
        (Figure(72.3, "ESIM", "Williams et al. 2018, matched genres", "https://aclanthology.org/N18-1101"),),
        "Theirs learns from all of MultiNLI, has GloVe vectors, is wider, and is judged on the hidden test "
        "set; ours learns from a small part, and is judged on a part of the labelled pairs at hand.",
    ),
    "squad": Published(
        (
            Figure(
                77.3,
                "BiDAF, one model, dev set",
                "Seo et al. 2017, their page",
                "https://github.com/allenai/bi-att-flow",
            ),
            Figure(81.1, "the paper's baseline, hidden test set", "Peters et al. 2018, Table 1", ELMO),
        ),
        "Theirs learn from all of SQuAD and have GloVe vectors; ours learns from a small part, of whose long "
        "texts it reads the beginnings and which without ELMo teaches it little, and is judged on a part of "
        "the dev set.",
    ),
    "coref": Published(
        (
            Figure(
                76.5,
                "a memory of entities on SpanBERT",
                "Toshniwal et al. 2020",
                "https://aclanthology.org/2020.emnlp-main.685",
            ),
        ),
        "Theirs has a pretrained SpanBERT, ten models for ten parts of the books, and counts mentions that "
        "stand alone, which it learns to find; ours here is counted so, too, but cannot find such mentions, "
        "and has learnt from 80 of the 188 pieces into which the train books are cut.",
        metric="conll_f1_with_singletons",
    ),
    GAP: Published(
        (
            Figure(
                66.9,
                "parallel syntax, a rule",
                "Webster et al. 2018, the data's page",
                "https://github.com/google-research-datasets/gap-coreference",
            ),
        ),
        "Their rule is told the two names and reads a parse of the sentence; ours has to find all mentions, "
        "and has learnt from parts of novels alone.",
    ),
}
# The same, learnt from all there is.
PUBLISHED |= {
    "squad-all": replace(
        PUBLISHED["squad"],
        why="Theirs have GloVe vectors, and read the questions more often than three times; ours is judged "
        "on the whole dev set.",
    ),
    "coref-all": replace(
        PUBLISHED["coref"],
        why="Theirs has a pretrained SpanBERT, ten models for ten parts of the books, and learns to find "
        "mentions that stand alone; ours is counted with them, too, but cannot find them.",
    ),
}
