"""Conditioning of a net: the spread of its blobs when every rounding goes to a neighboring number.

A layer's exact result is rarely a float32 number, and programs round it differently: another order of a sum, another
exponential. So the net is run several times, and each number that a layer rounded moves at random by at most its last
bit. Numbers that no program rounds (copies, maxima, masks, indices) equal the layer's float64 result and do not move.
If a blob then moves as much as two programs differ, the recording cannot decide which program is right: pooling masks
at ties, detections picked among equal scores, dozens of layers that each magnify. An error is excused only if its own
blob moves, so a wrong layer in front of magnifying layers is still found.
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
from atrous.converter.modules.linear import InnerProduct
from atrous.converter.modules.pooling import AveragePool2d

from .recordings import Array, Comparison, Recording, measure_distance

#: number of runs with other roundings
RUNS = 8
#: a blob is excused up to this multiple of the distance that the runs move it
FACTOR = 4.0


class Spread:
    """The distance that other roundings move each blob of a net, measured on demand.

    Args:
        recording: defines which values of a blob are compared.
        module: from `to_torch`, float32.
        inputs: input name -> array; neither they nor the weights are modified.
    """

    def __init__(self, recording: Recording, module: fx.GraphModule, inputs: Mapping[str, Array]) -> None:
        self._recording, self._module = recording, module
        self._tensors = [torch.from_numpy(np.array(inputs[name], np.float32)) for name in module.meta["inputs"]]
        self._given: dict[str, Array] = {}
        self._runs = 0
        #: recording key -> largest relative distance from the unmodified blob so far
        self.values: dict[str, float] = {}

    def find_unexcused(self, comparisons: Sequence[Comparison], tolerance: float) -> Comparison | None:
        """The first blob out of tolerance that other roundings do not move as far, or None.

        Runs the net until every blob is excused, at most `RUNS` times.
        """
        if any(comparison.detail for comparison in comparisons):  # another shape, or a missing blob
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
            distance = measure_distance(self._recording, key, self._given[key], blob)
            self.values[key] = max(self.values.get(key, 0.0), distance)

    def _compute(self, recorder: BlobRecorder) -> dict[str, Array]:
        with torch.no_grad():
            recorder.run(*self._tensors)
        return recorder.blobs


class Shaker(BlobRecorder):
    """Runs a graph and moves every rounded number up, down or not at all, by one rounding.

    1. A sum of n terms t (convolution, inner product, average) is rounded n times, each time by up to half a last bit,
       u = 2^-24, of the sum so far: about u sum |t| for terms of both signs, and u sqrt(n / 3) |sum t|, a random walk
       of n steps, for terms of one sign. The number moves by both.
    2. A number of another layer is rounded if it differs from the float64 result. It moves by its last bit, or by the
       error of the float32 layer if that is larger.
    """

    def __init__(self, module: fx.GraphModule, generator: torch.Generator) -> None:
        super().__init__(module)
        self._generator = generator

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one layer and move its roundings."""
        given = super().call_module(target, args, kwargs)
        layer = self.fetch_attr(target)
        terms = _count_terms(layer, args)
        if terms:
            magnitude = _without_signs(layer)(*(argument.abs() for argument in args))
            return self._shake(given, 2**-24 * (magnitude + math.sqrt(terms / 3) * given.abs()))
        try:
            exact = copy.deepcopy(layer).double()(*(argument.double() for argument in args))
        except (RuntimeError, TypeError):  # a layer that supports only float32
            return given
        if isinstance(given, torch.Tensor):
            return self._shake(given, _measure_rounding(given, exact))
        return tuple(self._shake(top, _measure_rounding(top, other)) for top, other in zip(given, exact, strict=True))

    def _shake(self, given: torch.Tensor, rounding: torch.Tensor) -> torch.Tensor:
        step = torch.randint(-1, 2, given.shape, generator=self._generator)
        moved = (given.double() + step * rounding.double()).to(given.dtype)
        return torch.where(given.isfinite(), moved, given)


def _count_terms(layer: nn.Module, args: tuple[Any, ...]) -> int:
    """The number of terms that each output of the layer sums; 0 if it is not a sum."""
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return int(args[0].shape[2] * args[0].shape[3])
    if isinstance(layer, nn.AvgPool2d | AveragePool2d):
        size = layer.kernel_size or 1
        return size**2 if isinstance(size, int) else math.prod(size)
    if isinstance(layer, _ConvNd):
        return layer.weight.numel() // layer.weight.shape[1 if layer.transposed else 0]
    if isinstance(layer, InnerProduct):
        return int(layer.weight.numel() // layer.weight.shape[1 if layer.transpose else 0])
    return int(layer.weight.shape[1]) if isinstance(layer, nn.Linear) else 0


def _without_signs(layer: nn.Module) -> nn.Module:
    """A copy of the layer with the absolute values of its weights."""
    positive = copy.deepcopy(layer)
    for parameter in positive.parameters():
        parameter.abs_()
    return positive


def _measure_rounding(given: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """0 where `given` is exact; else the larger of its distances to the next float32 and to `exact`."""
    if given.shape != exact.shape or given.dtype != torch.float32:
        return torch.zeros(())
    last_bit = (torch.nextafter(given, torch.full_like(given, torch.inf)) - given).double()
    return torch.where(given.double() == exact, 0.0, torch.maximum(last_bit, (given.double() - exact).abs()))
