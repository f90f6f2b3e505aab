"""Labeling from and to S3, in a server of moto on this machine, through s3fs."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from atrous.errors import OutputError
from atrous.runtime.batch import label_files, merge_runs

from ..bundles import make_image, write_bundle

pytest.importorskip("s3fs", reason="s3fs is not installed: make ray-check")
pytest.importorskip("moto", reason="moto is not installed: make ray-check")
# its dependencies warn about their own calls
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.filterwarnings("error::UserWarning:atrous")]

IMAGES = 8


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The client of a new server with images in the bucket `data`."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem()
    with contextlib.suppress(FileExistsError):  # moto keeps its buckets in the process
        fs.mkdir("data")
    for number in range(IMAGES):
        buffer = io.BytesIO()
        Image.fromarray(make_image(9, 12, number)).save(buffer, "png")
        fs.pipe_file(f"data/photos/{number}.png", buffer.getvalue())
    yield fs
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def read_labels(fs: Any, folder: str) -> dict[str, bytes]:
    return {path.removeprefix(f"{folder}/"): fs.cat_file(path) for path in fs.find(folder) if path.endswith(".png")}


def test_labels_resume_and_shards(s3: Any, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b")
    s3.pipe_file("data/photos/broken.png", b"hello")
    summary = label_files(bundle, "s3://data/photos", "s3://data/out", kinds=["labels", "masks"])
    assert (summary.labeled, summary.failed) == (IMAGES, 1)
    again = label_files(bundle, "s3://data/photos", "s3://data/out", kinds=["labels", "masks"])
    assert (again.labeled, again.skipped, again.failed) == (0, IMAGES, 1)
    label_files(bundle, "s3://data/photos", tmp_path / "local", kinds=["labels", "masks"])
    found = (tmp_path / "local").rglob("*.png")
    local = {path.relative_to(tmp_path / "local").as_posix(): path.read_bytes() for path in found}
    assert read_labels(s3, "data/out") == local

    listing = [f"s3://data/photos/{number}.png" for number in range(IMAGES)]
    for index in range(2):
        label_files(bundle, listing, "s3://data/parts", is_list=True, shard=(index, 2))
    assert merge_runs(["s3://data/parts"]).finished == IMAGES
    assert [path for path in s3.find("data/parts") if path.endswith("l")] == ["data/parts/done.jsonl"]
    assert label_files(bundle, listing, "s3://data/parts", is_list=True).skipped == IMAGES
    lines = s3.cat_file("data/parts/done.jsonl").splitlines()
    assert {json.loads(line)["outputs"]["labels"] for line in lines[1:]} == {
        f"data/photos/{number}.png.png" for number in range(IMAGES)
    }


def test_a_bucket_that_does_not_exist(s3: Any, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"s3://nowhere/out/.*cannot be written"):
        label_files(write_bundle(tmp_path / "b"), "s3://data/photos", "s3://nowhere/out")
