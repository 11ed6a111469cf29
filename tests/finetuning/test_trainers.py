"""Averaged weights and halved learning rates, compared with plain loops."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainingArguments

from elmo_hf import ElmoConfig, ElmoForSequenceClassification, ElmoTokenizer
from elmo_hf.finetuning.classification import collate_texts, score
from elmo_hf.finetuning.run import AveragingTrainer, WeightAverage
from training.finetune_nli import HalvingTrainer, squares

TEXTS = [["a", "good", "film"], ["a", "bad", "film"], ["good"], ["bad", "bad"]]
EXAMPLES = [{"sentences": (words,), "label": "no" if "bad" in words else "yes"} for words in TEXTS]


class Recorder(TrainerCallback):
    """Copies the trained weights before the first step and after each, and the rate of every epoch."""

    def __init__(self):
        self.weights, self.rates = [], []

    def on_train_begin(self, args, state, control, **others):
        self.on_step_end(args, state, control, **others)

    def on_step_end(self, args, state, control, model=None, **others):
        weights = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        self.weights.append({name: weight.detach().clone() for name, weight in weights})

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
    recorder, tokenizer = Recorder(), ElmoTokenizer()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    trainer = trainer_class(
        model, arguments, train_dataset=EXAMPLES, eval_dataset=EXAMPLES, compute_metrics=score,
        data_collator=partial(collate_texts(["no", "yes"]), tokenizer), callbacks=[recorder],
        optimizers=(torch.optim.Adam(weights, lr=0.1), None),
    )  # fmt: skip
    trainer.train()
    return trainer, recorder


def test_the_average_is_evaluated_and_saved(tmp_path):
    trainer, recorder = train(AveragingTrainer, tmp_path)
    average = recorder.weights[0]
    for step, weights in enumerate(recorder.weights[1:], start=1):
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


def test_the_weights_are_put_back_even_after_an_error():
    model, average = torch.nn.Linear(2, 1), WeightAverage()
    average.on_train_begin(None, None, None, model=model)
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1.0)

    def fail():
        assert torch.equal(model.weight, before)
        raise KeyError

    with pytest.raises(KeyError), average.applied(model):
        fail()
    assert torch.equal(model.weight, before + 1)
    average.on_train_end(None, None, None)
    with average.applied(model):
        assert torch.equal(model.weight, before + 1)


def test_the_rate_is_halved_after_an_epoch_without_a_better_score(tmp_path):
    scores = iter([0.5, 0.6, 0.6, 0.55, 0.7])
    _, recorder = train(
        partial(HalvingTrainer, l2=0.0), tmp_path, epochs=5, score=lambda _: {"accuracy": next(scores)}
    )
    assert recorder.rates == [0.1, 0.1, 0.1, 0.05, 0.025]


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
