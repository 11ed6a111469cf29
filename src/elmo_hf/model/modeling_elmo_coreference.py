"""End-to-end coreference resolution (Lee et al. 2017) with ELMo: which mentions of a document mean the same.

A row is a sentence, and the rows of a call are one document or several. Each span of up to `max_span_width`
words gets a score s_m as a mention, and the best are kept. Each kept span i chooses an antecedent j among
those before it, or none, by the score `s(i, j) = s_m(i) + s_m(j) + s_a(i, j)`, or 0 for none. Chains of
antecedents are the clusters, so a mention that is alone is not found. The loss is the negative
log-probability of the choices that lead to the right cluster.

The words of all sentences are one row here, (words, dim), without padding. A span is a first and a last word
of that row, in one sentence. Its vector g is `[first word; last word; head; width]`; the head is the sum of
its words weighted by attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers.utils import ModelOutput, can_return_tuple

from .checks_elmo import IGNORED, check_integers, check_no_attentions
from .configuration_elmo import ElmoConfig
from .layers_elmo import ElmoBiRNN, ElmoVariationalDropout
from .task_elmo import ElmoTaskModel

Mention = tuple[int, int, int]  # sentence, first word, last word
DISTANCES = [1, 2, 3, 4, 7, 15, 31, 63]  # the upper limits of the buckets; the last bucket has none
MAX_BATCH_WORDS = 2048  # with padding, that the biLM reads at a time
MAX_BATCH_PAIRS = 4096  # of spans, that are scored at a time

# ---- scores of spans and of pairs of spans


class ElmoScorer(nn.Module):
    """A score from a network with two hidden layers. `W [a; b; c] = W_a a + W_b b + W_c c`: `part` multiplies
    each part of its input by itself, and the caller adds them up, so that a shared part is multiplied
    once."""

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
    """The vectors of spans, and their scores as mentions.

    x (words, input_size) is what the RNN reads, and h (words, context_size) what it puts out. Spans are a
    table: `last_words` (words, widths) holds the last word of the span that begins at a word and has one,
    two, ... words.
    """

    def __init__(self, input_size: int, context_size: int, config: ElmoConfig) -> None:
        super().__init__()
        self.output_size = 2 * context_size + input_size + config.span_feature_dim
        sizes = [context_size, context_size, input_size, config.span_feature_dim]
        self.head = ElmoScorer([context_size], config.span_hidden_size, config.task_dropout)
        self.widths = nn.Embedding(config.max_span_width, config.span_feature_dim)
        self.mention = ElmoScorer(sizes, config.span_hidden_size, config.task_dropout)

    def attention(self, h: Tensor, last_words: Tensor) -> Tensor:
        """The weight of each word in its span's head, (words, widths, widths); zero behind the last word."""
        scores = self.head(self.head.part(0, h))[last_words]
        widths = last_words.shape[1]
        behind = torch.ones(widths, widths, dtype=torch.bool, device=h.device).triu(1)
        return scores[:, None, :].masked_fill(behind, float("-inf")).softmax(dim=-1)

    def scores(self, x: Tensor, h: Tensor, last_words: Tensor, attention: Tensor) -> Tensor:
        """Each span's score as a mention, (words, widths)."""
        part = self.mention.part
        # The product of a weighted sum is the weighted sum of the words' products.
        heads = torch.bmm(attention, part(2, x)[last_words])
        widths = part(3, self.widths.weight[: last_words.shape[1]])
        return self.mention(part(0, h)[:, None] + part(1, h)[last_words] + heads + widths)

    def forward(self, x: Tensor, h: Tensor, last_words: Tensor, attention: Tensor, spans: Tensor) -> Tensor:
        """g of some spans (spans, 2), (spans, output_size)"""
        first, last = spans.unbind(dim=1)
        width = last - first
        heads = torch.einsum("sw,swi->si", attention[first, width], x[last_words[first]])
        return torch.cat([h[first], h[last], heads, self.widths(width)], dim=-1)


