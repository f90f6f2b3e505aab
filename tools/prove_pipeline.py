"""Tests of the pipeline on a bundle and a folder of images; the last line of each is one JSON object.

    python -m tools.prove_pipeline throughput BUNDLE IMAGES   each stage alone, then all together; a plot
    python -m tools.prove_pipeline loop BUNDLE IMAGES         against a loop over single images, for every backend
    python -m tools.prove_pipeline kill BUNDLE IMAGES         kill -9 in the middle, resume, compare
    python -m tools.prove_pipeline soak BUNDLE IMAGES         mixed work in a loop: memory, files, threads

Two upper bounds of throughput are measured outside the pipeline. The pipeline cannot be faster than its slowest stage
alone at its best worker count. If all stages compute on the same cores, the time per image is at least the sum of each
stage's time alone with all cores, so the rate cannot exceed 1 / sum(1 / rate of a stage alone).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .prove_endurance import bundle_argument, images_argument, soak, work_option

if TYPE_CHECKING:
    from atrous.runtime.pipeline import Stage

_BROKEN = {"broken-text.png": b"hello", "broken-empty.png": b"", "broken-half.png": None}


@click.group()
def cli() -> None:
    """Test the throughput, crash recovery and endurance of the pipeline."""


# ---- throughput ------------------------------------------------------------------------------------------------------


@cli.command()
@bundle_argument
@images_argument
@work_option
@click.option(
    "--sample",
    type=click.IntRange(min=4),
    default=24,
    show_default=True,
    help="Number of images to time each stage alone.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 50),
    default=3,
    show_default=True,
    help="Number of parts that the images are divided into.",
)
@click.option("--device-ms", type=float, help="Simulate a device: the network waits this many ms instead of computing.")
@click.option("--picture", type=click.Path(path_type=Path), help="Draw the stages' busy shares to this file.")
def throughput(
    bundle: Path, images: Path, work: Path, sample: int, rounds: int, device_ms: float | None, picture: Path | None
) -> None:
    """Time every stage alone at 1 to all cores, then the pipeline, in rounds; the figures are medians of the rounds."""
    from statistics import median

    from atrous import runtime
    from atrous.runtime.batch.images import list_images
    from atrous.runtime.pipeline.engine import count_cores
    from atrous.runtime.pipeline.segmentation import make_stages

    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    jobs = list_images([images])
    backend: Any = "onnxruntime" if device_ms is None else _make_device(bundle, device_ms)
    cores = count_cores()
    found: list[dict[str, float]] = []
    with runtime.load(bundle, backend, threads=cores) as segmenter:
        stages = make_stages(segmenter, read=runtime.read_image, finish=_encode(segmenter, work), cores=cores)
        for job in jobs[:2]:  # the first runs of a session are slower
            segmenter(runtime.read_image(job.image))
        for number in range(rounds):
            part = jobs[number::rounds]
            alone = _time_stages(stages, [job.image for job in part[:sample]], cores)
            summary, rate = _run_all(segmenter, [job.image for job in part], cores, work)
            assert summary.labeled == len(part)
            report = summary.pipeline
            assert report is not None
            best = {name: max(rates.values()) for name, rates in alone.items()}
            # Upper bound of all stages together on these cores: the times of the stages add up.
            together = 1 / sum(1 / best[stage.name] for stage in stages if stage.cores)
            slowest = min(best.values())
            found.append(
                {
                    **{f"{name} alone": value for name, value in best.items()},
                    "rate": rate,
                    "slowest": slowest,
                    "bound": min(slowest, together),
                    "share of slowest": rate / slowest,
                    "share of bound": rate / min(slowest, together),
                    "overlap": report.overlap,
                    "calls at once": report.calls_at_once,
                    "core share": report.core_share,
                    "share of own bound": report.efficiency,
                }
            )
            click.echo(report.describe())
    if picture is not None:
        from .pipeline_picture import draw_busy_shares

        draw_busy_shares(report, picture)
    middle = {name: round(median(row[name] for row in found), 3) for name in found[0]}
    workers = {stage.name: stage.most_workers for stage in report.stages}
    click.echo(json.dumps({"images": len(jobs), "rounds": rounds, "cores": cores, "workers": workers, **middle}))


# ---- against a loop --------------------------------------------------------------------------------------------------


@cli.command()
@bundle_argument
@images_argument
@work_option
@click.option("--rounds", type=click.IntRange(1, 50), default=3, show_default=True, help="Turns of both, by turns.")
@click.option(
    "--backends", default="onnxruntime,openvino,torch", show_default=True, help="Backends, separated by commas."
)
def loop(bundle: Path, images: Path, work: Path, rounds: int, backends: str) -> None:
    """Time `label_files` against reading, labeling and saving one image after the other, and compare the files."""
    from atrous import runtime
    from atrous.runtime.batch.images import list_images

    paths = [found.image for found in list_images([images])]
    has_crf = runtime.read_bundle(bundle).manifest.crf is not None
    rows: list[dict[str, Any]] = []
    for backend in backends.split(","):
        for crf in (False, True) if has_crf else (False,):
            with runtime.load(bundle, backend, crf=crf) as segmenter:
                for path in paths[:2]:  # the first runs of a session are slower
                    segmenter(path)
                rows.append({"backend": backend, "crf": crf, **_time_both(segmenter, paths, work, rounds)})
            click.echo(json.dumps(rows[-1]))
    click.echo(json.dumps({"images": len(paths), "rounds": rounds, "rows": rows}))


def _time_both(segmenter: Any, paths: Sequence[Path], work: Path, rounds: int) -> dict[str, float]:
    """Median seconds of a loop and of the pipeline over the rounds, and their ratio; the files must be equal."""
    from atrous.runtime.pipeline.engine import count_cores

    def run_loop() -> None:
        finish = _encode(segmenter, work / "loop")
        for path in paths:
            finish(path, None, segmenter.segment(path))

    def run_pipeline() -> None:
        _run_all(segmenter, paths, count_cores(), work / "pipeline")

    spent_s: dict[Callable[[], None], list[float]] = {run_loop: [], run_pipeline: []}
    for number in range(rounds):
        shutil.rmtree(work, ignore_errors=True)
        for run in sorted(spent_s, key=lambda run: (run is run_loop) == bool(number % 2)):
            start_s = time.perf_counter()
            run()
            spent_s[run].append(time.perf_counter() - start_s)
        for path in paths:
            one, other = work / "loop" / f"{path.stem}.alone.png", work / "pipeline" / f"{path.stem}.png"
            assert one.read_bytes() == other.read_bytes(), path
    loop_s, pipeline_s = map(statistics.median, spent_s.values())
    return {"loop_s": round(loop_s, 2), "segment_s": round(pipeline_s, 2), "ratio": round(pipeline_s / loop_s, 3)}


def _run_all(segmenter: Any, images: Sequence[Path], cores: int, work: Path) -> tuple[Any, float]:
    """Label images as `atrous segment` does; return the summary and the images per second."""
    from atrous.runtime.batch import label_files

    start_s = time.perf_counter()
    summary = label_files(segmenter, images, work, cores=cores)
    return summary, summary.labeled / (time.perf_counter() - start_s)


def _encode(segmenter: Any, work: Path) -> Callable[[Any, Any, Any], None]:
    from atrous.bundle.files import write_file
    from atrous.runtime.batch.results import encode_results, measure_classes

    def finish(item: Path, image: Any, result: Any) -> None:
        outputs = {"labels": work / f"{item.stem}.alone.png"}
        for path, content in encode_results(image, result, segmenter.bundle.manifest, outputs).items():
            write_file(path, content)
        measure_classes(result.labels, segmenter.bundle.manifest.classes)

    return finish


def _make_device(bundle: Path, delay_ms: float) -> Any:
    from atrous.runtime import read_bundle
    from atrous.runtime.backends.fake import FakeBackend

    class Device(FakeBackend):
        device = "stand-in"

    opened = read_bundle(bundle)
    return Device(len(opened.manifest.classes), input_name=opened.deploy.input, delay_ms=delay_ms)


def _time_stages(stages: Sequence[Stage], items: Iterable[Any], cores: int) -> dict[str, dict[int, float]]:
    """Measure items per second of each stage alone, fed from memory, by worker count."""
    import copy

    values = list(items)
    rates: dict[str, dict[int, float]] = {}
    for stage in stages:
        counts = [count for count in range(1, cores + 1) if count <= (stage.max_workers or cores)]
        rates[stage.name] = {}
        for count in counts:
            inputs = [copy.copy(value) for value in values]  # stages drop fields of their items
            with ThreadPoolExecutor(count) as pool:
                start_s = time.perf_counter()
                outputs = list(pool.map(stage.function, inputs))
                rates[stage.name][count] = len(values) / (time.perf_counter() - start_s)
        values = outputs
    return rates


# ---- kill ------------------------------------------------------------------------------------------------------------


@cli.command()
@bundle_argument
@images_argument
@work_option
@click.option("--kills", type=click.IntRange(1, 20), default=2, show_default=True)
def kill(bundle: Path, images: Path, work: Path, kills: int) -> None:
    """Kill -9 several times in the middle, with three broken files; the resumed run must end like a clean one."""
    shutil.rmtree(work, ignore_errors=True)
    photos = work / "photos"
    photos.mkdir(parents=True)
    for path in sorted(images.iterdir()):
        os.link(path.resolve(), photos / path.name)
    whole = next(iter(sorted(images.iterdir()))).read_bytes()
    for name, content in _BROKEN.items():
        (photos / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    total = len(list(photos.iterdir()))
    line = [sys.executable, "-m", "atrous.scripts.main", "segment", str(bundle), str(photos), "--json", "-o"]
    clean = subprocess.run([*line, str(work / "clean")], stdout=subprocess.PIPE, check=False)
    killed_at = []
    for number in range(1, kills + 1):
        process = subprocess.Popen([*line, str(work / "out")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while _count_done(work / "out") < number * total // (kills + 1) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed_at.append(_count_done(work / "out"))
    last = subprocess.run([*line, str(work / "out")], stdout=subprocess.PIPE, check=False)
    report = json.loads(last.stdout)
    images_done = [json.loads(text)["image"] for text in (work / "out/done.jsonl").read_text().splitlines()[1:] if text]
    result = {
        "images": total,
        "killed_with_done": killed_at,
        "skipped": report["skipped"],
        "labeled": report["labeled"],
        "failed": len(report["failures"]),
        "exit_codes": [clean.returncode, last.returncode],
        "done_twice": len(images_done) - len(set(images_done)),
        "lost": total - len(_BROKEN) - len(set(images_done)),
        "same_as_clean": _digest(work / "out") == _digest(work / "clean"),
    }
    click.echo(json.dumps(result))
    is_proven = result["same_as_clean"] and not result["lost"] and not result["done_twice"]
    sys.exit(0 if is_proven and result["failed"] == len(_BROKEN) else 1)


def _count_done(folder: Path) -> int:
    path = folder / "done.jsonl"
    return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0


def _digest(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".jsonl")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


cli.add_command(soak)

if __name__ == "__main__":
    cli()
