"""Matching a weights file to a net, by the rules numbered in weights.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from atrous.converter import Net, read_net, to_torch
from atrous.converter.graph.net import ParameterKey
from atrous.converter.graph.weights import match_weights
from atrous.errors import WeightsError

from ..nets import conv, data, layer, random_weights, relu

Array = np.ndarray[Any, Any]
NET = data(1, 3, 8, 8) + conv("conv1", "data", "x", 4, 3) + relu("r", "x") + conv("conv2", "x", "y", 2)


def numbers(*shape: int, start: int = 0) -> Array:
    return np.arange(start, start + int(np.prod(shape)), dtype=np.float32).reshape(shape)


def whole() -> dict[str, list[Array]]:
    return {
        "conv1": [numbers(4, 3, 3, 3), numbers(4)],
        "conv2": [numbers(2, 4, 1, 1), numbers(2)],
    }


def array_of(net: Net, attribute: str, index: int = 0) -> Array:
    return net.parameters[ParameterKey(attribute, index)]


def test_arrays_are_taken_as_they_are() -> None:
    weights = whole()
    net = read_net(NET, weights)
    assert {str(key) for key in net.parameters} == {"conv1/0", "conv1/1", "conv2/0", "conv2/1"}
    assert np.shares_memory(array_of(net, "conv1"), weights["conv1"][0])
    assert net.warnings == ()


# ---- rule 1


def test_layers_the_net_lacks_are_reported() -> None:
    net = read_net(NET, whole() | {"fc8": [numbers(2, 2)], "empty": []})
    assert net.warnings == ("the given mapping holds 1 layer(s) the net does not have, ignored as Caffe does: fc8",)


def test_weights_of_dropped_layers_are_not_reported() -> None:
    """A loss or a layer of the other phase is known, so its blobs in the file are not reported."""
    text = NET + conv("aux", "x", "aux", 2, extra="include { phase: TRAIN }")
    assert read_net(text, whole() | {"aux": [numbers(2, 4, 1, 1)]}).warnings == ()


def test_first_layer_of_a_repeated_name_takes_the_blobs() -> None:
    text = data(1, 3, 8, 8) + relu("same", "data", "x") + conv("same", "x", "y", 2)
    with pytest.raises(WeightsError, match=r'"same": the file has 2 blob\(s\), the net has 0'):
        read_net(text, {"same": [numbers(2, 3, 1, 1), numbers(2)]})
    text = data(1, 3, 8, 8) + conv("same", "data", "x", 2) + conv("same", "x", "y", 2)
    with pytest.raises(WeightsError, match='"same": a layer before it has the same name'):
        read_net(text, {"same": [numbers(2, 3, 1, 1), numbers(2)]})


# ---- rule 2


@pytest.mark.parametrize(
    ("blobs", "complaint"),
    [
        ([numbers(4, 3, 3, 3)], r"the file has 1 blob\(s\), the net has 2"),
        ([numbers(4, 3, 3, 3), numbers(4), numbers(1)], r"the file has 3 blob\(s\), the net has 2"),
        ([numbers(4, 3, 5, 5), numbers(4)], r"blob 0 has shape \(4, 3, 5, 5\) in the file, \(4, 3, 3, 3\) in the net"),
        ([numbers(4, 3, 3, 3), numbers(5)], r"blob 1 has shape \(5,\) in the file, \(4,\) in the net"),
        ([numbers(3, 4, 3, 3), numbers(4)], r"blob 0 has shape \(3, 4, 3, 3\)"),
        ([numbers(4, 27), numbers(4)], r"blob 0 has shape \(4, 27\)"),
    ],
)
def test_misshapen_blobs(blobs: list[Array], complaint: str) -> None:
    with pytest.raises(WeightsError, match=complaint) as caught:
        read_net(NET, whole() | {"conv1": blobs})
    assert [name for name, _ in caught.value.problems] == ["conv1"]


def test_shapes_fit_where_ones_are_all_that_differs() -> None:
    text = data(1, 6) + layer("InnerProduct", "ip", "data", "y", "inner_product_param { num_output: 4 }")
    legacy = read_net(text, {"ip": [numbers(1, 1, 4, 6), numbers(1, 1, 1, 4)]})
    assert array_of(legacy, "ip").shape == (4, 6)
    assert (array_of(legacy, "ip") == numbers(4, 6)).all()
    assert array_of(legacy, "ip", 1).shape == (4,)
    other = read_net(text, {"ip": [numbers(4, 6, 1, 1), numbers(1, 4, 1, 1)]})
    assert (array_of(other, "ip") == numbers(4, 6)).all()
    with pytest.raises(WeightsError, match=r"\(1, 6, 4, 1\)"):
        read_net(text, {"ip": [numbers(1, 6, 4, 1), numbers(4)]})


# ---- rule 3


def test_strict_dim_false_asks_for_the_count_only() -> None:
    """DeepLab v1 turns VGG's fc6 into a convolution this way."""
    text = (
        'input: "data" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 3\n'
        'layers { name: "fc6" type: CONVOLUTION bottom: "data" top: "y" strict_dim: false\n'
        "  convolution_param { num_output: 4 kernel_size: 3 hole: 1 } }\n"
    )
    flat = [numbers(1, 1, 4, 18), numbers(1, 1, 1, 4)]
    net = read_net(text, {"fc6": flat})
    assert (array_of(net, "fc6") == numbers(4, 2, 3, 3)).all()
    with pytest.raises(WeightsError, match=r"\(1, 1, 4, 18\) in the file, \(4, 2, 3, 3\)"):
        read_net(text.replace("strict_dim: false", ""), {"fc6": flat})
    with pytest.raises(WeightsError, match=r"\(1, 1, 4, 19\)"):
        read_net(text, {"fc6": [numbers(1, 1, 4, 19), numbers(1, 1, 1, 4)]})


