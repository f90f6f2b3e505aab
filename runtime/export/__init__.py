"""A bundle in the forms of other servers: Triton, DeepStream, OpenVINO Model Server."""

from __future__ import annotations

from .deepstream import export_deepstream
from .openvino import export_openvino
from .triton import TritonOptions, export_triton

__all__ = ["TritonOptions", "export_deepstream", "export_openvino", "export_triton"]
