"""How far float32 determines a net's blobs: their spread when every rounding goes to the next number.

A layer's exact result is rarely a float32 number, and every program rounds it in its own way: other orders of a sum,
another exponential. So a net is run again and again, each number that a layer had to round moved at random by at most
its last bit; numbers that no program rounds (copies, maxima, masks, indices) are told by the layer's result in float64
and stay. Where a blob then moves as much as two programs differ, the recording cannot say which of them is right:
pooling masks at ties, detections picked among equal scores, dozens of layers that each magnify. An error is excused
blob by blob, only where that very blob moves: a wrong layer in front of the magnifying ones is found whatever becomes
of its error behind them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

from atrous.converter.export.torch_module import BlobRecorder
from atrous.converter.modules import AveragePool2d, InnerProduct

from .recordings import Array, Comparison, Recording, measure_apart

#: times the net is run with other last bits
RUNS = 8
#: a blob may be this many times further from Caffe's than other roundings move it in that many runs
FACTOR = 4.0


class Spread:
    """How far each blob of one net moves where every rounding may go to the next number; measured only as asked.

    Args:
        recording: says where each blob is looked at.
        module: from `to_torch`, float32.
        inputs: input name -> array; they and the weights stay as they are.
    """

    def __init__(self, recording: Recording, module: fx.GraphModule, inputs: Mapping[str, Array]) -> None:
        self._recording, self._module = recording, module
        self._tensors = [torch.from_numpy(np.array(inputs[name], np.float32)) for name in module.meta["inputs"]]
        self._given: dict[str, Array] = {}
        self._runs = 0
        #: recording key -> largest distance from the given net's blob so far, as errors are measured
        self.values: dict[str, float] = {}

    def find_unexcused(self, comparisons: Sequence[Comparison], tolerance: float) -> Comparison | None:
        """The first blob out of tolerance that other roundings do not move as far, or None.

        The net is run until every blob is excused, `RUNS` times at most.
        """
        if any(comparison.detail for comparison in comparisons):  # a blob of another shape, or none
            return next(comparison for comparison in comparisons if comparison.detail)
        while True:
            found = next((c for c in comparisons if not self._is_excused(c, tolerance)), None)
            if found is None or self._runs == RUNS:
                return found
            self._run()

    def _is_excused(self, comparison: Comparison, tolerance: float) -> bool:
        return comparison.error <= max(tolerance, FACTOR * self.values.get(comparison.key, 0.0))

    def _run(self) -> None:
        if not self._given:
            self._given = self._compute(BlobRecorder(self._module))
        moved = self._compute(Shaker(self._module, torch.Generator().manual_seed(self._runs)))
        self._runs += 1
        for key, blob in moved.items():
            apart = measure_apart(self._recording, key, self._given[key], blob)
            self.values[key] = max(self.values.get(key, 0.0), apart)

    def _compute(self, recorder: BlobRecorder) -> dict[str, Array]:
        with torch.no_grad():
            recorder.run(*self._tensors)
        return recorder.blobs


class Shaker(BlobRecorder):
    """Runs a graph and moves every number that its layer rounded, up or down or not at all, by one rounding.

    1. A sum of n terms t (convolution, inner product, average) is rounded n times, each time to half a last bit, u =
       2^-24, of the sum so far. Where the terms have both signs that comes to about u sum |t|, where they have one to
       u sqrt(n / 3) |sum t|, as a random walk of n steps; the number moves by both.
    2. What another layer rounded is told by its result in float64; it moves by its last bit, or by as much as the
       layer in float32 was off.
    """

    def __init__(self, module: fx.GraphModule, generator: torch.Generator) -> None:
        super().__init__(module)
        self._generator = generator

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One layer, its roundings moved."""
        given = super().call_module(target, args, kwargs)
        layer = self.fetch_attr(target)
        terms = _count_terms(layer, args)
        if terms:
            magnitude = _without_signs(layer)(*(argument.abs() for argument in args))
            return self._shake(given, 2**-24 * (magnitude + math.sqrt(terms / 3) * given.abs()))
        try:
            exact = copy.deepcopy(layer).double()(*(argument.double() for argument in args))
        except (RuntimeError, TypeError):  # a layer that knows float32 alone
            return given
        if isinstance(given, torch.Tensor):
            return self._shake(given, _measure_rounding(given, exact))
        return tuple(self._shake(top, _measure_rounding(top, other)) for top, other in zip(given, exact, strict=True))

    def _shake(self, given: torch.Tensor, rounding: torch.Tensor) -> torch.Tensor:
        step = torch.randint(-1, 2, given.shape, generator=self._generator)
        moved = (given.double() + step * rounding.double()).to(given.dtype)
        return torch.where(given.isfinite(), moved, given)


def _count_terms(layer: nn.Module, args: tuple[Any, ...]) -> int:
    """How many terms a number of the layer is the sum of; 0 where it is none."""
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return int(args[0].shape[2] * args[0].shape[3])
    if isinstance(layer, nn.AvgPool2d | AveragePool2d):
        size = layer.kernel_size
        return size**2 if isinstance(size, int) else math.prod(size)
    if isinstance(layer, _ConvNd):
        return layer.weight.numel() // layer.weight.shape[1 if layer.transposed else 0]
    if isinstance(layer, InnerProduct):
        return int(layer.weight.numel() // layer.weight.shape[1 if layer.transpose else 0])
    return int(layer.weight.shape[1]) if isinstance(layer, nn.Linear) else 0


def _without_signs(layer: nn.Module) -> nn.Module:
    """The layer with the absolute values of its weights."""
    positive = copy.deepcopy(layer)
    for parameter in positive.parameters():
        parameter.abs_()
    return positive


def _measure_rounding(given: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """0 where `given` is exact; else its distance to the next float32, or to `exact` where that is more."""
    if given.shape != exact.shape or given.dtype != torch.float32:
        return torch.zeros(())
    last_bit = (torch.nextafter(given, torch.full_like(given, torch.inf)) - given).double()
    return torch.where(given.double() == exact, 0.0, torch.maximum(last_bit, (given.double() - exact).abs()))
