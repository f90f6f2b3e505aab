"""A `.caffemodel`: layer name -> arrays, read where they lie.

The file is mapped into memory and walked once, tag by tag; the numbers themselves are not touched (`wire`, `blob`).
Every dialect keeps names and blobs at the same places, so weights never depend on the dialect. The structure that is
also in the file does, and is read only when asked for (`WeightFile.read_structure`).

Bounds: at most `MAX_LAYERS` layers and `MAX_BLOBS` blobs, so that what is allocated stays a small multiple of what the
file holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import CaffemodelError
from ...proto import schema
from ..dialects.detect import BVLC, Dialect, LayerEvidence, identify, name_v1_type
from ..dialects.renumber import Notes, to_merged
from ..dialects.upgrade import upgrade_net
from .blob import BlobView, read_blob
from .magic import HDF5, name_wrong_kind
from .prototxt import Prototxt
from .wire import LENGTH, Field, WireError, WireReader, encode_block

MAX_LAYERS = 1 << 14
MAX_BLOBS = 1 << 15

_NET_NAME, _NET_V1_LAYER, _NET_V2_LAYER = 1, 2, 100


class _Places(NamedTuple):
    """Field numbers of what every dialect keeps at the same place."""

    name: int
    type: int
    bottom: int
    top: int
    blobs: int


_V2 = _Places(name=1, type=2, bottom=3, top=4, blobs=7)
_V1 = _Places(name=4, type=5, bottom=2, top=3, blobs=6)
_V0 = _Places(name=1, type=2, bottom=0, top=0, blobs=50)
_V1_V0_LAYER = 1


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """One layer of a weights file.

    Attributes:
        name: may occur more than once in a file.
        type: its type as written: `Convolution`, `CONVOLUTION`, `conv`; empty where the file does not say.
        blobs: its parameters.
        indices: which blob of the layer each of `blobs` is; HDF5 files leave out shared ones.
        bottoms: blob names.
        tops: blob names.
        structure: the layer's bytes without its blobs, in the file's own dialect.
    """

    name: str
    type: str
    blobs: tuple[BlobView, ...]
    indices: tuple[int, ...]
    bottoms: tuple[str, ...] = ()
    tops: tuple[str, ...] = ()
    structure: bytes = b""


class WeightFile:
    """An open weights file; arrays of its blobs stay valid after it is closed.

    Attributes:
        path: the file.
        net_name: as saved; may be empty.
        format: "V0", "V1", "V2" or "HDF5".
        dialect: whose field numbers the structure carries, and how that is known.
        layers: in file order.
    """

    def __init__(
        self,
        path: Path,
        net_name: str,
        version: str,
        dialect: Dialect,
        layers: tuple[LayerWeights, ...],
        *,
        header: bytes = b"",
        source: Any = None,
    ) -> None:
        self.path, self.net_name, self.format, self.dialect, self.layers = path, net_name, version, dialect, layers
        self._header, self._source = header, source

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[LayerWeights]:
        return iter(self.layers)

    def by_name(self, name: str) -> LayerWeights | None:
        """The layer of this name; of several, the last, since Caffe copies each over the one before."""
        return self._last.get(name)

    @cached_property
    def repeated_names(self) -> tuple[str, ...]:
        """Names that more than one layer has."""
        seen: dict[str, int] = {}
        for layer in self.layers:
            seen[layer.name] = seen.get(layer.name, 0) + 1
        return tuple(name for name, count in seen.items() if count > 1)

    @cached_property
    def sha256(self) -> str:
        """Of the file, in hexadecimal."""
        digest = hashlib.sha256()
        with open(self.path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    @cached_property
    def count(self) -> int:
        """Numbers in all blobs together."""
        return sum(blob.size for layer in self.layers for blob in layer.blobs)

    def read_structure(self, dialect: str | None = None) -> Prototxt:
        """The net definition that was saved with the weights, in V2 form.

        Args:
            dialect: read it as this fork's, in place of the one found by evidence.

        Raises:
            CaffemodelError: the file holds none, it is damaged, or its dialect cannot be told.
        """
        if self.format == "HDF5":
            raise CaffemodelError("HDF5 weights hold no structure: give the prototxt as well", path=self.path)
        if dialect is None and self.dialect.ambiguous:
            raise CaffemodelError(
                "the structure can be read in several ways: "
                + "; ".join(self.dialect.evidence)
                + f". Give the prototxt, or name the Caffe: {', '.join((self.dialect.name, *self.dialect.also))}",
                path=self.path,
            )
        name = dialect or self.dialect.name
        notes = Notes()
        message, number = ("LayerParameter", _NET_V2_LAYER) if self.format == "V2" else ("V1LayerParameter", 2)
        net = schema.message("NetParameter")()
        try:
            parts = [to_merged(self._header, "NetParameter", name, notes)]
            parts += [encode_block(number, to_merged(layer.structure, message, name, notes)) for layer in self.layers]
            net.ParseFromString(b"".join(parts))
        except Exception as error:
            if not isinstance(error, WireError) and type(error).__name__ != "DecodeError":
                raise
            raise CaffemodelError(f"its structure cannot be read as {name}'s: {error}", path=self.path) from error
        upgraded = upgrade_net(net, path=self.path)
        unknown = [f"{what} has an unknown field {field}, left out" for what, field in notes.unknown]
        return Prototxt(
            net=upgraded.net,
            lines=(0,) * len(upgraded.sources),
            original_types=upgraded.types,
            format=upgraded.format,
            path=self.path,
            text_sha256="",
            forks=(),
            templates={},
            warnings=(*upgraded.warnings, *unknown),
        )

    def close(self) -> None:
        """Lets go of the file; the map itself lives as long as an array that looks into it."""
        if self._source is not None:
            with contextlib.suppress(BufferError):
                self._source.close()
            self._source = None

    @cached_property
    def _last(self) -> dict[str, LayerWeights]:
        return {layer.name: layer for layer in self.layers}


def read_caffemodel(path: str | os.PathLike[str]) -> WeightFile:
    """Opens a weights file: a caffemodel of any age and dialect, or Caffe's HDF5 form (`.caffemodel.h5`).

    Raises:
        CaffemodelError: it is something else, it is damaged or incomplete, or a blob's numbers do not fill its shape.
        MissingDependencyError: HDF5 without h5py.
    """
    path = Path(path)
    mapped = _map(path)
    if mapped[:8] == HDF5:
        from .hdf5 import read_hdf5

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
        CaffemodelError: it is no BlobProto of one image.
    """
    path = Path(path)
    mapped = _map(path)
    try:
        blob = read_blob(WireReader(mapped), 0, len(mapped))
    except WireError as error:
        kind = name_wrong_kind(mapped, mean=True)
        raise CaffemodelError(kind or f"is no mean image: {error}", path=path, offset=error.offset) from None
    shape = blob.shape[1:] if len(blob.shape) == 4 and blob.shape[0] == 1 else blob.shape
    if len(shape) != 3 or not blob.size:
        raise CaffemodelError(f"holds an array of shape {blob.shape}; a mean image has (1, C, H, W)", path=path)
    return np.array(blob.array.reshape(shape))


