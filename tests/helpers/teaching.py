"""What every head can learn by: `Trainer`, with its frozen biLM as it was; and half precision."""

import torch
from transformers import Trainer, TrainingArguments


def arguments(folder, steps, learning_rate, **more):
    """For a Trainer that learns, and neither says nor writes anything."""
    quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no"}
    here = {"use_cpu": True, "dataloader_pin_memory": False}
    return TrainingArguments(
        output_dir=str(folder), max_steps=steps, learning_rate=learning_rate, **quiet | here | more
    )


def teach(model, examples, collate, folder, steps, learning_rate, share=0.5, **more):
    """The loss falls below that share of what it was. Returns the Trainer."""
    trainer = Trainer(
        model,
        arguments(folder, steps, learning_rate, per_device_train_batch_size=2, **more),
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
    found = []
    for is_half in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            loss = model(**batch).loss
        loss.backward()
        gradients = [one.grad.flatten() for one in model.parameters() if one.grad is not None]
        found.append((loss.item(), torch.cat(gradients)))
    (loss, gradient), (half_loss, half_gradient) = found
    assert abs(half_loss - loss) < 0.1 * abs(loss)
    assert (half_gradient - gradient).norm() < 0.2 * gradient.norm()
