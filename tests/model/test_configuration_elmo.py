"""ElmoConfig: every published variant is a setting, and every mistake is one sentence naming its option."""

import json

import pytest
import torch

from elmo_hf import ElmoConfig, ElmoForTokenClassification, ElmoModel, ElmoTokenizer


def test_the_default_is_the_original_model():
    config = ElmoConfig()
    assert (config.lstm_dim, config.projection_dim, config.num_hidden_layers) == (4096, 512, 2)
    assert (config.num_filters, config.num_highway_layers, config.char_embedding_dim) == (2048, 2, 16)
    assert (config.hidden_size, config.output_dim, config.vocab_size) == (1024, 512, 793_471)
    assert config.has_char_projection
    assert config.has_lstm_projection


def test_projections_follow_from_the_sizes():
    config = ElmoConfig(lstm_dim=64, projection_dim=64, char_filters=[[1, 30], [2, 34]])
    assert not config.has_lstm_projection
    assert not config.has_char_projection
    assert config.hidden_size == 128
    assert ElmoConfig(lstm_dim=8, projection_dim=16).hidden_size == 16
    assert ElmoConfig(projection_dim=64, char_filters=[[1, 64]], char_projection=True).has_char_projection


def test_integers_serve_for_floats_and_json_round_trips(tmp_path):
    config = ElmoConfig(cell_clip=3, proj_clip=None, dropout=0, char_filters=[[1, 4]], vocab_size=10)
    config.save_pretrained(tmp_path)
    loaded = ElmoConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict() | {"_name_or_path": ""}
    assert (loaded.cell_clip, loaded.proj_clip, loaded.pad_token_id) == (3, None, 10)
    assert json.loads((tmp_path / "config.json").read_text())["char_filters"] == [[1, 4]]


