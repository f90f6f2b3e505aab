from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.runtime.benchmark.result_file import read_result, write_result
from atrous.runtime.pictures import encode_label_png
from atrous.scripts.bench_images import load_samples, resize_scenes
from atrous.scripts.main import main

from ..runtime.benchmark.simulated_pipeline import make_piped
from ..runtime.bundles import CRF, expected_scores, make_image, write_bundle

SAMPLE = Path(__file__).parents[1] / "runtime" / "benchmark" / "sample-version-1.json"
QUICK = ("--duration", "0", "--min-samples", "2", "--warmup", "0", "--repeats", "1", "--no-roofline", "--threads", "1")
ALONE = ("--scenario", "none", "--pipeline-rounds", "0")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", crf=CRF)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three images with labels, one of them of another size."""
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    for seed, (height, width) in enumerate(((25, 33), (25, 33), (41, 33))):
        image = make_image(height, width, seed)
        Image.fromarray(image).save(images / f"{seed}.png")
        (labels / f"{seed}.png").write_bytes(encode_label_png(expected_scores(image).argmax(0).astype(np.uint8), []))
    return images, labels


def slow_down(path: Path, factor: float) -> Path:
    """The sample result, quiet, with every end-to-end time longer by a factor."""
    content = json.loads(SAMPLE.read_text())
    random = np.random.default_rng(0)
    for subject in content["subjects"]:
        subject["noise"] = {"conclusive": True, "checks": []}
        series = subject["stages"]["stages"][-1]["series"]
        series["values_ms"] = list(random.normal(100, 1, len(series["values_ms"])) * factor)
    path.write_text(json.dumps(content))
    return path


