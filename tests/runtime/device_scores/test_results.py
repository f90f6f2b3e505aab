"""Labels and probabilities from scores that stay on the device between TensorRT and the dense CRF."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous import runtime
from atrous.runtime.crf import FrameCrf, dense_crf
from atrous.runtime.pipeline import Pipeline
from atrous.runtime.pipeline.segmentation import Choice, make_stages
from atrous.runtime.segmentation import Segmentation
from atrous.runtime.tiles.plan import ImagePlan, TilePlan, split_axis

from ..backends.tensorrt.machines import SharedDriver
from ..bundles import make_image
from .engines import SIZES, Emulation, compute_reference, keep_scores, open_segmenter


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_results_are_those_of_the_host(folder: Path, driver: SharedDriver, cuda_graphs: bool) -> None:
    images = [make_image(*size, seed) for size in SIZES for seed in range(3)]
    expected = compute_reference(folder, images)
    with open_segmenter(folder, driver, cuda_graphs=cuda_graphs) as segmenter:
        for image, reference in zip(images, expected, strict=True):
            np.testing.assert_array_equal(segmenter(image), reference.labels)
            both = segmenter.segment(image, probabilities=True)
            np.testing.assert_array_equal(both.labels, reference.labels)
            np.testing.assert_array_equal(both.probabilities, reference.probabilities)
        assert driver.calls["copy_on_device"] == 2 * len(images)
        assert (driver.calls["launch"] > 0) == cuda_graphs
    assert driver.list_leaks() == []


def test_only_labels_come_to_the_host(folder: Path, late: SharedDriver, emulation: Emulation) -> None:
    image = make_image(*SIZES[0])
    with open_segmenter(folder, late) as segmenter:
        segmenter(image)
        emulation.copied.clear()
        labels = segmenter(image)
        assert late.host_bytes == 0
        assert labels.nbytes == 25 * 33
        assert emulation.copied.count(labels.nbytes) == 1
        rest = sum(emulation.copied) - labels.nbytes  # a vertex count, and the range of the unary in each block
        assert rest < 0.5 * labels.nbytes
        emulation.copied.clear()
        segmenter.finish(image, segmenter.run_network(segmenter.prepare(image)))  # scores on the host
        assert max(emulation.copied) == labels.nbytes
        assert late.host_bytes > 0


@pytest.mark.parametrize("batch", [None, 2])
def test_batches(folder: Path, driver: SharedDriver, emulation: Emulation, batch: int | None) -> None:
    """Each image keeps the memory of its run; a fixed batch takes two runs for three images."""
    images = [make_image(25, 33, seed) for seed in range(3)]
    expected = compute_reference(folder, images)
    with open_segmenter(folder, driver, batch=batch) as segmenter:
        scores = keep_scores(segmenter, images)
        assert driver.calls["copy_on_device"] == (1 if batch is None else 2)
        for index in (2, 0, 1):
            np.testing.assert_array_equal(segmenter.finish(images[index], scores[index]).labels, expected[index].labels)
            held, scores[index] = emulation.allocated_bytes, None
            if index != 0:  # the last of a run
                assert emulation.allocated_bytes < held or (batch is None and index == 2)
        assert driver.host_bytes == 0


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("probabilities", [False, True])
def test_the_pipeline(folder: Path, driver: SharedDriver, batch: int, probabilities: bool) -> None:
    """Sizes mixed, on threads."""
    images = [make_image(*size, seed) for seed in range(3) for size in (*SIZES, SIZES[0])]
    expected = compute_reference(folder, images)
    with open_segmenter(folder, driver, contexts=1) as segmenter:
        stages = make_stages(
            segmenter,
            read=lambda index: images[index],
            finish=lambda index, image, result: result,
            cores=4,
            batch=batch,
            probabilities=probabilities,
        )
        with Pipeline(stages, cores=4) as pipeline:
            outcomes = list(pipeline.run(range(len(images))))
    for outcome, reference in zip(outcomes, expected, strict=True):
        assert outcome.error is None
        np.testing.assert_array_equal(outcome.value.labels, reference.labels)
        if probabilities:
            np.testing.assert_array_equal(outcome.value.probabilities, reference.probabilities)
    assert driver.calls["copy_on_device"] >= 12 / batch
    assert driver.list_leaks() == []


def test_a_batch_of_images_of_which_some_are_resized(folder: Path, late: SharedDriver) -> None:
    """They share a run of the network, and take the host's path."""
    images = [make_image(33, 33), make_image(25, 33), make_image(33, 33, 1)]
    with open_segmenter(folder, late, size=(33, 33)) as segmenter:
        expected = [segmenter(image) for image in images]
        stages = make_stages(
            segmenter, read=lambda index: images[index], finish=lambda *parts: parts[2].labels, cores=1, batch=3
        )
        network = next(stage for stage in stages if stage.name == "network")
        stages[stages.index(network)] = replace(network, batch_delay_s=5.0)
        before = late.calls["copy_on_device"]
        with Pipeline(stages, cores=1) as pipeline:
            outcomes = list(pipeline.run(range(3)))
    assert late.calls["copy_on_device"] == before
    for outcome, labels in zip(outcomes, expected, strict=True):
        np.testing.assert_array_equal(outcome.value, labels)


