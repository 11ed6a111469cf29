"""Every kind of `ElmoModel` in numpy, from its weights by name: a sentence at a time, without padding.

It shares no code with the package, and computes each letter, word and layer by the formulas.
"""

import numpy as np

SENTENCE_BEGIN, SENTENCE_END, WORD_BEGIN, WORD_END, PADDING = range(5)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def limited(x, limit):
    return x if limit is None else np.clip(x, -limit, limit)


def boundary(config, which):
    """The ids of sentence begin or end: of `char_ids`, or a word's id."""
    word = [config.bos_token_id, config.eos_token_id][which]
    if config.token_encoder == "words":
        return word
    ids = config.boundary_characters
    row = [ids[PADDING]] * config.max_characters_per_token
    row[:3] = ids[WORD_BEGIN], ids[which], ids[WORD_END]
    return row + [1 + word] * (config.word_embedding_dim > 0)


def encode(config, weights, ids):
    """A word's vector (projection_dim), from its row of `char_ids` or its id."""

    def linear(name, x):
        return weights[f"token_encoder.{name}.weight"] @ x + weights[f"token_encoder.{name}.bias"]

    if config.token_encoder == "words":
        x = weights["token_encoder.word_embedding.weight"][ids]
        return linear("projection", x) if config.word_embedding_dim else x
    letters = weights["token_encoder.char_embedding.weight"][list(ids[: config.max_characters_per_token])]
    maxima = []
    for number, (width, _) in enumerate(config.char_filters):
        kernel = weights[f"token_encoder.convolutions.{number}.weight"]  # (filters, dim, width)
        places = [
            np.einsum("ndw,wd->n", kernel, letters[start : start + width])
            for start in range(len(letters) - width + 1)
        ]
        x = np.max(places, axis=0) + weights[f"token_encoder.convolutions.{number}.bias"]
        maxima.append(np.tanh(x) if config.char_activation == "tanh" else np.maximum(x, 0))
    x = np.concatenate(maxima)
    for number in range(config.num_highway_layers):
        gate = sigmoid(linear(f"highways.{number}.carry", x))
        x = gate * np.maximum(linear(f"highways.{number}.transform", x), 0) + (1 - gate) * x
    if config.word_embedding_dim:
        x = np.concatenate([weights["token_encoder.word_embedding.weight"][ids[-1] - 1], x])
    return linear("projection", x) if "token_encoder.projection.weight" in weights else x


def read_direction(config, weights, words, layer, direction):
    """A list of words' vectors through a layer's LSTM, in the order given."""
    name = f"layers.{layer}."
    w, u = weights[name + "input_weight"][direction], weights[name + "recurrent_weight"][direction]
    b, p = weights[name + "bias"][direction], weights.get(name + "projection")
    h, c, outputs = np.zeros(len(u)), np.zeros(len(b) // 4), []
    for x in words:
        i, j, f, o = np.split(x @ w + h @ u + b, 4)
        c = limited(sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j), config.cell_clip)
        h = sigmoid(o) * np.tanh(c)
        h = h if p is None else limited(h @ p[direction], config.proj_clip)
        outputs.append(h + x if config.use_skip_connections and layer else h)
    return outputs


def read_stack(config, weights, words):
    """The top of a stack of LSTMs, each of which reads both directions of the one below."""
    for number in range(config.stacked_lstm_layers):
        halves = []
        for name, order in (("forward", 1), ("backward", -1)):
            prefix = f"layers.0.rnn.{name}_layers.{number}."
            w, u = weights[prefix + "weight_ih_l0"], weights[prefix + "weight_hh_l0"]
            b = weights[prefix + "bias_ih_l0"] + weights[prefix + "bias_hh_l0"]
            h, c, outputs = np.zeros(u.shape[1]), np.zeros(u.shape[1]), []
            for x in words[::order]:
                i, f, j, o = np.split(w @ x + u @ h + b, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(j)
                h = sigmoid(o) * np.tanh(c)
                outputs.append(h)
            halves.append(outputs[::order])
        words = [np.concatenate(pair) for pair in zip(*halves, strict=True)]
    weight, bias = weights["layers.0.projection.weight"], weights["layers.0.projection.bias"]
    return [np.concatenate([weight @ half + bias for half in np.split(x, 2)]) for x in words]


def read(config, weights, sentence):
    """All layers of a sentence of rows or ids, a list of (words, dim)."""
    ids = [boundary(config, 0), *sentence, boundary(config, 1)]
    words = [encode(config, weights, word) for word in ids]
    layers = [[np.concatenate([x, x]) for x in words]]
    if config.stacked_lstm_layers:
        layers.append(read_stack(config, weights, words))
    else:
        forward, backward = words, words[::-1]
        for layer in range(config.num_hidden_layers):
            forward = read_direction(config, weights, forward, layer, 0)
            backward = read_direction(config, weights, backward, layer, 1)
            pairs = zip(forward, backward[::-1], strict=True)
            layers.append([np.concatenate(pair) for pair in pairs])
    return [np.array(layer)[1:-1] for layer in layers]


def mix(weights, layers):
    """The stored mixes, each (words, dim)."""
    shares = np.exp(weights["scalar_mix.weights"])
    shares /= shares.sum(axis=1, keepdims=True)
    return [g * np.tensordot(s, layers, 1) for g, s in zip(weights["scalar_mix.gamma"], shares, strict=True)]
