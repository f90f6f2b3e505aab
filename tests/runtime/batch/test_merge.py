"""Joining the records of shards: what is complete, and everything that is refused without a change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from atrous.errors import InputError, OutputError
from atrous.runtime.batch import label_files, merge_runs
from atrous.runtime.batch.journal import Journal
from atrous.runtime.batch.shards import Shard

from ..bundles import make_image, write_bundle

IMAGES = 10


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a bundle `b` and images in `photos`, one of them broken."""
    write_bundle(tmp_path / "b")
    (tmp_path / "photos").mkdir()
    for number in range(IMAGES):
        Image.fromarray(make_image(9, 12, number)).save(tmp_path / f"photos/{number:02}.png")
    (tmp_path / "photos/broken.png").write_bytes(b"hello")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(index: int, count: int = 2, out: str = "out", images: str = "photos", **options: Any) -> None:
    label_files("b", images, out, shard=(index, count), **options)


def read_state(folder: str = "out") -> dict[str, bytes]:
    return {path.as_posix(): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def refuse(match: str, *folders: str, error: type[Exception] = InputError) -> None:
    before = read_state()
    with pytest.raises(error, match=match):
        merge_runs(folders or ["out"])
    assert read_state() == before


@pytest.mark.usefixtures("folder")
class TestJoined:
    def test_one_folder(self) -> None:
        run(0)
        run(1)
        lines = []
        summary = merge_runs(["out"], advance=lines.append)
        assert (summary.shards, summary.images, summary.finished) == (2, IMAGES + 1, IMAGES)
        assert (summary.failed, summary.copied, len(lines)) == (1, 0, IMAGES)
        records = sorted(path.name for path in Path("out").glob("*.jsonl"))
        assert records == ["done.jsonl", "failures.jsonl"]
        assert "broken.png" in Path("out/failures.jsonl").read_text()
        again = label_files("b", "photos", "out")
        assert (again.labeled, again.skipped, again.failed) == (0, IMAGES, 1)

    def test_several_folders(self) -> None:
        run(0, out="first", kinds=["labels", "masks"])
        run(1, out="second", kinds=["labels", "masks"])
        with pytest.raises(InputError, match="-o OUT"):
            merge_runs(["first", "second"])
        summary = merge_runs(["first", "second"], "out")
        assert summary.copied == sum(
            not path.endswith(".jsonl") for path in [*read_state("first"), *read_state("second")]
        )
        label_files("b", "photos", "whole", kinds=["labels", "masks"])
        joined, whole = (
            {path.partition("/")[2]: content for path, content in read_state(out).items()} for out in ("out", "whole")
        )
        assert {name for name in joined if name.endswith(".png")} == {name for name in whole if name.endswith(".png")}
        assert all(joined[name] == whole[name] for name in joined if name.endswith(".png"))
        assert label_files("b", "photos", "out", kinds=["labels", "masks"]).skipped == IMAGES
        assert label_files("b", "photos", "first", shard=(0, 2), kinds=["labels", "masks"]).labeled == 0

    def test_again_with_more_images_and_another_number_of_shards(self) -> None:
        run(0)
        run(1)
        merge_runs(["out"])
        Image.fromarray(make_image(9, 12, 99)).save("photos/more.png")
        Path("photos/broken.png").unlink()
        for index in range(3):
            run(index, 3)
        summary = merge_runs(["out"])
        assert (summary.images, summary.finished, summary.failed) == (IMAGES + 1, IMAGES + 1, 0)
        assert not Path("out/failures.jsonl").exists()
        assert len(Path("out/done.jsonl").read_text().splitlines()) == IMAGES + 2

    def test_a_folder_that_was_moved(self) -> None:
        run(0)
        run(1)
        shutil.move("out", "elsewhere")
        assert merge_runs(["elsewhere"]).finished == IMAGES


def edit_end(shard: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = Path(f"out/done.{shard}.jsonl")
    lines = path.read_text().splitlines()
    entry = json.loads(lines[-1])
    change(entry["end"])
    path.write_text("\n".join([*lines[:-1], json.dumps(entry)]) + "\n")


@pytest.mark.usefixtures("folder")
class TestRefused:
    def test_nothing_to_join(self) -> None:
        with pytest.raises(InputError, match="there is nothing in out"):
            merge_runs(["out"])
        label_files("b", "photos", "out")
        refuse("no records of shards")

    def test_a_missing_shard(self) -> None:
        run(0, 3)
        refuse(r"2 of 3 shards \(1, 2\) are without a record: run segment --shard I/3")

    def test_an_interrupted_shard(self) -> None:
        run(0)
        run(1)
        path = Path("out/done.1-of-2.jsonl")
        path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
        refuse(r"1 of 2 shards \(1\) are interrupted or running: run them again")

    def test_another_bundle(self) -> None:
        run(0)
        write_bundle(Path("b"), name="another")
        run(1)
        refuse(r"done.1-of-2.jsonl was made with other settings than out/done.0-of-2.jsonl: bundle")

    def test_other_kinds(self) -> None:
        run(0)
        run(1, kinds=["labels", "overlay"])
        refuse("other settings .* kinds")

    def test_another_list(self) -> None:
        run(0)
        Image.fromarray(make_image(9, 12, 99)).save("photos/more.png")
        run(1)
        refuse("from another list of images .* images")

    def test_images_that_no_shard_had(self) -> None:
        run(0)
        run(1)
        edit_end("1-of-2", lambda end: end["own"].update(images=end["own"]["images"] - 1))
        refuse(f"the shards have {IMAGES} images and their list {IMAGES + 1}")

    def test_a_malformed_end(self) -> None:
        run(0)
        run(1)
        edit_end("1-of-2", lambda end: end.update(own=3))
        refuse("malformed")

    def test_a_double(self) -> None:
        run(0)
        run(1)
        line = Path("out/done.0-of-2.jsonl").read_text().splitlines()[1]
        other = Path("out/done.1-of-2.jsonl")
        header, *rest = other.read_text().splitlines()
        other.write_text("\n".join([header, line, *rest]) + "\n")
        refuse("was labeled by two shards")

    def test_one_shard_twice(self) -> None:
        run(0)
        run(1)
        shutil.copytree("out", "copy")
        with pytest.raises(InputError, match=r"shard 0-of-2 is in .* give one of them"):
            merge_runs(["out", "copy"], "all")
        assert not Path("all").exists()

    def test_a_missing_result(self) -> None:
        run(0)
        run(1)
        Path("out/03.png").unlink()
        refuse(r"1 results are missing or have another size: out/03.png")
        for index in range(2):
            run(index)
        assert merge_runs(["out"]).finished == IMAGES

    def test_a_name_outside_the_folder(self) -> None:
        run(0)
        run(1)
        path = Path("out/done.0-of-2.jsonl")
        path.write_text(path.read_text().replace('"labels": "0', '"labels": "../0'))
        refuse("names a result outside its folder")

    def test_a_shard_at_work(self) -> None:
        pytest.importorskip("fcntl", reason="this system has no file locks")
        run(0)
        run(1)
        with Journal("out", shard=Shard(1, 2)):
            refuse("another run is writing", error=OutputError)
