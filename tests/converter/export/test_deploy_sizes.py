"""The sizes and batches that deploy.onnx takes: the size rule, one fixed size, batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from atrous.bundle.size_rule import SizeRule
from atrous.converter import read_net, to_torch
from atrous.converter.export.deploy import export_deploy, fix_deployment, plan_deployment
from atrous.errors import ExportError

from ..nets import DEEPLAB, conv, data, layer, read_seeded
from .deploying import MEAN, close, expected_scores, make_images
from .test_onnx_export import run_onnx, shape_of

# ---- the size rule


def rule_of(text: str, **options: Any) -> SizeRule:
    return plan_deployment(read_net(text), **options).size_rule


def test_deeplab_takes_8k_plus_1() -> None:
    assert rule_of(DEEPLAB) == SizeRule(minimum=(9, 9), multiple=8, offset=1)
    assert rule_of(DEEPLAB, minimum=(321, 305)) == SizeRule(minimum=(321, 305), multiple=8, offset=1)


def test_rule_does_not_depend_on_the_size_in_the_file() -> None:
    for height in (40, 41, 321, 513):
        assert rule_of(DEEPLAB.replace("input_dim: 41", f"input_dim: {height}")) == SizeRule(
            minimum=(9, 9), multiple=8, offset=1
        )


def test_crop_of_the_data_layer_is_the_minimum() -> None:
    source = layer("ImageSegData", "d", [], ["data", "label", "dim"], "transform_param { crop_size: 57 mean_value: 1 }")
    text = source + conv("c", "data", "x", 4, 3, "pad: 1 stride: 2")
    text += layer("Interp", "i", "x", "y", "interp_param { zoom_factor: 2 }")
    assert rule_of(text) == SizeRule(minimum=(57, 57), multiple=2, offset=1)


def encoder_decoder(levels: int) -> str:
    """ENet's geometry: strides of two down and deconvolutions of two up."""
    text, bottom = data(1, 3, 64, 96), "data"
    for index in range(levels):
        text, bottom = text + conv(f"down{index}", bottom, f"d{index}", 4, 2, "stride: 2"), f"d{index}"
    for index in range(levels):
        body = "convolution_param { num_output: 4 kernel_size: 2 stride: 2 }"
        text, bottom = text + layer("Deconvolution", f"up{index}", bottom, f"u{index}", body), f"u{index}"
    return text


@pytest.mark.parametrize(("levels", "multiple"), [(1, 2), (3, 8), (5, 32), (6, 64)])
def test_encoder_decoder_takes_multiples(levels: int, multiple: int) -> None:
    assert rule_of(encoder_decoder(levels)) == SizeRule(minimum=(multiple, multiple), multiple=multiple, offset=0)


@pytest.mark.parametrize(
    ("kernel", "stride", "rule"),
    [
        (3, 3, SizeRule(minimum=(3, 3), multiple=3, offset=0)),
        (2, 4, SizeRule(minimum=(6, 6), multiple=4, offset=2)),
        (5, 7, SizeRule(minimum=(12, 12), multiple=7, offset=5)),
        ((5, 7), 7, SizeRule(fixed=(61, 63))),
        ((10, 3), 7, SizeRule(minimum=(10, 10), multiple=7, offset=3)),
    ],
)
def test_any_step_and_offset(kernel: int | tuple[int, int], stride: int, rule: SizeRule) -> None:
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    window = f"num_output: 4 kernel_h: {height} kernel_w: {width} stride: {stride}"
    text = data(1, 3, 56 + height, 56 + width)
    for kind, bottom, top in (("Convolution", "data", "x"), ("Deconvolution", "x", "y")):
        text += layer(kind, top, bottom, top, f"convolution_param {{ {window} }}")
    assert rule_of(text) == rule


