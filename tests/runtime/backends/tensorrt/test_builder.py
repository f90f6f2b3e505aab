"""Builds on stub modules of five lines: the right calls, and every failure reported in one message."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from atrous.errors import BackendError, BuildError, EngineError
from atrous.runtime.backends.tensorrt import compat
from atrous.runtime.backends.tensorrt.builder import BuiltEngine, build_engine
from atrous.runtime.backends.tensorrt.capabilities import read_capabilities
from atrous.runtime.backends.tensorrt.options import BuildOptions, ShapeRange, static_profile
from atrous.runtime.backends.tensorrt.plan import plan_build

from . import stubs
from .onnx_models import find_facts, make_graph

STATIC = (static_profile({"data": (1, 3, 33, 33)}),)


def build(trt: Any, precision: str = "fp32", options: BuildOptions | None = None, **more: Any) -> BuiltEngine:
    model = make_graph(precision, keep_last=more.pop("keep_last", False))
    plan = plan_build(options or BuildOptions(profiles=STATIC), read_capabilities(trt), find_facts(model))
    return build_engine(trt, plan, model, **more)


@pytest.mark.parametrize("version", stubs.read_names())
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_builds_on_every_version(version: str, precision: str) -> None:
    trt = stubs.make_tensorrt("", version)
    found = json.loads(build(trt, precision).plan)
    flags = set(found["network_flags"])
    major = int(version.split(".")[0])
    assert ("EXPLICIT_BATCH" in flags) == (major < 10)
    assert ("STRONGLY_TYPED" in flags) == (major in (9, 10))
    assert found["profiles"] == [{"data": [[1, 3, 33, 33]] * 3}]
    assert found["settings"]["profiling_verbosity"] == "ProfilingVerbosity.DETAILED"
    assert found["tactic_sources"] == ["EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"]
    assert "TF32" not in found["flags"]
    kinds = {layer["name"]: layer["type"] for layer in found["layers"]}
    assert kinds["conv1"] == {"fp32": "Float", "fp16": "Half", "int8": "Int8"}[precision]


@pytest.mark.parametrize("line", stubs.LINES)
def test_kept_nodes_stay_wide(line: str) -> None:
    found = json.loads(build(stubs.make_tensorrt(line), "fp16", keep_last=True).plan)
    kinds = {layer["name"]: layer["type"] for layer in found["layers"]}
    assert (kinds["conv1"], kinds["conv2"]) == ("Half", "Float")


@pytest.mark.parametrize("version", stubs.read_names())
def test_every_option_on_every_version(version: str) -> None:
    """The stub has the names of the real module and rejects all others."""
    trt = stubs.make_tensorrt("", version)
    wide = ShapeRange((1, 3, 8, 8), (1, 3, 64, 64), (4, 3, 256, 512))
    is_new = version != "8.5.3.1"
    options = BuildOptions(
        profiles=(*STATIC, {"data": wide}),
        workspace_bytes=1 << 28,
        level=4 if is_new else None,
        tf32=True,
        tactic_sources="default",
        refit=True,
        hardware_compatible="ampere-plus" if is_new else None,
        version_compatible=is_new,
        replay=True,
    )
    found = json.loads(build(trt, "fp16", options=options, keep_last=True).plan)
    assert found["pools"] == {"WORKSPACE": 1 << 28}
    assert found["tactic_sources"] is None
    assert found["profiles"] == [
        {"data": [[1, 3, 33, 33]] * 3},
        {"data": [[1, 3, 8, 8], [1, 3, 64, 64], [4, 3, 256, 512]]},
    ]
    flags = {"TF32", "REFIT"}
    if is_new:
        assert found["settings"]["builder_optimization_level"] == "4"
        assert found["settings"]["hardware_compatibility_level"] == "HardwareCompatibilityLevel.AMPERE_PLUS"
        flags |= {"VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"}
    if version.startswith("8."):
        flags |= {"FP16", "OBEY_PRECISION_CONSTRAINTS"}
    else:
        flags |= {"ERROR_ON_TIMING_CACHE_MISS", "DISABLE_COMPILATION_CACHE"}
    assert set(found["flags"]) == flags


def test_a_fixed_graph_needs_no_profile() -> None:
    model = make_graph(shape=(1, 3, 9, 9))
    trt = stubs.make_tensorrt("11")
    plan = plan_build(BuildOptions(), read_capabilities(trt), find_facts(model))
    assert json.loads(build_engine(trt, plan, model).plan)["profiles"] == []


def test_a_plan_for_another_line_fails_by_name() -> None:
    """The stub of 11 lacks the names that 11 removed, so a plan for 8.5 cannot run on it."""
    model = make_graph()
    plan = plan_build(BuildOptions(profiles=STATIC), read_capabilities(stubs.make_tensorrt("8.5")), find_facts(model))
    with pytest.raises(BuildError, match="EXPLICIT_BATCH"):
        build_engine(stubs.make_tensorrt("11"), plan, model)


def test_timing_cache_is_kept_and_replayed() -> None:
    trt = stubs.make_tensorrt("10")
    first = build(trt)
    assert first.timing_cache == b"timed;"
    again = build(trt, timing_cache=first.timing_cache)
    assert again.timing_cache == b"timed;"
    assert again.plan == first.plan


def test_progress() -> None:
    seen: list[tuple[str, int, int]] = []
    build(stubs.make_tensorrt("9"), progress=lambda *step: seen.append(step))
    assert seen == [("Building", 0, 2), ("Building", 1, 2), ("Building", 2, 2), ("Building", 2, 2)]
    build(stubs.make_tensorrt("8.6"), progress=lambda *step: seen.append(step))
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("line", "place"), [("8.5", "node 7: "), ("9", r'node 7 "fc6" \(Conv\): '), ("11", r'node 7 "fc6" \(Conv\): ')]
)
def test_all_parser_errors_in_one_message(line: str, place: str) -> None:
    trt = stubs.make_tensorrt(line)
    trt.behavior.parser_errors = [
        {"desc": "Assertion failed", "node": 7, "name": "fc6", "operator": "Conv"},
        {"desc": "No importer", "node": 9, "name": "fc8", "operator": "Interp"},
    ]
    with pytest.raises(BuildError, match=f"parser refuses the graph: {place}Assertion failed; node 9.*No importer"):
        build(trt)


def test_none_is_an_error_with_the_log_and_advice() -> None:
    trt = stubs.make_tensorrt("8.5")
    trt.behavior.fail_build = "[optimizer.cpp] could not find any implementation for node conv1"
    with pytest.raises(
        BuildError, match=r"build_serialized_network failed: error: .*for node conv1\. What to do: give a larger"
    ) as caught:
        build(trt)
    assert caught.value.exit_code == 1


def test_a_profile_that_is_refused() -> None:
    trt = stubs.make_tensorrt("10")
    model = make_graph(shape=(1, 3, 9, 9))
    plan = plan_build(BuildOptions(profiles=({},)), read_capabilities(trt), find_facts(model))
    with pytest.raises(BuildError, match=r"add_optimization_profile failed"):
        build_engine(trt, plan, model)


def _break(trt: Any, fault: str) -> None:
    """Make one call of a build fail."""
    behavior = trt.behavior
    if fault == "parser":
        behavior.parser_errors = [{"desc": "Assertion failed", "node": 7}]
    elif fault == "build":
        behavior.fail_build = "no implementation"
    elif fault == "plan":
        behavior.refuse_plans = True
    elif fault == "inspector":
        trt.EngineInspector.get_engine_information = lambda self, form: "no JSON"
    elif fault == "profile":

        def fail(self: Any, name: str, low: Any, best: Any, high: Any) -> None:
            raise RuntimeError("set_shape failed")

        trt.IOptimizationProfile.set_shape = fail


@pytest.mark.parametrize("line", stubs.LINES)
@pytest.mark.parametrize("fault", ["", "parser", "profile", "build", "plan", "inspector"])
def test_objects_are_freed_newest_first(line: str, fault: str) -> None:
    """The stub raises where an object outlives what it needs; here its error is kept, and with it the traceback."""
    trt = stubs.make_tensorrt(line)
    _break(trt, fault)
    error = None
    try:
        build(trt)
    except (BackendError, BuildError, EngineError) as caught:
        error = caught
    assert (error is not None) == bool(fault)
    assert trt.behavior.made
    assert trt.behavior.list_alive() == []


def test_no_error_recorder() -> None:
    """NVIDIA's parser writes to its network when it is freed, if that had a recorder; the bindings free it later."""
    trt = stubs.make_tensorrt("10")
    build(trt)
    assert "Builder.error_recorder" not in trt.behavior.touched


