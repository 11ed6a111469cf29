"""Where in a text the answer to a question stands: its first and its last word.

    model = ElmoForQuestionAnswering.from_pretrained("org/elmo-squad")
    model.answer("Who paid?", "At last, Ada paid.", tokenizer)
    # {"answer": "Ada", "start": 9, "end": 12, "score": 0.9}

    pairs = tokenizer(questions, contexts, return_token_type_ids=True, padding=True, return_tensors="pt")
    output = model(**pairs, start_positions=..., end_positions=...)   # places in the row, (batch,)
    output.loss, output.start_logits, output.end_logits               # logits (batch, words)
    model.decode(**pairs)                                             # places of the best answers, (batch, 2)

A row is a question and a context. Each is read by the biLM for itself, the context as a whole:

    question, context -> biGRU -> bidirectional attention -> biGRU -> attention of the context to itself
    -> biGRU -> start, and another biGRU -> end

That is the network of Clark and Gardner (2018) as it was used for ELMo.
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

from .answers_elmo import (
    ElmoPart,
    as_answer,
    as_pairs,
    best_spans,
    check_places,
    check_separators,
    split_pair,
)
from .checks_elmo import check_shape, word_mask
from .configuration_elmo import ElmoConfig
from .crf_elmo import IGNORED
from .layers_elmo import ElmoBiRNN, ElmoVariationalDropout
from .task_elmo import ElmoTaskInput, ElmoTaskModel
from .tokenization_elmo import ElmoTokenizer
from .words_elmo import SENTENCE_BEGIN, SENTENCE_END

# ---- attention


class ElmoTrilinear(nn.Module):
    """How much a word has to do with another: `s_ij = a . x_i + b . y_j + c . (x_i * y_j)`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, size))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(batch, n, size), (batch, m, size) -> (batch, n, m)"""
        a, b, c = self.weight
        return (x @ a)[:, :, None] + (y @ b)[:, None] + (x * c) @ y.transpose(1, 2)


class ElmoBidirectionalAttention(nn.Module):
    """A word h of the context beside what it finds in the question, c, and what the question as a whole finds
    in the context, q (Seo et al. 2017): `[h; c; h * c; h * q]`."""

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
        shares = scores.amax(dim=-1).masked_fill(~mask, lowest).softmax(dim=-1)
        q = shares[:, None] @ h
        return torch.cat([h, c, h * c, h * q], dim=-1)


class ElmoSelfAttention(nn.Module):
    """A word h beside what it finds in the other words of its text, c: `[h; c; h * c]`. It never looks at
    itself, and how much it looks at nothing at all is learnt."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.similarity = ElmoTrilinear(size)
        self.nothing = nn.Parameter(torch.empty(1))
        self.output_size = 3 * size

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        """(batch, words, size), (batch, words) -> (batch, words, output_size)"""
        scores = self.similarity(h, h)
        itself = torch.eye(h.shape[1], dtype=torch.bool, device=h.device)
        scores = scores.masked_fill(itself | ~mask[:, None], torch.finfo(scores.dtype).min)
        nothing = self.nothing.expand(*scores.shape[:2], 1)
        shares = torch.cat([scores, nothing], dim=-1).softmax(dim=-1)[:, :, :-1]
        c = shares @ h
        return torch.cat([h, c, h * c], dim=-1)


# ---- the model


