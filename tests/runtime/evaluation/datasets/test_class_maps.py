from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.bundle.palettes import CAMVID_CLASSES, CITYSCAPES_CLASSES, VOC_CLASSES, VOC_COLORS
from atrous.errors import DatasetError, InputError
from atrous.runtime.evaluation import VOID
from atrous.runtime.evaluation.datasets.class_maps import ClassMap, match_names, read_map
from atrous.runtime.evaluation.datasets.dataset import Dataset
from atrous.runtime.evaluation.datasets.folders import open_folders
from atrous.runtime.evaluation.datasets.label_sets import LABEL_SETS, choose_label_set, find_label_set, map_dataset


def names_of(source: tuple[str, ...], target: tuple[str, ...]) -> dict[str, str]:
    """The pairs of `match_names` by name, without classes that are ignored."""
    pairs = zip(source, match_names(source, target), strict=True)
    return {name: target[index] for name, index in pairs if index != VOID}


def test_names_and_synonyms() -> None:
    matched = names_of(CAMVID_CLASSES, CITYSCAPES_CLASSES)
    assert matched == {
        **{name: name for name in ("sky", "building", "pole", "road", "fence", "car")},
        "pavement": "sidewalk",
        "tree": "vegetation",
        "sign": "traffic sign",
        "pedestrian": "person",
        "bicyclist": "rider",
    }
    back = names_of(CITYSCAPES_CLASSES, CAMVID_CLASSES)
    assert {value: key for key, value in matched.items()} == back
    coco = names_of(LABEL_SETS["coco-stuff"].names, VOC_CLASSES)
    assert len(set(coco.values())) == 20  # all but the background
    assert (coco["couch"], coco["dining table"], coco["tv"]) == ("sofa", "diningtable", "tvmonitor")


def test_parents_of_hyphenated_names() -> None:
    names = ("wall-brick", "wall-other", "sky-other", "window-blind", "net")
    assert match_names(names, ("wall", "sky", "blinds", "window")) == (0, 0, 1, 2, VOID)
    assert match_names(("sky", "wall"), ("sky-other", "wall-brick", "wall-wood")) == (0, VOID)


def test_published_sets() -> None:
    sizes = {name: len(labels.names) for name, labels in LABEL_SETS.items()}
    assert sizes == {
        "voc": 21,
        "cityscapes": 19,
        "cityscapes-ids": 34,
        "camvid": 11,
        "sun-rgbd": 37,
        "ade20k": 150,
        "coco-stuff": 182,
    }
    ids = LABEL_SETS["cityscapes-ids"].names  # evaluated ids, cityscapesScripts
    known = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    assert tuple(ids[index] for index in known) == CITYSCAPES_CLASSES
    assert [LABEL_SETS["ade20k"].names[index - 1] for index in (1, 13, 21, 150)] == ["wall", "person", "car", "flag"]
    assert [LABEL_SETS["coco-stuff"].names[index - 1] for index in (1, 91, 92, 182)] == [
        *("person", "hair brush", "banner", "wood")
    ]


def test_mapped_labels_and_ignored_pixels() -> None:
    classes = ClassMap("x", ("a", "b", "c"), (1, VOID, 0))
    labels = np.array([[0, 1, 2], [1, VOID, 0]], np.uint8)
    assert classes.apply(labels).tolist() == [[1, VOID, 0], [VOID, VOID, 1]]
    assert classes.count_ignored(labels) == {"b": 2}
    assert classes.describe(("p", "q")) == {"a": "q", "b": None, "c": "p"}


