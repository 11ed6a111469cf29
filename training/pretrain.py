"""Pretrain an ELMo: two language models, forward and backward, over words that are read as characters.

    elmo-hf vocab 'news/*.txt' vocab.txt
    accelerate launch training/pretrain.py --data 'news/*.txt' --vocab vocab.txt --output runs/news
    accelerate launch --cpu training/pretrain.py --config training/runs/smoke_cpu.yaml --output runs/smoke
    accelerate launch --multi_gpu --num_processes 2 training/pretrain.py ...      # on CPUs, too
    accelerate launch --multi_gpu --num_machines 2 ...                            # see docs/many-machines.md

The installed package runs it by `accelerate launch -m elmo_hf.pretraining ...`, with the same options.

The batch has `rows` rows of running text, `<S> w1 .. wn <S> w1 ..`, cut into windows of 20 words. The LSTM
states are carried from window to window and from sentence to sentence. The forward and the backward model
read two differently shuffled copies of the text. The defaults of all settings are the paper's recipe.

`--resume auto` continues a run after its newest checkpoint, bit for bit as if it had not stopped. SIGTERM and
Ctrl-C save a checkpoint and end with exit code 143.
"""

from pathlib import Path

from transformers.utils import logging

from elmo_hf.errors import one_sentence, program_name
from elmo_hf.pretraining.learner import Learner
from elmo_hf.pretraining.perplexity import perplexity
from elmo_hf.pretraining.processes import Processes, start_processes
from elmo_hf.pretraining.run import Run, is_due
from elmo_hf.pretraining.sending import on_all_machines
from elmo_hf.pretraining.settings import Settings, read_settings
from elmo_hf.pretraining.start import open_heldout, open_text, start_checkpoint, start_model


def main() -> None:
    logging.disable_progress_bar()  # the run shows its own
    logging.set_verbosity_error()
    with one_sentence(program_name()):
        settings = read_settings()
        with start_processes(settings) as processes, processes.locked(Path(settings.output)):
            run = start_run(settings, processes)
            with run.started():
                train(run)


def start_run(settings: Settings, processes: Processes) -> Run:
    """Open and check everything, on all machines; nothing is written but a copy of the checkpoint."""
    checkpoint = start_checkpoint(settings, processes)
    with on_all_machines(processes, checkpoint, settings) as checkpoint:
        with processes.collect_errors():
            run = prepare(settings, processes, checkpoint)
        processes.raise_errors()
    run.agree()
    return run


def prepare(settings: Settings, processes: Processes, checkpoint: Path | None) -> Run:
    """No process waits for another in here."""
    source = open_text(settings)
    # The main process evaluates for all, so no other machine needs held-out text.
    heldout = open_heldout(settings) if processes.accelerator.is_main_process else {}
    start = start_model(settings, checkpoint)
    learner = Learner(start.model, settings, processes.accelerator)
    learner.optimizer.set_sums(start.sums)
    run = Run(settings, processes, source, heldout, learner, start.tokenizer, checkpoint, start.notes)
    if checkpoint is None:
        run.warn_of_doubts()
    return run


def train(run: Run) -> None:
    settings = run.settings
    if settings.start and run.evaluated_at < 0:
        evaluate(run)  # the model before it has seen the new text
    while batch := run.next_batch():
        losses = run.learner.update(batch.windows, batch.words, run.step)
        run.record(batch, losses)
        if batch.ends_epoch or is_due(run.step, settings.evaluate_every):
            evaluate(run)
        if is_due(run.step, settings.save_every):
            run.save()
    if run.evaluated_at != run.step:
        evaluate(run)
    run.finish()


def evaluate(run: Run) -> None:
    """Log the perplexity of the held-out texts, which the main process computes for all."""
    run.evaluated_at = run.step
    run.processes.on_main_process(lambda: log_perplexities(run))


def log_perplexities(run: Run) -> None:
    for name, source in run.heldout.items():
        result = perplexity(run.model, source, run.tokenizer, states=run.settings.evaluation_states)
        run.log.write("evaluation", step=run.step, epoch=run.epoch, text=name, **result.to_dict())
        run.log.print(
            f"step {run.step:,}, {name}: perplexity {result.mean:.2f} "
            f"(forward {result.forward:.2f}, backward {result.backward:.2f}; {result.tokens:,} tokens, "
            f"{result.states} states)"
        )


if __name__ == "__main__":
    main()
