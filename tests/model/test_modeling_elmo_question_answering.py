"""Question answering: the network by plain loops, the best spans, padding, order, mistakes."""

import numpy as np
import pytest
import torch

from elmo_hf import ElmoLayerCache, ElmoTokenizer
from elmo_hf.model.modeling_elmo_question_answering import best_spans
from elmo_hf.model.words_elmo import split_text
from tests.helpers.small_question_answering import BOTH, CONTEXTS, OPTIONS, PLACES, QUESTIONS, make, pairs

# ---- the network in plain numpy, a row at a time


def gru(layer, x, reverse):
    """torch's own definition of a GRU, for one direction of one sentence (words, dim)."""
    names = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    w, u, b, d = (getattr(layer, name).detach().double().numpy() for name in names)
    h, outputs = np.zeros(u.shape[1]), []
    for word in x[::-1] if reverse else x:
        of_word, of_h = np.split(w @ word + b, 3), np.split(u @ h + d, 3)
        r, z = (1 / (1 + np.exp(-(of_word[i] + of_h[i]))) for i in (0, 1))
        n = np.tanh(of_word[2] + r * of_h[2])
        h = (1 - z) * n + z * h
        outputs.append(h)
    return np.array(outputs[::-1] if reverse else outputs)


def bigru(rnn, x):
    for forward, backward in zip(rnn.forward_layers, rnn.backward_layers, strict=True):
        x = np.concatenate([gru(forward, x, False), gru(backward, x, True)], axis=1)
    return x


def dense(linear, x):
    x = x @ linear.weight.detach().double().numpy().T
    return x if linear.bias is None else x + linear.bias.detach().double().numpy()


def fit(similarity, x, y):
    a, b, c = similarity.weight.detach().double().numpy()
    return sum(a[k] * x[k] + b[k] * y[k] + c[k] * x[k] * y[k] for k in range(len(x)))


def shares(scores):
    weights = [np.exp(score - max(scores)) for score in scores]
    return [weight / sum(weights) for weight in weights]


def attend(similarity, h, question):
    scores = [[fit(similarity, word, other) for other in question] for word in h]
    q = sum(share * word for share, word in zip(shares([max(row) for row in scores]), h, strict=True))
    rows = []
    for word, row in zip(h, scores, strict=True):
        c = sum(share * other for share, other in zip(shares(row), question, strict=True))
        rows.append(np.concatenate([word, c, word * c, word * q]))
    return np.array(rows)


def attend_to_itself(attention, h):
    rows = []
    for i, word in enumerate(h):
        others = [other for j, other in enumerate(h) if j != i]
        scores = [fit(attention.similarity, word, other) for other in others]
        *of_words, _ = shares([*scores, attention.nothing.item()])
        c = sum((share * other for share, other in zip(of_words, others, strict=True)), np.zeros_like(word))
        rows.append(np.concatenate([word, c, word * c]))
    return np.array(rows)


def mixed(mix, layers):
    weights = shares(mix.weights.detach().double().numpy()[0])
    return mix.gamma.item() * sum(w * layer for w, layer in zip(weights, layers, strict=True))


def naive_scores(model, question, context):
    """Scores of start and end at each word of the context; both texts are read by the biLM on their own."""
    read = []
    for text in (question, context):
        encoding = ElmoTokenizer()(text, return_tensors="pt")
        with torch.no_grad():
            layers = model.elmo(**encoding, output_hidden_states=True).hidden_states
        layers = [layer[0].double().numpy() for layer in layers]
        h = bigru(model.rnn, mixed(model.input_mix, layers))
        read.append(np.concatenate([h, mixed(model.output_mix, layers)], axis=1))
    h = attend(model.attention.similarity, read[1], read[0])
    h = np.maximum(dense(model.attention_linear, h), 0)
    around = attend_to_itself(model.self_attention, bigru(model.self_rnn, h))
    h = h + np.maximum(dense(model.self_linear, around), 0)
    at_start = bigru(model.start_rnn, h)
    at_end = bigru(model.end_rnn, np.concatenate([h, at_start], axis=1))
    return dense(model.start_classifier, at_start)[:, 0], dense(model.end_classifier, at_end)[:, 0]


