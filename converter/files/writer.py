"""Writing of caffemodels that Caffe reads.

V1 (for Caffe of 2014 and DeepLab v1): field `layers`, type numbers of the dialect, four-number shapes.
V2: field `layer`, type strings, BlobShape. Both have packed float32 and the net's structure in the dialect's numbers.

The file is streamed: lengths are computed first, then each array is written from its own memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...bundle.files import write_file
from ...errors import CaffemodelError
from ...proto import schema
from ...wire import LENGTH, WireError, WireReader, encode_tag, encode_varint
from ..dialects.downgrade import downgrade_layer
from ..dialects.known import binary_dialects, find_dialect
from ..dialects.renumber import from_merged
from .blob import encode_blob
from .prototxt import Prototxt
from .weight_file import LAYER_FIELDS

MAX_FILE_BYTES = (1 << 31) - 1
"""The largest file that protobuf, and so Caffe, reads."""

_LAYER_MESSAGE = {"V1": "V1LayerParameter", "V2": "LayerParameter"}
_BLOBS_NUMBER = {"V1": 6, "V2": 7}

Arrays = Sequence[ArrayLike]


def write_caffemodel(
    path: str | os.PathLike[str],
    net: str | Prototxt | Any,
    layers: Sequence[tuple[str, str, Arrays]] | Mapping[str, Arrays],
    *,
    format: str = "V2",
    dialect: str | None = None,
) -> str:
    """Write a caffemodel.

    Args:
        path: the file, written atomically.
        net: the net's structure, from `read_prototxt` or as a NetParameter in V2 form; or only the net's name.
        layers: with a structure, layer name -> its arrays (any shape, written as float32); the first of several layers
            of one name gets them. With a name only, (layer name, V2 type, arrays) in order.
        format: "V1" or "V2".
        dialect: the dialect of the field numbers; by default the first that has all fields of the net.

    Returns:
        The dialect written.

    Raises:
        CaffemodelError: the format or dialect cannot express the net, or a name in `layers` is not in the structure.
        NetError: an unknown dialect.
        OutputError: the file cannot be written.
    """
    if format not in _LAYER_MESSAGE:
        raise CaffemodelError(f'unknown format "{format}"; choose V1 or V2')
    path = Path(path)
    message, arrays = _arrange(net, layers)
    candidates = (find_dialect(dialect).name,) if dialect is not None else binary_dialects(format)
    failures = []
    for name in candidates:
        try:
            parts = _Encoder(message, arrays, format, name)
        except (WireError, CaffemodelError) as error:
            failures.append(f"as {name}: {error}")
            continue
        if parts.size > MAX_FILE_BYTES:
            raise CaffemodelError(f"would have {parts.size} bytes; Caffe reads less than 2 GiB", path=path)
        write_file(path, parts.write)
        return name
    raise CaffemodelError(f"cannot be written as {format}: " + "; ".join(dict.fromkeys(failures)), path=path)


def _arrange(net: Any, layers: Any) -> tuple[Any, list[list[NDArray[Any]]]]:
    """The structure as a NetParameter, and each layer's arrays."""
    if isinstance(net, str):
        message = schema.message("NetParameter")(name=net)
        arrays = []
        for name, kind, blobs in layers:
            message.layer.add(name=name, type=kind)
            arrays.append([np.asarray(blob) for blob in blobs])
        return message, arrays
    message = net.net if isinstance(net, Prototxt) else net
    if message.layers:
        raise CaffemodelError("the structure is not in V2 form; read_prototxt returns it in that form")
    if not isinstance(layers, Mapping):
        raise CaffemodelError("with a structure, give the arrays as a mapping of layer name to arrays")
    left = dict(layers)
    arrays = [[np.asarray(blob) for blob in left.pop(layer.name, ())] for layer in message.layer]
    if left:
        raise CaffemodelError(f"the structure has no layer {', '.join(map(repr, left))}")
    return message, arrays


class _Encoder:
    """The parts of a caffemodel in order, and their total size."""

    def __init__(self, net: Any, arrays: list[list[NDArray[Any]]], version: str, dialect: str) -> None:
        self._version, self._dialect = version, dialect
        header = type(net)()
        header.CopyFrom(net)
        header.ClearField("layer")
        before, after = _split(from_merged(header.SerializeToString(), "NetParameter", dialect), LAYER_FIELDS[version])
        self._parts: list[bytes | NDArray[np.float32]] = [before]
        for layer, blobs in zip(net.layer, arrays, strict=True):
            self._add_layer(layer, blobs)
        self._parts.append(after)
        self.size = sum(_length(part) for part in self._parts)

    def write(self, stream: IO[bytes]) -> None:
        for part in self._parts:
            stream.write(part if isinstance(part, bytes) else part.reshape(-1).view(np.uint8).data)

    def _add_layer(self, layer: Any, blobs: list[NDArray[Any]]) -> None:
        version, number = self._version, LAYER_FIELDS[self._version]
        message = downgrade_layer(layer, version, self._dialect)
        message.ClearField("blobs")
        merged = message.SerializePartialToString()
        before, after = _split(from_merged(merged, _LAYER_MESSAGE[version], self._dialect), _BLOBS_NUMBER[version])
        body = [before, *(part for blob in blobs for part in self._encode_blob(layer.name, blob)), after]
        self._parts += [encode_tag(number, LENGTH) + encode_varint(sum(map(_length, body))), *body]

    def _encode_blob(self, name: str, blob: NDArray[Any]) -> Iterator[bytes | NDArray[np.float32]]:
        shape = blob.shape
        legacy = self._version == "V1"
        if legacy:
            if len(shape) > 4:
                raise CaffemodelError(f'layer "{name}" has a blob of {len(shape)} axes, V1 blobs have four: write V2')
            shape = (1,) * (4 - len(shape)) + shape
        data = np.ascontiguousarray(blob, dtype="<f4")
        before, after = encode_blob(shape, legacy=legacy, data_bytes=data.nbytes)
        tag = encode_tag(_BLOBS_NUMBER[self._version], LENGTH)
        yield tag + encode_varint(len(before) + data.nbytes + len(after)) + before
        yield data
        yield after


def _split(data: bytes, number: int) -> tuple[bytes, bytes]:
    """A message's fields before and after the place of `number`, as protobuf would order them."""
    before: list[bytes] = []
    after: list[bytes] = []
    for field in WireReader(data).fields(0, len(data)):
        (before if field.number < number else after).append(data[field.at : field.stop])
    return b"".join(before), b"".join(after)


def _length(part: bytes | NDArray[np.float32]) -> int:
    return len(part) if isinstance(part, bytes) else part.nbytes
