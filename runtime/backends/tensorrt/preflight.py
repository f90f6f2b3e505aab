"""What is known to go wrong with an ONNX graph in TensorRT, looked for before minutes of building.

Rules; "refuse" ends the work, "warn" goes on:

1. refuse: weights outside the file; a bundle's graph is complete in itself.
2. refuse: MaxPool or AveragePool with ceil_mode whose last window can start behind the input. TensorRT keeps that
   window, Caffe and torch drop it. It can happen iff pad_end + stride > kernel: not for kernel/stride/pad 3/2/1, 3/2/0,
   3/1/1 and 2/2/0, which the DeepLab nets have, whatever the input's size; but for 2/2/1.
3. refuse: AveragePool with ceil_mode and padding: the divisor differs between Caffe, torch, ONNX Runtime and TensorRT.
4. refuse: a Conv or ConvTranspose of constant weights whose bias is computed.
5. refuse: a pooling with dilations, which TensorRT lacks.
6. refuse: QuantizeLinear or DequantizeLinear with a zero point other than 0, or of uint8.
7. refuse: Resize of bool; warn: Resize by scales with align_corners, where sizes are exact.
8. refuse: uint8 in anything but a Cast, and such a Cast from or to anything but float32 and float16.
9. refuse, to 9: Shape with start or end, which those parsers pass over without a word; Pad with axes; to 8.6: Q/DQ
   without a zero point or with scales of another type than float32.
10. warn: ArgMax over large maps, slow in TensorRT; opset newer than the parser claims.

1 to 8 follow NVIDIA's operator reference and support tables; 4, 6 and 9 were read in the ONNX parser's source at its
8.5, 8.6, 9.3 and 10.1 releases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ....errors import InputError
from .capabilities import Capabilities
from .onnx_facts import OnnxFacts

_SHOWN = 10
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Finding:
    """One thing found: how grave, at which node, what, and what to do."""

    severity: Literal["refuse", "warn"]
    node: str
    problem: str
    remedy: str

    def describe(self) -> str:
        """As one line."""
        return f"{self.node}: {self.problem}: {self.remedy}"


def check_graph(graph: OnnxFacts, capabilities: Capabilities) -> list[Finding]:
    """Look for what is known to go wrong, refusals first."""
    findings = [finding for rule in _RULES for finding in rule(graph, capabilities)]
    return sorted(findings, key=lambda finding: finding.severity)


def require_sound(findings: Sequence[Finding]) -> None:
    """Refuse a graph with grave findings.

    Raises:
        InputError: naming all of them.
    """
    grave = [finding.describe() for finding in findings if finding.severity == "refuse"]
    if grave:
        more = f"; and {len(grave) - _SHOWN} more" if len(grave) > _SHOWN else ""
        raise InputError(f"TensorRT would compute something else: {'; '.join(grave[:_SHOWN])}{more}")


def _check_external(graph: OnnxFacts, capabilities: Capabilities) -> Iterable[Finding]:
    outside = [name for name, initializer in graph.initializers.items() if initializer.external]
    if outside:
        yield Finding(
            "refuse",
            outside[0],
            f"{len(outside)} weights lie outside the file",
            "save the model with its weights inside",
        )


def _check_pooling(graph: OnnxFacts, capabilities: Capabilities) -> Iterable[Finding]:
    for node in graph.nodes:
        if node.op not in ("MaxPool", "AveragePool"):
            continue
        kernel = node.ints("kernel_shape")
        strides, dilations = node.ints("strides", (1,) * len(kernel)), node.ints("dilations", (1,) * len(kernel))
        pads = node.ints("pads", (0,) * (2 * len(kernel)))
        if any(dilation != 1 for dilation in dilations):
            yield Finding("refuse", node.title, "TensorRT has no dilated pooling", "convert the net without it")
        if not node.attributes.get("ceil_mode"):
            continue
        ends = pads[len(kernel) :]
        if any(map(_last_window_escapes, kernel, strides, ends)):
            yield Finding(
                "refuse",
                node.title,
                f"with ceil_mode, kernel {kernel}, strides {strides} and pads {pads} the last window can lie outside "
                "the input: TensorRT keeps it, Caffe drops it",
                "write the padding out, as `atrous convert` does, and leave ceil_mode off",
            )
        if node.op == "AveragePool" and any(pads):
            yield Finding(
                "refuse",
                node.title,
                "ceil_mode and padding together have another divisor in every framework",
                "pad by a node of its own, and leave ceil_mode off",
            )


def _last_window_escapes(kernel: int, stride: int, pad_end: int) -> bool:
    """Whether, for some input size, rounding up adds a window that starts at or behind the input's end.

    Let the input with all its padding be L long. Windows start at multiples of the stride s, and rounding up lets the
    last one start as late as L - k + s - 1. The input proper ends at L - p, so it escapes iff p + s - 1 >= k.
    """
    return pad_end + stride - 1 >= kernel


def _check_convolutions(graph: OnnxFacts, capabilities: Capabilities) -> Iterable[Finding]:
    for node in graph.nodes:
        if node.op not in ("Conv", "ConvTranspose") or len(node.inputs) < 3 or not node.inputs[2]:
            continue
        if node.inputs[1] in graph.initializers and node.inputs[2] not in graph.initializers:
            yield Finding("refuse", node.title, "its bias is computed, its weights are not", "make the bias a constant")


def _check_zero_points(graph: OnnxFacts, capabilities: Capabilities) -> Iterable[Finding]:
    for node in graph.nodes:
        if node.op not in _QUANTIZERS or len(node.inputs) < 3:
            continue
        zero_point = graph.initializers.get(node.inputs[2])
        if zero_point is not None and zero_point.type == "uint8":
            yield Finding("refuse", node.title, "TensorRT quantizes to int8, not to uint8", "use --activations int8")
            continue
        if zero_point is None or zero_point.zeros_only is not True:
            yield Finding("refuse", node.title, "its zero point is not 0", "quantize symmetrically")


def _check_resizes(graph: OnnxFacts, capabilities: Capabilities) -> Iterable[Finding]:
    for node in graph.nodes:
        if node.op != "Resize":
            continue
        if graph.types.get(node.inputs[0]) == "bool":
            yield Finding("refuse", node.title, "TensorRT does not resize bool", "cast to float32 before it")
        by_scales = len(node.inputs) < 4 or not node.inputs[3]
        if by_scales and node.attributes.get("coordinate_transformation_mode") == "align_corners":
            problem = "resizing by scales with align_corners differs between versions"
            yield Finding("warn", node.title, problem, "give sizes instead")


def _check_bytes(graph: OnnxFacts, capabilities: Capabilities) -> Iterable[Finding]:
    for node in graph.nodes:
        if node.op != "Cast":
            if any(graph.types.get(name) == "uint8" for name in node.inputs) and node.op not in _QUANTIZERS:
                problem = f"TensorRT lets no uint8 tensor into a {node.op}, only into a Cast"
                yield Finding("refuse", node.title, problem, "convert the net again, which casts first")
            continue
        pair = (graph.types.get(node.inputs[0], ""), graph.types.get(node.outputs[0], ""))
        if "uint8" in pair and not {"float32", "float16"} & set(pair):
            problem = f"TensorRT casts no {pair[0]} to {pair[1]}"
            yield Finding("refuse", node.title, problem, "convert the net again, which casts by way of float32")


def _check_older_parsers(graph: OnnxFacts, capabilities: Capabilities) -> Iterable[Finding]:
    if capabilities.line not in ("8.5", "8.6", "9"):
        return
    version = f"the ONNX parser of TensorRT {capabilities.version}"
    for node in graph.nodes:
        if node.op == "Shape" and {"start", "end"} & node.attributes.keys():
            yield Finding("refuse", node.title, f"{version} passes over Shape's start and end", "convert the net again")
        if node.op == "Pad" and len(node.inputs) > 3 and node.inputs[3]:
            yield Finding("refuse", node.title, f"{version} takes no axes for Pad", "give pads for all axes")
        if node.op not in _QUANTIZERS or capabilities.typing != "weak":
            continue
        if len(node.inputs) < 3:
            yield Finding("refuse", node.title, f"{version} needs a zero point", "make the variant again")
        if graph.types.get(node.inputs[1], "float32") != "float32":
            yield Finding("refuse", node.title, f"{version} takes float32 scales only", "use --rest fp32")


def _check_speed(graph: OnnxFacts, capabilities: Capabilities) -> Iterable[Finding]:
    for node in graph.nodes:
        if node.op == "ArgMax":
            yield Finding(
                "warn", node.title, "ArgMax is slow in TensorRT", 'convert with the head "scores" or "lowres"'
            )
    if graph.opset > capabilities.newest_opset:
        yield Finding(
            "warn",
            "model",
            f"opset {graph.opset} is newer than the {capabilities.newest_opset} that the parser of TensorRT "
            f"{capabilities.version} claims",
            "convert with an older --opset if it refuses",
        )


_RULES: tuple[Callable[[OnnxFacts, Capabilities], Iterable[Finding]], ...] = (
    _check_external,
    _check_pooling,
    _check_convolutions,
    _check_zero_points,
    _check_resizes,
    _check_bytes,
    _check_older_parsers,
    _check_speed,
)
