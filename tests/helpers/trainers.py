"""Checks that a task head trains: by `Trainer` with a frozen biLM, and in half precision."""

import torch
from transformers import Trainer, TrainingArguments


def arguments(folder, steps, learning_rate, **options):
    """TrainingArguments without logs, checkpoints and reports."""
    quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no"}
    on_cpu = {"use_cpu": True, "dataloader_pin_memory": False}
    return TrainingArguments(
        output_dir=str(folder), max_steps=steps, learning_rate=learning_rate, **quiet | on_cpu | options
    )


def train_until_learned(model, examples, collate, folder, steps, learning_rate, share=0.5, **options):
    """Train until the loss is below `share` of the initial loss; check that the biLM has not changed.

    Returns the Trainer.
    """
    trainer = Trainer(
        model,
        arguments(folder, steps, learning_rate, per_device_train_batch_size=2, **options),
        train_dataset=examples,
        eval_dataset=examples,
        data_collator=collate,
    )
    before = trainer.evaluate()["eval_loss"]
    frozen = [parameter.clone() for parameter in model.elmo.parameters()]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < share * before
    assert all(torch.equal(old, new) for old, new in zip(frozen, model.elmo.parameters(), strict=True))
    return trainer


def learns_in_half_precision(model, batch):
    """Under autocast the loss is about the same, and so is the gradient as a whole."""
    results = []
    for is_half in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            loss = model(**batch).loss
        loss.backward()
        gradients = [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
        results.append((loss.item(), torch.cat(gradients)))
    (loss, gradient), (half_loss, half_gradient) = results
    assert abs(half_loss - loss) < 0.1 * abs(loss)
    assert (half_gradient - gradient).norm() < 0.2 * gradient.norm()
