"""Blobs into tensors: one copy, and the file's pages released."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atrous.converter import read_caffemodel, write_caffemodel
from atrous.converter.export.torch_parameters import copy_blob
from atrous.converter.graph.weights import CHUNK_ELEMENTS, release_pages

from ...processes import child_env


def test_values_go_over_row_major_whatever_the_shapes() -> None:
    blob = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tensor = torch.empty(6, 4)
    copy_blob(tensor, blob)
    assert tensor.flatten().tolist() == list(range(24))
    scalar = torch.empty(())
    copy_blob(scalar, np.full((1, 1, 1, 1), 7, np.float32))
    assert scalar.item() == 7


def test_more_than_one_piece() -> None:
    blob = np.arange(CHUNK_ELEMENTS + 3, dtype=np.float32)
    tensor = torch.empty(blob.size)
    copy_blob(tensor, blob)
    assert (tensor.numpy() == blob).all()


def test_parameters_that_want_gradients_are_filled_too() -> None:
    parameter = torch.nn.Parameter(torch.empty(3))
    copy_blob(parameter, np.ones(3, np.float32))
    assert parameter.tolist() == [1, 1, 1]


def test_counts_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) does not fill a tensor of shape \(7,\)"):
        copy_blob(torch.empty(7), np.zeros((2, 3), np.float32))


def resident_bytes(array: np.ndarray[Any, Any]) -> int:
    """Resident bytes of the mapping under an array, in this process."""
    address = array.__array_interface__["data"][0]
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head and not head.endswith(":"):
            start, stop = (int(part, 16) for part in head.split("-"))
            inside = start <= address < stop
        elif inside and head == "Rss:":
            return int(line.split()[1]) * 1024
    raise AssertionError("the array lies in no mapping")


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc/self/smaps")
@pytest.mark.parametrize("version", ["V1", "V2"])
def test_pages_of_a_caffemodel_are_released(tmp_path: Path, version: str) -> None:
    """With the views that the reader makes, at any alignment."""
    values = np.arange(4_000_001, dtype=np.float32)
    write_caffemodel(tmp_path / "w.caffemodel", "n", [("odd", "InnerProduct", [values])], format=version)
    source = read_caffemodel(tmp_path / "w.caffemodel")
    array = source.layers[0].blobs[0].array
    assert not array.flags.owndata
    assert float(array.sum(dtype=np.float64)) > 0
    assert resident_bytes(array) > 15_000_000
    release_pages(array)
    assert resident_bytes(array) < 1_000_000
    assert array[0, 0, 0, -1] == 4_000_000 if version == "V1" else array[-1] == 4_000_000


def test_ordinary_memory_is_left_alone(tmp_path: Path) -> None:
    array = np.ones(100_000, np.float32)
    release_pages(array)
    assert (array == 1).all()
    (tmp_path / "f").write_bytes(array.tobytes())
    with open(tmp_path / "f", "rb") as file:
        private = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    view = np.frombuffer(private, np.float32)
    assert view.sum() == 100_000


PEAK = """
import resource, sys
import torch
from atrous.converter import read_net, to_torch
def peak(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024
torch.nn.Conv2d(1, 1, 1)(torch.zeros(1, 1, 2, 2))
open("/proc/self/clear_refs", "w").write("5")
before = peak()
module = to_torch(read_net(sys.argv[1], sys.argv[2]))
after = peak()
weights = sum(p.numel() * 4 for p in module.parameters())
print(before, after, weights)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc/self/clear_refs")
def test_reading_82_mb_peaks_at_little_more_than_the_weights(tmp_path: Path) -> None:
    """DeepLab-LargeFOV's size: at most 1.3 times the weights above the interpreter with torch loaded."""
    widths = [(3, 64), (64, 512), (512, 512), (512, 512), (512, 512), (512, 1024), (1024, 1024), (1024, 21)]
    text = 'input: "x0" input_dim: 1 input_dim: 3 input_dim: 41 input_dim: 41\n'
    layers = []
    random = np.random.default_rng(0)
    for index, (inputs, outputs) in enumerate(widths):
        text += (
            f'layers {{ name: "c{index}" type: CONVOLUTION bottom: "x{index}" top: "x{index + 1}" '
            f"convolution_param {{ num_output: {outputs} kernel_size: 3 pad: 1 }} }}\n"
        )
        blobs = [random.random((outputs, inputs, 3, 3), np.float32), random.random(outputs, np.float32)]
        layers.append((f"c{index}", "Convolution", blobs))
    (tmp_path / "net.prototxt").write_text(text)
    write_caffemodel(tmp_path / "w.caffemodel", "n", layers, format="V1")
    assert (tmp_path / "w.caffemodel").stat().st_size > 80e6
    del layers, blobs
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "net.prototxt"), str(tmp_path / "w.caffemodel")],
        capture_output=True,
        text=True,
        check=False,
        env=child_env(OMP_NUM_THREADS="1"),
    )
    assert done.returncode == 0, done.stderr
    before, after, weights = map(int, done.stdout.split())
    assert weights > 80e6
    assert after - before < 1.3 * weights, (after - before) / weights
