"""Precision variants of a bundle: FP16, BF16, INT8 and FP8, written into the ONNX graph and checked on a CPU.

    atrous precision BUNDLE --to fp16

TensorRT 11 takes the precision of a network from its graph alone, and older ones are kept from guessing by the same
graph. What is narrow, what stays float32 and why is in `rules`; how a graph is changed in `casting` and `quantizing`;
what a CPU can and cannot prove about it in `emulation` and `assessment`.
"""

from __future__ import annotations

from .agreement import Agreement, read_head
from .assessment import Assessment, Picture, Reader, assess, run_as_shipped
from .building import VariantOptions
from .casting import TypedGraph, cast_graph
from .committing import commit_variant, read_deploy
from .emulation import emulate
from .float_types import BFLOAT16, FLOAT8, FLOAT16, FloatType, WeightLoss, measure_loss
from .folding import fold_norms
from .observing import Histogram, Observed, count_histograms, observe
from .opset import raise_opset, read_opset
from .quantizing import find_quantizable, quantize_graph
from .ranges import METHODS, Method, choose_range
from .sensitivity import Sensitivity, find_fewest, sweep_layers
from .targets import Precision, Targets, choose_targets
from .variant import Evidence, VariantResult, make_variant, write_variant
from .verifying import VariantCheck, verify_variants

__all__ = [
    "BFLOAT16",
    "FLOAT8",
    "FLOAT16",
    "METHODS",
    "Agreement",
    "Assessment",
    "Evidence",
    "FloatType",
    "Histogram",
    "Method",
    "Observed",
    "Picture",
    "Precision",
    "Reader",
    "Sensitivity",
    "Targets",
    "TypedGraph",
    "VariantCheck",
    "VariantOptions",
    "VariantResult",
    "WeightLoss",
    "assess",
    "cast_graph",
    "choose_range",
    "choose_targets",
    "commit_variant",
    "count_histograms",
    "emulate",
    "find_fewest",
    "find_quantizable",
    "fold_norms",
    "make_variant",
    "measure_loss",
    "observe",
    "quantize_graph",
    "raise_opset",
    "read_deploy",
    "read_head",
    "read_opset",
    "run_as_shipped",
    "sweep_layers",
    "verify_variants",
    "write_variant",
]
