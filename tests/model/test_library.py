"""ELMo inside Transformers: Auto classes, remote code, dtypes, shards, device maps, Trainer, pipeline."""

import json

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForPreTraining,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    pipeline,
)

from elmo_hf import (
    ElmoConfig,
    ElmoForCoreferenceResolution,
    ElmoForPreTraining,
    ElmoForQuestionAnswering,
    ElmoForSemanticRoleLabeling,
    ElmoForSequenceClassification,
    ElmoForTokenClassification,
    ElmoModel,
    ElmoTokenizer,
    kernels,
)
from tests.helpers.hub_folders import BACKBONE
from tests.helpers.trainers import arguments

TEXTS = ["The bank lent him money .", "He sat on the bank , reading .", "Why ?"]


@pytest.fixture
def folder(tmp_path):
    """A saved language model with its tokenizer."""
    words = sorted({word for text in TEXTS for word in text.split()})
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("\n".join(["<S>", "</S>", "<UNK>", *words]), encoding="utf-8")
    tokenizer = ElmoTokenizer(vocabulary)
    torch.manual_seed(0)
    config = ElmoConfig(
        lstm_dim=32, projection_dim=16, vocab_size=tokenizer.vocab_size, char_filters=[[1, 8], [3, 16]]
    )
    ElmoForPreTraining(config).save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def encode(folder, texts=TEXTS):
    return ElmoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")


def read(model, encoding):
    with torch.no_grad():
        return model.eval()(**encoding).last_hidden_state


def test_auto_classes_know_elmo(folder):
    assert type(AutoConfig.from_pretrained(folder)) is ElmoConfig
    assert type(AutoModel.from_pretrained(folder)) is ElmoModel
    assert type(AutoModelForPreTraining.from_pretrained(folder)) is ElmoForPreTraining
    assert type(AutoTokenizer.from_pretrained(folder)) is ElmoTokenizer
    assert AutoConfig.for_model("elmo", lstm_dim=64).lstm_dim == 64


@pytest.mark.parametrize("model_class", [ElmoModel, ElmoForPreTraining])
def test_saving_and_loading_changes_nothing(folder, tmp_path, model_class):
    first = model_class.from_pretrained(folder)
    first.save_pretrained(tmp_path / "again")
    second = model_class.from_pretrained(tmp_path / "again")
    weights = first.state_dict()
    assert weights
    assert second.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in second.state_dict().items())
    ours = {name: value for name, value in first.config.to_dict().items() if name != "_name_or_path"}
    theirs = {name: value for name, value in second.config.to_dict().items() if name != "_name_or_path"}
    assert ours == theirs


REMOTE = """
    import sys
    import json
    from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoTokenizer
    folder, texts = sys.argv[1], json.loads(sys.argv[2])
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    language_model = AutoModelForPreTraining.from_pretrained(folder, trust_remote_code=True).eval()
    encoding = tokenizer(texts, padding=True, return_tensors="pt")
    vectors = model(**encoding).last_hidden_state.tolist()
    loss = language_model(**encoding).loss.item()
    tokenizer.save_pretrained(sys.argv[3])
    language_model.save_pretrained(sys.argv[3])
    print(json.dumps({"type": config.model_type, "vectors": vectors, "loss": loss}))
"""


def test_a_saved_folder_loads_without_the_package(folder, fork_server, tmp_path):
    """Loaded where the package cannot be imported, saved there, and loaded so once more."""
    encoding = encode(folder)
    output = fork_server.run_without_the_package(REMOTE, folder, json.dumps(TEXTS), tmp_path / "second")
    again = fork_server.run_without_the_package(
        REMOTE, tmp_path / "second", json.dumps(TEXTS), tmp_path / "third"
    )
    assert output == again
    assert output["type"] == "elmo"
    expected = read(ElmoModel.from_pretrained(folder), encoding)
    torch.testing.assert_close(torch.tensor(output["vectors"]), expected)
    loss = ElmoForPreTraining.from_pretrained(folder).eval()(**encoding).loss.item()
    assert output["loss"] == pytest.approx(loss)


def test_the_auto_map_names_every_class_that_the_folder_holds(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["auto_map"] == {
        "AutoConfig": "configuration_elmo.ElmoConfig",
        "AutoModel": "modeling_elmo.ElmoModel",
        "AutoModelForPreTraining": "modeling_elmo_pretraining.ElmoForPreTraining",
        "AutoTokenizer": ["tokenization_elmo.ElmoTokenizer", None],
    }
    ElmoModel.from_pretrained(folder).save_pretrained(tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text(encoding="utf-8"))
    assert list(config["auto_map"]) == ["AutoConfig", "AutoModel", "AutoTokenizer"]
    for reference in (config["auto_map"][name] for name in ("AutoConfig", "AutoModel")):
        assert (tmp_path / "base" / (reference.split(".")[0] + ".py")).exists()
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert tokenizer["auto_map"] == {"AutoTokenizer": ["tokenization_elmo.ElmoTokenizer", None]}


TASK = BACKBONE | {"cache_elmo", "task_elmo"}
TAGGER = TASK | {"crf_elmo", "modeling_elmo_tagging", "predicting_elmo"}


@pytest.mark.parametrize(
    ("model_class", "files"),
    [
        (ElmoModel, BACKBONE),
        (ElmoForPreTraining, BACKBONE | {"modeling_elmo_pretraining"}),
        (ElmoForTokenClassification, TAGGER),
        (ElmoForSemanticRoleLabeling, TAGGER),
        (ElmoForSequenceClassification, TASK | {"modeling_elmo_classification", "predicting_elmo"}),
        (ElmoForQuestionAnswering, TASK | {"modeling_elmo_question_answering"}),
        (ElmoForCoreferenceResolution, TASK | {"modeling_elmo_coreference"}),
    ],
)
def test_a_folder_holds_the_code_of_its_own_head_only(model_class, files, tmp_path):
    sizes = {"lstm_dim": 4, "projection_dim": 2, "char_filters": [[1, 2]], "vocab_size": 3}
    model_class(ElmoConfig(**sizes, task_hidden_size=2)).save_pretrained(tmp_path)
    assert {path.stem for path in tmp_path.glob("*.py")} == files


def test_sharded_checkpoints(folder, tmp_path):
    model = ElmoForPreTraining.from_pretrained(folder)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    loaded = ElmoForPreTraining.from_pretrained(tmp_path / "shards")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float16, 0.003)])