@pytest.mark.parametrize("layers", [1, 2])
def test_the_network_equals_plain_loops(layers):
    model = make(elmo_at_output=True, task_num_layers=layers).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # nothing may hide in a zero or a one
            if not name.startswith("elmo."):
                parameter.add_(0.3 * torch.randn(parameter.shape))
    output = model(**pairs())
    lowest = torch.finfo(torch.float32).min
    for row, (question, context) in enumerate(zip(QUESTIONS, CONTEXTS, strict=True)):
        first, number = len(question.split()) + 2, len(context.split())
        expected = naive_scores(model, question, context)
        for logits, scores in zip((output.start_logits, output.end_logits), expected, strict=True):
            row_logits = logits[row, first : first + number]
            torch.testing.assert_close(row_logits, torch.tensor(scores).float(), atol=1e-5, rtol=1e-5)
            assert (logits[row, :first] == lowest).all()
            assert (logits[row, first + number :] == lowest).all()


def test_the_loss_is_the_mean_of_both_cross_entropies():
    model = make(mix_l2=0.5, **BOTH).eval()
    with torch.no_grad():
        model.input_mix.weights.copy_(torch.tensor([[1.0, 2.0, 0.0]]))
    output = model(**pairs(places=PLACES))
    logits = torch.stack([output.start_logits, output.end_logits])
    picked = [
        logits[side, row].double().log_softmax(0)[PLACES[row, side]] for side in (0, 1) for row in range(3)
    ]
    torch.testing.assert_close(output.loss.double(), -sum(picked) / 6 + 0.5 * 5)


def test_every_weight_is_trained():
    model = make(freeze_elmo=False, task_word_dim=3, **BOTH)
    model(**pairs(places=PLACES)).loss.backward()
    idle = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not [name for name in idle if not name.startswith("elmo.")]


# ---- spans


def plain_best_spans(start, end, length, max_length, number):
    spans = [
        (-(start[first] + end[last]), last - first, first)
        for first in range(length)
        for last in range(first, min(length, first + max_length))
    ]
    return [(first, first + distance, -negative) for negative, distance, first in sorted(spans)[:number]]


@pytest.mark.parametrize("seed", range(30))
def test_the_best_spans_are_those_of_all_spans(seed):
    generator = torch.Generator().manual_seed(seed)
    batch, words, max_length, number = (int(torch.randint(1, 9, (), generator=generator)) for _ in "abcd")
    # Few different numbers, so that many spans are equally good.
    start, end = torch.randint(-2, 3, (2, batch, words), generator=generator).float()
    lengths = torch.randint(0, words + 1, (batch,), generator=generator)
    mask = torch.arange(words) < lengths[:, None]
    spans, scores = best_spans(start, end, mask, max_length, number)
    for row, length in enumerate(lengths.tolist()):
        expected = plain_best_spans(start[row].tolist(), end[row].tolist(), length, max_length, number)
        best = [
            (*span, score)
            for span, score in zip(spans[row].tolist(), scores[row].tolist(), strict=True)
            if span[0] >= 0
        ]
        assert best == expected
        padding = spans[row, len(expected) :]
        assert (padding == -100).all()
        assert scores[row, len(expected) :].isneginf().all()


@pytest.mark.parametrize("max_answer_length", [1, 2, 17])
def test_decoding_finds_the_places_in_the_row(max_answer_length):
    model = make(max_answer_length=max_answer_length, **BOTH).eval()
    batch = pairs(padding_side="left")
    output = model(**batch)
    for row, span in enumerate(model.decode(**batch).tolist()):
        is_context = (output.start_logits[row] > torch.finfo(torch.float32).min).nonzero().flatten().tolist()
        start = output.start_logits[row, is_context].tolist()
        end = output.end_logits[row, is_context].tolist()
        ((first, last, _),) = plain_best_spans(start, end, len(start), max_answer_length, 1)
        assert span == [is_context[first], is_context[last]]


# ---- padding, order, parts


@pytest.mark.parametrize("options", OPTIONS)
def test_padding_and_other_rows_change_nothing(options):
    model = make(**options).eval()
    batch, width = pairs(places=PLACES), pairs()["input_ids"].shape[1]
    left = pairs(padding_side="left", pad_to_multiple_of=width + 5)
    lengths = batch["attention_mask"].sum(dim=1)
    moved = PLACES + (width + 5 - lengths)[:, None]
    left["start_positions"], left["end_positions"] = moved.T
    output, padded = model(**batch), model(**left)
    torch.testing.assert_close(padded.loss, output.loss)
    decoded = model.decode(**pairs())
    assert torch.equal(model.decode(**pairs(padding_side="left")), decoded + (width - lengths)[:, None])
    losses = []
    for row, length in enumerate(lengths.tolist()):
        alone = pairs(QUESTIONS[row : row + 1], CONTEXTS[row : row + 1], PLACES[row : row + 1])
        single = model(**alone)
        losses.append(single.loss)
        for name in ("start_logits", "end_logits"):
            torch.testing.assert_close(output[name][row, :length], single[name][0])
            torch.testing.assert_close(padded[name][row, -length:], single[name][0])
    torch.testing.assert_close(output.loss, sum(losses) / 3)


