"""Recurrent layers in one direction whose steps and gradients are written out, and how they begin.

    layer = ElmoGRU(300, 200)
    h, _ = layer(x)    # (batch, words, 300) -> (batch, words, 200)

A written-out gradient computes word by word only what must be, and the rest for all words at once. That is
faster on a CPU than autograd, which goes back through every step; autograd gives the gradient only where its
own derivative is wanted.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init


class ElmoGRU(nn.GRU):
    """torch's GRU, one layer in one direction, batch first.

        r, z = sigmoid(W x + V h + b);  n = tanh(W' x + r * (V' h + b'));  h = (1 - z) * n + z * h

    On a GPU, and where calls are recorded (torch.compile, torch.jit.trace), it is torch's also in its steps.
    """

    weight_ih_l0: nn.Parameter
    weight_hh_l0: nn.Parameter
    bias_ih_l0: nn.Parameter
    bias_hh_l0: nn.Parameter

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True)

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """(batch, words, input_size) -> (batch, words, hidden_size), and the last state"""
        is_recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if is_recorded or hx is not None or not isinstance(input, Tensor) or input.device.type != "cpu":
            return super().forward(input, hx)
        weight, bias = self.weight_hh_l0.T, self.bias_hh_l0
        from_input = F.linear(input, self.weight_ih_l0, self.bias_ih_l0).to(bias.dtype)
        h = _read(_gru_steps, _GRUSteps, from_input, weight, bias)
        return h, h[None, :, -1]


def _gru_steps(
    from_input: Tensor, weight: Tensor, bias: Tensor, keeps_steps: bool = True
) -> tuple[list[Tensor], Tensor]:
    """(batch, words, 3 * cells), (cells, 3 * cells), (3 * cells)
    -> what the gradient is computed from (with `keeps_steps`), and h (batch, words, cells)"""
    cells = len(weight)
    h = from_input.new_zeros(len(from_input), cells)
    steps = []
    for from_word in from_input.unbind(1):
        from_h = torch.addmm(bias, h, weight)
        gates, from_h = from_word[:, : 2 * cells] + from_h[:, : 2 * cells], from_h[:, 2 * cells :]
        r, z = gates.sigmoid().chunk(2, dim=-1)
        n = torch.addcmul(from_word[:, 2 * cells :], r, from_h).tanh()
        last, h = h, torch.lerp(n, h, z)
        steps.append((r, z, n, from_h, last, h) if keeps_steps else (h,))
    *saved, outputs = (torch.stack(values, dim=1) for values in zip(*steps, strict=True))
    return saved, outputs


class _GRUSteps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, from_input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        saved, outputs = _gru_steps(from_input, weight, bias)
        ctx.save_for_backward(from_input, weight, bias, *saved)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return _recorded_gradients(_gru_steps, ctx, gradients[0])
        _, weight, _, r, z, n, from_h, last_h = ctx.saved_tensors
        # The gradients of what the gates read are multiples of the output's gradient.
        by_output_n = (1 - z) * (1 - n**2)
        by_output = [by_output_n * from_h * r * (1 - r), (last_h - n) * z * (1 - z), by_output_n * r]
        factors = torch.stack(by_output, dim=2)
        with torch.autocast("cpu", enabled=False):
            for_h = torch.zeros_like(last_h[:, 0])
            for_gates, for_outputs = [], []
            for t in reversed(range(last_h.shape[1])):
                for_output = gradients[0][:, t] + for_h
                for_gates.append((for_output[:, None] * factors[:, t]).flatten(1))
                for_outputs.append(for_output)
                for_h = torch.addmm(for_output * z[:, t], for_gates[-1], weight.T)
            for_state, for_output = (torch.stack(steps[::-1], dim=1) for steps in (for_gates, for_outputs))
            for_weight = last_h.flatten(0, 1).T @ for_state.flatten(0, 1)
        for_input = torch.cat([for_state[:, :, : -len(weight)], for_output * by_output_n], dim=-1)
        return for_input, for_weight, for_state.sum(dim=(0, 1))


class ElmoHighwayLSTM(nn.Module):
    """An LSTM in one direction with a highway around its cells (He et al. 2017, equations 4 to 8).

        c = f * c + i * j;  h = r * o * tanh(c) + (1 - r) * W x

    Dropout is on h, and thereby on what the next step reads, with one mask for all words of a row.
    """

    def __init__(self, input_size: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.input_weight = nn.Parameter(torch.empty(input_size, 6 * hidden_size))
        self.recurrent_weight = nn.Parameter(torch.empty(hidden_size, 5 * hidden_size))
        self.bias = nn.Parameter(torch.empty(5 * hidden_size))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, words, input_size) -> (batch, words, hidden_size), from left to right; one word or more"""
        products = (x @ self.input_weight).to(self.bias.dtype)
        from_input, carried = products.split([5 * self.hidden_size, self.hidden_size], dim=-1)
        kept = self.dropout(carried.new_ones(len(x), self.hidden_size))
        inputs = (from_input + self.bias, carried, kept, self.recurrent_weight)
        return _read(_highway_steps, _HighwaySteps, *inputs)


def _highway_steps(
    from_input: Tensor, carried: Tensor, kept: Tensor, weight: Tensor, keeps_steps: bool = True
) -> tuple[list[Tensor], Tensor]:
    """(batch, words, 5 * cells), (batch, words, cells), (batch, cells), (cells, 5 * cells)
    -> what the gradient is computed from (with `keeps_steps`), and h (batch, words, cells)"""
    cells = kept.shape[1]
    from_input = from_input.clone()
    from_input[:, :, 2 * cells : 3 * cells] += 1  # the bias of the forget gate
    h = c = torch.zeros_like(kept)
    steps = []
    for from_word, carry in zip(from_input.unbind(1), carried.unbind(1), strict=True):
        raw = torch.addmm(from_word, h, weight)
        gates, j = raw.sigmoid(), raw[:, cells : 2 * cells].tanh()
        i, _, f, o, r = gates.chunk(5, dim=-1)
        last = h, c
        c = f * c + i * j
        tanh_c = c.tanh()
        h = kept * torch.lerp(carry, o * tanh_c, r)
        steps.append((gates, j, *last, tanh_c, h) if keeps_steps else (h,))
    *saved, outputs = (torch.stack(values, dim=1) for values in zip(*steps, strict=True))
    return saved, outputs


class _HighwaySteps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, from_input: Tensor, carried: Tensor, kept: Tensor, weight: Tensor) -> Tensor:
        saved, outputs = _highway_steps(from_input, carried, kept, weight)
        ctx.save_for_backward(from_input, carried, kept, weight, *saved)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return _recorded_gradients(_highway_steps, ctx, gradients[0])
        _, carried, kept, weight, gates, j, last_h, last_c, tanh_c = ctx.saved_tensors
        i, _, f, o, r = gates.chunk(5, dim=-1)
        # The gates' gradients are multiples of the cell's gradient (i, j, f) or of the output's (o, r).
        by_cell = torch.stack([j * i * (1 - i), i * (1 - j**2), last_c * f * (1 - f)], dim=2)
        by_output = torch.stack([r * tanh_c * o * (1 - o), (o * tanh_c - carried) * r * (1 - r)], dim=2)
        cell_by_output = r * o * (1 - tanh_c**2)
        with torch.autocast(kept.device.type, enabled=False):
            for_h = for_c = torch.zeros_like(kept)
            for_gates, for_outputs = [], []
            for t in reversed(range(carried.shape[1])):
                for_output = kept * (gradients[0][:, t] + for_h)
                for_c = for_c + for_output * cell_by_output[:, t]
                products = [for_c[:, None] * by_cell[:, t], for_output[:, None] * by_output[:, t]]
                for_gates.append(torch.cat(products, dim=1).flatten(1))
                for_outputs.append(for_output)
                for_h, for_c = for_gates[-1] @ weight.T, for_c * f[:, t]
            for_input, for_output = (torch.stack(steps[::-1], dim=1) for steps in (for_gates, for_outputs))
            for_weight = last_h.flatten(0, 1).T @ for_input.flatten(0, 1)
        return for_input, for_output * (1 - r), None, for_weight


