"""Pretrains an ELMo: two language models, one from each end, over words that are read letter by letter.

    elmo-hf vocab 'news/*.txt' vocab.txt
    accelerate launch training/pretrain.py --data 'news/*.txt' --vocab vocab.txt --output runs/news
    accelerate launch --cpu training/pretrain.py --config training/runs/smoke_cpu.yaml --output runs/smoke
    accelerate launch --multi_gpu --num_processes 2 training/pretrain.py ...      # on CPUs, too

The same command with `--resume auto` goes on where a run stopped, whatever stopped it: weights, optimizer,
LSTM states and the place in the text are those of its newest checkpoint, and all chance follows from the seed
and the number of the step. SIGTERM and Ctrl-C save, and end with exit code 143.

Text runs past in rows. Each row is sentence after sentence, `<S> w1 .. wn` without end, and is cut into
windows of 20 words; the LSTMs' states go on from window to window and from sentence to sentence. The forward
and the backward model read two differently shuffled copies of the text. All settings, with the paper's recipe
as what they are when nothing is said, are in settings.py.
"""

import contextlib
import json
import sys
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.utils import logging as transformers_logging

from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import Vocabulary
from elmo_hf.corpus.windows import (
    AuditLog,
    Encoder,
    Plan,
    SentenceStart,
    Window,
    Windows,
    cut_audit,
    merge_states,
)
from elmo_hf.files import whole_folder, write_manifest
from elmo_hf.pretraining.checkpoints import checkpoints, find_checkpoint, save_checkpoint
from elmo_hf.pretraining.learner import Learner, is_finite
from elmo_hf.pretraining.log import Watch
from elmo_hf.pretraining.perplexity import perplexity
from elmo_hf.pretraining.processes import STOPPED, Stop, Together, end, make_accelerator
from elmo_hf.pretraining.settings import LASTING, Settings, read_settings
from elmo_hf.pretraining.start import start_model


def main() -> None:
    settings = read_settings()
    transformers_logging.disable_progress_bar()  # one is enough
    transformers_logging.set_verbosity_error()
    accelerator = make_accelerator(settings)
    together = Together(accelerator)
    try:
        with together.noticing():
            run = Pretraining(settings, together)
        together.raise_faults()
        run.run()
    except ValueError as error:
        end(accelerator, error)
    finally:
        accelerator.end_training()


class Batch(NamedTuple):
    """What is read for an update."""

    windows: list[Window]  # of this process
    words: Tensor  # (2,) that each direction predicts, over all processes
    ends_epoch: bool  # with it, all rows have come to the next epoch


