"""The CRF of the image before, whose lattices serve the next unary of the same image."""

from __future__ import annotations

from threading import Lock, Thread, current_thread
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from ...bundle.crf_parameters import CrfParameters
from . import _lattice
from .image import add_terms
from .model import DenseCRF, Device
from .terms import forget_lattices


class KeptCrf:
    """Makes the model of an image, or reuses that of the call before; one thread at a time.

    The same image again (equal pixels, label count and parameters) keeps all lattices, another image of the same size
    keeps those of position alone. The result does not depend on it.
    """

    def __init__(self, threads: int | None = None, device: Device = "cpu") -> None:
        """Set up without an image; arguments as for `DenseCRF`."""
        self._threads, self._device = threads, device
        self._crf: DenseCRF | None = None
        self._key: tuple[Any, ...] = ()
        self._image: npt.NDArray[Any] | None = None

    def prepare(self, image: Any, labels: int, parameters: CrfParameters) -> DenseCRF:
        """The model with all terms, whose unary the caller sets; errors as of `add_terms`."""
        pixels = np.asarray(image)
        key = (pixels.shape, pixels.dtype.str, labels, parameters)
        crf, before = self._crf if key == self._key else None, self._image
        self._crf = self._image = None  # an error below starts the next call afresh
        if crf is None:
            crf = DenseCRF(pixels.shape[:2], labels, threads=self._threads, device=self._device)
            add_terms(crf, image, parameters)
        elif before is None or not np.array_equal(pixels, before):
            crf.set_image(image)
        self._crf, self._key, self._image = crf, key, pixels.copy()
        return crf


_of_threads: WeakKeyDictionary[Thread, KeptCrf] = WeakKeyDictionary()
_lock = Lock()


def find_own_crf() -> KeptCrf:
    """The `KeptCrf` of the calling thread; it lives as long as the thread, or until `release_memory`."""
    with _lock:
        return _of_threads.setdefault(current_thread(), KeptCrf())


def release_memory() -> None:
    """Free the lattices and pages that are kept for the next inference."""
    with _lock:
        _of_threads.clear()
    forget_lattices()
    _lattice.release_memory()
