"""The kernels' source and the types of their arguments, which are read from it."""

from __future__ import annotations

import ctypes
import re
from functools import cache
from pathlib import Path
from typing import Any

from .structures import FeatureSource, KeyLayout, UnarySource

#: In the order of their inclusion.
FILES = ("common.cu", "lattice.cu", "unary.cu", "update.cu")

_KERNEL = re.compile(r"^KERNEL (\w+)\(([^)]*)\)", re.MULTILINE)
_TYPES: dict[str, Any] = {
    "int": ctypes.c_int,
    "unsigned": ctypes.c_uint,
    "float": ctypes.c_float,
    "Index": ctypes.c_ulonglong,
    "Layout": KeyLayout,
    "Features": FeatureSource,
    "Unary": UnarySource,
}


@cache
def read_source() -> str:
    """The kernels as one file."""
    folder = Path(__file__).parent
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in FILES)


@cache
def read_signatures() -> dict[str, tuple[Any, ...]]:
    """Kernel -> the ctypes types of its parameters."""
    return {
        name: tuple(_read_type(parameter) for parameter in parameters.split(","))
        for name, parameters in _KERNEL.findall(read_source())
    }


def _read_type(parameter: str) -> Any:
    return ctypes.c_void_p if "*" in parameter else _TYPES[parameter.split()[0]]
