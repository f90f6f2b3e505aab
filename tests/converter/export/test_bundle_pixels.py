"""Mean and scale of a bundle: from the files, from options, or guessed with a warning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.converter import BundleOptions, PreprocessingOptions, read_net, write_bundle
from atrous.converter.export.pixel_rule import DEEPLAB_MEAN, find_own_mean

from ..nets import conv, data, layer, read_seeded
from .bundles import write


def pixel_rule(
    tmp_path: Path, transform: str | None, given: PreprocessingOptions
) -> tuple[Any, float, tuple[str, ...]]:
    source = data(1, 3, 9, 9)
    if transform is not None:
        source = layer("Data", "d", [], ["data", "label"], f"transform_param {{ crop_size: 9 {transform} }}")
    manifest = write(tmp_path / "b", source + conv("c", "data", "y", 4), preprocessing=given, verify=False)
    assert manifest.preprocessing is not None
    return manifest.preprocessing.mean, manifest.preprocessing.scale, manifest.warnings


@pytest.mark.parametrize(
    ("transform", "mean", "scale"),
    [
        ("mean_value: 1 mean_value: 2 mean_value: 3 scale: 0.0078125", (1, 2, 3), 0.0078125),
        ("mean_value: 127.5", (127.5,) * 3, 1),
        ("scale: 0.00390625", (0, 0, 0), 0.00390625),
        ("mean_value: 103.94", (103.94,) * 3, 1),
    ],
)
def test_mean_and_scale_of_the_data_layer(tmp_path: Path, transform: str, mean: Any, scale: float) -> None:
    """Values of the file need no warning; a data layer without a mean subtracts none."""
    assert pixel_rule(tmp_path, transform, PreprocessingOptions()) == (mean, scale, ())


def test_mean_in_another_file_is_guessed_aloud_and_the_scale_kept(tmp_path: Path) -> None:
    mean, scale, warnings = pixel_rule(tmp_path, 'mean_file: "mean.binaryproto" scale: 0.5', PreprocessingOptions())
    assert (mean, scale) == (DEEPLAB_MEAN, 0.5)
    assert any('"mean.binaryproto"' in warning and "give --mean" in warning for warning in warnings)


def test_assumed_mean_gives_a_warning(tmp_path: Path) -> None:
    mean, scale, warnings = pixel_rule(tmp_path, None, PreprocessingOptions(minimum=(20, 20)))
    assert (mean, scale) == (DEEPLAB_MEAN, 1)
    assert any("does not say the mean" in warning for warning in warnings)


@pytest.mark.parametrize("dialect", ["segnet", "enet"])
@pytest.mark.parametrize(
    "last", ["", layer("Pooling", "pool", "z", "scores", "pooling_param { global_pooling: true }")]
)
def test_the_caffe_of_segnet_subtracts_no_mean(tmp_path: Path, dialect: str, last: str) -> None:
    """Its DenseImageData, with which SegNet and ENet were trained, has no transform_param in the authors' files.

    So for scores of pixels and for those of a whole image, whose deployments differ.
    """
    text = data(1, 3, 9, 9) + conv("c", "data", "y", 4) + layer("BN", "bn", "y", "z", "bn_param { bn_mode: INFERENCE }")
    net = read_seeded(text + last, dialect=dialect)
    manifest = write_bundle(net, tmp_path / "b", BundleOptions(verify=False))
    pixels = manifest.run.inputs[0] if manifest.run is not None else manifest.preprocessing
    assert pixels is not None
    assert (pixels.mean, manifest.run is not None) == ((0, 0, 0), bool(last))
    assert sum("does not say the mean" in warning for warning in manifest.warnings) == 1
    assert any("using 0, as SegNet and ENet do" in warning for warning in manifest.warnings)


@pytest.mark.parametrize(
    ("first", "own"),
    [
        (layer("Power", "first", "data", "f", "power_param { shift: -116 }"), True),
        (layer("Power", "s", "data", "s", "power_param { scale: 0.02 }") + layer("Bias", "first", "s", "f"), True),
        (layer("Scale", "first", "data", "f", "scale_param { bias_term: true }"), True),
        (layer("Scale", "first", "data", "f"), False),
        (layer("Power", "first", "data", "f", "power_param { power: 2 shift: 1 }"), False),
    ],
)
def test_a_net_that_subtracts_its_own_mean_gets_none(tmp_path: Path, first: str, own: bool) -> None:
    text = data(1, 3, 9, 9) + first + conv("c", "f", "y", 4) + layer("Crop", "crop", ["y", "data"], "z")
    manifest = write(tmp_path / "b", text, verify=False)
    assert manifest.preprocessing is not None
    assert manifest.preprocessing.mean == ((0, 0, 0) if own else DEEPLAB_MEAN)
    assert ('layer "first"' in manifest.warnings[0]) is own


@pytest.mark.parametrize(("mean", "own"), [(110.0, True), (0.5, False)])
def test_a_batch_norm_on_the_image_shows_its_mean(mean: float, own: bool) -> None:
    text = data(1, 3, 9, 9) + layer("BatchNorm", "bn", "data", "f") + conv("c", "f", "y", 4)
    blobs = [np.full(3, mean * 2, np.float32), np.ones(3, np.float32), np.float32([2])]
    net = read_net(text, {"bn": blobs, "c": [np.zeros((4, 3, 1, 1)), np.zeros(4)]})
    assert (find_own_mean(net) is not None) is own


def test_guess_follows_the_color_order(tmp_path: Path) -> None:
    mean, _, _ = pixel_rule(tmp_path, None, PreprocessingOptions(color_order="RGB"))
    assert mean == tuple(reversed(DEEPLAB_MEAN))


def test_options_replace_the_values_of_the_file(tmp_path: Path) -> None:
    transform = "mean_value: 1 mean_value: 2 mean_value: 3 scale: 0.5"
    assert pixel_rule(tmp_path, transform, PreprocessingOptions(scale=2)) == ((1, 2, 3), 2, ())
    assert pixel_rule(tmp_path / "2", transform, PreprocessingOptions(mean=(9, 8, 7))) == ((9, 8, 7), 0.5, ())
    assert pixel_rule(tmp_path / "3", None, PreprocessingOptions(mean=(9, 8, 7))) == ((9, 8, 7), 1, ())
