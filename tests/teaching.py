"""A head that `Trainer` teaches some examples, and whose frozen biLM stays as it was."""

import torch
from transformers import Trainer, TrainingArguments


def teach(model, examples, collate, folder, steps, learning_rate, share=0.5, **arguments):
    """The loss falls below that share of what it was. Returns the Trainer."""
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=str(folder),
            max_steps=steps,
            learning_rate=learning_rate,
            per_device_train_batch_size=2,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            use_cpu=True,
            dataloader_pin_memory=False,
            **arguments,
        ),
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
