"""Wraps a plan as the ONNX model that ONNX Runtime's provider of TensorRT for RTX loads: one node `EPContext`.

The provider reads the attributes `embed_mode` (1: the plan itself is in the node), `ep_cache_context` (the plan) and
`partition_name` (the name of its runtime cache); `source` names the provider that may run the node. A plan is code, so
the model is made in memory from a plan that the store has checked, and is never written to a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .....errors import BackendError
from .....wire import VARINT, encode_block, encode_tag, encode_varint

if TYPE_CHECKING:
    from .....bundle.manifest import GraphBlob, GraphFacts

PROVIDER = "NvTensorRTRTXExecutionProvider"
#: ONNX Runtime stores the length of an attribute in 31 bits, and protobuf that of a message
MAX_PLAN_BYTES = (1 << 31) - (1 << 20)
_DOMAIN = "com.microsoft"
_IR_VERSION, _OPSET, _DOMAIN_VERSION = 8, 17, 1
_INT, _STRING = 2, 3  # AttributeProto.AttributeType
#: TensorProto.DataType
_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10}


def wrap_plan(plan: bytes, facts: GraphFacts, *, name: str, targets: str, version: str) -> bytes:
    """Return a serialized ModelProto whose only node holds a plan.

    Args:
        plan: the plan.
        facts: the graph that it was built from, for names, types and shapes of inputs and outputs.
        name: the name of the provider's runtime cache: letters and digits.
        targets: the GPUs of the plan, as information, such as "sm86,sm89".
        version: of the library that built it, as information.

    Raises:
        BackendError: if the plan is too large for a model, or an input or output has a type that is not wrapped.
    """
    if len(plan) > MAX_PLAN_BYTES:
        raise BackendError(f"a plan of {len(plan) / 1e9:.1f} GB is too large for ONNX Runtime, which takes 2 GB")
    attributes = [
        _write_int("main_context", 0),
        _write_int("embed_mode", 1),
        _write_string("ep_cache_context", plan),
        _write_string("partition_name", name.encode()),
        _write_string("hardware_architecture", targets.encode()),
        _write_string("ep_sdk_version", version.encode()),
        _write_string("source", PROVIDER.encode()),
    ]
    node = b"".join(
        [
            *(encode_block(1, value.encode()) for value in facts.inputs),
            *(encode_block(2, value.encode()) for value in facts.outputs),
            encode_block(3, name.encode()),
            encode_block(4, b"EPContext"),
            *(encode_block(5, attribute) for attribute in attributes),
            encode_block(7, _DOMAIN.encode()),
        ]
    )
    graph = b"".join(
        [
            encode_block(1, node),
            encode_block(2, name.encode()),
            *_write_blobs(11, facts.inputs),
            *_write_blobs(12, facts.outputs),
        ]
    )
    opsets = ((b"", _OPSET), (_DOMAIN.encode(), _DOMAIN_VERSION))
    return b"".join(
        [
            _write_number(1, _IR_VERSION),
            encode_block(7, graph),
            *(encode_block(8, encode_block(1, domain) + _write_number(2, opset)) for domain, opset in opsets),
        ]
    )


def _write_number(field: int, value: int) -> bytes:
    return encode_tag(field, VARINT) + encode_varint(value)


def _write_int(name: str, value: int) -> bytes:
    return encode_block(1, name.encode()) + _write_number(3, value) + _write_number(20, _INT)


def _write_string(name: str, value: bytes) -> bytes:
    return encode_block(1, name.encode()) + encode_block(4, value) + _write_number(20, _STRING)


def _write_blobs(field: int, blobs: Mapping[str, GraphBlob]) -> list[bytes]:
    return [encode_block(field, _write_value_info(name, blob)) for name, blob in blobs.items()]


def _write_value_info(name: str, blob: GraphBlob) -> bytes:
    if blob.type not in _TYPES:
        raise BackendError(f'"{name}" has type {blob.type}, which the onnxruntime-rtx backend does not pass')
    sides = b"".join(
        encode_block(1, _write_number(1, side) if side >= 0 else encode_block(2, f"{name}_{axis}".encode()))
        for axis, side in enumerate(blob.shape)
    )
    tensor = _write_number(1, _TYPES[blob.type]) + encode_block(2, sides)
    return encode_block(1, name.encode()) + encode_block(2, encode_block(1, tensor))
