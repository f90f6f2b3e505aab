"""`crf_files` against `dense_crf` and the recipes on single arrays; resuming, damaged files, names."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atrous.bundle.crf_parameters import BilateralTerm
from atrous.errors import InputError, OutputError
from atrous.runtime.batch import CrfObserver, RefinedFile, crf_files
from atrous.runtime.crf import CrfParameters, dense_crf
from atrous.runtime.crf.recipes import RECIPES, DenseCRF
from atrous.runtime.upsampling import softmax, upsample_scores

from ...processes import child_env
from ..crf.conftest import make_problem

LABELS = 4


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/ and cams/ with six pairs, one of them .npz."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "cams").mkdir()
    for seed in range(6):
        image, probabilities = make_problem(20 + seed, 30, LABELS, seed)
        Image.fromarray(image).save(tmp_path / f"photos/{seed}.png")
        if seed == 5:
            np.savez(tmp_path / "cams/5.npz", cam=probabilities, keys=np.arange(LABELS))
        else:
            np.save(tmp_path / f"cams/{seed}.npy", probabilities)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_labels(path: Path) -> Any:
    return np.asarray(Image.open(path))


class Recorder(CrfObserver):
    def __init__(self) -> None:
        self.files: list[RefinedFile] = []
        self.errors: list[str] = []

    def refined(self, file: RefinedFile) -> None:
        self.files.append(file)

    def failed(self, file: Any) -> None:
        self.errors.append(file.error)


def test_every_result_is_that_of_the_copied_function(folders: Path) -> None:
    summary = crf_files("photos", "cams", "out", key="cam", save=("labels", "probabilities"), cores=2)
    assert (summary.refined, summary.failed, summary.skipped) == (6, 0, 0)
    crf = DenseCRF(iter_max=10, pos_w=3, pos_xy_std=1, bi_w=4, bi_xy_std=67, bi_rgb_std=3)
    for seed in range(6):
        expected = crf(*make_problem(20 + seed, 30, LABELS, seed))
        np.testing.assert_array_equal(np.load(folders / f"out/{seed}.npy"), expected)
        np.testing.assert_array_equal(read_labels(folders / f"out/{seed}.png"), expected.argmax(axis=0))


@pytest.mark.parametrize("align_corners", [True, False])
def test_coarse_scores(folders: Path, align_corners: bool) -> None:
    image, _ = make_problem(20, 30, LABELS)
    scores = np.random.default_rng(0).normal(0, 3, (LABELS, 5, 8))
    np.save("cams/0.npy", scores)
    parameters = CrfParameters(iterations=3)
    options: Any = {"parameters": parameters, "kind": "scores", "align_corners": align_corners}
    crf_files(["photos/0.png"], ["cams/0.npy"], "out", save=["probabilities"], **options)
    full = upsample_scores(scores.astype(np.float32), (20, 30), (20, 30), align_corners=align_corners)
    expected = dense_crf(image, softmax(full), parameters=parameters)
    np.testing.assert_allclose(np.load("out/0.npy"), expected, atol=2e-5)


def test_several_arrays_of_an_image(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders of arrays: results in a folder of each, lattices built once an image."""
    from atrous.runtime.crf import kept

    (folders / "cams" / "5.npz").unlink()
    (folders / "more").mkdir()
    for seed in range(5):
        np.save(folders / f"more/{seed}.npy", make_problem(20 + seed, 30, LABELS, seed + 100)[1])
    built: list[Any] = []
    real = kept.add_terms
    monkeypatch.setattr(kept, "add_terms", lambda *arguments: (built.append(1), real(*arguments)))
    summary = crf_files("photos", ["cams", "more"], "out", parameters="irn")
    assert summary.refined == 10
    assert len(built) == 5
    for seed in range(5):
        for folder, other in (("cams", seed), ("more", seed + 100)):
            image, probabilities = (
                make_problem(20 + seed, 30, LABELS, seed)[0],
                make_problem(20 + seed, 30, LABELS, other)[1],
            )
            expected = DenseCRF(10, 3, 3, 10, 50, 5)(image, probabilities)
            np.testing.assert_array_equal(read_labels(folders / f"out/{folder}/{seed}.png"), expected.argmax(axis=0))


