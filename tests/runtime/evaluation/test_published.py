from __future__ import annotations

import json
from pathlib import Path

from atrous.runtime.evaluation.datasets import DATASETS
from atrous.runtime.evaluation.published import PUBLISHED, find_published

CATALOGUE = Path(__file__).resolve().parents[3] / "converter" / "official" / "models.json"


def test_results_belong_to_bundles_that_fetch_and_convert_make() -> None:
    names = {model["name"] for model in json.loads(CATALOGUE.read_text())["models"]}
    assert {bundle for figure in PUBLISHED for bundle in figure.bundles} <= names
    assert {figure.dataset for figure in PUBLISHED} == set(DATASETS)
    assert all(0.2 < figure.mean_iou < 0.8 for figure in PUBLISHED)


def test_a_models_own_figures_come_before_others() -> None:
    own = find_published("deeplab-msc-largefov", "voc2012")
    assert {(figure.split, figure.crf, figure.mean_iou) for figure in own} == {
        ("val", False, 0.6421),
        ("val", True, 0.6870),
        ("test", True, 0.716),
    }
    assert find_published("mine", "voc2012") == []
    assert {(f.crf, f.mean_iou) for f in find_published("mine", "sun-rgbd")} == {(False, 0.3208), (True, 0.2413)}
    assert find_published("mine", "folder") == []


def test_cityscapes_by_size_and_release() -> None:
    figures = find_published("mine", "cityscapes")
    assert [f.mean_iou for f in figures if f.split == "val" and f.crf] == [0.6418, 0.6594, 0.714]
    assert [f.mean_iou for f in figures if f.split == "test"] == [0.631, 0.648, 0.704]
    assert all(f.note for f in figures if f.model == "DeepLab-LargeFOV")  # each of its figures is of other conditions


def test_every_figure_names_its_table_or_section() -> None:
    assert all(" table " in figure.source or " section " in figure.source for figure in PUBLISHED)


def test_weights_trained_on_val_are_noted() -> None:
    notes = {figure.note for figure in find_published("deeplab-v2-vgg16", "voc2012") if figure.split == "val"}
    assert notes == {"of weights not trained on val; the released ones were"}
    assert {f.note for f in find_published("deeplab-v2-vgg16-trainaug", "voc2012")} == {""}
