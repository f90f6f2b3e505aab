"""The stages of a segmenter give its own results and use the cores as documented."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous import runtime
from atrous.runtime.backends.fake import FakeBackend
from atrous.runtime.network import Network
from atrous.runtime.pipeline import Pipeline
from atrous.runtime.pipeline.segmentation import STAGES, make_stages
from atrous.runtime.segmenter import Segmentation

from ..bundles import CRF, make_image, write_bundle

SIZES = [(20, 30), (17, 17), (25, 33), (20, 30), (20, 30), (1, 1)]


def run_stages(segmenter: runtime.Segmenter, **options: Any) -> list[Segmentation]:
    stages = make_stages(
        segmenter,
        read=lambda item: make_image(*SIZES[item], seed=item),
        finish=lambda item, image, result: (item, image, result),
        cores=2,
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


def test_a_graph_of_a_fixed_batch_gets_whole_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with runtime.load(write_bundle(tmp_path), threads=1) as segmenter:
        alone = [segmenter(make_image(*size, seed=index)) for index, size in enumerate(SIZES)]
        monkeypatch.setattr(Network, "fixed_batch", 3)
        run, batches = segmenter.backend.run, []
        monkeypatch.setattr(
            segmenter.backend, "run", lambda feeds: batches.append(len(next(iter(feeds.values())))) or run(feeds)
        )
        found = run_stages(segmenter)
    assert set(batches) == {3}
    for result, labels in zip(found, alone, strict=True):
        np.testing.assert_array_equal(result.labels, labels)


def test_the_stages(tmp_path: Path) -> None:
    def name_stages(
        crf: Mapping[str, Any] | None, backend: Any, **workers: int
    ) -> dict[str, tuple[int, int | None, int | None, bool]]:
        segmenter = runtime.load(write_bundle(tmp_path, crf=crf), backend)
        stages = make_stages(
            segmenter, read=lambda item: item, finish=lambda *parts: None, cores=8, workers=workers or None
        )
        return {stage.name: (stage.cores, stage.max_cores, stage.max_workers, stage.waits) for stage in stages}

    class Device(FakeBackend):
        device = "cuda"

    local = name_stages(None, "fake")
    assert list(local) == ["decode", "prepare", "network", "labels", "encode"]
    assert local["network"] == (8, None, 1, True)  # one call with all cores
    assert {local[name] for name in ("decode", "prepare", "labels", "encode")} == {(1, None, None, False)}
    away = name_stages(CRF, Device(4))
    assert tuple(away) == STAGES
    assert away["network"] == (0, None, 1, True)
    assert away["crf"] == (1, 8, None, True)
    assert name_stages(None, "fake", network=2)["network"] == (4, None, 2, True)


def test_a_crf_call_gets_the_cores_it_was_granted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image at a time: network and CRF have all cores in turn."""
    threads: list[int | None] = []
    finish = runtime.Segmenter.finish

    def spy(self: runtime.Segmenter, *arguments: Any, **options: Any) -> Segmentation:
        threads.append(options["threads"])
        return finish(self, *arguments, **options)

    monkeypatch.setattr(runtime.Segmenter, "finish", spy)
    pytest.importorskip("atrous.runtime.crf._lattice", reason="the CRF extension is not compiled")
    with runtime.load(write_bundle(tmp_path, crf=CRF), "fake", threads=3) as segmenter:
        stages = make_stages(segmenter, read=lambda item: make_image(9, 9, item), finish=lambda *parts: None, cores=3)
        with Pipeline(stages, cores=3, max_alive=1) as pipeline:
            assert [result.error for result in pipeline.run(range(4))] == [None] * 4
    assert threads == [3] * 4
