"""The device side of one `DenseCRF`: reads and checks arrays of host and device, runs updates."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ....errors import CrfInputError
from ..calls import Output
from ..checks import check_coarse_scores, check_energy_range, check_layout, check_probability_range, refuse_sum
from . import open_driver
from .arrays import DeviceArray, import_array, is_on_device
from .field import DeviceMeanField
from .lattice import LatticeFactory
from .queue import Queue

Kind = Literal["energies", "scores", "probabilities"]

_KINDS: dict[Kind, int] = {"energies": 0, "scores": 1, "probabilities": 3}  # unary.cu


def allocate_array(shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
    """Allocate an array for others to fill, on any stream."""
    queue = Queue(open_driver())
    block = queue.allocate(math.prod(shape), dtype)
    queue.synchronize()  # the memory exists for its own stream only until then
    return DeviceArray(queue, block.address, shape, dtype, block)


class DeviceEngine:
    """The queue, the marginals and the lattices of one model."""

    def __init__(self, points: int, labels: int, storage: str, kernels: str) -> None:
        if storage != "float32" or kernels:
            raise CrfInputError('a GPU has storage "float32" and no choice of kernels: leave both at their defaults')
        self._queue = Queue(open_driver())
        self.field = DeviceMeanField(self._queue, points, labels)
        self.lattices = LatticeFactory(self._queue)
        self.returns_device_arrays = False

    @property
    def place(self) -> tuple[str, int]:
        """Identifies the memory of the lattices."""
        return "cuda", id(self._queue.driver)

    def read(self, value: Any, what: str) -> DeviceArray | None:
        """View an array of the device; None for all others. Results go where the unary was."""
        return import_array(value, what, self._queue) if is_on_device(value, self._queue) else None

    def read_image(self, value: Any, shape: tuple[int, ...]) -> DeviceArray | None:
        """View an image of the device, (*shape, C) or *shape uint8; None for all others."""
        array = self.read(value, "image")
        if array is None:
            return None
        if array.shape == shape:
            array = DeviceArray(self._queue, array.address, (*shape, 1), array.dtype, array)
        if array.shape[:-1] != shape or array.dtype != np.uint8:
            raise CrfInputError(
                f"an image on the device must be uint8 of shape ({', '.join(map(str, shape))}, C), got {array.dtype} "
                f"of shape {array.shape}: convert it there, or pass a NumPy array"
            )
        return array

    def feed(
        self, array: DeviceArray, what: Kind, shape: tuple[int, ...], padded: tuple[int, int] | None, clip: float
    ) -> npt.NDArray[Any]:
        """Set the unary from an array of the device; returns a gap of 0 for each label, as none is pruned here.

        `padded` is the size that scores of a coarser grid cover.
        """
        if padded is None:
            check_layout(array, shape, what, self.field.labels)
        else:
            check_coarse_scores(array, self.field.labels, padded)
        if array.dtype.kind != "f" or (array.dtype.itemsize < 4 and what != "scores"):
            raise CrfInputError(f"{what} must be float32, got {array.dtype}: convert them on the device")
        found = self.field.set_device_unary(array, _KINDS[what], shape[-1], padded, clip)
        unusable, lowest, highest, gaps, deviation = found
        if unusable:
            lowest = math.nan
        if what == "probabilities":
            check_probability_range(lowest, highest)
            if deviation > 0.02:
                raise refuse_sum(f"differ from 1 by {deviation:.4g}")
        elif unusable:
            raise CrfInputError(f"{what} hold NaN or infinite values: look for an overflow in the network")
        elif what == "energies":
            check_energy_range(lowest, highest)
        return np.array(gaps, np.float32)

    def run(
        self,
        iterations: int,
        options: tuple[Any, ...],
        output: Output,
        shape: tuple[int, ...],
    ) -> tuple[Any, tuple[Any, ...]]:
        """Run updates with the `options` of `DeviceMeanField.queue_updates`.

        Returns marginals (L, *shape) or labels (*shape), and the values of a report.
        """
        done, cancelled = self.field.queue_updates(iterations, *options)
        compute = self.field.labels_on_device if output == "labels" else self.field.marginals_on_device
        result = compute(shape)
        report = (done, cancelled, None, 0.0, 0.0, 0.0, 0.0, 0.0)
        return (result if self.returns_device_arrays else result.to_host()), report
