"""Each head, on elmo-tiny, memorises 50 real examples, to a perfect score of its task's own metric.

The data sets are not in this repository; `ELMO_HF_SHARED` names the folder above `data`. Without them these
tests are skipped, and those of made-up examples (`test_fifty_examples_are_learnt_by_heart` of the taggers,
the classifiers and question answering, `test_stories_are_learnt_by_heart`) show it of every head.
"""

import itertools

import pytest
import torch

import elmo_hf
from elmo_hf import TINY, ElmoLayerCache, ElmoTokenizer
from elmo_hf.finetuning import coreference, squad
from elmo_hf.finetuning.classification import collate_texts
from elmo_hf.finetuning.data import labels_of
from elmo_hf.finetuning.tagging import collate_words
from elmo_hf.metrics import (
    coreference_scores,
    role_scores,
    span_scores,
    squad_scores,
    without_singletons,
)
from tests.helpers.paths import SHARED
from training import (
    finetune_ner,
    finetune_nli,
    finetune_srl,
    finetune_sst,
)

NUMBER, STEPS = 50, 150
SMALL = {
    "task_char_filters": [[3, 40]],
    "task_hidden_size": 32,
    "task_num_layers": 1,
    "task_dropout": 0.0,
    "elmo_dropout": 0.0,
    "mix_l2": 0.0,
}


def data(*names):
    path = SHARED.joinpath("data", *names)
    if not path.exists():
        pytest.skip(f"no data at {path}; ELMO_HF_SHARED names the folder above `data`")
    return path


def fifty(examples, fit):
    some = list(itertools.islice(filter(fit, examples), NUMBER))
    assert len(some) == NUMBER
    return some


def learn(head, batch, is_perfect, rate=0.02, **options):
    torch.manual_seed(0)
    model = getattr(elmo_hf, head).from_pretrained(TINY, **SMALL | options).train()
    model.elmo_cache = ElmoLayerCache()
    optimizer = torch.optim.Adam((weight for weight in model.parameters() if weight.requires_grad), lr=rate)
    for step in range(STEPS):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        if step % 10 == 9:
            model.eval()
            if is_perfect(model):
                return
            model.train()
    pytest.fail(f"still not perfect after {STEPS} steps")


def without(batch, *names):
    return {name: value for name, value in batch.items() if name not in names}


def learn_labels(head, examples, scores, **options):
    labels = labels_of({"train": examples}, scheme="BIO")
    batch = collate_words(labels)(ElmoTokenizer(), examples)
    gold = [example["labels"] for example in examples]

    def is_perfect(model):
        label_ids = model.decode(**without(batch, "labels")).tolist()
        rows = [[labels[label] for label in row if label >= 0] for row in label_ids]
        return scores(rows, gold)["f1"] == 1

    learn(head, batch, is_perfect, id2label=dict(enumerate(labels)), **options)


@pytest.mark.parametrize("use_crf", [True, False])
def test_names(use_crf):
    examples = finetune_ner.read(data("ner_wnut17", "wnut17train.conll"))
    some = fifty(examples, lambda example: len(example["tokens"]) <= 15 and {*example["labels"]} != {"O"})
    learn_labels("ElmoForTokenClassification", some, span_scores, use_crf=use_crf)


@pytest.mark.parametrize("role_rules", [False, True])
def test_roles(role_rules):
    examples = finetune_srl.read(data("srl_propbank_ewt", "ewt_srl_dev.conll.xz"))
    some = fifty(examples, lambda example: 5 <= len(example["tokens"]) <= 12)
    options = {"task_num_layers": 2, "predicate_dim": 10, "use_crf": False, "role_rules": role_rules}
    learn_labels("ElmoForSemanticRoleLabeling", some, role_scores, **options)


def learn_texts(examples, labels, classifier):
    batch = collate_texts(labels)(ElmoTokenizer(), examples)

    def is_perfect(model):
        return torch.equal(model.decode(**without(batch, "labels")), batch["labels"])

    options = {"classifier": classifier, "num_labels": len(labels), "rate": 0.01}
    learn("ElmoForSequenceClassification", batch, is_perfect, **options)


def test_sentiment():
    examples = finetune_sst.read(data("sst", "trees", "dev.txt.xz"))
    some = fifty(examples, lambda example: len(example["tokens"]) <= 15)
    learn_texts(some, finetune_sst.LABELS, "bcn")


def test_entailment():
    examples = finetune_nli.read(data("nli_mnli_20k", "mnli_val.tsv.xz"))
    some = fifty(examples, lambda example: len(example["tokens"]) <= 20)
    learn_texts(some, finetune_nli.LABELS, "esim")


def test_questions():
    examples = squad.read_squad(data("squad_v1.1", "dev-v1.1.rebuilt.json.xz"))

    def exact(some, places):
        return squad_scores(squad.answers_at(some, places), squad.gold_answers(some))["exact_match"] == 100

    def fits(example):
        """Its first answer is whole words, and not too many."""
        first, last = example["spans"][0]
        before = len(example["question_words"]) + 2
        is_short = len(example["context_words"]) <= 45 and last - first < 10
        return is_short and exact([example], [(before + first, before + last)])

    some = fifty(examples, fits)
    batch = squad.collate(ElmoTokenizer(), some)

    def is_perfect(model):
        return exact(some, model.decode(**without(batch, "start_positions", "end_positions")).tolist())

    learn("ElmoForQuestionAnswering", batch, is_perfect)


def test_coreference():
    """Windows of two sentences in which some mentions corefer, all of them short."""
    books = coreference.read_archive(data("coref_litbank", "litbank_coref_entities.tar.xz"))
    windows = (window for book in books for window in coreference.windows(book, 2))

    def is_short(window):
        clusters = without_singletons(window["clusters"])
        mentions = [mention for cluster in clusters for mention in cluster]
        words = sum(map(len, window["sentences"]))
        return mentions and words <= 22 and all(last - first < 2 for _, first, last in mentions)

    some = fifty(windows, is_short)
    gold = [without_singletons(window["clusters"]) for window in some]
    batch = coreference.collate_documents(ElmoTokenizer(), some)

    def is_perfect(model):
        clusters = coreference.as_clusters(model.decode(**without(batch, "labels")).numpy())
        return coreference_scores(clusters, gold)["conll_f1"] == 1

    options = {"max_span_width": 2, "spans_per_word": 2.0, "span_hidden_size": 32}
    learn("ElmoForCoreferenceResolution", batch, is_perfect, rate=0.04, **options)
