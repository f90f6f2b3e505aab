"""Builds in a child process, on a stub of NVIDIA's SDK: the calls that arrive, errors, crashes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atrous.errors import BuildError, EnginePrecisionError
from atrous.runtime.backends.tensorrt import workflow
from atrous.runtime.backends.tensorrt.builder import BuiltEngine
from atrous.runtime.backends.tensorrt.capabilities import find_rtx_capabilities
from atrous.runtime.backends.tensorrt.options import BuildOptions, ShapeRange
from atrous.runtime.backends.tensorrt.rtx import builder, library
from atrous.runtime.backends.tensorrt.store import EngineStore
from atrous.runtime.backends.tensorrt.workflow import PreparedBuild

from ..onnx_models import find_facts, make_graph

OPTIONS = BuildOptions(
    ({"data": ShapeRange((1, 3, 33, 33), (1, 3, 65, 65), (2, 3, 97, 129))},),
    workspace_bytes=1 << 20,
    level=1,
    tf32=True,
    targets=("sm86", "sm120"),
)


def prepare(precision: str = "fp32") -> PreparedBuild:
    model = make_graph(precision)
    capabilities = find_rtx_capabilities("1.7.1.116")
    return workflow.prepare_build(model, find_facts(model), OPTIONS, capabilities, precision=precision)


def build(prepared: PreparedBuild | None = None) -> BuiltEngine:
    prepared = prepared or prepare()
    return builder.build_engine(library.find_library(), prepared.plan, prepared.model)


def test_calls_arrive(sdk: None) -> None:
    built = build()
    calls = json.loads(built.plan)
    assert calls["targets"] == ["SM86", "SM120"]
    assert calls["num_compute_capabilities"] == 2
    assert calls["profile"] == {"data": [[1, 3, 33, 33], [1, 3, 65, 65], [2, 3, 97, 129]]}
    assert (calls["TF32"], calls["WORKSPACE"], calls["builder_optimization_level"]) == (True, 1 << 20, 1)
    assert (built.log, built.timing_cache) == (("warning: some warning (2 times)",), b"")
    assert [layer["Name"] for layer in built.inspection["Layers"]] == ["conv_myl0_1"]


@pytest.mark.parametrize(
    ("fault", "part"),
    [
        ("refuse", r'the ONNX parser refuses the graph: node 3 "conv1" \(Conv\): not supported'),
        ("fail", "build_serialized_network failed: error: no kernel"),
        ("crash", r"crashed \(SIGSEGV\) while it built; nothing was stored; .*warning: some warning\. What to do"),
        ("crash late", r"crashed \(SIGSEGV\)"),
    ],
)
def test_faults_are_one_error(sdk: None, monkeypatch: pytest.MonkeyPatch, fault: str, part: str) -> None:
    monkeypatch.setenv("ATROUS_TEST_RTX", fault)
    with pytest.raises(BuildError, match=rf"TensorRT for RTX 1\.7\.1\.116.*{part}"):
        build()


def test_an_engine_without_layers(sdk: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its precision would be unknown."""
    monkeypatch.setenv("ATROUS_TEST_RTX", "mute")
    with pytest.raises(BuildError, match="cannot be audited"):
        build()


def test_the_current_folder_is_not_imported_from(sdk: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("json", "numpy", "atrous"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the current folder was imported')")
    monkeypatch.chdir(tmp_path)
    assert build().plan


def test_a_child_that_cannot_start(sdk: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder.child, "__name__", "atrous.no_such_module")
    with pytest.raises(BuildError, match=r"ended with exit code 1.*no_such_module"):
        build()


def test_store(sdk: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    store, prepared = EngineStore(tmp_path / "engines"), prepare("fp16")
    built = build(prepared)
    audited = built.inspection["Layers"][0]
    audited["Metadata"] = "[ONNX Layer: conv1]"  # in float32: the graph asks for fp16
    with pytest.raises(EnginePrecisionError, match=r"conv1 \(fp32\)"):
        workflow.store_engine(prepared, built, store, None)
    assert workflow.find_engine(prepared, store, None) is None
    audited["Inputs"][0]["Datatype"] = "Half"
    made = workflow.store_engine(prepared, built, store, None)
    found = workflow.find_engine(prepared, store, None)
    assert found is not None
    assert store.read_plan(found) == built.plan
    assert workflow.describe_engine(made.engine, store)["gpu"] == "sm86, sm120"
