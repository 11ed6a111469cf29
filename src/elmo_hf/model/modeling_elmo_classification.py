"""Classification of a text, or of a pair of sentences.

    model = ElmoForSequenceClassification.from_pretrained("org/elmo", num_labels=5)              # a text
    model(**tokenizer("A gorgeous film .", return_tensors="pt"), labels=torch.tensor([4])).loss

    model = ElmoForSequenceClassification.from_pretrained("org/elmo", classifier="esim", num_labels=3)
    model(**tokenizer("A dog runs .", "An animal moves .", return_tensors="pt")).logits          # a pair
    model.predict("A dog runs .", tokenizer, "An animal moves .")  # {"label": "entailment", "score": 0.9}

`"bcn"` is the biattentive classification network of McCann et al. (2017), which the ELMo paper uses for
sentiment; `"esim"` is the model of Chen et al. (2017), which the paper uses for textual entailment.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import can_return_tuple

from .checks_elmo import (
    check_integers,
    check_no_attentions,
    check_predicting,
    check_range,
    check_shape,
    check_tensor,
    is_any,
)
from .configuration_elmo import ElmoConfig
from .layers_elmo import ElmoBiRNN, ElmoVariationalDropout
from .predicting_elmo import ElmoTexts
from .task_elmo import ElmoSegment, ElmoTaskInput, ElmoTaskModel, boundary_words, second_begins, split_pair
from .tokenization_elmo import ElmoTokenizer

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")

# ---- attention and pooling over the words of a row


def attend(queries: Tensor, words: Tensor, mask: Tensor) -> Tensor:
    """Dot-product attention, `softmax(q . w_j) w_j` summed over the words j.

    (batch, queries, dim), (batch, words, dim), (batch, words) -> (batch, queries, dim)
    """
    return softmax_over(queries @ words.transpose(1, 2), mask[:, None]) @ words


def softmax_over(scores: Tensor, mask: Tensor) -> Tensor:
    """The softmax over the last dimension where the mask is True; zero elsewhere."""
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~mask, lowest).softmax(dim=-1).masked_fill(~mask, 0)


def mean_over(x: Tensor, mask: Tensor) -> Tensor:
    """(batch, words, dim), (batch, words) -> (batch, dim); zero for a row without words"""
    return x.masked_fill(~mask[:, :, None], 0).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def max_over(x: Tensor, mask: Tensor) -> Tensor:
    """(batch, words, dim), (batch, words) -> (batch, dim); zero for a row without words"""
    if x.shape[1] == 0:
        return x.new_zeros(len(x), x.shape[2])
    maximum = x.masked_fill(~mask[:, :, None], float("-inf")).amax(dim=1)
    return maximum.masked_fill(~mask.any(dim=1, keepdim=True), 0)


# ---- the network for one text


class ElmoMaximum(nn.Dropout):
    """The maximum of a maxout layer, `y_i = max_k (W_k x + b_k)_i` over `pieces` linear maps k, and dropout.

    The maps are a linear layer before it.
    """

    def __init__(self, pieces: int, dropout: float) -> None:
        super().__init__(dropout)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """(..., output_size * pieces) -> (..., output_size)"""
        return super().forward(x.unflatten(-1, (-1, self.pieces)).amax(dim=-1))


class ElmoBCN(nn.Module):
    """The biattentive classification network, for a single text that attends to itself.

        X = biLSTM(relu(W w + b));  C = softmax(X X^T) X;  Y = biLSTM([X; X - C; X * C])

    The output layers read the maximum, minimum and mean of Y over the words, and its sum weighted by a
    learned attention. Each output layer is half as wide as the one before.
    """

    def __init__(self, config: ElmoConfig, input_size: int, elmo_size: int, num_labels: int) -> None:
        super().__init__()
        size, layers, dropout = config.task_hidden_size, config.task_num_layers, config.task_dropout
        self.dropout = ElmoVariationalDropout(dropout)
        self.projection = nn.Linear(input_size, size)
        self.encoder = ElmoBiRNN(size, size, layers, dropout)
        self.integrator = ElmoBiRNN(3 * self.encoder.output_size, size, layers, dropout)
        pooled = self.integrator.output_size + elmo_size
        self.pooling = nn.Linear(pooled, 1, bias=False)  # a softmax does not depend on a bias
        self.output = self._output_layers(config, [4 * pooled, 2 * pooled, pooled, num_labels])

    def _output_layers(self, config: ElmoConfig, sizes: list[int]) -> nn.Sequential:
        pieces, dropout = config.maxout_pieces, config.task_dropout
        layers: list[nn.Module] = [nn.Dropout(dropout)]
        for number, (before, after) in enumerate(pairwise(sizes), start=2):
            is_last = number == len(sizes)
            layers.append(nn.Linear(before, after * (pieces or 1)))
            if pieces:
                layers.append(ElmoMaximum(pieces, 0.0 if is_last else dropout))
            elif not is_last:
                layers += [nn.ReLU(), nn.Dropout(dropout)]
        return nn.Sequential(*layers)

    def forward(self, words: ElmoTaskInput) -> Tensor:
        """(batch, words, input_size) -> (batch, labels)"""
        x = F.relu(self.projection(self.dropout(words.x)))
        h = self.encoder(x, words.mask)
        context = attend(h, h, words.mask)
        h = self.integrator(torch.cat([h, h - context, h * context], dim=-1), words.mask)
        return self.output(self.pool(words.beside(h), words.mask))

    def pool(self, h: Tensor, mask: Tensor) -> Tensor:
        """(batch, words, dim), (batch, words) -> (batch, 4 * dim)"""
        weights = softmax_over(self.pooling(h).transpose(1, 2), mask[:, None])  # (batch, 1, words)
        attended = (weights @ h)[:, 0]
        return torch.cat([max_over(h, mask), -max_over(-h, mask), mean_over(h, mask), attended], dim=-1)


# ---- the network for two sentences


class ElmoESIM(nn.Module):
    """The enhanced sequential inference model, for the two sentences a and b of each pair.

    One biLSTM reads a and b; with ELMo at the output, its vectors are joined to that. y is what a word x
    attends to in the other sentence, and [x; y; x - y; x * y] goes through a ReLU layer and a second biLSTM.
    A hidden ReLU layer and a linear layer classify the means and maxima of both sentences.
    """

    def __init__(self, config: ElmoConfig, input_size: int, elmo_size: int, num_labels: int) -> None:
        super().__init__()
        size, layers, dropout = config.task_hidden_size, config.task_num_layers, config.task_dropout
        self.encoder = ElmoBiRNN(input_size, size, layers, dropout)
        self.word_dropout = ElmoVariationalDropout(dropout)
        self.projection = nn.Linear(4 * (self.encoder.output_size + elmo_size), size)
        self.composition = ElmoBiRNN(size, size, layers, dropout)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(4 * self.composition.output_size, size)
        self.output = nn.Linear(size, num_labels)

    def forward(self, words: ElmoTaskInput) -> Tensor:
        """(2 * batch, words, input_size), all first sentences and then all second ones -> (batch, labels)"""
        mask = words.mask
        h = words.beside(self.encoder(words.x, mask))
        enhanced = self.word_dropout(self.enhance(h, mask))
        v = self.composition(F.relu(self.projection(enhanced)), mask)
        pooled = torch.cat([mean_over(v, mask), max_over(v, mask)], dim=-1)
        pair = self.dropout(torch.cat(pooled.chunk(2), dim=-1))
        return self.output(self.dropout(F.relu(self.hidden(pair))))

    def enhance(self, h: Tensor, mask: Tensor) -> Tensor:
        """(2 * batch, words, dim), (2 * batch, words) -> (2 * batch, words, 4 * dim)"""
        (a, b), (a_mask, b_mask) = h.chunk(2), mask.chunk(2)
        aligned = torch.cat([attend(a, b, b_mask), attend(b, a, a_mask)])
        return torch.cat([h, aligned, h - aligned, h * aligned], dim=-1)


def sentences_of_pairs(
    config: ElmoConfig, mask: Tensor, input_ids: Tensor | None, char_ids: Tensor | None, types: Tensor | None
) -> Tensor:
    """The words of each row's first sentence, and then of each row's second: (2 * batch, words).

    mask (batch, words) is True for words, `</S>` and `<S>`. types are `token_type_ids`: 0 up to `</S>` and 1
    from `<S>` on. Without them, the second sentence begins after the only `</S> <S>` of the row.
    """
    boundaries = boundary_words(config, mask, input_ids, char_ids)
    if types is None:
        types = _types_from_boundaries(boundaries)
    check_shape("token_type_ids", types, mask)
    check_tensor("token_type_ids", types, "0 and 1")
    check_range("token_type_ids", types.int().masked_fill(~mask, 0), 1)
    first, end, begin, second = split_pair(mask, types)
    ends, begins = (end, begin) if boundaries is None else (end & boundaries[0], begin & boundaries[1])
    is_pair = ends.any(dim=1) & begins.any(dim=1)
    message = (
        "token_type_ids must be 0 up to `</S>` and 1 from the next word `<S>` on; "
        "tokenizer(first, second, return_token_type_ids=True) makes them."
    )
    if is_any(~is_pair, message):
        raise ValueError(f"row {int((~is_pair).nonzero()[0])}: {message}")
    return torch.cat([first, second])


def _types_from_boundaries(boundaries: tuple[Tensor, Tensor] | None) -> Tensor:
    if boundaries is None:
        raise ValueError(
            "inputs_embeds do not tell where the second sentence of a pair begins; pass token_type_ids, too."
        )
    begins_second = second_begins(boundaries)
    counts = begins_second.sum(dim=1)
    if is_any(counts != 1, "classifier 'esim' compares two sentences; call tokenizer(first, second)."):
        row = int((counts != 1).nonzero()[0])
        raise ValueError(
            f"row {row} is no pair, and classifier 'esim' compares two sentences; "
            "call tokenizer(first, second)."
            if counts[row] == 0
            else f"row {row} has `</S> <S>` in {int(counts[row])} places; pass token_type_ids, which tell "
            "where the second sentence begins (tokenizer(first, second, return_token_type_ids=True))."
        )
    return begins_second.long().cumsum(dim=1)


# ---- the model


class ElmoForSequenceClassification(ElmoTaskModel):
    """Classification of a text with `classifier="bcn"`, or of a pair of sentences with `"esim"`.

    >>> model = ElmoForSequenceClassification.from_pretrained(TINY, classifier="bcn", num_labels=5).eval()
    >>> loss = model(**batch, labels=torch.tensor([4, 0])).loss
    >>> model.decode(**batch).shape
    torch.Size([2])
    >>> model.predict("A gorgeous film .", tokenizer)
    {'label': 'LABEL_...', 'score': ...}

    As elsewhere in Transformers, `config.problem_type` says what the labels are: one of several labels a row
    (cross entropy), several at once (`"multi_label_classification"`: binary cross entropy), or numbers
    (`"regression"`: squared error). By default it is regression with num_labels=1; otherwise the first labels
    decide, whole numbers for one label a row, and decimal numbers for several.

    `"bcn"` is the biattentive classification network of McCann et al. (2017), which the paper uses for
    sentiment; `"esim"` is the model of Chen et al. (2017), which it uses for textual entailment. The RNNs of
    both have task_num_layers layers of task_hidden_size cells, which is also the size of the dense layers;
    there is dropout on the input of each layer.

    The paper, for SST-5 (`"bcn"`): task_hidden_size=300, task_num_layers=1, maxout_pieces=0, ELMo at the
    input and the output. For SNLI (`"esim"`): task_hidden_size=300, task_num_layers=1, task_dropout=0.5,
    mix_layer_norm=True, ELMo at the input and the output of the lower biLSTM.
    """

    def __init__(self, config: ElmoConfig) -> None:
        super().__init__(config)
        self.num_labels = len(config.id2label or ())
        if self.num_labels == 1 and config.problem_type is None:
            config.problem_type = "regression"
        if config.problem_type not in (None, *PROBLEM_TYPES):
            raise ValueError(
                f"problem_type must be one of {', '.join(PROBLEM_TYPES)}, but is {config.problem_type!r:.60}."
            )
        network = {"bcn": ElmoBCN, "esim": ElmoESIM}[config.classifier]
        self.classifier = network(config, self.input_size, self.elmo_output_size, self.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        char_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> SequenceClassifierOutput:
        """Score labels.

        Args:
            token_type_ids: (batch, words), for `"esim"`: 0 up to the pair's `</S>` and 1 from its `<S>` on.
                They are needed only with `inputs_embeds`, and for a sentence with `</S> <S>` in it. `"bcn"`
                reads a row as one text and takes none.
            labels: (batch,), from 0 to num_labels - 1; for several labels at once (batch, num_labels), from 0
                to 1; for a regression (batch,) or (batch, num_labels), any numbers.

        The other arguments are those of `ElmoModel`.

        Returns:
            A `SequenceClassifierOutput`: logits (batch, num_labels); the loss is that of
            `config.problem_type`, plus the penalty of the mixes.
        """
        check_no_attentions(output_attentions)
        mask = self.check_words(input_ids, char_ids, attention_mask, inputs_embeds)
        inputs = {"input_ids": input_ids, "char_ids": char_ids, "inputs_embeds": inputs_embeds}
        if self.config.classifier == "esim":
            words = self._read_pairs(inputs, mask, token_type_ids, output_hidden_states)
        elif token_type_ids is None:
            words = self.read_checked(**inputs, mask=mask, output_hidden_states=output_hidden_states)
        else:
            raise ValueError(
                "classifier 'bcn' reads a row as one text and knows no token_type_ids; leave them out, or "
                "set classifier='esim' to compare the sentences of pairs."
            )
        logits = self.classifier(words)
        loss = self._loss(logits, labels) if labels is not None else None
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=words.hidden_states)

    @torch.no_grad()
    def decode(self, **inputs: Tensor) -> Tensor:
        """The likeliest label of each row, (batch,); 1 for each label that is likely and 0 for others,
        (batch, num_labels), where a row may have several; or the numbers of a regression, (batch,) or
        (batch, num_labels). `inputs` are those of `forward`, without labels."""
        logits = self(**inputs).logits
        if self.config.problem_type == "multi_label_classification":
            return (logits > 0).long()
        if self.config.problem_type == "regression":
            return logits.squeeze(1) if self.num_labels == 1 else logits
        return logits.argmax(dim=-1)

    def predict(
        self,
        text: Any,
        tokenizer: ElmoTokenizer,
        text_pair: Any = None,
        top_k: int | None = None,
        batch_size: int = 32,
        is_split_into_words: bool = False,
    ) -> Any:
        """Classify texts, or pairs of them.

        Args:
            text: a text, a list of texts, or a list of sentences, each a list of words.
            tokenizer: the `ElmoTokenizer` that was saved with the model.
            text_pair: for `"esim"`, the second text of each pair, in the same form.
            top_k: return so many labels for each text, best first, whatever their scores.
            batch_size: texts at a time.
            is_split_into_words: `text` is a list of words, one sentence.

        Returns:
            `{"label": ..., "score": ...}` for a text: the likeliest label and its probability, or the number
            of a regression. It is a list of these with `top_k`, where a text may have several labels (those
            of a probability of at least 0.5, best first), and for a regression of several numbers. For a list
            of texts or sentences a list with one result for each.
        """
        check_predicting(tokenizer, batch_size=batch_size, **({} if top_k is None else {"top_k": top_k}))
        if top_k is not None and self.config.problem_type == "regression":
            raise ValueError(
                "a regression gives each text all its numbers, and knows no best; leave top_k out."
            )
        texts, pairs = self._texts(text, text_pair, is_split_into_words)
        results: list[Any] = []
        names = ["input_ids", "char_ids", "attention_mask", *["token_type_ids"] * (pairs is not None)]
        with self.in_eval_mode():
            for _, encoding in texts.batches(
                tokenizer,
                batch_size,
                pairs,
                return_token_type_ids=pairs is not None,
                split_special_tokens=True,  # as the recipes do: `<S>` of a text is no boundary
            ):
                logits = self(
                    **{name: encoding[name].to(self.device) for name in names}, return_dict=True
                ).logits
                results += [self._answer(row, top_k) for row in self._scores(logits).tolist()]
        return results[0] if texts.is_single else results

    def _texts(self, text: Any, text_pair: Any, is_split: bool) -> tuple[ElmoTexts, ElmoTexts | None]:
        reads_pairs = self.config.classifier == "esim"
        if reads_pairs != (text_pair is not None):
            raise ValueError(
                "classifier 'esim' compares two sentences, so predict needs text_pair."
                if reads_pairs
                else "classifier 'bcn' reads one text; leave text_pair out, or train with classifier='esim'."
            )
        texts = ElmoTexts.of(text, is_split)
        if not reads_pairs:
            return texts, None
        pairs = ElmoTexts.of(text_pair, is_split, "text_pair")
        forms = [(len(each.rows), each.is_single, each.are_words) for each in (texts, pairs)]
        if forms[0] != forms[1]:
            raise ValueError(
                "text and text_pair must be of the same form: two texts, or lists of as many texts, or of as "
                "many lists of words."
            )
        return texts, pairs

    def _scores(self, logits: Tensor) -> Tensor:
        """Probabilities, or the numbers of a regression, (batch, num_labels)."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.config.problem_type == "regression":
            return logits
        several = self.config.problem_type == "multi_label_classification"
        return logits.sigmoid() if several else logits.softmax(dim=-1)

    def _answer(self, scores: Sequence[float], top_k: int | None) -> Any:
        """What `predict` returns for one text."""
        names: Any = self.config.id2label
        answers = [{"label": names[number], "score": score} for number, score in enumerate(scores)]
        if self.config.problem_type == "regression":
            return answers[0] if len(answers) == 1 else answers
        answers.sort(key=lambda answer: answer["score"], reverse=True)
        if top_k is not None:
            return answers[:top_k]
        if self.config.problem_type == "multi_label_classification":
            return [answer for answer in answers if answer["score"] >= 0.5]
        return answers[0]

    def _read_pairs(
        self,
        inputs: dict[str, Tensor | None],
        mask: Tensor,
        token_type_ids: Tensor | None,
        output_hidden_states: bool | None,
    ) -> ElmoTaskInput:
        """All first sentences and then all second ones; the biLM's layers as the words are in the row."""
        in_row = sentences_of_pairs(
            self.config, mask, inputs["input_ids"], inputs["char_ids"], token_type_ids
        )
        sentences = ElmoSegment(in_row)
        own = {name: None if x is None else sentences.gather(torch.cat([x, x])) for name, x in inputs.items()}
        words = self.read_checked(**own, mask=sentences.mask, output_hidden_states=output_hidden_states)
        if words.hidden_states is not None:
            halves = (sentences.put_back(layer).chunk(2) for layer in words.hidden_states)
            words.hidden_states = tuple(first + second for first, second in halves)
        return words

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        check_tensor("labels", labels, "numbers of any type", logits.device)
        if self.config.problem_type is None:  # as elsewhere in Transformers
            kinds: Any = PROBLEM_TYPES
            self.config.problem_type = kinds[labels.is_floating_point()]
        losses = (self._single_label_loss, self._multi_label_loss, self._regression_loss)
        loss = dict(zip(PROBLEM_TYPES, losses, strict=True))[str(self.config.problem_type)](logits, labels)
        return self.with_penalty(loss if len(logits) else logits.sum())

    def _single_label_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        check_integers("labels", labels)
        if labels.shape != logits.shape[:1]:
            advice = (
                "; for several labels at once set problem_type='multi_label_classification'"
                if labels.shape == logits.shape
                else ""
            )
            raise ValueError(
                f"labels must be {len(logits)} numbers, one a row, but have the shape {tuple(labels.shape)}"
                f"{advice}."
            )
        check_range("labels", labels, self.num_labels - 1)
        return F.cross_entropy(logits, labels.long())

    def _multi_label_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if labels.shape != logits.shape:
            raise ValueError(
                f"labels must have the shape {tuple(logits.shape)}, a number from 0 to 1 for each label, "
                f"but have {tuple(labels.shape)}."
            )
        message = "labels of a multi_label_classification must be from 0 to 1"
        if is_any(~((labels >= 0) & (labels <= 1)), f"{message}."):
            wrong = labels[~((labels >= 0) & (labels <= 1))]
            raise ValueError(f"{message}, but hold {wrong[0].item():g}.")
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))

    def _regression_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if labels.shape not in (logits.shape, logits.squeeze(1).shape):
            raise ValueError(
                f"labels of a regression must have the shape {tuple(logits.squeeze(1).shape)}, but have "
                f"{tuple(labels.shape)}."
            )
        if is_any(~labels.isfinite(), "labels of a regression must be finite."):
            raise ValueError("labels of a regression must be finite, but hold NaN or an infinite number.")
        return F.mse_loss(logits, labels.view_as(logits).to(logits.dtype))


ElmoForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
