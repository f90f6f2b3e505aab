"""Build plans: what each line is told, and what is refused because a line lacks it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from onnx import TensorProto, helper

from atrous.errors import BackendError, InputError
from atrous.runtime.backends.tensorrt.capabilities import LINES, read_capabilities
from atrous.runtime.backends.tensorrt.onnx_reader import read_facts
from atrous.runtime.backends.tensorrt.options import BuildOptions, ShapeRange, static_profile
from atrous.runtime.backends.tensorrt.plan import BuildPlan, plan_build

from . import stubs
from .onnx_models import make_graph, make_node_graph

STATIC = (static_profile({"data": (1, 3, 33, 33)}),)
BASIC = BuildOptions(profiles=STATIC)


def plan_for(line: str, precision: str = "fp32", options: BuildOptions = BASIC, **changes: Any) -> BuildPlan:
    return plan_build(options, LINES[line], read_facts(make_graph(precision, **changes)))


def flags_of(plan: BuildPlan) -> dict[str, str]:
    """Builder flag -> set_flag or clear_flag."""
    return {
        argument.path.partition(".")[2]: call.name
        for call in plan.calls
        if call.name in ("set_flag", "clear_flag")
        for argument in call.arguments
        if hasattr(argument, "path")
    }


def line_of(plan: BuildPlan, start: str) -> str:
    return next(line for line in plan.to_text().splitlines() if line.startswith(start))


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("8.5", "1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)"),
        ("8.6", "1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)"),
        (
            "9",
            "1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)"
            " | 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)",
        ),
        ("10", "1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)"),
        ("11", "0"),
    ],
)
def test_network_flags(line: str, flags: str) -> None:
    assert line_of(plan_for(line), "network = ") == f"network = builder.create_network({flags})"


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_is_always_said(line: str, tf32: bool) -> None:
    plan = plan_for(line, options=BuildOptions(profiles=STATIC, tf32=tf32))
    assert flags_of(plan)["TF32"] == ("set_flag" if tf32 else "clear_flag")


@pytest.mark.parametrize(
    ("precision", "keep", "weak"),
    [
        ("fp32", False, set()),
        ("fp16", False, {"FP16"}),
        ("fp16", True, {"FP16", "OBEY_PRECISION_CONSTRAINTS"}),
        ("int8", False, {"INT8"}),
    ],
)
def test_precision_flags_only_where_typing_is_weak(precision: str, keep: bool, weak: set[str]) -> None:
    for line in LINES:
        plan = plan_for(line, precision, keep_last=keep)
        assert flags_of(plan).keys() - {"TF32"} == (weak if line in ("8.5", "8.6") else set()), line


def test_kept_nodes_are_pinned_by_name() -> None:
    assert plan_for("8.5", "fp16", keep_last=True).pinned == ("conv2",)
    assert plan_for("8.5", "fp16").pinned == ()
    assert plan_for("8.5", "fp32").pinned == ()
    assert plan_for("8.5", "int8").pinned == ()
    assert plan_for("9", "fp16", keep_last=True).pinned == ()
    assert "layer.precision = trt.DataType.FLOAT" in plan_for("8.5", "fp16", keep_last=True).to_text()


def test_types_a_line_lacks() -> None:
    node = helper.make_node("MatMul", ["data", "data"], ["out"])
    model = make_node_graph([node], data=TensorProto.BFLOAT16, out=TensorProto.BFLOAT16)
    for line in ("8.5", "8.6"):
        with pytest.raises(BackendError, match="no BF16 type, which the graph's bf16 products need"):
            plan_build(BuildOptions(), LINES[line], read_facts(model))
    assert plan_build(BuildOptions(), LINES["9"], read_facts(model)).precision == "bf16"


@pytest.mark.parametrize(
    ("line", "options", "reason"),
    [
        ("8.5", {"level": 3}, "builder level"),
        ("8.5", {"hardware_compatible": "ampere-plus"}, "hardware compatibility AMPERE_PLUS"),
        ("8.5", {"version_compatible": True}, "version-compatible plans"),
        ("8.6", {"hardware_compatible": "same-capability"}, "hardware compatibility SAME_COMPUTE_CAPABILITY"),
        ("9", {"hardware_compatible": "same-capability"}, "hardware compatibility SAME_COMPUTE_CAPABILITY"),
    ],
)
def test_what_a_line_lacks_is_refused(line: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(BackendError, match=f"has no {reason}"):
        plan_for(line, options=BuildOptions(profiles=STATIC, **options))


def test_all_that_is_lacking_is_named_at_once() -> None:
    options = BuildOptions(profiles=STATIC, level=1, version_compatible=True)
    with pytest.raises(BackendError, match=r"no builder level .*; no version-compatible plans"):
        plan_for("8.5", options=options)


@pytest.mark.parametrize("line", ["8.6", "9", "10", "11"])
def test_every_option(line: str) -> None:
    options = BuildOptions(
        profiles=STATIC,
        workspace_bytes=1 << 30,
        level=5,
        tf32=True,
        refit=True,
        hardware_compatible="ampere-plus",
        version_compatible=True,
        replay=True,
    )
    plan = plan_for(line, options=options)
    text = plan.to_text()
    assert "config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1073741824)" in text
    assert "config.builder_optimization_level = 5" in text
    assert "config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS" in text
    replay = {"ERROR_ON_TIMING_CACHE_MISS", "DISABLE_COMPILATION_CACHE"} if line != "8.6" else set()
    assert flags_of(plan).keys() == {"TF32", "REFIT", "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"} | replay


def test_tactic_sources() -> None:
    assert "CUDNN" not in plan_for("8.5").to_text()
    assert "set_tactic_sources" in plan_for("8.5").to_text()
    assert "set_tactic_sources" not in plan_for("8.5", options=BuildOptions(STATIC, tactic_sources="default")).to_text()


def test_several_profiles() -> None:
    wide = ShapeRange((1, 3, 8, 8), (1, 3, 64, 64), (4, 3, 256, 512))
    plan = plan_for("10", options=BuildOptions(profiles=(*STATIC, {"data": wide})))
    text = plan.to_text()
    assert "profile_1.set_shape('data', (1, 3, 8, 8), (1, 3, 64, 64), (4, 3, 256, 512))" in text
    assert text.index("add_optimization_profile(profile_0)") < text.index("profile_1.set_shape")


def test_a_fixed_graph_needs_no_profile() -> None:
    graph = read_facts(make_graph(shape=(1, 3, 9, 9)))
    assert "profile" not in [call.target for call in plan_build(BuildOptions(), LINES["11"], graph).calls]


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ((), 'input "data" has free sizes'),
        ((static_profile({"image": (1, 3, 9, 9)}),), 'no input "image"'),
        ((static_profile({"data": (1, 4, 9, 9)}),), r'input "data" is \?x3x\?x\?, a profile wants 1x4x9x9'),
        ((static_profile({"data": (1, 3, 9)}),), 'input "data" is'),
        (({},), 'lacks the input "data"'),
    ],
)
def test_profiles_that_do_not_fit(profiles: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_for("10", options=BuildOptions(profiles=profiles))


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 3), (1, 3), (2, 3)),
        ((0, 3), (1, 3), (2, 3)),
        ((1, 3), (1, 3), (1, 3, 3)),
        ((1,), (1,), (1 << 40,)),
        ((1,) * 9,) * 3,
    ],
)
def test_impossible_ranges(shapes: Any) -> None:
    with pytest.raises(InputError):
        ShapeRange(*shapes)


@pytest.mark.parametrize("options", [{"level": 6}, {"level": -1}, {"workspace_bytes": 0}, {"profiles": STATIC * 17}])
def test_impossible_options(options: Any) -> None:
    with pytest.raises(InputError):
        BuildOptions(**options)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_plans_are_data(line: str, precision: str) -> None:
    plan = plan_for(line, precision)
    written = json.loads(json.dumps(plan.to_json()))
    assert written["line"] == line
    assert written["precision"] == precision
    assert [call["name"] for call in written["calls"]] == [call.name for call in plan.calls]


@pytest.mark.parametrize("version", stubs.read_names())
def test_plans_name_nothing_that_a_version_lacks(version: str) -> None:
    """Every class, member, method and attribute of a plan is a name of the recorded module."""
    names = stubs.read_names()[version]
    trt = stubs.make_tensorrt("", version)
    graph = read_facts(make_graph("fp16", keep_last=True))
    options = BuildOptions(profiles=STATIC, workspace_bytes=1 << 20, refit=True, replay=True)
    kinds = {
        "builder": "Builder",
        "network": "INetworkDefinition",
        "config": "IBuilderConfig",
        "parser": "OnnxParser",
        "profile_0": "IOptimizationProfile",
        "timing_cache": "ITimingCache",
        "timing_cache_kept": "ITimingCache",
    }
    for call in plan_build(options, read_capabilities(trt), graph).calls:
        if call.target == "trt":
            assert call.name in names
        elif call.kind != "pin":
            assert call.name in names[kinds[call.target]], call
        for argument in call.arguments:
            for path in (*getattr(argument, "paths", ()), *([argument.path] if hasattr(argument, "path") else [])):
                kind, _, member = path.partition(".")
                assert member in names[kind], path
