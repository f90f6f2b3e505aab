"""Caffe's recurrent layers: the state runs along the first axis; a `cont` of 0 starts a new sequence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class LSTMUnit(nn.Module):
    """One step of an LSTM: cell state (1, N, H), gate inputs (1, N, 4 H) in the order i, f, o, g, cont (1, N)."""

    def forward(self, cell: torch.Tensor, gates: torch.Tensor, cont: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        i, f, o, g = gates.chunk(4, -1)
        cell = cont.unsqueeze(-1) * f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return cell, o.sigmoid() * cell.tanh()


class Recurrence(nn.Module):
    """Base of LSTM and RNN over x (T, N, ...) with cont (T, N); the first output is a sequence (T, N, H).

    Further inputs, in this order: if `static_inputs` is not 0, a static input (N, ...) added to every step; with
    `exposes_state`, the first states (1, N, H): h, and c of the LSTM. With it the last states are further outputs.
    """

    gates: int

    def __init__(self, inputs: int, outputs: int, static_inputs: int = 0, exposes_state: bool = False) -> None:
        super().__init__()
        rows = self.gates * outputs
        self.exposes_state = exposes_state
        self.weight_x = nn.Parameter(torch.zeros(rows, inputs))
        self.bias = nn.Parameter(torch.zeros(rows))
        self.weight_static = nn.Parameter(torch.zeros(rows, static_inputs)) if static_inputs else None
        self.weight_h = nn.Parameter(torch.zeros(rows, outputs))

    def unroll(self, x: torch.Tensor, rest: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """The part of each step that does not depend on the state, T times (N, rows)."""
        steps = F.linear(x.flatten(2), self.weight_x, self.bias)
        if self.weight_static is not None:
            steps = steps + F.linear(rest[0].flatten(1), self.weight_static)
        return steps.unbind()


class LSTM(Recurrence):
    """Long short-term memory; both states are multiplied by cont before each step."""

    gates = 4

    def forward(
        self, x: torch.Tensor, cont: torch.Tensor, *rest: torch.Tensor
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        h = c = x.new_zeros(x.shape[1], self.weight_h.shape[1])
        if self.exposes_state:
            h, c = rest[-2][0], rest[-1][0]
        tops = []
        for step, kept in zip(self.unroll(x, rest), cont.unsqueeze(2).unbind(), strict=True):
            i, f, o, g = (step + F.linear(h * kept, self.weight_h)).chunk(4, 1)
            c = kept * f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            tops.append(h)
        y = torch.stack(tops)
        return (y, h[None], c[None]) if self.exposes_state else y


class RNN(Recurrence):
    """h = tanh(W_x x + b + W_h (cont h)), y = tanh(W_y h + b_y)."""

    gates = 1

    def __init__(self, inputs: int, outputs: int, static_inputs: int = 0, exposes_state: bool = False) -> None:
        super().__init__(inputs, outputs, static_inputs, exposes_state)
        self.weight_y = nn.Parameter(torch.zeros(outputs, outputs))
        self.bias_y = nn.Parameter(torch.zeros(outputs))

    def forward(
        self, x: torch.Tensor, cont: torch.Tensor, *rest: torch.Tensor
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        h = rest[-1][0] if self.exposes_state else x.new_zeros(x.shape[1], self.weight_h.shape[1])
        states = []
        for step, kept in zip(self.unroll(x, rest), cont.unsqueeze(2).unbind(), strict=True):
            h = (step + F.linear(h * kept, self.weight_h)).tanh()
            states.append(h)
        y = F.linear(torch.stack(states), self.weight_y, self.bias_y).tanh()
        return (y, h[None]) if self.exposes_state else y


class ConvLSTM(nn.Module):
    """LSTM with convolutions for products, over x (T, N, C, H, W) with cont (T, N); returns h (T, N, outputs, H, W).

    The gates i, f and o also read the last cell state, each times its own factor (`peepholes`, of a shape that
    broadcasts over (N, outputs, H, W)). With `exposes_state` the first states h and c (1, N, outputs, H, W) are further
    inputs, and the last states further outputs.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        peepholes: tuple[int, ...],
        exposes_state: bool = False,
    ) -> None:
        super().__init__()
        self.outputs, self.exposes_state = outputs, exposes_state
        window = {"kernel_size": kernel_size, "padding": padding, "dilation": dilation}
        self.convolve_x = nn.Conv2d(inputs, 4 * outputs, **window, bias=False)  # type: ignore[arg-type]
        self.convolve_h = nn.Conv2d(outputs, 4 * outputs, **window)  # type: ignore[arg-type]
        self.peepholes = nn.Parameter(torch.ones(3, *peepholes))

    def forward(
        self, x: torch.Tensor, cont: torch.Tensor, *states: torch.Tensor
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        steps = self.convolve_x(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        h = c = x.new_zeros(x.shape[1], self.outputs, *x.shape[3:])
        if self.exposes_state:
            h, c = states[0][0], states[1][0]
        tops = []
        for step, kept in zip(steps.unbind(), cont[:, :, None, None, None].unbind(), strict=True):
            i, f, o, g = (step + self.convolve_h(h * kept)).chunk(4, 1)
            i, f, o = (gate + factor * c for gate, factor in zip((i, f, o), self.peepholes, strict=True))
            c = kept * f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            tops.append(h)
        y = torch.stack(tops)
        return (y, h[None], c[None]) if self.exposes_state else y
