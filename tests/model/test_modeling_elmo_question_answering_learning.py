"""Question answering learns, answers in the text's own letters, is saved and loaded elsewhere."""

import json

import pytest
import torch
from transformers import AutoModelForQuestionAnswering, DataCollatorWithPadding

from elmo_hf import ElmoConfig, ElmoForQuestionAnswering, ElmoLayerCache, ElmoModel, ElmoTokenizer
from elmo_hf.metrics.squad import squad_scores
from tests.helpers.small_question_answering import (
    BOTH,
    CONTEXTS,
    OPTIONS,
    PLACES,
    QUESTIONS,
    SMALL,
    make,
    pairs,
)
from tests.helpers.trainers import learns_in_half_precision, train_until_learned

# ---- learning


def random_examples(number):
    """Texts of made-up words; two questions each, with different answers, so that both must be read."""
    generator = torch.Generator().manual_seed(0)

    def draw(high):
        return int(torch.randint(high, (1,), generator=generator))

    def words(length):
        return ["".join("abcdefgh"[draw(8)] for _ in range(4)) for _ in range(length)]

    examples = []
    while len(examples) < number:
        context = words(6 + draw(7))
        for _ in range(2):
            first = draw(len(context))
            answer = " ".join(context[first : first + 1 + draw(4)])
            examples.append((" ".join(words(2 + draw(3))), " ".join(context), answer))
    return examples


def answer_places(questions, contexts, answers):
    starts = [f" {context} ".index(f" {answer} ") for context, answer in zip(contexts, answers, strict=True)]
    before = [len(context[:start].split()) for context, start in zip(contexts, starts, strict=True)]
    first = [len(question.split()) + 2 + n for question, n in zip(questions, before, strict=True)]
    return torch.tensor(
        [[start, start + len(answer.split()) - 1] for start, answer in zip(first, answers, strict=True)]
    )


def test_fifty_examples_are_memorised():
    questions, contexts, answers = zip(*random_examples(50), strict=True)
    sizes = {"lstm_dim": 32, "projection_dim": 16, "task_hidden_size": 24}
    model = make(task_dropout=0.0, elmo_dropout=0.0, **BOTH | sizes)
    batch = pairs(list(questions), list(contexts), answer_places(questions, contexts, answers))
    optimizer = torch.optim.Adam((one for one in model.parameters() if one.requires_grad), lr=0.01)
    model.elmo_cache = ElmoLayerCache()
    references = {str(number): [answer] for number, answer in enumerate(answers)}
    for step in range(400):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        if step % 10 == 9 and loss < 0.2:
            predictions = model.answer(list(questions), list(contexts), ElmoTokenizer())
            texts = {str(number): one["answer"] for number, one in enumerate(predictions)}
            if squad_scores(texts, references) == {"exact_match": 100.0, "f1": 100.0}:
                return
    pytest.fail("still not learnt after 400 steps")


def test_the_trainer_trains_it(tmp_path):
    model, tokenizer = make(task_dropout=0.0, elmo_dropout=0.0, task_hidden_size=16), ElmoTokenizer()
    examples = [
        dict(
            tokenizer(question, context, return_token_type_ids=True),
            start_positions=start,
            end_positions=end,
        )
        for question, context, (start, end) in zip(QUESTIONS, CONTEXTS, PLACES.tolist(), strict=True)
    ]
    train_until_learned(
        model, examples, DataCollatorWithPadding(tokenizer), tmp_path, steps=80, learning_rate=0.01
    )


def test_half_precision():
    learns_in_half_precision(make(**BOTH).eval(), pairs(places=PLACES))


# ---- answers in text

ODD = (
    "  Zoë\u00a0O’Brien,\tthe  “naïve” \U0001d49c-player —\n\npaid\u2009£3.50\u3000to 李明 (née "
    "e\u0301toile…) \U0001f469\u200d\U0001f469\u200d\U0001f467.  "
)


