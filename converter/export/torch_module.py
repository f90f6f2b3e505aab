"""`Net` -> `torch.fx.GraphModule` whose submodules carry Caffe's layer names.

The graph is built node by node, not traced: one `call_module` per layer, or per bottom for layers that map each bottom
separately. So `.code` reads like the prototxt. A net with one output returns a tensor, one with several a dict by blob
name.
"""

from __future__ import annotations

import importlib
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from ...errors import NetError
from ..graph.fillers import fill_blob
from ..graph.names import Variables, class_name
from ..graph.net import Blob, FloatArray, Layer, Net
from ..graph.weights import require_finite
from ..modules import MODULE_CLASSES

TOP_KEY = "caffe_top"
"""Key of a node's meta that holds the recording key `<layer>:<top>`."""


def to_torch(net: Net) -> fx.GraphModule:
    """Build the torch module of a net.

    Args:
        net: from `read_net`; parameters that it lacks come from its fillers (seeded).

    Returns:
        A GraphModule in eval mode, float32, on the CPU. Its forward takes the net's inputs in order, each float32 in
        Caffe's layout, any batch and any height and width that Caffe would accept.

    Raises:
        WeightsError: a parameter is NaN or infinite.
        NetError: no layer runs in this phase.
    """
    require_finite(net)
    root = nn.Module()
    made: dict[str, nn.Module] = {}
    for layer in net.layers:
        module = make_module(layer)
        load_parameters(net, layer, module)
        share_parameters(net, layer, module, made)
        made[layer.attribute] = module
        root.add_module(layer.attribute, module)
    graph = build_graph(net)
    graph_module = fx.GraphModule(root, graph, class_name=class_name(net.name))
    graph_module.meta["inputs"] = [blob.name for blob in net.inputs]
    graph_module.eval()
    return graph_module


def make_module(layer: Layer) -> nn.Module:
    """The layer's torch module with uninitialized parameters."""
    spec = layer.operator.module_spec()
    name = spec.class_name
    cls = getattr(nn, name[3:]) if name.startswith("nn.") else find_module_class(name)
    if spec.parameters and hasattr(cls, "reset_parameters"):
        return make_unset(cls, spec.arguments).eval()
    module: nn.Module = cls(**spec.arguments)
    return module.eval()


def make_unset(cls: Any, arguments: Mapping[str, Any]) -> nn.Module:
    """A module with uninitialized parameters, so that only the copy touches their memory.

    torch's own `skip_init` uses the meta device, which loads 36 MB of Python first.
    """
    unset = type(cls.__name__, (cls,), {"reset_parameters": lambda self: None})
    module: nn.Module = unset(**arguments)
    module.__class__ = cls
    return module


def find_module_class(name: str) -> Any:
    """A class of `converter.modules`, or a user's own, given as `package.module:Class`."""
    package, _, attribute = name.rpartition(":")
    return getattr(importlib.import_module(package), attribute) if package else MODULE_CLASSES[name]


def load_parameters(net: Net, layer: Layer, module: nn.Module) -> None:
    """Fill the module from the net's arrays, or from the layer's fillers where the net lacks them."""
    if not layer.parameters:
        return
    shapes = layer.operator.weight_shapes()
    fillers = layer.operator.fillers()
    blobs: list[FloatArray] = []
    for index, key in enumerate(layer.parameters):
        blob = net.parameters.get(key)
        if blob is None:
            blob = fill_blob(str(key), shapes[index], fillers[index])
        blobs.append(blob.reshape(shapes[index]))
    with torch.no_grad():
        layer.operator.load(module, blobs)


def share_parameters(net: Net, layer: Layer, module: nn.Module, made: Mapping[str, nn.Module]) -> None:
    """Tie the parameters whose blobs another layer owns (Caffe's `param { name: ... }`)."""
    own = layer.operator.module_spec().parameters
    owners = {other.attribute: other for other in net.layers}
    for attribute, key in zip(own, layer.parameters, strict=False):
        if key.attribute == layer.attribute or key.attribute not in made:
            continue
        owner = owners[key.attribute]
        names = owner.operator.module_spec().parameters
        if key.index < len(names) and isinstance(getattr(module, attribute, None), nn.Parameter):
            shared = getattr(made[key.attribute], names[key.index])
            if shared.shape == getattr(module, attribute).shape:
                setattr(module, attribute, shared)


def build_graph(net: Net) -> fx.Graph:
    """The fx graph of a net; every node that is a top carries its recording key in `meta`."""
    graph = fx.Graph()
    values: dict[Blob, fx.Node] = {}
    keys = {blob: key for key, blob in net.recorded_tops()}
    variables = Variables()
    for blob in net.inputs:
        node = graph.placeholder(variables.of(blob.name))
        node.meta[TOP_KEY] = keys.get(blob)
        values[blob] = node
    for layer in net.layers:
        arguments = tuple(values[blob] for blob in layer.bottoms)
        if layer.operator.maps_each_bottom:
            results = [graph.call_module(layer.attribute, (argument,)) for argument in arguments]
        else:
            result = graph.call_module(layer.attribute, arguments)
            single = len(layer.tops) == 1
            results = (
                [result]
                if single
                else [graph.call_function(operator.getitem, (result, i)) for i in range(len(layer.tops))]
            )
        for top, node in zip(layer.tops, results, strict=True):
            node.meta[TOP_KEY] = keys[top]
            values[top] = node
    if not net.outputs:
        raise NetError(f"the net computes nothing: no layer runs in this phase{net.definition.stage_hint}")
    outputs = {blob.name: values[blob] for blob in net.outputs}
    graph.output(next(iter(outputs.values())) if len(outputs) == 1 else outputs)
    graph.lint()
    return graph


class BlobRecorder(fx.Interpreter):
    """Runs a graph and stores each top by its recording key."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.blobs: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node, and store its value if it is a top."""
        value = super().run_node(n)
        key = n.meta.get(TOP_KEY)
        if key is not None:
            self.blobs[key] = value.detach().cpu().numpy()
        return value


def run_blobs(module: fx.GraphModule, inputs: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Run the module and return every top.

    Args:
        module: from :func:`to_torch`.
        inputs: input blob name -> float array in Caffe's layout.

    Returns:
        `{"<layer>:<top>": array right after that layer}`, the form of the recordings of real Caffe; in-place layers
        have entries of their own, and a repeated key has `#2`, `#3`, ...

    Raises:
        NetError: an input is missing or unknown, or torch cannot run the net on these sizes.
    """
    names = list(module.meta["inputs"])
    if set(inputs) != set(names):
        raise NetError(f"the net's inputs are {names}; got {sorted(inputs)}")
    parameter = next(module.parameters(), None)
    like = parameter if parameter is not None else torch.empty(0)
    recorder = BlobRecorder(module)
    tensors = [torch.from_numpy(np.array(inputs[name], np.float32)).to(like) for name in names]
    try:
        with torch.no_grad():
            recorder.run(*tensors)
    except RuntimeError as error:
        shapes = ", ".join(f"{name} of {'x'.join(map(str, np.shape(inputs[name])))}" for name in names)
        reason = str(error).partition("\n")[0]
        raise NetError(f"torch cannot run the net on {shapes}: {reason}; give sizes that the net takes") from error
    return recorder.blobs
