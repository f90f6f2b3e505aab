"""The errors of the converter.

::

    ConverterError                   exit code 2
    ├── PrototxtError                text that cannot be read as a net (file, line, column)
    ├── CaffemodelError              binary that cannot be read as weights (file, offset)
    ├── NetError                     a graph Caffe would refuse (layer, line)
    │   ├── CropOffsetError          a Crop whose place in the graph gives no whole offset
    │   └── UnsupportedLayersError   every layer without a conversion, at once
    ├── WeightsError                 missing or misshapen blobs (each with its layer)
    ├── ExportError                  no faithful ONNX form (layer)
    ├── BundleWriteError             the output folder cannot be written (path)
    ├── VerificationError            exit code 1: a stage differs from its reference
    ├── PrecisionError               a variant that cannot be made (of this net, with these images)
    ├── TargetMissedError            exit code 1: a variant is not as good as was asked; nothing was written
    ├── FetchError                   an official model that cannot be fetched or is not as recorded
    │   ├── ArchiveError             a zip file that is broken, hostile, or lacks what is wanted (path)
    │   ├── FolderError              the folder cannot be written, is in use, or has no room
    │   ├── ChangedFileError         exit code 1: a file is not the one that was recorded
    │   └── DownloadError            exit code 1: no address gave the file (one line for each that was tried)
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


class CropOffsetError(NetError):
    """A Crop that takes its offset from the graph, which gives no whole number."""


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
        problems: (layer name, what is wrong) of every layer at fault.
    """

    def __init__(self, source: str, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        shown = "; ".join(f'"{name}": {problem}' for name, problem in self.problems[:3])
        more = f"; and {len(self.problems) - 3} more" if len(self.problems) > 3 else ""
        super().__init__(
            f"{source} does not hold the weights of this net: {len(self.problems)} layer(s) disagree ({shown}{more}); "
            "give the prototxt these weights were trained with"
        )


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


class PrecisionError(ConverterError):
    """A variant in another precision that cannot be made of this net, or with these images."""


class TargetMissedError(ConverterError):
    """A variant that misses its targets; it was not added to the bundle."""

    exit_code = 1


class FetchError(ConverterError):
    """An official model that cannot be fetched, or whose files are not what they should be."""


class ArchiveError(FetchError):
    """A zip file that is broken, hostile, or does not hold what is wanted.

    Attributes:
        path: the archive.
    """

    def __init__(self, message: str, *, path: str | Path) -> None:
        self.path = path
        super().__init__(f"{path}: {message}")


class FolderError(FetchError):
    """The folder of a fetched model cannot be written, is in use by another process, or has no room."""


class ChangedFileError(FetchError):
    """A file of a fetched model, here or on its server, is not the one that was recorded."""

    exit_code = 1


class DownloadError(FetchError):
    """No address gave the file.

    Attributes:
        failures: (address, what happened) in the order they were tried.
    """

    exit_code = 1

    def __init__(self, what: str, failures: Sequence[tuple[str, str]], advice: str) -> None:
        self.failures = tuple(failures)
        rows = "\n".join(f"  {address}: {reason}" for address, reason in failures)
        super().__init__(f"{what}\n{rows}\n{advice}")


class MissingDependencyError(ConverterError):
    """A library this step needs is not installed; the message names the pip line."""

    exit_code = 3
