"""Checks an ONNX graph for known problems in TensorRT, before minutes of building.

The converter wrote the patterns of the graph into the manifest (`converter/precision/facts.py` defines them); the
tables below list what TensorRT does with each. "refuse" stops the build, "warn" does not.

They follow NVIDIA's operator reference and support tables. Computed biases, zero points and the tables of older parsers
were verified in the ONNX parser's source at its 8.5, 8.6, 9.3 and 10.1 releases, pooling indices with TensorRT-RTX 1.7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ....errors import InputError
from .capabilities import Capabilities

if TYPE_CHECKING:
    from ....bundle.manifest import GraphFacts

_SHOWN = 10
Severity = Literal["refuse", "warn"]
#: pattern -> severity, problem, remedy
Table = Mapping[str, tuple[Severity, str, str]]

_ALL_LINES: Table = {
    "dilated_pooling": ("refuse", "TensorRT has no dilated pooling", "convert the net without it"),
    "pooling_indices": (
        "refuse",
        "TensorRT has no MaxPool with indices, which unpooling needs",
        "convert the net again, as masks of windows side by side need none, or run it with the onnxruntime backend",
    ),
    "unsupported_operator": (
        "refuse",
        "TensorRT's ONNX parser has no such operator",
        "run the net with the onnxruntime backend",
    ),
    "data_dependent_size": (
        "refuse",
        "the size of its output depends on the data, which engines here do not run",
        "run the net with the onnxruntime backend",
    ),
    "late_pooling_window": (
        "refuse",
        "with ceil_mode, the last window can lie outside the input: TensorRT keeps it, Caffe drops it",
        "write the padding explicitly, as `atrous convert` does, with ceil_mode off",
    ),
    "padded_ceil_average": (
        "refuse",
        "with ceil_mode and padding, frameworks use different divisors",
        "pad with a separate node, with ceil_mode off",
    ),
    "computed_bias": ("refuse", "its bias is computed, its weights are constant", "make the bias constant"),
    "uint8_codes": ("refuse", "TensorRT quantizes to int8, not to uint8", "use --activations int8"),
    "shifted_zero_point": ("refuse", "its zero point is not 0", "quantize symmetrically"),
    "bool_resize": ("refuse", "TensorRT cannot resize bool", "cast to float32 first"),
    "aligned_resize_by_scales": (
        "warn",
        "Resize by scales with align_corners differs between versions",
        "give sizes instead",
    ),
    "uint8_cast": (
        "refuse",
        "TensorRT casts uint8 from and to float32 and float16 only",
        "convert the net again, which casts through float32",
    ),
    "uint8_operand": ("refuse", "TensorRT accepts uint8 in a Cast only", "convert the net again, which casts first"),
    "argmax": ("warn", "ArgMax is slow in TensorRT", 'convert with the head "scores" or "lowres"'),
}
_WEAKLY_TYPED: Table = {
    "missing_zero_point": ("refuse", "{parser} needs a zero point", "make the variant again"),
    "narrow_scale": ("refuse", "{parser} supports float32 scales only", "use --rest fp32"),
}
_UP_TO_9: Table = {
    "partial_shape": ("refuse", "{parser} ignores Shape's start and end", "convert the net again"),
    "pad_axes": ("refuse", "{parser} has no axes for Pad", "give pads for all axes"),
}
#: pattern -> another one that is reported instead if a node has both
_EXPLAINED_BY = {"uint8_codes": "missing_zero_point", "shifted_zero_point": "uint8_codes"}


@dataclass(frozen=True)
class Finding:
    """A known problem: its severity, the nodes that have it, description and remedy."""

    severity: Severity
    nodes: tuple[str, ...]
    problem: str
    remedy: str

    def describe(self) -> str:
        """Return one line, with the first node."""
        others = len(self.nodes) - 1
        more = f" and {others} more node{'s' if others > 1 else ''}" if others else ""
        return f"{self.nodes[0]}{more}: {self.problem}: {self.remedy}"


def check_graph(facts: GraphFacts, capabilities: Capabilities) -> list[Finding]:
    """Return the known problems of a graph, one finding for each, refusals first."""
    parser = f"the ONNX parser of {capabilities.product}"
    is_old = capabilities.line in ("8.5", "8.6", "9")
    findings = []
    if facts.subgraphs:
        problem = "the nodes in its body are not checked"
        if is_old:  # these parsers silently compute other results for some nodes
            findings.append(Finding("refuse", facts.subgraphs, problem, "run the net with the onnxruntime backend"))
        else:
            remedy = "compare the engine's outputs with those of the onnxruntime backend"
            findings.append(Finding("warn", facts.subgraphs, problem, remedy))
    if facts.opset > capabilities.newest_opset:
        problem = f"opset {facts.opset} is newer than {capabilities.newest_opset}, which {parser} supports"
        findings.append(Finding("warn", ("model",), problem, "convert with an older --opset if the build fails"))
    table = {
        **_ALL_LINES,
        **(_WEAKLY_TYPED if capabilities.typing == "weak" else {}),
        **(_UP_TO_9 if is_old else {}),
    }
    for pattern, (severity, text, remedy) in table.items():
        explained = set(facts.patterns.get(_EXPLAINED_BY.get(pattern, ""), ()))
        nodes = tuple(node for node in facts.patterns.get(pattern, ()) if node not in explained)
        if nodes:
            findings.append(Finding(severity, nodes, text.format(parser=parser), remedy))
    return sorted(findings, key=lambda finding: finding.severity)


def require_sound(findings: Sequence[Finding]) -> None:
    """Raise InputError for findings of severity "refuse", with every problem and its first node."""
    lines = [finding.describe() for finding in findings if finding.severity == "refuse"]
    if lines:
        more = f"; and {len(lines) - _SHOWN} more problems" if len(lines) > _SHOWN else ""
        raise InputError(f"TensorRT would refuse the graph or compute other results: {'; '.join(lines[:_SHOWN])}{more}")
