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
from atrous.converter import Net, read_net, to_torch
from atrous.converter.export.deploy import Deployment, export_deploy, plan_deployment
from atrous.errors import ExportError
from atrous.runtime.upsampling import upsample_scores

from ..nets import CLASSES, DEEPLAB, conv, data, layer, read_seeded, relu
from .deploying import MEAN, close, expected_scores, make_images
from .test_onnx_export import run_onnx, shape_of


@pytest.fixture(scope="module")
def deeplab() -> tuple[Net, Any, Deployment]:
    net = read_seeded(DEEPLAB)
    return net, to_torch(net), plan_deployment(net)


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
