"""One update: losses of some windows of text, gradients, an optimizer step.

    learner = Learner(model, settings, accelerator)
    losses = learner.update(windows, words, step=0)   # {"loss": ..., "forward_loss": ..., "norm": ...}

The logged loss is the mean over the words that all processes predict. The gradient is that of the summed loss
divided by the size of the batch in words, which is the same mean until the text runs out.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from elmo_hf.corpus.windows import Window
from elmo_hf.model.modeling_elmo import States
from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining
from elmo_hf.pretraining import captured
from elmo_hf.pretraining.optimizers import (
    PretrainingOptimizer,
    RowGradient,
    RowGradients,
    gather_rows,
    make_optimizer,
)
from elmo_hf.pretraining.sampling import SelectedRows, draw_samples, full_loss, sampled_loss, select_rows
from elmo_hf.pretraining.settings import Settings


class Network(nn.Module):
    """The part of the model with dense gradients: all of it but a sampled softmax."""

    def __init__(self, model: ElmoForPreTraining, has_softmax: bool) -> None:
        super().__init__()
        self.elmo, self.dropout = model.elmo, model.dropout
        self.lm_head = model.lm_head if has_softmax else None

    def forward(self, ids: Tensor, mask: Tensor, targets: Tensor, states: States) -> tuple[Tensor, States]:
        """
        Args:
            ids: (2, rows, steps) word ids, or (2, rows, steps, characters)
            mask, targets: (2, rows, steps)

        Returns:
            the losses (2, rows, steps), or the hidden states (2, rows, steps, dim) if the softmax is sampled;
            and the LSTM states after the window.
        """
        hidden, states = self.elmo.read_windows(ids, mask, states)
        hidden = self.dropout(hidden)
        if self.lm_head is None:
            return hidden, states
        return full_loss(hidden, self.lm_head.weight, self.lm_head.bias, targets), states

    def read(self, vectors: Tensor, states: States) -> tuple[Tensor, States]:
        """Words' vectors (2, rows, steps, projection_dim), none of them padding -> hidden states, states"""
        mask = torch.ones(vectors.shape[:3], dtype=torch.bool, device=vectors.device)
        (top,), h, c = self.elmo._run_layers(vectors, mask, *states)
        forward, backward = top.chunk(2, dim=-1)
        return self.dropout(torch.stack([forward, backward.flip(1)])), (h, c)


