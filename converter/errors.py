"""The errors of the converter.

::

    ConverterError                   exit code 2
    ├── PrototxtError                text that cannot be read as a net (file, line, column)
    ├── CaffemodelError              binary that cannot be read as weights (file, offset)
    ├── NetError                     a graph Caffe would refuse (layer, line)
    │   └── UnsupportedLayersError   every layer without a conversion, at once
    ├── WeightsError                 missing or misshapen blobs (layer, expected, got)
    ├── ExportError                  no faithful ONNX form (layer)
    ├── BundleWriteError             the output folder cannot be written (path)
    ├── VerificationError            exit code 1: a stage differs from its reference
    └── MissingDependencyError       exit code 3: names the pip line
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class ConverterError(Exception):
    """Anything the converter refuses; the message says what, where and what to do."""

    exit_code = 2


class PrototxtError(ConverterError):
    """Text that is not a Caffe net.

    Attributes:
        path: the file, or None for text given as a string.
        line: 1-based line, or None where the whole file is meant.
        column: 1-based column, or None.
    """

    def __init__(
        self, message: str, *, path: str | Path | None = None, line: int | None = None, column: int | None = None
    ) -> None:
        self.path, self.line, self.column = path, line, column
        place = ":".join(str(part) for part in (path or "<text>", line, column) if part is not None)
        super().__init__(f"{place}: {message}")


class CaffemodelError(ConverterError):
    """A binary weights file that cannot be read.

    Attributes:
        path: the file, or None for bytes in memory.
        offset: byte offset of the fault, or None.
    """

    def __init__(self, message: str, *, path: str | Path | None = None, offset: int | None = None) -> None:
        self.path, self.offset = path, offset
        place = str(path or "<bytes>") + (f" at byte {offset}" if offset is not None else "")
        super().__init__(f"{place}: {message}")


class NetError(ConverterError):
    """A graph that Caffe would refuse, or that cannot be laid out.

    Attributes:
        layer: name of the layer at fault, or None.
        line: its line in the prototxt, or None.
    """

    def __init__(self, message: str, *, layer: str | None = None, line: int | None = None) -> None:
        self.layer, self.line = layer, line
        place = (f'layer "{layer}"' if layer is not None else "") + (f" (line {line})" if line else "")
        super().__init__(f"{place}: {message}" if place else message)


class UnsupportedLayersError(NetError):
    """Layers without a conversion, all listed at once.

    Attributes:
        layers: (name, type, line, reason) of each.
    """

    def __init__(self, layers: Sequence[tuple[str, str, int | None, str]]) -> None:
        self.layers = tuple(layers)
        rows = "\n".join(
            f'  "{name}" of type {kind}' + (f" (line {line})" if line else "") + f": {reason}"
            for name, kind, line, reason in layers
        )
        super().__init__(
            f"{len(layers)} layer(s) cannot be converted:\n{rows}\n"
            "Remove them from the prototxt, or add the type with atrous.converter.register_layer."
        )


class WeightsError(ConverterError):
    """Weights that do not belong to the net.

    Attributes:
        layer: the first layer at fault, or None.
    """

    def __init__(self, message: str, *, layer: str | None = None) -> None:
        self.layer = layer
        super().__init__(message)


class ExportError(ConverterError):
    """A layer without a faithful ONNX form.

    Attributes:
        layer: its name, or None.
    """

    def __init__(self, message: str, *, layer: str | None = None) -> None:
        self.layer = layer
        super().__init__(f'layer "{layer}": {message}' if layer is not None else message)


class BundleWriteError(ConverterError):
    """The bundle folder cannot be written."""


class VerificationError(ConverterError):
    """A stage differs from its reference by more than the tolerance."""

    exit_code = 1


class MissingDependencyError(ConverterError):
    """A library this step needs is not installed; the message names the pip line."""

    exit_code = 3
