"""Memory and reach of deployed nets: small ones by hand, and the scores of tiles against those of the whole image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atrous import runtime
from atrous.bundle.manifest import Footprint
from atrous.converter import BundleOptions, read_net, write_bundle
from atrous.converter.export.deploy import plan_deployment
from atrous.converter.export.footprint import measure_footprint
from atrous.runtime.tiles.plan import TilePlan, split_axis
from atrous.runtime.tiles.run import score_in_tiles

from ..nets import DEEPLAB, conv, data, layer, read_seeded, relu

POOL = layer("Pooling", "p", "a", "p", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
GROW = layer("Deconvolution", "s", "p", "s", "convolution_param { num_output: 3 kernel_size: 2 stride: 2 }")


def measure(text: str) -> Footprint:
    return measure_footprint(plan_deployment(read_net(text)))


def test_one_convolution() -> None:
    """Three channels in and five out, and the image as float32 twice; a 5 x 5 window sees two pixels around."""
    found = measure(data(1, 3, 100, 120) + conv("a", "data", "a", 5, 5, "pad: 2"))
    assert found.bytes_per_pixel == 4 * (3 + 5) + 24
    assert found.reach == 3  # half of 5, rounded up
    assert found.stride == 1


def test_pooling_and_growing() -> None:
    found = measure(data(1, 3, 100, 120) + conv("a", "data", "a", 8, 3, "pad: 1") + POOL + GROW)
    assert found.bytes_per_pixel == 4 * (3 + 8) + 24  # the convolution; then 8 + 2, then 2 + 3
    assert found.reach == 2
    assert found.stride == 2


def test_layers_in_place_and_upsampling() -> None:
    """The upsampling holds 9 planes of a quarter of the pixels and 9 whole ones; the others hold less."""
    text = data(1, 3, 128, 128) + conv("a", "data", "a", 5, 3, "pad: 1") + relu("r", "a")
    text += conv("b", "a", "b", 9, 2, "stride: 2") + layer(
        "Interp", "s", "b", "s", "interp_param { height: 128 width: 128 }"
    )
    assert measure(text).bytes_per_pixel == 4 * (9 + 9 / 4) + 24


def test_a_net_that_mixes_the_whole_plane_has_no_reach() -> None:
    text = data(1, 3, 100, 120) + conv("a", "data", "a", 4, 3, "pad: 1")
    assert measure(text + layer("MVN", "m", "a", "m")).reach is None


def test_dilated_window() -> None:
    found = measure(data(1, 3, 200, 200) + conv("a", "data", "a", 4, 3, "pad: 12 dilation: 12"))
    assert found.reach == 13
    assert found.effective_reach == 13  # two deviations of three taps 12 apart are 19.6, more than the reach


@pytest.mark.parametrize("head", ["scores", "lowres"])
def test_scores_of_tiles_are_those_of_the_whole_image(tmp_path: Path, head: str) -> None:
    """The tiles overlap by the reach and begin at multiples of the stride, so nothing changes but rounding."""
    write_bundle(read_seeded(DEEPLAB), tmp_path / "b", BundleOptions(head=head, verify=False))  # type: ignore[arg-type]
    image = np.random.default_rng(0).integers(0, 256, (210, 300, 3), dtype=np.uint8)
    with runtime.load(tmp_path / "b", threads=1) as segmenter:
        footprint = segmenter.bundle.deploy.footprint
        assert footprint is not None
        assert footprint.reach is not None
        assert footprint.stride == 8
        rows, columns = (split_axis(length, 90, 0, 0, 8) for length in image.shape[:2])
        whole = segmenter.scores(image)
        for reach in (footprint.reach, 0):
            plan = TilePlan(rows, columns, True, False, reach, 8, True)
            error = np.abs(score_in_tiles(segmenter, image, plan) - whole).max() / np.abs(whole).max()
            assert (error < 1e-5) == (reach > 0)
