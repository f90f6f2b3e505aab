"""The CRF layers and DomainTransform: against real Caffe and the reference CRF's recordings; refused parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atrous.converter import export_onnx, read_net, run_blobs, to_torch
from atrous.converter.modules.lattice import (
    DenseCRF,
    PermutohedralLattice,
    bilateral_features,
    position_features,
)
from atrous.errors import ExportError, NetError

from .converting import check_case, net_text, random_array


@pytest.mark.parametrize("case", ["crf-meanfield", "dl1-crf", "dl2-crf", "dl2-crf-log", "dl2-domaintransform"])
def test_recorded(goldens: Path, case: str) -> None:
    """The same lattice, float32 by float32: a hundred times closer than the tolerance advised for these layers."""
    outcome = check_case(goldens, case, tolerance=1e-5)
    assert outcome.torch == "passed", outcome.detail
    assert outcome.onnx == "refused"


@pytest.mark.parametrize(("name", "tolerance"), [("voc-21-after", 1e-5), ("deeplab-program-voc-21", 5e-5)])
def test_marginals_of_the_reference_programs(shared_dir: Path, name: str, tolerance: float) -> None:
    with np.load(shared_dir / "crf" / f"{name}.npz") as stored:
        recorded = {key: stored[key] for key in stored.files}
    case = json.loads(str(recorded["case"]))
    gaussians = tuple((float(t["sxy"]), float(t["compat"])) for t in case["terms"] if t["kind"] == "gaussian")
    bilaterals = tuple(
        (float(t["sxy"]), float(t["srgb"]), float(t["compat"])) for t in case["terms"] if t["kind"] == "bilateral"
    )
    scores = torch.from_numpy(np.log(np.clip(recorded["probabilities"], 1e-5, 1)))[None].float()
    image = torch.from_numpy(recorded["image"]).permute(2, 0, 1)[None].float()
    q = DenseCRF(case["iterations"], gaussians, bilaterals)(scores, torch.tensor([[[scores.shape[2:]]]]), image)[
        0
    ].numpy()
    np.testing.assert_allclose(q, recorded["marginals"], atol=tolerance)
    assert (q.argmax(0) == recorded["marginals"].argmax(0)).all()


def test_the_lattice_approximates_a_gaussian_filter() -> None:
    """Against the sum over all pairs, normalized; the lattice's own kernel is a little wider."""
    features = position_features(12, 14, 3.0, torch.device("cpu"))
    values = torch.from_numpy(random_array(12 * 14, 3))
    distance = torch.cdist(features.double(), features.double())
    kernel = (-distance * distance / 2).exp()
    expected = (kernel @ values.double()) / kernel.sum(1, keepdim=True)
    filtered = PermutohedralLattice(features).filter_normalized(values)
    assert (filtered - expected).abs().max() < 0.25 * expected.abs().max()
    np.testing.assert_allclose(PermutohedralLattice(features).filter_normalized(torch.ones(168, 1)), 1, rtol=1e-5)


def test_deviations_too_small_for_the_lattice_are_refused() -> None:
    image = torch.from_numpy(random_array(3, 30, 40)) * 1e4
    with pytest.raises(ValueError, match="standard deviations are too small"):
        PermutohedralLattice(bilateral_features(image, 1e-3, 1e-4))


CRF = "pos_xy_std: 3 pos_w: 3 bi_xy_std: 20 bi_rgb_std: 10 bi_w: 5 max_iter: 3"


def crf_text(param: str = CRF, bottoms: str = "s d i", **shapes: Any) -> str:
    sizes = {"s": (2, 4, 9, 8), "d": (2, 1, 1, 2), "i": (2, 3, 9, 8)} | shapes
    read = " ".join(f'bottom: "{name}"' for name in bottoms.split())
    return net_text(f'type: "DenseCRF" {read} top: "y" dense_crf_param {{ {param} }}', **sizes)


def run_crf(text: str, **inputs: Any) -> np.ndarray[Any, Any]:
    return run_blobs(to_torch(read_net(text)), inputs)["y:y"]


