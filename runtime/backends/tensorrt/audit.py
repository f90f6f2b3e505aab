"""What an engine really computes in: share of layers and of time by precision, and whether it is what was asked.

The ONNX graph says what each convolution and matrix product should compute in; the inspector says what it does. A
product that came out wider than its graph says has missed: a builder may choose so wherever typing is weak. What the
graph itself keeps in FP32 has not. Products whose layer cannot be told apart are judged by the engine's own layers.

Several layers may name one node: its product, and kernels that scale or activate the result. The product decides, the
first of them in the engine's order; only where no product names the node does the narrowest layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ....errors import BackendError, EnginePrecisionError
from .inspection import EngineLayer, Inspection
from .onnx_facts import PRODUCTS, OnnxFacts

#: bits of a precision's operands: a product may come out as narrow as asked, or narrower
_BITS = {"fp8": 8, "int8": 8, "fp16": 16, "bf16": 16, "tf32": 19, "fp32": 32}
_SHOWN = 8


@dataclass(frozen=True)
class Missed:
    """A node that computes in more bits than its graph says."""

    node: str
    asked: str
    got: str


@dataclass(frozen=True)
class PrecisionAudit:
    """The precisions of an engine.

    Attributes:
        asked: the narrowest precision of the graph's products, such as "fp16".
        layers: precision -> number of layers that compute something (no copies, no reformats).
        products: precision -> number of convolutions and matrix products.
        narrow_writing_fp32: number of products of 16 bits or fewer that write float32: the memory traffic of their
            results is that of float32, which can cost what the narrow product gains.
        time_ms: precision -> milliseconds, moves under "move"; None where no profile was given.
        reformats: layers that only copy or reformat.
        missed: nodes wider than asked.
        reached: share of the graph's narrow products that are as narrow in the engine, 0 to 1.
    """

    asked: str
    layers: Mapping[str, int]
    products: Mapping[str, int]
    narrow_writing_fp32: int
    time_ms: Mapping[str, float] | None
    reformats: int
    missed: tuple[Missed, ...]
    reached: float

    def to_json(self) -> dict[str, object]:
        """As records write it."""
        return {**asdict(self), "missed": [asdict(missed) for missed in self.missed]}

    def require(self, share: float) -> None:
        """Insist that at least a share of the narrow products is as narrow as asked.

        Raises:
            EnginePrecisionError: naming the nodes that are not.
        """
        if self.reached >= share:
            return
        shown = ", ".join(f"{missed.node} ({missed.got})" for missed in self.missed[:_SHOWN])
        more = f" and {len(self.missed) - _SHOWN} more" if len(self.missed) > _SHOWN else ""
        named = f": {shown}{more}" if shown else ""
        raise EnginePrecisionError(
            f"{self.asked} was asked for, and only {self.reached:.0%} of the graph's {self.asked} products reach it"
            f"{named}. Use TensorRT 9.1 or later, which takes the graph's types as they are, or accept less with "
            "--required-share"
        )


def audit_precision(
    inspection: Inspection, graph: OnnxFacts, profile: list[dict[str, Any]] | None = None
) -> PrecisionAudit:
    """Compare an engine with its graph.

    Args:
        inspection: from `parse_inspection`.
        graph: what the engine was built from.
        profile: layer times as trtexec's --exportProfile writes them: objects with "name" and "averageMs" or "timeMs".

    Raises:
        BackendError: if the profile names no layer of the engine.
    """
    asked = {node.name: graph.precision_of(node) for node in graph.nodes if node.op in PRODUCTS and node.name}
    computing = [layer for layer in inspection.layers if layer.kind != "move"]
    own = _match_nodes(asked, computing)
    products = [layer for layer in computing if layer.kind == "product" or layer in own.values()]
    narrowest = min(asked.values(), key=lambda name: _BITS.get(name, 32), default="fp32")
    narrow = {name: kind for name, kind in asked.items() if _BITS.get(kind, 32) < 32}
    found = {name: own[name].precision for name in narrow if name in own}
    missed = tuple(
        Missed(name, narrow[name], got) for name, got in found.items() if _BITS.get(got, 64) > _BITS[narrow[name]]
    )
    return PrecisionAudit(
        asked=narrowest,
        layers=_count(computing),
        products=_count(products),
        narrow_writing_fp32=sum(_bits(layer) <= 16 and "fp32" in layer.outputs for layer in products),
        time_ms=_share_time(inspection, profile) if profile is not None else None,
        reformats=len(inspection.layers) - len(computing),
        missed=missed,
        reached=_reached(narrow, found, missed, products),
    )


def _match_nodes(asked: Mapping[str, str], layers: list[EngineLayer]) -> dict[str, EngineLayer]:
    """Node -> the layer that computes it: its first product, else the narrowest layer that names it."""
    own: dict[str, EngineLayer] = {}
    for layer in sorted(layers, key=lambda layer: -1 if layer.kind == "product" else _bits(layer)):
        for name in layer.nodes:
            if name in asked:
                own.setdefault(name, layer)
    return own


def _bits(layer: EngineLayer) -> int:
    return _BITS.get(layer.precision, 64)


def _reached(
    narrow: Mapping[str, str], found: Mapping[str, str], missed: tuple[Missed, ...], products: list[EngineLayer]
) -> float:
    if not narrow:
        return 1.0
    if found:
        return 1.0 - len(missed) / len(found)
    # No layer names its nodes: compare how many are narrow with how many should be.
    limit = max(_BITS[kind] for kind in narrow.values())
    narrow_layers = sum(_bits(layer) <= limit for layer in products)
    return min(1.0, narrow_layers / min(len(narrow), max(len(products), 1)))


def _count(layers: list[EngineLayer]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for layer in layers:
        counts[layer.precision] = counts.get(layer.precision, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _share_time(inspection: Inspection, profile: list[dict[str, Any]]) -> dict[str, float]:
    """Milliseconds by precision."""
    layers = {layer.name: layer for layer in inspection.layers}
    times: dict[str, float] = {}
    for row in profile:
        layer = layers.get(str(row.get("name", "")))
        if layer is None:  # the count of runs, which comes first, and what a profile adds of its own
            continue
        kind = "move" if layer.kind == "move" else layer.precision
        times[kind] = times.get(kind, 0.0) + float(row.get("averageMs", row.get("timeMs", 0.0)))
    if not times:
        raise BackendError("the profile names no layer of this engine: profile the engine that is audited")
    return dict(sorted(times.items(), key=lambda item: -item[1]))
