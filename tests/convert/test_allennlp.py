"""AllenNLP's archives and state dicts: the biLM, its mixes, and taggers, against numpy and plain torch."""

import itertools
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elmo_hf import ElmoForTokenClassification, ElmoModel, ElmoTokenizer
from elmo_hf.convert import convert
from elmo_hf.convert.bilm import weights_table
from elmo_hf.errors import ElmoError
from tests.helpers import reference
from tests.helpers.allennlp_files import (
    LABELS,
    PREFIX,
    Tagger,
    bilm_weights,
    packed_state,
    read,
    state_of,
    tagger_members,
    training,
    write_archive,
)
from tests.helpers.bilm_files import read_hdf5
from tests.helpers.paths import SHARED

FIXTURE = SHARED / "fixtures" / "allennlp_archive"
SENTENCES = [["Ann", "saw", "日本", "."], ["No"], ["It", "was", "the", "<S>", "bank"]]


def options(**changes: Any) -> dict:
    """AllenNLP's biLM has residual connections in any case."""
    return reference.options(**{"use_skip_connections": True, **changes})


def layers_of(folder: Path) -> list[list[np.ndarray]]:
    """The layers of each sentence, of all sentences in one padded batch."""
    model, tokenizer = ElmoModel.from_pretrained(folder), ElmoTokenizer.from_pretrained(folder)
    batch = tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model.eval()(**batch, output_hidden_states=True).hidden_states
    return [[layer[i, : len(s)].numpy() for layer in states] for i, s in enumerate(SENTENCES)]


