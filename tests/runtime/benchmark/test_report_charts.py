"""The report's drawings: where values land, what is never left out, what text can do."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from atrous.runtime.benchmark.report import latency_charts, overview_charts, scale, svg
from atrous.runtime.benchmark.report.overview_charts import Mark, StageTime
from atrous.runtime.benchmark.report.pipeline_charts import Occupancy, Rate, draw_occupancy, draw_rates


def parse(drawing: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawing)


def find(drawing: str, tag: str, kind: str) -> list[ElementTree.Element]:
    return [e for e in parse(drawing).iter() if e.tag.endswith(tag) and kind in e.get("class", "").split()]


def test_scale_places_ends_and_middle() -> None:
    linear = scale.Scale(10, 20, 100, 200)
    assert [linear.place(value) for value in (10, 15, 20)] == [100, 150, 200]
    log = scale.Scale(1, 100, 0, 10, is_log=True)
    assert log.place(10) == pytest.approx(5)


@pytest.mark.parametrize(
    ("low", "high", "is_log"), [(0, 7, False), (-3, 1e-3, False), (0.2, 9e5, True), (31, 32, True)]
)
def test_ticks_lie_inside_and_are_few(low: float, high: float, is_log: bool) -> None:
    ticks = scale.Scale(low, high, 0, 1, is_log).ticks(6)
    assert 2 <= len(ticks) <= 9
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    assert ticks == sorted(ticks)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234, "1234"), (12345, "12.3 k"), (0.5, "0.5"), (99.96, "100"), (3.14159, "3.14"), (2e12, "2 T")],
)
def test_numbers_read_well(value: float, text: str) -> None:
    assert scale.format_number(value) == text


def test_counts_have_whole_ticks() -> None:
    assert scale.Scale(0, 2.1, 0, 1, is_count=True).ticks(5) == [0, 1, 2]


def test_scale_of_nothing_and_of_one_value() -> None:
    assert scale.make_scale([], 0, 1).high > scale.make_scale([], 0, 1).low
    single = scale.make_scale([5.0, math.nan], 0, 1)
    assert single.low < 5 < single.high


def test_histogram_counts_every_sample() -> None:
    samples = [30 + index % 7 for index in range(500)] + [900.0]
    drawing = latency_charts.draw_histogram({"network": samples})
    tips = [bar.find("{http://www.w3.org/2000/svg}title") for bar in find(drawing, "rect", "bar")]
    counts = [int(re.search(r": (\d+) of", tip.text or "").group(1)) for tip in tips if tip is not None]  # type: ignore[union-attr]
    assert sum(counts) == 501
    slowest = max(find(drawing, "rect", "bar"), key=lambda bar: float(bar.get("x", 0)))
    assert float(slowest.get("height", 0)) >= 2


def test_time_series_shows_the_slowest_of_many() -> None:
    latencies = [10.0] * 20000
    latencies[12345] = 17.0
    drawing = latency_charts.draw_time_series([index / 100 for index in range(20000)], latencies)
    bars = find(drawing, "rect", "bar")
    assert len(bars) < 1000
    top = min(float(bar.get("y", 0)) for bar in bars)
    assert top < min(float(bar.get("y", 0)) for bar in bars if float(bar.get("height", 0)) < 5) - 50


def test_waterfall_stages_follow_each_other() -> None:
    drawing = overview_charts.draw_waterfall([StageTime("decode", 10), StageTime("network", 30, 50)])
    first, second = find(drawing, "rect", "bar")
    end = float(first.get("x", 0)) + float(first.get("width", 0))
    assert float(second.get("x", 0)) == pytest.approx(end, abs=0.05)
    assert float(second.get("width", 0)) == pytest.approx(3 * float(first.get("width", 0)), rel=0.01)
    assert len(find(drawing, "line", "whisker")) == 2


def test_roofline_bends_where_memory_meets_peak() -> None:
    drawing = overview_charts.draw_roofline(100.0, 20.0, [Mark("network", 50, 60)])
    (roof,) = find(drawing, "polyline", "roof")
    corner, end = (point.split(",") for point in roof.get("points", "").split()[1:])
    assert corner[1] == end[1]


def test_front_holds_what_nothing_beats() -> None:
    marks = [Mark("a", 10, 90), Mark("b", 20, 85), Mark("c", 15, 80), Mark("d", 5, 89)]
    drawing = overview_charts.draw_accuracy_speed(marks, "mean IoU")
    (front,) = find(drawing, "polyline", "front")
    assert len(front.get("points", "").split()) == 2


def test_labels_do_not_cover_each_other() -> None:
    placed = svg.place_labels([50, 51, 52, 10], 15, 0, 100)
    assert min(abs(a - b) for index, a in enumerate(placed) for b in placed[index + 1 :]) >= 15
    assert svg.place_labels([5] * 20, 15, 0, 100)[0] == pytest.approx(0, abs=1e-9)


def test_text_stays_text() -> None:
    hostile = "</text><script>alert(1)</script>"
    drawing = overview_charts.draw_accuracy_speed([Mark(hostile, 1, 2), Mark("b", 2, 3)], hostile)
    assert "<script>" not in drawing
    assert hostile in "".join(parse(drawing).itertext())


@pytest.mark.parametrize(
    "drawing",
    [
        latency_charts.draw_histogram({}),
        latency_charts.draw_quantiles([]),
        latency_charts.draw_time_series([], []),
        overview_charts.draw_waterfall([]),
        overview_charts.draw_throughput_latency({}),
        overview_charts.draw_accuracy_speed([], "mean IoU"),
    ],
)
def test_nothing_to_draw_is_still_a_drawing(drawing: str) -> None:
    assert parse(drawing).tag.endswith("svg")


def test_bars_of_the_workers_time_are_their_shares() -> None:
    stages = [Occupancy("crf", 2.0, (0.5, 0.25, 0.25, 0.0)), Occupancy("encode", 1.0, (0.1, 0.0, 0.0, 0.0))]
    drawing = draw_occupancy(stages)
    widths = [float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', drawing)]
    assert len(widths) == 4  # nothing is drawn of what took no time
    assert widths[0] == pytest.approx(2 * widths[1], rel=1e-3)
    assert widths[1] == widths[2]
    assert widths[3] == pytest.approx(widths[0] / 5, rel=1e-2)
    assert "50% of 2.0 workers" in drawing
    assert "10% of 1.0 worker<" in drawing


def test_bounds_are_drawn_hollow_and_intervals_as_whiskers() -> None:
    drawing = draw_rates([Rate("pipeline", 10.0, 9.0, 11.0), Rate("at most, cores", 12.0, is_bound=True)])
    assert drawing.count('class="whisker"') == 3
    assert drawing.count('class="hollow') == 1
    assert drawing.count('class="bar ') == 1
    widths = [float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', drawing)]
    assert widths[0] / widths[1] == pytest.approx(10 / 12, rel=1e-3)
