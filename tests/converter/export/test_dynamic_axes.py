"""Dynamic axes: the sizes that may change, found by building the net at other sizes."""

from __future__ import annotations

from atrous.converter import Net, read_net
from atrous.converter.export.dynamic_axes import find_dynamic_axes

from ..nets import DEEPLAB, conv, data, layer, relu


def sizes(net: Net) -> dict[str, list[str | int]]:
    axes = find_dynamic_axes(net)
    return {blob.name: axes.sizes(blob) for blob in net.blobs()}


def test_sizes_that_follow_the_input_have_its_names() -> None:
    found = sizes(read_net(DEEPLAB))
    assert found["data"] == ["batch", 3, "height", "width"]
    assert found["conv1"] == ["batch", 6, "height", "width"]
    assert found["pool1"] == ["batch", 6, "pool1_2", "pool1_3"]
    assert found["fc8"] == ["batch", 5, "fc8_2", "fc8_3"]
    # of 41 + 16 pixels come 57 scores, of 41 + 1 come 41 still: its own size, not the input's
    assert found["fc8_interp"] == ["batch", 5, "fc8_interp_2", "fc8_interp_3"]


def test_inner_product_fixes_height_and_width_but_not_the_batch() -> None:
    ip = layer("InnerProduct", "ip", "x", "y", "inner_product_param { num_output: 4 }")
    found = sizes(read_net(data(1, 3, 8, 8) + conv("c", "data", "x", 2) + ip))
    assert found == {"data": ["batch", 3, 8, 8], "x": ["batch", 2, 8, 8], "y": ["batch", 4]}


def test_sizes_that_rounding_hides_from_an_inner_product_are_not_taken() -> None:
    """7 and 8 columns both pool to the 4 that the weights are for; 9 do not."""
    pool = "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
    ip = layer("InnerProduct", "ip", "p", "y", "inner_product_param { num_output: 4 }")
    found = sizes(read_net(data(1, 3, 7, 7) + layer("Pooling", "p", "data", "p", pool) + ip))
    assert found == {"data": ["batch", 3, 7, 7], "p": ["batch", 3, 4, 4], "y": ["batch", 4]}


def test_reshape_to_numbers_fixes_all() -> None:
    reshape = "reshape_param { shape { dim: 2 dim: -1 dim: 8 } }"
    net = read_net(data(2, 3, 8, 8) + layer("Reshape", "r", "data", "y", reshape))
    found = sizes(net)
    assert found["data"] == ["batch", 3, "height", "width"]
    assert found["y"] == [2, "y_1", 8]
    half = read_net(data(1, 3, 4, 4) + layer("Reshape", "r", "data", "y", "reshape_param { shape { dim: 1 dim: 48 } }"))
    assert sizes(half)["data"] == [1, 3, 4, 4]


def test_batch_folded_into_another_axis_is_not_called_batch() -> None:
    net = read_net(data(1, 3, 4, 4) + layer("Reshape", "r", "data", "y", "reshape_param { shape { dim: -1 dim: 4 } }"))
    assert sizes(net)["y"] == ["y_0", 4]


def test_inputs_of_the_same_size_move_together() -> None:
    text = data(1, 3, 8, 8) + data(1, 3, 8, 8, name="other") + layer("Eltwise", "e", ["data", "other"], "y")
    found = sizes(read_net(text))
    assert found["data"] == found["other"] == found["y"] == ["batch", 3, "height", "width"]


def test_input_of_another_size_keeps_it() -> None:
    text = data(1, 3, 8, 8) + data(1, 1, 1, 2, name="data_dim") + relu("r", "data", "y") + relu("q", "data_dim", "z")
    assert sizes(read_net(text))["z"] == ["batch", 1, 1, 2]


def test_fixed_output_size() -> None:
    net = read_net(data(1, 3, 8, 8) + layer("Interp", "i", "data", "y", "interp_param { height: 5 width: 8 }"))
    assert sizes(net)["y"] == ["batch", 3, 5, 8]


def test_inputs_without_a_plane_have_a_batch_only() -> None:
    assert sizes(read_net(data(4, 10) + relu("r", "data", "y")))["y"] == ["batch", 10]
    assert sizes(read_net(data(2, 3, 4, 5, 6) + relu("r", "data", "y")))["y"] == ["batch", 3, 4, 5, 6]


def test_probing_leaves_the_net_as_it_was() -> None:
    net = read_net(DEEPLAB)
    before = [blob.shape for blob in net.blobs()]
    find_dynamic_axes(net)
    assert [blob.shape for blob in net.blobs()] == before
