"""What is known to go wrong with an ONNX graph in TensorRT, looked for before minutes of building.

Rules; "refuse" ends the work, "warn" goes on:

1. refuse: weights outside the file; a bundle's graph is complete in itself.
2. refuse: MaxPool or AveragePool with ceil_mode whose last window can start behind the input. TensorRT keeps that
   window, Caffe and torch drop it. It can happen iff pad_end + stride > kernel: not for kernel/stride/pad 3/2/1, 3/2/0,
   3/1/1 and 2/2/0, which the DeepLab nets have, whatever the input's size; but for 2/2/1.
3. refuse: AveragePool with ceil_mode and padding: the divisor differs between Caffe, torch, ONNX Runtime and TensorRT.
4. refuse: a Conv or ConvTranspose whose weights, or whose bias, are computed (8.5 and 8.6 need constants).
5. refuse: a pooling with dilations, which TensorRT lacks.
6. refuse: QuantizeLinear or DequantizeLinear with a zero point other than 0, or of uint8.
7. refuse: Resize of uint8 or bool; warn: Resize by scales with align_corners, where sizes are exact.
8. refuse: Cast of uint8 from or to anything but float32 and float16.
9. warn: ArgMax over large maps, slow in TensorRT; opset newer than the parser claims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ...errors import InputError
from .capabilities import Capabilities
from .graph import Graph

_SHOWN = 10


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


def check_graph(graph: Graph, capabilities: Capabilities) -> list[Finding]:
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


def _check_external(graph: Graph, capabilities: Capabilities) -> Iterable[Finding]:
    outside = [name for name, initializer in graph.initializers.items() if initializer.external]
    if outside:
        yield Finding(
            "refuse",
            outside[0],
            f"{len(outside)} weights lie outside the file",
            "save the model with its weights inside",
        )


def _check_pooling(graph: Graph, capabilities: Capabilities) -> Iterable[Finding]:
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


def _check_convolutions(graph: Graph, capabilities: Capabilities) -> Iterable[Finding]:
    if capabilities.typing != "weak":
        return
    for node in graph.nodes:
        if node.op not in ("Conv", "ConvTranspose"):
            continue
        for name, what in zip(node.inputs[1:3], ("weights", "bias"), strict=False):
            if name and not _is_constant(graph, name):
                yield Finding(
                    "refuse",
                    node.title,
                    f"its {what} are computed, TensorRT 8 needs constants",
                    "fold them into constants",
                )


def _is_constant(graph: Graph, name: str) -> bool:
    """Whether a value is an initializer, at most quantized, dequantized or cast."""
    for _ in range(4):
        if name in graph.initializers:
            return True
        node = graph.producer(name)
        if node is None or not node.inputs:
            return node is not None and node.op == "Constant"
        if node.op not in ("DequantizeLinear", "QuantizeLinear", "Cast", "Identity", "Constant"):
            return False
        name = node.inputs[0]
    return False


def _check_zero_points(graph: Graph, capabilities: Capabilities) -> Iterable[Finding]:
    for node in graph.nodes:
        if node.op not in ("QuantizeLinear", "DequantizeLinear") or len(node.inputs) < 3:
            continue
        zero_point = graph.initializers.get(node.inputs[2])
        if zero_point is not None and zero_point.type == "uint8":
            yield Finding("refuse", node.title, "TensorRT quantizes to int8, not to uint8", "use --activations int8")
            continue
        if zero_point is None or zero_point.zeros_only is not True:
            yield Finding("refuse", node.title, "its zero point is not 0", "quantize symmetrically")


def _check_resizes(graph: Graph, capabilities: Capabilities) -> Iterable[Finding]:
    for node in graph.nodes:
        if node.op != "Resize":
            continue
        kind = graph.types.get(node.inputs[0], "")
        if kind in ("uint8", "bool"):
            yield Finding("refuse", node.title, f"TensorRT does not resize {kind}", "cast to float32 before it")
        by_scales = len(node.inputs) < 4 or not node.inputs[3]
        if by_scales and node.attributes.get("coordinate_transformation_mode") == "align_corners":
            yield Finding(
                "warn",
                node.title,
                "resizing by scales with align_corners differs between versions",
                "give sizes instead",
            )


def _check_casts(graph: Graph, capabilities: Capabilities) -> Iterable[Finding]:
    for node in graph.nodes:
        if node.op != "Cast" or not node.outputs:
            continue
        pair = (graph.types.get(node.inputs[0], ""), graph.types.get(node.outputs[0], ""))
        if "uint8" in pair and not {"float32", "float16"} & set(pair):
            yield Finding("refuse", node.title, f"TensorRT casts no {pair[0]} to {pair[1]}", "cast by way of float32")


def _check_speed(graph: Graph, capabilities: Capabilities) -> Iterable[Finding]:
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


_RULES: tuple[Callable[[Graph, Capabilities], Iterable[Finding]], ...] = (
    _check_external,
    _check_pooling,
    _check_convolutions,
    _check_zero_points,
    _check_resizes,
    _check_casts,
    _check_speed,
)
