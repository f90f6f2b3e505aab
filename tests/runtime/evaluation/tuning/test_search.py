from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from atrous.bundle.writing import replace_crf
from atrous.runtime import BundleError, InputError, read_bundle
from atrous.runtime.crf import DenseCRF, dense_crf
from atrous.runtime.evaluation import count_confusion, mean_iou
from atrous.runtime.evaluation.bootstrap import mean_iou_of_parts
from atrous.runtime.evaluation.tuning.points import Grid, Point
from atrous.runtime.evaluation.tuning.scoring import PointScorer, ScoredImage, ScoreFile
from atrous.runtime.evaluation.tuning.search import search_crf, split_images

from ...bundles import write_bundle

SIZE = (24, 32)
GRID = Grid((2, 6), (5, 15), (10, 30), halvings=1)


def draw(seed: int) -> ScoredImage:
    """Two colored fields in noise, whose border the network finds only roughly."""
    rng = np.random.default_rng(seed)
    border = int(rng.integers(10, 22))
    truth = (np.arange(SIZE[1]) >= border).astype(np.uint8)[None].repeat(SIZE[0], 0)
    truth[0, 0] = 255
    image = np.where(truth[..., None] == 1, (200, 80, 60), (60, 90, 160)) + rng.normal(0, 8, (*SIZE, 3))
    guess = 1 / (1 + np.exp(-(np.arange(SIZE[1]) - border - rng.integers(-4, 5)) / 2.0))[None].repeat(SIZE[0], 0)
    noisy = np.clip(guess + rng.normal(0, 0.15, SIZE), 0.02, 0.98).astype(np.float32)
    return ScoredImage(f"{seed}", np.clip(image, 0, 255).astype(np.uint8), truth, np.stack([1 - noisy, noisy]))


IMAGES = [draw(seed) for seed in range(9)]


def test_kept_lattices_give_what_a_crf_from_nothing_gives() -> None:
    points = [Point(w, 9, 20, n, 2) for w in (1, 4, 9) for n in (1, 3)]
    counted = IMAGES[0].refine(points, "deeplab", 10)
    for point, parts in zip(points, counted, strict=True):
        image = IMAGES[0]
        labels = dense_crf(image.image, image.probabilities, parameters=point.to_parameters()).argmax(0)
        counts = count_confusion(image.truth, labels.astype(np.uint8), 2)
        assert parts[0].tolist() == counts.diagonal().tolist()
        assert mean_iou_of_parts(parts[None]) == mean_iou(counts)


