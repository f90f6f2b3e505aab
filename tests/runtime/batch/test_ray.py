"""Labeling on Ray: results and records as those of one process, kills, errors; datasets in and out."""

from __future__ import annotations

import io
import json
import runpy
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atrous import runtime
from atrous.errors import BundleError, InputError, OutputError
from atrous.runtime.batch import RayNodes, label_dataset, label_files, label_on_ray, merge_runs
from atrous.scripts.main import main

from ..bundles import CRF, make_image, write_bundle
from ..ray_cluster import NODES, kill_an_actor, ray

pytest.importorskip("pyarrow", reason="pyarrow is not installed: make ray-check")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

IMAGES = 60


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: None) -> Path:
    """The working folder, with a bundle `b` and images in `photos`, one of them broken."""
    write_bundle(tmp_path / "b")
    (tmp_path / "photos").mkdir()
    for number in range(IMAGES):
        Image.fromarray(make_image(18, 24, number)).save(tmp_path / f"photos/{number:02}.png")
    (tmp_path / "photos/broken.png").write_bytes(b"hello")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_labels(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.png")}


def read_records(folder: str) -> list[str]:
    found = Path(folder).glob("done*.jsonl")
    entries = [json.loads(line) for path in found for line in path.read_text().splitlines()[1:]]
    return sorted(Path(entry["image"]).name for entry in entries if "image" in entry)


@pytest.mark.usefixtures("folder")
def test_the_results_are_those_of_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    label_files("b", "photos", "whole")
    steps: list[int] = []
    summary = label_on_ray("b", "photos", "out", nodes=NODES, shard_images=10, advance=steps.append)
    assert (summary.labeled, summary.skipped, len(summary.failures)) == (IMAGES, 0, 1)
    assert (summary.shards, summary.actors, sum(steps)) == (8, 2, IMAGES + 1)
    assert read_labels("out") == read_labels("whole")
    assert len(read_records("out")) == len(set(read_records("out"))) == IMAGES
    again = label_on_ray("b", "photos", "out", nodes=NODES, shard_images=999)
    assert (again.labeled, again.skipped, again.shards) == (0, IMAGES, 8)
    assert merge_runs(["out"]).finished == IMAGES
    assert main(["segment", "b", "photos", "-o", "out", "--ray", "--threads", "1", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["skipped"] == IMAGES
    assert main(["segment", "b", "photos", "-o", "more", "--ray", "--threads", "1"]) == 1
    assert f"{IMAGES} labeled, 1 failed" in capsys.readouterr().out


@pytest.mark.usefixtures("folder")
def test_a_killed_actor() -> None:
    """Ray starts the actor again, and its shard resumes: nothing is lost, and nothing is recorded twice."""
    killed: list[int] = []

    def kill() -> None:
        until_s = time.monotonic() + 60
        while time.monotonic() < until_s and not killed:
            if len(list(Path("out").glob("*.png"))) >= IMAGES // 4 and (number := kill_an_actor()):
                killed.append(number)
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    options: dict[str, Any] = {"backend": "fake", "options": {"delay_ms": 60.0}}
    summary = label_on_ray("b", "photos", "out", nodes=NODES, shard_images=10, **options)
    killer.join()
    assert killed
    assert summary.labeled + summary.skipped == IMAGES
    assert [image.image.name for image in summary.failures] == ["broken.png"]
    assert len(read_records("out")) == len(set(read_records("out"))) == IMAGES
    assert merge_runs(["out"]).finished == IMAGES
    label_files("b", "photos", "whole", backend="fake")
    assert read_labels("out") == read_labels("whole")


@pytest.mark.usefixtures("folder")
def test_errors_keep_their_type() -> None:
    with pytest.raises(BundleError, match="nowhere"):
        label_on_ray("nowhere", "photos", "out", nodes=NODES)
    Path("file").touch()
    with pytest.raises(OutputError, match="file"):
        label_on_ray("b", "photos", "file", nodes=NODES)
    with pytest.raises(InputError, match=r"no node has 99 cores .* the cluster's nodes have \[2\] cores"):
        label_on_ray("b", "photos", "out", nodes=RayNodes(cores=99))
    with pytest.raises(InputError, match="and 1 GPUs"):
        label_on_ray("b", "photos", "out", nodes=RayNodes(gpus=1))
    with pytest.raises(InputError, match="at least 1"):
        RayNodes(actors=0)
    with pytest.raises(InputError, match="there are no images"):
        label_on_ray("b", ["\n"], "out", nodes=NODES, is_list=True)
    assert main(["segment", "b", "photos", "--ray", "--shard", "0/2"]) == 2


def make_dataset(column: str) -> Any:
    paths = sorted(str(path) for path in Path("photos").resolve().iterdir())[-12:]
    values = [Path(path).read_bytes() if column == "bytes" else path for path in paths]
    return ray.data.from_items(
        [{"name": Path(path).stem, column: value} for path, value in zip(paths, values, strict=True)]
    )


def assert_rows(rows: list[dict[str, Any]], expected: dict[str, bytes]) -> None:
    assert len(rows) == 12
    for row in rows:
        if row["name"] == "broken":
            assert row["labels"] is None
            assert "not an image" in row["error"]
        else:
            assert row["error"] is None
            assert row["labels"] == expected[f"{row['name']}.png"]


def test_datasets_and_parquet(folder: Path) -> None:
    label_files("b", "photos", "whole")
    for column in ("bytes", "path"):
        rows = label_dataset(make_dataset(column), "b", column=column, nodes=RayNodes(cores=1)).take_all()
        assert_rows(rows, read_labels("whole"))
    make_dataset("bytes").write_parquet(str(folder / "table"))
    label_dataset(ray.data.read_parquet(str(folder / "table")), "b", nodes=RayNodes(cores=1)).write_parquet(
        str(folder / "labeled")
    )
    assert_rows(ray.data.read_parquet(str(folder / "labeled")).take_all(), read_labels("whole"))


def test_the_example_program(folder: Path) -> None:
    label_files("b", "photos", "whole")
    example = Path(__file__).parents[3] / "examples" / "ray_dataset.py"
    runpy.run_path(str(example))["main"]("b", str(folder / "photos"), str(folder / "labeled"))
    rows = ray.data.read_parquet(str(folder / "labeled")).take_all()
    assert {Path(row["path"]).name: row["labels"] for row in rows if row["labels"]} == read_labels("whole")
    assert [Path(row["path"]).name for row in rows if row["error"]] == ["broken.png"]


def test_webdataset(folder: Path) -> None:
    rows = [row for row in make_dataset("bytes").take_all() if row["name"] != "broken"]
    samples = ray.data.from_items([{"__key__": row["name"], "png": row["bytes"]} for row in rows])
    samples.write_webdataset(str(folder / "tar"), encoder=None)
    read = ray.data.read_webdataset(str(folder / "tar"), decoder=None)
    found = label_dataset(read, "b", column="png", nodes=RayNodes(cores=1))
    labels = found.select_columns(["__key__", "labels"]).rename_columns({"labels": "seg.png"})
    labels.write_webdataset(str(folder / "labeled"), encoder=None)
    label_files("b", "photos", "whole")
    again = ray.data.read_webdataset(str(folder / "labeled"), decoder=None).take_all()
    assert {f"{row['__key__']}.png": row["seg.png"] for row in again} == {
        f"{row['name']}.png": read_labels("whole")[f"{row['name']}.png"] for row in rows
    }


@pytest.mark.usefixtures("folder")
def test_the_crf_on_other_nodes() -> None:
    """Scores travel as float16, so labels may differ where two classes are nearly equal."""
    write_bundle(Path("lowres"), "lowres", crf=CRF)
    split = label_dataset(make_dataset("bytes"), "lowres", nodes=RayNodes(cores=1), crf_on="others").take_all()
    assert len(split) == 12
    with runtime.load("lowres", threads=1) as segmenter:
        for row in split:
            if row["name"] == "broken":
                assert "not an image" in row["error"]
                continue
            with Image.open(io.BytesIO(row["labels"])) as labels:
                expected = segmenter(f"photos/{row['name']}.png")
                assert (np.array(labels) == expected).mean() > 0.99
    with pytest.raises(InputError, match="crf_on"):
        label_dataset(make_dataset("bytes"), "b", crf_on="elsewhere")  # type: ignore[arg-type]
