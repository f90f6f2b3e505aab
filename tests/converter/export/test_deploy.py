"""deploy.onnx against a pipeline written again by hand: colors, mean, padding, net, head, crop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F

from atrous.bundle.crf_parameters import BilateralTerm, CrfParameters, GaussianTerm
from atrous.bundle.size_rule import SizeRule
from atrous.converter import Net, read_net, to_torch
from atrous.converter.export.deploy import Deployment, export_deploy, fix_deployment, plan_deployment
from atrous.errors import ExportError
from atrous.runtime.upsampling import upsample_scores

from ..nets import CLASSES, DEEPLAB, conv, data, layer, read_seeded, relu
from .test_onnx_export import run_onnx, shape_of

Array = np.ndarray[Any, Any]
MEAN = (104.008, 116.669, 122.675)


def make_images(batch: int, height: int, width: int) -> Array:
    return np.random.default_rng(height * width).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


def expected_scores(
    module: Any, images: Array, padded: tuple[int, int], mean: Any = MEAN, scale: float = 1, bgr: bool = True
) -> Array:
    """The head `scores`, in NumPy and torch: N x L x H x W."""
    _, height, width, _ = images.shape
    pixels = images.astype(np.float32)
    if bgr:
        pixels = pixels[..., ::-1]
    pixels = (pixels - np.asarray(mean, np.float32)) * np.float32(scale)
    planes = np.zeros((len(images), 3, *padded), np.float32)
    planes[:, :, :height, :width] = pixels.transpose(0, 3, 1, 2)
    with torch.no_grad():
        output = module(torch.from_numpy(planes))
    return output[:, :, :height, :width].numpy()


@pytest.fixture(scope="module")
def deeplab() -> tuple[Net, Any, Deployment]:
    net = read_seeded(DEEPLAB)
    return net, to_torch(net), plan_deployment(net)


def close(found: Array, wanted: Array) -> None:
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


# ---- heads


@pytest.mark.parametrize(
    ("size", "padded"),
    [((41, 49), (41, 49)), ((40, 42), (41, 49)), ((1, 1), (9, 9)), ((33, 65), (33, 65)), ((17, 70), (17, 73))],
)
def test_scores(deeplab: tuple[Net, Any, Deployment], size: tuple[int, int], padded: tuple[int, int]) -> None:
    _, module, plan = deeplab
    model = export_deploy(plan, module, mean=MEAN)
    images = make_images(2, *size)
    found = run_onnx(model, {"image": images})
    assert list(found) == ["scores"]
    close(found["scores"], expected_scores(module, images, padded))


def test_labels_are_the_first_largest_score(deeplab: tuple[Net, Any, Deployment]) -> None:
    _, module, plan = deeplab
    model = export_deploy(plan, module, head="labels", mean=MEAN)
    images = make_images(2, 30, 50)
    found = run_onnx(model, {"image": images})["labels"]
    assert found.dtype == np.uint8
    scores = expected_scores(module, images, (33, 57))
    assert (found == scores.argmax(1)).all()
    assert len(np.unique(found)) > 1


def test_ties_go_to_the_first_label() -> None:
    net = read_net(data(1, 3, 4, 4) + layer("Power", "zero", "data", "y", "power_param { scale: 0 }"))
    model = export_deploy(plan_deployment(net), to_torch(net), head="labels", mean=(0, 0, 0))
    assert not run_onnx(model, {"image": make_images(1, 3, 3)})["labels"].any()


def test_lowres_upsampled_outside_is_scores(deeplab: tuple[Net, Any, Deployment]) -> None:
    """Through the runtime's own upsampling, which is another implementation."""
    _, module, plan = deeplab
    model = export_deploy(plan, module, head="lowres", mean=MEAN)
    images = make_images(1, 30, 50)
    lowres = run_onnx(model, {"image": images})["lowres"]
    assert lowres.shape == (1, CLASSES, 5, 8)
    scores = expected_scores(module, images, (33, 57))
    close(upsample_scores(lowres[0], (33, 57), (30, 50), align_corners=True), scores[0])


