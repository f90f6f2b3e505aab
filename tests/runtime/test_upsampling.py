"""Upsampling against OpenCV and ONNX Runtime, softmax against float64."""

from __future__ import annotations

import cv2
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from atrous.runtime.upsampling import softmax, upsample_scores


def resize_by_onnxruntime(scores: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    labels = scores.shape[0]
    node = helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode="linear", coordinate_transformation_mode=mode)
    sizes = helper.make_tensor("s", TensorProto.INT64, [4], [1, labels, *size])
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph([node], "g", value[:1], value[1:], [sizes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": scores[None]})[0][0]


@pytest.mark.parametrize(("align_corners", "mode"), [(True, "align_corners"), (False, "half_pixel")])
@pytest.mark.parametrize(
    ("low", "padded", "image"),
    [
        ((1, 1), (1, 1), (1, 1)),
        ((1, 1), (8, 9), (3, 9)),
        ((3, 4), (17, 25), (17, 25)),
        ((3, 4), (17, 25), (10, 19)),
        ((65, 65), (513, 513), (375, 500)),
    ],
)
def test_equals_onnxruntime(
    low: tuple[int, int], padded: tuple[int, int], image: tuple[int, int], align_corners: bool, mode: str
) -> None:
    scores = np.random.default_rng(0).normal(0, 5, (3, *low)).astype(np.float32)
    expected = resize_by_onnxruntime(scores, padded, mode)[:, : image[0], : image[1]]
    found = upsample_scores(scores, padded, image, align_corners=align_corners)
    assert found.shape == (3, *image)
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(scores).max())  # it places in float32


def test_half_pixel_equals_opencv() -> None:
    scores = np.random.default_rng(0).normal(0, 1, (2, 5, 7)).astype(np.float32)
    expected = cv2.resize(scores.transpose(1, 2, 0), (56, 40), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)
    found = upsample_scores(scores, (40, 56), (40, 56), align_corners=False)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_aligned_corners_keep_the_grid() -> None:
    scores = np.random.default_rng(0).normal(0, 1, (2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(upsample_scores(scores, (17, 25), (17, 25))[:, ::8, ::8], scores)


def test_softmax() -> None:
    scores = np.random.default_rng(0).normal(0, 300, (4, 5, 6)).astype(np.float32)
    scores[:, 0, 0] = [1e38, -1e38, 1e38, 0]
    exact = np.exp(scores.astype(np.float64) - scores.max(0))
    np.testing.assert_allclose(softmax(scores), exact / exact.sum(0), rtol=0, atol=1e-6)
    assert softmax(scores).dtype == np.float32
