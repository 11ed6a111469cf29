"""A label for a text, or for a pair of sentences.

    model = ElmoForSequenceClassification.from_pretrained("org/elmo", num_labels=5)              # a text
    model(**tokenizer("A gorgeous film .", return_tensors="pt"), labels=torch.tensor([4])).loss

    model = ElmoForSequenceClassification.from_pretrained("org/elmo", classifier="esim", num_labels=3)
    model(**tokenizer("A dog runs .", "An animal moves .", return_tensors="pt")).logits          # a pair

`"bcn"` is the biattentive classification network of McCann et al. (2017), the ELMo paper's for sentiment;
`"esim"` is the model of Chen et al. (2017), the paper's for whether one sentence follows from another.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import can_return_tuple

from .checks_elmo import check_range, check_shape, check_whole, word_mask
from .configuration_elmo import ElmoConfig
from .layers_elmo import ElmoBiRNN, ElmoVariationalDropout, words_first
from .task_elmo import ElmoTaskInput, ElmoTaskModel
from .words_elmo import SENTENCE_BEGIN, SENTENCE_END

# ---- over the words of a row: attention and pooling


def attend(queries: Tensor, words: Tensor, mask: Tensor) -> Tensor:
    """For each query the words' average, weighted by the softmax of their products with it.

    (batch, queries, dim), (batch, words, dim), (batch, words) -> (batch, queries, dim)
    """
    return softmax_over(queries @ words.transpose(1, 2), mask[:, None]) @ words


def softmax_over(scores: Tensor, mask: Tensor) -> Tensor:
    """Over the last dimension where the mask is True; zero elsewhere, and where there is nothing at all."""
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~mask, lowest).softmax(dim=-1).masked_fill(~mask, 0)


def mean_over(x: Tensor, mask: Tensor) -> Tensor:
    """(batch, words, dim), (batch, words) -> (batch, dim); zero for a row without words"""
    return x.masked_fill(~mask[:, :, None], 0).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def max_over(x: Tensor, mask: Tensor) -> Tensor:
    """(batch, words, dim), (batch, words) -> (batch, dim); zero for a row without words"""
    if x.shape[1] == 0:
        return x.new_zeros(len(x), x.shape[2])
    greatest = x.masked_fill(~mask[:, :, None], float("-inf")).amax(dim=1)
    return greatest.masked_fill(~mask.any(dim=1, keepdim=True), 0)


# ---- one text


class ElmoMaxout(nn.Linear):
    """The greatest of several linear maps of the input, for each number of the output by itself."""

    def __init__(self, input_size: int, output_size: int, pieces: int) -> None:
        super().__init__(input_size, output_size * pieces)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """(..., input_size) -> (..., output_size)"""
        return super().forward(x).unflatten(-1, (-1, self.pieces)).amax(dim=-1)


class ElmoBCN(nn.Module):
    """The biattentive classification network for one text, which then attends to itself.

    f(w) is a ReLU layer and X = biLSTM(f(w)). Each word's context C is the average of X by attention, and
    biLSTM([X; X - C; X * C]) integrates both. Its maximum, minimum and mean over the words and an average
    by learned attention are what the output layers read; each is half of the one below.
    """

    def __init__(self, config: ElmoConfig, input_size: int, elmo_size: int, num_labels: int) -> None:
        super().__init__()
        size, layers, dropout = config.task_hidden_size, config.task_num_layers, config.task_dropout
        self.dropout = ElmoVariationalDropout(dropout)
        self.projection = nn.Linear(input_size, size)
        self.encoder = ElmoBiRNN(size, size, layers, dropout)
        self.integrator = ElmoBiRNN(3 * self.encoder.output_size, size, layers, dropout)
        pooled = self.integrator.output_size + elmo_size
        self.pooling = nn.Linear(pooled, 1, bias=False)  # a bias would change no weight of a softmax
        self.output = self._output_layers(config, [4 * pooled, 2 * pooled, pooled, num_labels])

    def _output_layers(self, config: ElmoConfig, sizes: list[int]) -> nn.Sequential:
        pieces = config.maxout_pieces
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers.append(nn.Dropout(config.task_dropout))
            layers.append(ElmoMaxout(before, after, pieces) if pieces else nn.Linear(before, after))
            if not pieces:
                layers.append(nn.ReLU())
        return nn.Sequential(*(layers if pieces else layers[:-1]))

    def forward(self, words: ElmoTaskInput) -> Tensor:
        """(batch, words, input_size) -> (batch, labels)"""
        x = F.relu(self.projection(self.dropout(words.x)))
        h = self.encoder(x, words.mask)
        context = attend(h, h, words.mask)
        h = self.integrator(torch.cat([h, h - context, h * context], dim=-1), words.mask)
        return self.output(self.pool(words.beside(h), words.mask))

    def pool(self, h: Tensor, mask: Tensor) -> Tensor:
        """(batch, words, dim), (batch, words) -> (batch, 4 * dim)"""
        shares = softmax_over(self.pooling(h).transpose(1, 2), mask[:, None])  # (batch, 1, words)
        attended = (shares @ h)[:, 0]
        return torch.cat([max_over(h, mask), -max_over(-h, mask), mean_over(h, mask), attended], dim=-1)


# ---- two sentences


class ElmoESIM(nn.Module):
    """The enhanced sequential inference model, for the two sentences a and b of each pair.

    a and b are read by one biLSTM; with ELMo at the output, its vectors stand beside that. Each word x is
    aligned with y, the average by attention of the other sentence, and [x; y; x - y; x * y] goes through a
    ReLU layer and a second biLSTM. The means and maxima of both sentences are classified, by one hidden
    ReLU layer.
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