def test_only_the_real_part_of_each_item_is_inferred() -> None:
    scores, image = random_array(2, 4, 9, 8), random_array(2, 3, 9, 8) * 50
    sizes = np.array([[7, 5], [9, 8]], np.float32).reshape(2, 1, 1, 2)
    y = run_crf(crf_text(), s=scores, d=sizes, i=image)
    assert (y[0, :, 7:] == 0).all()
    assert (y[0, :, :, 5:] == 0).all()
    alone = run_crf(
        crf_text(s=(1, 4, 7, 5), d=(1, 1, 1, 2), i=(1, 3, 7, 5)),
        s=scores[:1, :, :7, :5],
        d=np.array([7, 5], np.float32).reshape(1, 1, 1, 2),
        i=image[:1, :, :7, :5],
    )
    np.testing.assert_allclose(y[:1, :, :7, :5], alone, atol=1e-6)
    np.testing.assert_allclose(y.sum(1)[1], 1, rtol=1e-5)


def test_every_item_uses_the_colors_of_the_first_image() -> None:
    scores, image = random_array(2, 4, 9, 8), random_array(2, 3, 9, 8) * 50
    sizes = np.full((2, 1, 1, 2), 100, np.float32)
    y = run_crf(crf_text(), s=scores, d=sizes, i=image)
    swapped = run_crf(crf_text(), s=scores[::-1].copy(), d=sizes, i=image)
    np.testing.assert_allclose(y, swapped[::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("param", "bottoms", "shapes", "words"),
    [
        ("pos_xy_std: 3", "s d i", {}, "pos_w"),
        ("bi_xy_std: 3 bi_w: 1", "s d i", {}, "bi_rgb_std"),
        (CRF, "s d", {}, "no image"),
        ("pos_xy_std: 0 pos_w: 1", "s d i", {}, "above 0"),
        (CRF, "s d i", {"d": (1, 1, 1, 2)}, "height and width"),
        (CRF, "s d i", {"i": (2, 3, 9, 9)}, "image of the scores"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(param: str, bottoms: str, shapes: dict[str, Any], words: str) -> None:
    with pytest.raises(NetError, match=words):
        read_net(crf_text(param, bottoms, **shapes))


def test_without_colors_no_image_is_needed() -> None:
    y = run_crf(
        crf_text("pos_xy_std: 3 pos_w: 3", "s d", s=(1, 4, 9, 8), d=(1, 1, 1, 2)),
        s=random_array(1, 4, 9, 8),
        d=np.full((1, 1, 1, 2), 9, np.float32),
        i=random_array(2, 3, 9, 8),
    )
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-5)


def test_ccnn_gives_the_labels_of_the_same_crf() -> None:
    scores = random_array(1, 4, 9, 8) * 2
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 9, 8)).astype(np.float32)
    param = "x_gauss: 3 y_gauss: 3 wt_gauss: 2 wt_bilateral: 4 " + " ".join(
        f"{name}_bilateral: {value}" for name, value in {"x": 20, "y": 20, "r": 10, "g": 10, "b": 10}.items()
    )
    text = net_text(
        f'type: "DenseCRF" bottom: "s" bottom: "i" top: "y" densecrf_param {{ {param} }}', s=scores.shape, i=image.shape
    )
    labels = run_blobs(to_torch(read_net(text)), {"s": scores, "i": image})["y:y"]
    same = DenseCRF(10, ((3.0, 2.0),), ((20.0, 10.0, 4.0),))
    # RGB there
    q = same(torch.from_numpy(scores), torch.tensor([[[[9, 8]]]]), torch.from_numpy(image[:, ::-1].copy()))
    np.testing.assert_array_equal(labels, q.argmax(1, keepdim=True).float().numpy())
    with pytest.raises(NetError, match="above 0"):
        read_net(text.replace("r_bilateral: 10", ""))


def test_meanfield_of_identity_matrices_is_the_plain_crf() -> None:
    """W = w I and C = -I is a Potts model; CRF-RNN stops before the last softmax."""
    scores, image = random_array(2, 4, 9, 8), random_array(2, 3, 9, 8) * 50
    text = net_text(
        'type: "MultiStageMeanfield" bottom: "u" bottom: "q" bottom: "i" top: "y" multi_stage_meanfield_param '
        "{ num_iterations: 3 theta_alpha: 20 theta_beta: 10 theta_gamma: 3 }",
        u=scores.shape,
        q=scores.shape,
        i=image.shape,
    )
    eye = np.eye(4, dtype=np.float32).reshape(1, 1, 4, 4)
    net = read_net(text, {"y": [3 * eye, 5 * eye, -eye]})
    y = run_blobs(to_torch(net), {"u": scores, "q": scores, "i": image})["y:y"]
    for item in range(2):
        alone = crf_text(s=(1, 4, 9, 8), d=(1, 1, 1, 2), i=(1, 3, 9, 8))
        size = np.full((1, 1, 1, 2), 9, np.float32)
        q = run_crf(alone, s=scores[item : item + 1], d=size, i=image[item : item + 1])
        np.testing.assert_allclose(torch.from_numpy(y[item : item + 1]).softmax(1).numpy(), q, atol=1e-5)
    with pytest.raises(NetError, match="num_iterations"):
        read_net(text.replace("num_iterations: 3", "num_iterations: 1"))
    with pytest.raises(ExportError, match="MultiStageMeanfield"):
        export_onnx(net, to_torch(net))


def domain_transform(x: Any, gradient: Any, rounds: int, spatial: float, reach: float) -> np.ndarray[Any, Any]:
    """Gastal and Oliveira's recursion, pixel by pixel, in double precision."""
    y = x.astype(np.float64).copy()
    for number in range(rounds):
        sigma = spatial * np.sqrt(3) * 2 ** (rounds - number - 1) / np.sqrt(4**rounds - 1)
        weight = np.exp(-np.sqrt(2) / sigma * (1 + spatial / reach * gradient.astype(np.float64)))
        for turned in (False, True):
            view, w = (y.transpose(0, 2, 1), weight.T) if turned else (y, weight)
            for j in range(1, view.shape[2]):
                view[:, :, j] += w[:, j] * (view[:, :, j - 1] - view[:, :, j])
            for j in range(view.shape[2] - 2, -1, -1):
                view[:, :, j] += w[:, j + 1] * (view[:, :, j + 1] - view[:, :, j])
    return y


def test_domain_transform_stays_within_each_items_size() -> None:
    x, gradient = random_array(2, 3, 6, 7), np.abs(random_array(2, 1, 6, 7, seed=1)) * 3
    text = net_text(
        'type: "DomainTransform" bottom: "x" bottom: "g" bottom: "d" top: "y" '
        "domain_transform_param { num_iter: 2 spatial_sigma: 10 range_sigma: 4 }",
        x=x.shape,
        g=gradient.shape,
        d=(2, 1, 1, 2),
    )
    module = to_torch(read_net(text))
    sizes = np.array([[6, 7], [4, 1]], np.float32).reshape(2, 1, 1, 2)
    y = run_blobs(module, {"x": x, "g": gradient, "d": sizes})["y:y"]
    np.testing.assert_allclose(y[0], domain_transform(x[0], gradient[0, 0], 2, 10, 4), atol=1e-5)
    np.testing.assert_allclose(
        y[1, :, :4, :1], domain_transform(x[1, :, :4, :1], gradient[1, 0, :4, :1], 2, 10, 4), atol=1e-5
    )
    np.testing.assert_array_equal(y[1, :, 4:], x[1, :, 4:])
    np.testing.assert_array_equal(y[1, :, :, 1:], x[1, :, :, 1:])
    with pytest.raises(ValueError, match="larger than the plane"):
        run_blobs(module, {"x": x, "g": gradient, "d": np.full((2, 1, 1, 2), 8, np.float32)})
    with pytest.raises(NetError, match="above 0"):
        read_net(text.replace("range_sigma: 4", "range_sigma: 0"))
