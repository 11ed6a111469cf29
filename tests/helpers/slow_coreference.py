"""Lee et al. (2017) as it is written down: span by span, pair by pair, for one document. It takes over the
weights, by their names, and what the biLM and the RNN make of a sentence that is read by itself.

    slow = SlowCoreference(model)
    slow.spans(sentences), slow.clusters(sentences), slow.loss(sentences, gold)
"""

import math

import torch

from elmo_hf import ElmoTokenizer


class SlowCoreference:
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
        """Each sentence's x and h, read by itself."""
        found = []
        for sentence in sentences:
            read = self.model.read(
                **ElmoTokenizer()([sentence], is_split_into_words=True, return_tensors="pt")
            )
            found.append((read.x[0], read.beside(self.model.rnn(read.x, read.mask))[0]))
        return found

    def vector(self, x, h, first, last):
        scores = [self.feed_forward("span_scorer.head", h[word]) for word in range(first, last + 1)]
        total = sum(score.exp() for score in scores)
        head = sum(score.exp() / total * x[first + n] for n, score in enumerate(scores))
        return torch.cat([h[first], h[last], head, self.weights["span_scorer.widths.weight"][last - first]])

    def spans(self, sentences):
        """[(sentence, first, last, mention score, vector)]: the kept ones, in order."""
        every = []
        for number, (x, h) in enumerate(self.words(sentences)):
            for first in range(len(x)):
                for last in range(first, min(first + self.config.max_span_width, len(x))):
                    g = self.vector(x, h, first, last)
                    every.append((number, first, last, self.feed_forward("span_scorer.mention", g), g))
        kept = []
        room = math.floor(self.config.spans_per_word * sum(map(len, sentences)))
        for span in sorted(every, key=lambda span: -span[3].item()):
            if len(kept) < room and not any(crosses(span, other) for other in kept):
                kept.append(span)
        return sorted(kept, key=lambda span: span[:3])

    def choices(self, sentences):
        """For each span, its score with every span that may be its antecedent: [{number: score}]."""
        spans = self.spans(sentences)
        found = []
        for i, (*_, mention_i, g_i) in enumerate(spans):
            found.append({})
            for j, (*_, mention_j, g_j) in enumerate(spans):
                if 0 < i - j <= self.config.max_antecedents:
                    apart = self.weights["pair_scorer.distances.weight"][bucket(i - j)]
                    pair = torch.cat([g_i, g_j, g_i * g_j, apart])
                    score = self.feed_forward("pair_scorer.network", pair)
                    found[-1][j] = mention_i + mention_j + score
        return spans, found

    def loss(self, sentences, gold):
        """gold: clusters of (sentence, first, last)."""
        spans, choices = self.choices(sentences)
        total = 0.0
        for (*place, _, _), scores in zip(spans, choices, strict=True):
            mates = [cluster for cluster in gold if tuple(place) in cluster]
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
                one, other = (next(c for c in clusters if spans[n][:3] in c) for n in (i, best))
                clusters = [c for c in clusters if c not in (one, other)] + [one | other]
        return sorted(sorted(cluster) for cluster in clusters if len(cluster) > 1)


def crosses(one, other):
    if one[0] != other[0]:
        return False
    first, second = (set(range(span[1], span[2] + 1)) for span in (one, other))
    return bool(first & second) and not first <= second and not second <= first


def bucket(distance):
    for number, known in enumerate(
        [(1,), (2,), (3,), (4,), range(5, 8), range(8, 16), range(16, 32), range(32, 64)]
    ):
        if distance in known:
            return number
    return 8
