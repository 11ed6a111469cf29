"""Perplexity against the float64 reference, word by word, from all three kinds of states."""

import gzip
import inspect
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from elmo_hf import ElmoConfig, ElmoForPreTraining, ElmoModel, ElmoTokenizer, cli
from elmo_hf.cli import app
from elmo_hf.convert import convert_from_bilm
from elmo_hf.loading import load_language_model
from elmo_hf.pretraining import perplexity as module
from elmo_hf.pretraining.perplexity import perplexity
from tests.helpers.reference import (
    Elmo,
    cross_entropies,
    options,
    random_softmax,
    random_weights,
    write_hdf5,
)

# The special words are not the first lines, so that guessed ids would be wrong.
VOCABULARY = ["the", "</S>", ".", "cat", "<UNK>", "sat", "on", "mat", "The", "Zürich", "<S>", "日本語"]
TEXT = [
    "The cat sat on the mat .",
    "",
    "Zürich",
    "the unheard-of cat , sat ; 日本語",
    "on the mat on the mat the cat the cat sat . The end .",
    "sat sat",
    "<PAD> </S> <S> <UNK> .",
    "The mat .",
]
SENTENCES = [line.split() for line in TEXT if line]
STATES = ("zero", "warm", "carried")


@dataclass
class Case:
    reference: Elmo
    softmax: dict
    folder: Path
    model: ElmoForPreTraining
    tokenizer: ElmoTokenizer

    def perplexity(self, source=TEXT, **options):
        return perplexity(self.model, source, self.tokenizer, **options)