def assert_close(ours: list[list[np.ndarray]], theirs: list[list[np.ndarray]]) -> None:
    for ours_of_one, theirs_of_one in zip(ours, theirs, strict=True):
        assert len(ours_of_one) == len(theirs_of_one)
        for ours_layer, theirs_layer in zip(ours_of_one, theirs_of_one, strict=True):
            np.testing.assert_allclose(ours_layer, theirs_layer, atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_a_random_bilm_gives_the_references_layers(seed: int, tmp_path: Path) -> None:
    """Sizes, layers and options at random, also with a projection that does not make smaller."""
    content = reference.random_options(seed, use_skip_connections=True)
    if seed % 2:
        content["lstm"]["projection_dim"] = content["lstm"]["dim"] + seed // 2
    weights = bilm_weights(content, seed)
    state = state_of(weights, prefix=["", "a.b._elmo.", PREFIX][seed % 3])
    (tmp_path / "best.th").write_bytes(packed_state(state, is_zip=seed > 2))
    (tmp_path / "options.json").write_text(json.dumps(content))
    plan = convert([tmp_path], tmp_path / "elmo")
    assert not plan.assumed
    assert not plan.left
    assert_close(layers_of(tmp_path / "elmo"), read(content, weights, SENTENCES))


def test_an_archives_options_are_taken_and_what_it_does_not_say_is_assumed(tmp_path: Path) -> None:
    content = options(cell_clip=0.3, activation="tanh", max_characters=20)
    weights = bilm_weights(content, 0)
    members: dict[str, Any] = {"weights.th": packed_state(state_of(weights))}
    path = write_archive(tmp_path / "model.tar.gz", members)
    plan = convert([path], tmp_path / "assumed")
    assert [line.split(" is ")[0] for line in plan.assumed] == [
        "cell_clip", "proj_clip", "char_activation", "max_characters_per_token", "use_skip_connections"
    ]  # fmt: skip
    assert_close(layers_of(tmp_path / "assumed"), read(options(cell_clip=3, proj_clip=3), weights, SENTENCES))
    chosen = {"cell_clip": 0.3, "proj_clip": 0.25, "char_activation": "tanh", "max_characters_per_token": 20}
    plan = convert([path], tmp_path / "chosen", settings=chosen)
    assert [line.split(" is ")[0] for line in plan.assumed] == ["use_skip_connections"]
    expected = read(content, weights, SENTENCES)
    assert_close(layers_of(tmp_path / "chosen"), expected)
    members["config.json"] = json.dumps(training("BIO"))
    for number, name in enumerate(["elmo_options.json", "fta/model.x.options_file"]):
        other = json.dumps(options(dim=5))  # of another biLM
        write_archive(path, {**members, name: json.dumps(content), "fta/a.options_file": other})
        assert not convert([path], tmp_path / str(number)).assumed
        assert_close(layers_of(tmp_path / str(number)), expected)


def test_mixes_are_those_of_the_task(tmp_path: Path) -> None:
    content = options()
    mixes = [(0.5, -1.0, 2.0, 1.5), (0.0, 3.0, 0.25, -0.5)]
    weights = bilm_weights(content, 0)
    (tmp_path / "weights.th").write_bytes(packed_state(state_of(weights, mixes=mixes)))
    chosen = {"cell_clip": 0.75, "proj_clip": 0.25}
    convert([tmp_path / "weights.th"], tmp_path / "elmo", settings=chosen)
    model, tokenizer = (
        ElmoModel.from_pretrained(tmp_path / "elmo"),
        ElmoTokenizer.from_pretrained(tmp_path / "elmo"),
    )
    batch = tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        ours = model.eval().scalar_mix(model(**batch, output_hidden_states=True).hidden_states)
    layers = read(content, weights, SENTENCES)
    for (*scalars, gamma), mixed in zip(mixes, ours, strict=True):
        for row, expected in enumerate(reference.scalar_mix(layers, np.array(scalars), gamma)):
            np.testing.assert_allclose(mixed[row, : len(expected)], expected, atol=1e-5)


def test_one_of_several_bilms_is_chosen_by_its_name(tmp_path: Path) -> None:
    states = [state_of(bilm_weights(options(), seed), f"{name}._elmo.") for seed, name in enumerate("ab")]
    state = {**states[0], **states[1], "crf.x": torch.zeros(2), "b.c": torch.zeros(1)}
    (tmp_path / "best.th").write_bytes(packed_state(state))
    with pytest.raises(ElmoError, match=r"best\.th holds several biLMs; choose one by --name: a, b\.$"):
        convert([tmp_path], tmp_path / "elmo")
    with pytest.raises(ElmoError, match=r"holds no single biLM named 'c'; choose one by --name: a, b\.$"):
        convert([tmp_path], tmp_path / "elmo", name="c")
    plan = convert([tmp_path], tmp_path / "elmo", name="b", settings={"cell_clip": 0.75, "proj_clip": 0.25})
    assert any(line == "1 tensor of 'crf'" for line in plan.left)
    expected = read(options(), bilm_weights(options(), 1), SENTENCES)
    assert_close(layers_of(tmp_path / "elmo"), expected)


def test_words_computed_beforehand_are_left_out(tmp_path: Path) -> None:
    state = state_of(bilm_weights(options(), 0))
    for name in ("_word_embedding.weight", "_bos_embedding", "_eos_embedding"):
        state[f"{PREFIX}_elmo_lstm.{name}"] = torch.zeros(2, 8)
    (tmp_path / "best.th").write_bytes(packed_state(state))
    plan = convert([tmp_path], tmp_path / "elmo", dry_run=True)
    assert plan.left == ["vectors of words that were computed beforehand; the letters give them anew"]
    assert not (tmp_path / "elmo").exists()


def test_the_rounding_of_the_forget_bias_is_counted(tmp_path: Path) -> None:
    state = state_of(bilm_weights(options(n_layers=1), 0))
    name = f"{PREFIX}_elmo_lstm._elmo_lstm.forward_layer_0.state_linearity.bias"
    state[name][12:24] = torch.tensor(
        [1.5, 2.0, 1e-9, 0.1, -3e-8, *[1.0] * 7]
    )  # two lose digits, and 0.1 does not
    other = name.replace("forward", "backward")
    state[other][12:24] = 1.25
    (tmp_path / "best.th").write_bytes(packed_state(state))
    plan = convert([tmp_path], tmp_path / "elmo", dry_run=True)
    numbers = state[name][12:24].numpy()
    differing = int(((numbers - np.float32(1)) + np.float32(1) != numbers).sum())
    assert differing >= 2
    assert f": {differing} of 24 numbers then differ, by at most " in plan.changed[0]


@pytest.mark.parametrize("source", ["model.tar.gz", "best.th", ""])
def test_allennlps_own_archive_has_the_hdf5s_bits(source: str, tmp_path: Path) -> None:
    if not FIXTURE.exists():
        pytest.skip("AllenNLP's test archive is not here")
    plan = convert([FIXTURE / source], tmp_path / "elmo")
    assert plan.left == ["16 tensors of 'encoder'", "2 tensors of 'tag_projection_layer'"]
    model = ElmoModel.from_pretrained(tmp_path / "elmo")
    arrays = read_hdf5(FIXTURE.parent / "allennlp" / "lm_weights.hdf5")
    parameters = {f"elmo.{name}": value.detach() for name, value in model.state_dict().items()}
    for entry in weights_table(model.config):
        theirs = arrays[entry.array]
        ours = entry.view(parameters).numpy()
        theirs = theirs[entry.first_row : entry.first_row + len(ours)]
        if entry.array.endswith("/B"):
            cells = model.config.lstm_dim
            forget = slice(2 * cells, 3 * cells)
            np.testing.assert_allclose(ours[forget], theirs[forget], atol=6e-8, rtol=0)
            ours, theirs = np.delete(ours, np.r_[forget]), np.delete(theirs, np.r_[forget])
        assert np.array_equal(ours, theirs), entry.array


# ---- taggers

WORDS = ["@@UNKNOWN@@", "saw", "Ann", "ann", "bank", "日本"]


def write_tagger(
    path: Path,
    scheme: str,
    words: bool = False,
    layers: int = 1,
    has_ends: bool = True,
    embedder: str = "tokens",
) -> tuple[Tagger, Any]:
    """An archive; its tagger, and a function from sentences to the vectors that the tagger reads."""
    content = options()
    weights, mix = bilm_weights(content, 3), (0.5, -1.0, 2.0, 1.5)
    table = np.random.default_rng(0).normal(size=(1 + len(WORDS), 5)).astype("f4")
    tagger = Tagger(scheme, 16 + 5 * words, 3, layers, seed=5, has_ends=has_ends)
    state = {**state_of(weights, mixes=[mix]), **tagger.state()}
    settings = training(scheme, layers, words=words)
    if words:
        state[f"text_field_embedder.token_embedder_{embedder}.weight"] = torch.from_numpy(table)
        for entries in (
            settings["model"]["text_field_embedder"]["token_embedders"],
            settings["dataset_reader"]["token_indexers"],
        ):
            entries[embedder] = entries.pop("tokens")
    members = tagger_members(content, state, settings, tagger.labels, WORDS if words else ())
    write_archive(path, members)

    def vectors(sentences: list[list[str]]) -> list[np.ndarray]:
        mixed = reference.scalar_mix(read(content, weights, sentences), np.array(mix[:-1]), mix[-1])
        if not words:
            return mixed
        rows = [[1 + WORDS.index(w if w in WORDS else "@@UNKNOWN@@") for w in s] for s in sentences]
        pairs = [(vector, table[row]) for vector, row in zip(mixed, rows, strict=True)]
        return [np.concatenate(p if embedder > "elmo" else p[::-1], axis=1) for p in pairs]

    return tagger, vectors


@pytest.mark.parametrize(
    ("scheme", "words", "layers", "has_ends", "embedder"),
    [
        ("BIOUL", False, 2, False, "tokens"),
        ("BIO", True, 1, True, "tokens"),
        ("none", True, 2, True, "a"),
    ],
)
def test_a_tagger_gives_allennlps_scores_and_labels(
    scheme: str, words: bool, layers: int, has_ends: bool, embedder: str, tmp_path: Path
) -> None:
    tagger, vectors = write_tagger(tmp_path / "model.tar.gz", scheme, words, layers, has_ends, embedder)
    plan = convert([tmp_path / "model.tar.gz"], tmp_path / "tagger")
    assert plan.model_class is ElmoForTokenClassification
    assert not plan.left
    model = ElmoForTokenClassification.from_pretrained(tmp_path / "tagger").eval()
    tokenizer = ElmoTokenizer.from_pretrained(tmp_path / "tagger")
    assert model.config.id2label == dict(enumerate(LABELS[scheme]))
    batch = tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        ours = model._scores(model.read(batch["input_ids"], batch["char_ids"], batch["attention_mask"]))
    for row, theirs in enumerate(tagger.scores(vectors(SENTENCES))):
        torch.testing.assert_close(ours[row, : len(theirs)], theirs, atol=2e-5, rtol=0)
        expected = tagger.decode(theirs)
        assert model.decode(**batch)[row, : len(theirs)].tolist() == expected
    # Scores at random, so that the rules matter.
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        scores = 3 * torch.randn(1, 4, len(tagger.labels), generator=generator)
        decoded = model.crf.decode(scores, torch.ones(1, 4, dtype=torch.bool))
        assert decoded[0].tolist() == tagger.decode(scores[0])


def set_in(content: dict, path: str, value: Any) -> None:
    *names, last = path.split("/")
    for name in names:
        content = content[name]
    content[last] = value


ELMO = "model/text_field_embedder/token_embedders/elmo"
WHY_NOT = {
    "dataset_reader/token_indexers/tokens/lowercase_tokens": (True, "it looks words up in lower case"),
    "dataset_reader/token_indexers/tokens/type": ("characters", "it reads 'tokens' beside ELMo"),
    "dataset_reader/token_indexers/elmo/tokens_to_add": ({"a": 1}, "it reads letters in another way"),
    f"{ELMO}/do_layer_norm": (True, "it normalises or projects ELMo's layers"),
    f"{ELMO}/projection_dim": (3, "it normalises or projects ELMo's layers"),
    "model/encoder/type": ("gru", "its encoder is no bidirectional 'lstm', but 'gru'"),
    "model/encoder/bidirectional": (False, "its encoder is no bidirectional 'lstm'"),
    "model/encoder": ([], "its encoder is no bidirectional 'lstm', but 'None'"),
    "model/type": ("simple_tagger", "its type is 'simple_tagger'"),
    "model/label_weights": ({"O": 2}, "its labels have weights"),
    "model": ({"type": "crf_tagger"}, "it reads other vectors beside ELMo"),
}


@pytest.mark.parametrize("path", WHY_NOT)
def test_a_tagger_that_computes_something_else_leaves_its_bilm_and_mix(path: str, tmp_path: Path) -> None:
    value, reason = WHY_NOT[path]
    write_tagger(tmp_path / "model.tar.gz", "BIO", words=True)
    with tarfile.open(tmp_path / "model.tar.gz") as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    content = json.loads(members["config.json"])
    set_in(content, path, value)
    write_archive(tmp_path / "model.tar.gz", {**members, "config.json": json.dumps(content)})
    plan = convert([tmp_path / "model.tar.gz"], tmp_path / "elmo")
    assert plan.model_class is ElmoModel
    assert plan.left[0].startswith(f"the tagger, since {reason}")
    assert {"4 tensors of 'crf'", "1 tensor of 'text_field_embedder.token_embedder_tokens'"} <= set(plan.left)
    model = ElmoModel.from_pretrained(tmp_path / "elmo")
    assert model.config.mix_layer_norm is (path == f"{ELMO}/do_layer_norm")
    torch.testing.assert_close(model.scalar_mix.weights, torch.tensor([[0.5, -1.0, 2.0]]))
    torch.testing.assert_close(model.scalar_mix.gamma, torch.tensor([1.5]))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.json", None, "config.json or vocabulary/labels.txt is not there"),
        ("vocabulary/labels.txt", None, "config.json or vocabulary/labels.txt is not there"),
        ("vocabulary/labels.txt", "O\nB-PER\n", "vocabulary/labels.txt has 2 labels"),
        ("vocabulary/labels.txt", "O\nO\nA\nB\nC\n", "its labels have no names of their own"),
        ("vocabulary/labels.txt", "I-PER\nB-PER\nO\nB-LOC\nI-LOC\n", "its rules of labels are neither"),
        ("vocabulary/tokens.txt", None, "vocabulary/tokens.txt, the words of its table, is not there"),
        ("vocabulary/tokens.txt", "@@UNKNOWN@@\na\n", "its table of words is not one of the 2 words"),
        ("vocabulary/tokens.txt", "@@UNKNOWN@@\na\nb\nc\na\nd\n", "vocabulary/tokens.txt has words that"),
        ("vocabulary/tokens.txt", "a\nb\nc\ne\nf\nd\n", "vocabulary/tokens.txt has words that"),
    ],
)
def test_a_tagger_whose_vocabulary_does_not_fit_is_left(
    name: str, content: str | None, reason: str, tmp_path: Path
) -> None:
    write_tagger(tmp_path / "model.tar.gz", "BIO", words=True)
    with tarfile.open(tmp_path / "model.tar.gz") as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    del members[name]
    if content is not None:
        members[name] = content.encode()
    write_archive(tmp_path / "model.tar.gz", members)
    plan = convert([tmp_path / "model.tar.gz"], tmp_path / "elmo", dry_run=True)
    assert plan.left[0].startswith(f"the tagger, since {reason}")