def test_the_order_of_a_batch_changes_nothing():
    model = make(**BOTH).eval()
    batch, order = pairs(places=PLACES), torch.tensor([2, 0, 1])
    output = model(**{name: value[order] for name, value in batch.items()})
    expected = model(**batch)
    torch.testing.assert_close(output.loss, expected.loss)
    torch.testing.assert_close(output.start_logits, expected.start_logits[order])
    torch.testing.assert_close(output.end_logits, expected.end_logits[order])


def test_question_and_context_are_read_apart():
    """Both texts' layers stand where their words stand in the row; separators have none."""
    model = make(**BOTH).eval()
    batch = pairs(padding_side="left")
    layers = model(**batch, output_hidden_states=True).hidden_states
    assert len(layers) == 3
    for row in range(3):
        read = [
            model.elmo(**ElmoTokenizer()(text, return_tensors="pt"), output_hidden_states=True).hidden_states
            for text in (QUESTIONS[row], CONTEXTS[row])
        ]
        for layer, question, context in zip(layers, *read, strict=True):
            expected = torch.cat([question[0], torch.zeros(2, 16), context[0]])
            torch.testing.assert_close(layer[row, -len(expected) :], expected)


def test_a_cache_reads_a_context_once_for_all_its_questions():
    model, tokenizer = make(**BOTH).eval(), ElmoTokenizer()
    expected = model.answer(QUESTIONS, CONTEXTS[0], tokenizer)
    model.elmo_cache = ElmoLayerCache()
    assert model.answer(QUESTIONS, CONTEXTS[0], tokenizer) == [
        answer | {"score": pytest.approx(answer["score"], rel=1e-4)} for answer in expected
    ]
    assert (model.elmo_cache.encoded, model.elmo_cache.reused) == (4, 2)