def make_case(folder: Path, **variant) -> Case:
    settings = options(**variant)
    weights = random_weights(settings, 3, 2.0, len(VOCABULARY))
    softmax = random_softmax(settings, 3, len(VOCABULARY))
    source = folder / "bilm"
    source.mkdir()
    (source / "options.json").write_text(json.dumps(settings))
    (source / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    write_hdf5(source / "weights.hdf5", weights)
    write_hdf5(source / "softmax.hdf5", softmax)
    convert_from_bilm([source], folder / "model")
    model, tokenizer = load_language_model(str(folder / "model"))
    model.elmo.warm_up(WARM, tokenizer)
    return Case(Elmo(settings, weights, VOCABULARY), softmax, folder / "model", model, tokenizer)


WARM = ["the cat sat .", "on the mat"]
VARIANTS = {
    "characters": {},
    "words": {"word_level": True},
    "one layer, all cells": {"n_layers": 1, "dim": 8},
}


@pytest.fixture(scope="module", params=VARIANTS)
def case(request, tmp_path_factory) -> Case:
    return make_case(tmp_path_factory.mktemp("case"), **VARIANTS[request.param])


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Case:
    return make_case(tmp_path_factory.mktemp("base"))


# ---- the reference


def losses_of(case: Case, direction: int, words: list[str], h, c):
    """One direction over one sentence; forward never reads `</S>`, backward never `<S>`. -> losses, h, c"""
    first, last = ("<S>", "</S>") if direction == 0 else ("</S>", "<S>")
    words = words if direction == 0 else words[::-1]
    vectors = np.stack([case.reference.word_vector(word) for word in [first, *words]])
    layers, h, c = case.reference.stack(direction, vectors, h, c)
    known = [word if word in VOCABULARY else "<UNK>" for word in [*words, last]]
    return cross_entropies(layers[-1], [VOCABULARY.index(word) for word in known], case.softmax), h, c


def expected(case: Case, states: str, rows: int = 1) -> tuple[float, float]:
    zeros = case.reference.initial(None, 1)
    _, warm = case.reference.run([WARM[0].split()])
    _, warm = case.reference.run([WARM[1].split()], warm)
    start = warm if states == "warm" else zeros
    means = []
    for direction in range(2):
        losses, ends = [], [0] * rows
        held = [tuple(state[:, direction, 0] for state in start)] * rows
        for words in SENTENCES:
            row = ends.index(min(ends))  # the row that ends first
            ends[row] += len(words) + 1
            row_losses, *after = losses_of(case, direction, words, *held[row])
            losses += row_losses
            if states == "carried":
                held[row] = after
        means.append(sum(losses) / len(losses))
    return means[0], means[1]


@pytest.mark.parametrize("states", STATES)
@pytest.mark.parametrize("rows", [1, 3, 20])
def test_losses_are_those_of_the_reference(case, states, rows, monkeypatch):
    wanted_losses = expected(case, states, rows)
    for steps, batch_words in ((1, 1), (4, 9), (50, 4096)):
        monkeypatch.setattr(module, "STEPS", steps)
        result = case.perplexity(states=states, rows=rows, batch_words=batch_words)
        assert (result.forward_loss, result.backward_loss) == pytest.approx(wanted_losses, rel=1e-5)
        assert result.tokens == sum(len(words) + 1 for words in SENTENCES)
        assert result.sentences == len(SENTENCES)


def test_the_three_kinds_of_states_differ(base):
    """Otherwise the test above could not tell them apart."""
    figures = [expected(base, states) for states in STATES] + [expected(base, "carried", rows=3)]
    for direction in range(2):
        column = sorted(figure[direction] for figure in figures)
        assert min(np.diff(column)) > 1e-4


def test_zero_states_equal_the_models_own_losses(base):
    model = ElmoForPreTraining.from_pretrained(base.folder)
    encoding = base.tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")
    labels = encoding["input_ids"].clone()
    labels[5, 0] = base.tokenizer.unk_token_id  # the word <PAD>, which as a label is padding
    encoding["labels"] = labels.where(encoding["attention_mask"].bool(), torch.tensor(-100))
    with torch.no_grad():
        expected_result = model(**encoding)
    result = base.perplexity(SENTENCES)
    assert result.forward_loss == pytest.approx(expected_result.forward_loss.item(), rel=1e-5)
    assert result.backward_loss == pytest.approx(expected_result.backward_loss.item(), rel=1e-5)
    base.model.config.use_warm_state = True
    again, carried = base.perplexity(SENTENCES), base.perplexity(SENTENCES, states="carried", rows=1)
    base.model.config.use_warm_state = False
    assert again == result
    assert carried.forward_loss == pytest.approx(expected(base, "carried")[0], rel=1e-5)


def test_the_models_mean_losses_skip_ignored_labels(base):
    """The label -100."""
    encoding = base.tokenizer([["the", "cat"]], is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        output = base.model(**encoding, labels=torch.tensor([[0, -100]]))
    h, c = (state[:, :, 0] for state in base.reference.initial(None, 1))
    (the, _, end), *_ = losses_of(base, 0, ["the", "cat"], h[:, 0], c[:, 0])
    (_, the_back, begin), *_ = losses_of(base, 1, ["the", "cat"], h[:, 1], c[:, 1])
    assert output.forward_loss.item() == pytest.approx((the + end) / 2, rel=1e-5)
    assert output.backward_loss.item() == pytest.approx((the_back + begin) / 2, rel=1e-5)


# ---- the result


def test_the_perplexities_follow_from_the_losses(base):
    result = base.perplexity()
    forward, backward = math.exp(result.forward_loss), math.exp(result.backward_loss)
    assert (result.forward, result.backward) == pytest.approx((forward, backward))
    assert result.mean == pytest.approx(math.sqrt(forward * backward))
    assert result.arithmetic_mean == pytest.approx((forward + backward) / 2)
    assert result.states == "zero"
    unknown = ["unheard-of", ",", ";", "end", "<PAD>", "<UNK>"]
    assert result.unknown == pytest.approx(len(unknown) / sum(map(len, SENTENCES)))
    assert json.loads(json.dumps(result.to_dict())) == {
        "forward": result.forward,
        "backward": result.backward,
        "mean": result.mean,
        "arithmetic_mean": result.arithmetic_mean,
        "forward_loss": result.forward_loss,
        "backward_loss": result.backward_loss,
        "tokens": result.tokens,
        "sentences": 7,
        "unknown": result.unknown,
        "states": "zero",
    }


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_is_restored(base, training):
    torch.manual_seed(0)
    config = ElmoConfig(
        lstm_dim=6, projection_dim=4, vocab_size=12, dropout=0.5, char_filters=[[1, 4]],
        bos_token_id=10, eos_token_id=1, unk_token_id=4,
    )  # fmt: skip
    model = ElmoForPreTraining(config).train(training)
    first, second = (perplexity(model, TEXT, base.tokenizer, states="carried") for _ in range(2))
    assert first == second == perplexity(model.eval(), TEXT, base.tokenizer, states="carried")
    model.train(training)
    with pytest.raises(ValueError, match="should be text"):
        perplexity(model, ["a", 7], base.tokenizer)
    assert all(module.training == training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


# ---- texts


def test_every_kind_of_text(base, tmp_path):
    plain, packed, records = tmp_path / "text.txt", tmp_path / "text.txt.gz", tmp_path / "text.jsonl"
    plain.write_text("\n".join(TEXT) + "\n", encoding="utf-8")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    records.write_text("".join(json.dumps({"words": line.split()}) + "\n" for line in TEXT))
    expected_result = base.perplexity()
    assert base.perplexity(plain) == base.perplexity(packed, progress=True) == expected_result
    assert base.perplexity(records, tokens_column="words") == expected_result
    assert base.perplexity(words for words in SENTENCES) == expected_result


def test_raw_text_is_split_by_the_tokenizer(base):
    text = ["The cat sat.", "Zürich."]
    assert base.perplexity(text, raw=True) == base.perplexity([["The", "cat", "sat", "."], ["Zürich", "."]])
    assert base.perplexity(text).unknown == pytest.approx(2 / 4)


def test_a_paragraph_is_split_into_sentences(base):
    result = base.perplexity(["The cat sat. Zürich was near.", "Why?"], raw=True, split_sentences=True)
    sentences = [["The", "cat", "sat", "."], ["Zürich", "was", "near", "."], ["Why", "?"]]
    assert result == base.perplexity(sentences)
    assert result.sentences == 3


@pytest.mark.parametrize("states", STATES)
def test_text_is_read_as_a_stream(base, states, monkeypatch):
    """No more sentences are held than are sorted at a time."""
    monkeypatch.setattr(module, "SORTED_AT_ONCE", 40)
    taken, ahead = [0], []
    read_windows = ElmoModel.read_windows

    def watched(self, ids, mask, states):
        ahead.append(taken[0])
        return read_windows(self, ids, mask, states)

    def stream():
        for number in range(200):
            taken[0] = number
            yield SENTENCES[number % len(SENTENCES)]

    monkeypatch.setattr(ElmoModel, "read_windows", watched)
    base.perplexity(stream(), states=states, rows=2, batch_words=20)
    assert len(ahead) > 10
    assert ahead[0] < 30
    assert max(np.diff(ahead)) < 30


def test_sentences_of_similar_length_share_a_batch(base, monkeypatch):
    """There is little padding, and no batch exceeds its budget."""
    shapes = []
    read_windows = ElmoModel.read_windows

    def watched(self, ids, mask, states):
        shapes.append((mask[0].numel(), int(mask[0].sum())))
        return read_windows(self, ids, mask, states)

    monkeypatch.setattr(ElmoModel, "read_windows", watched)
    base.perplexity(SENTENCES * 20, batch_words=64)
    places, words = np.sum(shapes, axis=0)
    assert max(shape[0] for shape in shapes) <= 64
    assert places > 40 * len(shapes)
    assert places < 1.1 * words


# ---- read_windows


@pytest.mark.parametrize("cut", [1, 4, 20])
def test_windows_equal_whole_sentences(case, cut):
    """In one or two windows, with rows of different lengths, from any states: the same outputs."""
    elmo = case.model.elmo
    name = "input_ids" if elmo.config.token_encoder == "words" else "char_ids"
    sentences = [[word for word in words if word != "<PAD>"] for words in SENTENCES]
    lines = [["<S>", *words, "</S>"] for words in sentences]
    options = {"is_split_into_words": True, "padding": True, "return_tensors": "pt"}
    encoding = case.tokenizer(sentences, **options)
    both = [case.tokenizer([line[::step] for line in lines], **options) for step in (1, -1)]
    ids = torch.stack([direction[name] for direction in both])
    mask = torch.stack([direction["attention_mask"] for direction in both]).bool()
    start = tuple(torch.randn_like(state) for state in elmo.zero_states(len(SENTENCES)))
    with torch.no_grad():
        expected_result = elmo(**encoding, states=start, output_states=True, keep_boundaries=True)
        first, states = elmo.read_windows(ids[:, :, :cut], mask[:, :, :cut], start)
        second, states = elmo.read_windows(ids[:, :, cut:], mask[:, :, cut:], states)
    top = torch.cat([first, second], dim=2)
    assert not top[~mask].any()
    for row, line in enumerate(lines):
        columns = [0, *range(1, len(line) - 1), -1]  # the boundaries are the first and last column
        forward, backward = expected_result.last_hidden_state[row, columns].chunk(2, dim=-1)
        torch.testing.assert_close(top[0, row, : len(line)], forward, rtol=0, atol=1e-5)
        torch.testing.assert_close(top[1, row, : len(line)], backward.flip(0), rtol=0, atol=1e-5)
    torch.testing.assert_close(states, expected_result.states, rtol=0, atol=1e-5)


def test_gradients_flow_from_window_to_window(base):
    elmo = ElmoModel.from_pretrained(base.folder, dropout=0.0).train()
    ids = torch.randint(1, 257, (2, 3, 6, 50))

    def gradients(*windows):
        elmo.zero_grad()
        states, tops = None, []
        for window in windows:
            top, states = elmo.read_windows(window, None, states)
            tops.append(top)
        torch.cat(tops, dim=2).square().sum().backward()
        return [parameter.grad.clone() for parameter in elmo.parameters()]

    torch.testing.assert_close(gradients(ids[:, :, :2], ids[:, :, 2:]), gradients(ids))


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        (torch.ones(3, 50), None, r"ids must have the shape \(2, rows, steps, ...\)"),
        (torch.ones(3, 2, 4, 50, dtype=torch.long), None, r"ids must have the shape \(2, rows, steps"),
        (
            torch.ones(2, 2, 4, 20, dtype=torch.long),
            None,
            r"char_ids must have the shape \(batch, words, 50\)",
        ),
        (torch.full((2, 2, 4, 50), 262), None, "char_ids must be from 0 to 261"),
        (
            torch.ones(2, 2, 4, 50, dtype=torch.long),
            torch.ones(2, 2, 3),
            "attention_mask must have the shape",
        ),
    ],
)
def test_windows_of_a_wrong_shape_are_refused(base, ids, mask, message):
    with pytest.raises(ValueError, match=message):
        base.model.elmo.read_windows(ids, mask)


# ---- mistakes


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (TEXT, {"states": "cold"}, "states must be one of zero, warm, carried, but is 'cold'"),
        (TEXT, {"rows": 0}, "rows must be a whole number of at least 1, but is 0"),
        (TEXT, {"batch_words": True}, "batch_words must be a whole number"),
        (["", "  "], {}, "the list is empty; there is no word in it"),
        (["", "  "], {"progress": True}, "the list is empty; there is no word in it"),
        ([[]], {"states": "carried"}, "the list is empty; there is no word in it"),
        ([], {}, "the list is empty"),
        ("nowhere.txt", {}, "there is no file nowhere.txt"),
        ([{"title": "a"}], {}, "name the column of the list to read; it has title"),
    ],
)
def test_mistakes_are_one_sentence(base, source, options, message):
    with pytest.raises(ValueError, match=message):
        base.perplexity(source, **options)


