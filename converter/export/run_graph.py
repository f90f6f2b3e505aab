"""`deploy.onnx` of a net with any inputs and outputs.

image  uint8 N x H x W x 3 RGB or x 1 gray; lightness and depth float32 N x H x W x 1; arrays as the net's own blobs
  1. float, minus mean, times scale
  2. N x C x H x W, edges repeated by the margin, color order of the net (in the weights, where only convolutions read
     the image); parts of one blob are joined
  3. the net
outputs  Caffe's blobs by Caffe's names
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto, helper

from ... import __version__
from ...bundle.choices import ColorOrder
from ...bundle.run_plan import CHANNELS, DTYPES, InputSource, RunInput, RunOutput, RunPlan
from ...errors import ExportError
from .dynamic_axes import find_dynamic_axes
from .onnx_export import check_opset, write_layers, write_model
from .onnx_graph import DEFAULT_OPSET, FLOAT, OnnxGraph
from .run_plan import PlannedInput, PlannedOutput, RunDeployment

_TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}


@dataclass(frozen=True)
class PixelRule:
    """Means by source in the net's channel order, the factor after them, and the color order."""

    mean: dict[InputSource, tuple[float, ...]]
    scale: float
    color_order: ColorOrder


def describe_run(plan: RunDeployment, pixels: PixelRule, file: str = "deploy.onnx") -> RunPlan:
    """The section "run" of the manifest."""
    names: set[str] = set()
    inputs = [part for planned in plan.inputs for part in _describe_input(plan, planned, pixels, names)]
    outputs = tuple(_describe_output(plan, output, pixels, names) for output in plan.outputs)
    return RunPlan(file=file, task=plan.task, inputs=tuple(inputs), outputs=outputs)


def export_run(
    plan: RunDeployment,
    described: RunPlan,
    module: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    opset: int = DEFAULT_OPSET,
) -> onnx.ModelProto:
    """Write the graph; see the module docstring.

    Args:
        plan: from `plan_run`.
        described: of `describe_run`.
        module: the torch module of `plan.net`, or of a net that contains it.
        path: where to write, atomically; None only returns the model.
        opset: 17 to 21.

    Raises:
        ExportError: a layer has no ONNX form.
    """
    graph = OnnxGraph(plan.net.name, check_opset(opset))
    taken = {part.name for part in described.inputs if part.source != "array"}
    taken |= {
        output.name
        for output, planned in zip(described.outputs, plan.outputs, strict=True)
        if _is_turned(plan, planned)
    }
    fed: dict[str, str] = {}
    swapped: list[str] = []
    for planned in plan.inputs:
        parts = [part for part in described.inputs if part.blob == planned.blob.name]
        for part in parts:
            kind = _TYPES[DTYPES.get(part.source, "float32")]
            graph.inputs.append(helper.make_tensor_value_info(part.name, kind, part.shape))
            graph.reserve(part.name)
        if parts[0].source != "array":
            planes = [_prepare(graph, part) for part in parts]
            fed[planned.blob.name] = planes[0] if len(planes) == 1 else graph.add("Concat", planes, axis=1)
            swapped += [planes[0]] if len(planes) == 1 and parts[0].color_order == "BGR" else []
    values = write_layers(graph, plan.net, module, fed, frozenset(taken))
    for name in swapped:
        if name not in {values.names[output.blob] for output in plan.outputs}:
            graph.fold_gather(name)
    graph.enter_layer("outputs")
    for planned_output, output in zip(plan.outputs, described.outputs, strict=True):
        name = values.names[planned_output.blob]
        if _is_turned(plan, planned_output):
            graph.add("Transpose", [name], output=output.name, perm=[0, 1, 3, 2])
        elif name != output.name:
            graph.add("Identity", [name], output=output.name)
        graph.outputs.append(helper.make_tensor_value_info(output.name, FLOAT, output.shape))
    model = graph.model(producer="atrous", version=__version__)
    write_model(model, path)
    return model