def test_the_names_of_special_tokens_are_ordinary_words_of_a_text():
    model, tokenizer = make(**BOTH).eval(), ElmoTokenizer()
    question, context = "Who </S> <S> paid ?", "Ada <UNK> paid </S> <S> at last ."
    questions, contexts = split_text(question, "penn"), split_text(context, "penn")
    batch = tokenizer(
        [questions.words],
        [contexts.words],
        is_split_into_words=True,
        return_token_type_ids=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        output = model(**batch)
    start, end = output.start_logits.softmax(dim=1), output.end_logits.softmax(dim=1)
    places = model.decode(**batch)[0]
    first, last = (places - len(questions.words) - 2).tolist()
    answer = model.answer(question, context, tokenizer)
    assert (answer["start"], answer["end"]) == (contexts.offsets[first][0], contexts.offsets[last][1])
    assert answer["score"] == pytest.approx(float(start[0, places[0]] * end[0, places[1]]), rel=1e-4)


def test_a_question_of_no_words_still_has_a_context():
    """Not by `answer`, which refuses it, but nothing breaks in a batch."""
    model = make(**BOTH).eval()
    batch = pairs(["", "Who ?"], [CONTEXTS[0], ""])
    output = model(**batch)
    assert not output.start_logits.isnan().any()
    assert model.decode(**batch)[1].tolist() == [-100, -100]
    alone = model(**pairs([""], CONTEXTS[:1]))
    torch.testing.assert_close(output.start_logits[0], alone.start_logits[0])


# ---- mistakes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"start_positions": torch.zeros(3, 13, dtype=torch.long)},
            r"start_positions must have the shape \(3,\), but has",
        ),
        (
            {"end_positions": torch.zeros(2, dtype=torch.long)},
            r"end_positions must have the shape \(3,\), but has \(2,\)",
        ),
        (
            {"start_positions": torch.zeros(3)},
            "start_positions must be a tensor of whole numbers, but is of torch.f",
        ),
        ({"end_positions": [8, 4, 9]}, "end_positions must be a tensor of whole numbers, but is list"),
        ({"start_positions": None}, "pass both, or neither"),
        ({"end_positions": None}, "pass both, or neither"),
        ({"start_positions": PLACES[:, 0] - 9}, "start_positions must be from 0 to 15, but holds -5"),
        ({"end_positions": PLACES[:, 1] + 7}, "end_positions must be from 0 to 15, but holds 16"),
        ({"start_positions": torch.tensor([6, 4, 8])}, "start_positions of row 0 is 6, where no word"),
        ({"end_positions": torch.tensor([8, 5, 9])}, "end_positions of row 1 is 5, where no word"),
        ({"end_positions": torch.tensor([8, 4, 7])}, "row 2: the answer ends at 7, before it starts at 8"),
        ({"token_type_ids": torch.zeros(3, 2)}, r"token_type_ids must have the shape \(3, 16\)"),
        ({"token_type_ids": torch.full((3, 16), 2)}, "token_type_ids must be from 0 to 1, but holds 2"),
        ({"token_type_ids": torch.zeros(3, 16)}, "row 0 is no question and context"),
        ({"attention_mask": torch.ones(3, 2)}, r"attention_mask must have the shape \(3, 16\)"),
        ({"attention_mask": torch.zeros(3, 16)}, "row 0 is no question and context"),
        ({"input_ids": torch.zeros(3, 2)}, r"input_ids must have the shape \(3, 16\)"),
        ({"char_ids": None}, "needs char_ids"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(change, message):
    with pytest.raises(ValueError, match=message) as error:
        make()(**pairs(places=PLACES) | change)
    assert "\n" not in str(error.value)


def test_types_follow_from_the_separators():
    model = make().eval()
    batch = pairs()
    expected = model(**batch)
    types = batch.pop("token_type_ids")
    assert torch.equal(model(**batch).start_logits, expected.start_logits)
    between = ElmoTokenizer()(["a"], ["b </S> <S> c"], return_token_type_ids=True, return_tensors="pt")
    assert model(**between).start_logits.shape == (1, 7)
    del between["token_type_ids"]
    with pytest.raises(ValueError, match="row 0 has '</S> <S>' in 2 places, so token_type_ids must tell"):
        model(**between)
    vectors = model.elmo.word_vectors(batch["input_ids"], batch["char_ids"])
    mask = batch["attention_mask"]
    by_vectors = model(inputs_embeds=vectors, attention_mask=mask, token_type_ids=types)
    torch.testing.assert_close(by_vectors.end_logits, expected.end_logits)
    with pytest.raises(
        ValueError, match="inputs_embeds need token_type_ids, which tell question and context"
    ):
        model(inputs_embeds=vectors, attention_mask=mask)


def test_a_pair_without_separators_is_refused():
    batch = pairs(add_special_tokens=False)
    with pytest.raises(ValueError, match="row 0 is no question and context with '</S> <S>' between them"):
        make()(**batch)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.uint8])
def test_places_may_be_any_whole_numbers(dtype):
    model, batch = make().eval(), pairs(places=PLACES)
    expected = model(**batch).loss
    for name in ("start_positions", "end_positions"):
        batch[name] = batch[name].to(dtype)
    torch.testing.assert_close(model(**batch).loss, expected)


def test_no_questions_have_no_answers():
    none = {name: value[:0] for name, value in pairs().items()}
    model = make().eval()
    assert model(**none).start_logits.shape == (0, 16)
    assert model.decode(**none).shape == (0, 2)
    assert model.answer([], "Nothing", ElmoTokenizer()) == []


@pytest.mark.parametrize(
    ("question", "context", "options", "message"),
    [
        (None, "a", {}, "question must be a string or a list of strings, but is None"),
        ("a", 3, {}, "context must be a string or a list of strings, but is 3"),
        ("a", "b", {"top_k": "2"}, "top_k must be a whole number, at least 1, but is '2'"),
        ("a", "b", {"top_k": 2.5}, "top_k must be a whole number, at least 1, but is 2.5"),
        ("a", "b", {"top_k": True}, "top_k must be a whole number, at least 1, but is True"),
        (
            "a",
            "b",
            {"tokenizer": str.split},
            "tokenizer must be the ElmoTokenizer that was saved with the model",
        ),
    ],
)
def test_a_wrong_call_for_answers_is_one_sentence(question, context, options, message):
    with pytest.raises(ValueError, match=message):
        make().answer(question, context, **{"tokenizer": ElmoTokenizer()} | options)
