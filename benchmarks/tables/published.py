"""Published figures on the data of the tables, to compare our baselines with.

    PUBLISHED["squad"].figures[0]       # a score, its system, its source
    PUBLISHED["srl"].why                # why ours differs, or why there is no figure

A figure is of a system without a pretrained language model if we know of one, and of the same test set if it
is public. Our sizes and settings are in plan.py.
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
    """`metric` is the one that the figures are of, if it is not the task's own. `is_alike`: whether they are
    of the same answers on the same data, so that a figure and ours can stand side by side."""

    figures: tuple[Figure, ...]
    why: str
    metric: str | None = None
    is_alike: bool = True


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
        "Theirs is a pretrained BERT on Universal Propositions 1.0, where a role belongs to a single "
        "word; ours predicts whole spans, and is trained on 10,000 of 40,423 predicates. We found no "
        "figure for spans on this split: PropBank's release has no words, so the data had to be joined "
        "with the treebank.",
        is_alike=False,
    ),
    "ner-ewt": Published(
        (
            Figure(
                86.0,
                "XLM-R large, a Transformer",
                "Mayhew et al. 2024, UNER v1",
                "https://arxiv.org/abs/2311.09122",
            ),
        ),
        "Theirs is a large pretrained Transformer; we found no figure of another kind of model on this set.",
    ),
    "ner-ncbi": Published(
        (
            Figure(
                80.2,
                "biLSTM-CRF with letters",
                "Xu et al. 2018, Table 8",
                "https://bmcmedinformdecismak.biomedcentral.com/articles/10.1186/s12911-018-0690-y/tables/8",
            ),
            Figure(
                86.2,
                "biLSTM-CRF, vectors of medical text",
                "Xu et al. 2018, Table 8",
                "https://bmcmedinformdecismak.biomedcentral.com/articles/10.1186/s12911-018-0690-y/tables/8",
            ),
        ),
        "Theirs have word vectors of medical text; ours are GloVe's of Wikipedia and news.",
    ),
    "coref-gum": Published(
        (),
        "We know of no figure of a system that is trained on these documents; its test set is held out here.",
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
        "Theirs has word vectors of tweets, parts of speech and a gazetteer; ours has letters, and GloVe's "
        "vectors of Wikipedia and news.",
    ),
    "ner-btc": Published(
        (), "We know of no figure of a system that is trained on these sections and evaluated on this one."
    ),
    "sst": Published(
        (
            Figure(45.0, "CNN-rand", "Kim 2014, Table 2", "https://aclanthology.org/D14-1181"),
            Figure(51.4, "BCN, the paper's baseline", "Peters et al. 2018, Table 1", ELMO),
        ),
        "CNN-rand has no pretrained word vectors, but is trained on the trees' phrases too; BCN has larger "
        "vectors and is wider; ours is trained on sentences and their phrases of 12 words or more.",
    ),
    "nli": Published(
        (Figure(72.3, "ESIM", "Williams et al. 2018, matched genres", "https://aclanthology.org/N18-1101"),),
        "Theirs is trained on all of MultiNLI, has larger vectors, is wider, and is evaluated on the "
        "hidden test set; ours is trained on a small part, and evaluated on a part of the available "
        "labelled pairs.",
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
        "Theirs are trained on all of SQuAD and have larger vectors; ours is trained on a small part, "
        "reads only the beginnings of long texts, and is evaluated on a part of the dev set.",
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
        "Theirs has a pretrained SpanBERT, ten models for ten folds of the books, and predicts "
        "singletons, which its score counts; ours is scored in the same way, but cannot predict "
        "singletons, and is trained on 80 of the 188 pieces into which the train books are split.",
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
        "Their rule gets the two names and a parse of the sentence; ours has to find all mentions, and "
        "is trained on parts of novels only.",
    ),
}
# The same, trained on all data.
PUBLISHED |= {
    "srl-all": replace(
        PUBLISHED["srl"],
        why="Theirs is a pretrained BERT on Universal Propositions 1.0, where a role belongs to a single "
        "word; ours predicts whole spans.",
    ),
    "squad-all": replace(
        PUBLISHED["squad"],
        why="Theirs have larger vectors; ours is evaluated on the whole dev set.",
    ),
    "coref-all": replace(
        PUBLISHED["coref"],
        why="Theirs has a pretrained SpanBERT, ten models for ten folds of the books, and predicts "
        "singletons; ours is scored in the same way, but cannot predict singletons.",
    ),
}
