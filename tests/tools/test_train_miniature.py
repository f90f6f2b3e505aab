"""The making of the miniature: training, folding, the search for the CRF, the scores, the whole command."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from atrous import converter
from atrous.converter.files.caffemodel import read_caffemodel
from atrous.scripts.miniature.settings import MiniatureFiles, read_settings
from tools import train_miniature
from tools.miniature.network import MiniatureNet, fold_blobs, prepare_data, zoom_scores
from tools.miniature.training import TRAINING_SEEDS, Recipe, train_net
from tools.scenes import CLASSES, draw_scene

TINY = Recipe(iterations=2, batch=2, crop=(65, 81), fresh_scenes=1, pool=4)


@pytest.fixture(scope="module")
def net() -> MiniatureNet:
    """A net whose batch normalizations have seen a little data, so that folding has something to do."""
    return train_net(TINY)


def test_two_steps_report_and_repeat_bit_for_bit(net: MiniatureNet) -> None:
    losses: list[tuple[int, float]] = []
    again = train_net(TINY, lambda step, loss: losses.append((step, loss)))
    assert [step for step, _ in losses] == [1, 2]
    assert all(math.isfinite(loss) and 0.5 < loss < 10 for _, loss in losses)
    first, second = fold_blobs(net), fold_blobs(again)
    assert list(first) == list(second)
    assert all(np.array_equal(a, b) for name in first for a, b in zip(first[name], second[name], strict=True))
    assert torch.is_grad_enabled()


def test_folded_blobs_in_the_prototxt_give_the_trained_nets_scores(net: MiniatureNet) -> None:
    """The prototxt through the converter against the training module: two descriptions of one net."""
    module = converter.to_torch(converter.read_net(MiniatureFiles().prototxt, weights=fold_blobs(net)))
    image = draw_scene(11, 73, 97).image
    with torch.no_grad():
        expected = zoom_scores(net(prepare_data(image[None])))
        actual = module(prepare_data(image[None]))
    assert actual.shape == (1, len(CLASSES), 73, 97)
    assert (actual - expected).abs().max() <= 1e-4 * max(1.0, expected.abs().max().item())


def test_prepared_data_is_bgr_minus_the_mean() -> None:
    data = prepare_data(np.array([[[[10, 20, 30]]]], np.uint8))
    assert data.shape == (1, 3, 1, 1)
    assert np.allclose(data.flatten(), [30 - 104.008, 20 - 116.669, 10 - 122.675])


def test_command_makes_a_whole_miniature(tmp_path: Path) -> None:
    options = ["--iterations", "1", "--validation-scenes", "1", "--test-scenes", "1", "--output", str(tmp_path)]
    done = CliRunner().invoke(train_miniature.command, options, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    files = MiniatureFiles(tmp_path)
    settings = read_settings(files.settings)
    assert settings.training.iterations == 1
    assert settings.classes == CLASSES
    assert 0 <= settings.test.network.mean_iou <= 1
    assert files.prototxt.read_bytes() == MiniatureFiles().prototxt.read_bytes()
    assert converter.read_net(files.prototxt, weights=files.caffemodel).parameter_count() > 400_000
    assert all(path.exists() for seed in settings.scenes for path in files.scene(seed))


def test_command_has_no_weights_to_keep_in_an_empty_folder(tmp_path: Path) -> None:
    done = CliRunner().invoke(train_miniature.command, ["--keep-weights", "--output", str(tmp_path)])
    assert done.exit_code == 2
    assert "omit --keep-weights" in done.output


def test_seeds_are_apart() -> None:
    settings = read_settings(MiniatureFiles().settings)
    validation, test = (set(range(f.seeds[0], f.seeds[1] + 1)) for f in (settings.validation, settings.test))
    shipped = set(settings.scenes)
    assert not validation & test
    assert not shipped & (validation | test)
    assert max(validation | test | shipped) < TRAINING_SEEDS


class TestShipped:
    """The files in the package."""

    def test_caffemodel_is_small(self) -> None:
        assert MiniatureFiles().caffemodel.stat().st_size <= 2_000_000

    def test_caffemodel_is_of_2014(self) -> None:
        weights = read_caffemodel(MiniatureFiles().caffemodel)
        assert (weights.format, weights.dialect.name) == ("V1", "deeplab_v1")
        blobs = [blob for layer in weights.layers for blob in layer.blobs]
        assert all(blob.legacy and len(blob.shape) == 4 for blob in blobs)
        assert sum(blob.size for blob in blobs) == 437_399

    def test_figures_mean_something(self) -> None:
        figures = read_settings(MiniatureFiles().settings).test
        assert figures.seeds[1] - figures.seeds[0] >= 99
        assert figures.network.mean_iou > 0.7
        assert figures.gain_95[0] > 0.02
        assert figures.crf.mean_iou - figures.network.mean_iou > 0.03

    def test_figures_are_measured_again_on_the_first_test_scenes(self) -> None:
        """A sample of the test set, from the shipped files: far from the published figures would be a broken file."""
        from tools.miniature.measuring import load_network, measure_figures

        files = MiniatureFiles()
        settings = read_settings(files.settings)
        first = settings.test.seeds[0]
        predict = load_network(files.prototxt, files.caffemodel)
        figures = measure_figures(predict, range(first, first + 8), settings.crf, threads=1)
        assert figures.network.mean_iou == pytest.approx(settings.test.network.mean_iou, abs=0.1)
        assert figures.crf.mean_iou > figures.network.mean_iou + 0.02

    def test_shipped_scenes_are_what_their_seeds_draw(self) -> None:
        from PIL import Image

        files = MiniatureFiles()
        for seed in read_settings(files.settings).scenes:
            picture, labels = files.scene(seed)
            scene = draw_scene(seed, *train_miniature.SHIPPED_SIZE)
            with Image.open(picture) as image:
                difference = np.abs(np.asarray(image).astype(int) - scene.image)
            with Image.open(labels) as image:
                same = np.asarray(image) == scene.labels
            # Another build of NumPy may round a noise value differently.
            assert np.quantile(difference, 0.999) <= 1
            assert same.mean() > 0.999
