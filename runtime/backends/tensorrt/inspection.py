"""Reads the engine inspector's JSON in either schema.

Up to TensorRT 10 a tensor has one text, "Format/Datatype": in 8.x a sentence ("Channel major FP16 format where channel
% 8 == 0"), from 9 on a name ("Half"); inputs and outputs are names under "Bindings". TensorRT 11 splits the text into
"Format" and "Datatype" (or "DataType"), and inputs and outputs are objects under "I/O Tensors". Layers are objects only
if the engine was built with ProfilingVerbosity.DETAILED; otherwise they are names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...errors import BackendError

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
    """One layer of an engine.

    Attributes:
        name: TensorRT's name: the nodes it was fused from, joined by " + ".
        kind: "product" (convolution or matrix product), "move" (copies and reformats), or "other".
        inputs, outputs: their types, such as "fp16".
        weights: type of its weights, "" if not given.
        tactic: the kernel's name, "" if not given.
        nodes: names of the ONNX nodes it computes, as far as given.
    """

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


@dataclass(frozen=True)
class Inspection:
    """An engine according to its inspector: the schema, the names of inputs and outputs, the layers in order."""

    schema: Literal["bindings", "io_tensors"]
    tensors: tuple[str, ...]
    layers: tuple[EngineLayer, ...]


def parse_inspection(content: Mapping[str, Any]) -> Inspection:
    """Read the inspector's JSON.

    Raises:
        BackendError: if it has neither schema, or names only.
    """
    layers = content.get("Layers")
    if not isinstance(layers, list) or len(layers) > _MAX_LAYERS:
        raise BackendError('the inspector\'s JSON has no list "Layers": its schema is unknown')
    if any(isinstance(layer, str) for layer in layers):
        raise BackendError("the inspector's JSON has layer names only: build with ProfilingVerbosity.DETAILED")
    parsed = tuple(_parse_layer(layer) for layer in layers)
    if isinstance(tensors := content.get("I/O Tensors"), list):
        names = [str(tensor.get("Name", "")) for tensor in tensors if isinstance(tensor, dict)]
        return Inspection("io_tensors", tuple(names), parsed)
    if isinstance(tensors := content.get("Bindings"), list):
        return Inspection("bindings", tuple(map(str, tensors)), parsed)
    raise BackendError('the inspector\'s JSON has neither "Bindings" nor "I/O Tensors": its schema is unknown')


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
