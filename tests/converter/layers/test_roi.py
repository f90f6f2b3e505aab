"""Region pooling and region proposals: against ONNX Runtime's operator, and against loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from atrous.converter import read_net
from atrous.errors import NetError

from .converting import Twin, net_text, random_array


def random_regions(count: int, items: int, size: float) -> np.ndarray[Any, Any]:
    """Boxes in pixels; some lie outside, some are inverted, some end on half cells."""
    random = np.random.default_rng(3)
    corners = random.uniform(-0.3 * size, 1.3 * size, (count, 4))
    corners[: count // 2] = np.round(corners[: count // 2] / 4) * 4
    return np.concatenate([random.integers(0, items, (count, 1)), corners], 1).astype(np.float32)


@pytest.mark.parametrize("scale", [0.0625, 0.125, 1.0])
@pytest.mark.parametrize("size", [(7, 7), (1, 3), (2, 5)])
def test_roi_pooling_equals_max_roi_pool(scale: float, size: tuple[int, int]) -> None:
    """ONNX Runtime's MaxRoiPool is an independent implementation of Fast R-CNN's layer."""
    regions = random_regions(60, 2, 12 / scale)
    param = f"roi_pooling_param {{ pooled_h: {size[0]} pooled_w: {size[1]} spatial_scale: {scale} }}"
    layer = f'type: "ROIPooling" bottom: "x" bottom: "r" top: "y" {param}'
    twin = Twin(net_text(layer, x=(2, 3, 12, 13), r=regions.shape))
    assert twin.run(0, x=random_array(2, 3, 12, 13), r=regions)["y"].shape == (60, 3, *size)
    assert [node.op_type for node in twin.model.graph.node] == ["MaxRoiPool"]


def test_roi_pooling_by_hand() -> None:
    """Both ends belong to the region, halves round away from 0: columns round(4.5) = 5 to 7, rows 0 to 2."""
    x = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
    regions = np.float32([[0, 9, 0, 14, 4]]).reshape(1, 5, 1, 1)
    param = "roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.5 }"
    layer = f'type: "ROIPooling" bottom: "x" bottom: "r" top: "y" {param}'
    y = Twin(net_text(layer, x=x.shape, r=regions.shape)).run(0, x=x, r=regions)["y"]
    np.testing.assert_array_equal(y, [[[[14, 15], [22, 23]]]])


def position_sensitive(x: Any, regions: Any, channels: int, grid: int, scale: float) -> np.ndarray[Any, Any]:
    f = np.float32
    top = np.zeros((len(regions), channels, grid, grid), np.float32)
    away = lambda v: np.sign(v) * np.floor(abs(v) + 0.5)  # noqa: E731
    for n, (item, *box) in enumerate(regions):
        start = [f(away(v)) * f(scale) for v in box[:2]]
        end = [f(away(v) + 1) * f(scale) for v in box[2:]]
        bins = [max(e - s, f(0.1)) / f(grid) for s, e in zip(start, end, strict=True)]
        for c, i, j in np.ndindex(channels, grid, grid):
            low = [int(np.floor(f(k) * b + s)) for k, b, s in zip((j, i), bins, start, strict=True)]
            high = [int(np.ceil(f(k + 1) * b + s)) for k, b, s in zip((j, i), bins, start, strict=True)]
            (left, upper), (right, lower) = (
                [min(max(v, 0), limit) for v, limit in zip(pair, (x.shape[3], x.shape[2]), strict=True)]
                for pair in (low, high)
            )
            if right > left and lower > upper:
                window = x[int(item), (c * grid + i) * grid + j, upper:lower, left:right]
                top[n, c, i, j] = window.mean(dtype=np.float64)
    return top


@pytest.mark.parametrize("scale", [0.0625, 0.5])
def test_position_sensitive_roi_pooling(scale: float) -> None:
    x, regions = random_array(2, 2 * 9, 12, 13), random_regions(40, 2, 12 / scale)
    param = f"psroi_pooling_param {{ output_dim: 2 group_size: 3 spatial_scale: {scale} }}"
    text = net_text(f'type: "PSROIPooling" bottom: "x" bottom: "r" top: "y" {param}', x=x.shape, r=regions.shape)
    y = Twin(text).run(x=x, r=regions)["y"]
    np.testing.assert_allclose(y, position_sensitive(x, regions, 2, 3, scale), atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "x", "r", "words"),
    [
        ('"ROIPooling"', (1, 3, 8, 8), (4, 5), "pooled_h"),
        ('"ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 2 }', (1, 3, 8), (4, 5), "features"),
        ('"ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 2 }', (1, 3, 8, 8), (4, 4), "regions"),
        (
            '"PSROIPooling" psroi_pooling_param { output_dim: 2 group_size: 3 spatial_scale: 1 }',
            (1, 12, 8, 8),
            (4, 5),
            "channels",
        ),
        (
            '"PSROIPooling" psroi_pooling_param { output_dim: 0 group_size: 3 spatial_scale: 1 }',
            (1, 12, 8, 8),
            (4, 5),
            "above 0",
        ),
    ],
)
def test_parameters_that_do_not_fit_are_refused(layer: str, x: Any, r: Any, words: str) -> None:
    with pytest.raises(NetError, match=words):
        read_net(net_text(f'type: {layer} bottom: "x" bottom: "r" top: "y"', x=x, r=r))


PROPOSAL = (
    'type: "Proposal" bottom: "s" bottom: "b" bottom: "i" top: "rois" top: "scores" proposal_param '
    "{ ratio: 0.5 ratio: 2 scale: 2 feat_stride: 16 min_size: 16 pre_nms_topn: 40 post_nms_topn: 12 nms_thresh: 0.6 }"
)


def propose_by_hand(scores: Any, codes: Any, info: Any) -> list[list[float]]:
    """Faster R-CNN's proposals, box by box."""
    anchors = []
    for ratio in (0.5, 2):
        width = np.floor(np.sqrt(256 / ratio) + 0.5)
        height = np.floor(width * ratio + 0.5)
        half = [0.5 * (2 * width - 1), 0.5 * (2 * height - 1)]
        anchors.append([7.5 - half[0], 7.5 - half[1], 7.5 + half[0], 7.5 + half[1]])
    height, width, scale = info
    rows = []
    for h, w, k in np.ndindex(*scores.shape[2:], 2):
        x1, y1, x2, y2 = np.array(anchors[k]) + [16 * w, 16 * h] * 2
        dx, dy, dw, dh = codes[0, 4 * k : 4 * k + 4, h, w].astype(np.float64)
        own = x2 - x1 + 1, y2 - y1 + 1
        cx, cy = x1 + own[0] / 2 + dx * own[0], y1 + own[1] / 2 + dy * own[1]
        half = np.exp(dw) * own[0] / 2, np.exp(dh) * own[1] / 2
        box = [
            min(max(v, 0), limit - 1)
            for v, limit in zip(
                (cx - half[0], cy - half[1], cx + half[0], cy + half[1]), (width, height) * 2, strict=True
            )
        ]
        large = box[2] - box[0] + 1 >= 16 * scale and box[3] - box[1] + 1 >= 16 * scale
        rows.append([*box, float(scores[0, 2 + k, h, w]) * large])
    rows.sort(key=lambda row: -row[4])
    kept: list[list[float]] = []
    for row in rows[:40]:
        for other in kept:
            size = [max(0, min(row[k + 2], other[k + 2]) - max(row[k], other[k]) + 1) for k in (0, 1)]
            areas = [(r[2] - r[0] + 1) * (r[3] - r[1] + 1) for r in (row, other)]
            if size[0] * size[1] / (sum(areas) - size[0] * size[1]) > 0.6:
                break
        else:
            kept.append(row)
    return kept[:12]