def test_resuming(folders: Path) -> None:
    assert crf_files("photos", "cams", "out", key="cam").refined == 6
    (folders / "out" / "1.png").unlink()
    os.utime("photos/2.png", (1, 1))
    np.save("cams/3.npy", make_problem(23, 30, LABELS, 99)[1])
    summary = crf_files("photos", "cams", "out", key="cam")
    assert (summary.refined, summary.skipped) == (3, 3)
    assert crf_files("photos", "cams", "out", key="cam").skipped == 6
    assert crf_files("photos", "cams", "out", key="cam", clip=1e-4).refined == 6
    assert crf_files("photos", "cams", "out", key="cam", clip=1e-4, parameters="psa").refined == 6
    assert crf_files("photos", "cams", "out", key="cam", clip=1e-4, resume=False).refined == 6


class Danger:
    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


def test_damaged_files_fail_alone(folders: Path) -> None:
    np.save("cams/1.npy", np.zeros((LABELS, 5, 8), np.float32))
    np.save("cams/2.npy", np.array([Danger()], object), allow_pickle=True)
    Path("cams/3.npy").write_bytes(Path("cams/3.npy").read_bytes()[:500])
    Path("photos/4.png").write_bytes(b"hello")
    np.save("cams/absent.npy", np.zeros((LABELS, 5, 8), np.float32))
    np.save("cams/5.npy", np.full((LABELS, 25, 30), 7.0, np.float32))
    Path("cams/5.npz").unlink()
    recorder = Recorder()
    summary = crf_files("photos", "cams", "out", observer=recorder)
    assert (summary.refined, summary.failed) == (1, 6)
    assert not Path("unpickled").exists()
    assert not list(folders.glob("out/*.part"))
    text = "\n".join(recorder.errors)
    for expected in (
        "1.npy holds probabilities of 5 x 8 pixels, the image has 21 x 30",
        "2.npy holds a pickled object",
        "3.npy is not a sound .npy or .npz file",
        "absent.npy: there is no image of this name in photos",
        "5.npy: probabilities lie in [7, 7]: these look like scores",
        "photos/4.png",
    ):
        assert expected in text
    logged = [json.loads(line) for line in Path("out/failures.jsonl").read_text().splitlines() if "error" in line]
    assert len(logged) == 6


def damage_deflate(data: bytearray) -> None:
    data[100:140] = bytes(40)


def set_method(data: bytearray) -> None:
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(signature) + offset] = 77


def encrypt(data: bytearray) -> None:
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1


def remove_magic(data: bytearray) -> None:
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
        archive.writestr("cam.npy", "no array")
    data[:] = stream.getvalue()


@pytest.mark.parametrize("damage", [damage_deflate, set_method, encrypt, remove_magic])
def test_damaged_bytes_fail_alone(folders: Path, damage: Callable[[bytearray], None]) -> None:
    """NumPy, zipfile and zlib raise many types: none ends the other array of the same image."""
    Path("more").mkdir()
    np.savez_compressed("more/0.npz", cam=make_problem(20, 30, LABELS, 9)[1])
    data = bytearray(Path("more/0.npz").read_bytes())
    damage(data)
    Path("more/0.npz").write_bytes(data)
    recorder = Recorder()
    summary = crf_files("photos", ["cams", "more"], "out", key="cam", observer=recorder)
    assert (summary.refined, summary.failed) == (6, 1)
    assert "0.npz is not a sound .npy or .npz file" in recorder.errors[0]


