from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.errors import BackendError, InputError
from atrous.runtime import read_bundle
from atrous.runtime.backends.fake import FakeBackend
from atrous.runtime.benchmark.accuracy import list_crf_settings, measure_accuracy, measure_agreement, score_labels
from atrous.runtime.benchmark.plan import BenchPlan, Sample, SubjectSpec, parse_subject
from atrous.runtime.benchmark.run import run_bench
from atrous.runtime.benchmark.system import System
from atrous.runtime.benchmark.timing import Clock
from atrous.runtime.segmenter import Segmenter

from ..bundles import CRF, expected_scores, make_image, write_bundle


def make_samples(count: int = 2, height: int = 25, width: int = 33) -> list[Sample]:
    """Images whose truth is what the network should say, except for a column that is void and a row that is wrong."""
    samples = []
    for seed in range(count):
        image = make_image(height, width, seed)
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        truth = expected_scores(image).argmax(0).astype(np.uint8)
        truth[0] = (truth[0] + 1) % 4
        truth[:, 0] = 255
        samples.append(Sample(f"{seed}.png", buffer.getvalue(), image, truth))
    return samples


@pytest.fixture
def bundle(tmp_path: Path):
    return read_bundle(write_bundle(tmp_path / "b", crf=CRF))


def make_plan(bundle, **changes) -> BenchPlan:
    words = {
        "bundle": bundle,
        "specs": [parse_subject("onnxruntime:fp32"), parse_subject("fake,delay_ms=2")],
        "samples": make_samples(),
        "dataset": "squares",
        "command": ["atrous", "bench"],
        "threads": 1,
        "duration_s": 0.0,
        "min_samples": 8,
        "warmup_s": 0.2,
        "repeats": 1,
        "pipeline_rounds": 0,
        "scenarios": (),
        "curve": False,
        "roofline": False,
    }
    return BenchPlan(**{**words, **changes})


