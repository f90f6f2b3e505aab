"""The structures that host and kernels share; their C++ side is in the `.cu` files under the name in brackets."""

from __future__ import annotations

import ctypes

import numpy as np

from ..checks import MAX_DIMENSIONS

MAX_AXES = 8


class KeyLayout(ctypes.Structure):
    """The packing of a vertex into a key [Layout]."""

    _fields_ = (
        ("dimensions", ctypes.c_int),
        ("words", ctypes.c_int),
        ("scale", ctypes.c_float * MAX_DIMENSIONS),
        ("lowest", ctypes.c_int * MAX_DIMENSIONS),
        ("word", ctypes.c_int * MAX_DIMENSIONS),
        ("shift", ctypes.c_int * MAX_DIMENSIONS),
    )


class FeatureSource(ctypes.Structure):
    """Where the features of the points come from [Features]."""

    _fields_ = (
        ("points", ctypes.c_uint),
        ("axes", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("grid", ctypes.c_uint * MAX_AXES),
        ("sigmas", ctypes.c_float * MAX_DIMENSIONS),
        ("bytes", ctypes.c_void_p),
        ("floats", ctypes.c_void_p),
    )


class UnarySource(ctypes.Structure):
    """Where the unary comes from [Unary]."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("label_stride", ctypes.c_ulonglong),
        ("point_stride", ctypes.c_ulonglong),
        ("is_half", ctypes.c_int),
        ("kind", ctypes.c_int),
        ("first", ctypes.c_uint),
        ("coarse_height", ctypes.c_uint),
        ("coarse_width", ctypes.c_uint),
        ("padded_height", ctypes.c_uint),
        ("padded_width", ctypes.c_uint),
        ("width", ctypes.c_uint),
        ("cap", ctypes.c_float),
        ("clip", ctypes.c_float),
    )

    def set_coarse_grid(self, size: tuple[int, ...], padded: tuple[int, int], width: int) -> None:
        """Read the values on a grid of this (height, width), which covers the padded size of an image of this width."""
        self.coarse_height, self.coarse_width = size
        self.padded_height, self.padded_width = padded
        self.width = width


#: [Range]
RANGE = np.dtype([("lowest", "f4"), ("highest", "f4"), ("deviation", "f4"), ("unusable", "u4")])

#: [Term]
TERM = np.dtype(
    {
        "names": ["slices", "rows", "factors", "compatibility", "corners", "kind", "alpha", "unused"],
        "formats": ["u8", "u8", "u8", "u8", "i4", "i4", "f4", "i4"],
    }
)

#: [Entry]
ENTRY = np.dtype([("index", "u4"), ("weight", "f4")])

#: [Neighbors]
NEIGHBORS = np.dtype([("previous", "i4"), ("next", "i4")])