@pytest.mark.parametrize("splitter", ["penn", "whitespace"])
def test_an_answer_is_a_substring_of_the_text(splitter):
    model, tokenizer = make(**BOTH), ElmoTokenizer(word_splitter=splitter)
    offsets = tokenizer(ODD, return_offsets_mapping=True)["offset_mapping"]
    answers = model.answer("Who paid ?", ODD, tokenizer, top_k=10_000, max_answer_length=5)
    expected = {(offsets[i][0], offsets[j][1]) for i in range(len(offsets))
                for j in range(i, min(i + 5, len(offsets)))}  # fmt: skip
    assert {(answer["start"], answer["end"]) for answer in answers} == expected
    assert len(answers) == len(expected)
    assert all(answer["answer"] == ODD[answer["start"] : answer["end"]] for answer in answers)
    assert all(answer["answer"] == answer["answer"].strip() for answer in answers)
    assert model.training  # as before
    scores = [answer["score"] for answer in answers]
    assert scores == sorted(scores, reverse=True)
    assert model.answer("Who paid ?", ODD, tokenizer, max_answer_length=5) == answers[0]


def test_scores_are_probabilities():
    model, tokenizer = make(**BOTH).eval(), ElmoTokenizer()
    answers = model.answer(QUESTIONS[0], CONTEXTS[0], tokenizer, top_k=100, max_answer_length=100)
    with torch.no_grad():
        output = model(**pairs(QUESTIONS[:1], CONTEXTS[:1]))
    start, end = output.start_logits[0].softmax(0), output.end_logits[0].softmax(0)
    assert len(answers) == 9 * 10 // 2
    for answer in answers:
        first = 7 + len(CONTEXTS[0][: answer["start"]].split())
        last = first + len(answer["answer"].split()) - 1
        assert answer["score"] == pytest.approx(float(start[first] * end[last]), rel=1e-5)


def test_many_questions_at_a_time():
    model, tokenizer = make(**BOTH).eval(), ElmoTokenizer()
    alone = [model.answer(*pair, tokenizer) for pair in zip(QUESTIONS, CONTEXTS, strict=True)]
    near = [answer | {"score": pytest.approx(answer["score"], rel=1e-4)} for answer in alone]
    for batch_size in (1, 2, 32):
        assert model.answer(QUESTIONS, CONTEXTS, tokenizer, batch_size=batch_size) == near
    several = model.answer(QUESTIONS, CONTEXTS, tokenizer, top_k=3)
    assert [len(answer) for answer in several] == [3, 1, 3]  # "Nothing" has no more
    assert [answer[0] for answer in several] == near
    tokenizer.padding_side = "left"
    assert model.answer(QUESTIONS, CONTEXTS, tokenizer) == near
    assert model.answer([], CONTEXTS[0], tokenizer) == []
    rows = model.decode(**pairs())
    words = [[None] * (len(q.split()) + 2) + c.split() for q, c in zip(QUESTIONS, CONTEXTS, strict=True)]
    decoded = [" ".join(row[i : j + 1]) for row, (i, j) in zip(words, rows.tolist(), strict=True)]
    assert decoded == [answer["answer"] for answer in alone]


@pytest.mark.parametrize(
    ("question", "context", "options", "message"),
    [
        ("Who ?", ["Ada"], {}, "one question has one context, but context is a list"),
        (["Who ?"], ["Ada", "Bob"], {}, "there are 1 questions, so there must be one context or as many"),
        (["Who ?", 3], "Ada", {}, "question 1 must be a string, but is 3"),
        (["Who ?"], [None], {}, "context 0 must be a string, but is None"),
        ("  ", "Ada", {}, "question 0 has no words"),
        (["Who ?"] * 3, ["Ada", "Bob", " \n"], {"batch_size": 2}, "context 2 has no words"),
        ("Who ?", "Ada", {"top_k": 0}, "top_k must be a whole number, at least 1, but is 0"),
        ("Who ?", "Ada", {"batch_size": 0}, "batch_size must be a whole number, at least 1, but is 0"),
        (
            "Who ?",
            "Ada",
            {"max_answer_length": 0},
            "max_answer_length must be a whole number, at least 1, but is 0",
        ),
    ],
)
def test_inputs_without_an_answer_are_refused(question, context, options, message):
    model = make()
    with pytest.raises(ValueError, match=message) as error:
        model.answer(question, context, ElmoTokenizer(), **options)
    assert "\n" not in str(error.value)
    assert model.training


