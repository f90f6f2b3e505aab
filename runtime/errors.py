"""The errors of the runtime.

::

    InferenceError                   exit code 2
    ├── BundleError                  a bundle that is missing, incomplete, altered or of another schema (path)
    ├── ImageError                   a file that is not a readable image (path)
    ├── DatasetError                 a data set whose files or labels are not as its layout says (path)
    ├── InputError                   an array of the wrong shape, dtype, layout or value range
    │   └── CrfInputError            the same, at the dense CRF
    ├── OutputError                  a result that cannot be written (path)
    ├── EngineError                  a stored engine that must not run here (path, field, expected, found)
    ├── BuildError                   exit code 1: TensorRT did not build an engine
    │   └── PrecisionError           exit code 1: the engine computes in another precision than was asked for
    └── BackendError                 exit code 3: a backend that is missing or refuses the model
        └── MissingDependencyError   exit code 3: names the pip line
"""

from __future__ import annotations

from pathlib import Path


class InferenceError(Exception):
    """Anything the runtime refuses; the message says what, where and what to do."""

    exit_code = 2


class _PathError(InferenceError):
    def __init__(self, message: str, *, path: str | Path | None = None) -> None:
        self.path = path
        super().__init__(f"{path}: {message}" if path is not None else message)


class BundleError(_PathError):
    """A bundle that is missing, incomplete, altered or of another schema."""


class ImageError(_PathError):
    """A file that is not a readable image."""


class DatasetError(_PathError):
    """A data set whose files or labels are not as its layout says."""


class InputError(InferenceError, ValueError):
    """An array of the wrong shape, dtype, layout or value range."""


class CrfInputError(InputError):
    """An input that the dense CRF cannot take."""


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
        self,
        message: str,
        *,
        field: str,
        expected: object = None,
        found: object = None,
        path: str | Path | None = None,
    ) -> None:
        self.field, self.expected, self.found = field, expected, found
        super().__init__(message, path=path)


class BuildError(InferenceError):
    """TensorRT did not build an engine; the message holds what its parser and builder said."""

    exit_code = 1


class PrecisionError(BuildError):
    """The engine computes in another precision than was asked for."""


class BackendError(InferenceError):
    """A backend that is missing or refuses the model."""

    exit_code = 3


class MissingDependencyError(BackendError):
    """A library this step needs is not installed; the message names the pip line."""
