"""Q/DQ: scales worked out by hand, the form TensorRT reads, and the arithmetic against numpy."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto

from atrous.converter.precision.calibrate import Observed, observe
from atrous.converter.precision.cast import cast_graph
from atrous.converter.precision.compare import Comparison, emulate
from atrous.converter.precision.float_types import FLOAT16
from atrous.converter.precision.graph import list_blobs, read_opset
from atrous.converter.precision.options import VariantOptions
from atrous.converter.precision.quantize import find_quantizable, quantize_graph, scale_values, scale_weights
from atrous.errors import PrecisionError

from .graphs import CalibrationImages, make_deploy, make_image, node_named, run, types_of, weights_of


def quantize(model: onnx.ModelProto, codes: Any = "int8", rest: Any = None) -> onnx.ModelProto:
    layers = find_quantizable(model)
    seen = observe(model, [make_image()], threads=1)
    return quantize_graph(
        model, layers, {layer.source: seen[layer.source].largest for layer in layers}, seen, codes, rest
    )


def test_weight_scales_by_hand() -> None:
    weights = np.zeros((3, 2, 1, 1), np.float32)
    weights[0, :, 0, 0] = (1.27, -0.5)
    weights[1, :, 0, 0] = (0.1, -2.54)
    scale = scale_weights(weights, 0)
    np.testing.assert_allclose(scale.values, [0.01, 0.02, 1.0], rtol=1e-7)  # a channel of zeros gets 1
    assert scale.zero_point == 0
    assert scale_weights(weights, None).values == pytest.approx(2.54 / 448)
    np.testing.assert_allclose(scale_weights(weights[:, :, 0, 0].T, 1).values, [0.01, 0.02, 1.0], rtol=1e-7)


@pytest.mark.parametrize(("bits", "fits"), [(7, True), (8, False)])
def test_seven_bit_weights_never_saturate_the_16_bit_sums_of_avx2(bits: int, fits: bool) -> None:
    """vpmaddubsw adds two products of a uint8 and an int8 code in 16 bits."""
    model, layers = make_deploy(), find_quantizable(make_deploy())
    seen = {layer.source: Observed(6.0) for layer in layers}
    reaches = dict.fromkeys(seen, 6.0)
    written = weights_of(quantize_graph(model, layers, reaches, seen, "uint8", weight_bits=bits))
    largest = 0.0
    for layer in layers:
        scale = written[f"{layer.weights}/scale"].reshape(-1, 1, 1, 1)
        codes = np.round(written[layer.weights] / scale)
        assert np.abs(codes).max() == 2 ** (bits - 1) - 1
        largest = max(largest, 2 * 255 * np.abs(codes).max())
    assert (largest <= np.iinfo(np.int16).max) == fits


def test_bits_of_weights_by_default() -> None:
    assert VariantOptions("int8").code_bits == 8
    assert VariantOptions("int8", activations="uint8").code_bits == 7
    assert VariantOptions("int8", activations="uint8", weight_bits=8).code_bits == 8
    with pytest.raises(PrecisionError, match="weight_bits is for int8 only, not for fp8"):
        VariantOptions("fp8", weight_bits=7)
    with pytest.raises(PrecisionError, match="invalid option weight_bits"):
        VariantOptions("int8", weight_bits=6)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("codes", "least", "step", "zero"),
    [("int8", -1.0, 6.0 / 127, 0), ("int8", 0.0, 6.0 / 127, 0), ("fp8", 0.0, 6.0 / 448, 0),
     ("uint8", 0.0, 6.0 / 255, 0), ("uint8", -1.0, 6.0 / 127, 128)],
)  # fmt: skip
def test_activation_scales_by_hand(codes: Any, least: float, step: float, zero: int) -> None:
    scale = scale_values(6.0, Observed(6.0, least), codes)
    assert scale.values == pytest.approx(step)
    assert scale.zero_point == zero


def test_scales_in_half_are_rounded_up() -> None:
    """So that the largest weight is not clipped."""
    for largest in np.random.default_rng(0).uniform(1e-3, 10, 200):
        scale = scale_values(float(largest), Observed(), "int8", FLOAT16).values
        assert scale == np.float16(scale)
        assert largest / 127 <= scale <= largest / 127 * (1 + 2.0**-9)


def test_int8_graphs_equal_onnx_runtimes(tmp_path: Path) -> None:
    """onnxruntime.quantization, set to the same symmetric scheme, gives the same pairs, scales and zero points."""
    import onnxruntime.quantization as ort

    model = make_deploy()
    onnx.save(model, tmp_path / "model.onnx")
    ort.quantize_static(
        tmp_path / "model.onnx",
        tmp_path / "int8.onnx",
        CalibrationImages(make_image()),
        quant_format=ort.QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=ort.QuantType.QInt8,
        weight_type=ort.QuantType.QInt8,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": ["Conv"],
        },
    )
    theirs, ours = onnx.load(tmp_path / "int8.onnx"), quantize(model)
    assert Counter(node.op_type for node in ours.graph.node) == Counter(node.op_type for node in theirs.graph.node)
    expected, found = weights_of(theirs), weights_of(ours)
    layers = find_quantizable(model)
    assert len(layers) == 5
    for name in {name for layer in layers for name in (layer.source, layer.weights)}:
        for part in ("scale", "zero_point"):
            np.testing.assert_array_equal(found[f"{name}/{part}"], expected[f"{name}_{part}"])
            assert found[f"{name}/{part}"].dtype == expected[f"{name}_{part}"].dtype
    np.testing.assert_array_equal(run(ours, make_image())[0], run(theirs, make_image())[0])


@pytest.mark.parametrize(("codes", "kind"), [("int8", TensorProto.INT8), ("fp8", TensorProto.FLOAT8E4M3FN)])
def test_the_form_tensorrt_reads(codes: Any, kind: int) -> None:
    model = quantize(make_deploy(), codes)
    onnx.checker.check_model(model, full_check=True)
    assert read_opset(model) == (17 if codes == "int8" else 19)
    types, stored = types_of(model), weights_of(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convs) == 5
    for conv in convs:
        assert types[conv.input[2]] == TensorProto.FLOAT  # the bias
        for place, name in enumerate(conv.input[:2]):
            dequantize = makers[name]
            pair = makers[dequantize.input[0]]
            assert (pair.op_type, dequantize.op_type) == ("QuantizeLinear", "DequantizeLinear")
            assert list(pair.input[1:]) == list(dequantize.input[1:])
            scale, zero = (stored[part] for part in pair.input[1:])
            assert types[pair.output[0]] == kind
            assert not zero.astype(np.float32).any()
            per_channel = place == 1 and codes == "int8"
            assert scale.shape == (
                (stored[conv.input[1].removesuffix("/dequantized")].shape[0],) if per_channel else ()
            )
            if place == 1:
                assert types[pair.input[0]] == TensorProto.FLOAT  # the weights are floats still
                assert pair.input[0] in stored


def test_arithmetic_of_int8_against_numpy() -> None:
    """The codes and the result of a convolution, written out."""
    model, image = make_deploy(), make_image()
    coded = quantize(model)
    before = run(model, image, ["conv2:conv2", "pool1"])
    pooled, weights = before[1], weights_of(model)
    stored = weights_of(coded)
    scale = stored["pool1/scale"]
    expected_scale = np.abs(pooled).max() / 127
    assert scale == pytest.approx(expected_scale, rel=1e-6)
    source = run(coded, image, ["pool1"])[0]
    codes = np.clip(np.rint(source / scale), -128, 127)
    np.testing.assert_array_equal(run(coded, image, ["pool1/dequantized"])[0], (codes * scale).astype(np.float32))
    kernel = weights["conv2.weight"]
    step = np.abs(kernel).max(axis=(1, 2, 3), keepdims=True) / 127
    kept = run(coded, image, ["conv2.weight/dequantized"])[0]
    np.testing.assert_allclose(kept, np.rint(kernel / step) * step, atol=1e-6)
    import torch

    expected = torch.nn.functional.conv2d(
        torch.from_numpy((codes * scale).astype(np.float32)),
        torch.from_numpy(kept),
        torch.from_numpy(weights["conv2.bias"].copy()),
        padding=1,
    ).numpy()
    found = run(coded, image, ["conv2:conv2"])[0]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_arithmetic_of_fp8_against_ml_dtypes() -> None:
    model, image = make_deploy(), make_image()
    coded = quantize(model, "fp8")
    scale = weights_of(coded)["pool1/scale"]
    source = run(coded, image, ["pool1"])[0]
    expected = np.clip(source / scale, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale
    np.testing.assert_array_equal(run(coded, image, ["pool1/dequantized"])[0], expected)


def test_a_value_read_twice_is_coded_once() -> None:
    model = onnx.ModelProto()
    model.CopyFrom(make_deploy())
    node_named(model, "fc6/Conv/node").input[0] = node_named(model, "conv3/Conv/node").input[0]
    coded = quantize(model)
    assert [node.name for node in coded.graph.node].count("pool2/QuantizeLinear/node") == 1


@pytest.mark.parametrize("codes", ["int8", "fp8"])
def test_the_rest_in_half(codes: Any) -> None:
    """Scales, weights and layers that are not quantized become float16; codes stay."""
    model, image = make_deploy(), make_image()
    coded = quantize(model, codes, FLOAT16)
    typed = cast_graph(coded, FLOAT16).model
    types = types_of(typed)
    for node in typed.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert types[node.input[1]] == TensorProto.FLOAT16
        if node.op_type == "Conv":
            assert {types[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}
    assert Comparison(model, emulate(typed), threads=1).rows.keys() == list_blobs(model).keys()
    exact, wide, found = (run(graph, image)[0] for graph in (model, coded, emulate(typed)))
    assert np.abs(found - exact).mean() < 1.2 * np.abs(wide - exact).mean()
    assert not np.array_equal(found, wide)


def test_unsigned_activations_use_every_step() -> None:
    coded = quantize(make_deploy(), "uint8")
    stored = weights_of(coded)
    assert stored["pool1/zero_point"] == 0  # behind a ReLU
    assert stored["pool1/zero_point"].dtype == np.uint8
    assert (
        stored["graph/Transpose/zero_point" if "graph/Transpose/zero_point" in stored else "graph/Pad/zero_point"]
        == 128
    )
    assert stored["conv2.weight/zero_point"].dtype == np.int8
