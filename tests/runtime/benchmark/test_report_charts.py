"""The report's charts: positions of values, samples that are never left out, text that stays text."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import numpy as np
import pytest

from atrous.runtime.benchmark.report import charts
from atrous.runtime.benchmark.tables import format_number

from .drawn_results import make_subject


def parse(drawing: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawing)


def find_paths(drawing: str, style: str) -> list[np.ndarray]:
    """The points (n, 2) of all paths whose style matches."""
    paths = [e for e in parse(drawing).iter() if e.tag.endswith("path") and re.search(style, e.get("style", ""))]
    return [np.array(re.findall(r"[ML] ([\d.-]+) ([\d.-]+)", path.get("d", "")), float) for path in paths]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234, "1234"), (12345, "12345"), (0.5, "0.5"), (99.96, "100"), (3.14159, "3.14"), (2e-5, "2e-05")],
)
def test_numbers_read_well(value: float, text: str) -> None:
    assert format_number(value) == text


def test_histogram_counts_every_sample_and_shows_a_single_slow_one() -> None:
    samples = [30.0, 60.0, 120.0, 240.0, 480.0] * 100 + [30.0] * 200 + [9000.0]
    bars = find_paths(charts.draw_histogram({"network": samples}), r"fill: var\(--series-1\)")
    heights = [height for bar in bars if (height := np.ptp(bar[:, 1])) > 0]
    assert np.array(heights) / heights[0] * 300 == pytest.approx([300, 100, 100, 100, 100, 3], rel=1e-3)


def test_a_long_series_keeps_its_slowest_and_fastest_samples() -> None:
    latencies = [10.0] * 20000
    latencies[12345], latencies[777] = 17.0, 3.0
    drawing = charts.draw_time_series([index / 100 for index in range(20000)], latencies)
    (line,) = find_paths(drawing, r"stroke: var\(--series-1\)")
    x, y = line.T  # y grows downwards
    assert len(line) < 100
    assert np.median(y) - y.min() == pytest.approx(y.max() - np.median(y), abs=0.1)  # 10 is midway from 3 to 17
    assert (x[y.argmin()] - x.min()) / np.ptp(x) == pytest.approx(12345 / 20000, abs=0.003)


def test_stages_follow_each_other() -> None:
    view = make_subject("onnxruntime:fp32", 1.0, 1).stages
    drawing = charts.draw_stages(view)
    bars = find_paths(drawing, r"fill: var\(--series-1\)")
    assert len(bars) == len(view.stages) - 1
    for first, second in pairwise(bars):
        assert second[:, 0].min() == pytest.approx(first[:, 0].max(), abs=0.05)
    widths = [np.ptp(bar[:, 0]) for bar in bars]
    medians = [stage.series.typical_ms for stage in view.stages[:-1]]
    assert widths[4] / widths[2] == pytest.approx(medians[4] / medians[2], rel=0.01)
    assert "CRF" in drawing
    assert "(60%)" in drawing


def test_text_stays_text() -> None:
    hostile = "</text><script>alert(1)</script> $x$ & --> \N{CJK UNIFIED IDEOGRAPH-4E2D}"
    drawing = charts.draw_time_series([1.0, 2.0], [3.0, 4.0], name=hostile)
    assert "<script>" not in drawing
    assert hostile in "".join(parse(drawing).itertext())


def test_colors_and_font_are_the_pages() -> None:
    drawing = charts.draw_histogram({"a": [1.0, 2.0], "b": [2.0, 3.0]})
    assert set(re.findall(r"#[0-9a-f]{6}", drawing)) <= {"#000000"}  # of invisible parts
    assert "font-family" not in drawing
    assert "<style" not in drawing