def test_scores_of_many_images_hold_one_open_file() -> None:
    file, rng = ScoreFile(), np.random.default_rng(0)
    arrays = [rng.random((2, 3, size)).astype(np.float32) for size in range(1, 60)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    stored = [file.add(array) for array in arrays]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    for array, kept in zip(arrays, stored, strict=True):
        assert kept.shape == array.shape
        np.testing.assert_array_equal(np.asarray(kept), array)


def test_compatibilities_replaced_on_a_crf() -> None:
    image = IMAGES[1]
    crf = DenseCRF(SIZE, 2)
    crf.set_probabilities(image.probabilities)
    crf.add_gaussian(2, 3, normalization="after")
    crf.add_bilateral(9, 20, image.image, 4, normalization="after")
    first = crf.inference(5)
    crf.set_compatibilities([1, 8])
    other = crf.inference(5)
    crf.set_compatibilities([3, 4])
    assert np.array_equal(crf.inference(5), first)
    assert not np.array_equal(other, first)
    with pytest.raises(InputError, match="1 compatibilities do not fit 2 terms"):
        crf.set_compatibilities([3])


@pytest.mark.parametrize("workers", [1, 2])
def test_scores_are_pooled_mean_iou_and_builds_once_a_sigma(workers: int) -> None:
    scorer = PointScorer(IMAGES, workers=workers)
    points = GRID.points(Point(0, 0, 0))
    scores = scorer(points)
    assert set(scores) == set(points)
    assert (scorer.builds, scorer.runs) == (4 * len(IMAGES), 8 * len(IMAGES))
    point = points[3]
    counts = []
    for image in IMAGES:
        labels = dense_crf(image.image, image.probabilities, parameters=point.to_parameters()).argmax(0)
        counts.append(count_confusion(image.truth, labels.astype(np.uint8), 2))
    assert scores[point] == pytest.approx(mean_iou(np.stack(counts)))


def test_race_discards_only_far_worse_points() -> None:
    images = [draw(seed) for seed in range(24)]
    points = [Point(0.01, 5, 10, 0.01), Point(6, 15, 30), Point(6, 15, 30, 2.9)]
    plain, racing = PointScorer(images), PointScorer(images, race=True)
    for point in reversed(points):
        plain([point])
        racing([point])
    assert racing.runs < plain.runs
    assert points[0] not in racing.parts
    assert set(racing.discarded) == {points[0]}
    discarded = racing.discarded[points[0]]
    assert 4 <= discarded.images < len(images)
    seen = slice(discarded.images)
    lead = mean_iou_of_parts(plain.parts[points[2]][seen]) - mean_iou_of_parts(plain.parts[points[0]][seen])
    assert discarded.behind == pytest.approx(lead, abs=0.02)  # of whichever was the best by then
    assert discarded.behind > 0.05
    assert racing([points[1]]) == plain([points[1]])


def test_search_gains_and_reports_both_parts() -> None:
    progress: list[int] = []
    search = search_crf(IMAGES, grid=GRID, workers=2, advance=progress.append)
    assert sum(progress) == len(search.scores) > 8
    assert search.parameters == search.best.to_parameters()
    assert search.held_out is not None
    assert (search.chosen_on.names, search.held_out.names) == (tuple("013467"), tuple("258"))
    report = search.chosen_on.describe()
    assert report["chosen"] == max(search.scores.values()) > report["network"] + 0.02
    assert report["present"] is None
    assert search.is_better
    assert report["gain_over_network_95"][0] > 0


def test_a_winner_that_does_worse_on_the_held_out_is_told() -> None:
    # The only point there is smooths everything away; the present parameters do well.
    present = Point(6, 15, 30, 2.5).to_parameters()
    only = Grid((1e4,), (300,), (300,), halvings=0)
    search = search_crf(IMAGES, grid=only, present=present)
    assert search.held_out is not None
    report = search.held_out.describe()
    assert report["present"] > report["chosen"]
    assert not search.is_better
    assert report["gain_over_present_95"][1] < 0


def test_present_parameters_take_part_if_the_method_could_reach_them() -> None:
    tiny = Grid((0.01,), (1,), (0.5,), halvings=0)
    present = Point(6, 15, 30)
    assert search_crf(IMAGES, grid=tiny, present=present.to_parameters()).best == present
    other = Point(6, 15, 30, 2, 2)  # another position term than the grid's
    assert search_crf(IMAGES, grid=tiny, present=other.to_parameters()).best != other
    found = search_crf(IMAGES[:3], grid=tiny, method="factors", present=other.to_parameters())
    assert other in found.scores
    report = found.chosen_on.describe()
    assert report["chosen"] >= report["present"]


def test_parts_of_the_images() -> None:
    rest, held = split_images(IMAGES, 0)
    assert (len(rest), held) == (9, [])
    assert search_crf(IMAGES[:2], grid=Grid((3,), (9,), (20,), 0)).held_out is None
    with pytest.raises(InputError, match="leaves none"):
        split_images(IMAGES, 1)
    with pytest.raises(InputError, match="no image"):
        search_crf([])
    with pytest.raises(InputError, match='unknown search "random"'):
        search_crf(IMAGES, method="random")  # type: ignore[arg-type]


class TestWriting:
    RECORD = {"points": 8}  # noqa: RUF012

    def test_only_the_crf_and_its_record_change(self, tmp_path: Path) -> None:
        path = write_bundle(tmp_path / "bundle")
        before = json.loads((path / "manifest.json").read_text())
        digest = before["files"]["deploy.onnx"]["sha256"]
        parameters = Point(5, 49, 3).to_parameters()
        replace_crf(path, parameters, self.RECORD, digest)
        replace_crf(path, parameters, self.RECORD, digest)  # a second search replaces the record
        after = json.loads((path / "manifest.json").read_text())
        assert after.pop("crf") == parameters.to_dict()
        assert after.pop("crf_tuning") == self.RECORD
        before.pop("crf")
        assert after == before
        read_bundle(path).verify_files()
        assert [entry.name for entry in path.iterdir() if entry.name.endswith(".part")] == []

    def test_a_bundle_converted_meanwhile_is_refused(self, tmp_path: Path) -> None:
        path = write_bundle(tmp_path / "bundle")
        before = (path / "manifest.json").read_bytes()
        with pytest.raises(BundleError, match="converted anew in the meantime"):
            replace_crf(path, Point(5, 49, 3).to_parameters(), self.RECORD, "0" * 64)
        assert (path / "manifest.json").read_bytes() == before

    def test_a_broken_bundle_is_left_alone(self, tmp_path: Path) -> None:
        path = write_bundle(tmp_path / "bundle")
        (path / "manifest.json").write_text("{}")
        with pytest.raises(BundleError):
            replace_crf(path, Point(5, 49, 3).to_parameters(), self.RECORD, "0" * 64)
        assert (path / "manifest.json").read_text() == "{}"
        with pytest.raises(BundleError):
            replace_crf(tmp_path / "none", Point(5, 49, 3).to_parameters(), self.RECORD, "0" * 64)