class TestMapFile:
    names, classes = ("tree", "car", "road"), ("Vegetation", "bus", "road")

    def read(self, path: Path, content: str) -> tuple[int, ...]:
        path.write_text(content)
        return read_map(path, self.names, {1: 0, 2: 1, 3: 2}, self.classes, (VOID, VOID, 2))

    def test_names_numbers_null_and_all_others(self, tmp_path: Path) -> None:
        path = tmp_path / "map.json"
        assert self.read(path, '{"Tree": "vegetation", "2": 1}') == (0, 1, 2)
        assert self.read(path, '{"*": "bus", "road": null}') == (1, 1, VOID)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("[]", "is not a JSON object such as"),
            ("{}", "is not a JSON object such as"),
            ("{", "is not JSON"),
            ("[" * 100_000, "is not JSON"),
            ('{"tre": "bus"}', '"tre" is not a class of the label images: did you mean "tree"?'),
            ('{"' + "4" * 5000 + '": "bus"}', "is not a class of the label images"),
            ('{"4": "bus"}', '"4" is not a class of the label images'),
            ('{"tree": "buss"}', '"buss" is not a class of the bundle: did you mean "bus"?'),
            ('{"tree": 3}', "3 is not a class of the bundle"),
            ('{"tree": true}', "true is not a class of the bundle"),
        ],
    )
    def test_invalid_files(self, tmp_path: Path, content: str, words: str) -> None:
        with pytest.raises(DatasetError) as caught:
            self.read(tmp_path / "map.json", content)
        assert words in str(caught.value)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="cannot be read"):
            read_map(tmp_path / "none", self.names, {}, self.classes, (VOID, VOID, VOID))


def save_pair(folder: Path, labels: np.ndarray) -> None:
    Image.fromarray(np.zeros((*labels.shape[:2], 3), np.uint8)).save(folder / "a_image.png")
    Image.fromarray(labels).save(folder / "a_labels.png")


def open_mapped(folder: Path, name: str | None, map_file: Path | None = None, **numbers: int) -> Dataset:
    labels = choose_label_set(name, map_file is not None, **numbers)
    endings = {"image_ending": "_image", "label_ending": "_labels"}
    dataset = open_folders(folder, folder, CITYSCAPES_CLASSES, label_set=labels, **endings)
    return map_dataset(dataset, name or "", CITYSCAPES_CLASSES, (), map_file)


def test_folders_with_the_numbers_of_a_set(tmp_path: Path) -> None:
    save_pair(tmp_path, np.array([[0, 1, 2, 3, 13, 150]], np.uint8))  # void, wall, building, sky, person, flag
    dataset = open_mapped(tmp_path, "ade20k")
    example = dataset.load(dataset.pairs[0])
    expected = [VOID, *(CITYSCAPES_CLASSES.index(name) for name in ("wall", "building", "sky", "person")), VOID]
    assert example.truth.tolist() == [expected]
    assert example.ignored == {"flag": 1}
    assert dataset.classes == CITYSCAPES_CLASSES


def test_a_set_in_colors(tmp_path: Path) -> None:
    save_pair(tmp_path, np.array([[VOC_COLORS[15], VOC_COLORS[7], VOC_COLORS[8]]], np.uint8))  # person, car, cat
    dataset = open_mapped(tmp_path, "voc")
    example = dataset.load(dataset.pairs[0])
    assert example.truth.tolist() == [[CITYSCAPES_CLASSES.index("person"), CITYSCAPES_CLASSES.index("car"), VOID]]
    assert example.ignored == {"cat": 1}


def test_numbers_by_a_map_file_alone(tmp_path: Path) -> None:
    save_pair(tmp_path, np.array([[0, 5, 200, 255]], np.uint8))
    file = tmp_path / "map.json"
    file.write_text(json.dumps({"5": "road", "0": 10}))
    dataset = open_mapped(tmp_path, None, file)
    example = dataset.load(dataset.pairs[0])
    assert example.truth.tolist() == [[10, 0, VOID, VOID]]
    assert example.ignored == {"200": 1}


def test_a_file_of_names_with_its_own_numbers(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("car\nunicorn\n")
    save_pair(tmp_path, np.array([[1, 2, 0]], np.uint8))
    dataset = open_mapped(tmp_path, str(names), first=1, void=0)
    example = dataset.load(dataset.pairs[0])
    assert example.truth.tolist() == [[CITYSCAPES_CLASSES.index("car"), VOID, VOID]]
    assert example.ignored == {"unicorn": 1}


def test_wrong_sets(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a file, and not one of voc, cityscapes"):
        find_label_set("pascal")
    (tmp_path / "twice").write_text("a\na\n")
    with pytest.raises(DatasetError, match="each of them once"):
        find_label_set(str(tmp_path / "twice"))
    (tmp_path / "names").write_text("unicorn\n")
    save_pair(tmp_path, np.zeros((1, 1), np.uint8))
    with pytest.raises(DatasetError, match=r"no class of .*names has a counterpart"):
        open_mapped(tmp_path, str(tmp_path / "names"))
