"""Build plans: the decisions for each line, and what is refused because a line does not support it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from onnx import TensorProto, helper

from atrous.errors import BackendError, InputError
from atrous.runtime.backends.tensorrt.capabilities import LINES
from atrous.runtime.backends.tensorrt.options import BuildOptions, ShapeRange, static_profile
from atrous.runtime.backends.tensorrt.plan import BuildPlan, plan_build

from .onnx_models import find_facts, make_graph, make_node_graph

STATIC = (static_profile({"data": (1, 3, 33, 33)}),)
BASIC = BuildOptions(profiles=STATIC)


def plan_for(line: str, precision: str = "fp32", options: BuildOptions = BASIC, **changes: Any) -> BuildPlan:
    return plan_build(options, LINES[line], find_facts(make_graph(precision, **changes)))


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("8.5", ("EXPLICIT_BATCH",)),
        ("8.6", ("EXPLICIT_BATCH",)),
        ("9", ("EXPLICIT_BATCH", "STRONGLY_TYPED")),
        ("10", ("STRONGLY_TYPED",)),
        ("11", ()),
    ],
)
def test_network_flags(line: str, flags: tuple[str, ...]) -> None:
    assert plan_for(line).network_flags == flags


@pytest.mark.parametrize(
    ("precision", "keep", "weak"),
    [
        ("fp32", False, ()),
        ("fp16", False, ("FP16",)),
        ("fp16", True, ("FP16", "OBEY_PRECISION_CONSTRAINTS")),
        ("int8", False, ("INT8",)),
    ],
)
def test_precision_flags_only_where_typing_is_weak(precision: str, keep: bool, weak: tuple[str, ...]) -> None:
    for line in LINES:
        assert plan_for(line, precision, keep_last=keep).builder_flags == (weak if line in ("8.5", "8.6") else ()), line


@pytest.mark.parametrize("line", LINES)
def test_replay_flags(line: str) -> None:
    flags = ("ERROR_ON_TIMING_CACHE_MISS", "DISABLE_COMPILATION_CACHE") if line not in ("8.5", "8.6") else ()
    plan = plan_for(line, options=BuildOptions(profiles=STATIC, replay=True))
    assert plan.builder_flags == flags
    assert any("timed again" in note for note in plan.notes) == (not flags)


def test_kept_nodes_are_pinned_by_name() -> None:
    assert plan_for("8.5", "fp16", keep_last=True).pinned == ("conv2",)
    assert plan_for("8.5", "fp16").pinned == ()
    assert plan_for("8.5", "fp32").pinned == ()
    assert plan_for("8.5", "int8").pinned == ()
    assert plan_for("9", "fp16", keep_last=True).pinned == ()
    assert "the layers conv2" in plan_for("8.5", "fp16", keep_last=True).to_text()


def test_precisions_a_line_lacks() -> None:
    node = helper.make_node("MatMul", ["data", "data"], ["out"])
    model = make_node_graph([node], data=TensorProto.BFLOAT16, out=TensorProto.BFLOAT16)
    for line in ("8.5", "8.6"):
        with pytest.raises(BackendError, match="no strongly typed networks, which the graph's bf16 products need"):
            plan_build(BuildOptions(), LINES[line], find_facts(model))
    assert plan_build(BuildOptions(), LINES["9"], find_facts(model)).precision == "bf16"


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


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ((), 'input "data" has dynamic sizes'),
        ((static_profile({"image": (1, 3, 9, 9)}),), 'no input "image"'),
        ((static_profile({"data": (1, 4, 9, 9)}),), r'input "data" is \?x3x\?x\?, the profile has 1x4x9x9'),
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


def test_dry_run_lists_the_calls() -> None:
    """The recorder gets the calls that a build makes, in order, with members and bit masks by name."""
    wide = ShapeRange((1, 3, 8, 8), (1, 3, 64, 64), (4, 3, 256, 512))
    options = BuildOptions(profiles=(*STATIC, {"data": wide}), workspace_bytes=1 << 30, tf32=True)
    plan = plan_for("9", options=options)
    flags = "1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)"
    assert plan.record().lines == [
        "builder = trt.Builder(logger)",
        f"network = builder.create_network({flags} | 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))",
        "parser = trt.OnnxParser(network, logger)",
        "parser.parse(model)",
        "config = builder.create_builder_config()",
        "config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED",
        "config.set_flag(trt.BuilderFlag.TF32)",
        "config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1073741824)",
        "config.set_tactic_sources(1 << int(trt.TacticSource.EDGE_MASK_CONVOLUTIONS)"
        " | 1 << int(trt.TacticSource.JIT_CONVOLUTIONS))",
        "config.progress_monitor = progress_monitor",
        "profile_0 = builder.create_optimization_profile()",
        "profile_0.set_shape('data', (1, 3, 33, 33), (1, 3, 33, 33), (1, 3, 33, 33))",
        "config.add_optimization_profile(profile_0)",
        "profile_1 = builder.create_optimization_profile()",
        "profile_1.set_shape('data', (1, 3, 8, 8), (1, 3, 64, 64), (4, 3, 256, 512))",
        "config.add_optimization_profile(profile_1)",
        "timing_cache = config.create_timing_cache(timings_before)",
        "config.set_timing_cache(timing_cache, False)",
        "plan = builder.build_serialized_network(network, config)",
        "cache_after = config.get_timing_cache()",
        "timings = cache_after.serialize()",
    ]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_plans_as_json(line: str, precision: str) -> None:
    plan = plan_for(line, precision)
    written = json.loads(json.dumps(plan.to_json()))
    assert (written["line"], written["precision"]) == (line, precision)
    assert plan.to_text().endswith("\n".join(written["calls"]))
