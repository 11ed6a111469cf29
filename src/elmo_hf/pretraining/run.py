"""A pretraining run: its counters, its position in the text, its checkpoints and its log.

`training/pretrain.py` makes a `Run` of settings, text, model and learner, and loops over its batches.
"""

import sys
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from accelerate.utils import gather_object
from safetensors.torch import save_file
from torch import Tensor

from elmo_hf.corpus.encoded import EncodedText
from elmo_hf.corpus.encoded_windows import EncodedWindows
from elmo_hf.corpus.look import training_doubts
from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import Vocabulary
from elmo_hf.corpus.windows import Encoder, Plan, Window, Windows, merge_states
from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.files import whole_file, whole_folder, write_manifest
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.pretraining.ahead import Ahead, grouped, prepared_in_turn
from elmo_hf.pretraining.audit import Audit
from elmo_hf.pretraining.captured import LaterLosses
from elmo_hf.pretraining.checkpoints import (
    OPTIMIZER,
    ROWS,
    checkpoints,
    clear_strays,
    read_tensors,
    save_checkpoint,
)
from elmo_hf.pretraining.clock import Clock
from elmo_hf.pretraining.learner import Learner, is_finite
from elmo_hf.pretraining.log import RunLog
from elmo_hf.pretraining.machines import digest_without_words, refuse_other_texts, words_digest
from elmo_hf.pretraining.processes import STOPPED, Processes, StopSignal
from elmo_hf.pretraining.progress import TRAINING, Progress, read_progress
from elmo_hf.pretraining.rows import Rows, check_rows
from elmo_hf.pretraining.settings import Settings
from elmo_hf.pretraining.text_record import TextRecord, compare, record_text

HELDOUT = "heldout.txt"  # the lines that `heldout_every` holds out


class Batch(NamedTuple):
    """The text of one update."""

    windows: list[Window]  # of this process
    words: Tensor  # (2,): words that each direction predicts, over all processes
    ends_epoch: bool  # with it, every row has reached the next epoch


