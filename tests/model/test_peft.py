"""Adapters of PEFT: they learn in a frozen biLM, the kernels see them, merged or not, they save and load."""

import copy

import pytest
import torch
from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification, Trainer

from elmo_hf import (
    ElmoConfig,
    ElmoForPreTraining,
    ElmoForQuestionAnswering,
    ElmoForTokenClassification,
    ElmoLayerCache,
    ElmoModel,
    ElmoTokenizer,
    kernels,
)
from tests.helpers import small_classifiers
from tests.helpers.trainers import arguments

peft = pytest.importorskip("peft", reason="adapters need pip install peft")
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:`(is_)?gradient_checkpointing:FutureWarning"
    ),  # older names, for PEFT 0.21
    pytest.mark.filterwarnings(
        "ignore:Unmerge result can be inaccurate:UserWarning"
    ),  # IA3 divides by factors
]

TOKENIZER = ElmoTokenizer()
SENTENCES = [["Ada", "Lovelace", "lived", "in", "London", "."], ["She", "wrote"]]
TAGS = [[1, 2, 0, 0, 1, 0], [0, 0]]
SMALL = {
    "lstm_dim": 12,
    "projection_dim": 8,
    "char_filters": [[1, 4], [2, 6]],
    "vocab_size": 3,
    "id2label": {0: "O", 1: "B-PER", 2: "I-PER"},
    "task_hidden_size": 6,
    "task_dropout": 0.0,
    "elmo_dropout": 0.0,
}
BATCH = TOKENIZER(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")
LABELS = torch.tensor([[1, 2, 0, 0, 1, 0], [0, 0, -100, -100, -100, -100]])


def make(model_class=ElmoForTokenClassification, **options):
    torch.manual_seed(0)
    model = model_class(ElmoConfig(**SMALL | options))
    with torch.no_grad():  # a random biLM's vectors are short
        for name, mix in model.named_modules():
            if name == "input_mix":
                mix.gamma.fill_(20.0)
    return model


def lora(task_type="TOKEN_CLS", **options):
    return peft.LoraConfig(task_type=task_type, **{"r": 2, "lora_alpha": 8} | options)


def matrices(*names):
    return lora(target_modules=[], target_parameters=list(names))


def steps(model, batch, labels, number=6):
    """Train, and return the losses."""
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, losses = torch.optim.Adam(learnt, lr=0.05), []
    for _ in range(number):
        model.train()
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def logits_of(model, batch=BATCH, choice="auto"):
    model.eval()
    kernels.use(choice)
    try:
        with torch.no_grad():
            return model(**batch).logits
    finally:
        kernels.use("auto")


CASES = {
    "linear": (lora(target_modules=["carry", "transform", "projection"]), {}),
    "letters": (lora(target_modules=["char_embedding"]), {}),
    "convolutions": (lora(target_modules=r".*convolutions\.\d+"), {}),
    "a tuned biLM": (lora(target_modules=["transform"]), {"freeze_elmo": False}),
    "both directions": (matrices("input_weight", "recurrent_weight", "layers.1.projection"), {}),
    "the task's RNN": (matrices("weight_ih_l0", "weight_hh_l0"), {}),
    "words": (lora(target_modules=["word_embedding"]), {"token_encoder": "words"}),
    "own words": (
        lora(target_modules=["word_table", "task_words.char_embedding", "task_words.convolutions.0"]),
        {"task_word_dim": 4, "task_char_filters": [[2, 3]]},
    ),
    "stacked": (
        lora(target_modules=["projection"], target_parameters=["weight_ih_l0"]),
        {"stacked_lstm_layers": 2, "num_hidden_layers": 1, "lstm_dim": 8},
    ),
    "DoRA": (lora(use_dora=True, target_modules=["transform", "char_embedding", "convolutions.0"]), {}),
    "the whole encoder": (
        lora(target_modules=[], target_parameters=["recurrent_weight"], modules_to_save=["token_encoder"]),
        {},
    ),
    "IA3": (
        peft.IA3Config(task_type="TOKEN_CLS", target_modules=["carry", "transform"], feedforward_modules=[]),
        {},
    ),
    "LoHa": (peft.LoHaConfig(task_type="TOKEN_CLS", r=2, target_modules=["transform", "projection"]), {}),
    "OFT": (peft.OFTConfig(task_type="TOKEN_CLS", oft_block_size=2, target_modules=["transform"]), {}),
}


@pytest.mark.parametrize(("config", "options"), CASES.values(), ids=CASES)
def test_adapters_learn_and_merge(config, options):
    """All that is learnable moves and nothing else; merged and unmerged, fast and readable code agree."""
    model = peft.get_peft_model(make(**options), copy.deepcopy(config))
    learnable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(".elmo." in name or ".rnn." in name or "task_words" in name for name in learnable)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    losses = steps(model, BATCH, LABELS)
    assert losses[-1] < losses[0]
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == learnable
    adapted = logits_of(model, choice="readable")
    with model.disable_adapter():
        assert (logits_of(model) - adapted).abs().max() > 1e-3
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(logits_of(model), adapted, **close)
    model.merge_adapter()
    torch.testing.assert_close(logits_of(model), adapted, **close)
    torch.testing.assert_close(logits_of(model, choice="readable"), adapted, **close)
    model.unmerge_adapter()
    torch.testing.assert_close(logits_of(model), adapted, **close)
    merged = model.merge_and_unload()
    assert type(merged) is ElmoForTokenClassification
    torch.testing.assert_close(logits_of(merged), adapted, **close)


def test_the_gradient_of_an_adapter_in_the_biLM_is_that_of_the_definition():
    gradients = []
    for choice in ("auto", "readable"):
        model = peft.get_peft_model(make(), matrices("input_weight", "recurrent_weight"))
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        kernels.use(choice)
        model.train()
        model(**BATCH, labels=LABELS).loss.backward()
        kernels.use("auto")
        gradients.append([p.grad for name, p in model.named_parameters() if "lora_" in name])
    assert len(gradients[0]) == 8
    assert all(gradient.any() for gradient in gradients[1])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_a_frozen_biLM_keeps_its_own_dropout_off_and_that_of_adapters_on():
    model = peft.get_peft_model(make(dropout=0.5), lora(lora_dropout=0.5, target_modules=["transform"]))
    for mode in (True, False):
        model.train(mode)
        dropouts = {name: m.training for name, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}
        assert {on for name, on in dropouts.items() if "lora_dropout" in name} == {mode}
        assert {on for name, on in dropouts.items() if ".layers." in name and "lora" not in name} == {False}


@pytest.mark.parametrize("classifier", small_classifiers.CLASSIFIERS)
@pytest.mark.parametrize("task_type", ["SEQ_CLS", None])
def test_classifiers(classifier, task_type):
    """Every linear layer, with maxout too; by SEQ_CLS the classifier learns as a whole."""
    model = small_classifiers.make_trainable(classifier)
    model = peft.get_peft_model(model, lora(task_type, target_modules="all-linear"))
    losses = steps(model, small_classifiers.encode(classifier), small_classifiers.LABELS)
    assert losses[-1] < losses[0]
    idle = [n for n, p in model.named_parameters() if "lora_B" in n and p.requires_grad and not p.any()]
    assert not idle
    batch = small_classifiers.encode(classifier)
    adapted = logits_of(model, batch)
    torch.testing.assert_close(logits_of(model.merge_and_unload(), batch), adapted, rtol=0, atol=1e-5)


def test_feature_extraction():
    options = {"target_modules": ["transform", "projection"], "target_parameters": ["input_weight"]}
    config = lora("FEATURE_EXTRACTION", init_lora_weights=False, **options)
    model = peft.get_peft_model(make(ElmoModel), config).eval()
    layers = model(**BATCH, output_hidden_states=True).hidden_states
    kernels.use("readable")
    expected = model(**BATCH, output_hidden_states=True).hidden_states
    kernels.use("auto")
    torch.testing.assert_close(layers, expected, rtol=0, atol=1e-5)
    assert type(model(**BATCH, return_dict=False)) is tuple
    with torch.no_grad():
        fast = model(**BATCH).last_hidden_state
        torch.testing.assert_close(fast, expected[-1], rtol=0, atol=1e-5)
        merged = model.merge_and_unload()(**BATCH).last_hidden_state
    torch.testing.assert_close(merged, expected[-1], rtol=0, atol=1e-5)
    language_model = peft.get_peft_model(make(ElmoForPreTraining), lora(None, target_modules=["transform"]))
    losses = steps(language_model, BATCH, BATCH["input_ids"])
    assert losses[-1] < losses[0]


def test_question_answering():
    model = peft.get_peft_model(
        make(ElmoForQuestionAnswering), lora("QUESTION_ANS", target_modules=["transform"])
    )
    pair = TOKENIZER("Who ?", "Ada paid .", return_token_type_ids=True, return_tensors="pt")
    model.train()
    place = torch.tensor([4])
    model(**pair, start_positions=place, end_positions=place).loss.backward()
    assert any(p.grad is not None and p.grad.any() for n, p in model.named_parameters() if "lora_B" in n)
    assert model.answer("Who ?", "Ada paid .", TOKENIZER)["answer"]


def test_a_new_task_saves_its_head_and_loads(tmp_path, capsys):
    make().save_pretrained(tmp_path / "base")
    base = ElmoForTokenClassification.from_pretrained(tmp_path / "base")
    assert base.head_modules == ["input_mix", "rnn", "classifier", "crf"]
    assert make(freeze_elmo=False, use_crf=False).head_modules == ["input_mix", "rnn", "classifier"]
    options = {"target_modules": ["transform"], "target_parameters": ["recurrent_weight"]}
    model = peft.get_peft_model(base, lora(**options, modules_to_save=base.head_modules))
    model.print_trainable_parameters()
    assert "trainable params: 0" not in capsys.readouterr().out
    rows = [
        {**TOKENIZER(words, is_split_into_words=True), "labels": tags}
        for words, tags in zip(SENTENCES, TAGS, strict=True)
    ]
    collator = DataCollatorForTokenClassification(TOKENIZER)
    trainer = Trainer(
        model, arguments(tmp_path, 25, 0.05), train_dataset=rows, eval_dataset=rows, data_collator=collator
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.5 * before
    trainer.save_model(tmp_path / "adapter")
    expected = logits_of(model)
    assert [[word["label"] for word in row] for row in model.predict(SENTENCES, TOKENIZER)] == [
        [base.config.id2label[tag] for tag in tags] for tags in TAGS
    ]
    fresh = ElmoForTokenClassification.from_pretrained(tmp_path / "base")
    loaded = peft.PeftModel.from_pretrained(fresh, tmp_path / "adapter")
    assert torch.equal(logits_of(loaded), expected)
    loaded.train()
    assert loaded.get_nb_trainable_parameters()[0] == 0  # for reading only, unless is_trainable=True
    auto = peft.AutoPeftModelForTokenClassification.from_pretrained(tmp_path / "adapter", is_trainable=True)
    assert auto.get_nb_trainable_parameters() == model.get_nb_trainable_parameters()
    auto.merge_and_unload().save_pretrained(tmp_path / "merged")
    merged = AutoModelForTokenClassification.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits_of(merged), expected, rtol=0, atol=1e-5)
    merged.train()
    assert not any(parameter.requires_grad for parameter in merged.elmo.parameters())
    with pytest.raises(
        ValueError, match=r"holds an adapter of PEFT .* PeftModel\.from_pretrained\(model, folder\)\.$"
    ):
        ElmoForTokenClassification.from_pretrained(tmp_path / "adapter")


@pytest.mark.parametrize("config", [lora(target_modules=["transform"]), matrices("input_weight")])
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpoints(config, use_reentrant):
    gradients = []
    for is_on in (False, True):
        torch.manual_seed(1)
        model = peft.get_peft_model(make(), copy.deepcopy(config))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
        if is_on:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        model.train()
        model(**BATCH, labels=LABELS).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert all(gradient.any() for gradient in gradients[0].values())
    torch.testing.assert_close(*gradients)


def test_the_layer_cache_does_not_outlive_an_adapter():
    model = make()
    model.elmo_cache = ElmoLayerCache()
    plain = logits_of(model)
    model = peft.get_peft_model(model, lora(target_modules=["transform"], init_lora_weights=False))
    adapted = logits_of(model)
    assert (adapted - plain).abs().max() > 1e-3
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.mul_(2)
    assert (logits_of(model) - adapted).abs().max() > 1e-3
    with model.disable_adapter():
        torch.testing.assert_close(logits_of(model), plain)


def test_adapters_by_transformers_itself(tmp_path, monkeypatch):
    """`model.add_adapter`, which asks for the next version of PEFT, but works with this."""
    monkeypatch.setattr("transformers.integrations.peft.MIN_PEFT_VERSION", "0.21.0")
    model = make()
    plain = logits_of(model)
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["transform"]))
    losses = steps(model, BATCH, LABELS)
    assert losses[-1] < losses[0]
    adapted = logits_of(model)
    torch.testing.assert_close(adapted, logits_of(model, choice="readable"), rtol=0, atol=1e-5)
    assert (adapted - plain).abs().max() > 1e-3
    model.save_pretrained(tmp_path)
    other = make()
    other.load_adapter(str(tmp_path))
    torch.testing.assert_close(logits_of(other), adapted, rtol=0, atol=1e-5)
    model.disable_adapters()
    torch.testing.assert_close(logits_of(model), plain, rtol=0, atol=1e-5)


def test_what_cannot_be_is_refused_in_one_sentence():
    model = peft.get_peft_model(make(), lora(target_modules=["transform"]))
    with pytest.raises(ValueError, match=r"^an ELMo has no attentions; leave output_attentions out\.$"):
        model(**BATCH, output_attentions=True)
    mix = peft.get_peft_model(make(), matrices("input_mix.weights"))
    with pytest.raises(ValueError, match=r"^an adapter of a mix .* in modules_to_save\.$"):
        mix(**BATCH, labels=LABELS)
