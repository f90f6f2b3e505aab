"""Shards: disjoint, complete, the same on every machine; the files are those of one process."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from atrous.errors import InputError
from atrous.runtime.batch import label_files
from atrous.runtime.batch.images import ImageJob, find_jobs, read_jobs
from atrous.runtime.batch.shards import ListSum, Selection, Shard, hash_identity, parse_shard

from ..bundles import make_image, write_bundle

PATHS = 100_000


def test_disjoint_and_complete_over_many_paths() -> None:
    count = 7
    paths = [f"archive/{number % 97:02}/photo {number}.jpg" for number in range(PATHS)]
    jobs = list(read_jobs(paths, Path("out"), ["labels"]))
    shards = [Selection(jobs, Shard(index, count)) for index in range(count)]
    owned = [[job.identity for job in shard] for shard in shards]
    assert Counter(name for names in owned for name in names) == Counter(paths)
    assert max(map(len, owned)) - min(map(len, owned)) < 8 * (PATHS / count) ** 0.5  # a fair hash: 5 sigma each side
    total = ListSum()
    for shard in shards:
        assert (shard.listed.images, shard.listed) == (PATHS, shards[0].listed)
        total += shard.own
    assert total == shards[0].listed


def test_the_hash_is_the_documented_one() -> None:
    for identity in ("a.jpg", "sub/ü.png", "s3://bucket/x.jpg"):
        digest = hashlib.sha256(identity.encode()).hexdigest()
        assert hash_identity(identity) == int(digest[:16], 16)


def test_machines_with_other_mount_points_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for machine in ("one", "two/deeper"):
        photos = tmp_path / machine / "photos"
        (photos / "sub").mkdir(parents=True)
        for name in ("a.png", "b.png", "sub/a.png"):
            (photos / name).touch()
        monkeypatch.chdir(photos.parent)
        out = tmp_path / "out"
        found.append([job.identity for job in find_jobs([photos], out, ["labels"], recursive=True)])
        assert [job.identity for job in find_jobs(["./photos/a.png"], out, ["labels"], recursive=False)] == [
            "photos/a.png"
        ]
    assert found == [["a.png", "b.png", "sub/a.png"]] * 2


@pytest.mark.parametrize("text", ["", "1", "3/3", "-1/2", "0/0", "a/b", "1/2/3", "0/9999999"])
def test_no_such_shard(text: str) -> None:
    with pytest.raises(InputError, match="shard"):
        parse_shard(text)


def test_a_shard_in_text() -> None:
    assert parse_shard(" 3/4") == Shard(3, 4)
    assert str(Shard(3, 4)) == "3-of-4"


def test_a_selection_can_be_iterated_again() -> None:
    jobs = [ImageJob(str(number), {}, identity=str(number)) for number in range(10)]
    selection = Selection(jobs, Shard(0, 2))
    assert selection.count() == len(list(selection)) == selection.own.images
    assert selection.listed.images == 10


def test_the_files_of_all_shards_are_those_of_one_process(tmp_path: Path) -> None:
    bundle, photos = write_bundle(tmp_path / "b"), tmp_path / "photos"
    photos.mkdir()
    for number in range(12):
        Image.fromarray(make_image(9, 12, number)).save(photos / f"{number:02}.png")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    label_files(bundle, photos, whole, kinds=["labels", "overlay"])
    counts = [
        label_files(bundle, photos, parts, kinds=["labels", "overlay"], shard=(index, 3)).labeled for index in range(3)
    ]
    assert sum(counts) == 12
    assert min(counts) > 0
    assert {path.name: path.read_bytes() for path in whole.glob("*.png")} == {
        path.name: path.read_bytes() for path in parts.glob("*.png")
    }
    assert len(list(parts.glob("*.png"))) == 24


def test_shards_resume_each_other_and_whole_runs(tmp_path: Path) -> None:
    """A shard skips what it did, what a run without shards did, and what another number of shards did."""
    bundle, photos, out = write_bundle(tmp_path / "b"), tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for number in range(8):
        Image.fromarray(make_image(9, 12, number)).save(photos / f"{number}.png")
    first = label_files(bundle, photos, out, shard=(0, 2))
    assert (label_files(bundle, photos, out, shard=(0, 2)).skipped, first.labeled > 0) == (first.labeled, True)
    assert label_files(bundle, photos, out).skipped == first.labeled
    assert [label_files(bundle, photos, out, shard=(index, 3)).labeled for index in range(3)] == [0, 0, 0]
    again = label_files(bundle, photos, out, shard=(0, 2), resume=False)
    assert again.labeled == first.labeled
    assert label_files(bundle, photos, out, resume=False).labeled == 8
    assert [path.name for path in out.glob("*.jsonl")] == ["done.jsonl"]
