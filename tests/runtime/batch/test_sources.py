"""Images from standard input, web addresses and frames, through `label_files`."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atrous.errors import InputError
from atrous.runtime import load
from atrous.runtime.batch import label_files
from atrous.runtime.batch.streams import name_stream

from ..bundles import make_image, write_bundle

HEIGHT, WIDTH = 24, 32


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_bundle(Path("b"))
    Path("photos").mkdir()
    Image.fromarray(make_image(HEIGHT, WIDTH, 0)).save("photos/a.png")
    return tmp_path


@pytest.fixture
def address(workplace: Path) -> Iterator[str]:
    pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(workplace))

        def log_message(self, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def read(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def expected(image: np.ndarray) -> np.ndarray:
    with load("b") as segmenter:
        return segmenter(image)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    content = Path("photos/a.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    assert label_files("b", "-", "out").labeled == 1
    np.testing.assert_array_equal(read("out/stdin.png"), expected(make_image(HEIGHT, WIDTH, 0)))


def test_an_address(address: str) -> None:
    images = [f"{address}/photos/a.png", f"{address}/none.png"]
    summary = label_files("b", images, "out")
    assert (summary.labeled, summary.failed) == (1, 1)
    np.testing.assert_array_equal(read("out/a.png"), expected(make_image(HEIGHT, WIDTH, 0)))
    failure = json.loads(Path("out/failures.jsonl").read_text().splitlines()[-1])
    assert failure["error"] == f"{address}/none.png: the server answers with HTTP status 404"
    assert label_files("b", images, "out").labeled == 1  # what a server has may change: labeled again


def test_a_list_with_an_address(address: str) -> None:
    assert label_files("b", ["photos/a.png", f"{address}/photos/a.png?x=1/2"], "out", is_list=True).labeled == 2
    host = address.removeprefix("http://").replace(":", "_")
    np.testing.assert_array_equal(read("out/photos/a.png.png"), read(f"out/{host}/photos/a.png_x%3D1%2F2.png"))


@pytest.mark.parametrize(
    ("stream", "name"),
    [
        ("-", "stdin"),
        ("http://host/a.png", "host/a.png"),
        ("http://host", "host"),
        ("https://host:80/../../etc/./passwd", "host_80/etc/passwd"),
        ("https://host/a?file=../b", "host/a_file%3D..%2Fb"),
    ],
)
def test_names_stay_inside_the_folder(stream: str, name: str) -> None:
    assert name_stream(stream) == Path(name)


def test_all_frames() -> None:
    frames = [make_image(HEIGHT, WIDTH, seed) for seed in range(3)]
    first, *others = map(Image.fromarray, frames)
    first.save("photos/b.tif", save_all=True, append_images=others)
    assert label_files("b", ["photos"], "out", all_frames=True).labeled == 4
    assert sorted(path.name for path in Path("out").glob("*.png")) == ["a.png", *(f"b_000{i}.png" for i in range(3))]
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(read(f"out/b_000{index}.png"), expected(frame))
    again = label_files("b", ["photos"], "out", all_frames=True)
    assert (again.labeled, again.skipped) == (0, 4)
    label_files("b", ["photos/b.tif"], "named", all_frames=True, naming="path")
    assert Path("named/photos/b_0002.tif.png").exists()


def test_a_frame_that_shares_a_name() -> None:
    first = Image.fromarray(make_image(HEIGHT, WIDTH, 0))
    first.save("photos/b.tif", save_all=True, append_images=[first])
    first.save("photos/b_0001.png")
    with pytest.raises(InputError, match=r"b\.tif and photos/b_0001\.png would both"):
        label_files("b", ["photos"], "out", all_frames=True)


def test_transparent_pixels_are_void() -> None:
    image = make_image(HEIGHT, WIDTH, 0)
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:5] = 0
    Image.fromarray(np.concatenate([image, alpha], axis=2)).save("photos/b.png")
    label_files("b", ["photos"], "out", kinds=["labels", "overlay"], ignore_transparent=True)
    labels = expected(image)
    np.testing.assert_array_equal(read("out/a.png"), labels)
    np.testing.assert_array_equal(read("out/b.png")[5:], labels[5:])
    assert (read("out/b.png")[:5] == 255).all()
    record = json.loads(Path("out/done.jsonl").read_text().splitlines()[-1])
    assert sum(record["classes"].values()) in (pytest.approx(1), pytest.approx(19 / 24))
    label_files("b", ["photos"], "out", kinds=["labels", "overlay"])  # another setting: done again
    np.testing.assert_array_equal(read("out/b.png"), labels)
