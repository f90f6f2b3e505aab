"""Files, folders and patterns to images; images to results that never meet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrous.errors import InputError
from atrous.runtime.batch.images import Naming, find_jobs, list_images

KINDS = ("labels", "overlay")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(*arguments: object, **options: object) -> list[str]:
    return [str(item.image) for item in list_images([str(a) for a in arguments], **options)]  # type: ignore[arg-type]


def planned(tmp_path: Path, *arguments: str, recursive: bool = False, naming: Naming = "stem") -> dict[str, str]:
    jobs = find_jobs(arguments, tmp_path / "out", KINDS, recursive=recursive, naming=naming)
    return {str(job.image): job.outputs["labels"].relative_to(tmp_path / "out").as_posix() for job in jobs}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    touch(tmp_path, "p/b.jpg", "p/a.PNG", "p/notes.txt", "p/._a.png", "p/sub/c.tif", "p/sub/deep/a.jpg", "q/a.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("photos")
class TestFinding:
    def test_folder(self) -> None:
        assert found("p") == ["p/a.PNG", "p/b.jpg"]
        assert found("p", recursive=True) == ["p/a.PNG", "p/b.jpg", "p/sub/c.tif", "p/sub/deep/a.jpg"]

    def test_files_are_taken_as_they_are(self) -> None:
        assert found("p/notes.txt", "nothing.jpg") == ["p/notes.txt", "nothing.jpg"]

    def test_patterns(self) -> None:
        assert found("p/*.jpg") == ["p/b.jpg"]
        assert found("**/a.*") == ["p/a.PNG", "p/sub/deep/a.jpg", "q/a.jpg"]
        assert found("[pq]") == ["p/a.PNG", "p/b.jpg", "q/a.jpg"]  # folders a pattern meets

    def test_a_name_with_brackets_is_not_a_pattern(self, photos: Path) -> None:
        touch(photos, "p/x[1].jpg")
        assert found("p/x[1].jpg") == ["p/x[1].jpg"]

    def test_each_once(self) -> None:
        assert found("p/b.jpg", "p", "./p/b.jpg", "p") == ["p/b.jpg", "p/a.PNG"]

    def test_results_folder_is_left_out(self, photos: Path) -> None:
        touch(photos, "p/out/b.png")
        assert "p/out/b.png" in found("p", recursive=True)
        assert "p/out/b.png" not in found("p", recursive=True, exclude=Path("p/out"))

    def test_folder_that_cannot_be_searched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        scan = os.scandir

        def refuse(path: str) -> object:
            if str(path).endswith("deep"):
                raise PermissionError(13, "Permission denied", str(path))
            return scan(path)

        monkeypatch.setattr(os, "scandir", refuse)
        with pytest.raises(InputError, match="p/sub/deep cannot be searched: Permission denied"):
            found("p", recursive=True)

    def test_nothing(self, photos: Path) -> None:
        (photos / "empty").mkdir()
        with pytest.raises(InputError, match="nothing matches the pattern"):
            found("*.bmp")
        with pytest.raises(InputError, match=r"no images in the folder empty.*--recursive"):
            found("empty", "p")


@pytest.mark.usefixtures("photos")
class TestNaming:
    def test_plain(self, photos: Path) -> None:
        assert planned(photos, "p/b.jpg") == {"p/b.jpg": "b.png"}
        assert planned(photos, "p", recursive=True)["p/sub/c.tif"] == "sub/c.png"

    def test_two_images_for_one_name_are_an_error_that_names_both(self, photos: Path) -> None:
        touch(photos, "p/a.jpg")
        with pytest.raises(InputError, match=r"p/a.PNG and p/a.jpg would both be written to .*out/a.png.*--name path"):
            planned(photos, "p")
        with pytest.raises(InputError, match=r"p/sub/deep/a.jpg and q/a.jpg would both"):
            planned(photos, "p/sub/deep/a.jpg", "q/a.jpg")

    def test_paths(self, photos: Path) -> None:
        touch(photos, "p/a.jpg")
        names = planned(photos, "p", "q/a.jpg", naming="path")
        assert names == {
            "p/a.PNG": "p/a.PNG.png",
            "p/a.jpg": "p/a.jpg.png",
            "p/b.jpg": "p/b.jpg.png",
            "q/a.jpg": "q/a.jpg.png",
        }
        alone = planned(photos, "p/b.jpg", naming="path")
        assert alone["p/b.jpg"] == names["p/b.jpg"]  # whatever its neighbors
        touch(photos, "up.jpg")
        with pytest.raises(InputError, match="rename one of them"):
            planned(photos, "up.jpg", "p/../../" + photos.name + "/up.jpg", "../up.jpg", naming="path")

    def test_overlay_of_one_is_not_the_labels_of_another(self, photos: Path) -> None:
        touch(photos, "p/b_overlay.jpg")
        with pytest.raises(InputError, match=r"p/b.jpg and p/b_overlay.jpg would both"):
            planned(photos, "p")

    def test_capitals(self, photos: Path) -> None:
        touch(photos, "p/B.jpg")
        with pytest.raises(InputError, match=r"p/B.jpg and p/b.jpg would both"):
            planned(photos, "p")

    def test_an_image_is_never_overwritten(self, photos: Path) -> None:
        touch(photos, "p/d.png")
        with pytest.raises(InputError, match="would overwrite"):
            find_jobs(["p/d.png"], Path("p"), KINDS, recursive=False)
        (photos / "link").symlink_to(photos / "p")
        with pytest.raises(InputError, match="would overwrite"):
            find_jobs(["p/d.png"], Path("link"), KINDS, recursive=False)


@given(st.lists(st.from_regex(r"([abA]/){0,2}[abA](_overlay)?\.(jpg|png)", fullmatch=True), min_size=1, unique=True))
def test_results_never_meet(names: list[str]) -> None:
    outputs: list[str] = []
    for name in names:
        (job,) = find_jobs([name], Path("/nowhere/out"), KINDS, recursive=False, naming="path")
        outputs += [str(path).casefold() for path in job.outputs.values()]
    if len(set(outputs)) < len(outputs):
        with pytest.raises(InputError, match="would both be written"):
            find_jobs(names, Path("/nowhere/out"), KINDS, recursive=False, naming="path")
        return
    jobs = find_jobs(names, Path("/nowhere/out"), KINDS, recursive=False, naming="path")
    outputs = [str(path).casefold() for job in jobs for path in job.outputs.values()]
    assert len(set(outputs)) == len(outputs) == 2 * len(names)
    assert all("/nowhere/out/" in path for path in outputs)
