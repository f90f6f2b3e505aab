"""A bundle in the forms of other servers: a model repository of Triton, folders and settings of others."""

from __future__ import annotations

from .triton import TritonOptions, export_triton

__all__ = ["TritonOptions", "export_triton"]
