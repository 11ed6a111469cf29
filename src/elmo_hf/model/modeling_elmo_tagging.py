"""Taggers: a label for every word, such as names and parts of speech, and semantic roles.

    model = ElmoForTokenClassification.from_pretrained("org/elmo", id2label=..., task_word_dim=50)
    output = model(**tokenizer(words, is_split_into_words=True, return_tensors="pt"), labels=labels)
    output.loss, output.logits          # logits are log-probabilities, (batch, words, labels)
    model.decode(**encoding)            # the best sequence of labels, (batch, words), -100 at padding
    model.predict("Ada sang .", tokenizer)  # [{"word": "Ada", "label": "B-PER", "score": 0.9, ...}, ...]

With a CRF the logits at a word are the log-probabilities of its labels, summed over all labellings of the
sentence, so the softmax of a pipeline gives these probabilities. The best sequence is not always made of the
likeliest labels; `decode` finds it exactly.

The role labeller also knows rules that bind a whole sentence (`role_rules`, He et al. 2017):

    unique         a core role (ARG0 to ARG5, ARGA, or A0 to A5, AA) occurs at most once,
    continuation   C-X comes after an X,
    reference      R-X needs an X, before or after it.
"""

import itertools
import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BatchEncoding
from transformers import initialization as init
from transformers.modeling_outputs import TokenClassifierOutput
from transformers.utils import can_return_tuple

from .checks_elmo import check_labels, check_mask, check_no_attentions, check_predicting
from .configuration_elmo import ElmoConfig
from .crf_elmo import ElmoCRF, is_bio
from .layers_elmo import ElmoBiRNN, ElmoInterleavedRNN, ElmoVariationalDropout
from .predicting_elmo import (
    ElmoTexts,
    as_spans,
    check_span_labels,
    is_list,
    labelled_words,
    without_places,
)
from .task_elmo import ElmoTaskInput, ElmoTaskModel
from .tokenization_elmo import ElmoTokenizer

INPUTS = ("input_ids", "char_ids", "attention_mask")  # what a tokenizer makes for a tagger


class ElmoTagger(ElmoTaskModel):
    """What both taggers share: from the RNN's output to labels. A subclass makes the RNN, then the head."""

    rnn: ElmoBiRNN | ElmoInterleavedRNN

    def _make_head(self, dropout: float) -> None:
        config = self.config
        if config.problem_type not in (None, "single_label_classification"):
            raise ValueError(
                f"{type(self).__name__} gives each word one label, so problem_type must not be "
                f"{config.problem_type!r}."
            )
        self.dropout = ElmoVariationalDropout(dropout)
        names: Any = config.id2label
        labels = [names[number] for number in range(len(names))]
        self.classifier = nn.Linear(self.rnn.output_size + self.elmo_output_size, len(labels))
        self.crf = ElmoCRF(labels, config.use_crf, config.tag_scheme)
        self.post_init()

    def _scores(self, words: ElmoTaskInput) -> Tensor:
        """The scores of each word by itself, (batch, words, labels)."""
        h = self.dropout(self.rnn(words.x, words.mask))
        return self.classifier(words.beside(h))

    def _output(self, words: ElmoTaskInput, labels: Tensor | None) -> TokenClassifierOutput:
        if labels is not None:
            check_labels(labels, words.mask, len(self.crf.labels))
        logits, loss = self.crf(self._scores(words), words.mask, labels)
        return TokenClassifierOutput(
            loss=self.with_penalty(loss) if loss is not None else None,
            logits=logits,
            hidden_states=words.hidden_states,
        )

    def _best_paths(self, words: ElmoTaskInput, scores: Tensor) -> Tensor:
        return self.crf.decode(scores, words.mask)

    def _read(self, *args: Any, **inputs: Any) -> ElmoTaskInput:
        """As `read`, with what else the RNN reads."""
        return self.read(*args, **inputs)

    def _predict(
        self,
        texts: ElmoTexts,
        tokenizer: ElmoTokenizer,
        spans: bool,
        batch_size: int,
        predicates: Sequence[int] | None = None,
    ) -> Any:
        """What `predict` returns; `predicates` are the numbers of each sentence's predicate."""
        check_predicting(tokenizer, batch_size=batch_size)
        if spans:
            check_span_labels(self.crf.labels)
        results: list[list[dict[str, Any]]] = []
        with self.in_eval_mode():
            for first, encoding in texts.batches(tokenizer, batch_size):
                inputs = {name: encoding[name].to(self.device) for name in INPUTS}
                if predicates is not None:
                    inputs["predicate_mask"] = predicate_mask(encoding, first, predicates).to(self.device)
                results += self._labelled(self._read(**inputs), encoding)
        if spans:
            results = [as_spans(words, row) for words, row in zip(results, texts.rows, strict=True)]
        elif texts.are_words:
            results = [without_places(words) for words in results]
        return results[0] if texts.is_single else results

    def _labelled(self, words: ElmoTaskInput, encoding: BatchEncoding) -> list[list[dict[str, Any]]]:
        """The words of each row with their labels of the best sequence, and the probabilities of these."""
        scores = self._scores(words)
        paths, (logits, _) = self._best_paths(words, scores), self.crf(scores, words.mask)
        chosen = logits.gather(2, paths.clamp(min=0)[:, :, None]).squeeze(2).exp()
        rows = zip(encoding.encodings or (), paths.tolist(), chosen.tolist(), strict=True)
        return [labelled_words(self.crf.labels, *row) for row in rows]

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ElmoCRF) and module.learned:
            for parameter in module.parameters():
                init.zeros_(parameter)


