"""A whole update as one CUDA graph: characters, LSTMs, softmax, their gradients, the optimizer.

With a few hundred rows a GPU finishes an operation before Python has launched the next one, and an update has
thousands. A graph of them is launched by one call. It reads and writes the same memory each time, so:

- what differs between updates is copied to where the graph reads it: the letters of the batch's different
  words, the softmax's rows, the learning rate. Their numbers are rounded up to a few sizes, of which each has
  a graph. What is added is read by no position, and its rows are not updated;
- weights, the optimizer's state and the states of the LSTMs are changed in place;
- nothing in it depends on a number that Python would have to wait for. Losses are read when the next update
  runs. An update whose gradient is not finite changes no weight.

The work is the same function with and without a graph, and is run without one for the first updates of a size
and wherever a graph cannot be captured. Text with padding (the end of the text), several processes and other
encoders than those below are left to the update in `learner.py`.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from elmo_hf import kernels
from elmo_hf.corpus.windows import Window
from elmo_hf.errors import warn
from elmo_hf.kernels import characters, graphs
from elmo_hf.kernels.steps import without_padding
from elmo_hf.model.encoders_elmo import ElmoCharacterEncoder, ElmoWordEncoder
from elmo_hf.pretraining.optimizers import RowGradient, add_gradients
from elmo_hf.pretraining.sampling import SelectedRows, draw_samples, full_loss, sampled_loss, select_rows

EAGER = 2  # updates of a size without a graph; the first compiles kernels and takes memory
COLUMNS = 16  # letters are cut to a multiple of this
MAX_GRAPHS = 32  # of the sizes; the least recently used one is dropped


class Prepared(NamedTuple):
    """What an update reads, on the CPU: of each window, and of the update."""

    words: list[Tensor]  # (distinct words, characters), or (distinct words,) ids of a word table
    places: list[Tensor]  # (2, rows, steps) each position's word among them
    targets: list[Tensor]  # (2, rows, steps)
    keep: list[Tensor]  # (rows, 1) False for rows whose states are reset
    selected: list[SelectedRows]  # the softmax's rows; empty with the softmax over all words
    used: list[Tensor]  # (m,) which of them are not there to make a round number

    def tensors(self) -> list[Tensor]:
        rows = [tensor for selected in self.selected for tensor in selected]
        return [*self.words, *self.places, *self.targets, *self.keep, *rows, *self.used]

    def with_tensors(self, tensors: Iterator[Tensor]) -> "Prepared":
        """The same with other tensors, in the order of `tensors`."""

        def take(group: Sequence[Tensor]) -> list[Tensor]:
            return [next(tensors) for _ in group]

        words, places, targets, keep = map(take, (self.words, self.places, self.targets, self.keep))
        selected = [SelectedRows(*take(rows)) for rows in self.selected]
        return Prepared(words, places, targets, keep, selected, take(self.used))


def round_up(number: int, most: int | None = None) -> int:
    """To one of eight sizes between a power of two and the next; at most 14 % more."""
    step = max(1, 1 << max(0, number.bit_length() - 4))
    rounded = -(-number // step) * step
    return rounded if most is None else min(rounded, max(most, number))


# ---- on the CPU, beside the GPU's work


def prepare(learner: Any, windows: Sequence[Window], step: int) -> Prepared | None:
    """Look up what the update of these windows reads; None if a window has padding."""
    if not windows or not all(window.mask.all() for window in windows):
        return None
    distinct, places = zip(*(_distinct_words(learner, window) for window in windows), strict=True)
    words = _of_one_size(distinct, learner.model.elmo.token_encoder)
    prepared = Prepared(words, list(places), [], [], [], [])
    for number, window in enumerate(windows):
        seed = learner.seed_of(step, number)
        targets = torch.from_numpy(window.targets)
        prepared.targets.append(targets)
        prepared.keep.append(torch.from_numpy(learner.kept_rows(seed))[:, None])
        if learner.samples:
            size = learner.model.config.vocab_size
            samples = draw_samples(learner.samples, size, seed)
            rows, used = pad_rows(select_rows(targets.flatten(1), samples), size)
            prepared.selected.append(rows)
            prepared.used.append(used)
    return prepared


def _distinct_words(learner: Any, window: Window) -> tuple[Tensor, Tensor]:
    """Each different word of a window once, and each position's index among them."""
    if window.char_ids is not None:
        rows, index = characters.distinct_rows(torch.from_numpy(window.char_ids).flatten(0, 2))
        return rows, index.view(window.char_ids.shape[:3])
    assert window.input_ids is not None
    distinct, inverse = np.unique(window.input_ids, return_inverse=True)
    rows = torch.from_numpy(distinct)
    if learner.letters_on_cpu is not None:
        rows = learner.letters_on_cpu[rows.long()]
    return rows, torch.from_numpy(inverse).view(window.input_ids.shape)


