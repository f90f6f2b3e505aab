"""Every TensorRT line accepts what the converter writes, for all heads."""

from __future__ import annotations

import pytest

from atrous.runtime.backends.tensorrt.capabilities import LINES
from atrous.runtime.backends.tensorrt.onnx_reader import read_facts
from atrous.runtime.backends.tensorrt.options import BuildOptions, static_profile
from atrous.runtime.backends.tensorrt.plan import plan_build
from atrous.runtime.backends.tensorrt.preflight import check_graph

from ...converted import HEADS, write_converted

pytest.importorskip("torch", reason="the converter needs torch")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The deploy graphs of one net by head."""
    written = write_converted(tmp_path_factory.mktemp("converted"))
    return {head: (folder / "deploy.onnx").read_bytes() for head, folder in written.items()}


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("head", HEADS)
def test_every_head_on_every_line(models: dict[str, bytes], head: str, line: str) -> None:
    graph = read_facts(models[head])
    warnings = ["ArgMax is slow in TensorRT"] if head == "labels" else []
    assert [finding.problem for finding in check_graph(graph, LINES[line])] == warnings
    assert graph.inputs["image"][0] == "uint8"
    plan = plan_build(BuildOptions((static_profile({"image": (1, 33, 49, 3)}),)), LINES[line], graph)
    assert plan.precision == "fp32"
