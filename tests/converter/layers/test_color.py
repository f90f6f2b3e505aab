"""ColorConv against OpenCV's conversion and against the definition of L*a*b*."""

from __future__ import annotations

import numpy as np
import pytest

from atrous.errors import NetError

from .converting import Twin, assert_exports, net_text, random_array

LAYER = 'type: "ColorConv" bottom: "x" top: "y" color_conv_param { input: 0 output: 3 }'


def colors(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


def test_agrees_with_opencv() -> None:
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless<5 is not installed")
    x = colors(2, 3, 9, 12)
    y = Twin(net_text(LAYER, x=x.shape)).run(x=x)["y"]
    for item, image in zip(y, x, strict=True):
        expected = cv2.cvtColor(np.ascontiguousarray(image.transpose(1, 2, 0)) / np.float32(255), cv2.COLOR_BGR2Lab)
        assert np.abs(item.transpose(1, 2, 0) - expected).max() < 0.5  # OpenCV's white point differs in the last digits


def test_knows_white_black_and_dark() -> None:
    x = np.array([[255, 255, 255], [0, 0, 0], [2, 2, 2]], np.float32).T.reshape(1, 3, 1, 3)
    lightness, a, b = Twin(net_text(LAYER, x=x.shape)).run(x=x)["y"][0, :, 0]
    np.testing.assert_allclose(lightness, [100, 0, 903.3 * 2 / 255 / 12.92], atol=1e-4)
    assert np.abs([a, b]).max() < 0.05  # gray has no color, except for the fork's white point


def test_exports_with_dynamic_sizes() -> None:
    twin = Twin(net_text(LAYER, x=(1, 3, 8, 8)))
    assert_exports(twin, (0, 2, 3), {"x": colors(2, 3, 8, 8)}, {"x": colors(3, 3, 5, 7)})


@pytest.mark.parametrize(
    ("layer", "channels", "words"),
    [(LAYER, 4, "needs a bottom"), (LAYER.replace("output: 3", "output: 1"), 3, "not 0 to 1")],
)
def test_refuses(layer: str, channels: int, words: str) -> None:
    with pytest.raises(NetError, match=words):
        Twin(net_text(layer, x=random_array(1, channels, 2, 2).shape))
