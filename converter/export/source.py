"""`model.py`: the net as a torch module in one readable file that needs only torch.

The source is written layer by layer with Caffe's own names; in-place layers rebind their variable. Modules that torch
lacks are copied from `converter.modules`. Every name from a file passes through `repr` or through a table of
identifiers, so that nothing of an untrusted file becomes code.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ... import __version__
from ...errors import ExportError
from ..graph.names import Variables, class_name
from ..graph.net import Layer, Net
from .torch_module import find_module_class

_HEADER = '''"""{title}

Written by atrous {version} from Caffe files; needs torch, and safetensors to load the weights beside it.
Input and output are Caffe's blobs: float32, N x C x H x W, {inputs} -> {outputs}.
"""

from __future__ import annotations

import math
import operator
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from torch import nn
'''

_LOADER = '''

def load(path: str | Path | None = None) -> {cls}:
    """The net with its weights, in eval mode.

    Args:
        path: a safetensors file; by default the one beside this file.
    """
    from safetensors.torch import load_model

    net = {cls}()
    load_model(net, path or Path(__file__).with_name("model.safetensors"))
    return net.eval()
'''


def write_model_source(net: Net) -> str:
    """The text of `model.py`: Python source that defines the net's class and `load()`."""
    copied = collect_sources(layer.operator.module_spec().class_name for layer in net.layers)
    cls = class_name(net.name, copied)
    title = f"{_plain(net.name) or 'A Caffe net'} as a torch module."
    parts = [
        _HEADER.format(
            title=title,
            version=__version__,
            inputs=", ".join(_plain(blob.name) for blob in net.inputs),
            outputs=", ".join(_plain(blob.name) for blob in net.outputs),
        ),
        *(f"\n\n{source}" for source in copied.values()),
        f'\n\nclass {cls}(nn.Module):\n    """{title[:-1]}, layers by Caffe\'s names."""\n\n',
        _write_init(net),
        "\n",
        _write_forward(net),
        _LOADER.format(cls=cls),
    ]
    return _drop_unused_imports("".join(parts))


def _plain(name: str) -> str:
    """A name that is safe in a docstring."""
    return "".join(c if c.isprintable() and c not in "\"\\'" else "_" for c in name)


def _write_init(net: Net) -> str:
    lines = ["    def __init__(self) -> None:", "        super().__init__()"]
    for layer in net.layers:
        spec = layer.operator.module_spec()
        expression = replace(spec, class_name=spec.class_name.rpartition(":")[2]).source()
        if layer.attribute.isidentifier():
            lines.append(f"        self.{layer.attribute} = {expression}")
        else:
            lines.append(f"        self.add_module({layer.attribute!r}, {expression})")
    lines += _write_ties(net)
    return "\n".join(lines) + "\n"


def _write_ties(net: Net) -> list[str]:
    """Shared parameters: `self.b.weight = self.a.weight`."""
    owners = {layer.attribute: layer for layer in net.layers}
    lines = []
    for layer in net.layers:
        names = layer.operator.module_spec().parameters
        for name, key, shape in zip(names, layer.parameters, layer.operator.weight_shapes(), strict=False):
            if key.attribute == layer.attribute:
                continue
            owner = owners[key.attribute]
            owner_names = owner.operator.module_spec().parameters
            if key.index < len(owner_names) and owner.operator.weight_shapes()[key.index] == shape:
                lines.append(f"        {_member(layer)}.{name} = {_member(owner)}.{owner_names[key.index]}")
    return lines


def _member(layer: Layer) -> str:
    if layer.attribute.isidentifier():
        return f"self.{layer.attribute}"
    return f"getattr(self, {layer.attribute!r})"


def _write_forward(net: Net) -> str:
    variables = Variables()
    arguments = ", ".join(f"{variables.of(blob.name)}: torch.Tensor" for blob in net.inputs)
    single = len(net.outputs) == 1
    returns = "torch.Tensor" if single else "dict[str, torch.Tensor]"
    lines = [f"    def forward(self{', ' if arguments else ''}{arguments}) -> {returns}:"]
    for layer in net.layers:
        called = _member(layer)
        read = [variables.of(bottom.name) for bottom in layer.bottoms]
        written = [variables.of(top.name) for top in layer.tops]
        if layer.operator.maps_each_bottom:
            lines += [f"        {top} = {called}({bottom})" for bottom, top in zip(read, written, strict=True)]
        else:
            lines.append(f"        {', '.join(written)} = {called}({', '.join(read)})")
    if single:
        lines.append(f"        return {variables.of(net.outputs[0].name)}")
    else:
        pairs = ", ".join(f"{blob.name!r}: {variables.of(blob.name)}" for blob in net.outputs)
        lines.append(f"        return {{{pairs}}}")
    return "\n".join(lines) + "\n"


def collect_sources(class_names: Iterable[str]) -> dict[str, str]:
    """Sources by name of all classes that torch lacks and of what they use from their own package, in order.

    Raises ExportError if two classes, functions or constants have the same name.
    """
    found: dict[str, tuple[Any, str]] = {}
    for name in class_names:
        if not name.startswith("nn."):
            _collect(find_module_class(name), found)
    return {name: text for name, (_, text) in found.items()}


def _collect(item: Any, found: dict[str, tuple[Any, str]]) -> None:
    if _is_known(item.__qualname__, item, found):
        return
    text = inspect.getsource(item)
    home = sys.modules[item.__module__]
    for name in sorted({node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}):
        other = getattr(home, name, None)
        is_own = (inspect.isclass(other) or inspect.isfunction(other)) and other is not item
        if is_own and other.__module__.split(".")[:-1] == item.__module__.split(".")[:-1]:
            _collect(other, found)
        elif name.isupper() and isinstance(other, (int, float, tuple, str)) and not _is_known(name, other, found):
            found[name] = other, f"{name} = {other!r}\n"
    found[item.__qualname__] = item, text


def _is_known(name: str, item: Any, found: dict[str, tuple[Any, str]]) -> bool:
    if name not in found:
        return False
    if found[name][0] is not item:
        raise ExportError(f'two layers define "{name}" differently for model.py; rename one of them')
    return True


def _drop_unused_imports(text: str) -> str:
    body = text.split("from torch import nn\n", 1)[1]
    names = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    for line, name in (
        ("import math\n", "math"),
        ("import operator\n", "operator"),
        ("import numpy\n", "numpy"),
        ("import torch.nn.functional as F\n", "F"),
    ):
        if name not in names:
            text = text.replace(line, "", 1)
    return text