class ElmoPairs:
    """Rows `first </S> <S> second`, taken apart into rows of one sentence, so that the biLM reads each by
    itself, as it was in the paper.

    mask: (2 * batch, words), where the first sentences' words are, and then where the second ones' are.
    """

    def __init__(self, mask: Tensor) -> None:
        self.places = mask.shape[1]
        longest = max(mask.sum(dim=1).tolist(), default=0)
        self.order = words_first(mask)[:, :longest]
        self.mask = mask.gather(1, self.order)

    def apart(self, x: Tensor | None) -> Tensor | None:
        """(batch, words, ...) -> (2 * batch, words of the longest sentence, ...)"""
        if x is None:
            return None
        order = self.order.reshape(*self.order.shape, *[1] * (x.dim() - 2))
        return torch.cat([x, x]).take_along_dim(order, dim=1)

    def together(self, x: Tensor) -> Tensor:
        """(2 * batch, words of the longest sentence, dim) -> (batch, words, dim), zero at separators"""
        rows = x.new_zeros(len(x), self.places, x.shape[2])
        first, second = rows.scatter(1, self.order[:, :, None].expand_as(x), x).chunk(2)
        return first + second


def sentences_of_pairs(
    config: ElmoConfig, mask: Tensor, input_ids: Tensor | None, char_ids: Tensor | None, types: Tensor | None
) -> Tensor:
    """The words of each row's first sentence, and then of each row's second: (2 * batch, words).

    mask (batch, words) holds words and separators. types are `token_type_ids`: 0 up to `</S>` and 1 from
    `<S>` on. Without them, the pair parts where `</S> <S>` stands.
    """
    ends, begins = _separators(config, mask, input_ids, char_ids)
    if types is None:
        types = _types_from_separators(ends, begins)
    check_shape("token_type_ids", types, mask)
    check_range("token_type_ids", types[mask], 1)
    first, second = mask & (types == 0), mask & (types == 1)
    end = first & (first.flip(1).cumsum(dim=1).flip(1) == 1)  # the last word of the first part
    begin = second & (second.cumsum(dim=1) == 1)
    if ends is not None and begins is not None:
        end, begin = end & ends, begin & begins
    is_pair = end.any(dim=1) & begin.any(dim=1)
    if not is_pair.all():
        row = int((~is_pair).nonzero()[0])
        raise ValueError(
            f"row {row}: token_type_ids must be 0 up to `</S>` and 1 from the next word `<S>` on; "
            "tokenizer(first, second, return_token_type_ids=True) makes them."
        )
    return torch.cat([first & ~end, second & ~begin])