def test_pins_that_find_no_layer_are_warned_of() -> None:
    trt = stubs.make_tensorrt("8.5")
    model = make_graph("fp16", keep_last=True)
    plan = plan_build(BuildOptions(profiles=STATIC), read_capabilities(trt), find_facts(model))
    other = model.replace(b"conv2", b"conv3")
    built = build_engine(trt, plan, other)
    assert built.log == ('warning: the graph keeps "conv2" in FP32, but the parser made no layer of that name',)


def test_a_plan_that_cannot_be_loaded_without_a_driver() -> None:
    trt = stubs.make_tensorrt("11")
    trt.behavior.refuse_plans = True
    trt.behavior.logged_at_load = "cudaError 35: CUDA driver version is insufficient for CUDA runtime version"
    with pytest.raises(BackendError, match=r"cannot load the plan: error: cudaError 35.*run on a machine with"):
        build(trt)


def test_a_refused_plan() -> None:
    trt = stubs.make_tensorrt("10")
    trt.behavior.refuse_plans = True
    trt.behavior.logged_at_load = "the engine was built for another GPU"
    with pytest.raises(EngineError, match=r"refuses the plan: error: .*another GPU\. What to do: build it again"):
        build(trt)


def test_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """As 8.5.3.1 on such a machine: it logs a warning, and its factory returns nothing."""
    trt = stubs.make_tensorrt("8.5")

    def fail(self: Any, logger: Any) -> None:
        logger.log(SimpleNamespace(name="WARNING"), "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(trt.Builder, "__init__", fail)
    with pytest.raises(
        BuildError, match=r"the step parse failed: TypeError: .*error: 35\. What to do: run on a machine with"
    ):
        build(trt)
    monkeypatch.setattr(trt.Runtime, "__init__", fail)
    with pytest.raises(BackendError, match=r"8\.5\.3\.1 cannot start: warning: CUDA init.*35\. What to do: run"):
        compat.LoadedEngine(trt, b"{}")
