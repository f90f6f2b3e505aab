"""Recordings of real Caffe, blob by blob, in torch and in ONNX Runtime; nothing is left out by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atrous.converter import export_onnx, read_net, run_blobs, to_torch
from atrous.converter.check.compare import measure_difference
from atrous.converter.export.dynamic_axes import find_dynamic_axes
from atrous.converter.export.onnx_export import value_names
from atrous.errors import ExportError, NetError, WeightsError
from tools.conformance import TOLERANCE, check_recording
from tools.recordings import Recording, find_recordings

from ...conftest import find_shared
from ..export.test_onnx_export import run_onnx

#: of nets with random weights, some magnify every rounding (`scripts.conditioning`)
EQUAL = ("passed", "conditioned")
#: goldens/README.md: suggested for one layer; makes masks and indices exact up to 100,000
TINY_TOLERANCE = 1e-5


def recordings(kind: str) -> list[object]:
    """The recordings of one kind as parameters; one that skips where there are none."""
    shared = find_shared()
    found = list(find_recordings(shared, kind)) if shared else []
    if not found:
        reason = "the recordings of real Caffe are not beside this checkout (set ATROUS_SHARED)"
        return [pytest.param(None, id=f"no-{kind}", marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(recording, id=recording.folder.name) for recording in found]


def check(recording: Recording, tolerance: float) -> None:
    outcome = check_recording(recording, tolerance=tolerance)
    if recording.expected_error is not None:
        assert outcome.torch == "refused", f"{outcome.detail}; that Caffe said: {recording.expected_error}"
        assert outcome.detail
        return
    assert recording.compared_keys()
    equal = EQUAL if recording.kind == "nets" else ("passed",)
    assert outcome.torch in equal, outcome.detail
    assert outcome.onnx in (*equal, "refused"), outcome.detail
    if outcome.onnx == "refused" and outcome.torch == "passed":
        assert "has no ONNX form" in outcome.detail


@pytest.mark.parametrize("recording", recordings("tiny"))
def test_tiny(recording: Recording) -> None:
    check(recording, TINY_TOLERANCE)


@pytest.mark.parametrize("recording", recordings("tiny"))
def test_tiny_at_other_sizes(recording: Recording) -> None:
    """Real Caffe recorded one size; at others torch and ONNX Runtime, written apart, must agree."""
    if recording.expected_error is not None:
        pytest.skip("real Caffe refuses this file")
    net = read_net(
        recording.prototxt,
        recording.weights(),
        phase=recording.case.get("phase", "TEST"),
        level=recording.case.get("level", 0),
        stages=recording.case.get("stages", ()),
        dialect=recording.case["fork"],
        input_shapes=recording.shapes,
    )
    axes = find_dynamic_axes(net)
    symbols = {name for blob in net.inputs for name in axes.names(blob) if name is not None}
    if not symbols:
        pytest.skip("the net takes one size only")
    module = to_torch(net)
    try:
        model = export_onnx(net, module, all_blobs=True)
    except ExportError as error:
        pytest.skip(str(error))
    names, compared = value_names(net), 0
    for growth in ({"batch": 2}, {"height": 1, "width": 3}, {"batch": 1, "height": 16}):
        shapes = {
            blob.name: tuple(
                size + growth.get(name or "", 0) for name, size in zip(axes.names(blob), blob.shape, strict=True)
            )
            for blob in net.inputs
        }
        if symbols.isdisjoint(growth):
            continue
        try:
            other = net.reshape(shapes)
        except NetError:
            continue
        if other.parameter_shapes() != net.parameter_shapes():
            continue
        inputs = _make_inputs(recording, shapes)
        blobs, values = run_blobs(module, inputs), run_onnx(model, inputs)
        for (key, blob), (_, sized) in zip(net.recorded_tops(), other.recorded_tops(), strict=True):
            if blob.producer is None:
                continue
            if blob.producer.type != "Filter":  # whose size depends on the values
                assert blobs[key].shape == sized.shape, key
            error = measure_difference(values[names[id(blob)]], blobs[key])
            assert error <= TINY_TOLERANCE, (key, error, shapes)
        compared += 1
    assert compared, "a dynamic axis, and yet no other size was taken"


def _make_inputs(recording: Recording, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The recorded values, repeated to fill other shapes: whole numbers where the net wants indices stay so."""
    recorded = recording.inputs()
    return {name: np.resize(recorded[name], shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.conformance
@pytest.mark.parametrize("recording", [*recordings("nets"), *recordings("real")])
def test_whole_nets(recording: Recording) -> None:
    check(recording, TOLERANCE)


@pytest.mark.parametrize("recording", recordings("real"))
def test_real_weights_belong_to_their_net_only(recording: Recording, shared_dir: Path) -> None:
    """Every trained caffemodel is refused for DeepLab's prototxt, in one line."""
    deeplab = shared_dir / "corpus" / "deeplabv1-largefov" / "test_1.prototxt"
    if not deeplab.exists():
        pytest.skip("no DeepLab prototxt beside the recordings")
    with pytest.raises(WeightsError, match="does not hold the weights of this net") as caught:
        read_net(deeplab, recording.weights(), variables={"NUM_LABELS": "21"})
    assert "\n" not in str(caught.value)