# ---- rule 4

SHARED = data(1, 3, 8, 8) + "".join(
    conv(name, "data", name, 4, 3, "bias_term: false", 'param { name: "w" }') for name in ("a", "b", "c")
)


def test_last_copy_of_a_shared_blob_wins() -> None:
    copies = {name: [numbers(4, 3, 3, 3, start=1000 * index)] for index, name in enumerate("acb")}
    net = read_net(SHARED, copies)
    assert list(map(str, net.parameters)) == ["a/0"]
    assert array_of(net, "a").flat[0] == 2000  # that of "b", the last in the file


def test_one_copy_of_a_shared_blob_is_enough() -> None:
    assert array_of(read_net(SHARED, {"c": [numbers(4, 3, 3, 3)]}), "a").flat[5] == 5


def test_blobs_by_index_may_leave_out_shared_ones() -> None:
    """HDF5 files contain a shared blob once, at its owner."""
    text = data(1, 3, 8, 8) + "".join(
        conv(name, "data", name, 4, 3, extra=f'param {{ name: "w" }} param {{ name: "b_{name}" }}') for name in "ab"
    )
    net = read_net(text)
    own = {0: numbers(4, 3, 3, 3), 1: numbers(4)}
    matched = match_weights(net, [("a", own), ("b", {1: numbers(4, start=7)})], source="w.h5")
    assert {str(key) for key in matched.parameters} == {"a/0", "a/1", "b/1"}
    with pytest.raises(WeightsError, match=r'w.h5 .*"b": the file has 1 blob\(s\), the net has 2'):
        match_weights(net, [("a", own), ("b", {0: numbers(4, 3, 3, 3)})], source="w.h5")
    with pytest.raises(WeightsError, match=r'"a": the file has 1 blob\(s\), the net has 2'):
        match_weights(net, [("a", {1: numbers(4)}), ("b", own)], source="w.h5")
    with pytest.raises(WeightsError, match=r'"a": the file has 3 blob\(s\), the net has 2'):
        match_weights(net, [("a", own | {5: numbers(4)})], source="w.h5")


# ---- rule 5


