"""`build_engine` itself, unchanged, with NVIDIA's real bindings, builder and parser; only running needs a GPU."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from tools.nvidia_check.harness import CrashedError, Nvidia

from .onnx_models import find_facts, finish_model, make_graph

#: builds in one process
BUILDS = 100
PRECISIONS = ("fp32", "fp16", "int8")


def write(folder: Path, title: str, model: bytes) -> list[str]:
    """Write a model and its facts; return both paths."""
    paths = folder / f"{title}.onnx", folder / f"{title}.json"
    paths[0].write_bytes(model)
    paths[1].write_text(find_facts(model).model_dump_json())
    return [str(path) for path in paths]


@pytest.fixture
def refused() -> bytes:
    """A graph that NVIDIA's parser refuses."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 5]) for name in ("data", "out")]
    node = helper.make_node("Hardmax", ["data"], ["out"], name="largest")
    unknown = helper.make_node("Det", ["data"], ["det"], name="det")
    return finish_model(helper.make_graph([unknown, node], "net", ends[:1], ends[1:]))


def test_a_recorder_while_building_crashes(nvidia: Nvidia, tmp_path: Path) -> None:
    """The harness sees a crash. NVIDIA's parser keeps its network's recorder, and uses the freed network."""
    model, _ = write(tmp_path, "fp32", make_graph())
    with pytest.raises(CrashedError, match=signal.SIGSEGV.name):
        nvidia.call("build_with_recorder", model=model)


def test_a_hundred_builds_in_one_process(nvidia: Nvidia, tmp_path: Path, refused: bytes) -> None:
    """Engines are built, in all precisions and after errors, and their objects freed, without a crash or a leak."""
    graphs = [write(tmp_path, precision, make_graph(precision)) for precision in PRECISIONS]
    graphs.append(write(tmp_path, "refused", refused))
    outcome = nvidia.call("build_often", graphs=graphs, count=BUILDS)
    ends, memory_mb = outcome["ends"], outcome["memory_mb"]
    assert sorted(ends.values()) == [BUILDS // 4, BUILDS - BUILDS // 4]
    loads = next(text for text, count in ends.items() if count > BUILDS // 4)
    assert "cannot load the plan: error: " in loads  # after the build, for want of a driver
    assert "CUDA driver version is insufficient" in loads
    assert "What to do: run on a machine with an NVIDIA driver and GPU" in loads
    refusal = next(text for text, count in ends.items() if count == BUILDS // 4)
    assert 'the ONNX parser refuses the graph: node 0 "det" (Det): ' in refusal
    assert memory_mb[-1] - memory_mb[BUILDS // 4] < 20
