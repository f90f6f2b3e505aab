"""The engine inspector's account of an engine, in either schema, as one form.

To TensorRT 10 a tensor has one text, "Format/Datatype": in 8.x a sentence ("Channel major FP16 format where channel %
8 == 0"), from 9 a name ("Half"); the engine's ends are names under "Bindings". TensorRT 11 splits the text in
"Format" and "Datatype" (or "DataType", as for the ends), and the ends are objects under "I/O Tensors". Layers are
objects only if the engine was built with ProfilingVerbosity.DETAILED; else they are bare names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ....errors import BackendError

_MAX_LAYERS = 100_000
#: what a type is called -> its name here; looked for in this order, narrow ones first
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
#: layers that multiply and add, by LayerType or ParameterType
_PRODUCTS = re.compile(r"conv|correlation|gemm|matrixmultiply|matmul|fullyconnected|fully_connected", re.IGNORECASE)
#: the name of a Myelin "runtime_fusion" with a product in it, such as __myl_CorrAdd_myl0_4
_FUSED_PRODUCT = re.compile(r"__myl_\w*(?:Corr|Conv|Gemm|MatMul)")
_MOVES = ("reformat", "noop", "shape", "constant", "shuffle", "copy", "cast", "slice", "concat")


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine.

    Attributes:
        name: as TensorRT writes it: the nodes it was fused from, joined by " + ".
        kind: "product" (convolution or matrix product), "move" (copies and reformats), or "other".
        types: of its inputs and outputs, such as "fp16".
        weights: of its weights, where told.
        tactic: the kernel's name, where told.
        nodes: names of the ONNX nodes behind it, as far as it says.
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
        """What it computes in: the type of its first input that is floating or 8-bit; TF32 by its kernel's name."""
        known = ("fp8", "int8", "fp16", "bf16", "fp32")
        candidates = (*self.inputs, self.weights, *self.outputs)
        found = next((kind for kind in candidates if kind in known), "unknown")
        return "tf32" if found == "fp32" and "tf32" in self.tactic.lower() else found


@dataclass(frozen=True)
class Inspection:
    """An engine as its inspector tells of it: its schema, its ends by name, its layers in order."""

    schema: Literal["bindings", "io_tensors"]
    ends: tuple[str, ...]
    layers: tuple[EngineLayer, ...]


def parse_inspection(account: Mapping[str, Any]) -> Inspection:
    """Read the inspector's JSON.

    Raises:
        BackendError: if it is of neither schema, or tells names only.
    """
    layers = account.get("Layers")
    if not isinstance(layers, list) or len(layers) > _MAX_LAYERS:
        raise BackendError('the inspector tells of no "Layers": this TensorRT writes a form that is not known here')
    if any(isinstance(layer, str) for layer in layers):
        raise BackendError("the inspector tells the layers' names only: build with ProfilingVerbosity.DETAILED")
    if "I/O Tensors" in account:
        ends = [str(end.get("Name", "")) for end in account["I/O Tensors"] if isinstance(end, dict)]
        return Inspection("io_tensors", tuple(ends), tuple(_parse_layer(layer) for layer in layers))
    if "Bindings" in account:
        ends = [str(end) for end in account["Bindings"]]
        return Inspection("bindings", tuple(ends), tuple(_parse_layer(layer) for layer in layers))
    raise BackendError('the inspector tells neither "Bindings" nor "I/O Tensors": a form that is not known here')


def _parse_layer(layer: object) -> EngineLayer:
    if not isinstance(layer, dict):
        raise BackendError("a layer of the inspector's is no object: a form that is not known here")
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
    return [read_type(_write_type(tensor)) for tensor in tensors if isinstance(tensor, dict)]


def _write_type(tensor: Mapping[str, Any]) -> str:
    for name in ("Format/Datatype", "Datatype", "DataType"):
        if tensor.get(name):
            return str(tensor[name])
    return str(tensor.get("Format", ""))


def read_type(text: str) -> str:
    """The element type in a text such as "Half" or "Channel major FP16 format where channel % 8 == 0"; "" if none."""
    words = set(_WORD.findall(text.upper()))
    return next((name for name, spellings in _TYPE_WORDS if words & set(spellings)), "")


def _read_nodes(name: str, metadata: str) -> tuple[str, ...]:
    """ONNX nodes by the metadata (8.6 and later), else by the parts of the layer's name."""
    stated = _ONNX_NAME.findall(metadata)
    if stated:
        return tuple(dict.fromkeys(stated))
    bare = re.sub(r"\b(?:PWN|fused)\(|\)$", "", name)
    return tuple(part.strip() for part in re.split(r" \+ |\|\|", bare) if part.strip())