def test_names(folders: Path) -> None:
    with pytest.raises(InputError, match="would share the result"):
        crf_files(["photos/0.png", "photos/1.png"], ["cams/0.npy", "cams/0.npy"], "out")
    with pytest.raises(InputError, match="would overwrite an input"):
        crf_files("photos", "cams", "cams", save=["probabilities"], key="cam")
    recorder = Recorder()
    assert crf_files(["photos/5.png"], ["cams/5.npz"], "out", observer=recorder).failed == 1
    assert "5.npz holds the arrays cam, keys: say which with key" in recorder.errors[0]
    with pytest.raises(InputError, match="repeat"):
        crf_files("photos", ["cams", "cams"], "out")
    with pytest.raises(InputError, match="as many arrays"):
        crf_files(["photos/0.png"], "cams", "out")
    with pytest.raises(InputError, match=r"no \.npy"):
        crf_files("photos", "photos", "out")
    with pytest.raises(InputError, match="not a folder"):
        crf_files("photos", "absent", "out")
    with pytest.raises(InputError, match="one of deeplab-pytorch"):
        crf_files("photos", "cams", "out", parameters="deeplab")
    with pytest.raises(InputError, match="save must name"):
        crf_files("photos", "cams", "out", save=["overlay"])
    Image.new("RGB", (3, 3)).save("photos/0.jpg")
    with pytest.raises(InputError, match="have the same name"):
        crf_files("photos", "cams", "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": 2.0}, "clip must lie between 0 and 1"),  # all energies would be 0
        ({"clip": None}, "clip must lie between 0 and 1"),
        ({"parameters": {}}, "one of deeplab-pytorch"),
        ({"parameters": CrfParameters(bilateral=(BilateralTerm(0.0),))}, "sxy must be positive"),
    ],
)
def test_wrong_arguments_end_the_run_before_the_first_file(
    folders: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        crf_files("photos", "cams", "out", key="cam", **options)
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["bomb.npz", "bomb.npy"])
def test_zip_bombs_are_not_inflated(tmp_path: Path, name: str) -> None:
    from atrous.runtime.batch import arrays

    with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (1 << 22,)})
        member.write(bytes(1 << 24))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "MAX_BYTES", 1 << 20)
        with pytest.raises(InputError, match="more than the limit"):
            arrays.read_array(tmp_path / name)


def test_a_removed_folder_ends_the_run(folders: Path) -> None:
    class Remover(CrfObserver):
        def refined(self, file: RefinedFile) -> None:
            import shutil

            shutil.rmtree("out", ignore_errors=True)

    with pytest.raises(OutputError):
        crf_files("photos", "cams", "out", key="cam", cores=1, observer=Remover())


def test_two_runs_into_one_folder(folders: Path) -> None:
    started, outcome = threading.Event(), list[BaseException]()

    class Slow(CrfObserver):
        def refined(self, file: RefinedFile) -> None:
            started.set()
            time.sleep(0.2)

    runner = threading.Thread(target=lambda: crf_files("photos", "cams", "out", key="cam", observer=Slow()))
    runner.start()
    assert started.wait(30)
    try:
        crf_files("photos", "cams", "out", key="cam")
    except OutputError as error:
        outcome.append(error)
    runner.join()
    assert outcome


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_resumes(folders: Path) -> None:
    program = (
        "import time\nfrom atrous.runtime.batch import CrfObserver, crf_files\n"
        "class Slow(CrfObserver):\n"
        "    def refined(self, file):\n        print(file.unary, flush=True)\n        time.sleep(60)\n"
        "crf_files('photos', 'cams', 'out', key='cam', cores=1, observer=Slow())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=child_env()) as run:
        assert run.stdout is not None
        run.stdout.readline()
        run.send_signal(signal.SIGKILL)
    summary = crf_files("photos", "cams", "out", key="cam")
    assert summary.skipped >= 1
    assert summary.refined == 6 - summary.skipped
    assert {path.name for path in Path("out").glob("*.png")} == {f"{seed}.png" for seed in range(6)}


def test_recipes_are_those_of_the_command() -> None:
    from atrous.scripts.crf import RECIPE_NAMES

    assert tuple(RECIPES) == RECIPE_NAMES
