"""Reads the list of layers that the builder of TensorRT for RTX logs, since its inspector needs a GPU.

With ProfilingVerbosity.DETAILED, the builder logs at VERBOSE one text: the line "Layers:", then a line for each layer::

    Name: conv1_1/Conv/node_myl0_2, LayerType: correlation, Inputs: [ { Name: ..., Datatype: Int8, Format: ... }],
        Constants: [...], Outputs: [...], TacticName: ..., StreamId: 0, Metadata: [ONNX Layer: conv1_1/Conv/node]

(here broken in two). Other sections follow after it.
"""

from __future__ import annotations

import re
from typing import Any

_LAYER = re.compile(
    r"Name: (?P<Name>.*?), LayerType: (?P<LayerType>\w+), Inputs: (?P<Inputs>.*?), Constants: (?P<Constants>.*?), "
    r"Outputs: (?P<Outputs>.*?), TacticName: (?P<TacticName>.*?), StreamId: \d+, Metadata: (?P<Metadata>.*)"
)
_TENSOR = re.compile(r"\{ Name: (.*?), Dimensions: .*?, Datatype: (\w+), Format: (.*?) \}")
_TENSORS = ("Inputs", "Constants", "Outputs")


def parse_layers(text: str) -> dict[str, Any]:
    """Return the layers in the form of the inspector's JSON, for `audit.parse_inspection`; none in an unknown text."""
    found = (_LAYER.fullmatch(line) for line in text.splitlines())
    layers = [match.groupdict() for match in found if match is not None]
    for layer in layers:
        for name in _TENSORS:
            layer[name] = [
                {"Name": tensor, "Datatype": kind, "Format": layout}
                for tensor, kind, layout in _TENSOR.findall(layer[name])
            ]
    return {"Layers": layers, "Bindings": []}
