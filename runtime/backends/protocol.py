"""The protocol of all backends: named inputs and outputs, `run`, `run_many`, `close`.

A backend holds one loaded graph. All backends take the same feeds and raise the same errors, because the inputs are
checked here. They return the outputs of the bundle's head, with one exception: `torch` runs the whole network, so it
returns full-size `scores` for a bundle whose graph ends at `lowres`.

A backend on a GPU may also be a `DeviceBackend`, which can leave its outputs in the GPU's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ...errors import InputError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorSpec:
    """An input or output.

    Attributes:
        name: its name in the graph.
        dtype: NumPy's name of its dtype, such as "uint8" or "float32".
        shape: sizes; a string names a dynamic size (1 or larger).
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Backend(Protocol):
    """A loaded graph. `run` may be called from several threads at once.

    Attributes:
        name: the name it is chosen by, such as "onnxruntime".
        device: "cpu" or "cuda".
        inputs: the feeds of `run`.
        outputs: the results of `run`.
    """

    name: str
    device: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs.

        Raises:
            InputError: if a feed is missing, unknown, or of another dtype or shape.
            BackendError: if the backend fails, or was closed.
        """

    def run_many(self, many: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        """Compute the outputs of many feeds, in order; takes feeds as they are needed; raises as `run`.

        By default one after the other. A backend on a device may overlap the copies of one with the computation of
        another.
        """
        return map(self.run, many)

    def close(self) -> None:
        """Free the graph; may be called twice, and while other threads run."""


class DeviceArray(Protocol):
    """A C-contiguous array in a GPU's memory, which is freed when nothing refers to it.

    Attributes:
        address: of its first value.
        shape, dtype: as of a NumPy array.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __iter__(self) -> Iterator[DeviceArray]:
        """Yield the parts along the first axis, which keep the memory too."""

    def to_host(self) -> Array:
        """A copy as a NumPy array."""


#: makes an array in a GPU's memory, of a shape and a dtype, that any stream may fill
Allocate = Callable[[tuple[int, ...], str], DeviceArray]


@runtime_checkable
class DeviceBackend(Protocol):
    """The further method of a backend that can leave its outputs in the GPU's memory."""

    def run_on_device(self, feeds: Mapping[str, Array], allocate: Allocate) -> dict[str, DeviceArray]:
        """Compute all outputs as `run` does, and copy them into arrays of `allocate`.

        The arrays are complete when the call returns, so any stream may read them; they stay valid after `close`.
        """


def check_feeds(inputs: Sequence[TensorSpec], feeds: Mapping[str, Array]) -> None:
    """Check feeds against the inputs of a backend; every backend calls it first.

    Raises:
        InputError: naming the input, the expected dtype and shape, and those of the feed.
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
            side == wanted if isinstance(wanted, int) else side >= 1
            for side, wanted in zip(array.shape, spec.shape, strict=True)
        )
        if array.dtype.name != spec.dtype or not fits:
            raise InputError(f"{expected}, got {array.dtype} of shape {_write_shape(array.shape)}")


def _write_shape(shape: Sequence[int | str]) -> str:
    return " x ".join(str(side) for side in shape) or "()"


def first_line(error: Exception) -> str:
    """The first line of a library's error message, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