@pytest.mark.parametrize("head", ["scores", "labels", "lowres"])
@pytest.mark.parametrize("opset", [17, 21])
def test_declared_shapes(deeplab: tuple[Net, Any, Deployment], head: Any, opset: int) -> None:
    _, module, plan = deeplab
    model = export_deploy(plan, module, head=head, mean=MEAN, opset=opset)
    onnx.checker.check_model(model, full_check=True)
    (image,), (output,) = model.graph.input, model.graph.output
    assert (image.name, shape_of(image)) == ("image", ["batch", "height", "width", 3])
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    wanted = {
        "scores": ["batch", CLASSES, "height", "width"],
        "labels": ["batch", "height", "width"],
        "lowres": ["batch", CLASSES, "lowres_height", "lowres_width"],
    }
    assert (output.name, shape_of(output)) == (head, wanted[head])


def test_convolutions_and_resize_stay_as_they_are(deeplab: tuple[Net, Any, Deployment]) -> None:
    _, module, plan = deeplab
    kinds = [node.op_type for node in export_deploy(plan, module, mean=MEAN).graph.node]
    assert kinds.count("Conv") == 5
    assert kinds.count("Resize") == 1
    assert kinds.count("Pad") == 1  # only the padding of the image


def test_mean_scale_and_color_order(deeplab: tuple[Net, Any, Deployment]) -> None:
    _, module, plan = deeplab
    images = make_images(1, 20, 20)
    for order, mean, scale in (
        ("RGB", (1.0, 2.0, 3.0), 0.25),
        ("BGR", (1.0, 2.0, 3.0), 1 / 255),
        ("BGR", (0, 0, 0), 1),
    ):
        model = export_deploy(plan, module, mean=mean, scale=scale, color_order=order)  # type: ignore[arg-type]
        wanted = expected_scores(module, images, (25, 25), mean, scale, order == "BGR")
        close(run_onnx(model, {"image": images})["scores"], wanted)


SHARED = 'param { name: "w" } param { name: "b" }'


