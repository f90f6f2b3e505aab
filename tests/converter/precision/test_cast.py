"""Typed graphs: the choice of narrow nodes, and values against rounding written in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from atrous.converter.precision.calibrate import observe
from atrous.converter.precision.cast import cast_graph
from atrous.converter.precision.compare import emulate
from atrous.converter.precision.float_types import BFLOAT16, FLOAT16, FloatType
from atrous.converter.precision.graph import read_opset
from atrous.errors import PrecisionError

from .graphs import (
    MEAN,
    SEGNET,
    change_weight,
    make_deploy,
    make_image,
    node_named,
    run,
    scan_model,
    types_of,
    weights_of,
)

HALF = {FLOAT16.name: TensorProto.FLOAT16, BFLOAT16.name: TensorProto.BFLOAT16}
TORCH = {FLOAT16.name: torch.float16, BFLOAT16.name: torch.bfloat16}


def compute_deeplab(weights: dict[str, Any], image: Any, kind: FloatType) -> Any:
    """The small DeepLab in torch, float32 sums, everything stored rounded: written from the prototxt, not the graph."""
    dtype = TORCH[kind.name]

    def stored(x: Any) -> Any:
        return x.to(dtype).float()

    def conv(x: Any, name: str, dilation: int = 1) -> Any:
        weight, bias = (stored(torch.from_numpy(weights[f"{name}.{part}"].copy())) for part in ("weight", "bias"))
        pad = dilation * (weight.shape[2] - 1) // 2
        return stored(torch.nn.functional.conv2d(x, weight, bias, padding=pad, dilation=dilation))

    x = torch.from_numpy(image[None, :, :, ::-1].astype(np.float32) - np.array(MEAN, np.float32)).permute(0, 3, 1, 2)
    x = stored(x)
    for name, hole in (("conv1", 1), ("conv2", 1), ("conv3", 2)):
        x = torch.relu(conv(x, name, hole))
        x = torch.nn.functional.max_pool2d(x, 3, 2, 1, ceil_mode=True)
    x = conv(torch.relu(conv(x, "fc6", 3)), "fc8")
    size = [(s - 1) * 8 + 1 for s in x.shape[2:]]
    return torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=True).numpy()


@pytest.mark.parametrize("kind", [FLOAT16, BFLOAT16], ids=lambda kind: kind.name)
def test_equals_a_reference_written_in_torch(kind: FloatType) -> None:
    """The emulated graph rounds where torch rounds; sums may differ in order, so by one step of the type at most."""
    model, image = make_deploy(), make_image()
    weights = weights_of(model)
    weights["conv1.weight"] = weights["conv1.weight"][:, ::-1]  # the graph reads RGB, the net BGR
    expected = compute_deeplab(weights, image, kind)
    found = run(emulate(cast_graph(model, kind).model), image)[0]
    exact = run(model, image)[0]
    step = float(np.abs(exact).max()) * 2.0 ** -(10 if kind is FLOAT16 else 7)
    assert np.abs(found - expected).max() <= step
    assert np.mean(found == expected) > 0.5
    # and the rounding is really there: float32 is far from both, against what separates them
    assert np.abs(found - exact).mean() > 3 * np.abs(found - expected).mean()


def test_the_shipped_float16_file_runs_in_onnx_runtime() -> None:
    model, image = make_deploy(), make_image()
    typed = cast_graph(model, FLOAT16).model
    exact, shipped = run(model, image)[0], run(typed, image, optimize=True)[0]
    assert shipped.dtype == np.float32
    assert np.abs(shipped - exact).max() < 5e-3 * np.abs(exact).max()


@pytest.mark.parametrize("kind", [FLOAT16, BFLOAT16], ids=lambda kind: kind.name)
@pytest.mark.parametrize("head", ["scores", "labels", "lowres"])
def test_both_ends_keep_names_and_types(kind: FloatType, head: Any) -> None:
    model = make_deploy(head=head)
    typed = cast_graph(model, kind).model
    assert typed.graph.input == model.graph.input
    ends = [(output.name, output.type.tensor_type.elem_type) for output in typed.graph.output]
    assert ends == [(head, TensorProto.UINT8 if head == "labels" else TensorProto.FLOAT)]
    assert read_opset(typed) == (17 if kind is FLOAT16 else 22)
    types = types_of(typed)
    for node in typed.graph.node:
        if node.op_type in ("Conv", "Relu", "MaxPool"):
            assert {types[name] for name in (*node.input, *node.output)} == {HALF[kind.name]}
        if node.op_type in ("Resize", "ArgMax"):
            assert types[node.input[0]] == TensorProto.FLOAT


def test_preprocessing_and_the_tail_stay_with_reasons() -> None:
    typed = cast_graph(make_deploy(), FLOAT16)
    assert "pixel values" in typed.kept["graph/Sub/node"]
    assert "ties" in typed.kept["fc8_interp/Resize/node"]
    types = types_of(typed.model)
    assert types[node_named(typed.model, "graph/Sub/node").output[0]] == TensorProto.FLOAT


def test_one_cast_in_and_one_out() -> None:
    typed = cast_graph(make_deploy(), FLOAT16).model
    casts = [node.name for node in typed.graph.node if node.op_type == "Cast"]
    assert len(casts) == 3, casts  # the image's own, into float16, out of it


def test_sizes_of_resize_are_never_cast() -> None:
    text = SEGNET.replace('type: "Softmax" bottom: "score"', 'type: "Softmax" bottom: "score"')
    model = make_deploy(text)
    for kind in (FLOAT16, BFLOAT16):
        typed = cast_graph(model, kind).model
        types = types_of(typed)
        for node in typed.graph.node:
            for name in node.input[1:] if node.op_type == "Resize" else ():
                assert not name or types[name] in (TensorProto.INT64, TensorProto.FLOAT)


@pytest.mark.parametrize("size", ["scale: 2", "upsample_h: 64 upsample_w: 64"])
def test_pooling_masks_stay_float32_and_exact(size: str) -> None:
    """64 x 64 pixels: indices up to 4095, of which float16 represents every second one, bfloat16 every sixteenth."""
    model, image = make_deploy(SEGNET.replace("scale: 2", size)), make_image(64, 64)
    for kind in (FLOAT16, BFLOAT16):
        typed = cast_graph(model, kind)
        types = types_of(typed.model)
        assert types["mask"] == TensorProto.FLOAT
        assert types["conv2"] == HALF[kind.name]
        assert any("mask" in reason for reason in typed.kept.values())
        mask = run(emulate(typed.model), image, ["mask"])[0]
        assert mask.max() > 4000
        # unpooled values lie where the mask says, although the pooled values themselves were rounded
        up, pooled = run(emulate(typed.model), image, ["up", "conv2"])
        planes = np.zeros((1, 4, 4096), np.float32)
        np.put_along_axis(planes, mask.reshape(1, 4, -1).astype(np.int64), pooled.reshape(1, 4, -1), axis=2)
        np.testing.assert_array_equal(up.reshape(1, 4, -1), planes)


def test_softmax_stays_float32() -> None:
    typed = cast_graph(make_deploy(SEGNET), FLOAT16)
    softmax = next(node for node in typed.model.graph.node if node.op_type == "Softmax")
    assert types_of(typed.model)[softmax.input[0]] == TensorProto.FLOAT
    assert "exponentials" in typed.kept[softmax.name]


def test_weights_beyond_the_range_keep_their_layer_wide() -> None:
    model = make_deploy()
    weight = weights_of(model)["conv2.weight"].copy()
    weight[0, 0, 0, 0] = 7e4
    changed, image = change_weight(model, "conv2.weight", weight), make_image()
    magnitudes = {name: entry.largest for name, entry in observe(changed, [image], threads=1).items()}
    typed = cast_graph(changed, FLOAT16, magnitudes=magnitudes)
    assert "65504" in typed.kept["conv2/Conv/node"]
    assert types_of(typed.model)["conv2.weight"] == TensorProto.FLOAT
    assert np.isfinite(run(emulate(typed.model), image)[0]).all()
    # bfloat16 has room for it
    assert "conv2/Conv/node" not in cast_graph(change_weight(model, "conv2.weight", weight), BFLOAT16).kept


def test_activations_beyond_the_range_keep_their_layers_wide() -> None:
    """The layer that writes the large value and all that read it."""
    model, image = make_deploy(), make_image()
    weight = weights_of(model)["conv2.weight"] * np.float32(1e3)
    model = change_weight(model, "conv2.weight", weight)
    seen = float(np.abs(run(model, image, ["conv2:conv2"])[0]).max()) if "conv2:conv2" in types_of(model) else 0.0
    assert seen > 65504
    plain = run(emulate(cast_graph(model, FLOAT16).model), image, ["conv2:conv2"])[0]
    assert not np.isfinite(plain).all()
    typed = cast_graph(model, FLOAT16, magnitudes={"conv2:conv2": seen})
    assert "reaches" in typed.kept["conv2/Conv/node"]
    assert "reaches" in typed.kept["relu_conv2/Relu/node"]


def test_headroom_counts() -> None:
    model = make_deploy()
    assert "conv2/Conv/node" in cast_graph(model, FLOAT16, magnitudes={"conv2:conv2": 40000.0}).kept
    assert "conv2/Conv/node" not in cast_graph(model, FLOAT16, magnitudes={"conv2:conv2": 32000.0}).kept


def test_named_nodes_stay() -> None:
    typed = cast_graph(make_deploy(), FLOAT16, keep={"fc6/Conv/node": "asked"})
    assert typed.kept["fc6/Conv/node"] == "asked"
    assert types_of(typed.model)["fc6.weight"] == TensorProto.FLOAT


def test_nothing_left_is_refused() -> None:
    model = make_deploy()
    convs = {node.name: "asked" for node in model.graph.node if node.op_type == "Conv"}
    with pytest.raises(PrecisionError, match="no layer with weights"):
        cast_graph(model, FLOAT16, keep=convs)


@pytest.mark.parametrize("kind", [FLOAT16, BFLOAT16], ids=lambda kind: kind.name)
def test_bodies_stay_float32_and_read_what_they_captured(kind: FloatType) -> None:
    model = scan_model()
    image = make_image(8, 8)
    typed = cast_graph(model, kind)
    assert "state" in typed.kept["s/Scan/node"]
    scan = node_named(typed.model, "s/Scan/node")
    types = types_of(typed.model)
    assert {types[name] for name in scan.input} == {TensorProto.FLOAT}
    captured = {name for node in scan.attribute[0].g.node for name in node.input} & set(types)
    assert {types[name] for name in captured} == {TensorProto.FLOAT}
    assert types["c1"] == HALF[kind.name]
    exact, found = run(model, image)[0], run(emulate(typed.model), image)[0]
    assert np.abs(found - exact).max() < 0.02 * np.abs(exact).max()
    assert np.abs(found - exact).max() > 0


def test_a_weight_read_by_both_kinds_is_stored_twice() -> None:
    model = make_deploy()
    shared = onnx.ModelProto()
    shared.CopyFrom(model)
    conv3, conv2 = (node_named(shared, f"{name}/Conv/node") for name in ("conv3", "conv2"))
    assert weights_of(model)["conv2.bias"].shape == weights_of(model)["conv3.bias"].shape
    conv3.input[2] = conv2.input[2]
    typed = cast_graph(shared, FLOAT16, keep={"conv3/Conv/node": "asked"})
    stored = weights_of(typed.model)
    assert stored["conv2.bias"].dtype == np.float32
    assert stored["conv2.bias/float16"].dtype == np.float16
    assert "conv3.bias" not in stored


def test_the_model_given_is_not_changed() -> None:
    model = make_deploy()
    before = model.SerializeToString()
    cast_graph(model, BFLOAT16)
    assert model.SerializeToString() == before
