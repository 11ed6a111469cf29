"""Question answering: the first and the last word of the answer to a question in a text.

    model = ElmoForQuestionAnswering.from_pretrained("org/elmo-squad")
    model.answer("Who paid?", "At last, Ada paid.", tokenizer)
    # {"answer": "Ada", "start": 9, "end": 12, "score": 0.9}

    pairs = tokenizer(questions, contexts, return_token_type_ids=True, padding=True, return_tensors="pt")
    output = model(**pairs, start_positions=..., end_positions=...)   # places in the row, (batch,)
    output.loss, output.start_logits, output.end_logits               # logits (batch, words)
    model.decode(**pairs)                                             # places of the best answers, (batch, 2)

A row holds a question and a context. The biLM reads each as a sentence of its own, the context as a whole:

    question, context -> biGRU -> bidirectional attention -> biGRU -> attention of the context to itself
    -> biGRU -> start, and another biGRU -> end

This is the network of Clark and Gardner (2018) as it was used for ELMo.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_outputs import QuestionAnsweringModelOutput
from transformers.utils import can_return_tuple

from .checks_elmo import (
    IGNORED,
    check_integers,
    check_mask,
    check_no_attentions,
    check_predicting,
    check_range,
    check_shape,
    is_any,
)
from .configuration_elmo import ElmoConfig
from .layers_elmo import ElmoBiRNN, ElmoVariationalDropout
from .task_elmo import ElmoSegment, ElmoTaskInput, ElmoTaskModel, boundary_words, second_begins, split_pair
from .tokenization_elmo import ElmoTokenizer

MAKE_PAIRS = "make the rows with tokenizer(questions, contexts, return_token_type_ids=True)."

# ---- attention


class ElmoTrilinear(nn.Module):
    """The similarity of two words: `s_ij = a . x_i + b . y_j + c . (x_i * y_j)`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, size))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(batch, n, size), (batch, m, size) -> (batch, n, m)"""
        a, b, c = self.weight
        return (x @ a)[:, :, None] + (y @ b)[:, None] + (x * c) @ y.transpose(1, 2)


class ElmoBidirectionalAttention(nn.Module):
    """The attention of Seo et al. (2017): `[h; c; h * c; h * q]` for each word h of the context.

    c is what h attends to in the question, and q is what the question attends to in the context:
    `c_i = sum_j softmax_j(s_ij) question_j`, `q = sum_i softmax_i(max_j s_ij) h_i`.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.similarity = ElmoTrilinear(size)
        self.output_size = 4 * size

    def forward(self, h: Tensor, question: Tensor, mask: Tensor, question_mask: Tensor) -> Tensor:
        """(batch, words, size), (batch, question's words, size), and where there are words
        -> (batch, words, output_size)"""
        scores = self.similarity(h, question)
        lowest = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~question_mask[:, None], lowest)
        c = scores.softmax(dim=-1) @ question
        weights = scores.amax(dim=-1).masked_fill(~mask, lowest).softmax(dim=-1)
        q = weights[:, None] @ h
        return torch.cat([h, c, h * c, h * q], dim=-1)


