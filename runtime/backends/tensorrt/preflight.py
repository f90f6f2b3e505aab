"""Checks an ONNX graph for known problems in TensorRT, before minutes of building.

Rules; "refuse" stops the build, "warn" does not:

1. warn: an opset newer than the parser supports.
2. refuse: MaxPool or AveragePool with ceil_mode whose last window can start beyond the input. TensorRT keeps that
   window, Caffe and torch drop it. It can happen iff pad_end + stride > kernel: for kernel/stride/pad 2/2/1, but not
   for 3/2/1, 3/2/0, 3/1/1 and 2/2/0, which the DeepLab nets use, at any input size.
3. refuse: AveragePool with ceil_mode and padding: the divisor differs between Caffe, torch, ONNX Runtime and TensorRT.
4. refuse: a Conv or ConvTranspose with constant weights and a computed bias.
5. refuse: pooling with dilations, and MaxPool with a second output (its indices), which TensorRT lacks.
6. refuse: QuantizeLinear or DequantizeLinear with a zero point other than 0, or of uint8.
7. refuse: Resize of bool; warn: Resize by scales with align_corners; sizes are exact.
8. refuse: uint8 in any operator but a Cast, and a Cast between uint8 and types other than float32 and float16.
9. refuse, up to 9: Shape with start or end, which those parsers ignore silently; Pad with axes; up to 8.6: Q/DQ without
   a zero point or with scales of another type than float32.
10. warn: ArgMax, slow in TensorRT.

2 to 8 follow NVIDIA's operator reference and support tables; 4, 6 and 9 were verified in the ONNX parser's source at
its 8.5, 8.6, 9.3 and 10.1 releases, the second output of 5 with TensorRT-RTX 1.7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ....errors import InputError
from .capabilities import Capabilities
from .onnx_facts import QUANTIZERS, Node, OnnxFacts

_SHOWN = 10
Severity = Literal["refuse", "warn"]
#: severity, problem and remedy of each finding at one node
Problems = Iterator[tuple[Severity, str, str]]


@dataclass(frozen=True)
class Finding:
    """A known problem: its severity, node, description and remedy."""

    severity: Severity
    node: str
    problem: str
    remedy: str

    def describe(self) -> str:
        """Return one line."""
        return f"{self.node}: {self.problem}: {self.remedy}"


def check_graph(facts: OnnxFacts, capabilities: Capabilities) -> list[Finding]:
    """Return the known problems of a graph, refusals first."""
    findings = []
    if facts.opset > capabilities.newest_opset:
        limit = f"{capabilities.newest_opset}, which the parser of TensorRT {capabilities.version} supports"
        problem = f"opset {facts.opset} is newer than {limit}"
        findings.append(Finding("warn", "model", problem, "convert with an older --opset if the build fails"))
    for rule in _RULES:
        for node in facts.nodes:
            findings += [Finding(severity, node.title, *texts) for severity, *texts in rule(node, facts, capabilities)]
    return sorted(findings, key=lambda finding: finding.severity)


def require_sound(findings: Sequence[Finding]) -> None:
    """Refuse a graph with findings of severity "refuse".

    Raises:
        InputError: with every problem, its first node, and the number of further nodes.
    """
    nodes: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        if finding.severity == "refuse":
            nodes.setdefault((finding.problem, finding.remedy), []).append(finding.node)
    if nodes:
        lines = [
            f"{named[0]}{f' and {len(named) - 1} more nodes' if len(named) > 1 else ''}: {problem}: {remedy}"
            for (problem, remedy), named in nodes.items()
        ]
        more = f"; and {len(lines) - _SHOWN} more problems" if len(lines) > _SHOWN else ""
        raise InputError(f"TensorRT would refuse the graph or compute other results: {'; '.join(lines[:_SHOWN])}{more}")


def _check_pooling(node: Node, facts: OnnxFacts, capabilities: Capabilities) -> Problems:
    if node.op not in ("MaxPool", "AveragePool"):
        return
    kernel = node.ints("kernel_shape")
    strides, dilations = node.ints("strides", (1,) * len(kernel)), node.ints("dilations", (1,) * len(kernel))
    pads = node.ints("pads", (0,) * (2 * len(kernel)))
    if any(dilation != 1 for dilation in dilations):
        yield "refuse", "TensorRT has no dilated pooling", "convert the net without it"
    if len(node.outputs) > 1 and node.outputs[1]:
        problem = "TensorRT has no MaxPool with indices, which unpooling needs"
        yield "refuse", problem, "run the net with the onnxruntime backend"
    if not node.attributes.get("ceil_mode"):
        return
    if any(map(_last_window_escapes, kernel, strides, pads[len(kernel) :])):
        yield (
            "refuse",
            f"with ceil_mode, kernel {kernel}, strides {strides} and pads {pads} the last window can lie outside the "
            "input: TensorRT keeps it, Caffe drops it",
            "write the padding explicitly, as `atrous convert` does, with ceil_mode off",
        )
    if node.op == "AveragePool" and any(pads):
        problem = "with ceil_mode and padding, frameworks use different divisors"
        yield "refuse", problem, "pad with a separate node, with ceil_mode off"


def _last_window_escapes(kernel: int, stride: int, pad_end: int) -> bool:
    """Whether, for some input size, rounding up adds a window that starts at or beyond the input's end.

    Let L be the input's length with padding. Windows start at multiples of the stride s, and rounding up lets the last
    one start as late as L - k + s - 1. The input itself ends at L - p, so the window escapes iff p + s - 1 >= k.
    """
    return pad_end + stride - 1 >= kernel


def _check_convolution(node: Node, facts: OnnxFacts, capabilities: Capabilities) -> Problems:
    if node.op in ("Conv", "ConvTranspose") and len(node.inputs) > 2 and node.inputs[2]:
        _, weights, bias = node.inputs[:3]
        if weights in facts.initializers and bias not in facts.initializers:
            yield "refuse", "its bias is computed, its weights are constant", "make the bias constant"


def _check_quantizer(node: Node, facts: OnnxFacts, capabilities: Capabilities) -> Problems:
    if node.op not in QUANTIZERS:
        return
    if len(node.inputs) > 2:
        zero_point = facts.initializers.get(node.inputs[2])
        if zero_point is not None and zero_point.type == "uint8":
            yield "refuse", "TensorRT quantizes to int8, not to uint8", "use --activations int8"
        elif zero_point is None or zero_point.zeros_only is not True:
            yield "refuse", "its zero point is not 0", "quantize symmetrically"
    if capabilities.typing == "weak":
        parser = f"the ONNX parser of TensorRT {capabilities.version}"
        if len(node.inputs) < 3:
            yield "refuse", f"{parser} needs a zero point", "make the variant again"
        if facts.types.get(node.inputs[1], "float32") != "float32":
            yield "refuse", f"{parser} supports float32 scales only", "use --rest fp32"


def _check_resize(node: Node, facts: OnnxFacts, capabilities: Capabilities) -> Problems:
    if node.op != "Resize":
        return
    if facts.types.get(node.inputs[0]) == "bool":
        yield "refuse", "TensorRT cannot resize bool", "cast to float32 first"
    by_scales = len(node.inputs) < 4 or not node.inputs[3]
    if by_scales and node.attributes.get("coordinate_transformation_mode") == "align_corners":
        yield "warn", "Resize by scales with align_corners differs between versions", "give sizes instead"


def _check_uint8(node: Node, facts: OnnxFacts, capabilities: Capabilities) -> Problems:
    if node.op == "Cast":
        pair = (facts.types.get(node.inputs[0], ""), facts.types.get(node.outputs[0], ""))
        if "uint8" in pair and not {"float32", "float16"} & set(pair):
            advice = "convert the net again, which casts through float32"
            yield "refuse", f"TensorRT cannot cast {pair[0]} to {pair[1]}", advice
    elif node.op not in QUANTIZERS and any(facts.types.get(name) == "uint8" for name in node.inputs):
        problem = f"TensorRT accepts uint8 in a Cast only, not in a {node.op}"
        yield "refuse", problem, "convert the net again, which casts first"


def _check_older_parser(node: Node, facts: OnnxFacts, capabilities: Capabilities) -> Problems:
    if capabilities.line in ("8.5", "8.6", "9"):
        parser = f"the ONNX parser of TensorRT {capabilities.version}"
        if node.op == "Shape" and {"start", "end"} & node.attributes.keys():
            yield "refuse", f"{parser} ignores Shape's start and end", "convert the net again"
        if node.op == "Pad" and len(node.inputs) > 3 and node.inputs[3]:
            yield "refuse", f"{parser} has no axes for Pad", "give pads for all axes"


def _check_speed(node: Node, facts: OnnxFacts, capabilities: Capabilities) -> Problems:
    if node.op == "ArgMax":
        yield "warn", "ArgMax is slow in TensorRT", 'convert with the head "scores" or "lowres"'


_RULES: tuple[Callable[[Node, OnnxFacts, Capabilities], Problems], ...] = (
    _check_pooling,
    _check_convolution,
    _check_quantizer,
    _check_resize,
    _check_uint8,
    _check_older_parser,
    _check_speed,
)