def test_models_and_tokenizers_that_cannot_predict(base, tmp_path):
    elmo = ElmoModel.from_pretrained(base.folder)
    with pytest.raises(ValueError, match="needs an ElmoForPreTraining, but got ElmoModel"):
        perplexity(elmo, TEXT, base.tokenizer)
    with pytest.raises(ValueError, match="the tokenizer has no vocabulary"):
        perplexity(base.model, TEXT, ElmoTokenizer())
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY[::-1]))
    with pytest.raises(ValueError, match="the model has bos_token_id 10, but the tokenizer has 1"):
        perplexity(base.model, TEXT, ElmoTokenizer(tmp_path / "vocab.txt"))
    (tmp_path / "vocab.txt").write_text("\n".join([*VOCABULARY, "more"]))
    with pytest.raises(ValueError, match="the model has vocab_size 12, but the tokenizer has 13"):
        perplexity(base.model, TEXT, ElmoTokenizer(tmp_path / "vocab.txt"))
    with pytest.raises(ValueError, match="this model stores no warm state"):
        perplexity(load_language_model(str(base.folder))[0], TEXT, base.tokenizer, states="warm")
    elmo.save_pretrained(tmp_path / "vectors")
    base.tokenizer.save_pretrained(tmp_path / "vectors")
    with pytest.raises(ValueError, match="vectors has no softmax, so it gives vectors but predicts no words"):
        load_language_model(str(tmp_path / "vectors"))


