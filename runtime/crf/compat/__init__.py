"""A drop-in for pydensecrf: `import atrous.runtime.crf.compat as dcrf`, and its published examples run unchanged.

`from atrous.runtime.crf.compat.utils import ...` and `atrous.runtime.crf.compat.densecrf` stand for pydensecrf.utils
and pydensecrf.densecrf.
"""

from __future__ import annotations

from . import densecrf, utils
from .constants import (
    CONST_KERNEL,
    DIAG_KERNEL,
    FULL_KERNEL,
    NO_NORMALIZATION,
    NORMALIZE_AFTER,
    NORMALIZE_BEFORE,
    NORMALIZE_SYMMETRIC,
    KernelType,
    NormalizationType,
)
from .densecrf import ConstUnary, DenseCRF, DenseCRF2D, LogisticUnary, Unary

__all__ = [
    "CONST_KERNEL",
    "DIAG_KERNEL",
    "FULL_KERNEL",
    "NORMALIZE_AFTER",
    "NORMALIZE_BEFORE",
    "NORMALIZE_SYMMETRIC",
    "NO_NORMALIZATION",
    "ConstUnary",
    "DenseCRF",
    "DenseCRF2D",
    "KernelType",
    "LogisticUnary",
    "NormalizationType",
    "Unary",
    "densecrf",
    "utils",
]
