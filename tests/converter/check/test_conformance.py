"""Published nets as real Caffe computed them, blob by blob, in torch and in ONNX Runtime; no case is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from atrous.converter import read_net
from atrous.errors import WeightsError
from tools.conformance import TOLERANCE, check_recording
from tools.recordings import Recording, find_recordings

from ...conftest import find_shared

#: some nets with random weights magnify every rounding (`tools.conditioning`)
EQUAL = ("passed", "conditioned")


def recordings(kind: str) -> list[object]:
    """The recordings of one kind as parameters; a single one that skips if there are none."""
    shared = find_shared()
    found = list(find_recordings(shared, kind)) if shared else []
    if not found:
        reason = "the full recordings of real Caffe are not available; set ATROUS_SHARED to their folder"
        return [pytest.param(None, id=f"no-{kind}", marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(recording, id=recording.folder.name) for recording in found]


@pytest.mark.conformance
@pytest.mark.parametrize("recording", [*recordings("nets"), *recordings("real")])
def test_whole_nets(recording: Recording) -> None:
    outcome = check_recording(recording, tolerance=TOLERANCE)
    assert recording.compared_keys()
    equal = EQUAL if recording.kind == "nets" else ("passed",)
    assert outcome.torch in equal, outcome.detail
    assert outcome.onnx in (*equal, "refused"), outcome.detail
    if outcome.onnx == "refused" and outcome.torch == "passed":
        assert "has no ONNX form" in outcome.detail


@pytest.mark.parametrize("recording", recordings("real"))
def test_real_weights_belong_to_their_net_only(recording: Recording, shared_dir: Path) -> None:
    """Every trained caffemodel is refused for DeepLab's prototxt, in one line."""
    deeplab = shared_dir / "corpus" / "deeplabv1-largefov" / "test_1.prototxt"
    if not deeplab.exists():
        pytest.skip("no DeepLab prototxt beside the recordings")
    with pytest.raises(WeightsError, match="does not hold the weights of this net") as caught:
        read_net(deeplab, recording.weights(), variables={"NUM_LABELS": "21"})
    assert "\n" not in str(caught.value)