class Pretraining:
    """A run: what it has learnt, and where in the text it is."""

    def __init__(self, settings: Settings, together: Together) -> None:
        """Opens and checks everything, before anything is written and any process waits for another."""
        self.settings, self.together, self.accelerator = settings, together, together.accelerator
        self.folder = Path(settings.output)
        self.rows = settings.rows // self.accelerator.num_processes
        self.first_row = self.rows * self.accelerator.process_index
        self.step = self.words = self.epoch = 0
        self.saved_at = self.judged_at = -1
        self.place: Any = None  # in the text, of this process, after the last update
        self.epochs = torch.zeros(self.rows, 2, dtype=torch.int64)  # that each row is in, in each direction
        self.reading: dict[tuple[int, int], list[SentenceStart]] = {}  # sentences of the last update
        checkpoint = find_checkpoint(self.folder, settings.resume, self._warn)
        if checkpoint is not None:
            progress = read_progress(checkpoint, settings)
        self.source = open_source(settings, settings.data)
        self.heldout = open_heldout(settings)
        self.model, self.tokenizer = start_model(settings, checkpoint)
        self.learner = Learner(self.model, settings, self.accelerator)
        if checkpoint is not None:
            self._load(checkpoint, progress)
        self.windows = self._open_windows()
        self.groups = in_groups(self.windows, settings.accumulate)
        self.watch = Watch(self.accelerator, self.folder, settings.trackers, self._words_in_all())
        self.audit: AuditLog | None = None
        self.stop = Stop()

    def _open_windows(self) -> Windows:
        settings, config = self.settings, self.model.config
        numbers = self.tokenizer.get_vocab()
        words = sorted(numbers, key=lambda word: numbers[word])[: config.vocab_size]
        vocabulary = Vocabulary(words, name=settings.vocab or str(settings.start))
        if settings.vocab and Vocabulary.load(settings.vocab).words != words:
            raise ValueError(
                f"{settings.vocab} has other words than the run was begun with; go on with those."
            )
        plan = Plan(
            rows=settings.rows,
            steps=settings.window,
            seed=settings.seed,
            shuffle_sentences=settings.shuffle_sentences,
            shared=settings.shared_reading,
            epochs=settings.epochs,
        )
        return Windows(
            self.source,
            Encoder(vocabulary, config.max_characters_per_token, config.token_encoder),
            plan,
            process=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
            workers=settings.workers,
            state=self.place,
        )

    # ---- the loop

    def run(self) -> None:
        with self.stop.listening(), contextlib.closing(self.groups), contextlib.closing(self.watch):
            self._begin()
            while batch := self._next_batch():
                self._update(batch)
                if batch.ends_epoch or is_time(self.step, self.settings.evaluate_every):
                    self.evaluate()
                if is_time(self.step, self.settings.save_every):
                    self.save()
            self._end()

    def _next_batch(self) -> Batch | None:
        """None after the last one."""
        if self.settings.max_steps is not None and self.step >= self.settings.max_steps:
            return None
        windows: list[Window] = []
        with self.together.noticing():
            windows = next(self.groups)
        for window in windows:
            self._follow_rows(window)
        words = sum(window.mask.sum(axis=(1, 2)) for window in windows) if windows else (0, 0)
        told = [*map(int, words), int((self.epochs > self.epoch).sum())]
        told += [int(bool(self.stop)), int(bool(self.together.fault))]
        totals = self.accelerator.reduce(torch.tensor(told, device=self.accelerator.device), "sum")
        *_, later, has_to_stop, has_fault = totals.tolist()
        if has_fault:
            self.together.raise_faults()
        if has_to_stop:
            self._stop()
        return Batch(windows, totals[:2], later == 2 * self.settings.rows) if any(totals[:2]) else None

    def _follow_rows(self, window: Window) -> None:
        """Which sentence and epoch the rows are in."""
        for sentence in window.sentence_starts:
            place = sentence.direction, sentence.row - self.first_row
            self.reading[place] = [*self.reading.get(place, [])[-1:], sentence]
            self.epochs[place[1], place[0]] = sentence.epoch
        has_ended = ~torch.from_numpy(window.mask[:, :, -1]).T
        self.epochs[has_ended] = self.settings.epochs

    def _update(self, batch: Batch) -> None:
        found = self.learner.update(batch.windows, batch.words, self.step)
        if not is_finite(found):
            self._refuse()
        self.step, self.place = self.step + 1, batch.windows[-1].state
        self.epoch += batch.ends_epoch
        words = int(batch.words[0])
        self.words += words
        with self.together.noticing():
            if self.audit is not None:
                for window in batch.windows:
                    self.audit.write(self.step, window)
            self.watch.step(found, words, self.windows.waited)
            if is_time(self.step, self.settings.log_every):
                rate = self.learner.optimizer.learning_rate
                self.watch.log_step(step=self.step, epoch=self.epoch, words=self.words, lr=rate)

    def _refuse(self) -> NoReturn:
        """A loss or gradient is no number any more, and nothing is saved of it."""
        own = [one for place in self.learner.bad_rows() for one in self.reading.get(place, [])]
        found = sorted({(one.shard, one.line) for one in gather_object(own)})
        lines = ", ".join(f"line {line + 1} of {self.source.place(shard)}" for shard, line in found[:5])
        lines = f" (it was reading {lines}{' and others' if found[5:] else ''})" if found else ""
        last = checkpoints(self.folder)
        kept = f"the last good checkpoint is {last[-1]}" if last else "there is no checkpoint yet"
        raise ValueError(
            f"step {self.step + 1}: the loss or its gradient is not a finite number{lines}; {kept}. Go on "
            "from there with a lower --learning-rate, or look at these lines."
        )

    # ---- beginning and ending

    def _begin(self) -> None:
        self.together.by_main(lambda: self.folder.mkdir(parents=True, exist_ok=True))
        softmax = {"softmax": "sampled" if self.learner.samples else "full"}
        settings = asdict(self.settings) | softmax
        facts = {"processes": self.accelerator.num_processes, "device": str(self.accelerator.device)}
        with self.together.noticing():
            self.watch.begin(self.step, self.words, settings)
            if self.step:
                self.watch.note("resume", step=self.step, **facts)
                self.watch.say(f"Going on after step {self.step:,}.")
            else:
                size = self.model.num_parameters()
                self.watch.note("start", settings=settings, parameters=size, **facts)
        self.together.raise_faults()
        if self.settings.audit:
            self.together.by_main(self._cut_audits)
            path = self.folder / f"audit-{self.accelerator.process_index}.jsonl"
            self.audit = AuditLog(path, self.accelerator.process_index)
        if self.settings.start and self.judged_at < 0:
            self.evaluate()

    def _cut_audits(self) -> None:
        """Of all processes, and there may have been more of them before."""
        for old in self.folder.glob("audit-*.jsonl"):
            cut_audit(old, self.step)

    def _stop(self) -> NoReturn:
        if self.step:
            self.save()
        saved = (
            "which is saved; --resume auto goes on from there" if self.step else "so there is nothing to save"
        )
        self.watch.say(f"Stopped after step {self.step:,}, {saved}.")
        sys.exit(STOPPED)

    def _end(self) -> None:
        if not self.step:
            raise ValueError(f"{self.source.name} has no text for a single step.")
        if self.judged_at != self.step:
            self.evaluate()
        self.save()
        self.together.by_main(self._write_final)
        with self.together.noticing():
            self.watch.note("end", step=self.step, words=self.words)
        self.together.raise_faults()
        self.watch.say(f"Done after {self.step:,} steps and {self.words:,} words: {self.folder / 'final'}")

    def _words_in_all(self) -> int | None:
        """For the time left: by the counts beside the vocabulary, which count each sentence's end as well."""
        settings, found = self.settings, []
        if settings.max_steps is not None:
            found.append(settings.max_steps * settings.rows * settings.window * settings.accumulate)
        counts = Vocabulary.load(settings.vocab).counts if settings.vocab else None
        if counts is not None:
            found.append(settings.epochs * (sum(counts) - counts[self.tokenizer.bos_token_id]))
        return min(found, default=None)

    def _warn(self, sentence: str) -> None:
        if self.accelerator.is_main_process:
            print(f"pretrain.py: {sentence}", file=sys.stderr)

    # ---- judging

    def evaluate(self) -> None:
        """The perplexity of the held-out texts, worked out by the main process."""
        self.judged_at = self.step
        self.together.by_main(self._evaluate)

    def _evaluate(self) -> None:
        for name, source in self.heldout.items():
            found = perplexity(self.model, source, self.tokenizer, states=self.settings.evaluation_states)
            self.watch.note("evaluation", step=self.step, epoch=self.epoch, text=name, **found.to_dict())
            self.watch.say(
                f"step {self.step:,}, {name}: perplexity {found.mean:.2f} "
                f"(forward {found.forward:.2f}, backward {found.backward:.2f}; {found.tokens:,} tokens)"
            )

    # ---- saving and going on

    def save(self) -> None:
        """All that the next step depends on, from all processes, by the main one."""
        if self.step == self.saved_at:
            return
        h, c = (state.movedim(2, 0) for state in self.learner.states)
        parts = {"epochs": self.epochs.to(h.device), "h": h, "c": c}
        rows = {name: self.accelerator.gather(part.contiguous()).cpu() for name, part in parts.items()}
        place = merge_states(gather_object([self.place]))
        self.together.by_main(
            lambda: save_checkpoint(
                self.folder, self.step, lambda folder: self._write(folder, rows, place), self.settings.keep
            )
        )
        self.saved_at = self.step

    def _write(self, folder: Path, rows: dict[str, Tensor], place: Any) -> None:
        self._write_model(folder)
        (folder / "training").mkdir()
        save_file(self.learner.optimizer.state_dict(), folder / "training" / "optimizer.safetensors")
        save_file(rows, folder / "training" / "rows.safetensors")
        numbers = {name: getattr(self, name) for name in ("step", "words", "epoch", "judged_at")}
        progress = numbers | {"settings": asdict(self.settings), "place": place}
        (folder / "training" / "progress.json").write_text(json.dumps(progress) + "\n", encoding="utf-8")

    def _write_final(self) -> None:
        with whole_folder(self.folder / "final") as folder:
            self._write_model(folder)
            write_manifest(folder)

    def _write_model(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _load(self, checkpoint: Path, progress: dict[str, Any]) -> None:
        """What `_write` wrote, but the model, which is there already."""
        for name in ("step", "words", "epoch", "judged_at", "place"):
            setattr(self, name, progress[name])
        self.saved_at = self.step
        self.learner.optimizer.load_state_dict(load_file(checkpoint / "training" / "optimizer.safetensors"))
        rows = load_file(checkpoint / "training" / "rows.safetensors")
        if len(rows["epochs"]) != self.settings.rows:
            self.epochs += self.epoch
            return  # other rows: they read what those had not read, and their states start from zeros
        own = slice(self.first_row, self.first_row + self.rows)
        self.epochs = rows["epochs"][own]
        h, c = (rows[name][own].movedim(0, 2).to(self.accelerator.device) for name in ("h", "c"))
        self.learner.states = h.contiguous(), c.contiguous()


# ---- plain functions


def open_source(settings: Settings, data: list[str]) -> Source:
    return Source(
        data[0] if len(data) == 1 else data,
        column=settings.column,
        split=settings.split,
        config=settings.subset,
        raw=settings.raw,
        split_sentences=settings.split_sentences,
    )


def open_heldout(settings: Settings) -> dict[str, Source]:
    """By their names, or by their paths where two have one name."""
    names = [Path(path).name for path in settings.heldout]
    found = {}
    for path, name in zip(settings.heldout, names, strict=True):
        source = open_source(settings, [path])
        if next(iter(source), None) is None:
            raise ValueError(f"{source.name} is empty; there is no word in it.")
        found[name if names.count(name) == 1 else path] = source
    return found


def in_groups(windows: Windows, size: int) -> Generator[list[Window], None, None]:
    """The windows of one update, and windows without words when this process's rows have ended."""
    group = []
    for window in windows:
        group.append(window)
        if len(group) == size:
            yield group
            group = []
    assert windows.empty_window is not None
    while True:
        yield group + [windows.empty_window] * (size - len(group))
        group = []


def is_time(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def read_progress(checkpoint: Path, settings: Settings) -> dict[str, Any]:
    """Refuses a run that would go on with another model or recipe, and be neither."""
    progress = json.loads((checkpoint / "training" / "progress.json").read_text(encoding="utf-8"))
    before, now = progress["settings"], asdict(settings)
    for name in LASTING:
        if before.get(name) != now[name]:
            raise ValueError(
                f"the run was begun with {name} {before.get(name)!r}, and now it is {now[name]!r}; go on "
                "with the same, or start another run from its checkpoint by --start."
            )
    return progress


if __name__ == "__main__":
    main()