class ElmoPairScorer(nn.Module):
    """The score s_a of an earlier span as the antecedent of a later one.

    The network reads `[g_later; g_earlier; g_later * g_earlier; distance]`.
    """

    def __init__(self, size: int, config: ElmoConfig) -> None:
        super().__init__()
        self.distances = nn.Embedding(len(DISTANCES) + 1, config.span_feature_dim)
        sizes = [size, size, size, config.span_feature_dim]
        self.network = ElmoScorer(sizes, config.span_hidden_size, config.task_dropout)

    def forward(self, g: Tensor, later: Tensor, earlier: Tensor) -> Tensor:
        """g (spans, size), numbers of spans (pairs,) and (pairs,) -> (pairs,)"""
        part = self.network.part
        shared = g, part(0, g), part(1, g), part(3, self.distances.weight)
        # Only a batch of the pairs' long products is in memory, also in training, which computes them again.
        batches = zip(later.split(MAX_BATCH_PAIRS), earlier.split(MAX_BATCH_PAIRS), strict=True)
        return torch.cat(
            [checkpoint(self._score_pairs, *shared, *batch, use_reentrant=False) for batch in batches]
        )

    def _score_pairs(
        self,
        g: Tensor,
        as_later: Tensor,
        as_earlier: Tensor,
        distances: Tensor,
        later: Tensor,
        earlier: Tensor,
    ) -> Tensor:
        product = g.index_select(0, later) * g.index_select(0, earlier)
        bucket = torch.bucketize(later - earlier, torch.tensor(DISTANCES, device=g.device))
        spans = as_later.index_select(0, later) + as_earlier.index_select(0, earlier)
        return self.network(spans + self.network.part(2, product) + distances.index_select(0, bucket))


def span_table(lengths: Tensor, max_width: int) -> tuple[Tensor, Tensor]:
    """All spans of sentences with the given numbers of words, (sentences,).

    Returns their last words, (words, widths), and which of them end within their sentence, (words, widths).
    """
    ends = lengths.cumsum(dim=0).repeat_interleave(lengths)[:, None]  # behind each word's sentence
    width = min(max_width, int(lengths.max())) if lengths.numel() else 0
    words = torch.arange(len(ends), device=lengths.device)
    last_words = words[:, None] + torch.arange(width, device=lengths.device)
    return last_words.minimum(ends - 1), last_words < ends


def best_spans(scores: Tensor, is_span: Tensor, count: int) -> list[tuple[int, int]]:
    """The `count` best spans of a document that do not cross a better one, in the order of the text.

    Two spans cross if they have words in common and neither contains the other. scores and is_span are
    (words, widths).
    """
    first, width = is_span.nonzero().unbind(dim=1)
    order = scores[first, width].argsort(descending=True, stable=True)
    last = (first + width)[order].tolist()
    kept: list[tuple[int, int]] = []
    last_of: dict[int, int] = {}  # the last word of the longest kept span that begins at a word
    first_of: dict[int, int] = {}  # the first word of the longest kept span that ends at a word
    for start, end in zip(first[order].tolist(), last, strict=True):
        if len(kept) == count:
            break
        if any(last_of.get(word, end) > end for word in range(start + 1, end + 1)):
            continue
        if any(first_of.get(word, start) < start for word in range(start, end)):
            continue
        kept.append((start, end))
        last_of[start] = max(end, last_of.get(start, end))
        first_of[end] = min(start, first_of.get(end, start))
    return sorted(kept)


def candidates(numbers: Tensor, max_antecedents: int) -> Tensor:
    """Whether there is a span 1, 2, ... before each span that may be its antecedent, (spans, steps).
    `numbers` (spans,) counts the spans of a document from 0."""
    steps = min(max_antecedents, int(numbers.max())) if numbers.numel() else 0
    return torch.arange(1, steps + 1, device=numbers.device) <= numbers[:, None]


def clusters_of(steps: list[int]) -> list[int]:
    """Each span's cluster, numbered in the order of their first spans; -1 for a span in none. `steps` says
    how many spans before it a span's antecedent is, 0 for none."""
    first = list(range(len(steps)))  # the first span of each span's chain
    for span, step in enumerate(steps):
        first[span] = first[span - step]
    chains = {start for start, step in zip(first, steps, strict=True) if step}
    numbers = {start: number for number, start in enumerate(sorted(chains))}
    return [numbers.get(start, -1) for start in first]


# ---- the model