def _separators(
    config: ElmoConfig, mask: Tensor, input_ids: Tensor | None, char_ids: Tensor | None
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Where the words `</S>` and `<S>` are, each (batch, words); None where only vectors are given."""
    if config.token_encoder == "characters":
        if char_ids is None:
            return None, None
        letters = char_ids[:, :, 1]
        return mask & (letters == SENTENCE_END), mask & (letters == SENTENCE_BEGIN)
    if input_ids is None:
        return None, None
    return mask & (input_ids == config.eos_token_id), mask & (input_ids == config.bos_token_id)


def _types_from_separators(ends: Tensor | None, begins: Tensor | None) -> Tensor:
    if ends is None or begins is None:
        raise ValueError(
            "where a pair of sentences parts cannot be seen from inputs_embeds; pass token_type_ids, too."
        )
    begins_second = begins & F.pad(ends, (1, 0))[:, :-1]
    parts = begins_second.sum(dim=1)
    if (parts != 1).any():
        row = int((parts != 1).nonzero()[0])
        found = int(parts[row])
        raise ValueError(
            f"row {row} is no pair, and classifier 'esim' compares two sentences; "
            "call tokenizer(first, second)."
            if found == 0
            else f"row {row} has `</S> <S>` in {found} places; say by token_type_ids where the pair parts "
            "(tokenizer(first, second, return_token_type_ids=True))."
        )
    return begins_second.long().cumsum(dim=1)


# ---- the model


class ElmoForSequenceClassification(ElmoTaskModel):
    """A label for a text, by `classifier="bcn"`, or for a pair of sentences, by `"esim"`::

        model = ElmoForSequenceClassification.from_pretrained("my-elmo", classifier="bcn", num_labels=5)
        loss = model(**tokenizer("A gorgeous film .", return_tensors="pt"), labels=torch.tensor([4])).loss

    `"bcn"` is the biattentive classification network of McCann et al. (2017), which the paper has for
    sentiment; `"esim"` that of Chen et al. (2017), which it has for whether one sentence follows from the
    other. The RNNs of either have task_num_layers layers of task_hidden_size cells, and the dense layers that
    size, too; dropout is on what each layer reads.

    The paper, for SST-5 (`"bcn"`): task_hidden_size=300, task_num_layers=1, maxout_pieces=0, ELMo at the
    input and the output. For SNLI (`"esim"`): task_hidden_size=300, task_num_layers=1, task_dropout=0.5,
    mix_layer_norm=True, ELMo at the input and the output of the lower biLSTM.
    """

    def __init__(self, config: ElmoConfig) -> None:
        super().__init__(config)
        self.num_labels = len(config.id2label or ())
        if self.num_labels < 2 or config.problem_type not in (None, "single_label_classification"):
            raise ValueError(
                "ElmoForSequenceClassification gives each row one of several labels, but num_labels is "
                f"{self.num_labels} and problem_type {config.problem_type!r}."
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
    ) -> SequenceClassifierOutput:
        r"""
        Args:
            token_type_ids: (batch, words), for `"esim"`: 0 up to the pair's `</S>` and 1 from its `<S>` on.
                Needed only where the words do not show it: with `inputs_embeds`, and for a sentence that has
                `</S> <S>` in it. `"bcn"` reads a row as one text, whatever is in it.
            labels: (batch), from 0 to num_labels - 1.

        The other arguments are those of `ElmoModel`.
        """
        mask = word_mask(self.config, input_ids, char_ids, attention_mask, inputs_embeds)
        read = self._read_text if self.config.classifier == "bcn" else self._read_pairs
        words = read(input_ids, char_ids, mask, token_type_ids, inputs_embeds, output_hidden_states)
        logits = self.classifier(words)
        loss = self._loss(logits, labels) if labels is not None else None
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=words.hidden_states)

    @torch.no_grad()
    def decode(self, **inputs: Tensor) -> Tensor:
        """The likeliest label of each row, (batch); `inputs` are those of `forward`, without labels."""
        return self(**inputs).logits.argmax(dim=-1)

    def _read_text(
        self,
        input_ids: Tensor | None,
        char_ids: Tensor | None,
        mask: Tensor,
        token_type_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        output_hidden_states: bool | None,
    ) -> ElmoTaskInput:
        if token_type_ids is not None:
            raise ValueError(
                "classifier 'bcn' reads a row as one text and knows no token_type_ids; leave them out, or "
                "set classifier='esim' to compare the sentences of pairs."
            )
        return self.read(input_ids, char_ids, mask, inputs_embeds, output_hidden_states)

    def _read_pairs(
        self,
        input_ids: Tensor | None,
        char_ids: Tensor | None,
        mask: Tensor,
        token_type_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        output_hidden_states: bool | None,
    ) -> ElmoTaskInput:
        """All first sentences and then all second ones; the biLM's layers as they stand in the row."""
        pairs = ElmoPairs(sentences_of_pairs(self.config, mask, input_ids, char_ids, token_type_ids))
        input_ids, char_ids, inputs_embeds = map(pairs.apart, (input_ids, char_ids, inputs_embeds))
        words = self.read(input_ids, char_ids, pairs.mask, inputs_embeds, output_hidden_states)
        if words.hidden_states is not None:
            words.hidden_states = tuple(map(pairs.together, words.hidden_states))
        return words

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        check_whole("labels", labels)
        if labels.shape != logits.shape[:1]:
            raise ValueError(
                f"labels must be {len(logits)} numbers, one a row, but have the shape {tuple(labels.shape)}."
            )
        check_range("labels", labels, self.num_labels - 1)
        loss = F.cross_entropy(logits, labels.long()) if len(logits) else logits.sum()
        return self.with_penalty(loss)


ElmoForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
