"""The dense CRF: exact to the reference, multi-threaded, reusable.

`dense_crf` refines one image; `DenseCRF` is the model behind it, for other terms, other shapes and repeated use. The
functions that repositories copy around pydensecrf are in `recipes`, its drop-in in `compat`.
"""

from __future__ import annotations

from ...bundle.crf_parameters import BilateralTerm, CrfParameters, GaussianTerm
from ...errors import CrfInputError
from ._lattice import CancelToken
from .calls import InferenceReport
from .checks import CrfWarning, available_threads, kernel_names
from .frames import FrameCrf
from .image import FAST, dense_crf, dense_crf_batch
from .kept import release_memory
from .model import DenseCRF

__all__ = [
    "FAST",
    "BilateralTerm",
    "CancelToken",
    "CrfInputError",
    "CrfParameters",
    "CrfWarning",
    "DenseCRF",
    "FrameCrf",
    "GaussianTerm",
    "InferenceReport",
    "available_threads",
    "dense_crf",
    "dense_crf_batch",
    "kernel_names",
    "release_memory",
]
