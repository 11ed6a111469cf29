"""One update: windows of text in, better weights out.

    learner = Learner(model, settings, accelerator)
    found = learner.update(windows, words, step=0)   # {"loss": ..., "forward_loss": ..., "norm": ...}

The loss is that of all processes together: the sum over what they predict, divided by the words of them all.
The gradient is that of the sum divided by the places for words, which is the same until the text runs out.
"""

import math

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from elmo_hf.corpus.windows import Window
from elmo_hf.model.modeling_elmo import States
from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining
from elmo_hf.pretraining.optimizers import (
    PretrainingOptimizer,
    RowGradient,
    RowGradients,
    gather_rows,
    make_optimizer,
)
from elmo_hf.pretraining.sampling import Wanted, draw_samples, full_loss, sampled_loss, wanted_rows
from elmo_hf.pretraining.settings import Settings


class Network(nn.Module):
    """What is run for each window, and has gradients as a whole. The softmax over all words is part of it; a
    sampled one is not, as only its few rows that a step wants have gradients."""

    def __init__(self, model: ElmoForPreTraining, has_softmax: bool) -> None:
        super().__init__()
        self.elmo, self.dropout = model.elmo, model.dropout
        self.lm_head = model.lm_head if has_softmax else None

    def forward(self, ids: Tensor, mask: Tensor, targets: Tensor, states: States) -> tuple[Tensor, States]:
        """ids (2, rows, steps, ...) -> each place's loss (2, rows, steps), or what the softmax reads
        (2, rows, steps, dim) where it stands outside; and the next window's states"""
        hidden, states = self.elmo.read_windows(ids, mask, states)
        hidden = self.dropout(hidden)
        if self.lm_head is None:
            return hidden, states
        return full_loss(hidden, self.lm_head.weight, self.lm_head.bias, targets), states


class Learner:
    """The model, its optimizer, and the LSTMs' states in the rows of this process."""

    def __init__(self, model: ElmoForPreTraining, settings: Settings, accelerator: Accelerator) -> None:
        self.model, self.settings, self.accelerator = model, settings, accelerator
        self.device = accelerator.device
        model.to(self.device).train()
        size = model.config.vocab_size
        self.samples = settings.samples if settings.samples < size else 0  # 0: the softmax over all words
        self.network = Network(model, has_softmax=not self.samples)
        self.optimizer, self.row_gradients = self._make_optimizer(), RowGradients()
        self.states = model.elmo.zero_states(settings.rows // accelerator.num_processes)
        self.places = settings.rows * settings.window * settings.accumulate  # for the words of an update
        self.row_losses: list[Tensor] = []  # (2, rows) of each window of the last update

    def _make_optimizer(self) -> PretrainingOptimizer:
        dense, head = dict(self.model.named_parameters()), self.model.lm_head
        if not self.samples:
            return make_optimizer(dense, None, None, self.settings.optimizer_settings())
        dense = {name: weight for name, weight in dense.items() if not name.startswith("lm_head.")}
        return make_optimizer(dense, head.weight, head.bias, self.settings.optimizer_settings())

    def update(self, windows: list[Window], words: Tensor, step: int) -> dict[str, float]:
        """Trains on the windows; words (2,) are what each direction predicts, over all processes.

        If "norm", that of the gradient, is not finite, nothing has been learnt.
        """
        # Chance follows from the seed and the step, so that a resumed run needs no memory of it.
        seed = (self.settings.seed, step, self.accelerator.process_index)
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))
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
        """Adds up gradients; returns this process's part of both mean losses (2,)."""
        inputs = window.input_ids if window.char_ids is None else window.char_ids
        ids, mask, targets = (
            torch.from_numpy(part).to(self.device) for part in (inputs, window.mask, window.targets)
        )
        self._restart_rows(seed)
        with self.accelerator.autocast():
            found, (h, c) = self.network(ids.long(), mask, targets, self.states)
        self.states = h.detach().to(self.states[0]), c.detach().to(self.states[1])
        wanted, rows = None, None
        if self.samples:
            wanted, rows = self._wanted_rows(torch.from_numpy(window.targets), seed)
            found = sampled_loss(found.flatten(1, 2), *rows, wanted).view(targets.shape)
        row_losses = (found * mask).sum(dim=2)
        # A word always counts the same. The few that are left when the text runs out would otherwise drive
        # steps as large as all the others', and spoil what was learnt. The gradient becomes the mean over the
        # processes, and the places are those of all of them.
        scale = self.settings.loss_scale * self.accelerator.num_processes / self.places
        self.accelerator.backward(0.5 * row_losses.sum() * scale)
        if rows is not None and wanted is not None:
            weight, bias = (table.grad for table in rows)
            assert weight is not None
            assert bias is not None
            self.row_gradients.add(RowGradient(wanted.ids, weight, bias))
        self.row_losses.append(row_losses.detach())
        return row_losses.detach().sum(dim=1) / words.clamp(min=1)

    def _restart_rows(self, seed: tuple[int, ...]) -> None:
        """Some rows' states start from zeros again, the same ones whatever the number of processes. Otherwise
        the LSTMs never learn to start, and may predict nothing from zeros, which is where users start."""
        if not self.settings.restart_rows:
            return
        chance, step, process, number = seed
        draws = np.random.default_rng([chance, step, number, 1]).random(self.settings.rows)
        rows = self.states[0].shape[2]
        goes_on = draws[process * rows : (process + 1) * rows] >= self.settings.restart_rows
        keep = torch.from_numpy(goes_on).to(self.device)[:, None]
        self.states = self.states[0] * keep, self.states[1] * keep

    def _share_gradients(self) -> None:
        """Every process gets the mean. It is made in one piece, so that a resumed run adds up the same
        numbers in the same order, which DistributedDataParallel does not promise."""
        if self.accelerator.num_processes == 1:
            return
        gradients = []
        for weight in self.network.parameters():
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            gradients.append(weight.grad)
        together = torch.cat([gradient.flatten() for gradient in gradients])
        together = self.accelerator.reduce(together, "mean")
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, mean in zip(gradients, together.split(sizes), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def _wanted_rows(self, targets: Tensor, seed: tuple[int, ...]) -> tuple[Wanted, tuple[Tensor, Tensor]]:
        """The softmax's rows and biases of the targets (2, rows, steps), and of words drawn for each
        direction, to be trained."""
        samples = draw_samples(self.samples, self.model.config.vocab_size, seed)
        wanted = wanted_rows(targets.flatten(1), samples).to(self.device)
        head = self.model.lm_head
        weight, bias = (table.detach()[wanted.ids].requires_grad_() for table in (head.weight, head.bias))
        return wanted, (weight, bias)

    def bad_rows(self) -> list[tuple[int, int]]:
        """The directions and rows of this process whose loss in the last update is no finite number."""
        bad = ~torch.stack(self.row_losses).isfinite().all(dim=0)
        return [(direction, row) for direction, row in bad.nonzero().tolist()]


def is_finite(found: dict[str, float]) -> bool:
    return all(math.isfinite(value) for value in found.values())
