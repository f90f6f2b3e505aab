"""Likely preprocessings: which are tried, and how they are measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atrous import runtime
from atrous.bundle.manifest import MadeFor, Preprocessing
from atrous.bundle.size_rule import SizeRule
from atrous.runtime.probing import IMAGENET, PIXEL_RULES, list_rules, list_sizes, measure_information, probe
from atrous.runtime.resizing import choose_sizing
from atrous.scripts.demo import convert_miniature
from atrous.scripts.miniature.settings import MiniatureFiles, read_settings

ANY_SIZE = SizeRule(minimum=(9, 9), multiple=8, offset=1)


def make(mean: tuple[float, float, float] = IMAGENET, scale: float = 1.0) -> Preprocessing:
    return Preprocessing(color_order="BGR", mean=mean, scale=scale, size_rule=ANY_SIZE)


def test_each_likely_preprocessing_is_tried_once_and_the_present_one_first() -> None:
    present = make()
    rules = list_rules(present)
    assert rules[0] == present
    assert len(rules) == 2 * len(PIXEL_RULES)
    reversed_mean = [rule for rule in rules if rule.color_order == "RGB" and rule.mean == IMAGENET[::-1]]
    assert [rule.scale for rule in reversed_mean] == [1.0, 0.017]
    assert len(list_rules(make((1.0, 2.0, 3.0), 2.0))) == 2 * (len(PIXEL_RULES) + 1)


def test_sizes() -> None:
    native = choose_sizing(make())
    assert list_sizes(native, 240, 320, is_chosen=False) == [(240, 320), (120, 160)]
    assert list_sizes(native, 4000, 6000, is_chosen=False)[0] == (1182, 1774)  # two megapixels
    made_for = MadeFor(size=(512, 1024), source="prototxt", resize=True)
    resizing = choose_sizing(make().model_copy(update={"made_for": made_for}))
    assert list_sizes(resizing, 600, 800, is_chosen=False) == [(512, 1024), (600, 800), (256, 512)]
    assert list_sizes(resizing, 600, 800, is_chosen=True) == [(512, 1024)]


def test_information() -> None:
    """Four classes on a quarter of the pixels each are 2 bits if the net is sure, and none if it does not know."""
    sure = np.eye(4, dtype=np.float32).reshape(4, 2, 2)
    assert measure_information(sure) == pytest.approx(2, abs=1e-5)
    assert measure_information(np.full((4, 2, 2), 0.25, np.float32)) == pytest.approx(0, abs=1e-5)
    one_class = np.zeros((4, 2, 2), np.float32)
    one_class[1] = 1
    assert measure_information(one_class) == pytest.approx(0, abs=1e-5)


def test_the_miniature_knows_its_own_preprocessing(tmp_path: Path) -> None:
    files = MiniatureFiles()
    convert_miniature(files, read_settings(files.settings), tmp_path / "miniature")
    seed = read_settings(files.settings).scenes[0]
    image = runtime.read_image(files.scene(seed)[0])
    counted: list[int] = []
    trials = probe(tmp_path / "miniature", image, size="native", threads=1, advance=counted.append)
    assert trials[0].is_present
    assert counted == [-len(trials), *[1] * len(trials)]
    assert trials[0].labels.shape == image.shape[:2]
    assert trials[0].information > trials[-1].information