def test_weights_that_are_not_finite(base):
    model, tokenizer = load_language_model(str(base.folder))
    model.lm_head.bias.data[5] = torch.nan
    with pytest.raises(ValueError, match="the forward loss is nan"):
        perplexity(model, TEXT, tokenizer)
    model.lm_head.bias.data.zero_()
    model.lm_head.bias.data[5] = 300.0  # exp(300) is a number, but no log of a run holds it
    with pytest.raises(ValueError, match=r"the forward loss is 2\d\d\.\d+, which has no perplexity"):
        perplexity(model, TEXT, tokenizer)


# ---- the command


@pytest.fixture
def text_file(tmp_path) -> Path:
    path = tmp_path / "held-out.txt"
    path.write_text("\n".join(TEXT), encoding="utf-8")
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["perplexity", *map(str, arguments)])


def test_the_command_prints_a_table(base, text_file, tmp_path):
    base.model.save_pretrained(tmp_path / "warm")
    base.tokenizer.save_pretrained(tmp_path / "warm")
    for states in STATES:
        result = run(
            text_file, "--model", tmp_path / "warm", "--states", states, "--rows", 2, "--no-progress"
        )
        assert result.exit_code == 0, result.output
        figures = base.perplexity(states=states, rows=2)
        lines = [line.split() for line in result.stdout.splitlines()]
        assert ["forward", f"{figures.forward:.3f}", f"{figures.forward_loss:.4f}"] in lines
        assert ["backward", f"{figures.backward:.3f}", f"{figures.backward_loss:.4f}"] in lines
        assert ["mean", f"{figures.mean:.3f}", f"{math.log(figures.mean):.4f}"] in lines
        assert ["arithmetic", "mean", f"{figures.arithmetic_mean:.3f}"] in lines
        assert f"7 sentences, {figures.tokens} tokens in each direction" in result.stdout
        assert f"{figures.unknown:.2%} of the words are <UNK>" in result.stdout
        assert f"{states} states" in result.stdout


