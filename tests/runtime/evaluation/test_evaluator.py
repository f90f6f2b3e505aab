from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.bundle.palettes import CAMVID_CLASSES, VOC_CLASSES
from atrous.errors import DatasetError
from atrous.runtime import BackendError, BundleError, InputError, load, read_bundle
from atrous.runtime.backends import Array, TensorSpec
from atrous.runtime.backends.fake import FakeBackend
from atrous.runtime.evaluation import VOID, mean_iou
from atrous.runtime.evaluation.datasets import open_dataset
from atrous.runtime.evaluation.datasets.dataset import Dataset
from atrous.runtime.evaluation.datasets.folders import open_folders
from atrous.runtime.evaluation.evaluator import check_classes, evaluate
from atrous.runtime.evaluation.report import describe_evaluation, write_evaluation
from atrous.runtime.segmenter import Segmenter

from ..bundles import CLASSES, CRF, PALETTE, expected_scores, write_bundle
from . import layouts

Change = Callable[[np.ndarray], np.ndarray]


class Oracle:
    """A network that knows the truth of each image, and returns it after `change`."""

    name, device = "oracle", "cpu"

    def __init__(self, dataset: Dataset, change: Change = lambda truth: truth) -> None:
        classes = len(dataset.classes)
        self.inputs = (TensorSpec("image", "uint8", ("N", "H", "W", 3)),)
        self.outputs = (TensorSpec("scores", "float32", ("N", classes, "H", "W")),)
        self.known: dict[bytes, np.ndarray] = {}
        self.runs = 0
        for pair in dataset.pairs:
            example = dataset.load(pair)
            labels = change(np.where(example.truth == VOID, 0, example.truth))
            scores = (np.arange(classes)[:, None, None] == labels).astype(np.float32) * 8
            self.known[example.image.tobytes()] = scores[None]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.runs += 1
        return {"scores": self.known[feeds["image"].tobytes()]}

    def close(self) -> None:
        pass


