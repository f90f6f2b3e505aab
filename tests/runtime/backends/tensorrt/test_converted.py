"""Every TensorRT line accepts what the converter writes, for all heads."""

from __future__ import annotations

import pytest

from atrous.bundle.folder import read_bundle
from atrous.bundle.manifest import GraphFacts
from atrous.runtime.backends.tensorrt.capabilities import LINES
from atrous.runtime.backends.tensorrt.options import BuildOptions, static_profile
from atrous.runtime.backends.tensorrt.plan import plan_build
from atrous.runtime.backends.tensorrt.preflight import check_graph

from ...converted import HEADS, write_converted

pytest.importorskip("torch", reason="the converter needs torch")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GraphFacts]:
    """The facts about one net's deploy graphs by head."""
    written = write_converted(tmp_path_factory.mktemp("converted"))
    return {head: read_bundle(folder).graph_facts() for head, folder in written.items()}


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("head", HEADS)
def test_every_head_on_every_line(graphs: dict[str, GraphFacts], head: str, line: str) -> None:
    graph = graphs[head]
    warnings = ["ArgMax is slow in TensorRT"] if head == "labels" else []
    assert [finding.problem for finding in check_graph(graph, LINES[line])] == warnings
    assert graph.inputs["image"].type == "uint8"
    plan = plan_build(BuildOptions((static_profile({"image": (1, 33, 49, 3)}),)), LINES[line], graph)
    assert plan.precision == "fp32"
