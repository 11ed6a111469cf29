"""Spans of words, and pairs of them: what they are made of, which are kept, and what scores them.

The words of all sentences of a batch stand in one row here, (words, dim), without padding. A span is a first
and a last word in that row, both part of it, and never leaves its sentence. `g` is a span's vector, as in Lee
et al. (2017): `[first word; last word; head; width]`, where the head is a mean of the span's words, weighted
by attention.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .configuration_elmo import ElmoConfig

DISTANCES = [1, 2, 3, 4, 7, 15, 31, 63]  # the greatest of each bucket but the last, which has no end
PAIRS_AT_ONCE = 4096


class ElmoScorer(nn.Module):
    """A score from a network with two hidden layers.

    The first reads several parts side by side, `W [a; b; c] = W_a a + W_b b + W_c c`. They are multiplied
    one by one (`part`) and added up, so that a part that many spans share is multiplied once.
    """

    def __init__(self, sizes: list[int], hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.sizes = sizes
        self.first = nn.Linear(sum(sizes), hidden_size)
        self.second = nn.Linear(hidden_size, hidden_size)
        self.last = nn.Linear(hidden_size, 1)
        self.dropout = nn.Dropout(dropout)

    def part(self, number: int, x: Tensor) -> Tensor:
        """(..., sizes[number]) -> (..., hidden_size)"""
        weight = self.first.weight.split(self.sizes, dim=1)[number]
        return F.linear(x, weight, self.first.bias if number == 0 else None)

    def forward(self, parts: Tensor) -> Tensor:
        """The sum of all parts (..., hidden_size) -> (...)"""
        h = self.dropout(F.relu(parts))
        h = self.dropout(F.relu(self.second(h)))
        return self.last(h).squeeze(-1)


class ElmoSpanScorer(nn.Module):
    """What a span is made of, and how much it looks like a mention.

    x (words, input_size) are the words as the RNN reads them, h (words, context_size) what it makes of them.
    Spans are a table: `places` (words, widths) has the last word of the span that begins at a word and is
    one, two, ... words long.
    """

    def __init__(self, input_size: int, context_size: int, config: ElmoConfig) -> None:
        super().__init__()
        self.output_size = 2 * context_size + input_size + config.span_feature_dim
        sizes = [context_size, context_size, input_size, config.span_feature_dim]
        self.head = ElmoScorer([context_size], config.span_hidden_size, config.task_dropout)
        self.widths = nn.Embedding(config.max_span_width, config.span_feature_dim)
        self.mention = ElmoScorer(sizes, config.span_hidden_size, config.task_dropout)

    def attention(self, h: Tensor, places: Tensor) -> Tensor:
        """How much each word of a span is its head, (words, widths, widths); zero behind its last word."""
        scores = self.head(self.head.part(0, h))[places]
        widths = places.shape[1]
        behind = torch.ones(widths, widths, dtype=torch.bool, device=h.device).triu(1)
        return scores[:, None, :].masked_fill(behind, float("-inf")).softmax(dim=-1)

    def scores(self, x: Tensor, h: Tensor, places: Tensor, attention: Tensor) -> Tensor:
        """Each span's score as a mention, (words, widths)."""
        part = self.mention.part
        # A mean of the words' products is the product of their mean.
        heads = torch.bmm(attention, part(2, x)[places])
        widths = part(3, self.widths.weight[: places.shape[1]])
        return self.mention(part(0, h)[:, None] + part(1, h)[places] + heads + widths)

    def forward(self, x: Tensor, h: Tensor, places: Tensor, attention: Tensor, spans: Tensor) -> Tensor:
        """g of some spans (spans, 2), (spans, output_size)."""
        first, last = spans.unbind(dim=1)
        width = last - first
        heads = torch.einsum("sw,swi->si", attention[first, width], x[places[first]])
        return torch.cat([h[first], h[last], heads, self.widths(width)], dim=-1)


