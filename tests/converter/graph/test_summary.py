"""Shapes, parameters, multiply-adds, receptive fields: by hand, and measured on the net."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from atrous.converter import Net, read_net, to_torch
from atrous.converter.graph.summary import LayerSummary, summarize_layers

from ..nets import DEEPLAB, conv, data, layer, relu


def row(text: str, name: str) -> LayerSummary:
    return next(row for row in summarize_layers(read_net(text)) if row.name == name)


def test_convolution_by_hand() -> None:
    found = row(data(1, 3, 10, 12) + conv("c", "data", "y", 8, 3, "stride: 2 pad: 1"), "c")
    assert found.shapes == ((1, 8, 5, 6),)
    assert found.parameters == 8 * 3 * 9 + 8
    assert found.multiply_adds == 8 * 5 * 6 * 3 * 9
    assert (found.receptive_field, found.stride) == ((3, 3), (2, 2))
    assert found.line == 2


def test_groups_and_dilation_count() -> None:
    found = row(data(1, 4, 10, 10) + conv("c", "data", "y", 8, 3, "group: 2 dilation: 4 pad: 4"), "c")
    assert found.parameters == 8 * 2 * 9 + 8
    assert found.multiply_adds == 8 * 100 * 2 * 9
    assert found.receptive_field == (9, 9)


def test_deconvolution_by_hand() -> None:
    body = "convolution_param { num_output: 5 kernel_size: 4 stride: 2 }"
    found = row(data(1, 3, 6, 7) + layer("Deconvolution", "d", "data", "y", body), "d")
    assert found.shapes == ((1, 5, 14, 16),)
    assert found.multiply_adds == 6 * 7 * 3 * 5 * 16
    assert found.stride == (0.5, 0.5)
    assert found.receptive_field == (2, 2)


def test_inner_product_by_hand() -> None:
    found = row(
        data(2, 3, 4, 5) + layer("InnerProduct", "ip", "data", "y", "inner_product_param { num_output: 7 }"), "ip"
    )
    assert found.parameters == 7 * 60 + 7
    assert found.multiply_adds == 2 * 7 * 60


def test_shared_parameters_count_at_their_owner() -> None:
    text = data(1, 2, 6, 6) + "".join(conv(n, "data", n, 2, 3, "bias_term: false", 'param { name: "w" }') for n in "ab")
    rows = summarize_layers(read_net(text))
    assert [found.parameters for found in rows] == [36, 0]
    assert read_net(text).parameter_count() == 36


def test_vgg16_in_its_own_numbers() -> None:
    """138,357,544 parameters, 15.47 G multiply-adds, a field of 212 pixels at pool5 (Simonyan and Zisserman, 2014)."""
    text, bottom = data(1, 3, 224, 224), "data"
    for block, (count, outputs) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
        for index in range(1, count + 1):
            name = f"conv{block}_{index}"
            text += conv(name, bottom, name, outputs, 3, "pad: 1") + relu(f"relu{block}_{index}", name)
            bottom = name
        text += layer("Pooling", f"pool{block}", bottom, f"pool{block}", "pooling_param { kernel_size: 2 stride: 2 }")
        bottom = f"pool{block}"
    for name, outputs in (("fc6", 4096), ("fc7", 4096), ("fc8", 1000)):
        text += layer("InnerProduct", name, bottom, name, f"inner_product_param {{ num_output: {outputs} }}")
        bottom = name
    net = read_net(text)
    rows = {found.name: found for found in summarize_layers(net)}
    assert net.parameter_count() == sum(found.parameters for found in rows.values()) == 138_357_544
    assert sum(found.multiply_adds for found in rows.values()) == 15_470_264_320
    assert (rows["pool5"].receptive_field, rows["pool5"].stride) == ((212, 212), (32, 32))
    assert rows["conv5_3"].receptive_field == (196, 196)


def measured_field(net: Net, top: str) -> tuple[int, int]:
    """The numbers of input rows and columns that the middle pixel of a top depends on."""
    module = to_torch(net)
    for parameter in module.parameters():
        torch.nn.init.constant_(parameter, 0.01)
    x = torch.ones(net.inputs[0].shape, requires_grad=True)
    outputs = module(x)
    y = outputs[top] if isinstance(outputs, dict) else outputs
    y[0, 0, y.shape[2] // 2, y.shape[3] // 2].backward()
    assert x.grad is not None
    rows, columns = np.nonzero(x.grad[0].abs().sum(0).numpy())
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


CHAINS = {
    "dilated": [("c1", 3, "pad: 1"), ("c2", 3, "dilation: 2 pad: 2"), ("c3", 3, "dilation: 5 pad: 5")],
    "strided": [("c1", 5, "stride: 2 pad: 2"), ("c2", 3, "stride: 2 pad: 1"), ("c3", 3, "dilation: 3 pad: 3")],
    "uneven": [
        ("c1", 3, "stride_h: 2 stride_w: 1 pad: 1"),
        ("c2", 3, "stride_h: 1 stride_w: 3 pad: 1"),
        ("c3", 5, "pad: 2"),
    ],
}


@pytest.mark.parametrize("chain", CHAINS)
def test_receptive_field_is_what_gradients_reach(chain: str) -> None:
    text, bottom = data(1, 1, 81, 81), "data"
    for name, kernel, body in CHAINS[chain]:
        text, bottom = text + conv(name, bottom, name, 1, kernel, body), name
    net = read_net(text)
    assert summarize_layers(net)[-1].receptive_field == measured_field(net, "c3")


def test_branches_that_meet_have_the_larger_field_and_the_smaller_stride() -> None:
    text = data(1, 2, 9, 9) + conv("a", "data", "x", 2, 7, "pad: 3") + conv("b", "data", "y", 2, 3, "pad: 1")
    found = row(text + layer("Eltwise", "e", ["x", "y"], "z"), "e")
    assert found.receptive_field == (7, 7)


def test_rows_as_plain_data() -> None:
    found: dict[str, Any] = summarize_layers(read_net(DEEPLAB))[0].to_json()
    assert found == {
        "name": "conv1", "type": "Convolution", "line": 4, "shapes": [[1, 6, 41, 49]],
        "parameters": 168, "multiply_adds": 6 * 41 * 49 * 27, "receptive_field": [3.0, 3.0], "stride": [1.0, 1.0],
    }  # fmt: skip


def test_every_layer_has_a_row_in_order() -> None:
    net = read_net(DEEPLAB)
    assert [found.name for found in summarize_layers(net)] == [entry.name for entry in net.layers]