class Learner:
    """The model, its optimizer, and the LSTM states of this process's rows."""

    def __init__(self, model: ElmoForPreTraining, settings: Settings, accelerator: Accelerator) -> None:
        self.model, self.settings, self.accelerator = model, settings, accelerator
        self.device = accelerator.device
        model.to(self.device).train()
        size = model.config.vocab_size
        self.samples = settings.samples if settings.samples < size else 0  # 0: the softmax over all words
        self.network = Network(model, has_softmax=not self.samples)
        self.optimizer, self.row_gradients = self._make_optimizer(), RowGradients()
        self.states = model.elmo.zero_states(settings.rows // accelerator.num_processes)
        self.batch_words = settings.rows * settings.window * settings.accumulate
        self.row_losses: list[Tensor] = []  # (2, rows), of each window of the last update
        # (words, characters) of the words of an encoded text
        self.letters: Tensor | None = None
        self.letters_on_cpu: Tensor | None = None
        # The gradients become the mean over processes, and `batch_words` counts the words of all.
        self.loss_factor = settings.loss_scale * accelerator.num_processes / self.batch_words
        self.prepared: captured.Prepared | None = None  # what the next update reads
        self.captured = None if captured.why_not(self) else captured.CapturedUpdate(self)

    def set_letters(self, letters: np.ndarray | None) -> None:
        """Take what the model reads of each word; the windows then hold the words' numbers."""
        self.letters_on_cpu = None if letters is None else torch.from_numpy(letters)
        self.letters = None if self.letters_on_cpu is None else self.letters_on_cpu.to(self.device)

    def prepare(self, windows: Sequence[Window], step: int) -> captured.Prepared | None:
        """Look up what an update will read, on the CPU; None where its steps are not captured."""
        return captured.prepare(self, windows, step) if self.captured is not None else None

    def seed_of(self, step: int, number: int) -> tuple[int, ...]:
        """The seed of what is random in a window of a step."""
        return self.settings.seed, step, self.accelerator.process_index, number

    def _make_optimizer(self) -> PretrainingOptimizer:
        dense, head = dict(self.model.named_parameters()), self.model.lm_head
        if not self.samples:
            return make_optimizer(dense, None, None, self.settings.optimizer_settings())
        dense = {name: weight for name, weight in dense.items() if not name.startswith("lm_head.")}
        return make_optimizer(dense, head.weight, head.bias, self.settings.optimizer_settings())

    def update(self, windows: list[Window], words: Tensor, step: int) -> Mapping[str, float]:
        """Make one optimizer step on the windows.

        Args:
            windows: the windows of this process, in the order of the text.
            words: (2,) the words that each direction predicts, over all processes.
            step: number of updates before this one.

        If `prepared` is set to what `prepare` has made of the windows, the update is a captured one.

        Returns:
            "loss", "forward_loss", "backward_loss": means over the words; and "norm", that of the gradient
            before clipping. If it is not finite, no weight has changed.
        """
        # Random numbers depend on the seed and the step alone, so a checkpoint need not store their state.
        seed = (self.settings.seed, step, self.accelerator.process_index)
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))
        prepared, self.prepared = self.prepared, None
        if prepared is not None and self.captured is not None:
            results = self.captured(prepared)
            self.row_losses = list(results.row_losses)
            return captured.LaterLosses(results, words)
        words = words.to(self.device)
        losses, self.row_losses = torch.zeros(2, device=self.device), []
        for number, window in enumerate(windows):
            losses += self._learn(window, words, (*seed, number))
        self._share_gradients()
        rows = gather_rows(self.row_gradients.take(), self.accelerator) if self.samples else None
        norm = self.optimizer.step(rows)
        self.optimizer.zero_grad()
        forward, backward = self.accelerator.reduce(losses, "sum").tolist()
        loss = 0.5 * (forward + backward)
        return {"loss": loss, "forward_loss": forward, "backward_loss": backward, "norm": float(norm)}

    def _learn(self, window: Window, words: Tensor, seed: tuple[int, ...]) -> Tensor:
        """Add the gradients of a window; return this process's share of both mean losses (2,)."""
        inputs = window.input_ids if window.char_ids is None else window.char_ids
        ids, mask, targets = (
            torch.from_numpy(array).to(self.device) for array in (inputs, window.mask, window.targets)
        )
        if self.letters is not None:
            ids = self.letters[ids]
        self._restart_rows(seed)
        with self.accelerator.autocast():
            output, (h, c) = self.network(ids.long(), mask, targets, self.states)
        self.states = h.detach().to(self.states[0]), c.detach().to(self.states[1])
        selected, rows = None, None
        if self.samples:
            selected, rows = self._select_rows(torch.from_numpy(window.targets), seed)
            output = sampled_loss(output.flatten(1, 2), *rows, selected).view(targets.shape)
        row_losses = (output * mask).sum(dim=2)
        # Every word has the same weight. Divided by their own number, the last few words of the text would
        # make steps as large as those of full batches, and spoil the model. `batch_words` counts the words of
        # all processes, and gradients become the mean over processes, hence their number as a factor.
        self.accelerator.backward(0.5 * row_losses.sum() * self.loss_factor)
        if rows is not None and selected is not None:
            weight, bias = (table.grad for table in rows)
            assert weight is not None
            assert bias is not None
            self.row_gradients.add(RowGradient(selected.ids, weight, bias))
        self.row_losses.append(row_losses.detach())
        return row_losses.detach().sum(dim=1) / words.clamp(min=1)

    def _restart_rows(self, seed: tuple[int, ...]) -> None:
        """Reset the states of random rows to zero; which ones does not depend on the number of processes.

        Without this the LSTMs never see zero states in training, and may predict badly from them, which is
        where a user's sentences start.
        """
        if not self.settings.restart_rows:
            return
        keep = torch.from_numpy(self.kept_rows(seed)).to(self.device)[:, None]
        self.states = self.states[0] * keep, self.states[1] * keep

    def kept_rows(self, seed: tuple[int, ...]) -> np.ndarray:
        """(rows of this process,) False for those whose states are reset before a window."""
        base, step, process, number = seed
        rows = self.states[0].shape[2]
        if not self.settings.restart_rows:
            return np.ones(rows, dtype=bool)
        draws = np.random.default_rng([base, step, number, 1]).random(self.settings.rows)
        return draws[process * rows : (process + 1) * rows] >= self.settings.restart_rows

    def _share_gradients(self) -> None:
        """Replace the dense gradients by their mean over the processes, reduced as one tensor: a resumed run
        adds the same numbers in the same order, which DistributedDataParallel does not promise."""
        if self.accelerator.num_processes == 1:
            return
        gradients = []
        for weight in self.network.parameters():
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            gradients.append(weight.grad)
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        flat = self.accelerator.reduce(flat, "mean")
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, mean in zip(gradients, flat.split(sizes), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def _select_rows(
        self, targets: Tensor, seed: tuple[int, ...]
    ) -> tuple[SelectedRows, tuple[Tensor, Tensor]]:
        """The softmax's weight and bias rows of the targets (2, rows, steps) and of random samples."""
        samples = draw_samples(self.samples, self.model.config.vocab_size, seed)
        selected = select_rows(targets.flatten(1), samples).to(self.device)
        head = self.model.lm_head
        weight, bias = (table.detach()[selected.ids].requires_grad_() for table in (head.weight, head.bias))
        return selected, (weight, bias)

    def bad_rows(self) -> list[tuple[int, int]]:
        """(direction, row) of this process's rows whose loss in the last update is not finite."""
        bad = ~torch.stack(self.row_losses).isfinite().all(dim=0)
        return [(direction, row) for direction, row in bad.nonzero().tolist()]


def is_finite(losses: Mapping[str, float]) -> bool:
    return all(math.isfinite(value) for value in losses.values())