def test_half_precision(folder, dtype, tolerance):
    encoding = encode(folder)
    expected = read(ElmoModel.from_pretrained(folder), encoding)
    model = ElmoModel.from_pretrained(folder, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    vectors = read(model, encoding)
    assert vectors.dtype == dtype
    scale = expected.abs().max()
    assert ((vectors.float() - expected).abs().max() / scale).item() < tolerance
    loss = ElmoForPreTraining.from_pretrained(folder, dtype=dtype).eval()(**encoding).loss
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_device_maps(folder, device_map):
    encoding = encode(folder)
    model = ElmoModel.from_pretrained(folder, device_map=device_map)
    assert torch.equal(read(model, encoding), read(ElmoModel.from_pretrained(folder), encoding))


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(folder, use_reentrant):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = ElmoForPreTraining.from_pretrained(folder, dropout=0.3).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        torch.manual_seed(0)
        model(**encode(folder)).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    torch.testing.assert_close(gradients[1], gradients[0])
    assert all(gradient.abs().sum() > 0 for gradient in gradients[0].values())


def test_the_trainer_trains_and_its_checkpoint_loads(folder, tmp_path):
    tokenizer = ElmoTokenizer.from_pretrained(folder)
    examples = [dict(tokenizer(text)) for text in TEXTS * 4]
    model = ElmoForPreTraining.from_pretrained(folder)
    settings = arguments(tmp_path / "run", 30, 0.02, per_device_train_batch_size=6, label_names=[])
    trainer = Trainer(
        model, settings, train_dataset=examples, eval_dataset=examples, processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    with torch.no_grad():
        before = model.eval()(**encode(folder)).loss.item()
    trainer.train()
    trainer.save_model(str(tmp_path / "trained"))
    with torch.no_grad():
        loaded = AutoModelForPreTraining.from_pretrained(tmp_path / "trained")
        after = loaded.eval()(**encode(tmp_path / "trained")).loss.item()
    assert after < 0.7 * before


def test_datasets_map_and_its_tensor_format(folder):
    tokenizer = ElmoTokenizer.from_pretrained(folder)
    dataset = Dataset.from_dict({"text": TEXTS})
    encoded = dataset.map(lambda batch: tokenizer(batch["text"]), batched=True, remove_columns="text")
    encoded = encoded.with_format("torch")
    batch = DataCollatorWithPadding(tokenizer)(list(encoded))
    expected = encode(folder)
    assert all(torch.equal(batch[name], expected[name]) for name in expected)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_feature_extraction_pipeline(folder, batch_size):
    extractor = pipeline("feature-extraction", model=str(folder), batch_size=batch_size)
    features = extractor(TEXTS, return_tensors=True)
    model = ElmoModel.from_pretrained(folder)
    for text, vectors in zip(TEXTS, features, strict=True):
        expected = read(model, encode(folder, [text]))
        torch.testing.assert_close(vectors.reshape(-1, 32)[: expected.shape[1]], expected[0])


def test_kernels_of_the_hub_are_not_needed(tmp_path, monkeypatch):
    """`use_kernels=True` needs no further package, as the faster code is in this one."""
    torch.manual_seed(0)
    sizes = {"lstm_dim": 4, "projection_dim": 2, "char_filters": [[1, 2]], "vocab_size": 3}
    ElmoModel(ElmoConfig(**sizes)).save_pretrained(tmp_path)
    encoding = ElmoTokenizer()("He sat .", return_tensors="pt")
    plain, fast = (ElmoModel.from_pretrained(tmp_path, use_kernels=choice).eval() for choice in (False, True))
    assert (plain.use_kernels, fast.use_kernels) == (False, True)
    with torch.no_grad():
        assert torch.equal(fast(**encoding).last_hidden_state, plain(**encoding).last_hidden_state)
    assert kernels.why_not() == ""
    fast.train()
    assert fast.use_kernels
    with pytest.raises(ValueError, match=r"^the Hub has no kernels for an ELMo; leave kernel_config out\.$"):
        plain.set_use_kernels(True, kernel_config=object())
    monkeypatch.setattr("elmo_hf.model.modeling_elmo.kernels", None)  # as where the package is missing
    with pytest.raises(ValueError, match=r"^an ELMo's faster code is in the package elmo_hf; .*\.$"):
        ElmoModel.from_pretrained(tmp_path, use_kernels=True)
