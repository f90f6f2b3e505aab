"""`evaluate --ray` and `tune-crf --ray` on the shipped scenes: the figures of one process, with an actor killed too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous import runtime
from atrous.errors import BundleError, DatasetError, InputError
from atrous.runtime.evaluation.evaluator import evaluate
from atrous.runtime.evaluation.ray import evaluate_on_ray
from atrous.runtime.evaluation.report import describe_evaluation
from atrous.runtime.evaluation.tuning.points import Grid
from atrous.runtime.evaluation.tuning.ray import score_on_ray
from atrous.runtime.evaluation.tuning.scoring import score_images
from atrous.runtime.evaluation.tuning.search import search_crf
from atrous.scripts.demo import convert_miniature
from atrous.scripts.main import main
from atrous.scripts.miniature.settings import MiniatureFiles, read_settings

from ..bundles import CRF, write_bundle
from ..ray_cluster import NODES, kill_an_actor
from .layouts import save
from .test_evaluator import make_folder

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

DATA = ["--dataset", "folder", "--images", "i", "--labels", "l", "--threads", "1", "--json"]
GRID = Grid((2, 6), (5, 15), (10, 30), halvings=1)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the miniature's bundle `b`, its scenes in `i` and their labels in `l`."""
    files, folder = MiniatureFiles(), tmp_path_factory.mktemp("ray")
    settings = read_settings(files.settings)
    convert_miniature(files, settings, folder / "b")
    for name in ("i", "l"):
        (folder / name).mkdir()
    for seed in settings.scenes:
        picture, labels = files.scene(seed)
        shutil.copy(picture, folder / f"i/{seed}.png")
        shutil.copy(labels, folder / f"l/{seed}.png")
    return folder


@pytest.fixture
def folder(miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: None) -> Path:
    """The working folder: a copy of the miniature's."""
    shutil.copytree(miniature, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_report(capsys: pytest.CaptureFixture[str], *line: str, code: int = 0) -> dict[str, Any]:
    assert main([*line]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_evaluate_gives_the_figures_of_one_process(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = min((folder / "i").iterdir())
    (folder / "i" / "broken.png").write_bytes(b"hello")
    shutil.copy(folder / "l" / first.name, folder / "l" / "broken.png")
    plain = read_report(capsys, "evaluate", "b", *DATA, code=1)
    on_ray = read_report(capsys, "evaluate", "b", *DATA, "--ray", code=1)
    assert plain["pipeline"].pop("items") == 6
    assert on_ray["pipeline"] is None
    (ours,), (theirs,) = on_ray["failures"], plain["failures"]
    assert (ours["image"], ours["error"]) == ("broken", f"{folder}/{theirs['error']}")  # paths are absolute on Ray
    assert {**on_ray, "pipeline": plain["pipeline"], "failures": plain["failures"]} == plain
    assert len(on_ray["images"]) == len(on_ray["worst"]) == 5
    assert on_ray["variants"]["crf"]["mean_iou_95"][0] < on_ray["variants"]["crf"]["mean_iou"]


def test_evaluate_with_an_actor_killed(folder: Path) -> None:
    dataset = make_folder(folder / "data", 24)
    options: dict[str, Any] = {"backend": "fake", "crf": True, "options": {"delay_ms": 30.0}}
    killed: list[int] = []

    def kill(steps: int) -> None:
        if not killed:
            killed.append(kill_an_actor())

    bundle = write_bundle(folder / "colors", crf=CRF)
    found = evaluate_on_ray(bundle, dataset, nodes=NODES, gallery=3, advance=kill, **options)
    assert killed[0]
    with runtime.load(bundle, threads=1, **options) as segmenter:
        expected = evaluate(segmenter, dataset, variants=("crf",), gallery=3, cores=1)
    reports = [describe_evaluation(one) for one in (found, expected)]
    assert {**reports[0], "pipeline": 0} == {**reports[1], "pipeline": 0}
    assert [bad.labels["crf"].tolist() for bad in found.worst] == [bad.labels["crf"].tolist() for bad in expected.worst]


def test_errors_keep_their_type(folder: Path) -> None:
    dataset = make_folder(folder / "data")
    bundle = write_bundle(folder / "colors", crf=CRF)
    with pytest.raises(BundleError, match="nowhere"):
        evaluate_on_ray("nowhere", dataset, nodes=NODES)
    save(folder / "data/l/1.png", np.full((25, 30), 77, np.uint8))
    with pytest.raises(DatasetError, match="holds 77"), score_on_ray(bundle, dataset, nodes=NODES):
        pass
    for path in (folder / "data/i").iterdir():
        path.write_bytes(b"hello")
    with pytest.raises(InputError, match="all 3 images failed"):
        evaluate_on_ray(bundle, dataset, nodes=NODES)


@pytest.mark.parametrize("more", [[], ["--race", "--hold-out", "0"]])
def test_the_search_gives_the_figures_of_one_process(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    grid = ["--weights", "0.01,6", "--sxy", "5,30", "--srgb", "5", "--halvings", "0", "--dry-run"]
    before = (folder / "b/manifest.json").read_bytes()
    line = ("tune-crf", "b", *DATA, *grid, *more)
    # 1: the winner is worse than the miniature's own parameters
    plain, on_ray = (read_report(capsys, *line, *ray, code=1) for ray in ([], ["--ray"]))
    assert on_ray == plain
    assert any("discarded_after" in point for point in on_ray["points"]) == bool(more)
    assert (folder / "b/manifest.json").read_bytes() == before


def test_the_search_with_an_actor_killed(folder: Path) -> None:
    dataset = make_folder(folder / "data", 7)
    bundle = write_bundle(folder / "colors", crf=CRF)
    killed: list[int] = []

    def kill(points: int) -> None:
        if not killed:
            killed.append(kill_an_actor())

    with score_on_ray(bundle, dataset, nodes=NODES) as (images, workers):
        assert workers == 2
        found = search_crf(images, grid=GRID, workers=workers, advance=kill)
    assert killed[0]
    with runtime.load(bundle, threads=1) as segmenter:
        expected = search_crf(score_images(segmenter, dataset), grid=GRID)
    assert found.scores == expected.scores
    assert found.best == expected.best
    assert (found.runs, found.builds) == (expected.runs, expected.builds)
    for name in ("chosen_on", "held_out"):
        assert getattr(found, name).describe() == getattr(expected, name).describe()
