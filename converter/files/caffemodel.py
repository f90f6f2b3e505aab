"""Reading of `.caffemodel` files: layer name -> arrays, viewed in the mapped file.

The file is mapped into memory and walked once, tag by tag, without reading the numbers. Every dialect keeps names and
blobs in the same fields, so weights do not depend on the dialect. The structure in the file does; it is read only on
request (`WeightFile.read_structure`).

At most `MAX_LAYERS` layers and `MAX_BLOBS` blobs are read, so that memory stays a small multiple of the file's size.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...bundle.files import open_regular
from ...errors import CaffemodelError
from ...wire import LENGTH, Field, WireError, WireReader, encode_block
from ..dialects.detect import Detection, LayerEvidence, detect_in_binary, name_v1_type
from ..dialects.known import BVLC
from .blob import BlobView, read_blob
from .hdf5 import read_hdf5
from .magic import HDF5, name_wrong_kind
from .weight_file import LAYER_FIELDS, MAX_BLOBS, MAX_LAYERS, LayerWeights, WeightFile

_NET_NAME = 1


class _Places(NamedTuple):
    """The field numbers that every dialect shares."""

    name: int
    type: int
    bottom: int
    top: int
    blobs: int


_V2 = _Places(name=1, type=2, bottom=3, top=4, blobs=7)
_V1 = _Places(name=4, type=5, bottom=2, top=3, blobs=6)
_V0 = _Places(name=1, type=2, bottom=0, top=0, blobs=50)
_V1_V0_LAYER = 1


def read_caffemodel(path: str | os.PathLike[str]) -> WeightFile:
    """Open a weights file: a caffemodel of any format and dialect, or Caffe's HDF5 form (`.caffemodel.h5`).

    Raises:
        CaffemodelError: another kind of file, a damaged or truncated one, or a blob whose data do not fill its shape.
        MissingDependencyError: HDF5 without h5py.
    """
    path = Path(path)
    mapped = _map(path)
    if mapped[:8] == HDF5:
        mapped.close()
        return read_hdf5(path)
    kind = name_wrong_kind(mapped)
    if kind is not None:
        mapped.close()
        raise CaffemodelError(kind, path=path)
    return _Reader(path, mapped).read()


def read_mean(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """A mean image (`mean.binaryproto`), as float32 of shape (channels, height, width) in the net's channel order.

    Raises:
        CaffemodelError: the file is not a BlobProto of one image.
    """
    path = Path(path)
    mapped = _map(path)
    try:
        blob = read_blob(WireReader(mapped), 0, len(mapped))
    except WireError as error:
        kind = name_wrong_kind(mapped, mean=True)
        raise CaffemodelError(kind or f"is not a mean image: {error}", path=path, offset=error.offset) from None
    shape = blob.shape[1:] if len(blob.shape) == 4 and blob.shape[0] == 1 else blob.shape
    if len(shape) != 3 or not blob.size:
        raise CaffemodelError(f"holds an array of shape {blob.shape}; a mean image has (1, C, H, W)", path=path)
    return np.array(blob.array.reshape(shape))


def _map(path: Path) -> mmap.mmap:
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise CaffemodelError("is empty", path=path)
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CaffemodelError(f"cannot be read: {reason}", path=path) from error


class _Reader:
    """One walk over a mapped caffemodel."""

    def __init__(self, path: Path, mapped: mmap.mmap) -> None:
        self._path, self._mapped = path, mapped
        self._reader = WireReader(mapped)
        self._where = ""
        self._blobs = 0

    def read(self) -> WeightFile:
        net_name, header = "", []
        found: list[tuple[str, LayerWeights, int | None]] = []
        try:
            for field in self._reader.fields(0, len(self._mapped)):
                if field.number in LAYER_FIELDS.values() and field.wire_type == LENGTH:
                    self._where = f"layer {len(found)}"
                    found.append(self._layer(field))
                    if len(found) > MAX_LAYERS:
                        raise WireError(f"more than {MAX_LAYERS} layers", field.at)
                else:
                    if field.number == _NET_NAME and field.wire_type == LENGTH:
                        net_name = self._reader.text(field)
                    header.append(self._mapped[field.at : field.stop])
                self._where = f"after layer {len(found) - 1}" if found else ""
        except WireError as error:
            raise self._explain(error) from None
        formats = {file_format for file_format, _, _ in found}
        if not found:
            raise CaffemodelError("holds no layers; is it a caffemodel?", path=self._path)
        if len(formats) > 1:
            raise CaffemodelError(f"mixes layers of {' and '.join(sorted(formats))}; Caffe rejects it", path=self._path)
        file_format = formats.pop()
        evidence = [LayerEvidence(layer.type, number, layer.structure) for _, layer, number in found]
        try:
            dialect = detect_in_binary(evidence, file_format)
        except WireError:
            dialect = Detection(BVLC.name, ("the structure is damaged",), ambiguous=True)
        layers = tuple(
            layer if number is None else replace(layer, type=name_v1_type(number, dialect.name) or str(number))
            for _, layer, number in found
        )
        return WeightFile(
            self._path, net_name, file_format, dialect, layers, header=b"".join(header), source=self._mapped
        )

    def _layer(self, entry: Field) -> tuple[str, LayerWeights, int | None]:
        """(format, the layer, its V1 type number)."""
        if entry.number == LAYER_FIELDS["V2"]:
            layer, _ = self._parts(entry.start, entry.stop, _V2)
            return "V2", layer, None
        layer, rest = self._parts(entry.start, entry.stop, _V1)
        inner = [field for field in rest if _is_v0_layer(field)]
        if inner:  # a V0 layer has its name, type and blobs inside, its bottoms and tops outside
            old, _ = self._parts(inner[-1].start, inner[-1].stop, _V0)
            outer = b"".join(self._mapped[field.at : field.stop] for field in rest if not _is_v0_layer(field))
            structure = outer + encode_block(_V1_V0_LAYER, old.structure)
            return "V0", replace(old, bottoms=layer.bottoms, tops=layer.tops, structure=structure), None
        number = next((field.value for field in reversed(rest) if field.number == _V1.type), 0)
        return "V1", layer, number

    def _parts(self, start: int, stop: int, places: _Places) -> tuple[LayerWeights, list[Field]]:
        name = kind = ""
        bottoms, tops, spans, rest = [], [], [], []
        blobs: list[tuple[int, int]] = []
        for field in self._reader.fields(start, stop):
            if field.number == places.blobs and field.wire_type == LENGTH:
                blobs.append((field.start, field.stop))
                continue
            spans.append(self._mapped[field.at : field.stop])
            rest.append(field)
            if field.wire_type != LENGTH:
                continue
            if field.number == places.name:
                name = self._reader.text(field)
                self._where = f'layer "{name}"'
            elif field.number == places.type:
                kind = self._reader.text(field)
            elif field.number == places.bottom:
                bottoms.append(self._reader.text(field))
            elif field.number == places.top:
                tops.append(self._reader.text(field))
        views = tuple(self._blob(index, *span) for index, span in enumerate(blobs))
        layer = LayerWeights(name, kind, views, tuple(range(len(views))), tuple(bottoms), tuple(tops), b"".join(spans))
        return layer, rest

    def _blob(self, index: int, start: int, stop: int) -> BlobView:
        self._blobs += 1
        if self._blobs > MAX_BLOBS:
            raise WireError(f"more than {MAX_BLOBS} blobs", start)
        try:
            return read_blob(self._reader, start, stop)
        except WireError as error:
            raise WireError(f"blob {index}: {error}", error.offset) from None

    def _explain(self, error: WireError) -> CaffemodelError:
        where = f"{self._where}: " if self._where else ""
        if error.shortfall:
            size = len(self._mapped)
            text = f"is incomplete: {where}it needs at least {size + error.shortfall} bytes, the file has {size}"
            return CaffemodelError(f"{text}. Fetch it again", path=self._path, offset=error.offset)
        return CaffemodelError(f"is damaged or not a caffemodel: {where}{error}", path=self._path, offset=error.offset)


def _is_v0_layer(field: Field) -> bool:
    return field.number == _V1_V0_LAYER and field.wire_type == LENGTH
