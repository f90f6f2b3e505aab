"""Tiles cover an image, overlap as asked, and fit the limit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from atrous.bundle.crf_parameters import BilateralTerm, CrfParameters
from atrous.bundle.manifest import Footprint
from atrous.runtime.tiles.memory import MemoryModel
from atrous.runtime.tiles.plan import ImagePlan, plan_image, split_axis

CRF = CrfParameters(bilateral=(BilateralTerm(40.0, 6.0, 6.0),))
NEAR = Footprint(bytes_per_pixel=150, reach=50, effective_reach=30, stride=8)
LARGE = (3000, 4000)


def test_spans_cover_an_axis_once() -> None:
    random = np.random.default_rng(0)
    for _ in range(400):
        length, side, margin, ramp, step = (
            int(random.integers(*ends)) for ends in ((20, 900), (60, 500), (0, 15), (0, 12), (1, 9))
        )
        covered = np.zeros(length)
        for span in split_axis(length, side, margin, ramp, step):
            assert span.start % step == 0
            assert span.stop - span.start < side + step
            for part in span.parts:
                assert part.start >= span.start + (margin if span.start > 0 else 0)
                assert part.stop <= span.stop - (margin if span.stop < length else 0)
                covered[part.start : part.stop] += 1 if part.weights is None else part.weights
        np.testing.assert_allclose(covered, 1, atol=1e-6)


def plan(size: Any = LARGE, limit: float = 2e9, footprint: Any = NEAR, **options: Any) -> ImagePlan:
    crf = options.pop("crf", CRF)
    model = MemoryModel(options.pop("labels", 21), footprint, options.pop("on_host", True), crf is not None)
    return plan_image(size, options.pop("network_size", size), model, int(limit), crf=crf, multiple=8, **options)


def test_an_image_that_fits_is_whole() -> None:
    found = plan((300, 400))
    assert (found.tiles, found.fits) == (None, True)
    assert found.bytes == found.whole_bytes < 300 * 400 * 2000


def test_tiles_fit_the_limit_and_no_smaller_ones_are_taken() -> None:
    counts = []
    for limit in (1e9, 2e9, 4e9, 8e9):
        found = plan(limit=limit)
        assert found.tiles is not None
        assert found.fits
        assert found.bytes <= limit < found.whole_bytes
        counts.append(len(found.tiles.rows) * len(found.tiles.columns))
    assert counts == sorted(counts, reverse=True)


def test_the_crf_runs_whole_where_only_the_network_is_too_large() -> None:
    heavy = Footprint(bytes_per_pixel=3000, reach=50, effective_reach=30, stride=8)
    tiles = plan(limit=12e9, footprint=heavy).tiles
    assert tiles is not None
    assert (tiles.network_in_tiles, tiles.crf_in_tiles) == (True, False)


def test_overlaps_of_network_and_crf() -> None:
    tiles = plan().tiles
    assert tiles is not None
    assert (tiles.reach, tiles.is_exact, tiles.step) == (50, True, 8)
    first, second = tiles.columns[:2]
    assert first.stop - second.start >= 2 * 2 * 40 + 32
    plain = plan(crf=None, limit=1e9).tiles
    assert plain is not None
    assert all(part.weights is None for span in plain.rows for part in span.parts)  # exact scores need no blending


def test_a_reach_that_dwarfs_the_tiles_is_shortened() -> None:
    wide = Footprint(bytes_per_pixel=150, reach=5000, effective_reach=200, stride=8)
    tiles = plan(crf=None, limit=1.5e9, footprint=wide).tiles
    assert tiles is not None
    assert not tiles.is_exact
    assert 200 <= tiles.reach < 1000
    assert any(part.weights is not None for span in tiles.rows for part in span.parts)


@pytest.mark.parametrize(
    ("options", "network_in_tiles"),
    [
        ({"network_size": (512, 1024)}, False),  # resized images: the network sees them whole
        ({"can_tile_network": False}, False),
        ({"on_host": False}, False),
        ({"footprint": None}, True),
    ],
)
def test_what_runs_in_tiles(options: dict[str, Any], network_in_tiles: bool) -> None:
    limit = 10e9 if not network_in_tiles and "network_size" not in options else 2e9
    tiles = plan(limit=limit, **options).tiles
    assert tiles is not None
    assert tiles.network_in_tiles == network_in_tiles
    assert tiles.crf_in_tiles


def test_what_does_not_fit_is_said() -> None:
    found = plan(limit=1e6)
    assert not found.fits
    assert found.tiles is not None
    assert found.bytes < found.whole_bytes
    labels_only = plan(limit=1e6, network_size=(512, 1024), crf=None, can_blend=False)
    assert (labels_only.tiles, labels_only.fits) == (None, False)


def test_probabilities_count() -> None:
    more = plan(probabilities=True, limit=1e12).bytes - plan(limit=1e12).bytes
    assert more == 4 * 21 * math.prod(LARGE)