def test_proposals() -> None:
    scores = np.random.default_rng(0).uniform(0.1, 1, (1, 4, 5, 6)).astype(np.float32)
    codes = random_array(1, 8, 5, 6) * 0.3
    info = np.float32([[75, 90, 1.25]])
    twin = Twin(net_text(PROPOSAL, s=scores.shape, b=codes.shape, i=info.shape))
    blobs = twin.run(s=scores, b=codes, i=info)
    expected = np.array(propose_by_hand(scores, codes, info[0]))
    np.testing.assert_allclose(blobs["rois"][:, 1:], expected[:, :4], atol=1e-3)
    np.testing.assert_allclose(blobs["scores"], expected[:, 4], atol=1e-6)
    assert (blobs["rois"][:, 0] == 0).all()


HEAD = """
layer { name: "pool" type: "ROIPooling" bottom: "x" bottom: "rois" top: "pool"
  roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.0625 } }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc" inner_product_param { num_output: 3 } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""


@pytest.mark.parametrize("rows", [(5, 6), (3, 4)])
def test_a_head_takes_any_number_of_proposals(rows: tuple[int, int]) -> None:
    """Few candidates give fewer boxes than post_nms_topn; the layers after the pooling follow."""
    random = np.random.default_rng(0)
    layer = PROPOSAL.replace('top: "scores" ', "").replace("nms_thresh: 0.6", "nms_thresh: 0.05")
    text = net_text(layer, s=(1, 4, 5, 6), b=(1, 8, 5, 6), i=(1, 3), x=(1, 2, 5, 6))
    net = read_net(text + HEAD, {"fc": [random_array(3, 8), random_array(3)]})
    twin = Twin(text + HEAD, {"fc": [random_array(3, 8), random_array(3)]})
    blobs = twin.run(
        1e-5,
        s=random.uniform(0.1, 1, (1, 4, *rows)),
        b=random.normal(0, 0.3, (1, 8, *rows)),
        i=[[16 * rows[0], 16 * rows[1], 1]],
        x=random.normal(0, 1, (1, 2, *rows)),
    )
    assert 0 < len(blobs["prob"]) == len(blobs["rois"]) < 12
    assert net.outputs[0].shape == (12, 3)


def test_proposals_of_py_faster_rcnn() -> None:
    """Its Python layer leaves small boxes out; the settings are those of its TEST phase."""
    random = np.random.default_rng(1)
    layer = (
        'type: "Python" bottom: "s" bottom: "b" bottom: "i" top: "rois" python_param '
        "{ module: 'rpn.proposal_layer' layer: 'ProposalLayer' param_str: \"'feat_stride': 16\" }"
    )
    scores = random.uniform(0.1, 1, (1, 18, 4, 5)).astype(np.float32)
    codes = random.normal(0, 0.3, (1, 36, 4, 5)).astype(np.float32)
    codes[:, 2::4] -= 2
    info = np.float32([[64, 80, 2]])
    twin = Twin(net_text(layer, s=scores.shape, b=codes.shape, i=info.shape))
    rois = twin.run(1e-5, s=scores, b=codes, i=info)["rois"]
    assert 0 < len(rois) < 90
    assert (rois[:, 3:] - rois[:, 1:3] + 1 >= 32).all()
    assert "py-faster-rcnn's TEST phase" in twin.net.warnings[0]
    with pytest.raises(NetError, match="needs param_str"):
        read_net(net_text(layer.replace("'feat_stride': 16", "import os"), s=scores.shape, b=codes.shape, i=info.shape))


def test_anchors_are_those_of_py_faster_rcnn() -> None:
    """The nine anchors in the comment of its generate_anchors.py, which are MATLAB's: pixels count from 1."""
    published = [
        [-83, -39, 100, 56], [-175, -87, 192, 104], [-359, -183, 376, 200], [-55, -55, 72, 72], [-119, -119, 136, 136],
        [-247, -247, 264, 264], [-35, -79, 52, 96], [-79, -167, 96, 184], [-167, -343, 184, 360],
    ]  # fmt: skip
    np.testing.assert_array_equal(find_anchors("'feat_stride': 16", 9), np.array(published) - 1)


