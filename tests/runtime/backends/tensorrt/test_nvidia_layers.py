"""NVIDIA's parser and builder take every layer type that has an ONNX form, or the checks before a build refuse it."""

from __future__ import annotations

from pathlib import Path

from atrous.errors import ConverterError
from tools.nvidia_check.graphs import write_model
from tools.nvidia_check.harness import Nvidia
from tools.nvidia_check.sweep import SOUND, give_many
from tools.recordings import find_recordings

REFUSED = {
    "filter",
    "pool-mask",
    "seg-upsample-overlap",
    "ssd-detection",
    "ssd-detection-corner",
    "ssd-detection-none",
}


def test_nets_of_one_layer(nvidia: Nvidia, goldens: Path, tmp_path: Path) -> None:
    """The recorded nets of real Caffe, one behavior each, at their own sizes."""
    graphs = []
    for recording in find_recordings(goldens, "tiny"):
        try:
            net = recording.read_net()
            if not {blob.name for blob in net.inputs} & {blob.name for blob in net.outputs}:
                # NVIDIA's parser renames an input that is an output too; graphs to deploy have none
                graphs.append(write_model(net, tmp_path, recording.folder.name))
        except ConverterError:  # Caffe refuses it too, or it has no ONNX form
            continue
    given = give_many(nvidia, graphs)
    assert [(one.title, one.reason) for one in given if one.verdict not in SOUND] == []
    assert {one.title for one in given if one.verdict != "built"} == REFUSED
    assert len(given) > 200
