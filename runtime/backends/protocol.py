"""What every backend is: named inputs and outputs, one `run`, one `close`.

A backend holds one loaded graph. Backends differ in speed and in what they need installed, never in what they take,
give or raise: the checks of inputs live here, not in the backends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...errors import InputError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorSpec:
    """An input or output.

    Attributes:
        name: as in the graph.
        dtype: NumPy's name of it, "uint8" or "float32".
        shape: sizes; a string names a size that may be anything from 1 up.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Backend(Protocol):
    """A loaded graph. `run` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """The name it is chosen by, such as "onnxruntime"."""

    @property
    def device(self) -> str:
        """Where it runs: "cpu" or "cuda"."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` must be fed."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` gives."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs.

        Raises:
            InputError: if a feed is missing, unknown, or of another dtype or shape.
            BackendError: if the backend fails, or was closed.
        """

    def close(self) -> None:
        """Free the graph; closing twice is allowed."""


def check_feeds(inputs: Sequence[TensorSpec], feeds: Mapping[str, Array]) -> None:
    """Check feeds against the inputs of a backend; every backend calls it first.

    Raises:
        InputError: naming the input, what is expected and what came.
    """
    names = [spec.name for spec in inputs]
    if set(feeds) != set(names):
        raise InputError(f"the graph takes {names}, it was fed {sorted(feeds)}")
    for spec in inputs:
        array = feeds[spec.name]
        expected = f'input "{spec.name}" must be {spec.dtype} of shape {_write_shape(spec.shape)}'
        if not isinstance(array, np.ndarray):
            raise InputError(f"{expected}, got a {type(array).__name__}")
        fits = len(array.shape) == len(spec.shape) and all(
            found == wanted if isinstance(wanted, int) else found >= 1
            for found, wanted in zip(array.shape, spec.shape, strict=True)
        )
        if array.dtype.name != spec.dtype or not fits:
            raise InputError(f"{expected}, got {array.dtype} of shape {_write_shape(array.shape)}")


def _write_shape(shape: Sequence[int | str]) -> str:
    return " x ".join(str(side) for side in shape) or "()"