@dataclass
class ElmoCoreferenceOutput(ModelOutput):
    """What `ElmoForCoreferenceResolution` returns.

    Args:
        loss: the mean over all kept spans of the negative log-probability of the right choices (the paper has
            the sum), plus the penalty of the mixes.
        logits: the scores of each span's choices, (documents, spans, 1 + antecedents): 0 for none, then the
            span before it, the one before that, and so on; the lowest number for a choice that is missing.
        spans: the kept spans in the order of the text, (documents, spans, 3): sentence of the document, first
            and last word of the sentence; -100 behind a document's last.
        hidden_states: with `output_hidden_states`, the biLM's layers.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    spans: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class ElmoRanking:
    """The choices of all kept spans.

    spans: (spans, 3), sentence, first word and last word of the kept spans, document by document.
    counts: the number of kept spans of each document.
    candidates: (spans, steps), see `candidates`.
    logits: (spans, 1 + steps), see `ElmoCoreferenceOutput`.
    """

    spans: Tensor
    counts: list[int]
    candidates: Tensor
    logits: Tensor


class ElmoForCoreferenceResolution(ElmoTaskModel):
    """Which mentions of a document mean the same: the span ranking of Lee et al. (2017).

    >>> model = ElmoForCoreferenceResolution.from_pretrained(TINY).eval()
    >>> clusters = model.predict([["Ada", "left", "."], ["She", "sang", "."]], tokenizer)
    >>> all((sentence, first, last) for cluster in clusters for sentence, first, last in cluster)
    True
    >>> model.decode(**batch).shape[2]  # sentence, first word, last word, cluster
    4

    The paper has task_num_layers=1, task_dropout=0.2 and mix_l2=0 (elmo_dropout=0.5 and the other sizes are
    the defaults), and trains on at most 50 sentences at a time. Speakers and genres are left out.

    Memory grows linearly with the words of a document; the long vectors of pairs are computed in batches.
    """

    def __init__(self, config: ElmoConfig) -> None:
        super().__init__(config)
        size, layers, dropout = config.task_hidden_size, config.task_num_layers, config.task_dropout
        self.rnn = ElmoBiRNN(self.input_size, size, layers, dropout)
        self.dropout = ElmoVariationalDropout(dropout)
        context_size = self.rnn.output_size + self.elmo_output_size
        self.span_scorer = ElmoSpanScorer(self.input_size, context_size, config)
        self.pair_scorer = ElmoPairScorer(self.span_scorer.output_size, config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        char_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        document_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> ElmoCoreferenceOutput:
        """Rank the antecedents of spans.

        Args:
            document_ids: (sentences,), equal for the sentences of a document, which are neighbours and in
                their order. By default, all are of one document.
            labels: (documents, mentions, 4), for each mention its sentence in the document, its first and its
                last word in the sentence, not counting padding, and the number of its cluster, 0 or more; a
                document with fewer mentions is filled with -100. A mention that is alone in its cluster
                counts as none.

        The other arguments are those of `ElmoModel`; a row is a sentence.

        Returns:
            An `ElmoCoreferenceOutput`.
        """
        check_no_attentions(output_attentions)
        mask = self.check_words(input_ids, char_ids, attention_mask, inputs_embeds)
        documents = _documents(document_ids, mask)
        lengths = mask.sum(dim=1)
        gold = _gold(labels, lengths, documents) if labels is not None else None
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        inputs = {"input_ids": input_ids, "char_ids": char_ids, "inputs_embeds": inputs_embeds}
        x, h, hidden_states = self._encode(inputs, mask, bool(output_hidden_states))
        ranking = self._rank(x, h, lengths, documents)
        return ElmoCoreferenceOutput(
            loss=self.with_penalty(_loss(ranking, gold)) if gold is not None else None,
            logits=pad_sequence(ranking.logits.split(ranking.counts), batch_first=True),
            spans=pad_sequence(ranking.spans.split(ranking.counts), batch_first=True, padding_value=IGNORED),
            hidden_states=hidden_states,
        )

    @torch.no_grad()
    def decode(
        self,
        input_ids: Tensor | None = None,
        char_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        document_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """The mentions in clusters, as in `labels`: (documents, mentions, 4), filled with -100."""
        mask = self.check_words(input_ids, char_ids, attention_mask, inputs_embeds)
        documents = _documents(document_ids, mask)
        inputs = {"input_ids": input_ids, "char_ids": char_ids, "inputs_embeds": inputs_embeds}
        x, h, _ = self._encode(inputs, mask, output_hidden_states=False)
        ranking = self._rank(x, h, mask.sum(dim=1), documents)
        clusters = ranking.spans.new_tensor(clusters_of(ranking.logits.argmax(dim=1).tolist()))
        spans = torch.cat([ranking.spans, clusters[:, None]], dim=1).split(ranking.counts)
        mentions = [document[document[:, 3] >= 0] for document in spans]
        return pad_sequence(mentions, batch_first=True, padding_value=IGNORED)

    def predict(self, sentences: Sequence[Sequence[str]], tokenizer: Any) -> list[list[Mention]]:
        """The clusters of a document.

        Args:
            sentences: the sentences of the document, each a list of words.
            tokenizer: the `ElmoTokenizer` that was saved with the model.

        Returns:
            Lists of mentions in the order of the text, each (sentence, first word, last word).
        """
        if isinstance(sentences, str) or not isinstance(sentences, Sequence):
            raise ValueError(f"a document is a list of sentences, but this is {sentences!r:.60}.")
        for number, sentence in enumerate(sentences):
            if isinstance(sentence, str) or not isinstance(sentence, Sequence):
                raise ValueError(
                    f"a sentence is a list of words, but sentence {number} is {sentence!r:.60}; split text "
                    "into words first."
                )
        if not sentences:
            return []
        words = [list(sentence) for sentence in sentences]
        encoding = tokenizer(words, is_split_into_words=True, padding=True, return_tensors="pt")
        names = ("input_ids", "char_ids", "attention_mask")
        with self.in_eval_mode():
            (mentions,) = self.decode(**{name: encoding[name].to(self.device) for name in names})
        clusters: dict[int, list[Mention]] = {}
        for sentence, first, last, cluster in mentions.tolist():
            clusters.setdefault(cluster, []).append((sentence, first, last))
        return list(clusters.values())

    def _encode(
        self, inputs: dict[str, Tensor | None], mask: Tensor, output_hidden_states: bool
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...] | None]:
        """The words of all sentences in one row: the input of the RNN, (words, input_size); its output,
        (words, context_size); and the biLM's layers with `output_hidden_states`, for which all sentences are
        read at once. Otherwise those of similar length are read together, which saves padding."""
        lengths = mask.sum(dim=1).tolist()
        groups = [list(range(len(mask)))] if output_hidden_states else _groups(lengths)
        numbers = mask.flatten().cumsum(dim=0).view_as(mask) - 1  # of the words
        xs, hs, order, words = [], [], [], None
        for rows in groups:
            columns = mask[rows].any(dim=0) | output_hidden_states
            group = {name: None if x is None else x[rows][:, columns] for name, x in inputs.items()}
            group_mask = mask[rows][:, columns]
            words = self.read_checked(**group, mask=group_mask, output_hidden_states=output_hidden_states)
            h = words.beside(self.dropout(self.rnn(words.x, words.mask)))
            xs.append(words.x[words.mask])
            hs.append(h[words.mask])
            order.append(numbers[rows][mask[rows]])
        back = torch.cat(order).argsort()
        return torch.cat(xs)[back], torch.cat(hs)[back], words.hidden_states if words is not None else None

    def _rank(self, x: Tensor, h: Tensor, lengths: Tensor, documents: list[int]) -> ElmoRanking:
        """x (words, input_size), h (words, context_size), the words of each sentence (sentences,), and the
        sentences of each document"""
        last_words, is_span = span_table(lengths, self.config.max_span_width)
        attention = self.span_scorer.attention(h, last_words)
        scores = self.span_scorer.scores(x, h, last_words, attention)
        kept, counts = self._keep(scores.detach(), is_span, lengths, documents)
        numbers = torch.cat([torch.arange(count, device=x.device) for count in counts])
        is_candidate = candidates(numbers, self.config.max_antecedents)
        later, step = is_candidate.nonzero().unbind(dim=1)
        earlier = later - step - 1
        g = self.span_scorer(x, h, last_words, attention, kept)
        mention = scores[kept[:, 0], kept[:, 1] - kept[:, 0]]
        pairs = mention[later] + mention[earlier] + self.pair_scorer(g, later, earlier)
        logits = mention.new_full(is_candidate.shape, torch.finfo(mention.dtype).min)
        logits = logits.masked_scatter(is_candidate, pairs)
        logits = torch.cat([mention.new_zeros(len(mention), 1), logits], dim=1)
        return ElmoRanking(_by_sentence(kept, lengths, documents), counts, is_candidate, logits)

    def _keep(
        self, scores: Tensor, is_span: Tensor, lengths: Tensor, documents: list[int]
    ) -> tuple[Tensor, list[int]]:
        """The best spans of all documents (spans, 2), and how many each document has."""
        kept, counts, start = [], [], 0
        for words in (int(sentences.sum()) for sentences in lengths.split(documents)):
            end = start + words
            best = best_spans(scores[start:end], is_span[start:end], int(self.config.spans_per_word * words))
            kept += [(start + first, start + last) for first, last in best]
            counts.append(len(best))
            start = end
        return torch.tensor(kept, device=scores.device, dtype=torch.long).view(-1, 2), counts


def _groups(lengths: list[int]) -> list[list[int]]:
    """Rows of similar length, grouped so that a group has at most `MAX_BATCH_WORDS` words with padding."""
    groups: list[list[int]] = [[]]
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if groups[-1] and (len(groups[-1]) + 1) * lengths[row] > MAX_BATCH_WORDS:
            groups.append([])
        groups[-1].append(row)
    return groups


def _documents(document_ids: Tensor | None, mask: Tensor) -> list[int]:
    """The number of sentences of each document."""
    if document_ids is None:
        return [len(mask)]
    check_integers("document_ids", document_ids, mask.device, may_move=True)
    if document_ids.shape != mask.shape[:1]:
        raise ValueError(
            f"document_ids must have the shape ({len(mask)},), a number for each sentence, but has "
            f"{tuple(document_ids.shape)}."
        )
    documents, counts = document_ids.unique_consecutive(return_counts=True)
    if len(documents.unique()) < len(documents):
        raise ValueError(
            f"the sentences of a document must stand together, but document_ids are {document_ids.tolist()}."
        )
    return counts.tolist() or [0]


def _gold(labels: Tensor, lengths: Tensor, documents: list[int]) -> list[dict[Mention, int]]:
    """Check the labels, and return the mentions of each document with their clusters."""
    check_integers("labels", labels, lengths.device, may_move=True)
    shape = tuple(labels.shape)
    if labels.dim() != 3 or shape[0] != len(documents) or shape[2] != 4:
        raise ValueError(
            f"labels must have the shape ({len(documents)}, mentions, 4), each mention's sentence, first "
            f"word, last word and cluster, but have {shape}."
        )
    gold: list[dict[Mention, int]] = []
    for number, (mentions, words) in enumerate(zip(labels.tolist(), lengths.split(documents), strict=True)):
        gold.append({})
        for mention in mentions:
            if mention != [IGNORED] * 4:
                _add_mention(gold[-1], mention, words.tolist(), f"labels: document {number}")
    return gold


def _add_mention(gold: dict[Mention, int], mention: list[int], words: list[int], name: str) -> None:
    """Check a mention, and add it. `words` are the numbers of words of the document's sentences."""
    sentence, first, last, cluster = mention
    name += f" has a mention from word {first} to word {last} of sentence {sentence}"
    if not 0 <= sentence < len(words):
        raise ValueError(f"{name}, but its sentences are 0 to {len(words) - 1}.")
    if not 0 <= first <= last < words[sentence]:
        raise ValueError(f"{name}, but the words there are 0 to {words[sentence] - 1}.")
    if cluster < 0:
        raise ValueError(f"{name} in cluster {cluster}; clusters are numbered from 0.")
    other = gold.setdefault((sentence, first, last), cluster)
    if other != cluster:
        raise ValueError(f"{name} in two clusters, {other} and {cluster}.")


