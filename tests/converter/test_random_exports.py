"""Random nets exported with open sizes, up to a layer, and at a fixed size: torch, ONNX Runtime and OpenCV 5 agree."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.converter import Net, export_onnx, read_net, reshape_net, run_blobs, to_torch
from atrous.converter.check.opencv_process import INTERPRETER, OpenCv
from atrous.converter.export.deploy import export_deploy, fix_deployment, plan_deployment
from atrous.converter.export.dynamic_axes import find_dynamic_axes
from atrous.converter.graph.subgraph import choose_outputs
from atrous.errors import NetError

from .nets import conv, layer
from .random_graphs import RandomNet, random_nets
from .test_random_nets import FAST, SIZE_CHANGES, TOLERANCE, Arrays, assert_close, draw_input, read_drawn, seed_weights

MEAN = (104.0, 117.0, 123.0)


class Readers:
    """ONNX Runtime and, if there is one, OpenCV 5, on the same inputs."""

    def __init__(self, opencv: OpenCv | None) -> None:
        self._opencv = opencv
        self.counts: Counter[str] = Counter()

    def compare(
        self,
        what: str,
        content: bytes,
        inputs: Arrays,
        expected: Mapping[str, np.ndarray[Any, Any]],
        ties: Mapping[str, np.ndarray[Any, Any]] | None = None,
        in_opencv: bool = True,
    ) -> None:
        """Run the model and hold its outputs to torch's, but for the places of `ties`."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        found = {"ONNX Runtime": dict(zip(expected, session.run(list(expected), inputs), strict=True))}
        if self._opencv is not None and in_opencv:
            found["OpenCV 5"] = self._opencv.run_onnx(content, inputs, list(expected))
        for reader, outputs in found.items():
            for name, array in expected.items():
                assert outputs[name].shape == array.shape, f"{what}, {reader}, {name}"
                theirs = np.where(ties[name], array, outputs[name]) if ties and name in ties else outputs[name]
                assert_close(array, theirs, f"{what}, {reader}, {name}")
        self.counts[f"{what}, {' and '.join(found)}"] += 1


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    """With OpenCV 5 where $ATROUS_OPENCV names its Python."""
    python = os.environ.get(INTERPRETER)
    if not python:
        yield Readers(None)
        return
    with OpenCv(python) as opencv:
        assert opencv.version().startswith("5.")
        readers = Readers(opencv)
        yield readers
    print(dict(readers.counts))


def check_open_sizes(net: Net, readers: Readers) -> None:
    """The whole net, at its own size and at others."""
    module = to_torch(net)
    content = export_onnx(net, module).SerializeToString()
    height, width = net.inputs[0].shape[2:]
    varies = find_dynamic_axes(net).of(net.inputs[0])[2:]
    for grown, widened in SIZE_CHANGES[:2] if any(varies) else SIZE_CHANGES[:1]:
        size = height + grown * varies[0], width + widened * varies[1]
        try:
            laid_out = reshape_net(net, {"data": (*net.inputs[0].shape[:2], *size)})
        except NetError:  # Caffe would refuse this size too
            continue
        if laid_out.parameter_shapes() == net.parameter_shapes():
            inputs = draw_input(net, *size)
            compare_net(net, module, content, inputs, "open sizes", readers, not resizes_one_row(laid_out))


def resizes_one_row(net: Net) -> bool:
    """Whether a plane of one row or column is resized; with open sizes OpenCV 5 reads outside it then."""
    return any(layer.type == "Interp" and 1 in layer.bottoms[0].shape[2:] for layer in net.layers)


def compare_net(
    net: Net, module: Any, content: bytes, inputs: Arrays, what: str, readers: Readers, in_opencv: bool = True
) -> None:
    """All outputs of the net."""
    values = run_blobs(module, inputs)
    keys = {blob: key for key, blob in net.recorded_tops()} | {blob: blob.name for blob in net.inputs}
    values |= inputs
    ties = {}
    for blob in net.outputs:
        if blob.producer is not None and blob.producer.type == "ArgMax":
            ties[blob.name] = find_ties(values[keys[blob.producer.bottoms[0]]])
    expected = {blob.name: values[keys[blob]] for blob in net.outputs}
    readers.compare(what, content, inputs, expected, ties, in_opencv)


def find_ties(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Where the two largest channels are equal but for rounding (N, 1, H, W): there a label is not determined."""
    ordered = np.sort(scores, axis=1)
    if scores.shape[1] == 1:
        return np.zeros(scores.shape, bool)
    return ordered[:, -1:] - ordered[:, -2:-1] <= TOLERANCE * max(1.0, float(np.abs(scores).max()))


def check_until(net: Net, number: int, readers: Readers) -> None:
    """The net up to one of its layers."""
    part = choose_outputs(net, until=net.layers[number % len(net.layers)].name)
    module = to_torch(part)
    inputs = draw_input(net, *net.inputs[0].shape[2:])
    content = export_onnx(part, module).SerializeToString()
    compare_net(part, module, content, inputs, "until", readers, not resizes_one_row(part))


def check_fixed(drawn: RandomNet, readers: Readers) -> None:
    """deploy.onnx at one size, for the scores that a convolution makes of the last plane, resized to the image."""
    height, width = read_net(drawn.text).inputs[0].shape[2:]
    text = drawn.text + conv("classes", list(drawn.shapes)[-1], "classes", 3, 1)
    text += layer("Interp", "resized", "classes", "resized", f"interp_param {{ height: {height} width: {width} }}")
    net = choose_outputs(read_net(text, seed_weights(read_net(text))), outputs=("resized",))
    plan = fix_deployment(plan_deployment(net), (height, width), batch=2)
    module = to_torch(plan.net)
    content = export_deploy(plan, module, mean=MEAN, scale=0.02).SerializeToString()
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    prepared = (images[..., ::-1].astype(np.float32) - np.float32(MEAN)) * np.float32(0.02)
    values = run_blobs(module, {"data": np.ascontiguousarray(prepared.transpose(0, 3, 1, 2))})
    (scores,) = (values[key] for key, blob in plan.net.recorded_tops() if blob == plan.scores)
    readers.compare("fixed", content, {"image": images}, {"scores": scores})


def check_exports(drawn: RandomNet, number: int, readers: Readers) -> None:
    net = read_drawn(drawn)
    check_open_sizes(net, readers)
    check_until(net, number, readers)
    check_fixed(drawn, readers)


@settings(FAST, max_examples=30)
@given(drawn=random_nets(channels=3), number=st.integers(0, 99))
def test_exports_agree(drawn: RandomNet, number: int, readers: Readers) -> None:
    check_exports(drawn, number, readers)


@pytest.mark.conformance
@settings(FAST, derandomize=False, max_examples=1000)
@given(drawn=random_nets(steps=16, channels=3), number=st.integers(0, 99))
def test_exports_of_many_nets_agree(drawn: RandomNet, number: int, readers: Readers) -> None:
    check_exports(drawn, number, readers)
