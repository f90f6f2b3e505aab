"""Random valid nets: torch and ONNX Runtime agree at odd and even sizes, and OpenCV where it knows the layers.

The sizes of all blobs are held to formulas of the generator's own (`random_graphs`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings

from atrous.converter import Net, export_onnx, read_net, reshape_net, run_blobs, to_torch
from atrous.converter.check.opencv_process import OpenCv, OpenCvError
from atrous.converter.export.dynamic_axes import find_dynamic_axes
from atrous.converter.export.onnx_export import value_names
from atrous.errors import NetError
from tools.opencv_limits import explain_difference
from tools.opencv_nets import difference, run_plain

from .random_graphs import RandomNet, random_nets

Arrays = dict[str, np.ndarray[Any, Any]]

#: largest absolute difference, relative to max(1, largest absolute value)
TOLERANCE = 1e-4
#: added to the drawn height and width: both odd and even sizes, larger and smaller
SIZE_CHANGES = ((0, 0), (1, 2), (-1, 3))

FAST = settings(
    derandomize=True,
    max_examples=40,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
LONG = settings(FAST, derandomize=False, max_examples=400)


def seed_weights(net: Net) -> dict[str, list[np.ndarray[Any, Any]]]:
    """Weights that keep values near 1: by fan-in, positive variances, slopes and scales around one."""
    random = np.random.default_rng(0)
    weights = {}
    for entry in net.layers:
        shapes = entry.operator.weight_shapes()
        if not shapes:
            continue
        if entry.type == "BatchNorm":
            arrays = [random.normal(0, 0.3, shapes[0]), random.uniform(0.5, 1.5, shapes[1]), np.ones(shapes[2])]
        elif entry.type in ("Scale", "PReLU"):
            arrays = [random.uniform(0.2, 1.2, shape) for shape in shapes]
        else:
            arrays = [random.normal(0, 1 / np.sqrt(max(1, np.prod(s[1:], dtype=int))), s) for s in shapes]
        weights[entry.name] = [array.astype(np.float32) for array in arrays]
    return weights


def read_drawn(drawn: RandomNet) -> Net:
    note(drawn.text)
    return read_net(drawn.text, seed_weights(read_net(drawn.text)))


def draw_input(net: Net, height: int, width: int) -> Arrays:
    random = np.random.default_rng(height * 100 + width)
    (blob,) = net.inputs
    return {blob.name: random.standard_normal((*blob.shape[:2], height, width)).astype(np.float32)}


def make_session(net: Net, module: Any) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    model = export_onnx(net, module, all_blobs=True).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def check_torch_against_onnx(drawn: RandomNet) -> None:
    net = read_drawn(drawn)
    for blob in net.blobs():
        if len(blob.shape) == 4 and blob.name in drawn.shapes:
            assert blob.shape == drawn.shapes[blob.name], blob.name
    module = to_torch(net)
    session = make_session(net, module)
    names = {key: value_names(net)[blob] for key, blob in net.recorded_tops() if blob.producer is not None}
    height, width = net.inputs[0].shape[2:]
    batch_varies, _, *plane_varies = find_dynamic_axes(net).of(net.inputs[0])
    assert batch_varies
    assert drawn.fixed or all(plane_varies)
    for grown, widened in SIZE_CHANGES:
        size = height + grown * plane_varies[0], width + widened * plane_varies[1]
        try:
            laid_out = reshape_net(net, {"data": (*net.inputs[0].shape[:2], *size)})
        except NetError:  # Caffe would refuse this size too
            continue
        if laid_out.parameter_shapes() != net.parameter_shapes():
            continue
        inputs = draw_input(net, *size)
        ours = run_blobs(module, inputs)
        values = session.run(list(names.values()), inputs)
        shapes = {key: blob.shape for key, blob in laid_out.recorded_tops()}
        for key, value in zip(names, values, strict=True):
            assert ours[key].shape == value.shape == shapes[key], (key, size)
            assert_close(ours[key], value, f"{key} at {size}")


def assert_close(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any], what: str) -> None:
    assert np.isfinite(left).all(), what
    scale = max(1.0, float(np.abs(left).max(initial=0.0)))
    np.testing.assert_allclose(left, right, rtol=0, atol=TOLERANCE * scale, err_msg=what)


@FAST
@given(random_nets())
def test_torch_and_onnx_agree_at_odd_and_even_sizes(drawn: RandomNet) -> None:
    check_torch_against_onnx(drawn)


@pytest.mark.conformance
@LONG
@given(random_nets(steps=16))
def test_torch_and_onnx_agree_on_many_nets(drawn: RandomNet) -> None:
    check_torch_against_onnx(drawn)


@pytest.fixture(scope="module")
def opencv() -> Iterator[OpenCv]:
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless<5 is not installed")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip(f"OpenCV {cv2.__version__} has no Caffe importer")
    with OpenCv() as process:
        yield process


def check_against_opencv(drawn: RandomNet, opencv: OpenCv, folder: Path) -> int:
    """Compare tops up to the first known error of OpenCV; returns the number of layers that agree."""
    net = read_drawn(drawn)
    inputs = draw_input(net, *net.inputs[0].shape[2:])
    ours = run_blobs(to_torch(net), inputs)
    try:
        run = run_plain(opencv, net, inputs | ours, folder, all_tops=True)
    except OpenCvError as error:
        if not error.why:  # neither a known limit nor a known error
            raise
        return 0
    agreeing = 0
    for key, top in run.tops.items():
        error, detail = difference(top, run.values[key], ours[key])
        if not error <= TOLERANCE:
            assert top.producer is not None
            assert explain_difference(top.producer), f"{key}: {detail}"
            break
        agreeing += 1
    return agreeing


@pytest.fixture
def compared() -> Iterator[list[int]]:
    """The number of equal tops of each net; the test proves little if OpenCV refuses most of them."""
    counts: list[int] = []
    yield counts
    assert sum(counts) > 4 * len(counts), counts


@FAST
@given(drawn=random_nets())
def test_opencv_agrees(drawn: RandomNet, opencv: OpenCv, tmp_path: Path, compared: list[int]) -> None:
    compared.append(check_against_opencv(drawn, opencv, tmp_path))


@pytest.mark.conformance
@LONG
@given(drawn=random_nets(steps=16))
def test_opencv_agrees_on_many_nets(drawn: RandomNet, opencv: OpenCv, tmp_path: Path, compared: list[int]) -> None:
    compared.append(check_against_opencv(drawn, opencv, tmp_path))