@pytest.mark.parametrize("instead", ["run_crf", "label"])
def test_what_replaces_the_crf_gets_scores_of_the_host(folder: Path, late: SharedDriver, instead: str) -> None:
    image, seen = make_image(*SIZES[0]), []

    def label(image: Any, raw: Any, threads: int) -> Segmentation:
        seen.append(raw)
        return segmenter.finish(image, raw)

    def run_crf(image: Any, scores: Any) -> Any:
        seen.append(scores)
        return dense_crf(image, scores=scores, parameters=segmenter.crf)

    with open_segmenter(folder, late) as segmenter:
        options: Any = {"run_crf": run_crf}
        if instead == "label":
            options = {"choose": lambda item: Choice(segmenter, label=label)}
        stages = make_stages(segmenter, read=lambda item: image, finish=lambda *parts: parts[2], cores=1, **options)
        with Pipeline(stages, cores=1) as pipeline:
            (outcome,) = pipeline.run([0])
        np.testing.assert_array_equal(outcome.value.labels, segmenter(image))
    assert [type(one) for one in seen] == [np.ndarray]


def test_what_takes_the_hosts_path(
    folder: Path, late: SharedDriver, emulation: Emulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image(*SIZES[0])
    with open_segmenter(folder, late) as segmenter:
        assert segmenter.keeps_on_device(*SIZES[0])
        assert segmenter.derive(crf=segmenter.crf, sizing=segmenter.sizing).keeps_on_device(*SIZES[0])
        assert not segmenter.derive(crf=None, sizing=segmenter.sizing).keeps_on_device(*SIZES[0])
        # scores that are on the device although they are needed on the host
        (scores,), raw = keep_scores(segmenter, [image]), segmenter.run_network(segmenter.prepare(image))
        np.testing.assert_array_equal(scores.to_host(), raw)
        for options in ({"crf": False}, {"crf": False, "probabilities": True}, {"run_crf": FrameCrf(segmenter.crf)}):
            found, expected = (segmenter.finish(image, one, **options) for one in (scores, raw))
            np.testing.assert_array_equal(found.labels, expected.labels)
        assert late.calls["copy_on_device"] == 1
        whole = TilePlan(split_axis(25, 25, 0, 8, 8), split_axis(33, 33, 0, 8, 8), False, False, 8, 8, True)
        with monkeypatch.context() as little:
            little.setattr(segmenter, "plan", lambda *size, probabilities=False: ImagePlan(1, 2, whole, fits=True))
            assert not segmenter.keeps_on_device(*SIZES[0])
            np.testing.assert_array_equal(segmenter.finish(image, scores).labels, segmenter(image))
        assert late.calls["copy_on_device"] == 1
    with open_segmenter(folder, late, size=(33, 33)) as resized:
        assert not resized.keeps_on_device(*SIZES[0])
        assert resized.keeps_on_device(33, 33)
    with open_segmenter(folder, SharedDriver(), crf_device="cpu") as on_cpu:
        assert not on_cpu.keeps_on_device(*SIZES[0])
    with runtime.load(folder, crf_device="cuda") as elsewhere:  # ONNX Runtime
        assert not elsewhere.keeps_on_device(*SIZES[0])
        elsewhere(image)
