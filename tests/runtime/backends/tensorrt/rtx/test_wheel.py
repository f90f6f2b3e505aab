"""The real library of the pinned wheel, which builds on a CPU; skipped where the wheel is not installed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from atrous.errors import BuildError
from atrous.runtime.backends import onnxruntime_rtx
from atrous.runtime.backends.tensorrt.audit import audit_precision, parse_inspection
from atrous.runtime.backends.tensorrt.builder import BuiltEngine
from atrous.runtime.backends.tensorrt.capabilities import find_rtx_capabilities
from atrous.runtime.backends.tensorrt.options import BuildOptions, ShapeRange
from atrous.runtime.backends.tensorrt.plan import BuildPlan, plan_build
from atrous.runtime.backends.tensorrt.rtx import builder
from atrous.runtime.backends.tensorrt.rtx.library import RtxLibrary
from atrous.runtime.backends.tensorrt.targets import find_lacking

from ..onnx_models import find_facts, make_graph

PROFILE = {"data": ShapeRange((1, 3, 33, 33), (1, 3, 65, 65), (2, 3, 97, 129))}


def build(wheel: RtxLibrary, model: bytes, **options: object) -> BuiltEngine:
    settings = BuildOptions((PROFILE,), **{"targets": ("sm86", "sm89", "sm120"), **options})
    plan = plan_build(settings, find_rtx_capabilities(wheel.version), find_facts(model))
    return builder.build_engine(wheel, plan, model)


def run_child(code: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process with this one's import path and more folders: a crash is a failed test."""
    start = f"import sys; sys.path[:] = sys.argv[1:]; from importlib import import_module; {code}"
    command = [sys.executable, "-c", start, *map(str, folders), *filter(None, sys.path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_builds_what_the_graph_asks_for(wheel: RtxLibrary, precision: str) -> None:
    model = make_graph(precision)
    built = build(wheel, model)
    audit = audit_precision(parse_inspection(built.inspection), find_facts(model))
    assert len(built.plan) > 100_000
    assert (audit.reached, audit.asked) == (1.0, precision)
    assert sum(audit.products.values()) == 2
    assert audit.narrow_writing_fp32 == (precision == "int8")


def test_settings_reach_the_builder(wheel: RtxLibrary) -> None:
    """Plans for other targets differ; workspace, level and TF32 are accepted."""
    model = make_graph()
    one, all_three = build(wheel, model, targets=("sm86",)), build(wheel, model)
    assert one.plan != all_three.plan
    assert build(wheel, model, workspace_bytes=64 << 20, level=1, tf32=True).plan


def test_a_refused_graph(wheel: RtxLibrary) -> None:
    plan = BuildPlan(BuildOptions(targets=("sm86",)), find_rtx_capabilities(wheel.version), (), (), (), "fp32", ())
    with pytest.raises(BuildError, match="the ONNX parser refuses the graph"):
        builder.build_engine(wheel, plan, b"no ONNX model")


def test_a_profile_that_misses(wheel: RtxLibrary) -> None:
    model = make_graph()
    plan = plan_build(
        BuildOptions((PROFILE,), targets=("sm86",)), find_rtx_capabilities(wheel.version), find_facts(model)
    )
    other = BuildPlan(
        BuildOptions(({"other": PROFILE["data"]},), targets=("sm86",)), plan.capabilities, (), (), (), "fp32", ()
    )
    with pytest.raises(BuildError, match=r"build_serialized_network failed: error: .*data"):
        builder.build_engine(wheel, other, model)


def make_narrow_graph(precision: str) -> bytes:
    """data -> Conv in a precision -> scores."""
    kinds = {"bf16": TensorProto.BFLOAT16, "int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}
    kind, count, shape = kinds[precision], 8 * 3 * 3 * 3, (8, 3, 3, 3)
    values = [(index % 7 - 3) / 4 for index in range(count)]
    if precision == "bf16":
        constants = [helper.make_tensor("weight", kind, shape, values)]
        nodes = [
            helper.make_node("Cast", ["data"], ["narrow"], to=kind),
            helper.make_node("Conv", ["narrow", "weight"], ["wide"], name="conv"),
            helper.make_node("Cast", ["wide"], ["scores"], to=TensorProto.FLOAT),
        ]
    else:
        constants = [
            helper.make_tensor("w", TensorProto.FLOAT, shape, values),
            helper.make_tensor("scale", TensorProto.FLOAT, (), [0.01]),
            helper.make_tensor("zero", kind, (), [0]),
        ]
        pairs = (("data", "narrow"), ("w", "weight"))
        nodes = [
            *(helper.make_node("QuantizeLinear", [a, "scale", "zero"], [f"{a}_codes"]) for a, _ in pairs),
            *(helper.make_node("DequantizeLinear", [f"{a}_codes", "scale", "zero"], [b]) for a, b in pairs),
            helper.make_node("Conv", ["narrow", "weight"], ["scores"], name="conv"),
        ]
    sides = {"data": ["n", 3, "h", "w"], "scores": ["n", 8, "h2", "w2"]}
    data, scores = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in sides.items())
    graph = helper.make_graph(nodes, "g", [data], [scores], constants)
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10).SerializeToString()
    )


@pytest.mark.parametrize("target", ["sm75", "sm80", "sm86", "sm89"])
@pytest.mark.parametrize("precision", ["bf16", "int8", "fp8"])
def test_what_a_target_lacks(wheel: RtxLibrary, precision: str, target: str) -> None:
    """The table of refusals agrees with the builder, which fails, or computes in more bits."""
    model = make_narrow_graph(precision)
    facts = find_facts(model)
    assert facts.node_precisions == {"conv": precision}
    options = BuildOptions((PROFILE,), targets=(target,))
    plan = BuildPlan(options, find_rtx_capabilities(wheel.version), (), (), (), precision, ())  # without the refusal
    try:
        built = builder.build_engine(wheel, plan, model)
    except BuildError as error:
        reached = 0.0 if "Cannot compile for target" in str(error) else math.nan
    else:
        reached = audit_precision(parse_inspection(built.inspection), facts).reached
    assert reached == (0.0 if find_lacking((target,), facts.types) else 1.0)


def test_settings_are_read_back(wheel: RtxLibrary) -> None:
    """The library's own getters return what was set, so the binding calls the functions it means."""
    done = run_child("import_module('read_back').main()", Path(__file__).parent)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "tf32 at first": True,
        "tf32 cleared": False,
        "tf32 set": True,
        "verbosity": 2,
        "workspace": 12345678,
        "level": 1,
        "targets": [89, 120],
        "target count": 2,
        "sm90": False,
    }


def test_the_provider_needs_a_driver(wheel: RtxLibrary) -> None:
    """Without one, ONNX Runtime names the library that it cannot load; in a child, as the wheel changes its process."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    if not any("libcuda" in obstacle for obstacle in onnxruntime_rtx.find_obstacles()):
        pytest.skip("this machine has NVIDIA's driver")
    done = run_child("import_module('atrous.runtime.backends.onnxruntime_rtx')._register_provider()")
    assert "BackendError: ONNX Runtime cannot load NvTensorRTRTXExecutionProvider" in done.stderr, done.stderr
    assert "libcuda.so.1" in done.stderr