@pytest.mark.parametrize(
    ("text", "gathers"),
    [
        pytest.param(conv("c", "data", "y", 3, 3, "pad: 1"), 0, id="convolution"),
        pytest.param(
            conv("c", "data", "x", 3, 3, "pad: 1", SHARED) + conv("d", "x", "y", 3, 3, "pad: 1", SHARED), 0, id="shared"
        ),
        pytest.param(
            conv("c", "data", "a", 3, 3, "pad: 1", SHARED)
            + conv("d", "data", "b", 3, 3, "pad: 1", SHARED)
            + layer("Eltwise", "e", ["a", "b"], "y"),
            0,
            id="twice",
        ),
        pytest.param(conv("c", "data", "y", 3, 3, "pad: 1 group: 3"), 1, id="groups"),
        pytest.param(
            conv("c", "data", "a", 3, 3, "pad: 1") + layer("Eltwise", "e", ["a", "data"], "y"), 1, id="another reader"
        ),
    ],
)
def test_color_order_is_in_the_weights_of_convolutions_that_read_the_image(text: str, gathers: int) -> None:
    net = read_seeded(data(1, 3, 8, 8) + text)
    module = to_torch(net)
    model = export_deploy(plan_deployment(net), module, mean=MEAN)
    assert [node.op_type for node in model.graph.node].count("Gather") == gathers
    images = make_images(2, 6, 7)
    wanted = expected_scores(module, images, (6, 7))
    found = run_onnx(model, {"image": images})["scores"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_unknown_opset(deeplab: tuple[Net, Any, Deployment]) -> None:
    _, module, plan = deeplab
    with pytest.raises(ExportError, match="opset 12 is not supported"):
        export_deploy(plan, module, mean=MEAN, opset=12)


def test_file_is_the_model(deeplab: tuple[Net, Any, Deployment], tmp_path: Path) -> None:
    _, module, plan = deeplab
    model = export_deploy(plan, module, tmp_path / "deploy.onnx", mean=MEAN)
    assert onnx.load(tmp_path / "deploy.onnx") == model


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
def test_one_size_has_static_shapes(deeplab: tuple[Net, Any, Deployment], head: Any, batch: int) -> None:
    _, module, plan = deeplab
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


# ---- which blob holds the scores


def test_softmax_gives_probabilities() -> None:
    assert plan_deployment(read_net(DEEPLAB)).scores_are == "logits"
    plan = plan_deployment(read_net(data(1, 3, 8, 8) + layer("Softmax", "s", "data", "y")))
    assert plan.scores_are == "probabilities"
    across = plan_deployment(
        read_net(data(1, 3, 8, 8) + layer("Softmax", "s", "data", "y", "softmax_param { axis: 2 }"))
    )
    assert across.scores_are == "logits"


def test_argmax_is_left_to_the_head() -> None:
    net = read_seeded(
        data(1, 3, 8, 8) + conv("c", "data", "x", 4) + layer("ArgMax", "a", "x", "y", "argmax_param { axis: 1 }")
    )
    plan = plan_deployment(net)
    assert plan.scores.name == "x"
    images = make_images(1, 8, 8)
    labels = run_onnx(export_deploy(plan, to_torch(net), head="labels", mean=MEAN), {"image": images})["labels"]
    cut = to_torch(plan.net)
    assert (labels == expected_scores(cut, images, (8, 8)).argmax(1)).all()


def test_largest_plane_is_the_scores() -> None:
    text = data(1, 3, 8, 8) + conv("small", "data", "a_small", 4, 3) + conv("large", "data", "z_large", 5, 1)
    assert plan_deployment(read_net(text)).scores.name == "z_large"


CRF = (
    'input: "data" input_dim: 1 input_dim: 3 input_dim: 9 input_dim: 9\n'
    'input: "data_dim" input_dim: 1 input_dim: 1 input_dim: 1 input_dim: 2\n'
    'layers { name: "c" type: CONVOLUTION bottom: "data" top: "x"\n'
    "  convolution_param { num_output: 4 kernel_size: 1 } }\n"
    'layers { name: "crf" type: DENSE_CRF bottom: "x" bottom: "data_dim" bottom: "data" top: "y"\n'
    "  dense_crf_param { max_iter: 7 pos_xy_std: 3 pos_w: 2.5 bi_xy_std: 50 bi_rgb_std: 10 bi_w: 4\n"
    "  bi_xy_std: 20 bi_rgb_std: 5 bi_w: 1 } }\n"
)


def test_crf_layer_becomes_parameters() -> None:
    plan = plan_deployment(read_net(CRF))
    assert plan.scores.name == "x"
    assert [blob.name for blob in plan.net.inputs] == ["data"]
    assert plan.crf == CrfParameters(
        "deeplab", 7, (GaussianTerm(3.0, 2.5),), (BilateralTerm(50.0, 10.0, 4.0), BilateralTerm(20.0, 5.0, 1.0))
    )


def test_crf_layer_of_ccnn_becomes_parameters() -> None:
    body = (
        "densecrf_param { x_gauss: 19 y_gauss: 18 wt_gauss: 15 x_bilateral: 61 y_bilateral: 60 "
        "r_bilateral: 10 g_bilateral: 11 b_bilateral: 12 wt_bilateral: 35 }"
    )
    plan = plan_deployment(
        read_net(data(1, 3, 9, 9) + conv("c", "data", "x", 4) + layer("DenseCRF", "crf", ["x", "data"], "y", body))
    )
    assert plan.crf is not None
    section = plan.crf
    assert section.iterations == 10
    assert (section.gaussian[0].sxy, section.gaussian[0].weight) == ((19, 18), 15)
    assert (section.bilateral[0].sxy, section.bilateral[0].srgb) == ((61, 60), (10, 11, 12))


# ---- nets that cannot be deployed

IP = layer("InnerProduct", "ip", "data", "y", "inner_product_param { num_output: 4 }")
REFUSALS = {
    "no plane": (data(1, 3, 8, 8) + IP, r"no plane of class scores to deploy; its outputs are y \(1, 4\)"),
    "never full size": (
        data(1, 3, 8, 8) + conv("c", "data", "y", 4, 3),
        "the scores of a 8x8 image are 6x6 and no size comes back as it went in",
    ),
    "gray": (
        data(1, 1, 8, 8) + relu("r", "data", "y"),
        r"one image input of 3 channels; this net takes data \(1, 1, 8, 8\)",
    ),
    "two inputs": (
        data(1, 3, 8, 8) + data(1, 3, 8, 8, name="b") + layer("Eltwise", "e", ["data", "b"], "y"),
        "one image input of 3 channels",
    ),
    "too many classes": (data(1, 3, 8, 8) + conv("c", "data", "y", 257), "scores 257 classes; labels .* 0 to 255"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_nets_without_a_deployment(kind: str) -> None:
    text, words = REFUSALS[kind]
    with pytest.raises(ExportError, match=words):
        plan_deployment(read_net(text))


def test_256_classes_are_just_enough() -> None:
    assert plan_deployment(read_net(data(1, 3, 8, 8) + conv("c", "data", "y", 256))).scores.shape[1] == 256


@pytest.mark.parametrize("interp", ["height: 9 width: 9 pad_beg: -1", "shrink_factor: 2 zoom_factor: 2"])
def test_lowres_needs_a_plain_interp_at_the_end(interp: str) -> None:
    net = read_net(data(1, 3, 9, 9) + layer("Interp", "i", "data", "y", f"interp_param {{ {interp} }}"))
    plan = plan_deployment(net)
    assert plan.lowres is None
    with pytest.raises(ExportError, match="no lowres head; use scores"):
        export_deploy(plan, to_torch(net), head="lowres", mean=MEAN)


# ---- names


@pytest.mark.parametrize("name", ["image", "scores", "labels", "lowres", "net/scores", "graph/Cast", "head/Slice"])
@pytest.mark.parametrize("head", ["scores", "labels", "lowres"])
def test_blobs_called_as_the_graph_calls_its_own(name: str, head: Any) -> None:
    text = data(1, 3, 9, 9, name="image") + conv("c", "image", "x", 4, 3, "pad: 1 stride: 2")
    if name != "image":
        text += relu("r", "x", name) + conv("d", name, "low", 4)
    else:
        text += conv("d", "x", "low", 4)
    top = "scores" if name not in ("scores",) else "labels"
    net = read_seeded(text + layer("Interp", "i", "low", top, "interp_param { zoom_factor: 2 }"))
    module = to_torch(net)
    model = export_deploy(plan_deployment(net), module, head=head, mean=MEAN)
    onnx.checker.check_model(model, full_check=True)
    images = make_images(1, 8, 12)
    found = run_onnx(model, {"image": images})
    assert list(found) == [head]
    wanted = expected_scores(module, images, (9, 13))
    if head == "scores":
        close(found[head], wanted)
    elif head == "labels":
        assert (found[head] == wanted.argmax(1)).mean() > 0.99
    else:
        up = F.interpolate(torch.from_numpy(found[head]), (9, 13), mode="bilinear", align_corners=True)
        close(up[:, :, :8, :12].numpy(), wanted)


def test_repeated_layer_names_keep_their_modules() -> None:
    """The cut net's layers are looked up in the whole net's module."""
    text = (
        data(1, 3, 8, 8)
        + conv("side", "data", "s", 2)
        + layer("Power", "a.b", "s", "unused", "power_param { shift: 9 }")
    )
    text += layer("Power", "a_b", "data", "x", "power_param { shift: 1 }")
    text += layer("Power", "a_b", "x", "zz", "power_param { scale: 3 }") + layer("Silence", "q", "unused", [])
    net = read_seeded(text)
    module = to_torch(net)
    plan = plan_deployment(net)
    assert plan.scores.name == "zz"
    found = run_onnx(export_deploy(plan, module, mean=(0, 0, 0)), {"image": make_images(1, 4, 4)})["scores"]
    wanted = (make_images(1, 4, 4)[..., ::-1].astype(np.float32).transpose(0, 3, 1, 2) + 1) * 3
    close(found, wanted)


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
