from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.bundle.palettes import CAMVID_CLASSES, CITYSCAPES_CLASSES, SUN_RGBD_CLASSES, VOC_CLASSES
from atrous.errors import DatasetError, InputError
from atrous.runtime.evaluation import VOID
from atrous.runtime.evaluation.datasets import DATASETS, open_dataset
from atrous.runtime.evaluation.datasets.camvid import COLOR_MEANINGS
from atrous.runtime.evaluation.datasets.folders import open_folders

from .. import layouts


class TestVoc:
    @pytest.mark.parametrize("depth", [0, 1, 2])
    def test_opens_from_each_level(self, tmp_path: Path, depth: int) -> None:
        folder = layouts.make_voc(tmp_path)
        dataset = open_dataset("voc2012", [folder, folder.parent, tmp_path][depth])
        assert (dataset.key, dataset.split, len(dataset)) == ("voc2012", "val", 2)
        assert dataset.classes == VOC_CLASSES
        example = dataset.load(dataset.pairs[0])
        assert example.name == "2007_000033"
        assert (example.truth == layouts.draw_truth(0, [*range(21), 255])).all()
        assert example.image.shape == (6, 9, 3)

    def test_augmented_labels_by_option_and_by_deeplabs_lists(self, tmp_path: Path) -> None:
        layouts.make_voc(tmp_path)
        by_option = open_dataset("voc2012", tmp_path, annotations="SegmentationClassAug")
        by_list = open_dataset("voc2012", tmp_path, "val_aug")
        assert by_option.pairs == by_list.pairs
        assert by_list.pairs[0].labels.parent.name == "SegmentationClassAug"
        plain = open_dataset("voc2012", tmp_path)
        assert (plain.load_truth(plain.pairs[1]) == by_list.load_truth(by_list.pairs[1])).all()

    def test_what_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="has no ImageSets/Segmentation"):
            open_dataset("voc2012", tmp_path)
        folder = layouts.make_voc(tmp_path)
        with pytest.raises(DatasetError, match=r"minival.txt: .*there are val, val_aug"):
            open_dataset("voc2012", folder, "minival")
        with pytest.raises(DatasetError, match="no such folder; it holds the labels"):
            open_dataset("voc2012", folder, annotations="SegmentationObject")
        (folder / "SegmentationClass" / "2007_000042.png").unlink()
        with pytest.raises(DatasetError, match=r"1 of 2 label images .*2007_000042.png.*unpack"):
            open_dataset("voc2012", folder)
        (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("\n")
        with pytest.raises(DatasetError, match="split val is empty"):
            open_dataset("voc2012", folder)
        (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_000033\n2007_000033\n")
        with pytest.raises(DatasetError, match='"2007_000033" twice'):
            open_dataset("voc2012", folder)
        (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("a b c\n")
        with pytest.raises(DatasetError, match='"a b c" is neither'):
            open_dataset("voc2012", folder)


class TestCityscapes:
    def test_ids_become_train_ids(self, tmp_path: Path) -> None:
        dataset = open_dataset("cityscapes", layouts.make_cityscapes(tmp_path))
        assert [pair.name for pair in dataset.pairs] == ["frankfurt_000000_000294", "lindau_000001_000019"]
        assert dataset.classes == CITYSCAPES_CLASSES
        ids = np.asarray(Image.open(dataset.pairs[0].labels))
        truth = dataset.load(dataset.pairs[0]).truth
        # road, sidewalk, ..., train, motorcycle, bicycle by the published table; caravan and trailer are not judged
        for identity, train in ((7, 0), (8, 1), (17, 5), (24, 11), (26, 13), (28, 15), (31, 16), (32, 17), (33, 18)):
            assert (truth[ids == identity] == train).all()
        for identity in (0, 1, 6, 9, 10, 14, 15, 16, 18, 29, 30):
            assert (truth[ids == identity] == VOID).all()
        assert len(np.unique(truth)) == 20

    def test_train_ids_as_they_stand(self, tmp_path: Path) -> None:
        dataset = open_dataset("cityscapes", layouts.make_cityscapes(tmp_path), annotations="labelTrainIds")
        assert (dataset.load_truth(dataset.pairs[1]) == layouts.draw_truth(1, [*range(19), 255])).all()

    def test_one_kind_taken_for_the_other_is_noticed(self, tmp_path: Path) -> None:
        dataset = open_dataset("cityscapes", layouts.make_cityscapes(tmp_path))
        ids, trains = dataset.pairs[0].labels, dataset.pairs[0].labels.with_name("x.png")
        shutil.move(str(ids).replace("labelIds", "labelTrainIds"), trains)
        shutil.copy(ids, str(ids).replace("labelIds", "labelTrainIds"))
        shutil.copy(trains, ids)
        with pytest.raises(DatasetError, match="holds 255, which no class of the label ids"):
            dataset.load_truth(dataset.pairs[0])
        other = open_dataset("cityscapes", tmp_path, annotations="labelTrainIds")
        with pytest.raises(DatasetError, match=r"holds 19, 20, .* of the train ids"):
            other.load_truth(other.pairs[0])

    def test_refusals(self, tmp_path: Path) -> None:
        layouts.make_cityscapes(tmp_path)
        with pytest.raises(DatasetError, match="never published"):
            open_dataset("cityscapes", tmp_path, "test")
        with pytest.raises(DatasetError, match="leftImg8bit_trainvaltest"):
            open_dataset("cityscapes", tmp_path, "train")
        with pytest.raises(DatasetError, match="labelIds or labelTrainIds"):
            open_dataset("cityscapes", tmp_path, annotations="color")
        (tmp_path / "gtFine" / "val" / "lindau" / "lindau_000001_000019_gtFine_labelIds.png").unlink()
        with pytest.raises(DatasetError, match="1 of 2 label images"):
            open_dataset("cityscapes", tmp_path)


class TestCamvid:
    @pytest.mark.parametrize("with_list", [True, False])
    def test_segnets_layout(self, tmp_path: Path, with_list: bool) -> None:
        dataset = open_dataset("camvid", layouts.make_segnet_camvid(tmp_path, with_list=with_list))
        assert dataset.classes == CAMVID_CLASSES
        stored = layouts.draw_truth(0, list(range(12)))
        truth = dataset.load(dataset.pairs[0]).truth
        assert (truth == np.where(stored == 11, 255, stored)).all()

    def test_original_layout(self, tmp_path: Path) -> None:
        colors = list(COLOR_MEANINGS)
        assert len(colors) == 32
        root = layouts.make_original_camvid(tmp_path, colors)
        everything, test = open_dataset("camvid", root, "all"), open_dataset("camvid", root, "test")
        assert (len(everything), len(test)) == (2, 1)
        truth = test.load(test.pairs[0]).truth
        expected = np.array(list(COLOR_MEANINGS.values()), np.uint8)[layouts.draw_truth(0, list(range(32)))]
        assert (truth == expected).all()
        assert set(np.unique(truth)) == {*range(11), 255}
        with pytest.raises(DatasetError, match=r"no splits, so put SegNet's list there, or use the split .all"):
            open_dataset("camvid", root, "val")

    def test_an_unknown_color(self, tmp_path: Path) -> None:
        root = layouts.make_original_camvid(tmp_path, [(0, 0, 0), (128, 64, 129)])
        dataset = open_dataset("camvid", root)
        with pytest.raises(DatasetError, match=r"\(128, 64, 129\) .*not among the 32"):
            dataset.load_truth(dataset.pairs[0])

    def test_red_and_blue_swapped(self, tmp_path: Path) -> None:
        root = layouts.make_original_camvid(tmp_path, [(0, 0, 0), (192, 0, 0)])  # Sidewalk the wrong way round
        with pytest.raises(DatasetError, match="red and blue are swapped"):
            open_dataset("camvid", root).load_truth(open_dataset("camvid", root).pairs[0])

    def test_neither_layout(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="has neither testannot"):
            open_dataset("camvid", tmp_path)
        layouts.make_segnet_camvid(tmp_path)
        (tmp_path / "test.txt").write_text("only-one\n")
        with pytest.raises(DatasetError, match='"only-one" is not an image and its labels'):
            open_dataset("camvid", tmp_path)


class TestSunRgbd:
    @pytest.mark.parametrize("sorted_labels", [True, False])
    def test_both_splits(self, tmp_path: Path, sorted_labels: bool) -> None:
        layouts.make_sun_rgbd(tmp_path, sorted_labels=sorted_labels)
        for split, shift in (("test", 0), ("train", 5050)):
            dataset = open_dataset("sun-rgbd", tmp_path, split)
            assert (len(dataset), len(dataset.classes)) == (2, 37)
            stored = layouts.draw_truth(2 + shift, list(range(38)))
            truth = dataset.load(dataset.pairs[1]).truth
            assert (truth[stored == 0] == VOID).all()
            assert (truth[stored > 0] == stored[stored > 0] - 1).all()

    def test_classes_are_the_published_ones_in_their_order(self) -> None:
        assert len(SUN_RGBD_CLASSES) == 37
        assert (SUN_RGBD_CLASSES[0], SUN_RGBD_CLASSES[21], SUN_RGBD_CLASSES[36]) == ("wall", "ceiling", "bag")

    def test_refusals(self, tmp_path: Path) -> None:
        layouts.make_sun_rgbd(tmp_path)
        with pytest.raises(DatasetError, match="train and test"):
            open_dataset("sun-rgbd", tmp_path, "val")
        (tmp_path / "SUNRGBD-test_images" / "img-3.jpg").touch()
        with pytest.raises(DatasetError, match="does not have the form img-000001"):
            open_dataset("sun-rgbd", tmp_path)


class TestFolders:
    def test_pairs_by_name_with_endings(self, tmp_path: Path) -> None:
        for seed, name in enumerate("ab"):
            layouts.save(tmp_path / f"{name}_image.png", layouts.draw_image(seed))
            layouts.save(tmp_path / f"{name}_labels.png", layouts.draw_truth(seed, [1, 2, 0]))
        dataset = open_folders(
            tmp_path, tmp_path, ("x", "y"), image_ending="_image", label_ending="_labels", void=0, offset=1
        )
        assert [pair.name for pair in dataset.pairs] == ["a", "b"]
        stored = layouts.draw_truth(0, [1, 2, 0])
        assert (dataset.load(dataset.pairs[0]).truth == np.array([255, 0, 1], np.uint8)[stored]).all()

    def test_colors_of_the_palette(self, tmp_path: Path) -> None:
        layouts.save(tmp_path / "i" / "a.png", layouts.draw_image(0))
        palette = ((0, 0, 0), (9, 8, 7))
        layouts.save(tmp_path / "l" / "a.png", np.array(palette, np.uint8)[layouts.draw_truth(0, [0, 1])])
        dataset = open_folders(tmp_path / "i", tmp_path / "l", ("x", "y"), palette, colors=True)
        assert (dataset.load(dataset.pairs[0]).truth == layouts.draw_truth(0, [0, 1])).all()

    def test_refusals(self, tmp_path: Path) -> None:
        images, labels = tmp_path / "i", tmp_path / "l"
        layouts.save(images / "a.png", layouts.draw_image(0))
        labels.mkdir()
        with pytest.raises(
            DatasetError, match=r"no labels for 1 of 1 images \(a\): that of a[.]png would be a_l[.]png"
        ):
            open_folders(images, labels, ("x",), label_ending="_l")
        layouts.save(labels / "a.jpg", layouts.draw_truth(0, [0]))
        with pytest.raises(DatasetError, match=r"\(a\): a[.]jpg does not keep labels exact; use the original PNG"):
            open_folders(images, labels, ("x",))
        layouts.save(labels / "a.png", draw := layouts.draw_truth(0, [0]))
        layouts.save(labels / "a.bmp", draw)
        with pytest.raises(DatasetError, match=r"has the same name as a[.]bmp"):
            open_folders(images, labels, ("x",))
        (labels / "a.bmp").unlink()
        with pytest.raises(DatasetError, match="has no image"):
            open_folders(images, labels, ("x",), image_ending="_photo")
        with pytest.raises(DatasetError, match="no such folder"):
            open_folders(tmp_path / "none", labels, ("x",))


def test_opens_by_a_path_or_its_text(tmp_path: Path) -> None:
    layouts.make_sun_rgbd(tmp_path)
    assert open_dataset("sun-rgbd", str(tmp_path)).pairs == open_dataset("sun-rgbd", tmp_path).pairs


def test_unknown_dataset_and_annotations_without_a_choice(tmp_path: Path) -> None:
    assert set(DATASETS) == {"voc2012", "cityscapes", "camvid", "sun-rgbd"}
    with pytest.raises(InputError, match='unknown dataset "ade20k": use one of voc2012'):
        open_dataset("ade20k", tmp_path)
    with pytest.raises(InputError, match="one kind of annotations"):
        open_dataset("camvid", tmp_path, annotations="x")


def test_take_is_spread_evenly_and_repeats(tmp_path: Path) -> None:
    names = tuple(f"n{index}" for index in range(10))
    dataset = open_dataset("voc2012", layouts.make_voc(tmp_path, names))
    assert [pair.name for pair in dataset.take(3).pairs] == ["n0", "n3", "n6"]
    assert dataset.take(None) is dataset
    assert dataset.take(99) is dataset
    with pytest.raises(InputError, match="at least 1"):
        dataset.take(0)


def test_sizes_that_differ(tmp_path: Path) -> None:
    folder = layouts.make_voc(tmp_path)
    dataset = open_dataset("voc2012", folder)
    for shape, words in (((9, 6), "rotated by 90"), ((12, 18), "scaled differently"), ((6, 8), "same pixels")):
        layouts.save(folder / "SegmentationClass" / "2007_000033.png", np.zeros(shape, np.uint8))
        with pytest.raises(DatasetError, match=words):
            dataset.load(dataset.pairs[0])


class TestRealPairs:
    """A few real pairs, put into the published layouts."""

    def test_voc(self, tmp_path: Path, shared_dir: Path) -> None:
        layouts.copy_real_voc(shared_dir, tmp_path)
        dataset = open_dataset("voc2012", tmp_path)
        example = dataset.load(dataset.pairs[0])
        assert example.truth.shape == example.image.shape[:2] == (500, 334)
        present = {dataset.classes[label] for label in np.unique(example.truth) if label != VOID}
        assert present == {"background", "bicycle", "person"}

    def test_camvid(self, tmp_path: Path, shared_dir: Path) -> None:
        dataset = open_dataset("camvid", layouts.copy_real_camvid(shared_dir, tmp_path))
        assert len(dataset) == 3
        for pair in dataset.pairs:
            example = dataset.load(pair)
            assert example.truth.shape == (360, 480)
            assert set(np.unique(example.truth)) <= {*range(11), VOID}
            assert {3, 8} <= set(np.unique(example.truth))  # roads and cars
