"""`atrous segment` and Python on files as people have them: every pixel type, turned, tiny, animated, broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from atrous import runtime
from atrous.errors import ImageError
from atrous.scripts.main import main

from ..runtime.bundles import expected_scores, write_bundle

SIZE = (48, 36)


def make_picture() -> Image.Image:
    picture = Image.new("RGB", SIZE, (60, 60, 160))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, 20, 35), fill=(160, 60, 60))
    draw.rectangle((30, 10, 47, 30), fill=(60, 160, 60))
    return picture


def with_alpha() -> Image.Image:
    picture = make_picture().convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(SIZE))
    return picture


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.asarray(make_picture().convert("L")).astype(np.uint16) * 257)


def turned() -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"exif": exif, "quality": 95}


def first(picture: Image.Image) -> Image.Image:
    return picture.convert("RGB")


def high_byte(picture: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")


#: name -> how to make it, the arguments of save, and the picture that its labels must be of
READ: dict[str, tuple[Callable[[], Image.Image], dict[str, Any], Callable[[Image.Image], Image.Image]]] = {
    "rgb.png": (make_picture, {}, first),
    "gray.png": (lambda: make_picture().convert("L"), {}, first),
    "bilevel.png": (lambda: make_picture().convert("1"), {}, first),
    "gray_alpha.png": (lambda: with_alpha().convert("LA"), {}, first),
    "alpha.png": (with_alpha, {}, first),
    "palette.png": (lambda: make_picture().quantize(8), {}, first),
    "palette_transparent.png": (lambda: make_picture().quantize(8), {"transparency": 0}, first),
    "sixteen.png": (sixteen_bits, {}, high_byte),
    "sixteen.tif": (sixteen_bits, {}, high_byte),
    "cmyk.tif": (lambda: make_picture().convert("CMYK"), {}, first),
    "one.png": (lambda: make_picture().crop((0, 0, 1, 1)), {}, first),
    "row.png": (lambda: make_picture().crop((0, 0, 48, 1)), {}, first),
    "still.gif": (lambda: make_picture().quantize(8), {}, first),
    "animated.gif": (
        lambda: make_picture().quantize(8),
        {"save_all": True, "append_images": [Image.new("RGB", SIZE, "red")]},
        first,
    ),
    "lossless.webp": (make_picture, {"lossless": True}, first),
    "picture.bmp": (make_picture, {}, first),
    "picture.ppm": (make_picture, {}, first),
}
#: JPEG, AVIF and others that change pixels: the labels must be those of the pixels that Pillow decodes
LOSSY: dict[str, tuple[Callable[[], Image.Image], Callable[[], dict[str, Any]]]] = {
    "picture.jpg": (make_picture, lambda: {"quality": 95}),
    "cmyk.jpg": (lambda: make_picture().convert("CMYK"), lambda: {"quality": 95}),
    "progressive.jpg": (make_picture, lambda: {"quality": 95, "progressive": True}),
    "turned.jpg": (make_picture, turned),
    **({"picture.avif": (make_picture, lambda: {"quality": 95})} if ".avif" in Image.registered_extensions() else {}),
}
BROKEN = {
    "float.tif": "have no fixed range",
    "truncated.png": "is damaged",
    "text.png": "is text, not an image",
    "page.jpg": "is an HTML page",
    "empty.jpg": "is empty",
}


def write_broken(folder: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(folder / "float.tif")
    make_picture().save(folder / "truncated.png")
    content = (folder / "truncated.png").read_bytes()
    (folder / "truncated.png").write_bytes(content[: len(content) // 2])
    (folder / "text.png").write_text("hello")
    (folder / "page.jpg").write_text("<!DOCTYPE html><html></html>")
    (folder / "empty.jpg").write_bytes(b"")


def test_every_kind_of_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    truth: dict[str, np.ndarray] = {}
    for name, (make, options, see) in READ.items():
        picture = make()
        picture.save(folder / name, **options)
        truth[name] = np.asarray(see(picture))
    for name, (make, choose) in LOSSY.items():
        make().save(folder / name, **choose())
        with Image.open(folder / name) as decoded:
            truth[name] = np.asarray(decoded.convert("RGB"))
    truth["turned.jpg"] = np.rot90(truth["turned.jpg"], -1)  # orientation 6: shown turned clockwise
    write_broken(folder)
    bundle, out = write_bundle(tmp_path / "b"), tmp_path / "out"

    code = main(["segment", str(bundle), str(folder), "-o", str(out), "--name", "path", "--threads", "1", "--json"])
    caught = capsys.readouterr()
    report = json.loads(caught.out)
    assert code == 1
    assert (report["labeled"], len(report["failures"])) == (len(truth), len(BROKEN))
    written = {Path(image["image"]).name: image["outputs"]["labels"] for image in report["images"]}
    for failure in report["failures"]:
        assert BROKEN[Path(failure["image"]).name] in failure["error"]
    with runtime.load(bundle, threads=1) as segmenter:
        for name, pixels in truth.items():
            expected = expected_scores(np.ascontiguousarray(pixels)).argmax(0)
            with Image.open(written[name]) as labels:
                np.testing.assert_array_equal(np.asarray(labels), expected, err_msg=name)
            np.testing.assert_array_equal(segmenter(folder / name), expected, err_msg=name)
        for name, part in BROKEN.items():
            with pytest.raises(ImageError, match=part):
                segmenter(folder / name)