class ElmoPairScorer(nn.Module):
    """How much an earlier span looks like the antecedent of a later one: from both g, their elementwise
    product, and how many spans they are apart."""

    def __init__(self, size: int, config: ElmoConfig) -> None:
        super().__init__()
        self.distances = nn.Embedding(len(DISTANCES) + 1, config.span_feature_dim)
        sizes = [size, size, size, config.span_feature_dim]
        self.network = ElmoScorer(sizes, config.span_hidden_size, config.task_dropout)

    def forward(self, g: Tensor, later: Tensor, earlier: Tensor) -> Tensor:
        """g (spans, size), numbers of spans (pairs,) and (pairs,) -> (pairs,)"""
        part = self.network.part
        known = g, part(0, g), part(1, g), part(3, self.distances.weight)
        # There are many pairs, and their products are long. In training, too, only some are held at a time:
        # they are made anew when their gradient is wanted.
        return torch.cat(
            [
                checkpoint(self._some, *known, *pairs, use_reentrant=False)
                for pairs in zip(later.split(PAIRS_AT_ONCE), earlier.split(PAIRS_AT_ONCE), strict=True)
            ]
        )

    def _some(
        self, g: Tensor, as_later: Tensor, as_earlier: Tensor, apart: Tensor, later: Tensor, earlier: Tensor
    ) -> Tensor:
        product = g.index_select(0, later) * g.index_select(0, earlier)
        bucket = torch.bucketize(later - earlier, torch.tensor(DISTANCES, device=g.device))
        spans = as_later.index_select(0, later) + as_earlier.index_select(0, earlier)
        return self.network(spans + self.network.part(2, product) + apart.index_select(0, bucket))


def span_table(lengths: Tensor, max_width: int) -> tuple[Tensor, Tensor]:
    """Words of each sentence (sentences,) -> `places` (words, widths), and which of these spans there are,
    (words, widths): those that end within their sentence."""
    ends = lengths.cumsum(dim=0).repeat_interleave(lengths)[:, None]  # behind each word's sentence
    width = min(max_width, int(lengths.max())) if lengths.numel() else 0
    words = torch.arange(len(ends), device=lengths.device)
    places = words[:, None] + torch.arange(width, device=lengths.device)
    return places.minimum(ends - 1), places < ends


def best_spans(scores: Tensor, is_span: Tensor, count: int) -> list[tuple[int, int]]:
    """The `count` spans of a document with the highest scores, but none that crosses a better one; in the
    order of the text. Two spans cross if they have words in common and neither has all of the other's."""
    first, width = is_span.nonzero().unbind(dim=1)
    order = scores[first, width].argsort(descending=True, stable=True)
    last = (first + width)[order].tolist()
    kept: list[tuple[int, int]] = []
    longest_from: dict[int, int] = {}  # the last word of the longest span kept that begins at a word
    longest_to: dict[int, int] = {}  # the first word of the longest span kept that ends at a word
    for start, end in zip(first[order].tolist(), last, strict=True):
        if len(kept) == count:
            break
        if any(longest_from.get(word, end) > end for word in range(start + 1, end + 1)):
            continue
        if any(longest_to.get(word, start) < start for word in range(start, end)):
            continue
        kept.append((start, end))
        longest_from[start] = max(end, longest_from.get(start, end))
        longest_to[end] = min(start, longest_to.get(end, start))
    return sorted(kept)


def candidates(numbers: Tensor, max_antecedents: int) -> Tensor:
    """Each span's number in its document (spans,) -> whether there is a span 1, 2, ... before it that may be
    its antecedent, (spans, steps)."""
    steps = min(max_antecedents, int(numbers.max())) if numbers.numel() else 0
    return torch.arange(1, steps + 1, device=numbers.device) <= numbers[:, None]


def clusters_of(steps: list[int]) -> list[int]:
    """For each span, how many spans before it its antecedent is, 0 for none -> each span's cluster, numbered
    in the order of their first spans, and -1 for a span that has no antecedent and is none."""
    first = list(range(len(steps)))  # the first span of each span's chain
    for span, step in enumerate(steps):
        first[span] = first[span - step]
    chains = {start for start, step in zip(first, steps, strict=True) if step}
    numbers = {start: number for number, start in enumerate(sorted(chains))}
    return [numbers.get(start, -1) for start in first]
