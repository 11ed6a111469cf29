"""The cache of encoded words."""

import torch

from elmo_hf.embedding.embedder import WordCache


def test_the_cache_holds_the_words_used_last():
    asked = []

    def encode(words):
        asked.append(words)
        return torch.tensor([[float(ord(word))] for word in words])

    cache = WordCache(encode, size=3)
    for words in ("ab", "bc", "a", "d", "cad", "bcdefg", "g"):
        assert cache(list(words)).tolist() == [[float(ord(word))] for word in words]
    # After "a" was used again, "b" is the oldest and gives way to "d"; "c", "a", "d" are then all there.
    assert asked == [["a", "b"], ["c"], ["d"], ["b", "e", "f", "g"]]
    assert len(cache.slots) == 3
