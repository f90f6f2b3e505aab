"""Building one variant of a graph, and others of it that differ only in the layers left alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx

from ...errors import PrecisionError
from .casting import TypedGraph, cast_graph
from .float_types import BFLOAT16, FLOAT16, FloatType, WeightLoss
from .observing import Observed
from .quantizing import DEQUANTIZED, Codes, find_quantizable, quantize_graph
from .ranges import Method
from .rules import REASON_NAMED, WEIGHTED
from .targets import Precision, Targets

REASON_SENSITIVE = "too sensitive: the targets were missed with it"
FLOAT_TYPES = {"fp16": FLOAT16, "bf16": BFLOAT16}


@dataclass(frozen=True)
class VariantOptions:
    """What is wanted.

    Attributes:
        precision: fp16, bf16, int8 or fp8.
        targets: what it must reach.
        keep: names of layers or nodes to leave alone.
        method: calibration of int8 and fp8.
        percentile: of the method `percentile`.
        rest: what the layers of an int8 or fp8 variant that are not quantised compute in: fp32 runs everywhere; fp16
            needs opset 19 and TensorRT 10, whose networks are strongly typed, to be fast there.
        activations: of int8: int8 for TensorRT, uint8 for CPUs.
        sensitivity: when to measure layers one by one: `auto` where targets are missed, `always`, or `never`.
        threads: of ONNX Runtime; None for one per core.
    """

    precision: Precision
    targets: Targets
    keep: Sequence[str] = ()
    method: Method = "minmax"
    percentile: float = 99.99
    rest: Literal["fp32", "fp16"] = "fp32"
    activations: Literal["int8", "uint8"] = "int8"
    sensitivity: Literal["auto", "always", "never"] = "auto"
    threads: int | None = None


@dataclass
class Made:
    """One build of a variant."""

    model: onnx.ModelProto
    kept: dict[str, str]
    loss: WeightLoss | None = None


@dataclass
class Maker:
    """Builds variants of one graph that differ in the layers left alone."""

    base: onnx.ModelProto
    options: VariantOptions
    seen: dict[str, Observed]
    reaches: dict[str, float]
    named: dict[str, str] = field(default_factory=dict)

    @property
    def codes(self) -> Codes | None:
        """The codes of activations, or None for half precision."""
        precision = self.options.precision
        return None if precision in FLOAT_TYPES else "fp8" if precision == "fp8" else self.options.activations

    def candidates(self) -> list[str]:
        """Nodes with weights that may be narrow, those the user named left out."""
        if self.codes is not None:
            return [layer.node for layer in find_quantizable(self.base) if layer.node not in self.named]
        nodes = [node.name for node in self.base.graph.node if node.op_type in WEIGHTED]
        return [name for name in nodes if name not in self.named]

    def build(self, alone: Collection[str] = ()) -> Made:
        """The variant with these nodes, and those the user named, left alone."""
        keep = {**dict.fromkeys(alone, REASON_SENSITIVE), **dict.fromkeys(self.named, REASON_NAMED)}
        if self.codes is None:
            return _from_typed(self._cast(self.base, FLOAT_TYPES[self.options.precision], keep))
        layers = [layer for layer in find_quantizable(self.base) if layer.node not in keep]
        if not layers:
            raise PrecisionError(f"no layer is left to be {self.options.precision}; name fewer with --keep")
        rest = FLOAT16 if self.options.rest == "fp16" else None
        coded = quantize_graph(self.base, layers, self.reaches, self.seen, self.codes, rest)
        kept = {layer.node: keep[layer.node] for layer in find_quantizable(self.base) if layer.node in keep}
        if rest is None:
            onnx.checker.check_model(coded, full_check=True)
            return Made(coded, kept)
        typed = self._cast(coded, rest, {})
        return Made(typed.model, {**typed.kept, **kept}, typed.loss)

    def _cast(self, model: onnx.ModelProto, kind: FloatType, keep: dict[str, str]) -> TypedGraph:
        magnitudes = {name: entry.largest for name, entry in self.seen.items()}
        magnitudes |= {f"{name}{DEQUANTIZED}": reach for name, reach in self.reaches.items()}
        return cast_graph(model, kind, keep=keep, magnitudes=magnitudes)


def _from_typed(typed: TypedGraph) -> Made:
    return Made(typed.model, typed.kept, typed.loss)
