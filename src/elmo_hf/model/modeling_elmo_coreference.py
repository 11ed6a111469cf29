"""Which words of a document mean the same: end-to-end coreference (Lee et al. 2017), with ELMo.

    model = ElmoForCoreferenceResolution.from_pretrained("org/elmo-coref")
    model.predict([["Ada", "wrote", "to", "him", "."], ["She", "waited", "."]], tokenizer)
    # [[(0, 0, 0), (1, 0, 0)]]: clusters of mentions, each (sentence, first word, last word)

A row is a sentence, and the rows of a call are a document, or several. Every span of up to `max_span_width`
words gets a score as a mention, and the best are kept. Each of these chooses an antecedent among those before
it, or none; chains of antecedents are the clusters, so a mention that is alone is not found. The loss asks
that of all choices those be likely that lead to the right cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.utils import ModelOutput, can_return_tuple

from .checks_elmo import check_whole, word_mask
from .configuration_elmo import ElmoConfig
from .crf_elmo import IGNORED
from .layers_elmo import ElmoBiRNN, ElmoVariationalDropout
from .spans_elmo import ElmoPairScorer, ElmoSpanScorer, best_spans, candidates, clusters_of, span_table
from .task_elmo import ElmoTaskModel

Mention = tuple[int, int, int]  # sentence, first word, last word
WORDS_AT_ONCE = 2048  # with padding, that the biLM reads at a time


@dataclass
class ElmoCoreferenceOutput(ModelOutput):
    """
    loss: the mean over all kept spans of minus the log-probability of a right choice (the paper has the sum),
        and the mixes' penalty.
    logits: (documents, spans, 1 + antecedents), the scores of each span's choices: 0 for no antecedent, then
        the span before it, the one before that, and so on; the lowest number there is where there is none.
    spans: (documents, spans, 3), the kept spans in the order of the text: sentence of the document, first
        and last word of the sentence; -100 behind a document's last.
    hidden_states: the biLM's layers, if asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    spans: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class ElmoRanking:
    """
    spans: (spans, 3), sentence, first word and last word of the spans kept, document by document.
    counts: how many of them each document has.
    candidates: (spans, steps), whether there is a span so many before, to be an antecedent.
    logits: (spans, 1 + steps), see above.
    """

    spans: Tensor
    counts: list[int]
    candidates: Tensor
    logits: Tensor


