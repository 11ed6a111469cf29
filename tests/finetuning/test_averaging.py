"""Averaged weights and halved learning rates: what recipes add to a Trainer, against plain loops."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainingArguments

from elmo_hf import ElmoConfig, ElmoForSequenceClassification, ElmoTokenizer
from elmo_hf.finetuning.averaging import AveragingTrainer, WeightAverage
from elmo_hf.finetuning.classification import collate_texts, score
from training.finetune_nli import HalvingTrainer, squares

TEXTS = [["a", "good", "film"], ["a", "bad", "film"], ["good"], ["bad", "bad"]]
EXAMPLES = [{"sentences": (words,), "label": "no" if "bad" in words else "yes"} for words in TEXTS]


class Notes(TrainerCallback):
    """Copies of all that is learnt, before the first step and after each; and the rate of every epoch."""

    def __init__(self):
        self.weights, self.rates = [], []

    def on_train_begin(self, args, state, control, **others):
        self.on_step_end(args, state, control, **others)

    def on_step_end(self, args, state, control, model=None, **others):
        copies = {name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad}
        self.weights.append(copies)

    def on_epoch_begin(self, args, state, control, optimizer=None, **others):
        self.rates.append(optimizer.param_groups[0]["lr"])


def train(trainer_class, folder, epochs=3, score=score, **options):
    torch.manual_seed(0)
    config = {"lstm_dim": 12, "projection_dim": 8, "char_filters": [[1, 4]], "vocab_size": 3}
    model = ElmoForSequenceClassification(ElmoConfig(**config, task_hidden_size=5, num_labels=2))
    arguments = TrainingArguments(
        output_dir=str(folder), num_train_epochs=epochs, per_device_train_batch_size=2, report_to="none",
        disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, remove_unused_columns=False,
        eval_strategy="epoch", save_strategy="epoch", logging_strategy="no", load_best_model_at_end=True,
        metric_for_best_model="accuracy", label_names=["labels"], save_only_model=True, **options,
    )  # fmt: skip
    notes, tokenizer = Notes(), ElmoTokenizer()
    learnt = [one for one in model.parameters() if one.requires_grad]
    trainer = trainer_class(
        model, arguments, train_dataset=EXAMPLES, eval_dataset=EXAMPLES, compute_metrics=score,
        data_collator=partial(collate_texts(["no", "yes"]), tokenizer), callbacks=[notes],
        optimizers=(torch.optim.Adam(learnt, lr=0.1), None),
    )  # fmt: skip
    trainer.train()
    return trainer, notes


def test_what_is_judged_and_saved_is_the_average(tmp_path):
    trainer, notes = train(AveragingTrainer, tmp_path)
    average = notes.weights[0]
    for step, weights in enumerate(notes.weights[1:], start=1):
        keep = min(0.999, (1 + step) / (10 + step))
        average = {name: keep * average[name] + (1 - keep) * value for name, value in weights.items()}
        folder = tmp_path / f"checkpoint-{step}"
        assert folder.exists() is (step % 2 == 0)  # two steps an epoch
        if folder.exists():
            saved = load_file(folder / "model.safetensors")
            for name, value in average.items():
                torch.testing.assert_close(saved[name], value, msg=name)
                assert not torch.allclose(value, weights[name])
    best = load_file(Path(trainer.state.best_model_checkpoint) / "model.safetensors")
    trainer.evaluate()
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, best[name]), name


def test_the_weights_are_there_again_even_after_a_mistake():
    model, average = torch.nn.Linear(2, 1), WeightAverage()
    average.on_train_begin(None, None, None, model=model)
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1.0)

    def fail():
        assert torch.equal(model.weight, before)
        raise KeyError

    with pytest.raises(KeyError), average.in_place(model):
        fail()
    assert torch.equal(model.weight, before + 1)
    average.on_train_end(None, None, None)
    with average.in_place(model):
        assert torch.equal(model.weight, before + 1)


def test_the_rate_is_halved_where_the_score_has_not_risen(tmp_path):
    scores = iter([0.5, 0.6, 0.6, 0.55, 0.7])
    _, notes = train(
        partial(HalvingTrainer, l2=0.0), tmp_path, epochs=5, score=lambda _: {"accuracy": next(scores)}
    )
    assert notes.rates == [0.1, 0.1, 0.1, 0.05, 0.025]


def test_the_penalty_is_on_the_matrices_of_the_classifier(tmp_path):
    trainer, _ = train(partial(HalvingTrainer, l2=0.25), tmp_path, epochs=1)
    model = trainer.model.eval()
    batch = trainer.data_collator(EXAMPLES)
    plain = model(**batch).loss
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.train()
    loss, _ = trainer.compute_loss(model, batch, return_outputs=True)
    expected = 0.0
    for name, value in model.classifier.state_dict().items():
        if "weight" in name:
            expected += sum(number * number for number in value.flatten().tolist())
    assert squares(model.classifier).item() == pytest.approx(expected, rel=1e-5)
    assert loss.item() == pytest.approx(plain.item() + 0.25 * expected, rel=1e-4)
    assert json.dumps(trainer.args.lr_scheduler_kwargs) == '{"mode": "max", "factor": 0.5, "patience": 0}'
