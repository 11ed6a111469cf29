"""The equations of Lee et al. (2017) in loops over spans and pairs, for one document. It uses the model's
weights by name, and the model's biLM and RNN on one sentence at a time.

    naive = NaiveCoreference(model)
    naive.spans(sentences), naive.clusters(sentences), naive.loss(sentences, gold)
"""

import math

import torch

from elmo_hf import ElmoTokenizer


class NaiveCoreference:
    def __init__(self, model):
        self.model, self.config = model, model.config
        self.weights = dict(model.named_parameters())

    def feed_forward(self, name, x):
        for layer in ("first", "second"):
            x = (self.weights[f"{name}.{layer}.weight"] @ x + self.weights[f"{name}.{layer}.bias"]).clamp(
                min=0
            )
        return (self.weights[f"{name}.last.weight"] @ x + self.weights[f"{name}.last.bias"])[0]

    def words(self, sentences):
        """Each sentence's x and h, computed from that sentence alone."""
        states = []
        for sentence in sentences:
            read = self.model.read(
                **ElmoTokenizer()([sentence], is_split_into_words=True, return_tensors="pt")
            )
            states.append((read.x[0], read.beside(self.model.rnn(read.x, read.mask))[0]))
        return states

    def vector(self, x, h, first, last):
        scores = [self.feed_forward("span_scorer.head", h[word]) for word in range(first, last + 1)]
        total = sum(score.exp() for score in scores)
        head = sum(score.exp() / total * x[first + n] for n, score in enumerate(scores))
        return torch.cat([h[first], h[last], head, self.weights["span_scorer.widths.weight"][last - first]])

    def spans(self, sentences):
        """[(sentence, first, last, mention score, vector)]: the kept ones, in order."""
        candidates = []
        for number, (x, h) in enumerate(self.words(sentences)):
            for first in range(len(x)):
                for last in range(first, min(first + self.config.max_span_width, len(x))):
                    g = self.vector(x, h, first, last)
                    candidates.append((number, first, last, self.feed_forward("span_scorer.mention", g), g))
        kept = []
        limit = math.floor(self.config.spans_per_word * sum(map(len, sentences)))
        for span in sorted(candidates, key=lambda span: -span[3].item()):
            if len(kept) < limit and not any(crosses(span, other) for other in kept):
                kept.append(span)
        return sorted(kept, key=lambda span: span[:3])

    def choices(self, sentences):
        """For each span, its score with every span that may be its antecedent: [{number: score}]."""
        spans = self.spans(sentences)
        choices = []
        for i, (*_, mention_i, g_i) in enumerate(spans):
            choices.append({})
            for j, (*_, mention_j, g_j) in enumerate(spans):
                if 0 < i - j <= self.config.max_antecedents:
                    distance = self.weights["pair_scorer.distances.weight"][bucket(i - j)]
                    pair = torch.cat([g_i, g_j, g_i * g_j, distance])
                    score = self.feed_forward("pair_scorer.network", pair)
                    choices[-1][j] = mention_i + mention_j + score
        return spans, choices

    def loss(self, sentences, gold):
        """gold: clusters of (sentence, first, last)."""
        spans, choices = self.choices(sentences)
        total = 0.0
        for (*mention, _, _), scores in zip(spans, choices, strict=True):
            mates = [cluster for cluster in gold if tuple(mention) in cluster]
            right = [j for j in scores if mates and spans[j][:3] in mates[0]]
            everything = 1 + sum(score.exp() for score in scores.values())
            good = sum(scores[j].exp() for j in right) if right else 1.0
            total = total - (good / everything).log() if scores else total
        return total / len(spans)

    def clusters(self, sentences):
        spans, choices = self.choices(sentences)
        clusters = [{span[:3]} for span in spans]
        for i, scores in enumerate(choices):
            best = max(scores, key=lambda j: scores[j].item(), default=None)
            if best is not None and scores[best] > 0:
                first, second = (next(c for c in clusters if spans[n][:3] in c) for n in (i, best))
                clusters = [c for c in clusters if c not in (first, second)] + [first | second]
        return sorted(sorted(cluster) for cluster in clusters if len(cluster) > 1)


def crosses(first, second):
    """Whether two spans overlap and neither contains the other."""
    if first[0] != second[0]:
        return False
    words, other_words = (set(range(span[1], span[2] + 1)) for span in (first, second))
    return bool(words & other_words) and not words <= other_words and not other_words <= words


def bucket(distance):
    for number, known in enumerate(
        [(1,), (2,), (3,), (4,), range(5, 8), range(8, 16), range(16, 32), range(32, 64)]
    ):
        if distance in known:
            return number
    return 8