def test_rules_that_we_lack_leave_the_tagger(tmp_path: Path) -> None:
    write_tagger(tmp_path / "model.tar.gz", "IOB1")
    plan = convert([tmp_path / "model.tar.gz"], tmp_path / "elmo", dry_run=True)
    assert plan.left[0] == "the tagger, since its rules of labels are neither BIO nor BIOUL"


# ---- refusals

BASE = f"{PREFIX}_elmo_lstm."


@pytest.mark.parametrize(
    ("name", "new", "words"),
    [
        ("_token_embedder._char_embedding_weights", torch.zeros(261, 4), "has 261 rows, not 262"),
        ("_token_embedder._char_embedding_weights", torch.zeros(4), "must have 2 sizes, but has"),
        ("_token_embedder.char_conv_1.bias", None, "of shape (5,) is missing"),
        ("_token_embedder.char_conv_1.weight", torch.zeros(5, 4), "must have 3 sizes"),
        ("_token_embedder.char_conv_0.weight", None, "char_filters is empty"),
        ("_token_embedder._projection.weight", torch.zeros(8, 3), "must have shape (8, 15), but has (8, 3)"),
        ("_elmo_lstm.forward_layer_0.state_projection.weight", None, "must have 2 sizes, but has None"),
        ("_elmo_lstm.backward_layer_1.input_linearity.weight", torch.zeros(48, 9), "must have shape (48, 8)"),
        ("_elmo_lstm.backward_layer_1.state_linearity.bias", torch.full((48,), torch.nan), "holds NaN"),
        ("_elmo_lstm.backward_layer_1.state_linearity.bias", torch.zeros(48).int(), "must hold float32"),
    ],
)
def test_a_bilm_that_is_not_whole_is_refused(
    name: str, new: torch.Tensor | None, words: str, tmp_path: Path
) -> None:
    state = state_of(bilm_weights(options(), 0))
    del state[BASE + name]
    if new is not None:
        state[BASE + name] = new
    (tmp_path / "best.th").write_bytes(packed_state(state))
    with pytest.raises(ElmoError) as refusal:
        convert([tmp_path / "best.th"], tmp_path / "elmo")
    assert words in str(refusal.value)
    assert str(tmp_path / "best.th") in str(refusal.value)
    assert str(refusal.value).endswith(".")
    assert not (tmp_path / "elmo").exists()


