"""Precision variants of a bundle: FP16, BF16, INT8 and FP8, written into the ONNX graph and checked on a CPU.

    atrous precision BUNDLE --to fp16

TensorRT 11 reads the precision of a network from its graph alone, and the same graph keeps older versions from
guessing. `rules` decides which nodes are narrow and which stay float32; `cast` and `quantize` change the graph;
`compare` states what a CPU can prove about it.
"""

from __future__ import annotations

from .facts import describe_graph
from .images import Evidence, HeadReader, Picture, choose_evidence
from .options import VariantOptions
from .variant import VariantResult, make_variant, write_variant
from .verify import VariantCheck, verify_variants

__all__ = [
    "Evidence",
    "HeadReader",
    "Picture",
    "VariantCheck",
    "VariantOptions",
    "VariantResult",
    "choose_evidence",
    "describe_graph",
    "make_variant",
    "verify_variants",
    "write_variant",
]