def _read(steps: Callable[..., Any], function: type[torch.autograd.Function], *inputs: Tensor) -> Tensor:
    """The output of the steps, by the function with their gradient if one may be wanted."""
    with torch.autocast(inputs[0].device.type, enabled=False):  # the states have the weights' type
        if torch.is_grad_enabled():
            return function.apply(*inputs)
        _, outputs = steps(*inputs, keeps_steps=False)
        return outputs


def _recorded_gradients(steps: Callable[..., Any], ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients with a graph of their own: autograd records the steps anew."""
    inputs = ctx.saved_tensors[: len(ctx.needs_input_grad)]
    inputs = [tensor.view_as(tensor) for tensor in inputs]  # not what led to them
    with torch.autocast(gradient.device.type, enabled=False):
        _, outputs = steps(*inputs)
        needed = [tensor for tensor, is_needed in zip(inputs, ctx.needs_input_grad, strict=True) if is_needed]
        results = iter(torch.autograd.grad(outputs, needed, gradient, create_graph=True))
    return tuple(next(results) if is_needed else None for is_needed in ctx.needs_input_grad)


def init_rnn(rnn: nn.LSTM | nn.GRU | ElmoHighwayLSTM) -> None:
    """Each gate's matrix orthogonal, as in He et al. (2017); biases zero, but 1 for an LSTM's forget gate,
    which `ElmoHighwayLSTM` adds itself."""
    gates_dim, cells = 1 if isinstance(rnn, ElmoHighwayLSTM) else 0, rnn.hidden_size
    for name, parameter in rnn.named_parameters():
        if getattr(parameter, "_is_hf_initialized", False):  # loaded; a gate, a view, has no such flag
            continue
        if parameter.dim() > 1:
            for gate in parameter.split(cells, dim=gates_dim):
                init.orthogonal_(gate)
            continue
        init.zeros_(parameter)
        if isinstance(rnn, nn.LSTM) and name.startswith("bias_ih"):
            parameter[cells : 2 * cells] = 1.0