def _of_one_size(distinct: Sequence[Tensor], encoder: Any) -> list[Tensor]:
    """The windows' words to one round number, by their first words again, and without most of the padding
    behind their letters: the widest filter still sees one place of it alone."""
    size = round_up(max(map(len, distinct)))
    words = [torch.cat([rows, rows[:1].expand(size - len(rows), *rows.shape[1:])]) for rows in distinct]
    if words[0].dim() == 1:
        return words
    widest = max(conv.kernel_size[0] for conv in encoder.convolutions)
    columns = max(int(characters.lengths(rows).max()) for rows in words) + widest
    columns = -(-columns // COLUMNS) * COLUMNS
    return [rows[:, :columns].contiguous() for rows in words]


def pad_rows(selected: SelectedRows, vocab_size: int) -> tuple[SelectedRows, Tensor]:
    """Rows of the softmax to a round number, by rows that no position reads; and which are read."""
    count = len(selected.ids)
    size = round_up(count, vocab_size)
    used = torch.arange(size) < count
    is_free = torch.ones(size, dtype=torch.bool)  # of the first `size` words at least size - count are free
    is_free[selected.ids[selected.ids < size]] = False
    free = is_free.nonzero().squeeze(1)[: size - count]
    return selected._replace(ids=torch.cat([selected.ids, free])), used


# ---- on the GPU


class Results(NamedTuple):
    losses: Tensor  # (2,) sums over the words of each direction
    norm: Tensor  # ()
    row_losses: Tensor  # (windows, 2, rows)


class CapturedUpdate:
    """The updates of a learner, by graphs where they can be captured.

    Attributes:
        reason: why there are no graphs, if one could not be captured.
    """

    def __init__(self, learner: Any) -> None:
        self.learner, self.reason = learner, ""
        self.learning_rate = torch.zeros((), device=learner.device)
        self.entries: OrderedDict[Any, _Size] = OrderedDict()
        self.states = tuple(state.clone() for state in learner.states)  # at the addresses that graphs know

    def __call__(self, prepared: Prepared) -> Results:
        self.learning_rate.fill_(self.learner.optimizer.learning_rate)
        key = (*(tensor.shape for tensor in prepared.tensors()), torch.backends.cuda.matmul.fp32_precision)
        size = self.entries.pop(key, None) or _Size(prepared, self.learner.device)
        self.entries[key] = size
        if len(self.entries) > MAX_GRAPHS:
            self.entries.popitem(last=False)
        size.fill(prepared)
        for own, state in zip(self.states, self.learner.states, strict=True):
            if own is not state:  # after an update without a graph, or at the start of a resumed run
                own.copy_(state)
        self.learner.states = self.states
        results = self._run(size)
        self.learner.optimizer.zero_grad()  # an update without a graph adds to what it finds
        self.learner.optimizer.count_step()
        return results

    def _run(self, size: "_Size") -> Results:
        size.runs += 1
        if size.replay is None and size.runs > EAGER and not self.reason:
            try:
                size.replay = graphs.capture(self._work(size), size.tensors, warm_ups=0)
            except RuntimeError as error:  # nothing was run, and all goes on without graphs
                self.reason = f"no CUDA graph could be captured: {str(error).splitlines()[0]}"
                warn(f"updates are slower than they could be ({self.reason}).")
        if size.replay is None:
            return run_aside(self._work(size), size.tensors)
        return size.replay()

    def _work(self, size: "_Size") -> Callable[..., Results]:
        def work(*_: Tensor) -> Results:
            return update(self.learner, size.prepared, self.learning_rate)

        return work


run_aside = graphs.run_aside


class _Size:
    """The memory that the updates of one size read, and their graph."""

    def __init__(self, prepared: Prepared, device: torch.device) -> None:
        self.tensors = [torch.empty_like(tensor, device=device) for tensor in prepared.tensors()]
        self.prepared = prepared.with_tensors(iter(self.tensors))
        self.replay: Callable[[], Results] | None = None
        self.runs = 0

    def fill(self, prepared: Prepared) -> None:
        for place, tensor in zip(self.tensors, prepared.tensors(), strict=True):
            is_pinned = place.is_cuda
            place.copy_(tensor.pin_memory() if is_pinned else tensor, non_blocking=is_pinned)


def update(learner: Any, prepared: Prepared, learning_rate: Tensor) -> Results:
    """One update, without waiting for what a tensor holds. Weights, the optimizer's state and the learner's
    `states` are changed in place."""
    gradients, row_losses = [], []
    for number in range(len(prepared.words)):
        losses, gradient = _learn(learner, prepared, number)
        row_losses.append(losses)
        gradients += [] if gradient is None else [gradient]
    rows = add_gradients(gradients) if gradients else None
    used = prepared.used[0] if prepared.used else None
    norm = learner.optimizer.step_on_device(learning_rate, rows, used)
    stacked = torch.stack(row_losses)
    return Results(stacked.sum(dim=(0, 2)), norm, stacked)


def _learn(learner: Any, prepared: Prepared, number: int) -> tuple[Tensor, RowGradient | None]:
    """Add the gradients of a window; return the losses of its rows (2, rows), and the softmax's gradient."""
    keep, targets = prepared.keep[number], prepared.targets[number]
    states = tuple(state * keep for state in learner.states)
    with learner.accelerator.autocast(), without_padding():
        vectors = _encode(learner.model.elmo.token_encoder, prepared.words[number])[prepared.places[number]]
        hidden, new_states = learner.network.read(vectors, states)
    for state, new in zip(learner.states, new_states, strict=True):
        state.copy_(new.detach())
    head = learner.model.lm_head
    if not prepared.selected:
        losses = full_loss(hidden, head.weight, head.bias, targets).sum(dim=2)
        (0.5 * losses.sum() * learner.loss_factor).backward()
        return losses.detach(), None
    selected = prepared.selected[number]
    weight, bias = (table.detach()[selected.ids].requires_grad_() for table in (head.weight, head.bias))
    losses = sampled_loss(hidden.flatten(1, 2), weight, bias, selected).view(targets.shape).sum(dim=2)
    (0.5 * losses.sum() * learner.loss_factor).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    return losses.detach(), RowGradient(selected.ids, weight.grad, bias.grad)


def _encode(encoder: Any, words: Tensor) -> Tensor:
    """Distinct words -> (distinct words, projection_dim)"""
    if type(encoder) is ElmoWordEncoder:
        return encoder(words.long())
    return characters.encode_by_products(encoder, words.long(), is_cut=True)


# ---- whether, and the losses


def why_not(learner: Any) -> str:
    """Why the updates of a learner are not captured; an empty text if they are."""
    if learner.device.type != "cuda":
        return "there is no GPU"
    return why_no_step(learner)


def why_no_step(learner: Any) -> str:
    """Why `update` cannot make a learner's steps."""
    if learner.accelerator.num_processes > 1:
        return "there are several processes"
    if kernels.chosen() == "readable":
        return "the readable code was asked for"
    if type(learner.model.elmo.token_encoder) not in (ElmoCharacterEncoder, ElmoWordEncoder):
        return "words are encoded in another way than by their letters or a table"
    if learner.samples and learner.settings.accumulate > 1:
        return "several windows share an update of a sampled softmax"
    return ""


class LaterLosses(Mapping[str, float]):
    """The losses of an update that may still be running; to read a value is to wait for it."""

    def __init__(self, results: Results, words: Tensor) -> None:
        self._words = words
        numbers = torch.cat([results.losses, results.norm[None]])
        self._numbers = numbers.to("cpu", non_blocking=True) if not numbers.is_cuda else _pinned_copy(numbers)
        self._event = None
        if numbers.is_cuda:
            self._event = torch.cuda.Event()
            self._event.record()
        self._values: dict[str, float] | None = None

    def _read(self) -> dict[str, float]:
        if self._values is None:
            if self._event is not None:
                self._event.synchronize()
            *sums, norm = self._numbers.tolist()
            pairs = zip(sums, self._words.tolist(), strict=True)
            forward, backward = (total / max(1, words) for total, words in pairs)
            self._values = {"loss": 0.5 * (forward + backward), "forward_loss": forward}
            self._values |= {"backward_loss": backward, "norm": norm}
        return self._values

    def __getitem__(self, name: str) -> float:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


def _pinned_copy(numbers: Tensor) -> Tensor:
    copy = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
    return copy.copy_(numbers, non_blocking=True)
