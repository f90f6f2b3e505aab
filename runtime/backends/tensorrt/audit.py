"""Checks the precision of an engine: which products compute as narrow as the graph asks, by layers and by time.

The ONNX graph defines what each convolution and matrix product should compute in; TensorRT's inspector lists what it
does. A product that is wider than in its graph has missed, which a builder may choose if typing is weak. What the graph
itself keeps in FP32 has not. If layers do not name their nodes, their numbers are compared.

Several layers may name one node: its product, and kernels that scale or activate the result. The product decides, the
first of them in the engine's order; only if no product names the node, the narrowest layer does.

The inspector's JSON has two schemas. Up to TensorRT 10 a tensor has one text, "Format/Datatype": in 8.x a sentence
("Channel major FP16 format where channel % 8 == 0"), from 9 on a name ("Half"); inputs and outputs are names under
"Bindings". TensorRT 11 splits the text into "Format" and "Datatype" (or "DataType"), and inputs and outputs are objects
under "I/O Tensors". Layers are objects only if the engine was built with ProfilingVerbosity.DETAILED.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from ....errors import BackendError, EnginePrecisionError

if TYPE_CHECKING:
    from ....bundle.manifest import GraphFacts

#: bits of a precision's operands; a product may come out as narrow as asked, or narrower
_BITS = {"fp8": 8, "int8": 8, "fp16": 16, "bf16": 16, "tf32": 19, "fp32": 32}
_SHOWN = 8
_MAX_LAYERS = 100_000
#: name of a type here, and TensorRT's names; the first match counts, narrow types first
_TYPE_WORDS = (
    ("fp8", ("FP8", "FLOAT8", "E4M3")),
    ("int8", ("INT8",)),
    ("bf16", ("BF16", "BFLOAT16")),
    ("fp16", ("FP16", "HALF", "FLOAT16")),
    ("fp32", ("FP32", "FLOAT", "FLOAT32")),
    ("int64", ("INT64",)),
    ("int32", ("INT32",)),
    ("bool", ("BOOL",)),
    ("uint8", ("UINT8",)),
)
_WORD = re.compile(r"[A-Z][A-Z0-9]*")
_ONNX_NAME = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
#: layers that multiply and add, in LayerType or ParameterType
_PRODUCTS = re.compile(r"conv|correlation|gemm|matrixmultiply|matmul|fullyconnected|fully_connected", re.IGNORECASE)
#: the name of a Myelin "runtime_fusion" with a product in it, such as __myl_CorrAdd_myl0_4
_FUSED_PRODUCT = re.compile(r"__myl_\w*(?:Corr|Conv|Gemm|MatMul)")
_MOVES = ("reformat", "noop", "shape", "constant", "shuffle", "copy", "cast", "slice", "concat")


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine; `kind` is "product", "move" (copies and reformats) or "other"; "" where not given."""

    name: str
    kind: Literal["product", "move", "other"]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: str
    tactic: str
    nodes: tuple[str, ...]

    @property
    def precision(self) -> str:
        """The type of its first input that is floating or 8-bit; TF32 by the kernel's name."""
        known = ("fp8", "int8", "fp16", "bf16", "fp32")
        candidates = (*self.inputs, self.weights, *self.outputs)
        found = next((kind for kind in candidates if kind in known), "unknown")
        return "tf32" if found == "fp32" and "tf32" in self.tactic.lower() else found


def parse_inspection(content: Mapping[str, Any]) -> list[EngineLayer]:
    """Read the layers in the inspector's JSON, in order; raises BackendError if its schema is unknown."""
    layers = content.get("Layers")
    if not isinstance(layers, list) or len(layers) > _MAX_LAYERS:
        raise BackendError('the inspector\'s JSON has no list "Layers": its schema is unknown')
    if any(isinstance(layer, str) for layer in layers):
        raise BackendError("the inspector's JSON has layer names only: build with ProfilingVerbosity.DETAILED")
    if not {"I/O Tensors", "Bindings"} & content.keys():
        raise BackendError('the inspector\'s JSON has neither "Bindings" nor "I/O Tensors": its schema is unknown')
    return [_parse_layer(layer) for layer in layers]


def _parse_layer(layer: object) -> EngineLayer:
    if not isinstance(layer, dict):
        raise BackendError("a layer in the inspector's JSON is not an object: its schema is unknown")
    name = str(layer.get("Name", ""))
    words = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}"
    lowered = words.lower()
    kind: Literal["product", "move", "other"] = "other"
    if _PRODUCTS.search(words) or ("runtime_fusion" in lowered and _FUSED_PRODUCT.match(name)):
        kind = "product"
    elif any(word in lowered for word in _MOVES):
        kind = "move"
    weights = layer.get("Weights")
    return EngineLayer(
        name=name,
        kind=kind,
        inputs=tuple(_read_types(layer.get("Inputs"))),
        outputs=tuple(_read_types(layer.get("Outputs"))),
        weights=read_type(str(weights.get("Type", ""))) if isinstance(weights, dict) else "",
        tactic=str(layer.get("TacticName", "")),
        nodes=_read_nodes(name, str(layer.get("Metadata", ""))),
    )


