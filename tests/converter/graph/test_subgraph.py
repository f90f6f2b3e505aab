"""Cutting a net off after chosen blobs."""

from __future__ import annotations

import numpy as np
import torch

from atrous.converter import Net, read_net, reshape_net, run_blobs, to_torch
from atrous.converter.graph.net import Blob
from atrous.converter.graph.subgraph import cut_net

from ..nets import DEEPLAB, conv, data, layer, random_input, read_seeded, relu


def blob_of(net: Net, key: str) -> Blob:
    return dict(net.recorded_tops())[key]


def test_what_the_blob_needs_stays_and_the_rest_goes() -> None:
    text = data(1, 2, 8, 8) + data(1, 2, 8, 8, name="other") + conv("a", "data", "x", 3) + conv("b", "other", "y", 3)
    net = read_seeded(text + relu("r", "x") + layer("Eltwise", "e", ["x", "y"], "z"))
    cut = cut_net(net, [blob_of(net, "r:x")])
    assert [entry.name for entry in cut.layers] == ["a", "r"]
    assert [blob.name for blob in cut.inputs] == ["data"]
    assert [blob.name for blob in cut.outputs] == ["x"]
    assert {str(key) for key in cut.parameters} == {"a/0", "a/1"}


def test_cut_computes_what_the_net_computed() -> None:
    net = read_seeded(DEEPLAB)
    inputs = random_input(net)
    whole = run_blobs(to_torch(net), inputs)
    for key in ("conv2:conv2", "relu_conv2:conv2", "fc8:fc8"):
        cut = cut_net(net, [blob_of(net, key)])
        with torch.no_grad():
            found = to_torch(cut)(torch.from_numpy(inputs["data"])).numpy()
        np.testing.assert_array_equal(found, whole[key])


def test_several_outputs_in_the_requested_order_also_after_a_reshape() -> None:
    net = read_seeded(DEEPLAB)
    wanted = [blob_of(net, key) for key in ("fc8:fc8", "relu_conv2:conv2")]
    cut = cut_net(net, wanted)
    assert [(blob.name, blob.shape) for blob in cut.outputs] == [(blob.name, blob.shape) for blob in wanted]
    other = reshape_net(cut, {"data": (2, 3, 9, 9)})
    assert [(blob.name, blob.shape) for blob in other.outputs] == [("fc8", (2, 5, 2, 2)), ("conv2", (2, 8, 5, 5))]


def test_submodule_names_survive_a_cut_through_repeated_names() -> None:
    """With new numbers, the last layer would get the module of the first."""
    text = data(1, 2, 4, 4) + "".join(
        layer("Power", name, bottom, top, f"power_param {{ shift: {shift} }}")
        for name, bottom, top, shift in (("a.b", "data", "x", 1), ("a_b", "data", "y", 10), ("a_b", "y", "z", 100))
    )
    net = read_seeded(text)
    module = to_torch(net)
    cut = cut_net(net, [net.layers[2].tops[0]])
    assert [entry.attribute for entry in cut.layers] == ["a_b_2", "a_b_3"]
    assert [entry.attribute for entry in reshape_net(cut, {"data": (1, 2, 5, 5)}).layers] == ["a_b_2", "a_b_3"]
    x = torch.zeros(1, 2, 4, 4)
    for entry in cut.layers:
        x = module.get_submodule(entry.attribute)(x)
    assert x.unique().tolist() == [110]


def test_shared_parameter_whose_owner_is_cut_away() -> None:
    text = data(1, 2, 4, 4) + "".join(
        conv(name, "data", name, 2, 1, "bias_term: false", 'param { name: "w" }') for name in "abc"
    )
    net = read_seeded(text)
    cut = cut_net(net, [blob_of(net, "b:b"), blob_of(net, "c:c")])
    (key,) = cut.parameters
    assert str(key) == "b/0"
    assert np.shares_memory(cut.parameters[key], next(iter(net.parameters.values())))
    module = to_torch(cut)
    assert module.b.weight is module.c.weight


def test_in_place_through_shared_memory_stays_in_order() -> None:
    text = data(1, 2, 4, 4) + layer("Split", "s", "data", ["a", "b"])
    text += layer("Power", "w", "a", "a", "power_param { shift: 5 }") + relu("reader", "b", "y") + relu("z", "a", "z")
    net = read_seeded(text)
    cut = cut_net(net, [blob_of(net, "reader:y")])
    assert [entry.name for entry in cut.layers] == ["s", "w", "reader"]
    assert to_torch(cut)(torch.zeros(1, 2, 4, 4)).unique().tolist() == [5]


def test_cut_of_a_net_that_skips_unsupported_layers() -> None:
    text = data(1, 2, 4, 4) + layer("Mystery", "m", "data", "x") + relu("a", "data", "y") + conv("b", "y", "z", 3)
    net = read_net(text, tolerant=True)
    cut = cut_net(net, [blob_of(net, "a:y")])
    assert [entry.name for entry in cut.layers] == ["a"]