def test_archives_without_weights_or_with_two_are_refused(tmp_path: Path) -> None:
    weights = packed_state(state_of(bilm_weights(options(), 0)))
    for number, names in enumerate([[], ["weights.th", "best.th"]]):
        path = write_archive(tmp_path / f"{number}.tar.gz", {"a": "b", **dict.fromkeys(names, weights)})
        with pytest.raises(
            ElmoError, match=r"must hold weights\.th, but holds (none|weights.* and best.*); give"
        ):
            convert([path], tmp_path / "elmo")


def test_a_named_state_dict_reads_nothing_beside_it(tmp_path: Path) -> None:
    content = options(activation="tanh")
    (tmp_path / "best.th").write_bytes(packed_state(state_of(bilm_weights(content, 0))))
    (tmp_path / "elmo_options.json").write_text(json.dumps(content))
    (tmp_path / "config.json").write_text(json.dumps(training()))
    assert len(convert([tmp_path / "best.th"], tmp_path / "a", dry_run=True).assumed) == 5
    named = [tmp_path / "best.th", tmp_path / "elmo_options.json"]
    assert not convert(named, tmp_path / "a", dry_run=True).assumed
    plan = convert([tmp_path], tmp_path / "a", dry_run=True)
    assert not plan.assumed
    assert plan.config.char_activation == "tanh"


