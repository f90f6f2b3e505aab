"""`runtime.batch.label_files` from Python: results, resuming after a kill, failures, name collisions, cancellation."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous import runtime
from atrous.errors import AtrousError, InputError, OutputError
from atrous.runtime.batch import BatchObserver, BatchSummary, FailedImage, LabeledImage, label_files
from atrous.runtime.segmenter import Segmenter
from atrous.scripts.main import main

from ...processes import child_env
from ..bundles import expected_scores, make_image, write_bundle

IMAGES = 12


class Recorder(BatchObserver):
    """Keeps every event; raises `error` at the labeled image of number `at`."""

    def __init__(self, at: int | None = None, error: BaseException | None = None) -> None:
        self.events: list[tuple[str, object]] = []
        self._at, self._error = at, error

    def started(self, segmenter: Segmenter, summary: BatchSummary, total: int | None) -> None:
        self.events.append(("started", total))
        self.summary = summary

    def skipped(self, image: Path) -> None:
        self.events.append(("skipped", image.name))

    def labeled(self, image: LabeledImage) -> None:
        self.events.append(("labeled", image.image.name))
        if self.summary.labeled == self._at and self._error is not None:
            raise self._error

    def failed(self, image: FailedImage) -> None:
        self.events.append(("failed", image.image.name))

    def names(self, kind: str) -> list[object]:
        return [value for event, value in self.events if event == kind]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a bundle `b` and twelve images in `photos`."""
    write_bundle(tmp_path / "b")
    (tmp_path / "photos").mkdir()
    for number in range(IMAGES):
        Image.fromarray(make_image(9, 12, number)).save(tmp_path / f"photos/{number:02}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_labels(path: Path, photo: Path) -> None:
    with Image.open(path) as labels, Image.open(photo) as image:
        np.testing.assert_array_equal(np.array(labels), expected_scores(np.array(image)).argmax(0))


def read_journal(out: str = "out") -> list[str]:
    return [json.loads(line)["image"] for line in Path(out, "done.jsonl").read_text().splitlines()[1:]]


@pytest.mark.usefixtures("folder")
class TestResults:
    def test_files_and_counts(self) -> None:
        recorder = Recorder()
        summary = runtime.batch.label_files("b", "photos", "out", kinds=["labels", "overlay"], observer=recorder)
        assert (summary.labeled, summary.failed, summary.skipped) == (IMAGES, 0, 0)
        assert recorder.events[0] == ("started", IMAGES)
        assert recorder.names("labeled") == [f"{number:02}.png" for number in range(IMAGES)]
        for number in range(IMAGES):
            assert_labels(Path(f"out/{number:02}.png"), Path(f"photos/{number:02}.png"))
            assert Path(f"out/{number:02}_overlay.png").exists()
        assert summary.spent_ms["network"] > 0
        assert summary.pipeline is not None
        assert summary.pipeline.to_json()["schema_version"] == 1

    def test_the_command_and_the_call_resume_each_other(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["segment", "b", "photos/0*.png", "-o", "out", "--save", "labels,probabilities"]) == 0
        summary = label_files("b", ["photos"], "out", kinds=("probabilities", "labels"))
        assert (summary.labeled, summary.skipped) == (2, 10)
        capsys.readouterr()
        assert main(["segment", "b", "photos", "-o", "out", "--save", "labels,probabilities"]) == 0
        assert f"{IMAGES} were done before" in capsys.readouterr().out

    def test_a_loaded_segmenter_stays_open(self) -> None:
        with runtime.load("b", threads=1) as segmenter:
            assert label_files(segmenter, [Path("photos/00.png")], "out").labeled == 1
            assert label_files(segmenter, ["photos/00.png"], "out").skipped == 1
            assert label_files(segmenter, ["photos/00.png"], "out", resume=False).labeled == 1
            assert segmenter(make_image(5, 5)).shape == (5, 5)
            with pytest.raises(InputError, match="loaded already: pass crf"):
                label_files(segmenter, ["photos"], "out", crf=False)

    def test_a_bundle_replaced_during_the_run(self) -> None:
        """The results are of the network that was loaded, and are not taken for those of the new one."""

        class Replacer(BatchObserver):
            def started(self, *_: object) -> None:
                write_bundle(Path("b"), name="another")

        assert label_files("b", ["photos"], "out", observer=Replacer()).labeled == IMAGES
        assert label_files("b", ["photos"], "out").skipped == 0

    def test_an_endless_list_is_read_lazily(self) -> None:
        paths = itertools.cycle(f"photos/{number:02}.png" for number in range(IMAGES))
        recorder = Recorder(at=IMAGES, error=InterruptedError("enough"))
        with pytest.raises(InterruptedError, match="enough"):
            label_files("b", paths, "out", is_list=True, observer=recorder)
        assert recorder.events[0] == ("started", None)
        for number in range(IMAGES):
            assert_labels(Path(f"out/photos/{number:02}.png.png"), Path(f"photos/{number:02}.png"))

    def test_names_that_collide(self) -> None:
        Path("more").mkdir()
        Image.fromarray(make_image(7, 7)).save("more/00.png")
        Image.fromarray(make_image(6, 6)).save("more/00.bmp")
        with pytest.raises(InputError, match=r"photos/00.png and more/00.bmp would both be written"):
            label_files("b", ["photos/00.png", "more"], "out")
        assert label_files("b", ["photos/00.png", "more"], "out", naming="path").labeled == 3
        names = {f"{name}.png": name for name in ("photos/00.png", "more/00.png", "more/00.bmp")}
        assert sorted(p.relative_to("out").as_posix() for p in Path("out").rglob("*.png")) == sorted(names)
        for result, photo in names.items():
            assert_labels(Path("out", result), Path(photo))

    def test_batches_and_workers(self) -> None:
        assert label_files("b", "photos", "out", batch=4, workers={"network": 2}, cores=2).labeled == IMAGES
        for number in range(IMAGES):
            assert_labels(Path(f"out/{number:02}.png"), Path(f"photos/{number:02}.png"))


@pytest.mark.usefixtures("folder")
class TestFailures:
    def test_a_broken_image_fails_alone(self) -> None:
        Path("photos/05.png").write_bytes(b"hello")
        recorder = Recorder()
        summary = label_files("b", "photos", "out", observer=recorder)
        assert (summary.labeled, summary.failed) == (IMAGES - 1, 1)
        assert recorder.names("failed") == ["05.png"]
        (line,) = Path("out/failures.jsonl").read_text().splitlines()[1:]
        assert "is text, not an image" in json.loads(line)["error"]

    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            (
                {"kinds": ["colors"]},
                '"colors" is not a kind of result: use labels, overlay, masks, coco',
            ),
            ({"kinds": []}, "is not a kind of result"),
            ({"images": "*.bmp"}, "nothing matches"),
            ({"images": "b"}, "no images in the folder b"),
            ({"out": "photos"}, "would overwrite an input image"),
            ({"bundle": "nothing"}, "no such bundle"),
            ({"backend": "caffe"}, "caffe"),
        ],
    )
    def test_bad_arguments_write_nothing(self, arguments: dict[str, object], match: str) -> None:
        before = sorted(Path().rglob("*"))
        with pytest.raises(AtrousError, match=match):
            label_files(**{"bundle": "b", "images": "photos", "out": "out", **arguments})  # type: ignore[arg-type]
        assert sorted(Path().rglob("*")) == before

    def test_labels_have_no_probabilities(self, folder: Path) -> None:
        write_bundle(folder / "l", "labels")
        with pytest.raises(InputError, match="no probabilities"):
            label_files("l", "photos", "out", kinds=["probabilities"])
        assert not Path("out").exists()

    @pytest.mark.parametrize("at", [1, IMAGES])
    def test_an_output_folder_that_is_removed_ends_the_run(self, at: int) -> None:
        class Remover(Recorder):
            def labeled(self, image: LabeledImage) -> None:
                super().labeled(image)
                if self.summary.labeled == at:
                    shutil.rmtree("out", ignore_errors=True)

        with pytest.raises(OutputError, match=r"done\.jsonl: was removed or replaced during the run"):
            label_files("b", "photos", "out", cores=1, observer=Remover())
        shutil.rmtree("out", ignore_errors=True)  # a file may have been written between the check and the removal
        assert label_files("b", "photos", "out").labeled == IMAGES


