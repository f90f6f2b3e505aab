from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.bundle.palettes import VOC_COLORS
from atrous.errors import DatasetError
from atrous.runtime.evaluation.datasets.label_files import ColorCoding, make_index_coding, read_label_image
from atrous.runtime.pictures import color_labels, encode_label_png

LABELS = np.array([[0, 1, 2], [15, 20, 255]], np.uint8)
VOC = make_index_coding(21, what="labels of PASCAL VOC", palette=VOC_COLORS)


def write(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


def decode(path: Path) -> np.ndarray:
    return VOC.decode(read_label_image(path), path)


def test_palette_and_gray_files_hold_the_same_labels(tmp_path: Path) -> None:
    palette = tmp_path / "palette.png"
    palette.write_bytes(encode_label_png(LABELS, VOC_COLORS))
    with Image.open(palette) as image:
        assert image.mode == "P"
    for path in (palette, write(tmp_path / "gray.png", LABELS), write(tmp_path / "wide.png", LABELS.astype(np.uint16))):
        assert (decode(path) == LABELS).all()


def test_one_bit_is_two_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "bits.png", np.array([[True, False]]))
    assert decode(path).tolist() == [[1, 0]]


def test_palette_looked_up_is_told_from_any_picture(tmp_path: Path) -> None:
    looked_up = write(tmp_path / "a.png", color_labels(LABELS, VOC_COLORS))
    with pytest.raises(DatasetError, match=r"palette's colors instead of labels.*original palette PNGs"):
        decode(looked_up)
    swapped = write(tmp_path / "c.png", color_labels(LABELS, VOC_COLORS)[..., ::-1])
    with pytest.raises(DatasetError, match="red and blue swapped"):
        decode(swapped)
    photo = write(tmp_path / "b.png", np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    with pytest.raises(DatasetError, match="color picture of 6 colors"):
        decode(photo)


def test_palette_turned_to_gray_is_recognized(tmp_path: Path) -> None:
    gray = Image.fromarray(color_labels(LABELS, VOC_COLORS)).convert("L")
    gray.save(tmp_path / "a.png")
    with pytest.raises(DatasetError, match="gray levels of the palette"):
        decode(tmp_path / "a.png")


def test_labels_from_one_are_recognized(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", np.arange(1, 22, dtype=np.uint8)[None])
    with pytest.raises(DatasetError, match=r"holds 21, .*classes 0 to 20, void 255.*from 1 instead of 0"):
        decode(path)
    shifted = make_index_coding(21, offset=1)
    assert shifted.decode(read_label_image(path), path).tolist() == [list(range(21))]


def test_options_are_named_if_they_apply(tmp_path: Path) -> None:
    coding = make_index_coding(21, palette=VOC_COLORS, is_open=True)
    for name, stored, option in (
        ("a", np.arange(1, 22, dtype=np.uint8)[None], "use --label-offset 1"),
        ("b", color_labels(LABELS, VOC_COLORS), "or --label-colors"),
    ):
        path = write(tmp_path / f"{name}.png", stored)
        with pytest.raises(DatasetError, match=option):
            coding.decode(read_label_image(path), path)
        with pytest.raises(DatasetError) as caught:
            decode(path)
        assert "--" not in str(caught.value)


def test_labels_of_another_data_set(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", np.array([[3, 77, 150]], np.uint8))
    with pytest.raises(DatasetError, match=r"holds 77, 150, .*another dataset"):
        decode(path)


def test_files_that_are_no_labels(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is a JPEG, which does not keep labels exact"):
        read_label_image(write(tmp_path / "a.jpg", LABELS))
    with pytest.raises(DatasetError, match="16-bit numbers up to 26001"):
        read_label_image(write(tmp_path / "b.png", np.array([[26001]], np.uint16)))
    with pytest.raises(DatasetError, match="there is no such file"):
        read_label_image(tmp_path / "none.png")
    (tmp_path / "c.png").write_bytes(b"not an image")
    with pytest.raises(DatasetError, match="is text, not an image"):
        read_label_image(tmp_path / "c.png")
    whole = (
        write(tmp_path / "d.png", np.random.default_rng(0).integers(0, 20, (64, 64)).astype(np.uint8))
    ).read_bytes()
    (tmp_path / "d.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="is damaged"):
        read_label_image(tmp_path / "d.png")
    with pytest.raises(DatasetError, match="partly transparent"):
        read_label_image(write(tmp_path / "e.png", np.zeros((2, 2, 4), np.uint8)))


def test_colors_decode_and_numbers_do_not(tmp_path: Path) -> None:
    coding = ColorCoding({(0, 0, 0): 255, (1, 2, 3): 0})
    path = write(tmp_path / "a.png", np.array([[[0, 0, 0], [1, 2, 3]]], np.uint8))
    assert coding.decode(read_label_image(path), path).tolist() == [[255, 0]]
    with pytest.raises(DatasetError, match="holds numbers, not colors"):
        coding.decode(LABELS, path)