def find_anchors(options: str, number: int) -> np.ndarray[Any, Any]:
    layer = (
        'type: "Python" bottom: "s" bottom: "b" bottom: "i" top: "rois" python_param '
        f"{{ module: 'rpn.proposal_layer' layer: 'ProposalLayer' param_str: \"{options}\" }}"
    )
    net = read_net(net_text(layer, s=(1, 2 * number, 4, 5), b=(1, 4 * number, 4, 5), i=(1, 3)))
    return np.array(net.layers[0].operator.module_spec().arguments["anchors"])


@pytest.mark.parametrize(
    "options",
    [
        r"'feat_stride': 16 \n'scales': !!python/tuple [3, 6, 9]\n'ratios': [0.5, 0.667, 1, 1.5]",
        "{'feat_stride': 16, 'num_classes': 21, 'ratios': [0.5, 0.667, 1, 1.5], 'scales': [3, 6, 9]}",
        "{feat_stride: 16, ratios: [0.5, 0.667, 1, 1.5], scales: [3, 6, 9]}",
    ],
)
def test_scales_and_ratios_of_proposals(options: str) -> None:
    """Of py-faster-rcnn's COCO nets and PVANet; the formula of generate_anchors.py by hand."""
    expected = []
    for ratio in (0.5, 0.667, 1, 1.5):
        width = np.round(np.sqrt(256 / ratio))
        height = np.round(width * ratio)
        for scale in (3, 6, 9):
            half = 0.5 * (np.array([width, height]) * scale - 1)
            expected.append([*(7.5 - half), *(7.5 + half)])
    np.testing.assert_array_equal(find_anchors(options, 12), expected)


def test_other_options_of_proposals_are_refused() -> None:
    with pytest.raises(NetError, match="has 'base_size' in its param_str"):
        find_anchors("{'feat_stride': 16, 'base_size': 8}", 9)


@pytest.mark.parametrize(
    ("old", "new", "shapes", "words"),
    [
        ("scale: 2", "", {}, "a ratio and a scale"),
        ("scale: 2", "scale: 2 scale: 4", {}, "4 anchors"),
        ("post_nms_topn: 12", "post_nms_topn: 0", {}, "above 0"),
        ("", "", {"s": (2, 4, 5, 6)}, "scores of one image"),
        ("", "", {"i": (1, 2)}, "im_info"),
        ("scale: 2", "scale: nan", {}, "above 0"),
        ("scale: 2", "scale: 2 " * 1001, {}, "more than 1,000 anchors"),
    ],
)
def test_proposals_that_do_not_fit(old: str, new: str, shapes: dict[str, Any], words: str) -> None:
    sizes = {"s": (1, 4, 5, 6), "b": (1, 8, 5, 6), "i": (1, 3)} | shapes
    with pytest.raises(NetError, match=words):
        read_net(net_text(PROPOSAL.replace(old, new, 1), **sizes))