class ElmoForTokenClassification(ElmoTagger):
    """The paper's tagger: a biLSTM, and a CRF (`use_crf`) or a softmax for each word.

    >>> names = {0: "O", 1: "B-PER", 2: "I-PER"}
    >>> model = ElmoForTokenClassification.from_pretrained(TINY, id2label=names).eval()
    >>> loss = model(**batch, labels=torch.zeros(2, 5, dtype=torch.long)).loss
    >>> model.decode(**batch).shape  # the ids of the best labels that BIO allows
    torch.Size([2, 5])
    >>> [word["word"] for word in model.predict("Ada sat.", tokenizer)]  # with "label" and "score"
    ['Ada', 'sat', '.']

    With a CRF the logits are the log-probabilities of the labels, summed over all labellings of the sentence.
    `pipeline("token-classification")` works with such a model.
    """

    def __init__(self, config: ElmoConfig) -> None:
        super().__init__(config)
        size, layers, dropout = config.task_hidden_size, config.task_num_layers, config.task_dropout
        self.rnn = ElmoBiRNN(self.input_size, size, layers, dropout)
        self._make_head(dropout)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        char_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> TokenClassifierOutput:
        """Score labels.

        Args:
            labels: (batch, words), from 0 to num_labels - 1; -100 is a label that is not known.

        The other arguments are those of `ElmoModel`.

        Returns:
            A `TokenClassifierOutput`: logits (batch, words, labels) are log-probabilities, zero at padding;
            the loss is the mean negative log-probability of the known labels, plus the penalty of the mixes.
        """
        check_no_attentions(output_attentions)
        words = self.read(input_ids, char_ids, attention_mask, inputs_embeds, output_hidden_states)
        return self._output(words, labels)

    @torch.no_grad()
    def decode(
        self,
        input_ids: Tensor | None = None,
        char_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """The best sequence of labels that the scheme allows, (batch, words), with -100 at padding."""
        words = self.read(input_ids, char_ids, attention_mask, inputs_embeds)
        return self._best_paths(words, self._scores(words))

    def predict(
        self,
        text: Any,
        tokenizer: ElmoTokenizer,
        spans: bool = False,
        batch_size: int = 32,
        is_split_into_words: bool = False,
    ) -> Any:
        """Label the words of texts.

        Args:
            text: a text, a list of texts, or a list of sentences, each a list of words.
            tokenizer: the `ElmoTokenizer` that was saved with the model.
            spans: join the words of `B-X I-X ...`, such as names, and leave out words with the label `O`.
            batch_size: sentences at a time.
            is_split_into_words: `text` is a list of words, one sentence.

        Returns:
            For a sentence the list of its words, each `{"word": ..., "label": ..., "score": ...}`. The labels
            are those of `decode`; the score is the probability of the label at this word. With `spans` the
            list of its spans, each `{"text": ..., "label": ..., "score": ..., "words": (first, end)}` with
            the mean score of its words. Words and spans of a text also have their place, `text[start:end]`.
            For a list of texts or sentences a list with one such list for each.
        """
        return self._predict(ElmoTexts.of(text, is_split_into_words), tokenizer, spans, batch_size)


class ElmoForSemanticRoleLabeling(ElmoTagger):
    """Semantic roles, who did what to whom: the role of each word for one predicate, `B-ARG0 I-ARG0 O B-V`.

    The RNN is the deep one of He et al. (2017): highway LSTMs that read in turn from the left and from the
    right. The paper has task_hidden_size=300, task_num_layers=8, task_dropout=0.1 and use_crf=False: each
    word has a softmax of its own, and `decode` finds the best sequence that the BIO scheme allows. With
    role_rules=True that sequence also keeps the rules of roles, as in their constrained decoding.

    >>> names = {0: "O", 1: "B-V", 2: "B-ARG0", 3: "I-ARG0"}
    >>> model = ElmoForSemanticRoleLabeling.from_pretrained(TINY, id2label=names).eval()
    >>> model.decode(**batch, predicate_mask=torch.tensor([[0, 0, 1, 0, 0], [0, 1, 0, 0, 0]])).shape
    torch.Size([2, 5])
    >>> len(model.predict("Ada sat.", tokenizer, predicate=1))  # a role for each word
    3
    """

    def __init__(self, config: ElmoConfig) -> None:
        super().__init__(config)
        self.predicate_embedding = nn.Embedding(2, config.predicate_dim)
        size, layers, dropout = config.task_hidden_size, config.task_num_layers, config.task_dropout
        self.rnn = ElmoInterleavedRNN(self.input_size + config.predicate_dim, size, layers, dropout)
        self._make_head(dropout=0.0)  # each layer has dropout on its output
        self.roles = ElmoRoles(self.crf.labels) if config.role_rules else None

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        char_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        predicate_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> TokenClassifierOutput:
        """Score labels.

        Args:
            predicate_mask: (batch, words), 1 at the predicate and 0 elsewhere. A sentence with several
                predicates is a row for each.
            labels: (batch, words), from 0 to num_labels - 1; -100 is a label that is not known.

        The other arguments are those of `ElmoModel`.

        Returns:
            A `TokenClassifierOutput`, as that of `ElmoForTokenClassification`.
        """
        check_no_attentions(output_attentions)
        words = self.read(input_ids, char_ids, attention_mask, inputs_embeds, output_hidden_states)
        return self._output(self._with_predicate(words, predicate_mask), labels)

    @torch.no_grad()
    def decode(
        self,
        input_ids: Tensor | None = None,
        char_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        predicate_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """The best sequence of labels that the scheme and, with `role_rules`, the rules of roles allow,
        (batch, words), with -100 at padding."""
        words = self._read(input_ids, char_ids, attention_mask, inputs_embeds, predicate_mask)
        return self._best_paths(words, self._scores(words))

    def predict(
        self,
        text: Any,
        tokenizer: ElmoTokenizer,
        predicate: int | Sequence[int],
        spans: bool = False,
        batch_size: int = 32,
        is_split_into_words: bool = False,
    ) -> Any:
        """Label the words of texts with their roles for a predicate.

        Args:
            predicate: the number of the predicate's word, from 0; for a list of texts or sentences a list
                with one number for each. A sentence with several predicates is given once for each.

        The other arguments and what is returned are as in `ElmoForTokenClassification.predict`; spans are
        the arguments of the predicate, and the predicate itself, `V`.
        """
        texts = ElmoTexts.of(text, is_split_into_words)
        predicates = check_predicates(predicate, texts)
        return self._predict(texts, tokenizer, spans, batch_size, predicates)

    def _best_paths(self, words: ElmoTaskInput, scores: Tensor) -> Tensor:
        return self.crf.decode(scores, words.mask, self.roles.repair if self.roles else None)

    def _read(
        self,
        input_ids: Tensor | None,
        char_ids: Tensor | None,
        attention_mask: Tensor | None,
        inputs_embeds: Tensor | None = None,
        predicate_mask: Tensor | None = None,
    ) -> ElmoTaskInput:
        words = self.read(input_ids, char_ids, attention_mask, inputs_embeds)
        return self._with_predicate(words, predicate_mask)

    def _with_predicate(self, words: ElmoTaskInput, predicate_mask: Tensor | None) -> ElmoTaskInput:
        if predicate_mask is None:
            raise ValueError(
                "semantic roles are those of a predicate; pass predicate_mask, 1 at its word and 0 elsewhere."
            )
        check_mask("predicate_mask", predicate_mask, words.mask)
        predicate = self.predicate_embedding(predicate_mask.long())
        words.x = torch.cat([words.x, predicate], dim=-1)
        return words


def check_predicates(predicate: Any, texts: ElmoTexts) -> list[int]:
    numbers = list(predicate) if is_list(predicate) else [predicate]
    count = len(texts.rows)
    if is_list(predicate) == texts.is_single or len(numbers) != count:
        wanted = "a number, that of its word" if texts.is_single else f"a list of {count} numbers, one a text"
        raise ValueError(f"predicate must be {wanted}, but is {predicate!r:.60}.")
    return numbers


def predicate_mask(encoding: BatchEncoding, first: int, predicates: Sequence[int]) -> Tensor:
    """1 at each sentence's predicate, (batch, words); `first` is the number of the batch's first sentence."""
    mask = torch.zeros_like(encoding["input_ids"])
    for row in range(len(mask)):
        places = [place for place, number in enumerate(encoding.word_ids(row)) if number is not None]
        number = predicates[first + row]
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(places):
            raise ValueError(
                f"the predicate of text {first + row} must be the number of a word, from 0 to "
                f"{len(places) - 1}, but is {number!r}."
                if places
                else f"text {first + row} has no words, and so no predicate."
            )
        mask[row, places[number]] = 1
    return mask


# ---- the rules of roles

# He et al. find the best path that keeps the rules by A* search. Here dynamic programming finds the same
# path: a state tells of each of some roles X whether it is absent, owed (an R-X needs it) or present, so that
# the best path over pairs of a state and a label keeps the rules of these X. The search starts from the path
# of the CRF. As long as the best path breaks the rules of a role, that role is added and the search repeated.
# A path that then breaks no rule is the best of all that break none, since it is the best of a larger set.
CORE = re.compile(r"(ARG|A)[0-5A]")
ABSENT, OWED, PRESENT = range(3)
# Each tracked role triples the work. A sentence that needs more of them does without the other roles.
MAX_TRACKED_ROLES = 6

Chain = tuple[np.ndarray, np.ndarray, np.ndarray]  # scores of the first label, of transitions, of the last


def broken_roles(labels: Sequence[str]) -> list[str]:
    """The roles X whose rules a sequence of labels breaks, core roles first."""
    roles = [label[2:] for label in labels if label.startswith("B-")]
    broken = set()
    for index, role in enumerate(roles):
        if CORE.fullmatch(role) and role in roles[:index]:
            broken.add(role)
        if role.startswith("C-") and role[2:] not in roles[:index]:
            broken.add(role[2:])
        if role.startswith("R-") and role[2:] not in roles:
            broken.add(role[2:])
    return sorted(broken, key=lambda role: (not CORE.fullmatch(role), role))


class ElmoRoles:
    """The rules of roles for a list of labels, all of them `O`, `B-...` or `I-...`."""

    def __init__(self, labels: Sequence[str]) -> None:
        if "O" not in labels or not is_bio(labels):
            raise ValueError(
                "role_rules needs the labels O, B-... and I-..., but config.id2label has "
                f"{', '.join(map(repr, labels))}; rename them, or set role_rules=False."
            )
        self.labels = list(labels)

    def repair(
        self, paths: Tensor, scores: Tensor, mask: Tensor, start: Tensor, transitions: Tensor, end: Tensor
    ) -> Tensor:
        """Replace each path that breaks a rule by the best path that breaks none; see `ElmoCRF.decode`.

        Args:
            paths: the best paths without the rules, (batch, words).
            scores: (batch, words, labels).
            mask: (batch, words), True for a word.
            start, transitions, end: scores of the first label (labels,), of transitions (labels, labels),
                from the first label to the second, and of the last label (labels,).
        """
        chain: Any = tuple(tensor.double().cpu().numpy() for tensor in (start, transitions, end))
        repaired = paths.clone()
        for row, words in enumerate(mask):
            broken = broken_roles([self.labels[label] for label in paths[row, words].tolist()])
            if broken:
                path, left_out = self._search(scores[row, words].double().cpu().numpy(), chain, broken)
                repaired[row, words] = torch.tensor(path, device=paths.device)
                if left_out:
                    warnings.warn(
                        f"row {row}: too many roles for an exact search; its labels are the best without "
                        f"{', '.join(left_out)}.",
                        stacklevel=3,
                    )
        return repaired

    def _search(self, scores: np.ndarray, chain: Chain, broken: list[str]) -> tuple[list[int], list[str]]:
        """The best path for scores (words, labels), and the roles that it must not have."""
        tracked: list[str] = []
        left_out: list[str] = []
        path: list[int] = []
        while broken:
            room = MAX_TRACKED_ROLES - len(tracked)
            tracked += broken[:room]
            left_out += broken[room:]
            path = best_path_with_states(scores, chain, *self._states(tracked, left_out))
            broken = broken_roles([self.labels[label] for label in path])
        return path, left_out

    def _states(self, tracked: list[str], left_out: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """A state has ABSENT, OWED or PRESENT for each tracked role; state 0 has ABSENT for all.

        Returns (states, labels), the state after each label, or -1 where the label is not allowed; and
        (states,), whether a sentence may end in the state.
        """
        states = np.array(list(itertools.product(range(3), repeat=len(tracked))))
        after = np.tile(np.arange(len(states))[:, None], len(self.labels))
        for number, label in enumerate(self.labels):
            role = label[2:] if label.startswith("B-") else ""
            if any(role in (other, f"C-{other}", f"R-{other}") for other in left_out):
                after[:, number] = -1
            for index, other in enumerate(tracked):
                old = states[:, index]
                new, allowed = old, np.ones(len(old), dtype=bool)
                if role == other:
                    new = np.full_like(old, PRESENT)
                    allowed = (old != PRESENT) | (not CORE.fullmatch(role))
                elif role == f"C-{other}":
                    allowed = old == PRESENT
                elif role == f"R-{other}":
                    new = np.maximum(old, OWED)
                step = (new - old) * 3 ** (len(tracked) - 1 - index)
                after[:, number] = np.where(allowed & (after[:, number] >= 0), after[:, number] + step, -1)
        return after, (states != OWED).all(axis=1)


def best_path_with_states(
    scores: np.ndarray, chain: Chain, after: np.ndarray, may_end: np.ndarray
) -> list[int]:
    """The Viterbi algorithm over pairs of a state and a label.

    scores are (words, labels); after and may_end are the two arrays of `ElmoRoles._states`.
    """
    start, transitions, end = chain
    states, labels = after.shape
    allowed = after >= 0
    target = np.where(allowed, after, 0) * labels + np.arange(labels)  # (states, labels): the next pair
    tables = [np.full((states, labels), -np.inf)]  # for each word, the best score of a path to each pair
    tables[0].flat[target[0, allowed[0]]] = (start + scores[0])[allowed[0]]
    for word_scores in scores[1:]:
        reached = (tables[-1][:, :, None] + transitions).max(axis=1) + word_scores
        table = np.full(states * labels, -np.inf)
        np.maximum.at(table, target[allowed], reached[allowed])
        tables.append(table.reshape(states, labels))
    final = np.where(may_end[:, None], tables[-1] + end, -np.inf)
    state, label = divmod(int(final.argmax()), labels)
    path = [label]
    for table in tables[-2::-1]:
        sources = np.where((after[:, label] == state)[:, None], table + transitions[:, label], -np.inf)
        state, label = divmod(int(sources.argmax()), labels)
        path.append(label)
    return path[::-1]


ElmoForTokenClassification.register_for_auto_class("AutoModelForTokenClassification")
ElmoForSemanticRoleLabeling.register_for_auto_class("AutoModelForTokenClassification")
