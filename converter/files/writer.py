"""Weights written as Caffe writes them, so that Caffe reads them.

V1 (what Caffe of 2014 and DeepLab v1 read): field `layers`, type numbers of the dialect, four-number shapes.
V2: field `layer`, type strings, BlobShape. Both with packed float32 and the net's structure in the dialect's numbers.

The file is streamed: lengths are computed first, then each array goes from its own memory to the file.
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
from ..dialects.downgrade import fit_age
from ..dialects.renumber import from_merged
from .blob import encode_blob
from .prototxt import Prototxt
from .wire import LENGTH, WireError, WireReader, encode_tag, encode_varint

MAX_FILE_BYTES = (1 << 31) - 1
"""Protobuf's own limit; real Caffe reads no larger file."""

_CANDIDATES = {
    "V1": ("bvlc", "deeplab_v1", "deconvnet", "crfasrnn"),
    "V2": ("bvlc", "deeplab_v2", "pspnet", "segnet", "enet", "ssd", "crfasrnn", "faster_rcnn", "rfcn"),
}
_LAYER_MESSAGE = {"V1": "V1LayerParameter", "V2": "LayerParameter"}
_LAYER_NUMBER = {"V1": 2, "V2": 100}
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
    """Writes a caffemodel.

    Args:
        path: where; appears whole or not at all.
        net: the net's structure, as read by `read_prototxt` or as a NetParameter in V2 form; or only a name.
        layers: with a structure, layer name -> its arrays (float32 when written; any shape that numpy takes), where
            of several layers of one name the first gets them; with a name only, (layer name, V2 type, arrays) in order.
        format: "V1" or "V2".
        dialect: whose field numbers to write; by default the first Caffe that has a place for all of it.

    Returns:
        The dialect written.

    Raises:
        CaffemodelError: the format or dialect cannot hold the net, or a name in `layers` is not in the structure.
        OutputError: the file cannot be written.
    """
    if format not in _LAYER_NUMBER:
        raise CaffemodelError(f'format "{format}" is not written; give V1 or V2')
    path = Path(path)
    message, arrays = _arrange(net, layers)
    candidates = (dialect,) if dialect is not None else _CANDIDATES[format]
    failures = []
    for name in candidates:
        try:
            parts = _Encoder(message, arrays, format, name)
        except (WireError, CaffemodelError) as error:
            failures.append(f"as {name}: {error}")
            continue
        if parts.size > MAX_FILE_BYTES:
            raise CaffemodelError(f"{parts.size} bytes; Caffe reads no file of 2 GiB or more", path=path)
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
        raise CaffemodelError("the structure must be in V2 form (read_prototxt gives it so)")
    if not isinstance(layers, Mapping):
        raise CaffemodelError("with a structure, give the arrays as a mapping of layer name to arrays")
    left = dict(layers)
    arrays = [[np.asarray(blob) for blob in left.pop(layer.name, ())] for layer in message.layer]
    if left:
        raise CaffemodelError(f"the structure has no layer {', '.join(map(repr, left))}")
    return message, arrays


class _Encoder:
    """A caffemodel laid out: what to write, in order, and how long it is."""

    def __init__(self, net: Any, arrays: list[list[NDArray[Any]]], version: str, dialect: str) -> None:
        self._version, self._dialect = version, dialect
        header = type(net)()
        header.CopyFrom(net)
        header.ClearField("layer")
        before, after = _split(from_merged(header.SerializeToString(), "NetParameter", dialect), _LAYER_NUMBER[version])
        self._parts: list[bytes | NDArray[np.float32]] = [before]
        for layer, blobs in zip(net.layer, arrays, strict=True):
            self._add_layer(layer, blobs)
        self._parts.append(after)
        self.size = sum(_length(part) for part in self._parts)

    def write(self, stream: IO[bytes]) -> None:
        for part in self._parts:
            stream.write(part if isinstance(part, bytes) else part.reshape(-1).view(np.uint8).data)

    def _add_layer(self, layer: Any, blobs: list[NDArray[Any]]) -> None:
        version, number = self._version, _LAYER_NUMBER[self._version]
        message = fit_age(layer, version, self._dialect)
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
                raise CaffemodelError(f'layer "{name}" has a blob of {len(shape)} axes; V1 holds four: write V2')
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
