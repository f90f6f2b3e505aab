"""Random nets of every layer family: raised, folded and typed, they stay valid and compute what they computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from hypothesis import HealthCheck, given, settings

from atrous.converter import export_onnx, read_net, to_torch
from atrous.converter.precision.cast import cast_graph
from atrous.converter.precision.compare import emulate
from atrous.converter.precision.float_types import BFLOAT16, FLOAT16
from atrous.converter.precision.graph import fold_norms, raise_opset, read_opset
from atrous.converter.precision.rules import WEIGHTED

from ..random_graphs import RandomNet, random_nets
from ..test_random_nets import seed_weights

Arrays = dict[str, np.ndarray[Any, Any]]
FAST = settings(
    derandomize=True, max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def compute(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def differ(ours: Arrays, theirs: Arrays) -> float:
    """The mean absolute difference over the largest value, of the worst output."""
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert (ours[name].shape, ours[name].dtype) == (theirs[name].shape, theirs[name].dtype)
    return max(
        float(np.abs(ours[name] - theirs[name]).mean() / max(1.0, np.abs(ours[name]).max())) for name in ours
    )  # fmt: skip


@FAST
@given(random_nets())
def test_random_nets(drawn: RandomNet) -> None:
    bare = read_net(drawn.text)
    net = read_net(drawn.text, seed_weights(bare))
    model = export_onnx(net, to_torch(net))
    random = np.random.default_rng(1)
    inputs = {blob.name: random.standard_normal(blob.shape).astype(np.float32) for blob in net.inputs}
    exact = compute(model, inputs)
    raised = raise_opset(model, 22)
    assert read_opset(raised) == 22
    assert differ(exact, compute(raised, inputs)) < 1e-5
    assert differ(exact, compute(fold_norms(model), inputs)) < 1e-5
    for kind, tolerance in ((FLOAT16, 0.01), (BFLOAT16, 0.06)):
        if not any(node.op_type in WEIGHTED for node in model.graph.node):
            continue
        typed = cast_graph(model, kind)
        assert differ(exact, compute(emulate(typed.model), inputs)) < tolerance
