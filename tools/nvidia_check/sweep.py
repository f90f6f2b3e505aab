"""Give graphs to the checks of `atrous build` and to NVIDIA's parser and builder, and compare the two.

| verdict | the checks | NVIDIA |
|---|---|---|
| `built` | pass | builds an engine, whose narrow products are as narrow as in the graph |
| `refused` | refuse | refuses as well |
| `refused here` | refuse, since TensorRT would compute other results | builds an engine |
| `too wide` | pass | builds an engine with products wider than in the graph |
| `unforeseen` | pass | refuses: a check is missing |
| `crashed` | | the process died |
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .graphs import Graph, write_deploy, write_model
from .harness import CrashedError, Nvidia

if TYPE_CHECKING:
    from atrous.converter import Net

SOUND = ("built", "refused", "refused here")
#: graphs above this number of weights would fill the memory of a small machine
MAX_WEIGHTS = 170_000_000


@dataclass(frozen=True)
class Given:
    """A graph that was given to NVIDIA, the verdict, and the words of who refused it."""

    title: str
    verdict: str
    reason: str = ""
    seconds: float = 0.0
    plan_bytes: int = 0
    audit: dict[str, Any] = field(default_factory=dict)


def give(nvidia: Nvidia, graph: Graph, title: str = "", sizes: Sequence[Sequence[int]] | None = None) -> Given:
    """Give one graph, in a process of its own; `sizes` are a profile of images, see `graphs.PROFILES`."""
    try:
        report = nvidia.call("give_graph", **_arguments(graph), sizes=sizes)
    except CrashedError as error:
        return Given(title or graph.title, "crashed", str(error))
    return judge(title or graph.title, report)


def give_many(nvidia: Nvidia, graphs: Sequence[Graph]) -> list[Given]:
    """Give small graphs in one process, which saves the start of one for each; CrashedError names the last one."""
    reports = nvidia.call("give_graphs", graphs=[_arguments(graph) for graph in graphs])
    return [judge(graph.title, report) for graph, report in zip(graphs, reports, strict=True)]


def judge(title: str, report: Mapping[str, Any]) -> Given:
    """Compare what the checks and NVIDIA found; see the module docstring."""
    here, there, audit = report["preflight"], report["nvidia"], report["audit"] or {}
    measured: dict[str, Any] = {"seconds": report["seconds"], "plan_bytes": report["plan_bytes"], "audit": audit}
    if there:
        return Given(title, "refused" if here else "unforeseen", here or there, **measured)
    if here:
        return Given(title, "refused here", here, **measured)
    if audit["reached"] < 1:
        return Given(title, "too wide", f"{audit['missed']}", **measured)
    return Given(title, "built", **measured)


def _arguments(graph: Graph) -> dict[str, Any]:
    return {"model": str(graph.model), "facts": str(graph.facts), "shapes": graph.shapes}


def give_net(nvidia: Nvidia, net: Net, folder: Path, heads: Sequence[str] = ("scores", "labels")) -> Iterator[Given]:
    """Give the faithful graph of a net, and its deployment graphs if it segments images, in float32."""
    from atrous.errors import ExportError

    writers = [partial(write_model, net, folder), *(partial(write_deploy, net, folder, head) for head in heads)]
    for write in writers:
        try:
            graph = write()
        except ExportError:  # without an ONNX form, or without that head
            continue
        yield give(nvidia, graph)
        graph.model.unlink()


def count_weights(net: Net) -> int:
    """The number of weights of a net."""
    return sum(math.prod(shape) for layer in net.layers for shape in layer.operator.weight_shapes())
