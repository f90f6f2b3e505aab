"""Ranges from histograms, against numpy, against loops written out, and against ONNX Runtime's own calibrators."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from atrous.converter.precision.calibrate import (
    BINS,
    Histogram,
    choose_range,
    count_histograms,
    measure_divergence,
    observe,
)
from atrous.errors import PrecisionError

from .graphs import CalibrationImages, change_weight, make_deploy, make_image, run, weights_of


def make_histogram(values: Any) -> Histogram:
    histogram = Histogram(np.zeros(BINS, np.int64), float(np.abs(values).max()))
    histogram.add(np.asarray(values, np.float32))
    return histogram


def draw_values(seed: int = 0, size: int = 20000) -> Any:
    """Like activations behind a ReLU: half zeros, a long tail."""
    random = np.random.default_rng(seed)
    return np.maximum(0, random.standard_normal(size) * np.exp(random.standard_normal(size))).astype(np.float32)


def test_minmax_is_the_largest_magnitude() -> None:
    assert choose_range(make_histogram(np.array([1.0, -3.5, 2.0])), "minmax") == 3.5


@pytest.mark.parametrize("percentile", [50.0, 90.0, 99.0, 99.9, 100.0])
def test_percentile_is_numpys_but_for_a_bin(percentile: float) -> None:
    values = draw_values()
    histogram = make_histogram(values)
    found = choose_range(histogram, "percentile", percentile)
    expected = float(np.quantile(values, percentile / 100, method="inverted_cdf"))
    assert expected - 1e-6 <= found <= expected + 1.01 * histogram.largest / BINS


def test_counting_in_parts_is_counting_at_once() -> None:
    values = draw_values()
    parts = Histogram(np.zeros(BINS, np.int64), float(values.max()))
    for part in np.split(values, 10):
        parts.add(part)
    whole = make_histogram(values)
    np.testing.assert_array_equal(parts.counts, whole.counts)
    assert parts.zeros == whole.zeros == int((values == 0).sum())
    assert parts.counts.sum() + parts.zeros == values.size


def diverge_by_loops(counts: list[float], clipped: float, levels: int = 128) -> float:
    """KL(P || Q) written out from the definition in the module's docstring."""
    size = len(counts)
    p = [float(c) for c in counts]
    p[-1] += clipped
    groups: list[list[int]] = [[] for _ in range(levels)]
    for index in range(size):
        groups[index * levels // size].append(index)
    q = [0.0] * size
    for group in groups:
        full = [index for index in group if counts[index] > 0]
        for index in full:
            q[index] = sum(counts[i] for i in group) / len(full)
    total_p, total_q = sum(p), sum(q)
    result = 0.0
    for a, b in zip(p, q, strict=True):
        if a > 0:
            share = b / total_q if b > 0 else 1e-4 / total_p
            result += a / total_p * math.log(a / total_p / share)
    return result


@pytest.mark.parametrize("size", [128, 131, 300])
def test_divergence_is_its_definition(size: int) -> None:
    random = np.random.default_rng(size)
    counts = random.integers(0, 5, size).astype(np.float64)
    found = measure_divergence(counts, 7.0)
    assert found == pytest.approx(diverge_by_loops(list(counts), 7.0), rel=1e-9)


def test_entropy_clips_an_outlier_and_keeps_a_plain_range() -> None:
    plain = np.random.default_rng(0).uniform(0, 1, 50000)
    assert choose_range(make_histogram(plain), "entropy") > 0.95
    with_outlier = np.concatenate([np.abs(np.random.default_rng(1).standard_normal(50000)), [100.0]])
    assert choose_range(make_histogram(with_outlier), "entropy") < 10


def test_percentile_against_onnx_runtimes_calibrator() -> None:
    """Its percentile differs by up to a bin."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    values = draw_values(3)
    histogram = make_histogram(values)
    collector = HistogramCollector("percentile", True, BINS, 128, 99.9, "same")
    collector.collect({"x": [values]})
    (data,) = collector.compute_collection_result().values()
    theirs = float(np.abs(np.ravel(data.range_value)).max()) if hasattr(data, "range_value") else float(data[1])
    assert choose_range(histogram, "percentile", 99.9) == pytest.approx(theirs, abs=1.5 * histogram.largest / BINS)


def test_ranges_equal_onnx_runtimes_min_max(tmp_path: Path) -> None:
    from onnxruntime.quantization.calibrate import MinMaxCalibrater

    model, images = make_deploy(), [make_image(41, 49, 1), make_image(30, 70, 2)]
    onnx.save(model, tmp_path / "model.onnx")
    calibrater = MinMaxCalibrater(tmp_path / "model.onnx", augmented_model_path=str(tmp_path / "augmented.onnx"))
    calibrater.augment_graph()
    calibrater.create_inference_session()
    calibrater.collect_data(CalibrationImages(*images))
    expected = calibrater.compute_data()
    seen = observe(model, images, threads=1)
    assert len(seen) > 10
    for name, entry in seen.items():
        least, most = (float(np.ravel(end)[0]) for end in expected[name].range_value)
        assert (entry.least, entry.largest) == (least, max(abs(least), abs(most))), name


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_an_error(bad: float) -> None:
    """One element suffices, wherever it lies."""
    model = make_deploy()
    bias = weights_of(model)["conv2.bias"].copy()
    bias.reshape(-1)[2] = bad
    with pytest.raises(PrecisionError, match="conv2:conv2 is not finite"):
        observe(change_weight(model, "conv2.bias", bias), [make_image()], threads=1)


def test_observed_values_are_those_of_the_graph_on_the_images() -> None:
    """Through the real preprocessing: images go in, blobs are observed."""
    model, images = make_deploy(), [make_image(41, 49, 1), make_image(30, 70, 2)]
    seen = observe(model, images, threads=1)
    for name in ("conv1:conv1", "pool1", "fc6"):
        values = [run(model, image, [name])[0] for image in images]
        assert seen[name].largest == pytest.approx(max(np.abs(v).max() for v in values), rel=1e-6)
        assert seen[name].least == pytest.approx(min(v.min() for v in values), rel=1e-6, abs=1e-6)
        assert seen[name].size == max(v.size for v in values)
    histograms = count_histograms(model, ["pool1", "fc6"], seen, images, threads=1)
    for name, histogram in histograms.items():
        values = np.concatenate([run(model, image, [name])[0].ravel() for image in images])
        expected, _ = np.histogram(np.abs(values[values != 0]), BINS, (0, seen[name].largest))
        assert np.abs(np.cumsum(histogram.counts) - np.cumsum(expected)).max() <= 2  # on the edges of bins
        assert histogram.zeros == int((values == 0).sum())