def test_missing_layer_with_the_nearest_name_in_the_file() -> None:
    weights = whole()
    weights["conv_2"] = weights.pop("conv2")
    with pytest.raises(WeightsError, match=r'"conv2": the file has no blobs of this name; it has "conv_2"'):
        read_net(NET, weights)


def test_empty_layer_is_a_missing_one() -> None:
    with pytest.raises(WeightsError, match='"conv2": the file has no blobs of this name'):
        read_net(NET, whole() | {"conv2": []})


def test_weights_of_another_net_are_one_line() -> None:
    layers = [(f"conv{index}", f"conv{index - 1}" if index else "data") for index in range(9)]
    text = data(1, 3, 8, 8) + "".join(conv(name, bottom, name, 3) for name, bottom in layers)
    with pytest.raises(WeightsError) as caught:
        read_net(text, {"fc1": [numbers(3, 3)]})
    message = str(caught.value)
    assert "\n" not in message
    assert "does not hold the weights of this net: 9 layer(s) disagree" in message
    assert "and 6 more" in message
    assert message.endswith("give the prototxt these weights were trained with")
    assert len(caught.value.problems) == 9
    assert caught.value.exit_code == 2


# ---- numbers


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_other_number_types_become_float32(dtype: Any) -> None:
    weights = whole()
    weights["conv2"][0] = weights["conv2"][0].astype(dtype)
    net = read_net(NET, weights)
    assert array_of(net, "conv2").dtype == np.float32
    assert (array_of(net, "conv2") == numbers(2, 4, 1, 1)).all()


def test_random_weights_of_the_tests_fit() -> None:
    net = read_net(NET)
    assert read_net(NET, random_weights(net)).parameter_shapes() == net.parameter_shapes()


def test_nan_and_infinite_weights_are_named_by_layer_and_blob() -> None:
    text = data(1, 3, 4, 4) + conv("a", "data", "x", 2) + conv("b", "x", "y", 2)
    weights = random_weights(read_net(text))
    weights["a"][1][0] = np.nan
    weights["b"][0][:, 0] = np.inf
    net = read_net(text, weights)
    with pytest.raises(
        WeightsError, match=r'NaN or infinite weights \("a": blob 1 has 1 of 2; "b": blob 0 has 2 of 4\); .*snapshot$'
    ) as caught:
        to_torch(net)
    assert [name for name, _ in caught.value.problems] == ["a", "b"]


# ---- rule 5: missing layers


def test_missing_layers_are_refused_with_the_way_to_fill_them() -> None:
    weights = {"conv1": whole()["conv1"]}
    with pytest.raises(WeightsError, match="--missing fill") as caught:
        read_net(NET, weights)
    assert [name for name, _ in caught.value.problems] == ["conv2"]
    with pytest.raises(WeightsError, match="give the prototxt these weights were trained with"):
        read_net(NET, weights | {"other": [numbers(2)]})


def test_missing_layers_keep_their_fillers_on_request() -> None:
    filler = 'weight_filler { type: "constant" value: 0.5 }'
    text = data(1, 3, 8, 8) + conv("conv1", "data", "x", 4, 3) + conv("conv2", "x", "y", 2, body=filler)
    net = read_net(text, {"conv1": whole()["conv1"]}, missing="fill")
    assert net.warnings == ("the given mapping lacks layers, which keep their fillers: conv2",)
    module = to_torch(net)
    assert (module.get_parameter("conv2.weight") == 0.5).all()
    assert (module.get_parameter("conv1.bias").detach().numpy() == numbers(4)).all()


@pytest.mark.parametrize("blobs", [[numbers(4, 3, 3, 3)], [numbers(4, 3, 3, 2), numbers(4)]])
def test_filling_is_for_whole_layers_only(blobs: list[Array]) -> None:
    with pytest.raises(WeightsError, match="conv1"):
        read_net(NET, {"conv1": blobs}, missing="fill")


# ---- templates in layer names


