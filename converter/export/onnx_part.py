"""The ONNX file of a net of which a part has no ONNX form: it ends before that part, or there is none.

`--detection` chooses the form of the layers that decode boxes:

    standard   NonMaxSuppression and TopK, for ONNX Runtime and every other engine (the default)
    tensorrt   the plug-in EfficientNMS_TRT of NVIDIA, for TensorRT
    opencv     the node DetectionOutput, which OpenCV and OpenVINO read as their own layer
    cut        none: the outputs are the locations, scores and prior boxes, for code of your own
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...bundle.choices import Detection
from ...errors import ExportError
from ..graph.net import Blob, Layer, Net
from ..graph.subgraph import cut_net
from .onnx_export import check_opset, export_onnx


def export_part(
    net: Net,
    module: Any,
    path: Path,
    *,
    opset: int,
    detection: Detection = "standard",
    rename: Mapping[str, str] | None = None,
) -> tuple[Net | None, list[str]]:
    """Write model.onnx of the part of a net that has an ONNX form.

    Args:
        net: the net.
        module: its torch module.
        path: the file.
        opset: ONNX opset version.
        detection: the form of layers that decode boxes.
        rename: blob of the net -> its name in the model, for inputs and outputs.

    Returns:
        The part, None where nothing was written, and a warning for each layer that is missing.

    Raises:
        ExportError: the opset is not supported, or a name is not that of an input or output, or taken.
    """
    check_opset(opset)
    part = net
    warnings: list[str] = []
    while True:
        try:
            export_onnx(part, module, path, opset=opset, detection=detection)
            break
        except ExportError as error:
            layer = next((layer for layer in part.layers if layer.name == error.layer), None)
            shorter = cut_before(part, layer) if layer is not None else None
            if layer is None or shorter is None:
                warnings.append(f"no model.onnx: {error}; the bundle runs in torch only")
                return None, warnings
            ends = ", ".join(f'"{blob.name}"' for blob in shorter.outputs)
            warnings.append(f"model.onnx ends before {error}; its outputs are {ends}, and model.py has the whole net")
            part = shorter
    if rename:
        export_onnx(part, module, path, opset=opset, detection=detection, rename=rename)
    return part, warnings


def cut_before(net: Net, layer: Layer) -> Net | None:
    """The net without a layer and those that depend on it, whose bottoms become outputs; None if nothing is left."""
    dependent = {layer}
    for other in net.layers:
        if any(blob.producer in dependent for blob in other.bottoms if blob.producer is not None):
            dependent.add(other)
    ends: dict[Blob, None] = {}
    for blob in [*layer.bottoms, *net.outputs]:
        if blob.producer is not None and blob.producer not in dependent:
            ends[blob] = None
    names = [blob.name for blob in ends]
    if not ends or len(set(names)) < len(names):
        return None
    return cut_net(net, list(ends))