def _read_types(tensors: object) -> list[str]:
    if not isinstance(tensors, list):
        return []
    keys = ("Format/Datatype", "Datatype", "DataType", "Format")
    texts = [
        next((tensor[key] for key in keys if tensor.get(key)), "") for tensor in tensors if isinstance(tensor, dict)
    ]
    return [read_type(str(text)) for text in texts]


def read_type(text: str) -> str:
    """Return the element type in a text such as "Half" or "Channel major FP16 format where ..."; "" without one."""
    words = set(_WORD.findall(text.upper()))
    return next((name for name, spellings in _TYPE_WORDS if words & set(spellings)), "")


def _read_nodes(name: str, metadata: str) -> tuple[str, ...]:
    """The ONNX nodes in the metadata (8.6 and later), else the parts of the layer's name."""
    stated = _ONNX_NAME.findall(metadata)
    if stated:
        return tuple(dict.fromkeys(stated))
    bare = re.sub(r"\b(?:PWN|fused)\(|\)$", "", name)
    return tuple(part.strip() for part in re.split(r" \+ |\|\|", bare) if part.strip())


@dataclass(frozen=True)
class Missed:
    """A node that computes in more bits than its graph asks for."""

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
        narrow_writing_fp32: number of products of 16 bits or fewer that write float32: their results need the memory
            traffic of float32, which can cost what the narrow product gains.
        time_ms: precision -> milliseconds, copies and reformats under "move"; None without a profile.
        reformats: number of layers that only copy or reformat.
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
        """Return the audit as records write it."""
        return {**asdict(self), "missed": [asdict(missed) for missed in self.missed]}

    def require(self, share: float, *, is_typed: bool = False) -> None:
        """Raise EnginePrecisionError, naming the nodes, if fewer of the narrow products than `share` are narrow.

        `is_typed` is whether the builder followed the graph's types, so that a later version would not help.
        """
        if self.reached >= share:
            return
        shown = ", ".join(f"{missed.node} ({missed.got})" for missed in self.missed[:_SHOWN])
        more = f" and {len(self.missed) - _SHOWN} more" if len(self.missed) > _SHOWN else ""
        raise EnginePrecisionError(
            f"{self.asked} was requested, but only {self.reached:.0%} of the graph's {self.asked} products reach it"
            f"{f': {shown}{more}' if shown else ''}. "
            + ("Build another precision" if is_typed else "Use TensorRT 9.1 or later, which follows the graph's types")
            + ", or accept less with --required-share"
        )


def audit_precision(
    layers: list[EngineLayer], facts: GraphFacts, profile: list[dict[str, Any]] | None = None
) -> PrecisionAudit:
    """Compare the layers of an engine with the graph it was built from.

    The profile holds layer times as trtexec's --exportProfile writes them: objects with "name" and "averageMs" or
    "timeMs". BackendError is raised if it names no layer of the engine.
    """
    asked = facts.node_precisions
    computing = [layer for layer in layers if layer.kind != "move"]
    own = _match_nodes(asked, computing)
    products = [layer for layer in computing if layer.kind == "product" or layer in own.values()]
    narrow = {name: kind for name, kind in asked.items() if _BITS.get(kind, 32) < 32}
    found = {name: own[name].precision for name in narrow if name in own}
    missed = [
        Missed(name, narrow[name], got) for name, got in found.items() if _BITS.get(got, 64) > _BITS[narrow[name]]
    ]
    return PrecisionAudit(
        asked=min(asked.values(), key=lambda name: _BITS.get(name, 32), default="fp32"),
        layers=_count_precisions(computing),
        products=_count_precisions(products),
        narrow_writing_fp32=sum(_bits(layer) <= 16 and "fp32" in layer.outputs for layer in products),
        time_ms=_sum_times(layers, profile) if profile is not None else None,
        reformats=len(layers) - len(computing),
        missed=tuple(missed),
        reached=1.0 - len(missed) / len(found) if found else _estimate_reached(narrow, products),
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


def _estimate_reached(narrow: Mapping[str, str], products: list[EngineLayer]) -> float:
    """The share by numbers, if no layer names its nodes: narrow products of the engine over those of the graph."""
    if not narrow:
        return 1.0
    limit = max(_BITS[kind] for kind in narrow.values())
    return min(1.0, sum(_bits(layer) <= limit for layer in products) / min(len(narrow), max(len(products), 1)))


def _count_precisions(layers: Iterable[EngineLayer]) -> dict[str, int]:
    return dict(Counter(layer.precision for layer in layers).most_common())


def _sum_times(layers: list[EngineLayer], profile: list[dict[str, Any]]) -> dict[str, float]:
    """Milliseconds by precision."""
    by_name = {layer.name: layer for layer in layers}
    times: Counter[str] = Counter()
    for row in profile:
        layer = by_name.get(str(row.get("name", "")))
        if layer is not None:  # the first row is a count of runs
            kind = "move" if layer.kind == "move" else layer.precision
            times[kind] += float(row.get("averageMs", row.get("timeMs", 0.0)))  # type: ignore[assignment]
    if not times:
        raise BackendError("the profile names no layer of this engine: use the profile of the audited engine")
    return dict(times.most_common())
