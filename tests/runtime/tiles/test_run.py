"""Labels of tiles against those of the whole image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous import runtime
from atrous.bundle.crf_parameters import CrfParameters
from atrous.errors import MemoryLimitError
from atrous.runtime.segmenter import Segmenter
from atrous.runtime.tiles.plan import ImagePlan, TilePlan, split_axis
from atrous.runtime.tiles.run import blend_tiles, label_in_tiles, score_in_tiles

from ..bundles import CRF, make_image, make_manifest, write_bundle

SIZE = (90, 120)


def make_plan(size: tuple[int, int] = SIZE, *, crf: bool = False, network: bool = True, margin: int = 0) -> TilePlan:
    rows, columns = (split_axis(length, 60, margin, 8, 8) for length in size)
    assert len(rows) > 1
    return TilePlan(rows, columns, network, crf, 8, 8, True)


def smooth_image() -> np.ndarray:
    """Areas of color with soft borders."""
    from PIL import Image

    noise = Image.fromarray(make_image(9, 12, 1))
    return np.asarray(noise.resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC))


def test_a_tile_after_another_gives_each_pixel_once() -> None:
    truth = np.random.default_rng(0).normal(size=(3, *SIZE)).astype(np.float32)
    found, seen = np.zeros_like(truth), np.zeros(SIZE, int)
    for (top, bottom, left, right), part in blend_tiles(
        make_plan(margin=5), lambda window: truth[:, window[0] : window[1], window[2] : window[3]]
    ):
        found[:, top:bottom, left:right] = part
        seen[top:bottom, left:right] += 1
    assert (seen == 1).all()
    np.testing.assert_allclose(found, truth, atol=1e-6)


def test_tiles_are_blended_without_a_step() -> None:
    """Two tiles that disagree by 1 leave no step larger than 1 / (ramp + 1)."""
    plan = TilePlan(split_axis(60, 60, 0, 8, 8), split_axis(120, 80, 4, 8, 8), True, False, 0, 8, False)
    numbers = iter((0.0, 1.0, 2.0))
    found = np.zeros(SIZE[1], np.float32)
    for (_, _, left, right), part in blend_tiles(
        plan, lambda window: np.full((1, 60, window[3] - window[2]), next(numbers), np.float32)
    ):
        found[left:right] = part[0, 0]
    assert found[0] == 0
    assert found[-1] == 1
    assert np.diff(found).max() <= 1 / 9 + 1e-6


@pytest.mark.parametrize("head", ["scores", "lowres", "labels"])
@pytest.mark.parametrize("network", [True, False])
def test_labels_without_a_crf(tmp_path: Path, head: str, network: bool) -> None:
    image = smooth_image()
    with runtime.load(write_bundle(tmp_path, head)) as segmenter:
        raw = segmenter.run_network(segmenter.prepare(image))
        whole = segmenter(image)
        plan = make_plan(network=network)
        found = label_in_tiles(segmenter, image, None if network else raw, plan)
        np.testing.assert_array_equal(found.labels, whole)
        if head != "labels":
            np.testing.assert_allclose(
                score_in_tiles(segmenter, image, make_plan()), segmenter.scores(image), atol=1e-4
            )


@pytest.mark.parametrize("crf_in_tiles", [True, False])
def test_labels_with_the_crf(tmp_path: Path, crf_in_tiles: bool) -> None:
    """The lattices of the tiles lie as those of the whole: labels differ near the tiles' ends at most."""
    image = smooth_image()
    near = CrfParameters.from_dict({**CRF, "bilateral": [{"sxy": 4.0, "srgb": 10.0, "weight": 4.0}]})
    with runtime.load(write_bundle(tmp_path), crf=near) as segmenter:
        whole = segmenter.segment(image, probabilities=True)
        plan = make_plan(crf=crf_in_tiles, margin=12 if crf_in_tiles else 0)
        found = label_in_tiles(segmenter, image, None, plan, probabilities=True)
        assert found.probabilities is not None
        assert whole.probabilities is not None
        assert (found.labels == whole.labels).mean() > 0.999
        difference = np.abs(found.probabilities - whole.probabilities)
        assert (difference > 0.02).mean() < 0.001
        assert set(found.timings_ms) == {"network", "scores", "crf", "labels"}
        plain = label_in_tiles(segmenter, image, None, plan, crf=False).labels
        np.testing.assert_array_equal(plain, segmenter.scores(image).argmax(0))


def test_a_large_image_is_labeled_in_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = smooth_image()
    with runtime.load(write_bundle(tmp_path)) as segmenter:
        whole, scores = segmenter(image), segmenter.scores(image)
        plan = ImagePlan(1, 2, make_plan(), fits=True)
        monkeypatch.setattr(Segmenter, "plan", lambda self, height, width, probabilities=False: plan)
        assert segmenter.prepare(image) == {}
        np.testing.assert_array_equal(segmenter(image), whole)
        np.testing.assert_allclose(segmenter.scores(image), scores, atol=1e-4)
        assert segmenter.probabilities(image).shape == (4, *SIZE)


def test_limit(tmp_path: Path) -> None:
    footprint = {"bytes_per_pixel": 40.0, "reach": 0, "effective_reach": 0, "stride": 1}
    deploy = {**make_manifest({})["deploy"], "footprint": footprint}
    folder = write_bundle(tmp_path / "b", crf=CRF, deploy=deploy)
    with runtime.load(folder, memory_bytes=1) as segmenter:  # 64 MB are left in any case
        assert segmenter.plan(100, 100).tiles is None
        tiles = segmenter.plan(1000, 1000).tiles
        assert tiles is not None
        assert tiles.describe().startswith("network and CRF in ")
        with pytest.raises(MemoryLimitError, match=r"8000x8000 pixels needs about .*: raise --memory, "):
            segmenter.plan(8000, 8000)
    fixed: dict[str, Any] = {**make_manifest({})["preprocessing"], "size_rule": {"fixed": [64, 64]}}
    with runtime.load(write_bundle(tmp_path / "f", preprocessing=fixed), memory_bytes=1) as segmenter:
        tiles = segmenter.plan(1500, 1500).tiles
        assert tiles is not None
        assert not tiles.network_in_tiles
