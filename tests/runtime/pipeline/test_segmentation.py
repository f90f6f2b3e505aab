"""The stages of a segmenter give what the segmenter gives, and share the cores as documented."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous import runtime
from atrous.runtime.backends.fake import FakeBackend
from atrous.runtime.pipeline import Pipeline
from atrous.runtime.pipeline.segmentation import STAGES, Threads, make_stages, share_cores
from atrous.runtime.segmenter import Segmentation

from ..bundles import CRF, make_image, write_bundle

SIZES = [(20, 30), (17, 17), (25, 33), (20, 30), (20, 30), (1, 1)]


def run_stages(segmenter: runtime.Segmenter, **options: Any) -> list[Segmentation]:
    stages = make_stages(
        segmenter,
        read=lambda item: make_image(*SIZES[item], seed=item),
        finish=lambda item, image, result: (item, image, result),
        threads=share_cores(2),
        **options,
    )
    with Pipeline(stages, cores=2) as pipeline:
        outcomes = list(pipeline.run(range(len(SIZES))))
    assert [outcome.error for outcome in outcomes] == [None] * len(SIZES)
    for index, outcome in enumerate(outcomes):
        item, image, _ = outcome.value
        assert item == index
        np.testing.assert_array_equal(image, make_image(*SIZES[index], seed=index))
    return [outcome.value[2] for outcome in outcomes]


@pytest.mark.parametrize("head", ["scores", "lowres", "labels"])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("crf", [None, CRF])
def test_the_same_as_one_by_one(tmp_path: Path, head: str, batch: int, crf: Mapping[str, Any] | None) -> None:
    if crf is not None:
        pytest.importorskip("atrous.runtime.crf._lattice", reason="the CRF extension is not compiled")
    wants_probabilities = head != "labels"
    with runtime.load(write_bundle(tmp_path, head, crf=crf), threads=1) as segmenter:
        found = run_stages(segmenter, probabilities=wants_probabilities, batch=batch)
        for index, result in enumerate(found):
            image = make_image(*SIZES[index], seed=index)
            alone = segmenter.segment(image, probabilities=wants_probabilities)
            np.testing.assert_array_equal(result.labels, alone.labels)
            if wants_probabilities:
                assert result.probabilities is not None
                assert alone.probabilities is not None
                np.testing.assert_array_equal(result.probabilities, alone.probabilities)
            assert list(result.timings_ms) == ["decode", *alone.timings_ms]


def test_the_stages(tmp_path: Path) -> None:
    def name_stages(crf: Mapping[str, Any] | None, backend: Any) -> dict[str, tuple[int, int | None]]:
        segmenter = runtime.load(write_bundle(tmp_path, crf=crf), backend)
        shares = share_cores(8, device=segmenter.backend.device)
        stages = make_stages(segmenter, read=lambda item: item, finish=lambda *parts: None, threads=shares)
        return {stage.name: (stage.cores, stage.max_workers) for stage in stages}

    class Device(FakeBackend):
        device = "cuda"

    local = name_stages(None, "fake")
    assert list(local) == ["decode", "prepare", "network", "labels", "encode"]
    assert local["network"] == (2, 4)
    away = name_stages(CRF, Device(4))
    assert tuple(away) == STAGES
    assert away["network"] == (0, 1)
    assert away["crf"] == (1, 8)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"cores": 2}, Threads(2, 2, 1, 2, 1)),  # images side by side
        ({"cores": 2, "images": 1}, Threads(2, 1, 2, 1, 2)),  # threads within the one image
        ({"cores": 8, "images": 3}, Threads(8, 3, 2, 3, 2)),
        ({"cores": 16}, Threads(16, 4, 4, 16, 1)),  # at most four networks hold their activations
        ({"cores": 16, "device": "cuda"}, Threads(16, 1, 16, 16, 1)),
        ({"cores": 16, "workers": {"crf": 4, "network": 2}}, Threads(16, 2, 8, 4, 4)),
        ({"cores": 2, "workers": {"crf": 5}}, Threads(2, 2, 1, 5, 1)),
        ({"cores": 2, "images": 0}, Threads(2, 1, 2, 1, 2)),
    ],
)
def test_sharing_the_cores(arguments: dict[str, Any], expected: Threads) -> None:
    assert share_cores(**arguments) == expected