def test_quick_leaves_out_load_and_pipeline(
    bundle: Path, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--images",
        str(folders[0]),
        "--duration",
        "0.01",
        "--warmup",
        "0.01",
        "--max-samples",
        "3",
        "--min-samples",
        "2",
        "--json",
    ]
    assert main(["bench", str(bundle), "--quick", *words]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    (subject,) = result["subjects"]
    assert subject["pipeline"] is None
    assert not subject["load"]
    assert subject["accuracy"]
    assert main(["bench", str(bundle), "--quick", "--full", *words[:2]]) == 2
    assert "exclude each other" in capsys.readouterr().err


def test_it_measures_and_writes_the_result_and_the_report(
    bundle: Path, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "r.json", tmp_path / "r.html"
    words = ["--images", str(folders[0]), "--labels", str(folders[1]), "--scenario", "none", "-o", str(out)]
    words += ["--pipeline-rounds", "2", "--pipeline-images", "4", "--fast-crf"]
    assert main(["bench", str(bundle), *QUICK, *words, "--vs", "fake", "--report", str(report)]) == 0
    result = read_result(out)
    assert [subject.name for subject in result.subjects] == ["onnxruntime:fp32", "fake:fp32"]
    assert result.dataset.endswith("(2 of 3 images are 25x33, the others are left out)")
    assert result.subjects[0].accuracy[0].miou == 1
    first = result.subjects[0]
    assert dict(first.crf_shortcuts) == {"storage": "float16", "prune": 0.01, "settle": 0.999}
    assert first.pipeline is not None
    assert (first.pipeline.images_per_round, len(first.pipeline.time_per_image.values_ms)) == (4, 2)
    assert first.pipeline.agreement == 1
    assert [row.crf for row in first.accuracy][-2:] == ["fast", "reduce=2"]
    assert report.read_text().startswith("<!")
    printed = capsys.readouterr()
    assert "end to end" in printed.out
    assert "Many images side by side\n" in printed.out
    assert "CRF with its shortcuts" in printed.out
    assert "No H2D, D2H: the network reads and writes host memory" in printed.out
    assert printed.out.index("Accuracy and speed") < printed.out.index(f"-> {out}")
    assert "fake backend is a formula" in printed.err


@pytest.mark.parametrize("option", ["-o", "--report"])
def test_outputs_that_cannot_be_written_are_rejected_before_measuring(
    option: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from atrous.runtime.benchmark import run

    monkeypatch.setattr(run, "run_bench", lambda *_, **__: pytest.fail("it measured"))
    (tmp_path / "file").touch()
    assert main(["bench", str(bundle), "--size", "40x48", option, str(tmp_path / "file" / "r")]) == 2
    assert "file: is a file; results need a folder" in capsys.readouterr().err


def test_the_tables_are_printed_even_if_the_result_cannot_be_written(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from atrous.runtime import OutputError
    from atrous.runtime.benchmark import result_file

    def refuse(result: object, path: Path) -> None:
        raise OutputError("cannot be written: No space left on device", path=path)

    monkeypatch.setattr(result_file, "write_result", refuse)
    words = ["--size", "40x48", "--count", "1", *ALONE, "-o", str(tmp_path / "r.json")]
    assert main(["bench", str(bundle), *QUICK, *words]) == 2
    printed = capsys.readouterr()
    assert "end to end" in printed.out
    assert "No space left on device" in printed.err
    assert main(["bench", str(bundle), *QUICK, *words, "--json"]) == 2
    printed = capsys.readouterr()
    assert set(json.loads(printed.out)) == {"schema_version", "command", "result", "error"}
    assert "No space left on device" in printed.err


def test_json_is_one_object(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(bundle), *QUICK, "--size", "40x48", "--count", "1", *ALONE, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["command"] == "bench"
    assert printed["result"]["subjects"][0]["image_width"] == 48
    assert printed["result"]["schema_version"] == 2


@pytest.mark.parametrize(
    ("factor", "words", "code", "verdict"),
    [
        (1.10, (), 1, "regression"),
        (1.00, (), 0, "same"),
        (0.80, (), 0, "improvement"),
        (1.10, ("--bound", "20%"), 0, "same"),
        (1.05, (), 0, "inconclusive"),
        (1.05, ("--strict",), 1, "inconclusive"),
    ],
)
def test_compare_fails_on_a_regression_beyond_the_bound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], factor: float, words: tuple[str, ...], code: int, verdict: str
) -> None:
    paths = [str(slow_down(tmp_path / f"{number}.json", by)) for number, by in enumerate((1.0, factor))]
    assert main(["bench", "compare", *paths, *words]) == code
    assert f"end_to_end: {verdict}: " in capsys.readouterr().out


def test_a_result_of_today_is_compared_by_its_throughput_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for number, image_ms in enumerate((100.0, 112.0)):
        paths.append(str(tmp_path / f"{number}.json"))
        write_result(make_piped(np.random.default_rng(number).normal(image_ms, 0.5, 9)), paths[-1])
    assert main(["bench", "compare", *paths]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["end_to_end", "pipeline"]
    assert lines[0].startswith("end_to_end: same")
    assert lines[1].startswith("pipeline: regression: onnxruntime:fp32 has 0.8")
    assert main(["bench", "compare", *reversed(paths), "--stage", "pipeline"]) == 0
    assert capsys.readouterr().out.startswith("pipeline: improvement")


def test_compare_within_a_run_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["bench", "compare", str(SAMPLE), "--stage", "compute", "--json"])
    (found,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert (found["stage"], found["paired"]) == ("compute", True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument"),
        (["nowhere"], "there is no such bundle"),
        (["{bundle}"], "no images to measure with"),
        (["{bundle}", "--labels", "{bundle}"], "give both"),
        (["{bundle}", "--size", "big"], "is not HEIGHTxWIDTH"),
        (["{bundle}", "--scenario", "Burst"], "is not one of SingleStream"),
        (["{bundle}", "--bound", "five"], "is not a share such as 5%"),
        (["{bundle}", "--size", "40x48", "--vs", "caffe"], "there is no backend"),
        (["compare", "none.json"], "cannot be read"),
    ],
)
def test_mistakes_are_one_line(
    bundle: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["bench", *(word.format(bundle=bundle) for word in arguments)]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert "\n" not in error


def test_the_miniature_brings_its_scenes_and_their_labels(bundle: Path) -> None:
    from atrous.runtime import read_bundle
    from atrous.scripts.bench_images import load_miniature
    from atrous.scripts.miniature.settings import is_miniature

    assert not is_miniature(read_bundle(bundle).manifest)
    samples = load_miniature(2)
    assert [sample.image.shape for sample in samples] == [(240, 320, 3)] * 2
    assert all(sample.truth is not None and sample.truth.max() < 7 for sample in samples)


def test_scenes_are_drawn_at_a_size_the_same_each_time(bundle: Path) -> None:
    from atrous.runtime import read_bundle

    manifest = read_bundle(bundle).manifest
    _, first = load_samples(manifest, images=None, labels=None, size=(40, 48), count=2)
    again = resize_scenes((40, 48), 2)
    assert [sample.encoded for sample in first] == [sample.encoded for sample in again]
    assert first[0].image.shape == (40, 48, 3)
    assert not np.array_equal(first[0].image, first[1].image)
