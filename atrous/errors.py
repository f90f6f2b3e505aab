"""The errors of atrous: one tree. Every message says what is wrong, where, and what to do.

::

    AtrousError                        exit code 2
    ├── ConverterError                 a Caffe net that cannot be converted
    │   ├── PrototxtError              text that cannot be read as a net (path, line, column)
    │   │   └── UnknownFieldError      a field that the schema does not have
    │   ├── CaffemodelError            a binary that cannot be read as weights (path, offset)
    │   ├── NetError                   a graph Caffe would refuse (layer, line)
    │   │   ├── CropOffsetError        a Crop whose offset by the graph is not an integer
    │   │   └── UnsupportedLayersError every layer without a conversion, at once
    │   ├── WeightsError               missing or misshapen blobs (each with its layer)
    │   ├── ExportError                no faithful ONNX form (layer)
    │   ├── VerificationInputError     a bundle or recording that cannot be verified
    │   ├── VerificationError          exit code 1: a stage differs from its reference
    │   ├── PrecisionError             a variant that cannot be made of this net or with these images
    │   ├── TargetMissedError          exit code 1: a variant misses its targets; nothing was written
    │   └── FetchError                 an official model that cannot be fetched or is not as recorded
    │       ├── ArchiveError           a zip file that is broken, hostile, or lacks a file (path)
    │       ├── FolderError            the folder cannot be written, is in use, or has no room
    │       ├── ChangedFileError       exit code 1: a file differs from the recorded one
    │       └── DownloadError          exit code 1: no address gave the file (failures)
    ├── BundleError                    a bundle that is missing, incomplete, altered or of another schema (path)
    ├── ImageError                     a file that is not a readable image (path)
    ├── DatasetError                   a data set whose files or labels do not follow its layout (path)
    ├── InputError                     an array of the wrong shape, dtype, layout or value range
    │   ├── CrfInputError              the same, at the dense CRF
    │   └── MemoryLimitError           an image that needs more memory than it may use or there is
    ├── RequestError                   a request that a server refuses (status, retry_after_s)
    ├── OutputError                    a result that cannot be written (path)
    ├── EngineError                    a stored engine that must not run here (path, field, expected, found)
    ├── BuildError                     exit code 1: TensorRT did not build an engine
    │   └── EnginePrecisionError       exit code 1: the engine computes in a wider precision than requested
    └── BackendError                   exit code 3: a backend that is missing or rejects the model
        └── MissingDependencyError     exit code 3: a library is not installed; names the pip line
"""

from __future__ import annotations

import os
from collections.abc import Sequence

AnyPath = str | os.PathLike[str]


class AtrousError(Exception):
    """Root of every error that atrous raises on purpose."""

    exit_code = 2


class _PathError(AtrousError):
    def __init__(self, message: str, *, path: AnyPath | None = None) -> None:
        self.path = path
        super().__init__(f"{path}: {message}" if path is not None else message)


class ConverterError(AtrousError):
    """A Caffe net that cannot be converted."""


class PrototxtError(ConverterError):
    """Text that is not a Caffe net.

    Attributes:
        path: the file, or None for text given as a string.
        line: 1-based line, or None where the whole file is meant.
        column: 1-based column, or None.
    """

    def __init__(
        self, message: str, *, path: AnyPath | None = None, line: int | None = None, column: int | None = None
    ) -> None:
        self.path, self.line, self.column = path, line, column
        place = ":".join(str(part) for part in (path or "<text>", line, column) if part is not None)
        super().__init__(f"{place}: {message}")


class UnknownFieldError(PrototxtError):
    """A field that no known fork of Caffe has.

    Attributes:
        message: the message that holds it.
        field: its name.
    """

    def __init__(self, text: str, *, message: str, field: str, path: AnyPath | None, line: int, column: int) -> None:
        super().__init__(text, path=path, line=line, column=column)
        self.message, self.field = message, field


class CaffemodelError(ConverterError):
    """A binary weights file that cannot be read.

    Attributes:
        path: the file, or None for bytes in memory.
        offset: byte offset of the fault, or None.
    """

    def __init__(self, message: str, *, path: AnyPath | None = None, offset: int | None = None) -> None:
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
    """A Crop that takes its offset from the graph, which does not give an integer."""


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
            "Remove them from the prototxt, convert the part before them (convert --until LAYER), or add the type with "
            "atrous.converter.register_layer."
        )


class WeightsError(ConverterError):
    """Weights that do not belong to the net, or are not finite.

    Attributes:
        problems: (layer name, what is wrong) of every layer at fault.
    """

    def __init__(
        self,
        source: str,
        problems: Sequence[tuple[str, str]],
        *,
        fault: str = "does not hold the weights of this net: {count} layer(s) disagree",
        remedy: str = "give the prototxt these weights were trained with",
    ) -> None:
        self.problems = tuple(problems)
        shown = "; ".join(f'"{name}": {problem}' for name, problem in self.problems[:3])
        more = f"; and {len(self.problems) - 3} more" if len(self.problems) > 3 else ""
        super().__init__(f"{source} {fault.format(count=len(self.problems))} ({shown}{more}); {remedy}")


class ExportError(ConverterError):
    """A layer without a faithful ONNX form.

    Attributes:
        layer: its name, or None.
    """

    def __init__(self, message: str, *, layer: str | None = None) -> None:
        self.layer = layer
        super().__init__(f'layer "{layer}": {message}' if layer is not None else message)


class VerificationInputError(ConverterError):
    """A bundle or recording that cannot be verified."""


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


class ArchiveError(FetchError, _PathError):
    """A zip file that is broken, hostile, or does not hold what is wanted.

    Attributes:
        path: the archive.
    """


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


class BundleError(_PathError):
    """A bundle that is missing, incomplete, altered or of another schema."""


class ImageError(_PathError):
    """A file that is not a readable image."""


class DatasetError(_PathError):
    """A data set whose files or labels are not as its layout says."""


class InputError(AtrousError, ValueError):
    """An array of the wrong shape, dtype, layout or value range."""


class CrfInputError(InputError):
    """An input that the dense CRF cannot take."""


class MemoryLimitError(InputError):
    """An image that needs more memory than it may use, or than there is."""


class RequestError(AtrousError):
    """A request that a server refuses, or could not finish.

    Attributes:
        status: the HTTP status.
        retry_after_s: seconds after which it is worth a second try, or None.
    """

    def __init__(self, message: str, *, status: int = 400, retry_after_s: int | None = None) -> None:
        self.status, self.retry_after_s = status, retry_after_s
        super().__init__(message)


class OutputError(_PathError):
    """A result that cannot be written."""


class EngineError(_PathError):
    """A stored engine that must not run here: altered, cut short, of another maker, or built for something else.

    Attributes:
        field: the field of its record that is at fault, such as "plan.sha256" or "gpu.name".
        expected: what the field must be here, None where that cannot be said.
        found: what it is.
    """

    def __init__(
        self, message: str, *, field: str, expected: object = None, found: object = None, path: AnyPath | None = None
    ) -> None:
        self.field, self.expected, self.found = field, expected, found
        super().__init__(message, path=path)


class BuildError(AtrousError):
    """TensorRT did not build an engine; the message holds what its parser and builder said."""

    exit_code = 1


class EnginePrecisionError(BuildError):
    """The engine computes in a wider precision than requested."""


class BackendError(AtrousError):
    """A backend that is missing or refuses the model."""

    exit_code = 3


class MissingDependencyError(BackendError):
    """A library this step needs is not installed; the message names the pip line."""
