"""`WeightFile`: an open weights file of any format, as layers with blobs."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from ...bundle.files import hash_stream, open_regular
from ...errors import CaffemodelError
from ...proto import schema
from ...wire import WireError, encode_block
from ..dialects.detect import Detection
from ..dialects.known import find_dialect
from ..dialects.renumber import to_merged
from ..dialects.upgrade import upgrade_net
from .blob import BlobView
from .prototxt import Prototxt, check_inputs

MAX_LAYERS = 1 << 14
MAX_BLOBS = 1 << 15
LAYER_FIELDS = {"V0": 2, "V1": 2, "V2": 100}
"""Format -> number of the layers in a NetParameter."""


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """One layer of a weights file."""

    name: str  # may occur more than once in a file
    type: str  # its type as written: `Convolution`, `CONVOLUTION`, `conv`; empty if the file does not contain it
    blobs: tuple[BlobView, ...]  # its parameters
    indices: tuple[int, ...]  # the index of each of `blobs` in the layer; HDF5 files omit shared blobs
    bottoms: tuple[str, ...] = ()  # blob names
    tops: tuple[str, ...] = ()  # blob names
    structure: bytes = b""  # the layer's bytes without its blobs, in the file's own dialect


class WeightFile:
    """An open weights file; arrays of its blobs stay valid after it is closed.

    Attributes:
        path: the file.
        net_name: as saved; may be empty.
        format: "V0", "V1", "V2" or "HDF5".
        dialect: the detected dialect of the structure.
        layers: in file order.
    """

    def __init__(
        self,
        path: Path,
        net_name: str,
        file_format: str,
        dialect: Detection,
        layers: tuple[LayerWeights, ...],
        *,
        header: bytes = b"",
        source: Any = None,
    ) -> None:
        self.path, self.net_name, self.format, self.dialect, self.layers = path, net_name, file_format, dialect, layers
        self._header, self._source = header, source

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[LayerWeights]:
        return iter(self.layers)

    def by_name(self, name: str) -> LayerWeights | None:
        """The layer of this name; the last of several, since Caffe overwrites earlier ones."""
        return self._last.get(name)

    @cached_property
    def sha256(self) -> str:
        """The file's digest in hexadecimal."""
        with open_regular(self.path) as file:
            return hash_stream(file)

    @cached_property
    def count(self) -> int:
        """The number of elements in all blobs."""
        return sum(blob.size for layer in self.layers for blob in layer.blobs)

    def read_structure(self, dialect: str | None = None) -> Prototxt:
        """The net definition saved with the weights, in V2 form, read in the given or the detected dialect.

        Raises CaffemodelError if the file contains none, it is damaged, or its dialect is ambiguous; NetError for an
        unknown dialect; PrototxtError for a structure that Caffe rejects.
        """
        if self.format == "HDF5":
            raise CaffemodelError("HDF5 weights contain no structure: give the prototxt as well", path=self.path)
        if dialect is None and self.dialect.ambiguous:
            raise CaffemodelError(
                "the structure can be read in several ways: "
                + "; ".join(self.dialect.evidence)
                + f". Give the prototxt, or the dialect: {', '.join((self.dialect.name, *self.dialect.also))}",
                path=self.path,
            )
        name = find_dialect(dialect or self.dialect.name).name
        unknown: Counter[tuple[str, int]] = Counter()
        message, number = "LayerParameter" if self.format == "V2" else "V1LayerParameter", LAYER_FIELDS[self.format]
        net = schema.message("NetParameter")()
        try:
            parts = [to_merged(self._header, "NetParameter", name, unknown)]
            parts += [encode_block(number, to_merged(layer.structure, message, name, unknown)) for layer in self.layers]
            net.ParseFromString(b"".join(parts))
        except (WireError, DecodeError) as error:
            raise CaffemodelError(f"its structure cannot be read as {name}'s: {error}", path=self.path) from error
        upgraded = upgrade_net(net, path=self.path)
        check_inputs(upgraded.net, self.path)
        return Prototxt(
            net=upgraded.net,
            lines=(0,) * len(upgraded.sources),
            format=upgraded.format,
            path=self.path,
            forks=(),
            warnings=(
                *upgraded.warnings,
                *(f"ignoring unknown field {field} of {holder}" for holder, field in unknown),
            ),
        )

    def close(self) -> None:
        """Release the file; its memory map lives as long as an array that views it."""
        if self._source is not None:
            with contextlib.suppress(BufferError):
                self._source.close()
            self._source = None

    @cached_property
    def _last(self) -> dict[str, LayerWeights]:
        return {layer.name: layer for layer in self.layers}