# ---- saved, and loaded elsewhere


@pytest.mark.parametrize(
    "options", [*OPTIONS, {"token_encoder": "words"}, {"elmo_at_input": False, "task_word_dim": 3}]
)
def test_saving_and_loading_changes_nothing(options, tmp_path):
    model = make(**options).eval()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForQuestionAnswering.from_pretrained(tmp_path)
    assert type(loaded) is ElmoForQuestionAnswering
    for weight in loaded.parameters():  # a product's last bits depend on where in memory its weights lie
        weight.data = weight.data.clone()
    batch = pairs(places=PLACES)
    output, expected = loaded(**batch), model(**batch)
    assert torch.equal(output.loss, expected.loss)
    assert torch.equal(output.start_logits, expected.start_logits)
    assert torch.equal(output.end_logits, expected.end_logits)
    assert torch.equal(loaded.decode(**pairs()), model.decode(**pairs()))
    for (name, weight), loaded_weight in zip(model.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(weight, loaded_weight), name
        assert weight.requires_grad == loaded_weight.requires_grad


def test_a_new_head_on_a_trained_biLM(tmp_path):
    torch.manual_seed(1)
    elmo = ElmoModel(ElmoConfig(**SMALL))
    elmo.save_pretrained(tmp_path)
    model = ElmoForQuestionAnswering.from_pretrained(tmp_path, **BOTH)
    for name, weight in elmo.named_parameters():
        assert torch.equal(model.elmo.get_parameter(name), weight)
    assert model.self_attention.nothing.item() == -1
    assert all(weight.isfinite().all() for weight in model.parameters())


REMOTE = """
    import sys
    import json
    from transformers import AutoModel, AutoModelForQuestionAnswering, AutoTokenizer
    folder, questions, contexts = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForQuestionAnswering.from_pretrained(folder, trust_remote_code=True).eval()
    found = model.answer(questions, contexts, tokenizer, top_k=2)
    AutoModel.from_pretrained(folder, trust_remote_code=True)
    model.save_pretrained(sys.argv[4])
    tokenizer.save_pretrained(sys.argv[4])
    print(json.dumps(found))
"""


def test_a_saved_folder_loads_without_the_package(fork_server, tmp_path):
    """Where the package cannot be imported: loaded, asked, saved there, and loaded again."""
    model, tokenizer = make(**BOTH).eval(), ElmoTokenizer()
    model.save_pretrained(tmp_path / "first")
    tokenizer.save_pretrained(tmp_path / "first")
    auto_map = json.loads((tmp_path / "first" / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModelForQuestionAnswering"] == (
        "modeling_elmo_question_answering.ElmoForQuestionAnswering"
    )
    texts = [json.dumps(QUESTIONS), json.dumps(CONTEXTS)]
    answers = fork_server.run_without_the_package(REMOTE, tmp_path / "first", *texts, tmp_path / "second")
    expected = model.answer(QUESTIONS, CONTEXTS, tokenizer, top_k=2)
    assert answers == [
        [answer | {"score": pytest.approx(answer["score"], rel=1e-4)} for answer in row] for row in expected
    ]
    again = fork_server.run_without_the_package(REMOTE, tmp_path / "second", *texts, tmp_path / "third")
    assert again == answers
