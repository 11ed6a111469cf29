"""The classifiers: their numbers by hand, padding and order, pairs, mistakes."""

import numpy as np
import pytest
import torch

from elmo_hf import ElmoLayerCache, ElmoTokenizer
from elmo_hf.model.modeling_elmo_classification import attend, max_over, mean_over
from tests.helpers.small_classifiers import (
    CLASSIFIERS,
    FIRST,
    LABELS,
    SECOND,
    encode,
    make,
    make_with_large_weights,
)

# ---- the numbers, once more, one sentence and one word at a time, in float64


def numbers(model):
    return {name: value.numpy() for name, value in model.classifier.state_dict().items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rnn_by_hand(weights, name, x):
    """Every layer from left to right and from right to left: (words, dim) -> (words, 2 * cells)"""
    layer = 0
    while f"{name}.forward_layers.{layer}.weight_ih_l0" in weights:
        halves = []
        for direction in ("forward", "backward"):
            kinds = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
            into, back, bias, more_bias = (
                weights[f"{name}.{direction}_layers.{layer}.{kind}"] for kind in kinds
            )
            h = c = np.zeros(back.shape[1])
            states = []
            for word in x if direction == "forward" else x[::-1]:
                i, f, g, o = np.split(into @ word + back @ h + bias + more_bias, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
                states.append(h)
            halves.append(states if direction == "forward" else states[::-1])
        x = np.array([np.concatenate(pair) for pair in zip(*halves, strict=True)])
        layer += 1
    return x


def dense(weights, name, x):
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def average_by_attention(query, words):
    scores = [float(np.sum(query * word)) for word in words]
    shares = [np.exp(score - max(scores)) for score in scores]
    return sum(share * word for share, word in zip(shares, words, strict=True)) / sum(shares)


def read_by_itself(model, words):
    """What the classifier reads of one sentence without padding, and ELMo for its output (or nothing)."""
    with torch.no_grad():
        read = model.read(**ElmoTokenizer()([words], is_split_into_words=True, return_tensors="pt"))
    x = read.x[0].numpy()
    return x, np.zeros((len(x), 0)) if read.at_output is None else read.at_output[0].numpy()


def bcn_by_hand(model, words):
    weights, (x, elmo) = numbers(model), read_by_itself(model, words)
    x = [np.maximum(dense(weights, "projection", word), 0) for word in x]
    h = rnn_by_hand(weights, "encoder", x)
    context = [average_by_attention(word, h) for word in h]
    h = rnn_by_hand(
        weights,
        "integrator",
        [np.concatenate([word, word - c, word * c]) for word, c in zip(h, context, strict=True)],
    )
    h = np.array([np.concatenate(pair) for pair in zip(h, elmo, strict=True)])
    columns = h.T
    attended = average_by_attention(weights["pooling.weight"][0], h)
    x = np.array([max(column) for column in columns] + [min(column) for column in columns]
                 + [sum(column) / len(column) for column in columns] + list(attended))  # fmt: skip
    pieces = model.config.maxout_pieces
    for number, name in enumerate(["output.1", "output.3", "output.5"] if pieces else
                                  ["output.1", "output.4", "output.7"]):  # fmt: skip
        x = dense(weights, name, x)
        if pieces:
            x = np.array([max(x[start : start + pieces]) for start in range(0, len(x), pieces)])
        elif number < 2:
            x = np.maximum(x, 0)
    return x


def esim_by_hand(model, first, second):
    weights, encoded, pooled = numbers(model), [], []
    for words in (first, second):
        x, elmo = read_by_itself(model, words)
        h = rnn_by_hand(weights, "encoder", x)
        encoded.append([np.concatenate(pair) for pair in zip(h, elmo, strict=True)])
    for own, other in (encoded, encoded[::-1]):
        composed = []
        for word in own:
            y = average_by_attention(word, other)
            enhanced = np.concatenate([word, y, word - y, word * y])
            composed.append(np.maximum(dense(weights, "projection", enhanced), 0))
        columns = rnn_by_hand(weights, "composition", composed).T
        pooled += [sum(column) / len(column) for column in columns] + [max(column) for column in columns]
    hidden = np.maximum(dense(weights, "hidden", np.array(pooled)), 0)
    return dense(weights, "output", hidden)


WHERE = [
    {},
    {"elmo_at_output": True},
    {"elmo_at_input": False, "elmo_at_output": True, "task_char_filters": [[2, 7]]},
    {"elmo_at_input": False, "task_char_filters": [[2, 7]]},
]


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("more", [{}, {"maxout_pieces": 0, "task_num_layers": 1}, {"maxout_pieces": 3}])
def test_the_bcn_by_hand(where, more):
    model = make_with_large_weights("bcn", **where, **more)
    logits = model(**encode("bcn")).logits
    expected = np.array([bcn_by_hand(model, words) for words in FIRST])
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    torch.testing.assert_close(logits, torch.tensor(expected))


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("more", [{}, {"task_num_layers": 1}])
def test_the_esim_by_hand(where, more):
    model = make_with_large_weights("esim", **where, **more)
    logits = model(**encode("esim")).logits
    expected = np.array([esim_by_hand(model, *pair) for pair in zip(FIRST, SECOND, strict=True)])
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    torch.testing.assert_close(logits, torch.tensor(expected))


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_the_loss_is_the_mean_of_minus_the_log_probability(classifier):
    model = make(classifier, mix_l2=0.0).eval()
    output = model(**encode(classifier), labels=LABELS)
    expected = 0.0
    for scores, label in zip(output.logits.tolist(), LABELS.tolist(), strict=True):
        expected += (np.log(sum(np.exp(score) for score in scores)) - scores[label]) / 3
    assert output.loss.item() == pytest.approx(expected, rel=1e-5)


# ---- rows


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_padding_and_order_change_nothing(classifier):
    model = make_with_large_weights(classifier, elmo_at_output=True)
    batch = encode(classifier)
    expected = model(**batch, labels=LABELS)
    for side in ("left", "right"):
        padded = encode(classifier, padding_side=side, pad_to_multiple_of=17)
        output = model(**padded, labels=LABELS)
        torch.testing.assert_close(output.logits, expected.logits)
        noisy = padded["char_ids"].masked_fill(~padded["attention_mask"].bool()[:, :, None], 7)
        torch.testing.assert_close(model(**padded | {"char_ids": noisy}).logits, expected.logits)
    for row in range(3):
        alone = model(**encode(classifier, [row])).logits
        torch.testing.assert_close(alone[0], expected.logits[row])
    order = torch.tensor([2, 0, 1])
    turned = model(**{name: value[order] for name, value in batch.items()}, labels=LABELS[order])
    torch.testing.assert_close(turned.logits, expected.logits[order])
    torch.testing.assert_close(turned.loss, expected.loss)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_rows_without_words(classifier):
    """They have logits of their own, whatever stands beside them, and training goes on."""
    model, tokenizer = make(classifier), ElmoTokenizer()
    second = ["", "Why ?"] if classifier == "esim" else None
    batch = tokenizer(["", "Why ?"], second, padding=True, return_tensors="pt")
    model(**batch, labels=LABELS[:2]).loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    model.eval()
    logits = model(**tokenizer([""], second[:1] if second else None, return_tensors="pt")).logits
    torch.testing.assert_close(model(**batch).logits[0], logits[0])
    assert torch.isfinite(logits).all()


def test_a_batch_of_no_rows():
    none = ElmoTokenizer()([], padding=True, return_tensors="pt")
    for classifier in CLASSIFIERS:
        output = make(classifier, mix_l2=0.0).eval()(**none, labels=torch.zeros(0, dtype=torch.long))
        assert output.logits.shape == (0, 4)
        assert output.loss.item() == 0


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize("options", [{}, {"elmo_at_output": True, "task_word_dim": 7}, {"maxout_pieces": 0}])
def test_every_number_is_learnt(classifier, options):
    model = make(classifier, freeze_elmo=False, task_dropout=0.0, elmo_dropout=0.0, **options)
    model(**encode(classifier), labels=LABELS).loss.backward()
    idle = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    assert not [name for name in idle if not name.startswith("elmo.")], idle
    assert len(idle) < len(list(model.elmo.parameters()))


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_dropout_is_in_training_only(classifier):
    model = make(classifier, elmo_dropout=0.0)
    batch = encode(classifier)
    assert not torch.equal(model(**batch).logits, model(**batch).logits)
    model.eval()
    assert torch.equal(model(**batch).logits, model(**batch).logits)
    still = make(classifier, elmo_dropout=0.0, task_dropout=0.0)
    assert torch.equal(still(**batch).logits, still(**batch).logits)


@pytest.mark.parametrize("pieces", [0, 2])
def test_no_label_is_dropped(pieces):
    """Dropout is on what each output layer reads, and not on the scores of the labels."""
    model = make("bcn", maxout_pieces=pieces, task_dropout=0.9).train()
    with torch.no_grad():
        model.classifier.output[-2 if pieces else -1].bias.fill_(1.0)
    for _ in range(5):
        assert (model(**encode("bcn")).logits != 0).all()


def test_padding_has_no_part_in_attention_and_pooling():
    torch.manual_seed(0)
    words, queries = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    noisy = torch.where(mask[:, :, None], words, 100.0)
    for actual, expected in (
        (attend(queries, noisy, mask), attend(queries[:1], words[:1, ::2], mask[:1, ::2])),
        (mean_over(noisy, mask), words[:1, ::2].mean(dim=1)),
        (max_over(noisy, mask), words[:1, ::2].amax(dim=1)),
    ):
        torch.testing.assert_close(actual[:1], expected)
        assert (actual[1] == 0).all()
    assert max_over(words[:, :0], mask[:, :0]).tolist() == [[0.0] * 4] * 2


# ---- pairs


def test_the_order_of_a_pair_matters_and_token_types_mark_it():
    model = make_with_large_weights("esim")
    batch = encode("esim", return_token_type_ids=True)
    assert "token_type_ids" in batch
    logits = model(**batch).logits
    del batch["token_type_ids"]
    assert torch.equal(model(**batch).logits, logits)
    left = encode("esim", return_token_type_ids=True, padding_side="left", pad_to_multiple_of=16)
    torch.testing.assert_close(model(**left).logits, logits)
    turned = ElmoTokenizer()(SECOND, FIRST, is_split_into_words=True, padding=True, return_tensors="pt")
    assert not torch.allclose(model(**turned).logits, logits, atol=1e-3)


def test_a_sentence_with_separators_needs_token_types():
    model, tokenizer = make_with_large_weights("esim"), ElmoTokenizer()
    first, second = ["a", "</S>", "<S>", "b"], ["c"]
    options = {"is_split_into_words": True, "return_tensors": "pt"}
    batch = tokenizer([first], [second], return_token_type_ids=True, **options)
    logits = model(**batch).logits[0]
    torch.testing.assert_close(logits, torch.tensor(esim_by_hand(model, first, second)))
    del batch["token_type_ids"]
    with pytest.raises(ValueError, match=r"row 0 has `</S> <S>` in 2 places; pass token_type_ids"):
        model(**batch)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_hidden_states_stand_where_the_words_do(classifier):
    model = make(classifier).eval()
    batch = encode(classifier, padding_side="left")
    assert model(**batch).hidden_states is None
    layers = model(**batch, output_hidden_states=True).hidden_states
    assert len(layers) == 3
    n = batch["input_ids"].shape[1]
    for row, first in enumerate(FIRST):
        sentences = [first, SECOND[row]] if classifier == "esim" else [first]
        start = n - sum(map(len, sentences)) - 2 * (len(sentences) - 1)
        assert all((layer[row, :start] == 0).all() for layer in layers)
        for sentence in sentences:
            alone = model.elmo(
                **ElmoTokenizer()([sentence], is_split_into_words=True, return_tensors="pt"),
                output_hidden_states=True,
            ).hidden_states
            for layer, expected in zip(layers, alone, strict=True):
                torch.testing.assert_close(layer[row, start : start + len(sentence)], expected[0])
                assert (layer[row, start + len(sentence) : start + len(sentence) + 2] == 0).all() or (
                    sentence is sentences[-1]
                )
            start += len(sentence) + 2


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_vectors_in_place_of_ids(classifier):
    model = make(classifier).eval()
    batch = encode(classifier, return_token_type_ids=classifier == "esim")
    expected = model(**batch).logits
    letters = model.get_input_embeddings()(batch.pop("char_ids"))
    logits = model(inputs_embeds=letters, **batch).logits
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_a_biLM_with_a_word_table(classifier, tmp_path):
    path = tmp_path / "vocab.txt"
    words = sorted({word for sentence in FIRST + SECOND for word in sentence})
    path.write_text("\n".join(["<S>", "</S>", "<UNK>", *words]), encoding="utf-8")
    tokenizer = ElmoTokenizer(path)
    model = make(classifier, token_encoder="words", vocab_size=tokenizer.vocab_size).eval()
    batch = encode(classifier, tokenizer=tokenizer)
    del batch["char_ids"]
    logits = model(**batch).logits
    alone = encode(classifier, [1], tokenizer=tokenizer)
    torch.testing.assert_close(model(**alone).logits[0], logits[1])


def test_a_premise_is_encoded_once():
    model = make("esim").eval()
    batch = ElmoTokenizer()([FIRST[0]] * 3, SECOND, is_split_into_words=True, padding=True,
                            return_tensors="pt")  # fmt: skip
    expected = model(**batch).logits
    model.elmo_cache = ElmoLayerCache()
    torch.testing.assert_close(model(**batch).logits, expected)
    assert (model.elmo_cache.encoded, model.elmo_cache.reused) == (4, 2)


# ---- mistakes


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([0, 1])}, r"labels must be 3 numbers, .* have the shape \(2,\)"),
        ({"labels": torch.zeros(3, 6, dtype=torch.long)}, r"labels must be 3 numbers, .* the shape \(3, 6\)"),
        ({"labels": torch.tensor([0.0, 1.5, 2.0])}, r"labels must have the shape \(3, 4\), .*have \(3,\)"),
        ({"labels": torch.tensor([0, 4, 1])}, "labels must be from 0 to 3, but holds 4"),
        ({"labels": torch.tensor([0, -100, 1])}, "labels must be from 0 to 3, but holds -100"),
        ({"attention_mask": torch.ones(3, 2)}, r"attention_mask must have the shape \(3, "),
    ],
)
def test_mistakes_are_refused_in_one_sentence(classifier, change, message):
    with pytest.raises(ValueError, match=message) as error:
        make(classifier)(**encode(classifier) | change)
    assert "\n" not in str(error.value)


