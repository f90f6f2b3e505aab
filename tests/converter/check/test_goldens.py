"""The tiny recordings of real Caffe (`tests/goldens`), blob by blob, in torch and in ONNX Runtime."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from atrous.converter import export_onnx, reshape_net, run_blobs, to_torch
from atrous.converter.check.compare import measure_difference
from atrous.converter.export.dynamic_axes import find_dynamic_axes
from atrous.converter.export.onnx_export import value_names
from atrous.converter.files.text_parser import parse_text
from atrous.errors import NetError
from tools.conformance import check_recording
from tools.recordings import Recording, find_recordings
from tools.write_goldens import pack

from ...conftest import GOLDENS
from ..export.test_onnx_export import run_onnx

#: tighter than the 1e-4 of whole nets: pooling masks and indices up to 100,000 must be exact
TOLERANCE = 1e-5
CASES = json.loads((GOLDENS / "cases.json").read_text())
REFUSED = [case for case, facts in CASES.items() if "expected_error" in facts]
NO_ONNX_FORM = {
    "crf-meanfield": "MultiStageMeanfield",
    "dl1-crf": "DenseCRF",
    "dl2-crf": "DenseCRF",
    "dl2-crf-log": "DenseCRF",
    "dl2-domaintransform": "DomainTransform",
}


def find(goldens: Path, case: str) -> Recording:
    (recording,) = find_recordings(goldens, "tiny", case)
    return recording


def test_no_case_is_missing() -> None:
    assert (len(CASES), len(REFUSED)) == (261, 35)
    forks = Counter(facts["fork"] for facts in CASES.values())
    assert forks == {
        "bvlc": 200,
        "deeplab_v1": 28,
        "deeplab_v2": 12,
        "ssd": 9,
        "segnet": 6,
        "crfasrnn": 4,
        "pspnet": 2,
    }


@pytest.mark.parametrize("case", [case for case in CASES if case not in REFUSED])
def test_equal_to_caffe(goldens: Path, case: str) -> None:
    recording = find(goldens, case)
    assert recording.compared_keys()
    outcome = check_recording(recording, tolerance=TOLERANCE)
    assert outcome.torch == "passed", outcome.detail
    if case in NO_ONNX_FORM:
        assert outcome.onnx == "refused"
        assert f"{NO_ONNX_FORM[case]} has no ONNX form" in outcome.detail
    else:
        assert outcome.onnx == "passed", outcome.detail


@pytest.mark.parametrize("case", REFUSED)
def test_refused_like_caffe(goldens: Path, case: str) -> None:
    outcome = check_recording(find(goldens, case))
    assert outcome.torch == "refused", f"{outcome.detail}; Caffe's message: {CASES[case]['expected_error']}"
    assert outcome.detail


@pytest.mark.parametrize("case", [case for case in CASES if case not in REFUSED and case not in NO_ONNX_FORM])
def test_other_sizes(goldens: Path, case: str) -> None:
    """Real Caffe recorded one size; at other sizes torch and ONNX Runtime, implemented separately, must agree."""
    recording = find(goldens, case)
    net = recording.read_net()
    axes = find_dynamic_axes(net)
    symbols = {name for blob in net.inputs for name in axes.names(blob) if name is not None}
    if not symbols:
        pytest.skip("the net takes one size only")
    module = to_torch(net)
    model = export_onnx(net, module, all_blobs=True)
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
            other = reshape_net(net, shapes)
        except NetError:
            continue
        if other.parameter_shapes() != net.parameter_shapes():
            continue
        inputs = _make_inputs(recording, shapes)
        blobs, values = run_blobs(module, inputs), run_onnx(model, inputs)
        for (key, blob), (_, sized) in zip(net.recorded_tops(), other.recorded_tops(), strict=True):
            if blob.producer is None:
                continue
            if blob.producer.type not in ("Filter", "DetectionOutput"):  # their sizes depend on the values
                assert blobs[key].shape == sized.shape, key
            error = measure_difference(values[names[blob]], blobs[key])
            assert error <= TOLERANCE, (key, error, shapes)
        compared += 1
    assert compared, "dynamic axes, but no other size could be run"


def _make_inputs(recording: Recording, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The recorded values, repeated to fill other shapes, so that indices stay valid indices."""
    recorded = recording.inputs()
    return {name: np.resize(recorded[name], shape).astype(np.float32) for name, shape in shapes.items()}


def test_the_folder_is_a_copy_of_the_recordings(shared_dir: Path, goldens: Path, tmp_path: Path) -> None:
    """If this fails, the recordings or their form changed: run tools/write_goldens.py again."""
    originals = list(find_recordings(shared_dir, "tiny"))
    pack(originals, tmp_path)
    texts = {path.name: path.read_text() for path in (tmp_path / "nets").iterdir()}
    assert texts == {path.name: path.read_text() for path in (GOLDENS / "nets").iterdir()}
    assert (tmp_path / "cases.json").read_text() == (GOLDENS / "cases.json").read_text()
    for original, copy in zip(originals, find_recordings(goldens, "tiny"), strict=True):
        assert original.blobs.keys() == copy.blobs.keys()
        for key, blob in original.blobs.items():
            np.testing.assert_array_equal(copy.blobs[key], blob, err_msg=f"{copy.name} {key}")
        if copy.folder.name != "bad-text-unclosed":
            messages = [parse_text(each.prototxt.read_text(), "NetParameter").message for each in (original, copy)]
            assert messages[0] == messages[1], copy.name
        if original.weights():
            assert copy.weights().read_bytes() == original.weights().read_bytes()