def _map(path: Path) -> mmap.mmap:
    try:
        with open(path, "rb") as file:
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
                if field.number in (_NET_V1_LAYER, _NET_V2_LAYER) and field.wire_type == LENGTH:
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
        versions = {version for version, _, _ in found}
        if not found:
            raise CaffemodelError("holds no layers; is it a caffemodel?", path=self._path)
        if len(versions) > 1:
            raise CaffemodelError(
                f"mixes layers of {' and '.join(sorted(versions))}; Caffe refuses it too", path=self._path
            )
        version = versions.pop()
        evidence = [LayerEvidence(layer.type, number, layer.structure) for _, layer, number in found]
        try:
            dialect = identify(evidence, version)
        except WireError:
            dialect = Dialect(BVLC, ("the structure is damaged",), ambiguous=True)
        layers = tuple(layer if number is None else _with_type(layer, number, dialect) for _, layer, number in found)
        return WeightFile(self._path, net_name, version, dialect, layers, header=b"".join(header), source=self._mapped)

    def _layer(self, entry: Field) -> tuple[str, LayerWeights, int | None]:
        """(version, the layer, its V1 type number)."""
        if entry.number == _NET_V2_LAYER:
            layer, _ = self._parts(entry.start, entry.stop, _V2)
            return "V2", layer, None
        layer, rest = self._parts(entry.start, entry.stop, _V1)
        inner = [field for field in rest if field.number == _V1_V0_LAYER and field.wire_type == LENGTH]
        if inner:
            old, _ = self._parts(inner[-1].start, inner[-1].stop, _V0)
            outer = b"".join(self._mapped[field.at : field.stop] for field in rest if field not in inner)
            return "V0", _merge_v0(old, layer, outer + encode_block(_V1_V0_LAYER, old.structure)), None
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
        return CaffemodelError(f"is damaged or no caffemodel: {where}{error}", path=self._path, offset=error.offset)


def _with_type(layer: LayerWeights, number: int, dialect: Dialect) -> LayerWeights:
    kind = name_v1_type(number, dialect.name) or str(number)
    return LayerWeights(layer.name, kind, layer.blobs, layer.indices, layer.bottoms, layer.tops, layer.structure)


def _merge_v0(old: LayerWeights, outer: LayerWeights, structure: bytes) -> LayerWeights:
    """A V0 layer holds name, type and blobs inside, bottoms and tops outside."""
    return LayerWeights(old.name, old.type, old.blobs, old.indices, outer.bottoms, outer.tops, structure)
