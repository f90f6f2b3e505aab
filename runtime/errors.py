"""The errors of the runtime.

::

    InferenceError                   exit code 2
    ├── BundleError                  a bundle that is missing, incomplete, altered or of another schema (path)
    ├── ImageError                   a file that is not a readable image (path)
    ├── InputError                   an array of the wrong shape, dtype, layout or value range
    │   └── CrfInputError            the same, at the dense CRF
    ├── OutputError                  a result that cannot be written (path)
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


class InputError(InferenceError, ValueError):
    """An array of the wrong shape, dtype, layout or value range."""


class CrfInputError(InputError):
    """An input that the dense CRF cannot take."""


class OutputError(_PathError):
    """A result that cannot be written."""


class BackendError(InferenceError):
    """A backend that is missing or refuses the model."""

    exit_code = 3


class MissingDependencyError(BackendError):
    """A library this step needs is not installed; the message names the pip line."""