def test_a_run_holds_every_view(bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlperf_loadgen")
    steps: list[str] = []
    plan = make_plan(bundle, scenarios=("Server", "Offline"), load_duration_s=0.05)
    result = run_bench(plan, on_step=steps.append)
    first, second = result.subjects
    assert (first.name, second.name) == ("onnxruntime:fp32", "fake:fp32,delay_ms=2")
    assert result.images == ("0.png", "1.png")
    for subject in result.subjects:
        assert subject.stages is not None
        assert [stage.name for stage in subject.stages.stages] == [
            "decode",
            "prepare",
            "compute",
            "scores",
            "crf",
            "labels",
            "encode",
            "end_to_end",
        ]
        assert set(subject.stages.absent) == {"enqueue", "h2d", "d2h"}
        parts = [stage.series.values_ms for stage in subject.stages.stages[:-1]]
        whole = subject.stages.stages[-1].series.values_ms
        assert len(whole) == 8
        # the stages are parts of the whole, and hardly anything lies between them
        assert all(sum(times) <= total for *times, total in zip(*parts, whole, strict=True))
        assert [(run.scenario, run.mode) for run in subject.load] == [
            ("Server", "performance"),
            ("Offline", "performance"),
        ]
    assert [(one.stage, one.paired) for one in result.comparisons] == [("compute", True), ("end_to_end", True)]
    assert result.comparisons[0].verdict == "regression"
    assert result.canary is not None
    assert len(result.canary.values_ms) == 8
    assert {row.crf: row.label_agreement for row in first.accuracy}["off"] == 1
    assert second.accuracy[0].label_agreement < 1
    assert any("fake backend is a formula" in warning for warning in result.warnings)
    assert "measuring the roofline" not in steps


def test_accuracy_is_that_of_the_labels(bundle) -> None:
    samples = make_samples()
    from atrous.runtime.backends import open_backend

    with Segmenter(bundle, open_backend("onnxruntime", bundle, threads=1)) as segmenter:
        plan = BenchPlan(bundle, (), samples, repeats=2)
        settings = list_crf_settings(None)
        rows, labels = measure_accuracy(plan, segmenter, None, reference_name="x", settings=settings, clock=Clock())
    (row,) = rows
    assert (labels["off"][0] == expected_scores(samples[0].image).argmax(0)).all()
    assert row.label_agreement == 1
    # of 25 x 33 pixels, 25 x 32 are judged and the 32 of the first row are wrong
    assert row.pixel_accuracy == pytest.approx(1 - 32 / (25 * 32))
    assert row.miou is not None
    assert row.miou < row.pixel_accuracy
    assert row.images == 2


def test_agreement_counts_pixels() -> None:
    ours = [np.array([[0, 1]], np.uint8), np.array([[2, 2, 2, 2]], np.uint8)]
    theirs = [np.array([[0, 2]], np.uint8), np.array([[2, 2, 2, 1]], np.uint8)]
    assert measure_agreement(ours, theirs) == pytest.approx(4 / 6)
    sample = make_samples(1)[0]
    bare = Sample(sample.name, sample.encoded, sample.image)
    assert score_labels([np.zeros((25, 33), np.uint8)], [bare], 4) == (None, None)


def test_crf_settings_shorten_the_bundles() -> None:
    from atrous.runtime.crf import CrfParameters

    parameters = CrfParameters.from_dict(CRF)
    settings = list_crf_settings(parameters)
    names = ["off", "bundle", "1 iteration", "2 iterations", "float16", "fast", "reduce=2"]  # it has 5 itself
    assert list(settings) == names
    assert settings["off"].parameters is None
    assert (settings["bundle"].parameters, settings["bundle"].shortcuts) == (parameters, {})
    assert settings["2 iterations"].parameters.iterations == 2
    assert {name: dict(settings[name].shortcuts) for name in names[-3:]} == {
        "float16": {"storage": "float16"},
        "fast": {"storage": "float16", "prune": 0.01, "settle": 0.999},
        "reduce=2": {"reduce": 2},
    }
    assert all(settings[name].parameters is parameters for name in names[-3:])
    assert list(list_crf_settings(parameters, sweep=False)) == ["off", "bundle"]
    assert list(list_crf_settings(None)) == ["off"]


def test_a_backend_with_events_times_its_own_parts(bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    class TimedBackend(FakeBackend):
        device = "cuda"
        last_timings_ms = {"enqueue": 0.2, "h2d": 0.5, "compute": 3.0, "d2h": 0.25, "latency": 3.8}  # noqa: RUF012

    monkeypatch.setattr(BenchPlan, "open", lambda *_, **__: Segmenter(bundle, TimedBackend(4)))
    system = System(BenchPlan(bundle, (), make_samples()), parse_subject("fake"), Clock())
    timings = system.time_stages(0)
    assert system.has_device_events
    assert {name: timings[name] for name in ("enqueue", "h2d", "compute", "d2h")} == {
        "enqueue": 0.2,
        "h2d": 0.5,
        "compute": 3.0,
        "d2h": 0.25,
    }
    assert "latency" not in timings
    assert dict(system.absent) == {"crf": "the CRF is off"}


def test_images_must_be_there_and_of_one_size(bundle) -> None:
    with pytest.raises(InputError, match="no images"):
        run_bench(make_plan(bundle, samples=[]))
    mixed = [*make_samples(1), *make_samples(1, 33, 41)]
    with pytest.raises(InputError, match="25x33, 33x41"):
        run_bench(make_plan(bundle, samples=mixed))


def test_a_backend_that_fails_ends_the_run(bundle) -> None:
    with pytest.raises(BackendError, match="run 2 fails"):
        run_bench(make_plan(bundle, specs=[parse_subject("fake,fail_on=2")]))


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("torch", SubjectSpec("torch")),
        ("onnxruntime:int8", SubjectSpec("onnxruntime", "int8")),
        ("onnxruntime:fp16@cuda", SubjectSpec("onnxruntime", "fp16", "cuda")),
        ("fake,delay_ms=2,fail_on=0", SubjectSpec("fake", options={"delay_ms": "2", "fail_on": "0"})),
    ],
)
def test_subjects_are_parsed(text: str, spec: SubjectSpec) -> None:
    assert parse_subject(text) == spec
    assert parse_subject(spec.name) == spec


@pytest.mark.parametrize("text", ["caffe", "fake,delay_ms", "fake,=2", ""])
def test_invalid_subjects_are_rejected(text: str) -> None:
    with pytest.raises(InputError):
        parse_subject(text)