@pytest.mark.usefixtures("folder")
class TestInterruption:
    @pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("stop")])
    def test_cancel_then_resume(self, error: BaseException) -> None:
        """Ctrl-C and an observer's exception finish the images in progress; the next call does only the rest."""
        with pytest.raises(type(error)):
            label_files("b", "photos", "out", cores=1, observer=Recorder(at=3, error=error))
        finished = read_journal()
        assert 3 <= len(finished) == len(set(finished))
        assert not [name for name in os.listdir("out") if name.endswith(".part")]
        summary = label_files("b", "photos", "out")
        assert (summary.skipped, summary.labeled) == (len(finished), IMAGES - len(finished))
        assert sorted(read_journal()) == [f"photos/{number:02}.png" for number in range(IMAGES)]

    def test_resume_after_kill(self) -> None:
        """`kill -9` in the middle: the results on disk stay, the next call labels the others, all are right."""
        program = (
            "import time\n"
            "from atrous.runtime.batch import BatchObserver, label_files\n"
            "class Slow(BatchObserver):\n"
            "    def labeled(self, image): time.sleep(0.2)\n"
            "label_files('b', 'photos', 'out', cores=1, observer=Slow())"
        )
        process = subprocess.Popen([sys.executable, "-c", program], env=child_env())
        deadline_s = time.monotonic() + 60
        while not (Path("out/done.jsonl").exists() and len(read_complete_lines()) > 2):
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        finished = len(read_complete_lines()) - 1
        summary = label_files("b", "photos", "out")
        assert summary.skipped == finished
        assert summary.skipped + summary.labeled == IMAGES
        for number in range(IMAGES):
            assert_labels(Path(f"out/{number:02}.png"), Path(f"photos/{number:02}.png"))
        assert sorted(os.listdir("out")) == [*(f"{number:02}.png" for number in range(IMAGES)), "done.jsonl"]


def read_complete_lines() -> list[bytes]:
    return Path("out/done.jsonl").read_bytes().split(b"\n")[:-1]
