"""Other roundings excuse ties and nothing else, on nets whose exact results are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from atrous.converter import read_net, run_blobs, to_torch
from tools.conditioning import Shaker, Spread
from tools.conformance import check_recording, measure_alone
from tools.recordings import Comparison, Recording, compare_blobs, find_recordings

from ..converter.nets import conv, data, layer, read_seeded, relu

TOLERANCE = 1e-4
#: two channels with nearly the same weights, then the index of the larger: a tie that float32 does not decide
TIE = (
    data(1, 8, 6, 6)
    + conv("twins", "data", "twins", 2, 3)
    + layer("ArgMax", "best", "twins", "best", "argmax_param { axis: 1 }")
    + layer("Pooling", "mean", "twins", "mean", "pooling_param { pool: AVE global_pooling: true }")
)


def weights_of_tie() -> dict[str, list[np.ndarray]]:
    kernel = np.random.default_rng(0).standard_normal((1, 8, 3, 3)).astype(np.float32)
    kernels = np.concatenate([kernel, kernel])
    kernels[1, 0] = np.nextafter(kernels[1, 0], np.float32(9))  # one last bit, on 9 of 72 weights
    return {"twins": [kernels, np.zeros(2, np.float32)]}


def make_recording(folder: Path, blobs: dict[str, np.ndarray]) -> Recording:
    """A recording with these blobs as Caffe's."""
    np.savez(folder / "blobs.npz", **blobs)
    return Recording(folder, "tiny", {"order": list(blobs)})


def test_a_tie_is_excused_and_its_neighbors_are_not(tmp_path: Path) -> None:
    module = to_torch(read_net(TIE, weights_of_tie()))
    inputs = {"data": np.random.default_rng(1).standard_normal((1, 8, 6, 6)).astype(np.float32)}
    blobs = run_blobs(module, inputs)
    flipped = blobs["best:best"].copy()
    flipped[0, 0, 1, 1] = 1 - flipped[0, 0, 1, 1]
    recording = make_recording(tmp_path, blobs | {"best:best": flipped})
    comparisons = compare_blobs(recording, blobs)
    assert max(comparison.error for comparison in comparisons) == 1
    spread = Spread(recording, module, inputs)
    assert spread.find_unexcused(comparisons, TOLERANCE) is None
    assert 0 < spread.values["twins:twins"] < 1e-6
    assert spread.values["best:best"] == 1
    wrong = [*comparisons, Comparison("mean:mean", 0.01)]  # an error that no rounding explains
    found = spread.find_unexcused(wrong, TOLERANCE)
    assert found is not None
    assert found.key == "mean:mean"


def test_another_shape_is_never_excused(tmp_path: Path) -> None:
    module = to_torch(read_net(TIE, weights_of_tie()))
    inputs = {"data": np.zeros((1, 8, 6, 6), np.float32)}
    spread = Spread(make_recording(tmp_path, run_blobs(module, inputs)), module, inputs)
    wrong = Comparison("best:best", np.inf, "shape (1, 1, 4, 4), recorded (1, 1, 5, 5)")
    assert spread.find_unexcused([wrong], TOLERANCE) == wrong


def test_numbers_that_no_program_rounds_stay() -> None:
    """Copies, maxima and masks are exact; a sum moves by about its rounding; the module is not modified."""
    text = (
        data(1, 3, 5, 5)
        + relu("positive", "data", "positive")
        + layer("Pooling", "pool", "positive", ["pool", "mask"], "pooling_param { kernel_size: 2 stride: 2 }")
        + conv("conv", "pool", "conv", 4)
        + layer("Softmax", "prob", "conv", "prob")
    )
    module = to_torch(read_seeded(text))
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 5, 5)).astype(np.float32))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    given = run_blobs(module, {"data": x.numpy()})
    shaker = Shaker(module, torch.Generator().manual_seed(0))
    with torch.no_grad():
        shaker.run(x)
    for key in ("positive:positive", "pool:pool", "pool:mask"):
        np.testing.assert_array_equal(shaker.blobs[key], given[key])
    for key in ("conv:conv", "prob:prob"):
        moved = np.abs(shaker.blobs[key] - given[key]).max()
        assert 0 < moved < 1e-5, key
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_wrong_weight_in_front_of_a_tie_is_found(tmp_path: Path) -> None:
    module = to_torch(read_net(TIE, weights_of_tie()))
    inputs = {"data": np.random.default_rng(1).standard_normal((1, 8, 6, 6)).astype(np.float32)}
    recording = make_recording(tmp_path, run_blobs(module, inputs))
    wrong = weights_of_tie()
    wrong["twins"][0][0, 3, 1, 1] += 0.01
    changed = to_torch(read_net(TIE, wrong))
    comparisons = compare_blobs(recording, run_blobs(changed, inputs))
    found = Spread(recording, changed, inputs).find_unexcused(comparisons, TOLERANCE)
    assert found is not None
    assert found.key == "twins:twins"


@pytest.mark.parametrize("case", ["conv-dilation", "bn-eps"])
def test_a_damaged_recording_is_not_excused(goldens: Path, case: str) -> None:
    (recording,) = find_recordings(goldens, "tiny", case)
    key = recording.compared_keys()[-1]
    recording.blobs[key] = recording.blobs[key] * np.float32(1.001)
    outcome = check_recording(recording, tolerance=1e-5)
    assert (outcome.torch, outcome.onnx) == ("failed", "failed")
    assert "other roundings move it by" in outcome.detail


def test_one_layer_alone(goldens: Path) -> None:
    """A layer that gets torch's bottoms shows its own error in ONNX Runtime, and not those of the layers before it."""
    (recording,) = find_recordings(goldens, "tiny", "ssd-detection")
    net, inputs = recording.read_net(), recording.inputs()
    module = to_torch(net)
    (key,) = (key for key, blob in net.recorded_tops() if blob.producer and blob.producer.type == "DetectionOutput")
    assert measure_alone(net, module, inputs, key) < 1e-6
    module.get_submodule(dict(net.recorded_tops())[key].producer.attribute).nms_threshold = 0.01  # type: ignore[union-attr, assignment]
    assert measure_alone(net, module, inputs, key) == np.inf