class ElmoForCoreferenceResolution(ElmoTaskModel):
    """Which mentions of a document mean the same: the ranking of spans of Lee et al. (2017)::

        model.predict([["Ada", "left", "."], ["She", "sang", "."]], tokenizer)
        # [[(0, 0, 0), (1, 0, 0)]]: clusters of mentions, each (sentence, first word, last word)

    The paper has task_num_layers=1, task_dropout=0.2 and mix_l2=0 (elmo_dropout=0.5 and the other sizes are
    the defaults), and trains on at most 50 sentences at a time. Speakers and genres are left out.

    Memory follows the words of the document, not the square of them: spans are as many as words times widths,
    pairs as many as kept spans times antecedents, and the long vectors of pairs are made some at a time.
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
    ) -> ElmoCoreferenceOutput:
        r"""
        Args:
            document_ids: (sentences,), equal for the sentences of a document, which stand together and in
                their order. Left out, all are of one document.
            labels: (documents, mentions, 4), for each mention its sentence in the document, its first and its
                last word in the sentence, and the number of its cluster, 0 or more; a document with fewer is
                filled up with -100. Words are counted without padding.

        The other arguments are those of `ElmoModel`, a row being a sentence. A mention that is alone in its
        cluster counts as none.
        """
        mask = word_mask(self.config, input_ids, char_ids, attention_mask, inputs_embeds)
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
        """The mentions found, as `labels` has them: (documents, mentions, 4), filled up with -100."""
        mask = word_mask(self.config, input_ids, char_ids, attention_mask, inputs_embeds)
        documents = _documents(document_ids, mask)
        inputs = {"input_ids": input_ids, "char_ids": char_ids, "inputs_embeds": inputs_embeds}
        x, h, _ = self._encode(inputs, mask, output_hidden_states=False)
        ranking = self._rank(x, h, mask.sum(dim=1), documents)
        clusters = ranking.spans.new_tensor(clusters_of(ranking.logits.argmax(dim=1).tolist()))
        mentions = torch.cat([ranking.spans, clusters[:, None]], dim=1)
        found = [part[part[:, 3] >= 0] for part in mentions.split(ranking.counts)]
        return pad_sequence(found, batch_first=True, padding_value=IGNORED)

    def predict(self, sentences: Sequence[Sequence[str]], tokenizer: Any) -> list[list[Mention]]:
        """The clusters of a document's mentions in the order of the text.

        Args:
            sentences: the document, sentence by sentence, each a list of words.
            tokenizer: the `ElmoTokenizer` that was saved with the model.

        Returns lists of mentions, each (sentence, first word, last word).
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
        was_training = self.training
        self.eval()
        try:
            found = self.decode(**{name: encoding[name].to(self.device) for name in names})
        finally:
            self.train(was_training)
        clusters: dict[int, list[Mention]] = {}
        for sentence, first, last, cluster in found[0].tolist():
            clusters.setdefault(cluster, []).append((sentence, first, last))
        return list(clusters.values())

    def _encode(
        self, inputs: dict[str, Tensor | None], mask: Tensor, output_hidden_states: bool
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...] | None]:
        """The words of all sentences in one row: as the RNN reads them, (words, input_size); as it leaves
        them, (words, context_size); and the biLM's layers, if they are asked for.

        Sentences of about the same length are read together, so that one long one does not fill all others'
        rows with padding; but all at once if the layers are to be handed out.
        """
        lengths = mask.sum(dim=1).tolist()
        groups = [list(range(len(mask)))] if output_hidden_states else _groups(lengths)
        numbers = mask.flatten().cumsum(dim=0).view_as(mask) - 1  # of the words
        xs, hs, order, words = [], [], [], None
        for rows in groups:
            columns = mask[rows].any(dim=0) | output_hidden_states
            part = {name: one[rows][:, columns] if one is not None else None for name, one in inputs.items()}
            words = self.read(
                **part, attention_mask=mask[rows][:, columns], output_hidden_states=output_hidden_states
            )
            h = words.beside(self.dropout(self.rnn(words.x, words.mask)))
            xs.append(words.x[words.mask])
            hs.append(h[words.mask])
            order.append(numbers[rows][mask[rows]])
        back = torch.cat(order).argsort()
        return torch.cat(xs)[back], torch.cat(hs)[back], words.hidden_states if words is not None else None

    def _rank(self, x: Tensor, h: Tensor, lengths: Tensor, documents: list[int]) -> ElmoRanking:
        """x (words, input_size), h (words, context_size), words of each sentence (sentences,), and how many
        sentences each document has"""
        places, is_span = span_table(lengths, self.config.max_span_width)
        attention = self.span_scorer.attention(h, places)
        scores = self.span_scorer.scores(x, h, places, attention)
        kept, counts = self._keep(scores.detach(), is_span, lengths, documents)
        numbers = torch.cat([torch.arange(count, device=x.device) for count in counts])
        may_be = candidates(numbers, self.config.max_antecedents)
        later, step = may_be.nonzero().unbind(dim=1)
        earlier = later - step - 1
        g = self.span_scorer(x, h, places, attention, kept)
        mention = scores[kept[:, 0], kept[:, 1] - kept[:, 0]]
        pairs = mention[later] + mention[earlier] + self.pair_scorer(g, later, earlier)
        logits = mention.new_full(may_be.shape, torch.finfo(mention.dtype).min).masked_scatter(may_be, pairs)
        logits = torch.cat([mention.new_zeros(len(mention), 1), logits], dim=1)
        return ElmoRanking(_by_sentence(kept, lengths, documents), counts, may_be, logits)

    def _keep(
        self, scores: Tensor, is_span: Tensor, lengths: Tensor, documents: list[int]
    ) -> tuple[Tensor, list[int]]:
        """The likeliest mentions of all documents (spans, 2), and how many each document has."""
        kept, counts, start = [], [], 0
        for words in (int(part.sum()) for part in lengths.split(documents)):
            end = start + words
            best = best_spans(scores[start:end], is_span[start:end], int(self.config.spans_per_word * words))
            kept += [(start + first, start + last) for first, last in best]
            counts.append(len(best))
            start = end
        return torch.tensor(kept, device=scores.device, dtype=torch.long).view(-1, 2), counts


def _groups(lengths: list[int]) -> list[list[int]]:
    """Rows of about the same length together, so many that they have no more than `WORDS_AT_ONCE` places."""
    groups: list[list[int]] = [[]]
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if groups[-1] and (len(groups[-1]) + 1) * lengths[row] > WORDS_AT_ONCE:
            groups.append([])
        groups[-1].append(row)
    return groups


def _documents(document_ids: Tensor | None, mask: Tensor) -> list[int]:
    """How many sentences each document has."""
    if document_ids is None:
        return [len(mask)]
    check_whole("document_ids", document_ids)
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
    """Each document's mentions and their clusters, after a look at every one."""
    check_whole("labels", labels)
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
    """words: of each sentence of the document."""
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
    """Spans in the row of all words (spans, 2) -> (spans, 3): sentence in its document, first, last word."""
    ends = lengths.cumsum(dim=0)
    rows = torch.bucketize(spans[:, 0].contiguous(), ends, right=True)
    sentences = torch.cat([torch.arange(count, device=spans.device) for count in documents])
    return torch.cat([sentences[rows, None], spans - (ends - lengths)[rows, None]], dim=1)


def _loss(ranking: ElmoRanking, gold: list[dict[Mention, int]]) -> Tensor:
    """Of a span in a cluster, every candidate of the same cluster is a right choice; if there is none, or the
    span is in no cluster, the right choice is no antecedent."""
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