class ElmoSelfAttention(nn.Module):
    """A word h beside what it attends to in the other words of its text, c: `[h; c; h * c]`.

    A word does not attend to itself. It may attend to nothing, with the learned score `nothing`.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.similarity = ElmoTrilinear(size)
        self.nothing = nn.Parameter(torch.empty(1))
        self.output_size = 3 * size

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        """(batch, words, size), (batch, words) -> (batch, words, output_size)"""
        scores = self.similarity(h, h)
        is_itself = torch.eye(h.shape[1], dtype=torch.bool, device=h.device)
        scores = scores.masked_fill(is_itself | ~mask[:, None], torch.finfo(scores.dtype).min)
        nothing = self.nothing.expand(*scores.shape[:2], 1)
        weights = torch.cat([scores, nothing], dim=-1).softmax(dim=-1)[:, :, :-1]
        c = weights @ h
        return torch.cat([h, c, h * c], dim=-1)


# ---- the model


class ElmoForQuestionAnswering(ElmoTaskModel):
    """Extractive question answering with the attention of Clark and Gardner (2018).

    >>> model = ElmoForQuestionAnswering.from_pretrained(TINY).eval()
    >>> model.answer("Who paid?", "At last, Ada paid.", tokenizer)
    {'answer': ..., 'start': ..., 'end': ..., 'score': ...}
    >>> model.decode(**tokenizer("Who paid?", "At last, Ada paid.", return_tensors="pt")).shape
    torch.Size([1, 2])

    The paper has elmo_at_output=True, mix_l2=0, task_hidden_size=90, task_num_layers=1, task_dropout=0.2,
    and answers of up to 17 words.

    All biGRUs have task_hidden_size cells per direction, and the linear layers put out twice as much.
    task_num_layers are the layers of the first biGRU, which reads question and context; the others have one.
    ELMo at the output is joined to the output of this first biGRU, which the attention then reads.
    """

    def __init__(self, config: ElmoConfig) -> None:
        super().__init__(config)
        cells, dropout = config.task_hidden_size, config.task_dropout
        size = 2 * cells
        self.rnn = ElmoBiRNN(self.input_size, cells, config.task_num_layers, dropout, cell="gru")
        self.attention = ElmoBidirectionalAttention(size + self.elmo_output_size)
        self.attention_linear = nn.Linear(self.attention.output_size, size)
        self.self_rnn = ElmoBiRNN(size, cells, dropout=dropout, cell="gru")
        self.self_attention = ElmoSelfAttention(size)
        self.self_linear = nn.Linear(self.self_attention.output_size, size)
        self.dropout = ElmoVariationalDropout(dropout)
        self.start_rnn = ElmoBiRNN(size, cells, cell="gru")
        self.end_rnn = ElmoBiRNN(2 * size, cells, cell="gru")
        # A bias would be the same for all words, and change no probability.
        self.start_classifier = nn.Linear(size, 1, bias=False)
        self.end_classifier = nn.Linear(size, 1, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        char_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> QuestionAnsweringModelOutput:
        """Score each word of the contexts as the first and as the last word of the answer.

        Args:
            token_type_ids: (batch, words), 0 for the question and the `</S>` after it, 1 for the `<S>` and
                the context after it: `tokenizer(questions, contexts, return_token_type_ids=True)`. They are
                needed only with `inputs_embeds`, and for a text with `</S> <S>` in it.
            start_positions, end_positions: (batch,), places in the row of the answer's first and last word.

        The other arguments are those of `ElmoModel`.

        Returns:
            A `QuestionAnsweringModelOutput`: start_logits and end_logits are (batch, words), and the lowest
            number of their type outside of the context; the loss is the mean of both cross entropies, plus
            the penalty of the mixes.
        """
        check_no_attentions(output_attentions)
        question, context, texts = self._read_pair(
            input_ids, char_ids, attention_mask, token_type_ids, inputs_embeds, output_hidden_states
        )
        scores = self._scores(*texts)
        start, end = (context.put_back(x, elsewhere=torch.finfo(x.dtype).min) for x in scores)
        loss = None
        if start_positions is not None or end_positions is not None:
            loss = self._loss(start, end, start_positions, end_positions, context.in_row)
        hidden_states = None
        if texts[0].hidden_states is not None and texts[1].hidden_states is not None:
            layers = zip(texts[0].hidden_states, texts[1].hidden_states, strict=True)
            hidden_states = tuple(question.put_back(q) + context.put_back(c) for q, c in layers)
        return QuestionAnsweringModelOutput(
            loss=loss, start_logits=start, end_logits=end, hidden_states=hidden_states
        )

    @torch.no_grad()
    def decode(
        self,
        input_ids: Tensor | None = None,
        char_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """The best answer of up to `config.max_answer_length` words: the places in the row of its first and
        last word, (batch, 2); -100 where the context has no words."""
        _, context, texts = self._read_pair(
            input_ids, char_ids, attention_mask, token_type_ids, inputs_embeds
        )
        spans, _ = best_spans(*self._scores(*texts), context.mask, self.config.max_answer_length)
        batch, words = context.in_row.shape
        places = context.take(torch.arange(words, device=spans.device).expand(batch, words))
        answers = places.gather(1, spans[:, 0].clamp(min=0))
        return answers.masked_fill(spans[:, 0] < 0, IGNORED)

    @torch.no_grad()
    def answer(
        self,
        question: str | Sequence[str],
        context: str | Sequence[str],
        tokenizer: ElmoTokenizer,
        top_k: int = 1,
        max_answer_length: int | None = None,
        batch_size: int = 32,
    ) -> Any:
        """Answer questions about texts. With a frozen biLM, `model.elmo_cache = ElmoLayerCache()` makes it
        read a context once for all its questions.

        Args:
            question: one question, or a list of them.
            context: the text for all questions, or a list with one text for each. It is never cut.
            tokenizer: the `ElmoTokenizer` that was saved with the model.
            top_k: number of answers to a question, best first; a short text may have fewer.
            max_answer_length: in words; by default, that of the config.
            batch_size: questions at a time.

        Returns:
            A dictionary with "answer", which is exactly `context[start:end]`, "start", "end", and "score",
            the probability of its first word times that of its last. With top_k above 1 a list of these
            dictionaries, and for a list of questions a list with one result for each.
        """
        longest = self.config.max_answer_length if max_answer_length is None else max_answer_length
        check_predicting(tokenizer, top_k=top_k, max_answer_length=longest, batch_size=batch_size)
        pairs = as_pairs(question, context)
        answers: list[list[dict[str, Any]]] = []
        with self.in_eval_mode():
            for first in range(0, len(pairs), batch_size):
                batch = pairs[first : first + batch_size]
                answers += self._answers(batch, first, tokenizer, top_k, longest)
        results = [best[0] for best in answers] if top_k == 1 else answers
        return results[0] if isinstance(question, str) else results

    def _answers(
        self, pairs: list[tuple[str, str]], first: int, tokenizer: ElmoTokenizer, top_k: int, longest: int
    ) -> list[list[dict[str, Any]]]:
        """The answers to a batch of questions, which are numbered from `first`."""
        encoding = tokenizer(
            [question for question, _ in pairs],
            [context for _, context in pairs],
            padding=True,
            split_special_tokens=True,  # as the recipe does: `<S>` of a text is no boundary
            return_token_type_ids=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        ).to(self.device)
        offsets = encoding.pop("offset_mapping")
        question_segment, context_segment, texts = self._read_pair(**encoding)
        for name, segment in (("question", question_segment), ("context", context_segment)):
            empty = (~segment.mask.any(dim=1)).nonzero().flatten().tolist()
            if empty:
                raise ValueError(f"{name} {first + empty[0]} has no words.")
        start, end = (scores.log_softmax(dim=-1) for scores in self._scores(*texts))
        spans, scores = best_spans(start, end, context_segment.mask, longest, top_k)
        offsets = context_segment.take(offsets)
        return [
            [
                as_answer(context, int(places[i, 0]), int(places[j, 1]), math.exp(score))
                for (i, j), score in zip(row_spans.tolist(), row_scores.tolist(), strict=True)
                if i != IGNORED
            ]
            for (_, context), places, row_spans, row_scores in zip(pairs, offsets, spans, scores, strict=True)
        ]

    def _read_pair(
        self,
        input_ids: Tensor | None,
        char_ids: Tensor | None,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> tuple[ElmoSegment, ElmoSegment, list[ElmoTaskInput]]:
        """Check rows and read them: where question and context are, and both as the network reads them."""
        mask = self.check_words(input_ids, char_ids, attention_mask, inputs_embeds)
        inputs = {"input_ids": input_ids, "char_ids": char_ids, "inputs_embeds": inputs_embeds}
        for name, x in inputs.items():
            if x is not None:
                check_shape(name, x.flatten(2)[:, :, 0] if x.dim() > 2 else x, mask)
        boundaries = boundary_words(self.config, mask, input_ids, char_ids)
        if token_type_ids is None:
            token_type_ids = types_of_pairs(boundaries)
        check_mask("token_type_ids", token_type_ids, mask)
        in_question, end, begin, in_context = split_pair(mask, token_type_ids)
        if boundaries is not None:
            check_pairs(end & boundaries[0], begin & boundaries[1])
        segments = ElmoSegment(in_question), ElmoSegment(in_context)
        texts = []
        for segment in segments:
            own = {name: None if x is None else segment.take(x) for name, x in inputs.items()}
            texts.append(
                self.read_checked(**own, mask=segment.mask, output_hidden_states=output_hidden_states)
            )
        return *segments, texts

    def _scores(self, question: ElmoTaskInput, context: ElmoTaskInput) -> tuple[Tensor, Tensor]:
        """The scores of each word of the context as the answer's start and as its end, each (batch,
        words)."""
        encoded_question, h = (
            text.beside(self.dropout(self.rnn(text.x, text.mask))) for text in (question, context)
        )
        mask = context.mask
        attended = self.attention(h, encoded_question, mask, question.mask)
        h = F.relu(self.attention_linear(attended))
        reread = self.dropout(self.self_rnn(h, mask))
        h = h + F.relu(self.self_linear(self.self_attention(reread, mask)))
        h = self.dropout(h)
        at_start = self.start_rnn(h, mask)
        at_end = self.end_rnn(torch.cat([h, at_start], dim=-1), mask)
        start, end = self.start_classifier(at_start).squeeze(-1), self.end_classifier(at_end).squeeze(-1)
        lowest = torch.finfo(h.dtype).min
        return start.masked_fill(~mask, lowest), end.masked_fill(~mask, lowest)

    def _loss(
        self, start: Tensor, end: Tensor, first: Tensor | None, last: Tensor | None, in_context: Tensor
    ) -> Tensor:
        """start, end and in_context (batch, words), first and last (batch,)"""
        if first is None or last is None:
            raise ValueError("an answer is start_positions and end_positions; pass both, or neither.")
        check_places("start_positions", first, in_context)
        check_places("end_positions", last, in_context)
        if is_any(last < first, "an answer must not end before it starts."):
            row = int((last < first).int().argmax())
            raise ValueError(
                f"row {row}: the answer ends at {int(last[row])}, before it starts at {int(first[row])}."
            )
        loss = (F.cross_entropy(start, first.long()) + F.cross_entropy(end, last.long())) / 2
        return self.with_penalty(loss)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ElmoTrilinear):
            init.normal_(module.weight, std=module.weight.shape[1] ** -0.5)
        elif isinstance(module, ElmoSelfAttention):
            init.constant_(module.nothing, -1.0)


# ---- checks of pairs and answers


def types_of_pairs(boundaries: tuple[Tensor, Tensor] | None) -> Tensor:
    """The `token_type_ids` of rows that have none, which must have `</S> <S>` once."""
    if boundaries is None:
        raise ValueError(
            f"inputs_embeds need token_type_ids, which tell question and context apart; {MAKE_PAIRS}"
        )
    begins = second_begins(boundaries)
    counts = begins.sum(dim=1)
    if is_any(counts != 1, f"question and context are told apart by token_type_ids; {MAKE_PAIRS}"):
        row = int((counts != 1).int().argmax())
        raise ValueError(
            f"row {row} has '</S> <S>' in {int(counts[row])} places, so token_type_ids must tell question "
            f"and context apart; {MAKE_PAIRS}"
        )
    return begins.long().cumsum(dim=1)


def check_pairs(end: Tensor, begin: Tensor) -> None:
    """Each row has one `</S>` at the end of its question, and behind it one `<S>`; both (batch, words)."""
    has_both = end.any(dim=1) & begin.any(dim=1) & (end.int().argmax(dim=1) < begin.int().argmax(dim=1))
    if is_any(~has_both, f"each row must be a question and a context; {MAKE_PAIRS}"):
        raise ValueError(
            f"row {int((~has_both).int().argmax())} is no question and context with '</S> <S>' between them; "
            f"{MAKE_PAIRS}"
        )


def check_places(name: str, places: Tensor, in_context: Tensor) -> None:
    """places (batch,) are words of the context, (batch, words)."""
    batch, words = in_context.shape
    check_integers(name, places, in_context.device)
    if places.shape != (batch,):
        raise ValueError(f"{name} must have the shape ({batch},), but has {tuple(places.shape)}.")
    check_range(name, places, words - 1)
    wrong = ~in_context.gather(1, places[:, None].long()).squeeze(1)
    if is_any(wrong, f"{name} must be words of the context."):
        row = int(wrong.int().argmax())
        raise ValueError(f"{name} of row {row} is {int(places[row])}, where no word of the context stands.")


def as_pairs(question: str | Sequence[str], context: str | Sequence[str]) -> list[tuple[str, str]]:
    """Each question with its context."""
    for name, value in (("question", question), ("context", context)):
        if not isinstance(value, Sequence):
            raise ValueError(f"{name} must be a string or a list of strings, but is {value!r:.60}.")
    questions = [question] if isinstance(question, str) else list(question)
    contexts = [context] * len(questions) if isinstance(context, str) else list(context)
    if isinstance(question, str) and not isinstance(context, str):
        raise ValueError("one question has one context, but context is a list.")
    if len(contexts) != len(questions):
        raise ValueError(
            f"there are {len(questions)} questions, so there must be one context or as many, "
            f"but there are {len(contexts)}."
        )
    for name, texts in (("question", questions), ("context", contexts)):
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"{name} {number} must be a string, but is {text!r:.60}.")
    return list(zip(questions, contexts, strict=True))


def as_answer(context: str, start: int, end: int, score: float) -> dict[str, Any]:
    return {"answer": context[start:end], "start": start, "end": end, "score": score}


def best_spans(
    start: Tensor, end: Tensor, mask: Tensor, max_length: int, number: int = 1
) -> tuple[Tensor, Tensor]:
    """The best answers, by the sum of the first word's start score and the last word's end score.

    Of equal answers the shortest comes first, then the leftmost.

    Args:
        start, end: (batch, words).
        mask: (batch, words), True for a word; padding is behind the words.
        max_length: words of the longest answer.
        number: answers to a row.

    Returns:
        The first and last words, (batch, number, 2), and the scores, (batch, number), best first. A row with
        fewer spans has -100 and minus infinity for the others; number is smaller if no row has that many.
    """
    words = start.shape[1]
    sums = start.new_full((len(start), min(max_length, words), words), -torch.inf)
    for width in range(sums.shape[1]):  # of a span, less one
        sums_of_width = start[:, : words - width] + end[:, width:]
        sums[:, width, : words - width] = sums_of_width.masked_fill(~mask[:, width:], -torch.inf)
    scores, order = sums.flatten(1).sort(dim=1, descending=True, stable=True)
    scores, order = scores[:, :number], order[:, :number]
    first = order % words
    spans = torch.stack([first, first + order // words], dim=-1)
    return spans.masked_fill(scores.isinf()[:, :, None], IGNORED), scores


ElmoForQuestionAnswering.register_for_auto_class("AutoModelForQuestionAnswering")