def make_folder(root: Path, count: int = 3, classes: int = 4) -> Dataset:
    """Images whose labels under the bundle of `bundles` NumPy gives, some of their pixels void."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 256, (5, 6, 3)).repeat(5, 0).repeat(5, 1).astype(np.uint8)
        truth = expected_scores(image).argmax(0).astype(np.uint8)
        truth[rng.random(truth.shape) < 0.1] = VOID
        layouts.save(root / "i" / f"{seed}.png", image)
        layouts.save(root / "l" / f"{seed}.png", truth)
    return open_folders(root / "i", root / "l", CLASSES[:classes], [tuple(color) for color in PALETTE])


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_folder(tmp_path / "data")


def test_the_truth_scores_one_and_each_image_runs_once(tmp_path: Path, dataset: Dataset) -> None:
    oracle = Oracle(dataset)
    steps: list[int] = []
    with load(write_bundle(tmp_path / "b"), oracle, threads=1) as segmenter:
        evaluation = evaluate(segmenter, dataset, variants=("network",), cores=1, advance=steps.append)
    tally = evaluation.variants["network"]
    assert oracle.runs == len(dataset) == sum(steps) == 3
    assert tally.matrix.mean_iou == tally.matrix.pixel_accuracy == 1
    assert tally.band_ious() == [1.0] * 4
    assert tally.interval() == (1.0, 1.0)
    assert evaluation.gain_interval() is None
    assert evaluation.warnings == evaluation.failures == ()
    assert tally.matrix.ignored == sum((dataset.load_truth(pair) == VOID).sum() for pair in dataset.pairs)


def test_a_real_network_before_and_after_the_crf_is_judged_as_its_labels_are(tmp_path: Path, dataset: Dataset) -> None:
    strong = {**CRF, "gaussian": [{"sxy": 5.0, "weight": 60.0}]}
    folder = write_bundle(tmp_path / "b", crf=strong)
    with load(folder, threads=1) as refined, load(folder, threads=1, crf=False) as plain:
        evaluation = evaluate(refined, dataset, cores=2)
        assert list(evaluation.variants) == ["network", "crf"]
        assert evaluation.variants["network"].matrix.mean_iou == 1  # the truth was made by the same formula
        for name, segmenter in (("network", plain), ("crf", refined)):
            wrong = judged = 0
            for pair in dataset.pairs:
                example = dataset.load(pair)
                known = example.truth != VOID
                wrong += (segmenter(example.image)[known] != example.truth[known]).sum()
                judged += known.sum()
            assert evaluation.variants[name].matrix.pixel_accuracy == pytest.approx(1 - wrong / judged)
    low, high = evaluation.gain_interval() or (0, 0)
    assert low <= high < 0  # smoothing labels that are right already
    assert [score.name for score in evaluation.images] == ["0", "1", "2"]


def test_worst_images_come_first(tmp_path: Path) -> None:
    dataset = make_folder(tmp_path / "data", 4)
    spoiled = iter((0, 9, 3, 6))  # rows of each image in the order they are loaded

    def spoil(truth: np.ndarray) -> np.ndarray:
        labels, rows = truth.copy(), next(spoiled)
        labels[:rows] = (labels[:rows] + 1) % 4
        return labels

    with load(write_bundle(tmp_path / "b"), Oracle(dataset, spoil), threads=1) as segmenter:
        evaluation = evaluate(segmenter, dataset, variants=("network",), gallery=2)
    assert [bad.score.name for bad in evaluation.worst] == ["1", "3"]
    scores = [score.mean_iou["network"] for score in evaluation.images]
    assert evaluation.worst[0].score.mean_iou["network"] == min(s for s in scores if s is not None)


def test_images_that_fail_are_named_and_the_others_evaluated(tmp_path: Path, dataset: Dataset) -> None:
    dataset.pairs[1].image.write_bytes(b"not an image")
    with load(write_bundle(tmp_path / "b"), threads=1) as segmenter:
        evaluation = evaluate(segmenter, dataset, variants=("network",))
        assert [name for name, _ in evaluation.failures] == ["1"]
        assert len(evaluation.images) == 2
        for pair in dataset.pairs:
            pair.image.write_bytes(b"not an image")
        with pytest.raises(InputError, match="all 3 images failed; the first: "):
            evaluate(segmenter, dataset, variants=("network",))


def test_invalid_labels_end_the_run(tmp_path: Path, dataset: Dataset) -> None:
    layouts.save(dataset.pairs[2].labels, np.full((25, 30), 77, np.uint8))
    with load(write_bundle(tmp_path / "b"), threads=1) as segmenter, pytest.raises(DatasetError, match="holds 77"):
        evaluate(segmenter, dataset, variants=("network",))


def test_a_network_that_cannot_run_ends_the_run(tmp_path: Path, dataset: Dataset) -> None:
    with (
        load(write_bundle(tmp_path / "b"), FakeBackend(4, fail_on=2), threads=1) as segmenter,
        pytest.raises(BackendError),
    ):
        evaluate(segmenter, dataset, variants=("network",), cores=1)
    oracle = Oracle(dataset)
    oracle.known = {key: scores[:, :3] for key, scores in oracle.known.items()}
    with load(write_bundle(tmp_path / "b"), oracle, threads=1) as segmenter, pytest.raises(BundleError):
        evaluate(segmenter, dataset, variants=("network",), cores=1)


def test_labels_shifted_by_one_are_noticed(tmp_path: Path, dataset: Dataset) -> None:
    with load(write_bundle(tmp_path / "b"), Oracle(dataset, lambda truth: (truth + 1) % 4), threads=1) as segmenter:
        evaluation = evaluate(segmenter, dataset, variants=("network",))
    assert len(evaluation.warnings) == 1
    assert "one too low: shifted by +1, the mean IoU would be 100.0%" in evaluation.warnings[0]


def test_classes_in_another_order_are_noticed(tmp_path: Path, dataset: Dataset) -> None:
    order = np.array([2, 0, 1, 3])
    with load(write_bundle(tmp_path / "b"), Oracle(dataset, lambda truth: order[truth]), threads=1) as segmenter:
        evaluation = evaluate(segmenter, dataset, variants=("network",))
    assert len(evaluation.warnings) == 1
    assert "the mean IoU would be 100.0% instead of " in evaluation.warnings[0]
    assert '0 -> 2 "green", 1 -> 0 "background", 2 -> 1 "blue")' in evaluation.warnings[0]


def test_an_error_of_the_backend_is_raised_as_it_is(tmp_path: Path, dataset: Dataset) -> None:
    error = BackendError("the device is gone")

    class Broken(Oracle):
        def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
            raise error from OSError("cause")

    with (
        load(write_bundle(tmp_path / "b"), Broken(dataset), threads=1) as segmenter,
        pytest.raises(BackendError) as caught,
    ):
        evaluate(segmenter, dataset, variants=("network",))
    assert caught.value is error
    assert isinstance(error.__cause__, OSError)


def test_classes_have_to_fit(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="the bundle has 3 classes, data/i has 4"):
        check_classes(CLASSES[:3], dataset)
    with pytest.raises(InputError, match='another order: its class 1 is "green", that of data/i is "blue"'):
        check_classes((CLASSES[0], "green", "blue", CLASSES[3]), dataset)
    assert check_classes(("Background", "blue", "green", "red"), dataset) == []
    assert '1 of the 4 classes have other names: 3 is "pink"' in check_classes((*CLASSES[:3], "pink"), dataset)[0]


def test_unavailable_variants(tmp_path: Path, dataset: Dataset) -> None:
    with load(write_bundle(tmp_path / "b"), threads=1, crf=False) as segmenter:
        with pytest.raises(InputError, match="loaded without a CRF"):
            evaluate(segmenter, dataset)
        with pytest.raises(InputError, match="variants are"):
            evaluate(segmenter, dataset, variants=("both",))


def test_a_head_of_labels_is_judged_without_scores(tmp_path: Path, dataset: Dataset) -> None:
    with load(write_bundle(tmp_path / "b", "labels"), threads=1) as segmenter:
        assert evaluate(segmenter, dataset, variants=("network",)).variants["network"].matrix.mean_iou == 1


def test_report_and_pictures(tmp_path: Path, dataset: Dataset) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    with load(write_bundle(tmp_path / "b", crf=CRF), threads=1) as segmenter:
        evaluation = evaluate(segmenter, dataset)
    written = write_evaluation(evaluation, tmp_path / "out")
    assert set(written) == {"report", "confusion_network", "confusion_crf", "bands", "worst"}
    for name, path in written.items():
        if name != "report":
            with Image.open(path) as image:
                assert min(image.size) > 100
                assert len(np.unique(np.asarray(image.convert("L")))) > 8  # something is drawn
    report = json.loads(written["report"].read_text())
    assert report["schema_version"] == 1
    assert report["variants"]["crf"]["mean_iou"] == evaluation.variants["crf"].matrix.mean_iou
    assert np.array(report["variants"]["crf"]["confusion"]).sum() == report["judged_pixels"]
    assert {key: report[key] for key in ("evaluated", "failures", "published")} == {
        "evaluated": 3,
        "failures": [],
        "published": [],
    }
    assert json.loads(json.dumps(describe_evaluation(evaluation), allow_nan=False)) == {
        key: value for key, value in report.items() if key != "schema_version"
    }


class TestRealPairs:
    """Real pairs of PASCAL VOC and CamVid: their truth scores 1, and labels moved by two pixels lose at borders."""

    @pytest.fixture
    def voc(self, tmp_path: Path, shared_dir: Path) -> Dataset:
        return open_dataset("voc2012", layouts.copy_real_voc(shared_dir, tmp_path))

    @pytest.fixture
    def camvid(self, tmp_path: Path, shared_dir: Path) -> Dataset:
        return open_dataset("camvid", layouts.copy_real_camvid(shared_dir, tmp_path))

    @pytest.mark.parametrize("name", ["voc", "camvid"])
    def test_truth_and_moved_labels(self, request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
        dataset: Dataset = request.getfixturevalue(name)
        classes = {"voc": VOC_CLASSES, "camvid": CAMVID_CLASSES}[name]
        bundle = write_bundle(tmp_path / "b", classes=list(classes), palette=[])

        def judge(change: Change) -> list[float]:
            with Segmenter(read_bundle(bundle), Oracle(dataset, change), threads=1) as segmenter:
                tally = evaluate(segmenter, dataset, variants=("network",), cores=1).variants["network"]
            return [*tally.band_ious(), tally.matrix.mean_iou]

        assert judge(lambda truth: truth) == [1.0] * 5
        moved = judge(lambda truth: np.roll(truth, 2, axis=1))
        assert moved == sorted(moved)  # the wider the band, the better
        assert moved[0] < 0.9 * moved[-1] < 0.9

    def test_a_crf_on_a_real_photograph(self, tmp_path: Path, shared_dir: Path) -> None:
        """Probabilities of a real photograph, every sixth pixel spoiled by noise: the CRF must mend most of them."""
        source = shared_dir / "images" / "voc2012"
        unary = source / "2007_000332_3unary.npz"
        if not unary.is_file():
            pytest.skip("no probabilities of a real photograph")
        for kind in ("image", "labels"):
            (tmp_path / kind).mkdir()
            shutil.copy(source / f"2007_000332_{kind}.png", tmp_path / kind / "2007_000332.png")
        images, labels = tmp_path / "image", tmp_path / "labels"
        dataset = open_folders(images, labels, VOC_CLASSES)
        oracle = Oracle(dataset)
        belief = np.load(unary, allow_pickle=False)["arr_0"].astype(np.float32).transpose(2, 0, 1)
        oracle.known = dict.fromkeys(oracle.known, np.log(np.maximum(belief, 0.02))[None])
        crf = {"mode": "deeplab", "iterations": 10, "gaussian": [{"sxy": 3.0, "weight": 3.0}]}
        crf["bilateral"] = [{"sxy": 49.0, "srgb": 5.0, "weight": 4.0}]
        bundle = write_bundle(tmp_path / "b", classes=list(VOC_CLASSES), palette=[], crf=crf)
        with load(bundle, oracle, threads=1) as segmenter:
            evaluation = evaluate(segmenter, dataset, cores=1)
        network, refined = (evaluation.variants[name].matrix for name in ("network", "crf"))
        assert network.pixel_accuracy < 0.86
        assert refined.pixel_accuracy > 0.97
        before, after = (evaluation.variants[name].band_ious() for name in ("network", "crf"))
        assert all(b < a for b, a in zip(before, after, strict=True))


def test_a_mean_over_images_is_pooled_not_averaged(tmp_path: Path, dataset: Dataset) -> None:
    with load(write_bundle(tmp_path / "b", crf=CRF), threads=1) as segmenter:
        evaluation = evaluate(segmenter, dataset, variants=("crf",))
    tally = evaluation.variants["crf"]
    assert tally.matrix.mean_iou == mean_iou(tally.matrix.counts)
    parts = np.sum(tally.parts, axis=0)
    assert tally.matrix.mean_iou == pytest.approx(float((parts[0] / parts[1]).mean()))