def test_the_command_prints_json(base, text_file):
    result = run(text_file, "--model", base.folder, "--json", "--batch-words", 10)
    assert result.exit_code == 0, result.output
    expected_figures = base.perplexity(batch_words=10).to_dict()
    figures = json.loads(result.stdout)
    assert len(result.stdout.splitlines()) == 1
    assert (figures.pop("command").split()[0], figures.pop("schema")) == ("elmo-hf", 1)
    [[row]] = [entry["rows"] for entry in figures.pop("results")]
    assert row.items() > {name: figures[name] for name in ("mean", "tokens", "states")}.items()
    assert figures.pop("states") == expected_figures.pop("states") == "zero"
    assert figures == pytest.approx(expected_figures, rel=1e-6)
    text_file.write_text("The cat sat.\nZürich.\n", encoding="utf-8")
    for option, tokens in (("--raw", 8), ("--no-progress", 6)):
        result = run(text_file, "--model", base.folder, "--json", option)
        assert json.loads(result.stdout)["tokens"] == tokens
    text_file.write_text("The cat sat. Why?\n", encoding="utf-8")
    result = run(text_file, "--model", base.folder, "--json", "--raw", "--split-sentences")
    assert json.loads(result.stdout)["sentences"] == 2


def test_the_command_reads_the_named_column(base, tmp_path):
    path = tmp_path / "held-out.jsonl"
    rows = [{"verse": line, "text": f"{line} Again."} for line in TEXT]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = run(path, "--model", base.folder, "--json", "--column", "verse")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["tokens"] == base.perplexity().tokens


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.txt"], "there is no file nowhere.txt."),
        (["https://host.example/a.txt"], "https://host.example/a.txt"),
        ([Path(__file__), "--states", "warm"], "this model stores no warm state"),
        ([Path(__file__), "--model", "."], "no ELMo can be loaded from .: "),
    ],
)
def test_mistakes_on_the_command_line(base, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("--model", base.folder, *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("elmo-hf: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_the_command_has_the_arguments_of_the_function():
    function = inspect.signature(perplexity).parameters
    command = inspect.signature(cli.perplexity).parameters
    assert set(command) - {"context", "as_json"} == set(function) - {"tokenizer"}
    shared = (set(command) & set(function)) - {"model", "progress"}
    assert {name: command[name].default for name in shared} == {
        name: function[name].default for name in shared
    }
