"""Every type of image file: read as H x W x 3 uint8 RGB, or refused with a one-line error."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from atrous.errors import ImageError, InputError
from atrous.runtime import images
from atrous.runtime.images import as_rgb, count_frames, decode_image, read_image, read_transparency

RGB = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
ORIENTATION = 0x0112


def save(path: Path, array: Any, **options: Any) -> Path:
    Image.fromarray(np.asarray(array)).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif", ".gif"])
def test_lossless(tmp_path: Path, suffix: str) -> None:
    found = read_image(save(tmp_path / f"a{suffix}", RGB))
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert found.flags.writeable
    np.testing.assert_array_equal(found, RGB)


def test_one_pixel(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", RGB[:1, :1])), RGB[:1, :1])


def test_jpeg_equals_opencv(tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8), (0, 0), 8)
    found = read_image(save(tmp_path / "a.jpg", smooth, quality=95))
    opencv = cv2.imread(str(tmp_path / "a.jpg"))
    assert np.abs(found.astype(int) - opencv[:, :, ::-1]).max() <= 3  # the two use different inverse transforms


def test_gray_and_bilevel(tmp_path: Path) -> None:
    gray = RGB[:, :, 0]
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", gray)), np.repeat(gray[:, :, None], 3, 2))
    found = read_image(save(tmp_path / "b.png", gray > 99))
    np.testing.assert_array_equal(found[:, :, 0], np.where(gray > 99, 255, 0))


def test_alpha_is_dropped_as_opencv_does(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.dstack([RGB, np.arange(35, dtype=np.uint8).reshape(5, 7)]))
    np.testing.assert_array_equal(read_image(path), cv2.imread(str(path))[:, :, ::-1])
    np.testing.assert_array_equal(read_image(path), RGB)
    path = save(tmp_path / "b.png", RGB[:, :, :2])  # gray and alpha
    np.testing.assert_array_equal(read_image(path)[:, :, 2], RGB[:, :, 0])


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("L")
    image.putpalette(bytes([9, 8, 7, 60, 50, 40, 255, 0, 1]))
    image.save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[9, 8, 7], [60, 50, 40], [255, 0, 1]]])
    image.save(tmp_path / "b.gif", transparency=1)
    np.testing.assert_array_equal(read_image(tmp_path / "b.gif"), [[[9, 8, 7], [60, 50, 40], [255, 0, 1]]])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_gray_keeps_the_high_byte(tmp_path: Path, suffix: str) -> None:
    samples = np.array([[0, 255, 256, 0x1234, 65535]], np.uint16)
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), samples)
    np.testing.assert_array_equal(read_image(path)[0, :, 1], [0, 0, 1, 0x12, 255])


def test_sixteen_bit_color_equals_opencv(tmp_path: Path) -> None:
    samples = np.random.default_rng(2).integers(0, 65536, (4, 3, 3)).astype(np.uint16)
    assert cv2.imwrite(str(tmp_path / "a.png"), samples)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), cv2.imread(str(tmp_path / "a.png"))[:, :, ::-1])


def test_without_a_fixed_range(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="type F"):
        read_image(save(tmp_path / "a.tif", np.ones((2, 2), np.float32)))
    with pytest.raises(ImageError, match="32-bit"):
        read_image(save(tmp_path / "b.tif", np.full((2, 2), 70_000, np.int32)))


def test_cmyk(tmp_path: Path) -> None:
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[:, :, 0] = 255  # cyan alone: no red
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif")[0, 0].tolist() == [0, 255, 255]
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read_image(tmp_path / "a.jpg")[4, 4].astype(int) - [0, 255, 255]).max() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, orientation: int) -> None:
    # EXIF 2.3, tag 0x0112: the transform of the stored pixels that makes them upright
    upright = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, -1),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RGB, 1),
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", RGB, exif=exif)), upright)


def test_first_of_several_frames(tmp_path: Path) -> None:
    first, second = Image.fromarray(RGB), Image.fromarray(255 - RGB)
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), RGB)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is empty"),
        (b"hello, this is text\n", "is text, not an image"),
        ("grüße, 你好".encode() * 5, "is text, not an image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "HTML page"),
        (bytes(range(256)), "known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "known format|damaged"),
    ],
)
def test_not_an_image(tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=part) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".gif", ".webp"])
def test_truncated_anywhere(tmp_path: Path, suffix: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB.repeat(9, 0)).save(buffer, Image.registered_extensions()[suffix])
    whole = buffer.getvalue()
    refused = 0
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        (tmp_path / "a").write_bytes(whole[:length])
        try:
            assert read_image(tmp_path / "a").shape[2] == 3
        except ImageError:
            refused += 1
    assert refused > 15


def test_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", RGB)
    monkeypatch.setattr(images, "MAX_PIXELS", 34)
    with pytest.raises(ImageError, match="7x5"):
        read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # 35 pixels: more than twice that
    for ending in ("png", "jpg", "gif", "bmp", "tif", "webp"):
        size = "(too many|7x5)" if ending == "webp" else "7x5"  # the decoder of newer versions compares the size itself
        with pytest.raises(ImageError, match=f"has {size} pixels; the limit is {1 << 26}"):
            read_image(save(tmp_path / f"a.{ending}", RGB))


def test_fifo_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match=r"a\.jpg: cannot be read: not a regular file"):
        read_image(tmp_path / "a.jpg")


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(save(tmp_path / "a.png", RGB) / "below")


@pytest.mark.parametrize("exif", [b"Exif\0\0rubbish", b"Exif\0\0II*\0\xff\xff\xff\xff", {ORIENTATION: 77}])
def test_malformed_exif(tmp_path: Path, exif: Any) -> None:
    if isinstance(exif, dict):
        tags = Image.Exif()
        tags.update(exif)
        exif = tags
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", RGB, exif=exif)), RGB)


def make_animation(path: Path, count: int = 3) -> list[Any]:
    frames = [np.full((4, 5, 3), 40 * index, np.uint8) for index in range(count)]
    first, *others = (Image.fromarray(frame) for frame in frames)
    first.save(path, save_all=True, append_images=others, duration=40)
    return frames


@pytest.mark.parametrize("suffix", [".gif", ".tif", ".webp", ".png"])
def test_frames(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    frames = make_animation(path)
    assert count_frames(path) == 3
    for index, frame in enumerate(frames):
        np.testing.assert_allclose(read_image(path, frame=index), frame, atol=3 if suffix == ".webp" else 0)
    with pytest.raises(ImageError, match="has no frame 3"):
        read_image(path, frame=3)
    assert count_frames(save(tmp_path / "one.png", RGB)) == 1


def test_transparency(tmp_path: Path) -> None:
    alpha = np.array([[0, 127, 128, 255]], np.uint8)
    rgba = np.concatenate([np.full((1, 4, 3), 9, np.uint8), alpha[:, :, None]], axis=2)
    found = read_transparency(save(tmp_path / "a.png", rgba))
    np.testing.assert_array_equal(found, [[True, True, False, False]])
    assert read_transparency(save(tmp_path / "b.png", RGB)) is None
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.save(tmp_path / "c.gif", transparency=1)
    np.testing.assert_array_equal(read_transparency(tmp_path / "c.gif"), [[False, True]])
    turned = Image.fromarray(rgba)
    exif = turned.getexif()
    exif[ORIENTATION] = 6
    turned.save(tmp_path / "d.png", exif=exif)
    np.testing.assert_array_equal(read_transparency(tmp_path / "d.png"), [[True], [True], [False], [False]])


def test_bytes(tmp_path: Path) -> None:
    np.testing.assert_array_equal(decode_image(save(tmp_path / "a.png", RGB).read_bytes(), "stdin"), RGB)
    with pytest.raises(ImageError, match="http://a//b: is text, not an image"):
        decode_image(b"text", "http://a//b")


def test_what_python_users_hold(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RGB)
    assert as_rgb(RGB) is RGB
    for image in (path, str(path), Image.fromarray(RGB), Image.open(path)):
        np.testing.assert_array_equal(as_rgb(image), RGB)
    np.testing.assert_array_equal(as_rgb(cv2.imread(str(path)), "bgr"), RGB)
    np.testing.assert_array_equal(as_rgb(Image.fromarray(RGB[:, :, 0])), np.repeat(RGB[:, :, :1], 3, axis=2))


class Tensor:
    def detach(self) -> None: ...
    def numpy(self) -> None: ...


@pytest.mark.parametrize(
    ("image", "order", "reason"),
    [
        (RGB.astype(np.float32), "rgb", "got float32: scale it"),
        (RGB[:, :, 0], "rgb", "the image is gray: pass np.repeat"),
        (np.zeros((2, 3, 4), np.uint8), "rgb", r"alpha channel: pass image\[:, :, :3\]"),
        (RGB[None], "rgb", "a batch: call it for each image"),
        (np.zeros((0, 3, 3), np.uint8), "rgb", "H x W x 3"),
        (np.zeros((3, 5, 7), np.uint8), "rgb", "H x W x 3"),
        (Tensor(), "rgb", r"cannot be a Tensor: of a C x H x W tensor"),
        (None, "rgb", "cannot be a NoneType: pass a path"),
        (RGB, "gbr", "color_order must be"),
        (Image.fromarray(RGB), "bgr", 'color_order="bgr" is for arrays'),
    ],
)
def test_what_is_refused(image: Any, order: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        as_rgb(image, order)
