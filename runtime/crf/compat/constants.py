"""pydensecrf's enumerations and the constants of its module; where one is taken, an int or a name serves too."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from ....errors import CrfInputError
from ..parameters import Normalization


class KernelType(IntEnum):
    """Which kernel parameters training could change; at inference all three give the same."""

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


class NormalizationType(IntEnum):
    """How a filter is normalised."""

    NO_NORMALIZATION = 0
    NORMALIZE_BEFORE = 1
    NORMALIZE_AFTER = 2
    NORMALIZE_SYMMETRIC = 3


CONST_KERNEL = KernelType.CONST_KERNEL
DIAG_KERNEL = KernelType.DIAG_KERNEL
FULL_KERNEL = KernelType.FULL_KERNEL
NO_NORMALIZATION = NormalizationType.NO_NORMALIZATION
NORMALIZE_BEFORE = NormalizationType.NORMALIZE_BEFORE
NORMALIZE_AFTER = NormalizationType.NORMALIZE_AFTER
NORMALIZE_SYMMETRIC = NormalizationType.NORMALIZE_SYMMETRIC

_NAMES: dict[NormalizationType, Normalization] = {
    NO_NORMALIZATION: "none",
    NORMALIZE_BEFORE: "before",
    NORMALIZE_AFTER: "after",
    NORMALIZE_SYMMETRIC: "symmetric",
}


def normalization_name(value: Any) -> Normalization:
    """The name of a normalization given as constant, int or name."""
    return _NAMES[_member(NormalizationType, value, "normalization")]


def check_kernel(value: Any) -> None:
    """Refuse what is no kernel type."""
    _member(KernelType, value, "kernel")


def _member(kind: Any, value: Any, what: str) -> Any:
    try:
        return kind[value] if isinstance(value, str) else kind(int(value))
    except (KeyError, TypeError, ValueError):
        raise CrfInputError(f"{what} must be one of {', '.join(kind.__members__)}, got {value!r}") from None
