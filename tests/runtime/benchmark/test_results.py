from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from atrous.errors import InputError
from atrous.runtime.benchmark.result_file import make_schema, read_result, write_result

from .drawn_results import make_result as draw_result
from .simulation import make_result, make_subject

SAMPLE = Path(__file__).with_name("sample-version-1.json")
REPO = Path(__file__).resolve().parents[3]


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    result = make_result(make_subject(np.linspace(9, 11, 40)))
    write_result(result, tmp_path / "r.json")
    assert read_result(tmp_path / "r.json") == result
    drawn = draw_result()
    write_result(drawn, tmp_path / "d.json")
    assert read_result(tmp_path / "d.json") == drawn
    assert all(subject.pipeline is not None for subject in drawn.subjects)


def test_a_file_of_version_1_is_read_as_one_that_lacks_what_was_added(tmp_path: Path) -> None:
    older = read_result(SAMPLE)
    assert json.loads(SAMPLE.read_text())["schema_version"] == 1
    assert older.schema_version == 2
    for subject in older.subjects:
        assert (subject.pipeline, subject.crf_shortcuts) == (None, {})
        assert {run.path for run in subject.load} == {"call"}
    write_result(older, tmp_path / "r.json")
    assert read_result(tmp_path / "r.json") == older


def test_the_published_schema_is_the_schema() -> None:
    published = (REPO / "docs" / "bench-schema.json").read_text()
    assert published == make_schema(), "write runtime.benchmark.result_file.make_schema() to docs/bench-schema.json"
    properties = json.loads(make_schema())["properties"]
    assert properties["schema_version"]["const"] == 2


def test_the_sample_holds_every_view() -> None:
    result = read_result(SAMPLE)
    assert len(result.subjects) == 2
    assert result.comparisons
    assert result.canary is not None
    for subject in result.subjects:
        assert {run.scenario for run in subject.load} == {"SingleStream", "MultiStream", "Server", "Offline"}
        assert {run.mode for run in subject.load} == {"performance", "accuracy", "find-peak"}
        assert subject.curve
        assert subject.roofline is not None
        assert subject.roofline.model is not None
        assert all(row.miou is not None for row in subject.accuracy)
        assert subject.stages is not None
        rounds = {len(stage.series.values_ms) for stage in subject.stages.stages}
        assert rounds == {subject.stages.images}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 3}, "schema_version is 3, this atrous reads 1 and 2: update atrous"),
        ({"schema_version": 0}, "measure again"),
        ({"kind": "other"}, "not a result of `atrous bench`"),
        ({"subjects": []}, "subjects"),
        ({"surprise": 1}, "surprise"),
        ({"duration_s": "long"}, "duration_s"),
    ],
)
def test_invalid_results_are_rejected_by_name(tmp_path: Path, change: dict[str, object], words: str) -> None:
    content = json.loads(SAMPLE.read_text()) | change
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=words):
        read_result(tmp_path / "r.json")


def test_unreadable_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_result(tmp_path / "none.json")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InputError, match="not a result of `atrous bench`"):
        read_result(tmp_path / "text")


def test_no_number_is_nan(tmp_path: Path) -> None:
    content = json.loads(SAMPLE.read_text())
    content["subjects"][0]["stages"]["throughput_per_s"] = float("nan")
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"throughput_per_s.*finite"):
        read_result(tmp_path / "r.json")