def test_pooling_mask_ties_height_to_width() -> None:
    """The mask of a plane must fit the plane it is put back to, a condition on their product."""
    pool = layer("Pooling", "p", "data", ["x", "mask"], "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
    text = data(1, 3, 12, 20) + pool + layer("Upsample", "u", ["x", "mask"], "y", "upsample_param { scale: 2 }")
    assert rule_of(text) == SizeRule(minimum=(2, 2), multiple=2, offset=0)


def test_encoder_decoder_end_to_end() -> None:
    net = read_seeded(encoder_decoder(3))
    module = to_torch(net)
    model = export_deploy(plan_deployment(net), module, mean=MEAN)
    images = make_images(2, 30, 41)
    close(run_onnx(model, {"image": images})["scores"], expected_scores(module, images, (32, 48)))


def test_net_that_keeps_every_size_needs_no_padding() -> None:
    net = read_seeded(data(1, 3, 8, 8) + conv("c", "data", "y", 2, 3, "pad: 1"))
    plan = plan_deployment(net)
    assert plan.size_rule == SizeRule(minimum=(1, 1), multiple=1, offset=0)
    model = export_deploy(plan, to_torch(net), mean=MEAN)
    assert "Pad" not in [node.op_type for node in model.graph.node]
    images = make_images(1, 5, 7)
    close(run_onnx(model, {"image": images})["scores"], expected_scores(to_torch(net), images, (5, 7)))


def test_minimum_of_a_net_that_keeps_every_size_is_padded_to() -> None:
    net = read_seeded(data(1, 3, 8, 8) + conv("c", "data", "y", 2, 3, "pad: 1"))
    plan = plan_deployment(net, minimum=(6, 9))
    images = make_images(1, 5, 5)
    found = run_onnx(export_deploy(plan, to_torch(net), mean=MEAN), {"image": images})["scores"]
    close(found, expected_scores(to_torch(net), images, (6, 9)))


FIXED = data(1, 3, 16, 24) + layer("Interp", "i", "data", "y", "interp_param { height: 16 width: 24 }")


def test_fixed_size() -> None:
    net = read_net(FIXED)
    plan = plan_deployment(net)
    assert plan.size_rule == SizeRule(fixed=(16, 24))
    model = export_deploy(plan, to_torch(net), mean=MEAN)
    assert shape_of(model.graph.input[0]) == ["batch", 16, 24, 3]
    assert shape_of(model.graph.output[0]) == ["batch", 3, 16, 24]
    images = make_images(2, 16, 24)
    close(run_onnx(model, {"image": images})["scores"], expected_scores(to_torch(net), images, (16, 24)))


def test_unpooling_at_all_sizes_of_the_rule_needs_no_scatter_and_no_padding() -> None:
    """Images are padded to even sizes, at which the windows cover the plane."""
    pool = layer("Pooling", "p", "a", ["x", "mask"], "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
    up = layer("Upsample", "u", ["x", "mask"], "y", "upsample_param { scale: 2 }")
    net = read_seeded(data(1, 3, 12, 20) + conv("a", "data", "a", 4, 3, "pad: 1") + pool + up)
    module, plan = to_torch(net), plan_deployment(net)
    kinds = [node.op_type for node in export_deploy(plan, module, mean=MEAN).graph.node]
    assert kinds.count("ScatterElements") == 0
    assert kinds.count("Pad") == 1  # only the padding of the image
    for size in ((12, 20), (7, 9), (2, 31)):
        images = make_images(2, *size)
        padded = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        found = run_onnx(export_deploy(plan, module, mean=MEAN), {"image": images})["scores"]
        close(found, expected_scores(module, images, padded))


# ---- static shapes

AT_RUN_TIME = {"Shape", "Slice", "Gather", "Range", "Concat", "Div", "ConstantOfShape"}


def find_unknown_shapes(model: onnx.ModelProto) -> set[str]:
    """Values whose shape ONNX cannot infer as numbers."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    known = {value.name for value in values if all(isinstance(side, int) for side in shape_of(value))}
    return {name for node in model.graph.node for name in node.output} - known


@pytest.mark.parametrize("head", ["scores", "labels", "lowres"])
@pytest.mark.parametrize("batch", [1, 2])
def test_one_size_has_static_shapes(head: Any, batch: int) -> None:
    net = read_seeded(DEEPLAB)
    module, plan = to_torch(net), plan_deployment(net)
    fixed = fix_deployment(plan, (33, 57), batch)
    assert fixed.size_rule == SizeRule(fixed=(33, 57))
    model = export_deploy(fixed, module, head=head, mean=MEAN)
    assert {node.op_type for node in model.graph.node}.isdisjoint({*AT_RUN_TIME, "Pad"})
    assert not find_unknown_shapes(model)
    assert shape_of(model.graph.input[0]) == [batch, 33, 57, 3]
    images = make_images(batch, 33, 57)
    free = run_onnx(export_deploy(plan, module, head=head, mean=MEAN), {"image": images})[head]
    found = run_onnx(model, {"image": images})[head]
    assert list(found.shape) == shape_of(model.graph.output[0])
    close(found.astype(np.float32), free.astype(np.float32))


def test_unpooling_at_one_size_needs_no_scatter() -> None:
    pool = layer("Pooling", "p", "a", ["x", "mask"], "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
    up = layer("Upsample", "u", ["x", "mask"], "y", "upsample_param { scale: 2 }")
    net = read_seeded(data(1, 3, 12, 20) + conv("a", "data", "a", 4, 3, "pad: 1") + pool + up)
    model = export_deploy(fix_deployment(plan_deployment(net), (6, 8)), to_torch(net), mean=MEAN)
    assert {node.op_type for node in model.graph.node}.isdisjoint({*AT_RUN_TIME - {"Concat"}, "ScatterElements"})
    assert not find_unknown_shapes(model)
    images = make_images(1, 6, 8)
    close(run_onnx(model, {"image": images})["scores"], expected_scores(to_torch(net), images, (6, 8)))


ONE_AT_A_TIME = (
    data(1, 3, 4, 4)
    + conv("c", "data", "x", 2)
    + layer("Reshape", "r", "x", "y", "reshape_param { shape { dim: 1 dim: -1 dim: 4 dim: 4 } }")
)


@pytest.mark.parametrize(
    ("text", "size", "batch", "words"),
    [
        (DEEPLAB, (32, 57), 1, "pads 32x57 images to 33x57: give that as the fixed size"),
        (DEEPLAB, (1, 1), 1, "pads 1x1 images to 9x9"),
        (FIXED, (16, 16), 1, "takes 16x24 images only, not 16x16"),
        (ONE_AT_A_TIME, (4, 4), 2, "does not take 2 images of 4x4 pixels"),
    ],
)
def test_sizes_that_cannot_be_fixed(text: str, size: tuple[int, int], batch: int, words: str) -> None:
    with pytest.raises(ExportError, match=words):
        fix_deployment(plan_deployment(read_net(text)), size, batch)


# ---- batch


def test_batch_of_the_file_does_not_matter() -> None:
    net = read_seeded(DEEPLAB.replace("input_dim: 1 input_dim: 3", "input_dim: 10 input_dim: 3"))
    module = to_torch(net)
    model = export_deploy(plan_deployment(net), module, mean=MEAN)
    images = make_images(1, 20, 20)
    close(run_onnx(model, {"image": images})["scores"], expected_scores(module, images, (25, 25)))


def test_batch_of_one_alone_is_declared_so() -> None:
    reshape = layer("Reshape", "r", "data", "y", "reshape_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } }")
    net = read_net(data(1, 3, 8, 8) + reshape)
    model = export_deploy(plan_deployment(net), to_torch(net), mean=MEAN)
    assert shape_of(model.graph.input[0]) == [1, 8, 8, 3]
    assert shape_of(model.graph.output[0]) == [1, 3, 8, 8]


def test_fixed_batch_of_many_is_refused() -> None:
    reshape = layer("Reshape", "r", "data", "y", "reshape_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } }")
    with pytest.raises(ExportError, match="takes one image at a time; this net takes 4"):
        plan_deployment(read_net(data(4, 3, 8, 8) + reshape))