def types(*rows):
    return {"token_type_ids": torch.tensor(rows)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, r"row 0 is no pair, and classifier 'esim' compares two sentences; call tokenizer\(first, sec"),
        (types([0, 0, 0, 0, 0]), r"row 0: token_type_ids must be 0 up to `</S>` and 1 from the next word"),
        (types([1, 1, 1, 1, 1]), "row 0: token_type_ids must be 0 up to"),
        (types([0, 0, 1, 1, 1]), "row 0: token_type_ids must be 0 up to"),  # no separators there
        (types([0, 1, 2, 2, 2]), "token_type_ids must be from 0 to 1, but holds 2"),
        (types([0, 1]), r"token_type_ids must have the shape \(1, 5\) of the words"),
    ],
)
def test_a_row_that_is_no_pair_is_refused(change, message):
    batch = ElmoTokenizer()([SECOND[1]], is_split_into_words=True, return_tensors="pt")
    with pytest.raises(ValueError, match=message) as error:
        make("esim")(**batch | change)
    assert "\n" not in str(error.value)


def test_vectors_need_token_types_to_split_a_pair():
    with pytest.raises(
        ValueError, match="do not tell where the second sentence of a pair begins; pass token_type_ids"
    ):
        make("esim")(inputs_embeds=torch.zeros(1, 5, 8))


def test_one_text_has_no_types():
    batch = ElmoTokenizer()(["a b"], return_token_type_ids=True, return_tensors="pt")
    with pytest.raises(ValueError, match="'bcn' reads a row as one text and knows no token_type_ids"):
        make("bcn")(**batch)