@pytest.mark.parametrize("name", ["cell_clip", "proj_clip"])
def test_a_whole_number_that_torch_could_not_take_is_a_clip(name):
    sizes = {"char_filters": [[1, 4]], "lstm_dim": 6, "projection_dim": 4, "vocab_size": 5}
    model = ElmoModel(ElmoConfig(**sizes, **{name: 10**30})).eval()
    unlimited = ElmoModel(ElmoConfig(**sizes, **{name: None})).eval()
    unlimited.load_state_dict(model.state_dict())
    words = ElmoTokenizer()(["two words"], return_tensors="pt")
    assert torch.equal(model(**words).last_hidden_state, unlimited(**words).last_hidden_state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell_clp": 3.0}, "no option 'cell_clp'; did you mean 'cell_clip'?"),
        ({"hidden_dim": 3}, "no option 'hidden_dim'"),
        ({"lstm_dim": "64"}, "'lstm_dim' expected int, got str"),
        ({"lstm_dim": 64.5}, "'lstm_dim' expected int, got float"),
        ({"lstm_dim": 0}, "lstm_dim must be at least 1, but is 0"),
        ({"lstm_dim": True}, "'lstm_dim' expected int, got bool"),
        ({"projection_dim": -1}, "projection_dim must be at least 1"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1"),
        ({"num_highway_layers": -1}, "num_highway_layers must be 0 or more"),
        ({"vocab_size": 0}, "vocab_size must be at least 1"),
        ({"char_embedding_dim": 0}, "char_embedding_dim must be at least 1"),
        ({"char_activation": "gelu"}, "'char_activation' expected one of ('relu', 'tanh')"),
        ({"token_encoder": "bytes"}, "'token_encoder' expected one of"),
        ({"char_filters": []}, "char_filters is empty"),
        ({"char_filters": [[1, 2, 3]]}, "char_filters must be [width, number] pairs"),
        ({"char_filters": [[0, 2]]}, "char_filters must be [width, number] pairs of at least 1"),
        ({"char_filters": "1,2"}, "'char_filters'"),
        ({"char_filters": [[60, 1]]}, "filter of width 60, but max_characters_per_token is 50"),
        (
            {"max_characters_per_token": 2, "char_filters": [[1, 2]]},
            "max_characters_per_token must be at least 3",
        ),
        ({"char_projection": False}, "char_projection is False"),
        ({"cell_clip": 0}, "cell_clip must be above 0, or None"),
        ({"proj_clip": float("nan")}, "proj_clip must be above 0, or None"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"use_warm_state": True}, "use_warm_state is True"),
        ({"unk_token_id": 7, "vocab_size": 7}, "unk_token_id must be from 0 to 6"),
        ({"pad_token_id": 9, "vocab_size": 7}, "pad_token_id must be from 0 to 7"),
        ({"elmo_at_input": False}, "a task model would have nothing to read"),
        ({"elmo_at_inptu": False}, "did you mean 'elmo_at_input'?"),
        ({"elmo_layers": "last"}, "'elmo_layers' expected one of ('mix', 'top')"),
        ({"tag_scheme": "IOB1"}, "'tag_scheme'"),
        ({"elmo_dropout": 1}, "elmo_dropout must be at least 0 and below 1"),
        ({"task_dropout": -0.1}, "task_dropout must be at least 0 and below 1"),
        ({"mix_l2": -1.0}, "mix_l2 must be 0 or more"),
        ({"mix_l2": float("nan")}, "mix_l2 must be 0 or more"),
        ({"task_word_dim": -1}, "task_word_dim must be 0 or more"),
        ({"task_hidden_size": 0}, "task_hidden_size must be at least 1"),
        ({"task_num_layers": 0}, "task_num_layers must be at least 1"),
        ({"predicate_dim": 0}, "predicate_dim must be at least 1"),
        (
            {"role_rules": True, "tag_scheme": "none"},
            "role_rules counts roles by their B- labels, so tag_sch",
        ),
        ({"max_answer_length": 0}, "max_answer_length must be at least 1"),
        ({"max_span_width": 0}, "max_span_width must be at least 1"),
        ({"max_antecedents": 0}, "max_antecedents must be at least 1"),
        ({"span_hidden_size": 0}, "span_hidden_size must be at least 1"),
        ({"span_feature_dim": 0}, "span_feature_dim must be at least 1"),
        ({"spans_per_word": 0}, "spans_per_word must be above 0, but is 0"),
        ({"task_char_embedding_dim": 0}, "task_char_embedding_dim must be at least 1"),
        ({"task_char_filters": [[0, 3]]}, "task_char_filters must be [width, number] pairs of at least 1"),
        ({"task_char_filters": [[60, 1]]}, "task_char_filters has a filter of width 60"),
        ({"task_char_filters": [[60, 1]], "token_encoder": "words"}, "task_char_filters has a filter"),
        ({"classifier": "bert"}, "'classifier' expected one of ('bcn', 'esim')"),
        ({"maxout_pieces": 1}, "maxout_pieces must be at least 2, or 0 for ReLU layers instead, but is 1"),
        ({"maxout_pieces": -2}, "maxout_pieces must be"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers must be at most 256, but is 1000000"),
        ({"vocab_size": 2**40}, "vocab_size must be at most 5000000"),
        ({"max_characters_per_token": 10**9}, "max_characters_per_token must be at most 4096"),
        ({"lstm_dim": 10**400}, "lstm_dim must be at most 1048576, but is 1000"),
        ({"char_filters": [[1, 2**31]]}, "char_filters may hold at most 256 pairs, each of at most 1048576"),
        ({"char_filters": [[1, 1]] * 257}, "char_filters may hold at most 256 pairs"),
        ({"num_labels": 10**7}, "num_labels must be from 1 to 16384"),
        ({"num_labels": True}, "num_labels must be from 1 to 16384"),
        ({"id2label": dict.fromkeys(range(16385), "A")}, "id2label has 16385 labels"),
        ({"id2label": {"x": "A"}}, "ElmoConfig: invalid literal for int()"),
        ({"dropout": False}, "'dropout' expected float, got bool"),
        ({"cell_clip": True}, "'cell_clip' expected float, got bool"),
        ({"cell_clip": 10**400}, "cell_clip must be above 0"),
        ({"mix_l2": 10**400}, "mix_l2 must be 0 or more"),
        ({"spans_per_word": 1e300}, "spans_per_word must be above 0"),
        ({"bos_token_id": True}, "bos_token_id"),
        ({"dtype": "int8"}, "dtype must be one of"),
        ({"torch_dtype": [1]}, "dtype must be one of"),
        ({"experts_implementation": "a/b"}, "experts_implementation must be 'eager'"),
        ({"_attn_implementation": "a/b"}, "attn_implementation must be 'eager'"),
        ({"__class__": 1}, "no option '__class__'"),
        ({"x" * 10**5 + "\x1b": 1}, "no option 'xxx"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(options, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is compared below, word for word)
        ElmoConfig(**options)
    assert message in str(error.value)
    assert str(error.value).startswith("ElmoConfig")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 600


def test_a_misspelt_option_in_a_file_is_refused_too(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "elmo", "projction_dim": 3}))
    with pytest.raises(ValueError, match="did you mean 'projection_dim'"):
        ElmoConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mix_l2": -1.0}, "mix_l2 must be 0 or more"),
        ({"task_num_layers": 0}, "task_num_layers must be at least 1"),
        ({"task_word_dim": -3}, "task_word_dim must be 0 or more"),
        ({"elmo_at_input": False}, "a task model would have nothing to read"),
        ({"role_rules": True, "tag_scheme": "none"}, "tag_scheme must not be 'none'"),
        ({"id2label": {1: "A", 2: "B"}}, "id2label must name the labels 0, 1, ..., but has .1, 2."),
        ({"id2label": {0: "A", 1: 1}}, "id2label must hold names, but has 1"),
        ({"id2label": 3}, "id2label must be .0: name, ...., but is 3"),
    ],
)
def test_options_beside_a_checkpoint_are_checked_as_well(tmp_path, options, message):
    ElmoConfig(lstm_dim=12, projection_dim=8).save_pretrained(tmp_path)
    with pytest.raises((ValueError, TypeError), match=message):
        ElmoForTokenClassification.from_pretrained(tmp_path, **options)


def test_options_beside_a_checkpoint_are_as_those_in_its_file(tmp_path):
    ElmoConfig(lstm_dim=12, projection_dim=8, vocab_size=100, pad_token_id=100).save_pretrained(tmp_path)
    names = {"0": "O", "1": "B-X", "2": "I-X"}  # as JSON writes them
    config, unused = ElmoConfig.from_pretrained(
        tmp_path, vocab_size=7, task_word_dim=2, id2label=names, return_unused_kwargs=True, spare=1
    )
    assert unused == {"spare": 1}
    assert (config.lstm_dim, config.vocab_size, config.pad_token_id, config.num_labels) == (12, 7, 7, 3)
    assert config.id2label == {0: "O", 1: "B-X", 2: "I-X"}
    assert ElmoConfig.from_pretrained(tmp_path, num_labels=5).num_labels == 5
    config.save_pretrained(tmp_path / "again")
    assert ElmoConfig.from_pretrained(tmp_path / "again").to_dict() == config.to_dict()


def test_options_that_the_library_itself_writes_are_taken():
    config = ElmoConfig(num_labels=3, use_cache=False, output_hidden_states=True, _name_or_path="x")
    assert config.num_labels == 3
    assert config.output_hidden_states