class Run:
    """The state of a run. It is made without writing anything; `with run.started():` opens the log.

    Args:
        source: the text to read.
        heldout: held-out texts by name. `started` adds the lines that the settings hold out.
        learner: the model with its optimizer.
        tokenizer: of the model, saved with it.
        checkpoint: where to resume, if not at the beginning.
        notes: sentences to print at the beginning.

    Attributes:
        step, words, epoch: what has been done: updates, words (in one direction), passes over the text.
        evaluated_at: step of the last evaluation, or -1.
    """

    def __init__(
        self,
        settings: Settings,
        processes: Processes,
        source: Source | EncodedText,
        heldout: dict[str, Source | EncodedText],
        learner: Learner,
        tokenizer: ElmoTokenizer,
        checkpoint: Path | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.settings, self.processes, self.accelerator = settings, processes, processes.accelerator
        self.source, self.heldout, self.tokenizer = source, heldout, tokenizer
        self.learner, self.model, self.notes = learner, learner.model, notes
        self.folder = Path(settings.output)
        own_rows = settings.rows // self.accelerator.num_processes
        self.rows = Rows(own_rows, own_rows * self.accelerator.process_index, settings.epochs)
        self.step = self.words = self.epoch = 0
        self.planned_steps: int | None = None  # where the end is a time
        self.saved_at = self.evaluated_at = -1
        self.position: Any = None  # of this process in the text, after the last update
        self.heldout_lines = None
        if settings.heldout_every is not None and isinstance(source, Source):
            self.heldout_lines = source.heldout()
        self.text = self._record_text(checkpoint)
        self.clock = Clock(settings.max_minutes)
        if checkpoint is not None:
            self._load(checkpoint)
        if self.clock.total_steps is not None:
            self._plan(self.clock.total_steps)
        self.windows = self._open_windows()
        self.groups = self._open_groups()
        self.unread: deque[tuple[int, Mapping[str, float], int]] = deque()  # step, losses, words
        self.log = RunLog(self.accelerator, self.folder, settings.trackers, self._total_words())
        self.audit = Audit(self.folder, processes) if settings.audit else None
        self.stop = StopSignal()

    def _record_text(self, checkpoint: Path | None) -> TextRecord | None:
        """The text's record, on each machine. The main process compares it with that of the checkpoint."""
        if not self.accelerator.is_local_main_process:
            return None
        record = record_text(self.settings.data, self.source, self.settings.check_text)
        if checkpoint is not None and self.accelerator.is_main_process:
            old = read_progress(checkpoint).text
            if old is not None:
                compare(old, record)
            else:
                self.processes.warn(
                    f"{checkpoint} is of a version that kept no record of the text; a change of the text "
                    "since then may go unnoticed."
                )
        return record

    def agree(self) -> None:
        """Compare what the processes read; a new run begins with the main one's weights in all of them.

        Random numbers may differ in their last digits between processors of different kinds.
        """
        processes, state = self.processes, self.model.state_dict()
        if processes.count == 1:
            return
        refuse_other_texts(processes.places, gather_object([self.text]))
        facts = {"the vocabulary": words_digest(self.tokenizer)}
        if self.settings.start and not self.step:
            facts["the model of --start"] = digest_without_words(state)
            facts["the optimizer's state"] = digest_without_words(self.learner.optimizer.state_dict())
        processes.check_same(facts, "use the same on all machines (these are checksums)")
        for tensor in () if self.step else state.values():
            torch.distributed.broadcast(tensor, 0)

    def _open_windows(self) -> Windows | EncodedWindows:
        settings, config, tokenizer = self.settings, self.model.config, self.tokenizer
        words = tokenizer.convert_ids_to_tokens(list(range(config.vocab_size)))
        loaded = Vocabulary.load(settings.vocab) if settings.vocab else None
        vocabulary = Vocabulary(
            words,
            counts=loaded.counts if loaded is not None else None,
            name=settings.vocab or f"the vocabulary of {settings.start}",
            specials=(tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token),
            max_letters=tokenizer.max_characters_per_token - 2 if tokenizer.cut_words else None,
        )
        if loaded is not None and loaded.words != words:
            raise ElmoError(
                f"{settings.vocab} has other words than the run was begun with; use the same vocabulary."
            )
        self.vocabulary = vocabulary
        plan = Plan(
            rows=settings.rows,
            steps=settings.window,
            seed=settings.seed,
            shuffle_sentences=settings.shuffle_sentences,
            shared=settings.shared_reading,
            epochs=settings.epochs,
        )
        encoder = Encoder(vocabulary, token_encoder=config.token_encoder, tokenizer=tokenizer)
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        if isinstance(self.source, EncodedText):
            encoded = EncodedWindows(
                self.source, encoder, plan, process=process, processes=processes, state=self.position
            )
            self.learner.set_letters(encoded.letters)
            return encoded
        windows = Windows(
            self.source,
            encoder,
            plan,
            process=process,
            processes=processes,
            workers=settings.workers,
            state=self.position,
        )
        if windows.note:
            self.processes.warn(windows.note)
        return windows

    def _open_groups(self) -> Any:
        """The windows of one update each, with what a captured update reads. On a GPU threads make them while
        the updates before run."""

        def make_groups() -> Generator[list[Window], None, None]:
            return grouped(self.windows, self.settings.accumulate)

        if self.learner.captured is None:
            return ((windows, None) for windows in make_groups())
        return Ahead(lambda: prepared_in_turn(make_groups(), self.learner.prepare, self.step))

    @property
    def waited(self) -> float:
        """Seconds spent waiting for text."""
        return self.groups.waited if isinstance(self.groups, Ahead) else self.windows.waited

    def warn_of_doubts(self) -> None:
        """Say it if the first lines of the text are not what the settings say."""
        if self.accelerator.is_main_process:
            texts: list[str] = []
            for source in (self.source, *self.heldout.values()):
                if isinstance(source, Source) and not texts:
                    texts += training_doubts(source, self.vocabulary)
            for doubt in texts:
                self.processes.warn(doubt)

    def _total_words(self) -> int | None:
        """Words that the run will read, for the progress bar. The counts beside the vocabulary include each
        sentence's end."""
        settings, limits = self.settings, []
        for steps in (settings.max_steps, self.planned_steps):
            if steps is not None:
                limits.append(steps * settings.rows * settings.window * settings.accumulate)
        counts = self.vocabulary.counts
        if counts is not None:
            limits.append(settings.epochs * (sum(counts) - counts[self.tokenizer.bos_token_id]))
        return min(limits, default=None)

    # ---- start and end

    @contextmanager
    def started(self) -> Iterator[None]:
        """Open the log and handle SIGTERM and Ctrl-C; close the log and the text's readers at the end."""
        with self.stop.installed(), closing(self.groups), closing(self.log):
            self.processes.on_main_process(lambda: clear_strays(self.folder))
            if self.heldout_lines is not None:
                self.processes.on_main_process(self._write_heldout)
            if self.audit is not None:
                self.processes.on_main_process(partial(self.audit.cut, self.step))
            with self.processes.collect_errors():
                self._open_log()
            self.processes.raise_errors()
            self.clock.start()
            yield

    def _write_heldout(self) -> None:
        """The held-out lines as a text of their own, a sentence a line, its words between blanks."""
        assert self.heldout_lines is not None
        path = self.folder / HELDOUT
        with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(" ".join(words) + "\n" for words in self.heldout_lines if words)
        self.heldout[HELDOUT if HELDOUT not in self.heldout else str(path)] = Source(path)

    def _open_log(self) -> None:
        settings = asdict(self.settings) | {"softmax": "sampled" if self.learner.samples else "full"}
        facts = {"processes": self.accelerator.num_processes, "device": str(self.accelerator.device)}
        facts["threads"] = torch.get_num_threads()
        self.log.open(self.step, self.words, settings)
        if self.step:
            self.log.write("resume", step=self.step, **facts)
            self.log.print(f"Resuming after step {self.step:,}.")
        else:
            size = self.model.num_parameters()
            self.log.write("start", settings=settings, parameters=size, **facts)
            for note in self.notes:
                self.log.print(note)

    def _stop(self) -> NoReturn:
        if self.step:
            self.save()
        saved = (
            "which is saved; --resume auto continues from there"
            if self.step
            else "so there is nothing to save"
        )
        self.log.print(f"Stopped after step {self.step:,}, {saved}.")
        sys.exit(STOPPED)

    def finish(self) -> None:
        """Save the last checkpoint, and the model in `final`."""
        self.save()
        self.processes.on_main_process(self._write_final)
        with self.processes.collect_errors():
            self.log.write("end", step=self.step, words=self.words)
        self.processes.raise_errors()
        self.log.print(f"Done after {self.step:,} steps and {self.words:,} words: {self.folder / 'final'}")
        self.log.raise_output_error()

    # ---- batches

    def next_batch(self) -> Batch | None:
        """Read the text of the next update; None after the last one. After a stop signal it saves and exits.

        Raises:
            ElmoError: the text cannot be read, in this or another process, or is too short for one update.
        """
        if self.settings.max_steps is not None and self.step >= self.settings.max_steps:
            return None
        if self.clock.is_over(self.step):
            return None
        windows: list[Window] = []
        with self.processes.collect_errors():
            windows, self.learner.prepared = next(self.groups)
        for window in windows:
            self.rows.follow(window)
        words = sum(window.mask.sum(axis=(1, 2)) for window in windows) if windows else (0, 0)
        numbers = [*map(int, words), self.rows.ahead_of(self.epoch)]
        numbers += [int(bool(self.stop)), int(bool(self.processes.error))]
        # The main process's time counts, so that all end after the same update.
        numbers.append(int(1e6 * self.clock.seconds()) if self.accelerator.is_main_process else 0)
        # One process has nothing to exchange, for which it would have to wait for its GPU.
        device = self.accelerator.device if self.accelerator.num_processes > 1 else "cpu"
        totals = self.accelerator.reduce(torch.tensor(numbers, device=device), "sum")
        *_, rows_ahead, has_signal, has_error, microseconds = totals.tolist()
        if self.clock.look(self.step, microseconds / 1e6) and self.clock.total_steps is not None:
            self._plan(self.clock.total_steps)
            self.log.set_total(self._total_words())
        if has_error:
            self.processes.raise_errors()
        if has_signal:
            self._stop()
        if any(totals[:2]):
            return Batch(windows, totals[:2], rows_ahead == 2 * self.settings.rows)
        if not self.step:
            raise ElmoError(f"{self.source.name} has no text for a single step.")
        return None

    def _plan(self, total_steps: int) -> None:
        """Let the schedule end after so many updates, with which the run's time will be over."""
        if self.settings.max_steps is not None:
            total_steps = min(total_steps, self.settings.max_steps)
        self.learner.optimizer.plan(total_steps)
        self.planned_steps = total_steps

    def record(self, batch: Batch, losses: Mapping[str, float]) -> None:
        """Count an update, and log it when an entry is due. On a GPU, the losses of an update are read while
        the next one runs.

        Raises:
            ElmoError: the loss or its gradient is not finite, in this update or, on a GPU, in the one before.
        """
        self.unread.append((self.step + 1, losses, int(batch.words[0])))
        is_logged = is_due(self.step + 1, self.settings.log_every)
        done = self._read_losses(1 if isinstance(losses, LaterLosses) and not is_logged else 0)
        self.step, self.position = self.step + 1, batch.windows[-1].state
        self.epoch += batch.ends_epoch
        words = int(batch.words[0])
        self.words += words
        read = self.audit.gather(batch.windows) if self.audit is not None else []
        with self.processes.collect_errors():
            if self.audit is not None:
                self.audit.write(self.step, read)
            for entry in done:
                self.log.count_step(*entry, self.waited)
            if is_logged:
                rate = self.learner.optimizer.learning_rate
                plan = {} if self.planned_steps is None else {"planned_steps": self.planned_steps}
                self.log.write_step(step=self.step, epoch=self.epoch, words=self.words, lr=rate, **plan)

    def _read_losses(self, most_unread: int) -> list[tuple[dict[str, float], int]]:
        """Read the losses of updates until so many are left; return them with the updates' words."""
        done = []
        while len(self.unread) > most_unread:
            step, losses, words = self.unread.popleft()
            if not is_finite(losses):
                self._raise_not_finite(step)
            done.append((dict(losses), words))
        return done

    def _raise_not_finite(self, step: int) -> NoReturn:
        """Name the lines that were read, of all processes, and the last checkpoint. Nothing is saved."""
        sentences = self.rows.sentences(self.learner.bad_rows())
        numbers = sorted({(sentence.shard, sentence.line) for sentence in gather_object(sentences)})
        lines = ", ".join(f"line {line + 1} of {self.source.place(shard)}" for shard, line in numbers[:5])
        lines = f" (it was reading {lines}{' and others' if numbers[5:] else ''})" if numbers else ""
        raise ElmoError(
            f"step {step}: the loss or its gradient is not a finite number{lines}; "
            f"{self._last_saved()}. Resume "
            "from there with a lower --learning-rate, or check these lines."
        )

    # ---- checkpoints

    def save(self) -> None:
        """Write a checkpoint: what the next update depends on, of all processes, by the main one.

        Raises:
            ElmoError: an entry of the log or the audit was lost in this update, in any process. A checkpoint
                would hide that.
        """
        if self.step == self.saved_at:
            return
        for entry in self._read_losses(0):
            self.log.count_step(*entry, self.waited)
        self.processes.raise_errors()
        h, c = (state.movedim(2, 0) for state in self.learner.states)
        own = {"epochs": self.rows.epochs.to(h.device), "h": h, "c": c}
        rows = {name: self.accelerator.gather(tensor.contiguous()).cpu() for name, tensor in own.items()}
        position = merge_states(gather_object([self.position]))
        keep, keep_every = self.settings.keep, self.settings.keep_every

        def fill(folder: Path) -> None:
            self._write(folder, rows, position)

        self.processes.on_main_process(
            lambda: save_checkpoint(self.folder, self.step, fill, keep, keep_every)
        )
        self.saved_at = self.step

    def _write(self, folder: Path, rows: dict[str, Tensor], position: Any) -> None:
        self._check_weights()
        self._write_model(folder)
        (folder / TRAINING).mkdir()
        save_file(self.learner.optimizer.state_dict(), folder / OPTIMIZER)
        save_file(rows, folder / ROWS)
        settings = asdict(self.settings)
        progress = Progress(
            self.step,
            self.words,
            self.epoch,
            self.evaluated_at,
            settings,
            position,
            self.text,
            round(self.clock.seconds(), 3) if self.settings.max_minutes is not None else 0.0,
        )
        progress.write(folder)

    def _check_weights(self) -> None:
        """Words that no step has drawn do not show in the loss."""
        tensors = dict(self.model.named_parameters()) | self.learner.optimizer.state_dict()
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise ElmoError(
                    f"step {self.step}: {name} has values that are not finite numbers; {self._last_saved()}."
                )

    def _last_saved(self) -> str:
        saved = checkpoints(self.folder)
        return f"the last good checkpoint is {saved[-1]}" if saved else "there is no checkpoint yet"

    def _write_final(self) -> None:
        final = self.folder / "final"
        try:
            with whole_folder(final) as folder:
                self._write_model(folder)
                write_manifest(folder)
        except OSError as error:
            raise ElmoError(
                f"{final} could not be written ({reason_of(error)}); {self._last_saved()}."
            ) from error

    def _write_model(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _load(self, checkpoint: Path) -> None:
        """Restore what `_write` wrote, except the model, which the run was made with."""
        progress = read_progress(checkpoint)
        self.step, self.words, self.epoch = progress.step, progress.words, progress.epoch
        self.evaluated_at, self.position = progress.evaluated_at, progress.position
        self.saved_at = self.step
        self.clock = Clock(self.settings.max_minutes, progress.seconds, self.step)
        states = progress.settings.get("evaluation_states", self.settings.evaluation_states)
        if states != self.settings.evaluation_states and self.heldout:
            self.processes.warn(
                f"the run evaluated held-out text from {states} states so far, and does so from "
                f"{self.settings.evaluation_states} states now; --evaluation-states {states} keeps them."
            )
        self._load_optimizer(checkpoint / OPTIMIZER)
        rows = read_tensors(checkpoint / ROWS)
        check_rows(checkpoint / ROWS, rows, progress.settings["rows"], self.learner.states, self.epoch)
        if progress.settings["rows"] != self.settings.rows:
            self.rows.epochs += self.epoch
            return  # another number of rows: their states start from zeros, with the sentences not yet read
        own = self.rows.own
        self.rows.epochs = rows["epochs"][own]
        h, c = (rows[name][own].movedim(0, 2).to(self.accelerator.device) for name in ("h", "c"))
        self.learner.states = h.contiguous(), c.contiguous()

    def _load_optimizer(self, path: Path) -> None:
        state = read_tensors(path)
        try:
            self.learner.optimizer.load_state_dict(state)
        except ElmoError as error:
            raise ElmoError(f"{path} does not fit the run: {error}") from None
        if self.learner.optimizer.steps != self.step:
            raise ElmoError(f"{path} is not that of step {self.step:,}, but of another.")


def is_due(step: int, every: int) -> bool:
    """Whether something that is done every so many steps is to be done now; never if `every` is 0."""
    return every > 0 and step % every == 0
