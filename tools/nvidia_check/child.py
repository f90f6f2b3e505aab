"""The functions that run with NVIDIA's bindings, one call a process: `python -m tools.nvidia_check.child NAME JSON`."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import tensorrt as trt

from atrous.bundle.manifest import GraphFacts
from atrous.errors import AtrousError
from atrous.runtime.backends.tensorrt import compat
from atrous.runtime.backends.tensorrt.audit import audit_precision, parse_inspection
from atrous.runtime.backends.tensorrt.builder import build_engine, run_plan
from atrous.runtime.backends.tensorrt.capabilities import read_capabilities
from atrous.runtime.backends.tensorrt.options import BuildOptions, ShapeRange
from atrous.runtime.backends.tensorrt.plan import BuildPlan, plan_build
from atrous.runtime.backends.tensorrt.preflight import check_graph, require_sound
from atrous.runtime.backends.tensorrt.rtx.layers import parse_layers

#: smallest, optimal and largest length of an open axis: images, and pixels or channels
_RANGES = {0: (1, 1, 4), 1: (65, 321, 513)}
Sizes = list[list[int]]
Shapes = dict[str, list[int]]


def plan_for(facts: GraphFacts, sizes: Sizes | None = None, shapes: Shapes | None = None) -> BuildPlan:
    """The product's plan; open axes have one shape, or sizes from smallest to largest of images N x H x W x 3."""
    profile = {}
    for name, blob in facts.inputs.items():
        if shapes and name in shapes:
            profile[name] = ShapeRange(*(tuple(shapes[name]),) * 3)
        elif sizes and len(blob.shape) == 4 and blob.shape[3] == 3:
            profile[name] = ShapeRange(*((n, h, w, 3) for n, h, w in sizes))
        else:
            axes = [_RANGES[min(axis, 1)] if side < 0 else (side,) * 3 for axis, side in enumerate(blob.shape)]
            profile[name] = ShapeRange(*zip(*axes, strict=True))
    is_open = any(side < 0 for blob in facts.inputs.values() for side in blob.shape)
    return plan_build(BuildOptions((profile,) if is_open else ()), read_capabilities(trt), facts)


def give_graph(model: str, facts: str, sizes: Sizes | None = None, shapes: Shapes | None = None) -> dict[str, Any]:
    """Check a graph as `atrous build` does, then give it to NVIDIA's parser and builder whatever the checks found."""
    described = GraphFacts.model_validate_json(Path(facts).read_text())
    report: dict[str, Any] = {"preflight": "", "nvidia": "", "plan_bytes": 0, "audit": None}
    try:
        require_sound(check_graph(described, read_capabilities(trt)))
    except AtrousError as error:
        report["preflight"] = str(error)
    plan = plan_for(described, sizes, shapes)
    lines: list[str] = []
    layers: list[str] = []
    made: dict[str, Any] = {"logger": compat.make_logger(trt, lines, layers), "model": Path(model).read_bytes()}
    made |= {"timings_before": b"", "progress_monitor": compat.make_progress_monitor(trt, lambda *step: None)}
    started_s = time.perf_counter()
    try:
        with compat.release_in_order(made):
            run_plan(trt, plan, made, lines)
            report["plan_bytes"] = len(bytes(made["plan"]))
    except AtrousError as error:
        report["nvidia"] = str(error)
    report["seconds"] = round(time.perf_counter() - started_s, 2)
    if report["plan_bytes"]:
        report["audit"] = audit_precision(parse_inspection(parse_layers("\n".join(layers))), described).to_json()
    return report


def give_graphs(graphs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give many small graphs in one process; a crash leaves the last one's name on stderr."""
    reports = []
    for graph in graphs:
        print(graph["model"], file=sys.stderr, flush=True)
        reports.append(give_graph(**graph))
    return reports


def build_often(graphs: list[list[str]], count: int) -> dict[str, Any]:
    """Build engines with the product's `build_engine`, in turn; the errors that ended them, and megabytes kept."""
    pairs = [(Path(model).read_bytes(), Path(facts).read_text()) for model, facts in graphs]
    ends: Counter[str] = Counter()
    memory: list[int] = []
    for index in range(count):
        model, facts = pairs[index % len(pairs)]
        try:
            build_engine(trt, plan_for(GraphFacts.model_validate_json(facts)), model)
            ends["built"] += 1
        except AtrousError as error:
            ends[f"{type(error).__name__}: {error}"] += 1
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    return {"ends": dict(ends), "memory_mb": memory}


def build_with_recorder(model: str) -> str:
    """Free a network whose builder has an error recorder before its parser, as 0.1 did: the process dies."""

    class Recorder(trt.IErrorRecorder):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)

        def report_error(self, code: Any, description: str) -> bool:
            return True

    made: dict[str, Any] = {"logger": compat.make_logger(trt, []), "recorder": Recorder()}
    made["builder"] = trt.Builder(made["logger"])
    made["builder"].error_recorder = made["recorder"]
    made["network"] = made["builder"].create_network(0)
    made["parser"] = trt.OnnxParser(made["network"], made["logger"])
    made["parser"].parse(Path(model).read_bytes())
    del made["recorder"]
    for name in ("builder", "network", "parser"):
        del made[name]
    return "alive"


def main() -> None:
    """Call the function and print its result as the last line."""
    print(json.dumps(globals()[sys.argv[1]](**json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()