@pytest.mark.parametrize("names", [["fc8_voc12"], ["fc8_voc12", "fc8_pascal_voc12_aux"]])
def test_templates_are_named_with_the_value_that_fits(names: list[str]) -> None:
    """DeepLab's prototxts say fc8_${EXP}."""
    text = data(1, 3, 8, 8) + conv("conv1", "data", "x", 4, 3) + conv("fc8_${EXP}", "x", "y", 2)
    text += conv("up_${EXP}_aux", "x", "z", 2) if len(names) > 1 else ""
    weights = {"conv1": whole()["conv1"]} | {name: whole()["conv2"] for name in [*names, "up_voc12_aux"]}
    with pytest.raises(WeightsError, match=r"its layer names fit the prototxt with --set EXP=voc12$"):
        read_net(text, weights)
    assert read_net(text, weights, variables={"EXP": "voc12"}).parameters


# ---- rule 7: NVCaffe's BatchNorm


def batch_norm(channels: int, body: str = "scale_bias: true") -> str:
    return data(2, channels, 4, 5) + layer("BatchNorm", "bn", "data", "y", f"batch_norm_param {{ {body} }}")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(1, -1, 1, 1), (-1,)])
@pytest.mark.parametrize("old_order", [True, False])
def test_nvcaffe_batch_norm(channels: int, shape: tuple[int, ...], old_order: bool) -> None:
    """NVCaffe's net.cpp: five blobs whose last has one number are scale, bias, mean, variance, unused."""
    random = np.random.default_rng(1)
    x = random.normal(3, 2, (2, channels, 4, 5)).astype(np.float32)
    scale, bias, mean = random.normal(size=(3, channels)).astype(np.float32)
    scale = scale if old_order else -np.abs(scale)  # a negative number is not a variance
    variance = random.uniform(1, 2, channels).astype(np.float32)
    unused = np.ones(1, np.float32)
    blobs = [scale, bias, mean, variance, unused] if old_order else [mean, variance, unused, scale, bias]
    net = read_net(batch_norm(channels), {"bn": [blob.reshape(shape) for blob in blobs]})
    assert len(net.warnings) == (channels == 1)
    got = to_torch(net)(torch.from_numpy(x)).detach().numpy()
    each = (slice(None), None, None)
    wanted = (x - mean[each]) / np.sqrt(variance[each] + np.float32(1e-5)) * scale[each] + bias[each]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("body", ["use_global_stats: true", "use_weight_bias: true"])
def test_intel_batch_norm_divides_by_its_factor(body: str) -> None:
    """Its five blobs are mean, variance, factor, scale, bias, and its scale needs no field in the prototxt."""
    mean, scale, bias = numbers(3, 3)
    variance, factor = numbers(3, start=7), np.float32([999.5])
    net = read_net(batch_norm(3, body), {"bn": [mean * factor, variance * factor, factor, scale, bias]})
    x = np.random.default_rng(1).normal(3, 2, (2, 3, 4, 5)).astype(np.float32)
    each = (slice(None), None, None)
    wanted = (x - mean[each]) / np.sqrt(variance[each] + np.float32(1e-5)) * scale[each] + bias[each]
    np.testing.assert_allclose(to_torch(net)(torch.from_numpy(x)).detach().numpy(), wanted, rtol=1e-4, atol=1e-4)


def test_three_blobs_fill_the_scale_of_nvcaffe() -> None:
    blobs = [numbers(3, start=1), numbers(3, start=4), np.float32([2])]
    net = read_net(batch_norm(3, "scale_bias: true scale_filler { value: 3 }"), {"bn": blobs})
    assert "keep their fillers" in net.warnings[0]
    assert (array_of(net, "bn") == blobs[0] / 2).all()
    assert (array_of(net, "bn", 3) == 3).all()
    assert (array_of(net, "bn", 4) == 0).all()


@pytest.mark.parametrize(("mean", "warns"), [(1.0, True), (0.0, False)])
def test_a_factor_of_0_beside_statistics_warns(mean: float, warns: bool) -> None:
    blobs = [np.full(3, mean, np.float32), np.zeros(3, np.float32), np.zeros(1, np.float32)]
    assert (read_net(batch_norm(3, ""), {"bn": blobs}).warnings != ()) is warns
