"""Another preprocessing than the bundle's: against NumPy, and against a bundle converted with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous import runtime
from atrous.converter import BundleOptions, PreprocessingOptions, write_bundle
from atrous.errors import BackendError, BundleError, InputError
from atrous.runtime import PixelRule
from atrous.runtime.backends.fake import FakeBackend
from atrous.runtime.backends.preprocessed import describe_pixels

from ...converter.nets import DEEPLAB, conv, data, layer, read_seeded

RULE = PixelRule((10.0, 20.0, 30.0), 0.5, "RGB")


def convert(folder: Path, **pixels: Any) -> Path:
    options = BundleOptions(preprocessing=PreprocessingOptions(**pixels), verify=False)
    write_bundle(read_seeded(DEEPLAB), folder, options)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(tmp_path_factory.mktemp("b") / "b", mean=(104.0, 117.0, 123.0))


def make_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_as_a_bundle_converted_with_it(bundle: Path, tmp_path: Path, backend: str) -> None:
    other = convert(tmp_path / "b", mean=RULE.mean, scale=RULE.scale, color_order=RULE.color_order)
    image = make_image(30, 70)  # padded to 33 x 73
    with runtime.load(other, threads=1) as converted, runtime.load(bundle, backend, threads=1, pixels=RULE) as tried:
        expected = converted.scores(image)
        np.testing.assert_allclose(tried.scores(image), expected, atol=1e-4 * np.abs(expected).max())
        assert tried.bundle.preprocessing.mean == converted.bundle.preprocessing.mean


def test_a_changed_order_keeps_the_mean_of_each_color(bundle: Path) -> None:
    present = runtime.read_bundle(bundle).preprocessing
    assert PixelRule(color_order="RGB").change(present).mean == (123.0, 117.0, 104.0)
    assert PixelRule(color_order="BGR").change(present) == present
    assert PixelRule(mean=7.0).change(present).mean == (7.0, 7.0, 7.0)
    assert describe_pixels(RULE.change(present)) == "--mean 10,20,30 --scale 0.5 --color-order RGB"


@pytest.mark.parametrize(
    ("rule", "part"),
    [
        (PixelRule(mean=(1.0, 2.0)), "1 or 3 finite"),
        (PixelRule(mean=float("nan")), "1 or 3 finite"),
        (PixelRule(scale=0.0), "not 0"),
        (PixelRule(color_order="GBR"), "one of BGR, RGB"),  # type: ignore[arg-type]
    ],
)
def test_invalid_rules(bundle: Path, rule: PixelRule, part: str) -> None:
    with pytest.raises(InputError, match=part):
        runtime.load(bundle, pixels=rule)


def test_backends_and_precisions_with_a_built_in_preprocessing(bundle: Path) -> None:
    for backend in ("fake", FakeBackend(4)):
        with pytest.raises(InputError, match="built in"):
            runtime.load(bundle, backend, pixels=RULE)
    with pytest.raises(InputError, match="fp16 network has its preprocessing built in"):
        runtime.load(bundle, precision="fp16", pixels=RULE)


def test_bundles_that_cannot_try(tmp_path: Path) -> None:
    text = (
        data(1, 3, 48, 64)
        + conv("a", "data", "a", 4, 3, "pad: 1")
        + layer("ArgMax", "m", "a", "m", "argmax_param { axis: 1 }")
    )
    write_bundle(read_seeded(text), tmp_path / "b", BundleOptions(verify=False))
    with pytest.raises(BackendError, match="no other preprocessing can be tried"):
        runtime.load(tmp_path / "b", pixels=RULE)
    convert(tmp_path / "c")
    (tmp_path / "c" / "model.onnx").unlink()
    with pytest.raises(BundleError):
        runtime.load(tmp_path / "c", pixels=RULE)