def test_a_serialization_folder_gives_its_best_weights(tmp_path: Path) -> None:
    for seed, name in enumerate(["best.th", "model_state_epoch_0.th", "model_state_epoch_1.th"]):
        (tmp_path / name).write_bytes(packed_state(state_of(bilm_weights(options(), seed))))
    weights = packed_state(state_of(bilm_weights(options(), 3)))
    write_archive(tmp_path / "model.tar.gz", {"weights.th": weights})
    torch.save({"optimizer": {"state": {}}}, tmp_path / "training_state_epoch_1.th")
    clips = {"cell_clip": 0.75, "proj_clip": 0.25}
    named = {0: tmp_path, 2: tmp_path / "model_state_epoch_1.th", 3: tmp_path / "model.tar.gz"}
    for seed, path in named.items():
        convert([path], tmp_path / "out" / str(seed), settings=clips)
        expected = read(options(), bilm_weights(options(), seed), SENTENCES)
        assert_close(layers_of(tmp_path / "out" / str(seed)), expected)


def test_hostile_settings_change_nothing(tmp_path: Path) -> None:
    """Other types than AllenNLP writes, deep and wide."""
    state = {
        **state_of(bilm_weights(options(), 0), mixes=[(0, 0, 0, 1)]),
        **Tagger("BIO", 16, 3, 1, 0, True).state(),
    }
    deep: Any = {}
    for _ in range(400):
        deep = {"a": deep, "options_file": "../../../etc/passwd"}
    contents = [deep, {"model": []}, {"model": {"type": ["x"], "text_field_embedder": 3}}, [], 5, "x"]
    contents += [
        training(text_field_embedder=value) for value in (None, [], {"token_embedders": {"elmo": 1}})
    ]
    for number, content in enumerate(contents):
        members = tagger_members(options(), state, content, LABELS["BIO"])  # type: ignore[arg-type]
        path = write_archive(tmp_path / f"{number}.tar.gz", members)
        plan = convert([path], tmp_path / "elmo", dry_run=True)
        assert plan.model_class is ElmoModel
        assert plan.left[0].startswith("the tagger, since ")
        assert list(itertools.islice(plan.lines(), 1)) == ["AllenNLP's weights of a model, as ElmoModel"]