class ElmoForQuestionAnswering(ElmoTaskModel):
    """Where in a text the answer to a question stands: attention of Clark and Gardner (2018)::

        model.answer("Who paid?", "At last, Ada paid.", tokenizer)  # {"answer": "Ada", "start": 9, ...}

    The paper has elmo_at_output=True, mix_l2=0, task_hidden_size=90, task_num_layers=1, task_dropout=0.2,
    and answers of up to 17 words.

    task_hidden_size: cells of all biGRUs, per direction; the linear layers put out twice as much.
    task_num_layers: layers of the first biGRU, which reads question and context; the others have one.
    ELMo at the output is that of this first biGRU, which the attention then reads.
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
        # What is the same for all words does not change which one is best: no bias.
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
    ) -> QuestionAnsweringModelOutput:
        r"""
        Args:
            token_type_ids: (batch, words), 0 for the question and the `</S>` after it, 1 for the `<S>` and
                the context after it: `tokenizer(questions, contexts, return_token_type_ids=True)`.
            start_positions, end_positions: (batch,), places in the row of the answer's first and last word.

        The other arguments are those of `ElmoModel`. The logits are (batch, words); where no word of the
        context stands they are the lowest number there is. The loss is the mean of the two cross entropies,
        and the mixes' penalty.
        """
        question, context, texts = self._read_pair(
            input_ids, char_ids, attention_mask, token_type_ids, inputs_embeds, output_hidden_states
        )
        scores = self._scores(*texts)
        start, end = (context.put_back(one, elsewhere=torch.finfo(one.dtype).min) for one in scores)
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
        found = places.gather(1, spans[:, 0].clamp(min=0))
        return found.masked_fill(spans[:, 0] < 0, IGNORED)

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
        """Answers in a text.

        Args:
            question: one, or a list of them.
            context: the text for all questions, or a list with one for each. It is never cut.
            top_k: how many answers to a question, best first; there may be fewer in a short text.
            max_answer_length: in words; left out, that of the config.
            batch_size: questions at a time.

        Returns a dictionary: "answer", which is `context[start:end]` to the letter, "start", "end", and
        "score", the probability of its first word times that of its last. With top_k above 1 it is a list of
        them, and for a list of questions a list of all that. With a frozen biLM,
        `model.elmo_cache = ElmoLayerCache()` reads a context once for all its questions.
        """
        longest = self.config.max_answer_length if max_answer_length is None else max_answer_length
        for name, number in (("top_k", top_k), ("max_answer_length", longest), ("batch_size", batch_size)):
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} must be a whole number, at least 1, but is {number!r}.")
        pairs = as_pairs(question, context)
        was_training = self.training
        self.eval()
        answers: list[list[dict[str, Any]]] = []
        try:
            for first in range(0, len(pairs), batch_size):
                batch = pairs[first : first + batch_size]
                answers += self._answers(batch, first, tokenizer, top_k, longest)
        finally:
            self.train(was_training)
        found = [one[0] for one in answers] if top_k == 1 else answers
        return found[0] if isinstance(question, str) else found

    def _answers(
        self, pairs: list[tuple[str, str]], first: int, tokenizer: ElmoTokenizer, top_k: int, longest: int
    ) -> list[list[dict[str, Any]]]:
        """The answers to some questions; the first of them has the number `first`."""
        encoding = tokenizer(
            [question for question, _ in pairs],
            [context for _, context in pairs],
            padding=True,
            return_token_type_ids=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        ).to(self.device)
        offsets = encoding.pop("offset_mapping")
        question_part, context_part, texts = self._read_pair(**encoding)
        for name, part in (("question", question_part), ("context", context_part)):
            empty = (~part.mask.any(dim=1)).nonzero().flatten().tolist()
            if empty:
                raise ValueError(f"{name} {first + empty[0]} has no words.")
        start, end = (scores.log_softmax(dim=-1) for scores in self._scores(*texts))
        spans, scores = best_spans(start, end, context_part.mask, longest, top_k)
        offsets = context_part.take(offsets)
        return [
            [
                as_answer(context, int(row[i, 0]), int(row[j, 1]), math.exp(score))
                for (i, j), score in zip(of_row.tolist(), row_scores.tolist(), strict=True)
                if i != IGNORED
            ]
            for (_, context), row, of_row, row_scores in zip(pairs, offsets, spans, scores, strict=True)
        ]

    def _read_pair(
        self,
        input_ids: Tensor | None,
        char_ids: Tensor | None,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> tuple[ElmoPart, ElmoPart, list[ElmoTaskInput]]:
        """Where question and context stand in the rows, and both as the network reads them."""
        mask = word_mask(self.config, input_ids, char_ids, attention_mask, inputs_embeds)
        given = {"input_ids": input_ids, "char_ids": char_ids, "inputs_embeds": inputs_embeds}
        for name, x in given.items():
            if x is not None:
                check_shape(name, x.flatten(2)[:, :, 0] if x.dim() > 2 else x, mask)
        in_question, in_context = split_pair(mask, token_type_ids)
        separators = mask & ~in_question & ~in_context
        if char_ids is not None:
            check_separators(separators, char_ids[:, :, 1], [SENTENCE_END, SENTENCE_BEGIN])
        elif input_ids is not None:
            expected = [self.config.eos_token_id, self.config.bos_token_id]
            check_separators(separators, input_ids, expected)
        parts = ElmoPart.of(in_question), ElmoPart.of(in_context)
        texts = []
        for part in parts:
            own = {name: None if x is None else part.take(x) for name, x in given.items()}
            texts.append(
                self.read(**own, attention_mask=part.mask, output_hidden_states=output_hidden_states)
            )
        return *parts, texts

    def _scores(self, question: ElmoTaskInput, context: ElmoTaskInput) -> tuple[Tensor, Tensor]:
        """How well an answer starts and ends at each word of the context, twice (batch, words)."""
        of_question, h = (
            text.beside(self.dropout(self.rnn(text.x, text.mask))) for text in (question, context)
        )
        mask = context.mask
        attended = self.attention(h, of_question, mask, question.mask)
        h = F.relu(self.attention_linear(attended))
        around = self.dropout(self.self_rnn(h, mask))
        h = h + F.relu(self.self_linear(self.self_attention(around, mask)))
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
        for name, places in (("start_positions", first), ("end_positions", last)):
            check_places(name, places, in_context)
        if (last < first).any():
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


ElmoForQuestionAnswering.register_for_auto_class("AutoModelForQuestionAnswering")