def _by_sentence(spans: Tensor, lengths: Tensor, documents: list[int]) -> Tensor:
    """Spans of the row of all words (spans, 2) -> (spans, 3): sentence in the document, first, last word."""
    ends = lengths.cumsum(dim=0)
    rows = torch.bucketize(spans[:, 0].contiguous(), ends, right=True)
    sentences = torch.cat([torch.arange(count, device=spans.device) for count in documents])
    return torch.cat([sentences[rows, None], spans - (ends - lengths)[rows, None]], dim=1)


def _loss(ranking: ElmoRanking, gold: list[dict[Mention, int]]) -> Tensor:
    """The right choices of a span are the candidates of its cluster. If there are none, or the span is in no
    cluster, the right choice is no antecedent."""
    numbers = [
        clusters.get((sentence, first, last), -1)
        for clusters, spans in zip(gold, ranking.spans.split(ranking.counts), strict=True)
        for sentence, first, last in spans.tolist()
    ]
    clusters = ranking.spans.new_tensor(numbers)
    later, step = ranking.candidates.nonzero().unbind(dim=1)
    is_right = (clusters[later] == clusters[later - step - 1]) & (clusters[later] >= 0)
    right = ranking.candidates.masked_scatter(ranking.candidates, is_right)
    right = torch.cat([~right.any(dim=1, keepdim=True), right], dim=1)
    logits = ranking.logits.to(torch.promote_types(ranking.logits.dtype, torch.float32))
    losses = logits.logsumexp(dim=1) - logits.masked_fill(~right, float("-inf")).logsumexp(dim=1)
    return losses.sum() / max(len(losses), 1)


# There is no Auto class for coreference, so a saved folder is loaded by AutoModel.
ElmoForCoreferenceResolution.register_for_auto_class("AutoModel")
