"""The prototxt against the structure inside the caffemodel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atrous.converter import read_net
from atrous.converter.files.prototxt import read_prototxt
from atrous.converter.files.writer import write_caffemodel

NET = """
name: "pair"
input: "data" input_dim: 1 input_dim: 2 input_dim: 9 input_dim: 9
layers {{ name: "c" type: CONVOLUTION bottom: "data" top: "c" convolution_param {{
  num_output: 3 kernel_size: 3 pad: {hole} hole: {hole} weight_filler {{ type: "{filler}" }} }} }}
layers {{ name: "p" type: POOLING bottom: "c" top: "p" pooling_param {{ pool: {pool} kernel_size: 3 stride: 2 }} }}
"""


@pytest.fixture
def caffemodel(tmp_path: Path) -> Path:
    saved = read_prototxt(NET.format(hole=2, pool="MAX", filler="xavier")).net
    random = np.random.default_rng(0)
    blobs = {"c": [random.standard_normal((3, 2, 3, 3)).astype("f"), np.zeros((1, 1, 1, 3), "f")]}
    path = tmp_path / "pair.caffemodel"
    write_caffemodel(path, saved, blobs, format="V1", dialect="deeplab_v1")
    return path


def test_a_pair_that_agrees_gives_no_warning(caffemodel: Path) -> None:
    net = read_net(NET.format(hole=2, pool="MAX", filler="gaussian"), caffemodel)
    assert net.warnings == ()


def test_another_dilation_and_method_are_reported_with_both_values(caffemodel: Path) -> None:
    net = read_net(NET.format(hole=4, pool="AVE", filler="xavier"), caffemodel)
    (warning,) = net.warnings
    assert '"c" convolution_param.dilation: (4,) in the prototxt, (2,) in the weights file' in warning
    assert '"p" pooling_param.pool' in warning


def test_a_caffemodel_alone_is_read_by_the_structure_inside(caffemodel: Path) -> None:
    net = read_net(caffemodel)
    assert net.dialect == "deeplab_v1"
    assert [layer.name for layer in net.layers] == ["c", "p"]
    assert net.layers[0].operator.dilation == (2, 2)  # type: ignore[attr-defined]


def test_a_default_that_is_written_out_is_no_difference(caffemodel: Path) -> None:
    written = NET.format(hole=2, pool="MAX", filler="xavier").replace("num_output: 3", "num_output: 3 stride: 1")
    assert read_net(written, caffemodel).warnings == ()


def test_weights_without_structure_give_no_warning(tmp_path: Path) -> None:
    """Other tools write names, types and blobs only."""
    blobs = [np.zeros((3, 2, 3, 3), "f"), np.zeros(3, "f")]
    path = tmp_path / "bare.caffemodel"
    write_caffemodel(path, "bare", [("c", "Convolution", blobs), ("p", "Pooling", [])])
    text = NET.format(hole=2, pool="MAX", filler="xavier")
    assert read_net(text, path).warnings == ()
    write_caffemodel(path, "bare", [("c", "InnerProduct", blobs)])
    assert '"c" type: Convolution in the prototxt, InnerProduct in the weights file' in read_net(text, path).warnings[0]
