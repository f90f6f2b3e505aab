"""From ONNX to a stored engine on stub modules: prepared, built, audited, stored, found, replayed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from atrous.errors import BackendError, EngineError, EnginePrecisionError, InputError, OutputError
from atrous.runtime.backends.tensorrt import workflow
from atrous.runtime.backends.tensorrt.capabilities import LINES, read_capabilities
from atrous.runtime.backends.tensorrt.options import BuildOptions, static_profile
from atrous.runtime.backends.tensorrt.signing import Signer
from atrous.runtime.backends.tensorrt.store import EngineStore

from . import stubs
from .onnx_models import find_facts, finish_model, make_graph
from .test_keys import MACHINE

OPTIONS = BuildOptions(profiles=(static_profile({"data": (1, 3, 33, 33)}),))


def prepare(trt: Any, precision: str = "fp32", **changes: Any) -> workflow.PreparedBuild:
    model = make_graph(precision, **changes)
    return workflow.prepare_build(model, find_facts(model), OPTIONS, read_capabilities(trt), precision=precision)


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines", Signer(b"m" * 32))


@pytest.mark.parametrize("version", stubs.read_names())
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_built_audited_stored_found(version: str, precision: str, store: EngineStore) -> None:
    trt = stubs.make_tensorrt("", version)
    prepared = prepare(trt, precision)
    assert workflow.find_engine(prepared, store, MACHINE) is None
    made = workflow.make_engine(trt, prepared, store, MACHINE)
    found = workflow.find_engine(prepared, store, MACHINE)
    assert found is not None
    assert store.read_plan(found) == made.built.plan
    assert made.audit.reached == 1.0
    assert found.record.build["audit"]["asked"] == precision
    assert found.fields["tensorrt.version"] == version
    row = workflow.describe_engine(found, store)
    assert json.loads(json.dumps(row))["signed_here"] is True


def test_a_store_that_cannot_be_written_is_noticed_before_the_build(tmp_path: Path) -> None:
    trt = stubs.make_tensorrt("10")
    prepared = prepare(trt)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file: is a file; results need a folder"):
        workflow.make_engine(None, prepared, EngineStore(tmp_path / "file", Signer(b"m" * 32)), MACHINE)


@pytest.mark.parametrize("line", ["8.5", "8.6"])
def test_a_silent_fp32_is_an_error_and_is_not_stored(line: str, store: EngineStore) -> None:
    trt = stubs.make_tensorrt(line)
    trt.behavior.refuse_narrow = {"conv1", "conv2"}
    prepared = prepare(trt, "fp16")
    with pytest.raises(EnginePrecisionError, match=r"only 0% .* conv1 \(fp32\), conv2 \(fp32\)"):
        workflow.make_engine(trt, prepared, store, MACHINE)
    assert store.list_engines() == []
    trt.behavior.refuse_narrow = {"conv2"}
    made = workflow.make_engine(trt, prepared, store, MACHINE, required_share=0.5)
    assert made.audit.reached == 0.5
    assert made.engine.record.build["audit"]["missed"] == [{"node": "conv2", "asked": "fp16", "got": "fp32"}]


@pytest.mark.parametrize(
    ("graph", "asked"), [("fp32", "fp16"), ("fp16", "fp32"), ("fp32", "int8"), ("int8", "fp32"), ("fp16", "int8")]
)
def test_the_graph_must_be_in_the_precision_that_is_asked(graph: str, asked: str) -> None:
    with pytest.raises(InputError, match=f"not in {asked}: make a variant"):
        workflow.prepare_build(make_graph(graph), find_facts(make_graph(graph)), OPTIONS, LINES["10"], precision=asked)


@pytest.mark.parametrize("place", ["initializer", "constant"])
def test_weights_outside_the_file(place: str) -> None:
    """NVIDIA's parser would read the file that the model names."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../weights.bin")
    nodes = [helper.make_node("Add", ["data", "w"], ["out"])]
    if place == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    graph = helper.make_graph(nodes, "net", [], [], [tensor] if place == "initializer" else [])
    with pytest.raises(BackendError, match="takes weights from other files"):
        workflow.prepare_build(finish_model(graph), find_facts(make_graph()), OPTIONS, LINES["10"])


def test_replay(store: EngineStore, tmp_path: Path) -> None:
    trt = stubs.make_tensorrt("10")
    prepared = prepare(trt)
    with pytest.raises(EngineError, match="no engine is built in"):
        workflow.read_replay_cache(prepared, store, MACHINE, None)
    first = workflow.make_engine(trt, prepared, store, MACHINE)
    assert workflow.read_replay_cache(prepared, store, MACHINE, None) == first.built.timing_cache
    with pytest.raises(InputError, match="no timing cache to replay"):
        workflow.read_replay_cache(prepared, store, MACHINE, tmp_path / "none")
    (tmp_path / "cache").write_bytes(b"kept")
    assert workflow.read_replay_cache(prepared, store, MACHINE, tmp_path / "cache") == b"kept"
    with pytest.raises(InputError, match="cannot be read"):
        workflow.read_cache_file(tmp_path)


def test_the_other_dilation_is_another_engine(store: EngineStore) -> None:
    trt = stubs.make_tensorrt("10")
    workflow.make_engine(trt, prepare(trt), store, MACHINE)
    other = prepare(trt, dilation=2)
    assert workflow.find_engine(other, store, MACHINE) is None
    with pytest.raises(EngineError) as caught:
        store.choose(other.make_key(MACHINE).fields)
    assert caught.value.field == "onnx.sha256"


def test_a_damaged_engine_is_built_again(store: EngineStore) -> None:
    trt = stubs.make_tensorrt("10")
    made = workflow.make_engine(trt, prepare(trt), store, MACHINE)
    (made.engine.folder / made.engine.record.plan.file).write_bytes(b"x")
    assert workflow.find_engine(prepare(trt), store, MACHINE) is None


def test_names_only_from_the_inspector(store: EngineStore) -> None:
    trt = stubs.make_tensorrt("10")
    trt.behavior.names_only = True
    with pytest.raises(BackendError, match="names only"):
        workflow.make_engine(trt, prepare(trt), store, MACHINE)