def _describe_input(plan: RunDeployment, planned: PlannedInput, pixels: PixelRule, names: set[str]) -> list[RunInput]:
    sizes = find_dynamic_axes(plan.net).sizes(planned.blob)
    parts = []
    for source in planned.sources:
        if source == "array":
            names.add(planned.blob.name)
            parts.append(RunInput(name=planned.blob.name, blob=planned.blob.name, source="array", shape=tuple(sizes)))
            continue
        name = _find_unused("depth" if source == "depth" else "image", names)
        inner = [side - 2 * planned.margin if isinstance(side, int) else side for side in sizes[2:]]
        inner = inner[::-1] if planned.is_transposed else inner
        parts.append(
            RunInput(
                name=name,
                blob=planned.blob.name,
                source=source,
                shape=(sizes[0], *inner, CHANNELS[source]),
                color_order=pixels.color_order if source == "color" else None,
                mean=pixels.mean[source],
                scale=pixels.scale,
                margin=planned.margin,
                transposed=planned.is_transposed,
                size=planned.size,
                size_rule=planned.size_rule,
            )
        )
    return parts


def _describe_output(plan: RunDeployment, planned: PlannedOutput, pixels: PixelRule, names: set[str]) -> RunOutput:
    blob, axes = planned.blob, find_dynamic_axes(plan.net)
    shape = tuple(axes.sizes(blob))
    if any(part.margin for part in plan.inputs):  # the sizes of the graph's inputs are without the margin
        shape = tuple(f"{blob.name}_{axis}" if name in ("height", "width") else name for axis, name in enumerate(shape))
    if _is_turned(plan, planned):
        shape = (*shape[:2], shape[3], shape[2])
    image: dict[str, Any] = {}
    if planned.kind == "image":
        is_color = blob.shape[1] == 3
        source: InputSource = "color" if is_color else "gray"
        mean = pixels.mean.get(source, (0.0,) * blob.shape[1])
        image = {"mean": mean, "scale": pixels.scale, "color_order": pixels.color_order if is_color else None}
    return RunOutput(
        name=_find_unused(blob.name, names),
        kind=planned.kind,
        shape=shape,
        scores_are=("probabilities" if planned.is_softmax else "logits")
        if planned.kind in ("classes", "labels")
        else None,
        points=plan.points if planned.kind == "points" else None,
        is_unit=planned.is_unit,
        **image,
    )


def _is_turned(plan: RunDeployment, planned: PlannedOutput) -> bool:
    """Whether the graph exchanges the rows and columns of an output, as it does those of the images."""
    is_plane = planned.kind in ("labels", "image", "chroma", "map")
    return is_plane and any(part.is_transposed for part in plan.inputs)


def _find_unused(name: str, names: set[str]) -> str:
    number, found = 1, name
    while found in names:
        number += 1
        found = f"{name}_{number}"
    names.add(found)
    return found


def _prepare(graph: OnnxGraph, part: RunInput) -> str:
    """Steps 1 and 2 for one part: N x H x W x C values -> float32 N x C x H' x W'."""
    pixels = graph.add("Cast", [part.name], to=FLOAT) if DTYPES[part.source] != "float32" else part.name
    is_swapped = part.color_order == "BGR"
    if any(part.mean):
        pixels = graph.add("Sub", [pixels, graph.constant(list(part.mean[::-1] if is_swapped else part.mean))])
    if part.scale != 1.0:
        pixels = graph.add("Mul", [pixels, graph.constant(part.scale)])
    planes = graph.add("Transpose", [pixels], perm=[0, 3, 2, 1] if part.transposed else [0, 3, 1, 2])
    if part.margin:
        pads = [0, 0, part.margin, part.margin] * 2
        planes = graph.add("Pad", [planes, graph.constant(pads, "int64")], mode="edge")
    return graph.add("Gather", [planes, graph.constant([2, 1, 0], "int64")], axis=1) if is_swapped else planes


def check_mean(values: Sequence[float], sources: Sequence[InputSource]) -> dict[InputSource, tuple[float, ...]]:
    """Distribute mean values over the sources of a net's images: one for each channel, or those of the color only.

    Raises:
        ExportError: if the number of values fits neither.
    """
    counts = [CHANNELS[source] for source in sources]
    values = tuple(values)
    if len(values) == counts[0] < sum(counts):
        values += (0.0,) * (sum(counts) - counts[0])
    if len(values) != sum(counts):
        raise ExportError(f"{len(values)} mean values were given, the net's images have {sum(counts)} channels")
    means: dict[InputSource, tuple[float, ...]] = {}
    for source, count in zip(sources, counts, strict=True):
        means[source], values = values[:count], values[count:]
    return means
