"""`atrous segment`: what it writes, and what it says."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atrous.bundle.palettes import make_voc_colors
from atrous.runtime.upsampling import softmax

from ...runtime.bundles import CRF, PALETTE, expected_scores, make_image, make_manifest, write_bundle
from ..running import run_atrous
from .results import expected_labels, listing, read_lines


def test_labels(run: Any) -> None:
    code, out, err = run("photos", "-o", "out")
    assert (code, err) == (0, "")
    assert "2 labeled without a CRF" in out
    assert listing() == ["one.png", "two.png"]
    for name in listing():
        with Image.open(Path("out") / name) as image:
            assert image.mode == "P"
            assert np.array(image.getpalette()).reshape(-1, 3)[:4].tolist() == PALETTE
            np.testing.assert_array_equal(np.array(image), expected_labels(name))


def test_all_kinds(run: Any) -> None:
    code, _, _ = run("photos/one.png", "-o", "out", "--save", "labels,overlay, probabilities")
    assert code == 0
    assert listing() == ["one.npy", "one.png", "one_overlay.png"]
    with Image.open("photos/one.png") as photo:
        image = np.array(photo)
    probabilities = np.load("out/one.npy", allow_pickle=False)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, softmax(expected_scores(image)), atol=1e-5)
    with Image.open("out/one_overlay.png") as overlay:
        assert np.array(overlay).shape == image.shape


def test_json(run: Any) -> None:
    Path("photos/bad.png").write_text("I am text")
    code, out, err = run("photos", "-o", "out", "--json", "--threads", "1")
    report = json.loads(out)
    assert code == 1
    assert (report["schema_version"], report["command"], report["crf"]) == (1, "segment", False)
    assert [image["image"] for image in report["images"]] == ["photos/one.png", "photos/two.png"]
    first = report["images"][0]
    assert (first["height"], first["width"]) == (20, 30)
    assert first["outputs"] == {"labels": "out/one.png"}
    assert list(first["timings_ms"]) == ["decode", "prepare", "network", "scores", "labels", "encode"]
    assert sum(first["classes"].values()) == pytest.approx(1)
    shares = np.bincount(expected_labels("one.png").ravel(), minlength=4) / 600
    assert first["classes"] == {
        name: pytest.approx(share)
        for name, share in zip(("background", "blue", "green", "red"), shares, strict=True)
        if share
    }
    assert [failure["image"] for failure in report["failures"]] == ["photos/bad.png"]
    assert err.count("\n") == 1


def test_size_is_printed_and_stored(run: Any) -> None:
    code, out, err = run("photos", "-o", "out", "--size", "10x16")
    assert (code, err) == (0, "")
    assert "the network runs at 10x16 (height x width)" in out
    assert [line["network_size"] for line in read_lines("done.jsonl")] == [[10, 16]] * 2
    with Image.open("out/one.png") as image:
        assert image.size == (30, 20)
    code, out, _ = run("photos", "-o", "out", "--max-side", "15", "--json")
    report = json.loads(out)
    assert (report["size"]["mode"], report["size"]["max_side"]) == ("max_side", 15)
    assert [image["network_size"] for image in report["images"]] == [[10, 15]] * 2  # another size is another result


def test_default_size_and_a_warning_far_from_it(run: Any) -> None:
    section = json.loads(Path("b/manifest.json").read_text())["preprocessing"]
    made_for = {"size": [64, 96], "source": "prototxt", "resize": True}
    write_bundle(Path("resizing"), preprocessing={**section, "made_for": made_for})
    _, out, err = run("photos", "-o", "out", bundle="resizing")
    assert "64x96 (height x width), the size it was made for" in out
    assert err == ""
    _, out, err = run("photos", "-o", "out", "--native", bundle="resizing")
    assert "at the images' own size" in out
    assert err.startswith("warning: photos/one.png: the network runs at 20x30 (height x width), 3.2 times as small a")
    assert "(and 1 more images)" in err


def test_large_images_in_tiles_within_the_memory(run: Any) -> None:
    """The libraries take more than a limit of 64 MB, and an image is left that much in any case."""
    pytest.importorskip("atrous.runtime.crf._lattice", reason="the extension is not built")
    footprint = {"bytes_per_pixel": 40.0, "reach": 0, "effective_reach": 0, "stride": 1}
    write_bundle(Path("refining"), crf=CRF, deploy={**make_manifest({})["deploy"], "footprint": footprint})
    for seed in range(2):
        noise = Image.fromarray(make_image(9, 12, seed))
        noise.resize((600, 480), Image.Resampling.BICUBIC).save(f"photos/large{seed}.png")
    Path("photos/huge.pgm").write_bytes(b"P5 8000 8000 255\n")
    code, out, err = run("photos", "-o", "out", "--memory", "64M", bundle="refining")
    assert code == 1
    assert "network and CRF in " in out
    assert "(and 1 more images)" in out
    assert "8000x8000 pixels needs about" in err
    assert "raise --memory" in err
    tiles = {Path(line["image"]).stem: line["tiles"] for line in read_lines("done.jsonl")}
    assert tiles["one"] is None
    assert tiles["large0"].startswith("network and CRF in ")
    assert run("photos/large0.png", "-o", "whole", bundle="refining")[0] == 0
    found, whole = (np.asarray(Image.open(Path(folder) / "large0.png")) for folder in ("out", "whole"))
    assert (found == whole).mean() > 0.999


def test_labels_head(run: Any, workplace: Path) -> None:
    write_bundle(workplace / "l", "labels")
    code, _, err = run("photos", "-o", "out", "--save", "probabilities", bundle="l")
    assert code == 2
    assert "no probabilities" in err
    assert run("photos", "-o", "out", bundle="l")[0] == 0
    with Image.open("out/one.png") as image:
        np.testing.assert_array_equal(np.array(image), expected_labels("one.png"))


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_of_images(run: Any, workplace: Path, codec: str) -> None:
    Path("list.txt").write_bytes("photos/one.png\r\nphotos/two.png\r\n".encode(codec))
    assert run("--list", "list.txt", "-o", "out")[0] == 0
    assert listing() == ["photos/one.png.png", "photos/two.png.png"]


def test_patterns_and_folders(run: Any, workplace: Path) -> None:
    (workplace / "photos" / "sub").mkdir()
    Image.fromarray(make_image(5, 5)).save("photos/sub/one.jpg")
    assert run("photos/*.png", "-o", "out")[0] == 0
    assert listing() == ["one.png", "two.png"]
    assert run("photos", "--recursive", "-o", "photos/out")[0] == 0
    assert listing("photos/out") == ["one.png", "sub/one.png", "two.png"]
    assert run("photos", "-r", "-o", "photos/out")[0] == 0  # its own results are skipped
    assert listing("photos/out") == ["one.png", "sub/one.png", "two.png"]


def test_orientation_of_a_phone(run: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = make_image(20, 30)
    Image.fromarray(image).save("turned.png", exif=exif)
    assert run("turned.png", "-o", "out")[0] == 0
    with Image.open("out/turned.png") as labels:
        np.testing.assert_array_equal(np.array(labels), expected_scores(np.rot90(image, -1)).argmax(0))


def test_crf(run: Any, workplace: Path) -> None:
    pytest.importorskip("atrous.runtime.crf._lattice", reason="the CRF extension is not compiled")
    write_bundle(workplace / "c", crf=CRF)
    for flags, is_on in (([], True), (["--crf"], True), (["--no-crf"], False)):
        code, out, _ = run("photos/one.png", "-o", "out", "--json", "--again", *flags, bundle="c")
        report = json.loads(out)
        assert (code, report["crf"]) == (0, is_on)
        assert ("crf" in report["images"][0]["timings_ms"]) == is_on
    code, out, _ = run("photos", "-o", "out", bundle="c")
    assert "with the dense CRF (" in out
    code, out, _ = run("photos", "-o", "out", "--fast-crf", bundle="c")  # done before, but exactly: done again
    assert "2 labeled with the dense CRF and its shortcuts (" in out
    report = json.loads(run("photos", "-o", "out", "--fast-crf", "--json", bundle="c")[1])
    assert (report["skipped"], report["crf_shortcuts"]) == (
        2,
        {"storage": "float16", "prune": 0.01, "settle": 0.999},
    )


def test_more_images_than_are_shown(run: Any) -> None:
    for index in range(25):
        Image.fromarray(make_image(3, 3, index)).save(f"photos/{index}.png")
    code, out, _ = run("photos", "-o", "out", "--backend", "fake")
    assert code == 0
    assert "... and 7 more" in out
    assert "27 labeled" in out


def test_as_a_user_runs_it(workplace: Path) -> None:
    (workplace / "note.txt").write_text("hello")
    outcome = run_atrous("segment", "b", "note.txt", "photos/*.png", "-o", "out", folder=workplace)
    assert outcome.code == 1
    assert outcome.stderr == "atrous segment: note.txt: is text, not an image (it starts with 'hello')\n"
    assert listing() == ["one.png", "two.png"]
    assert "Traceback" not in outcome.stdout + outcome.stderr


def test_what_is_done_is_left_out(run: Any) -> None:
    assert run("photos", "-o", "out")[0] == 0
    assert sorted(line["image"] for line in read_lines("done.jsonl")) == ["photos/one.png", "photos/two.png"]
    before = Path("out/one.png").stat().st_mtime_ns
    code, out, _ = run("photos", "-o", "out")
    assert (code, out) == (0, "2 were done before (--again does them again) -> out\n")
    assert Path("out/one.png").stat().st_mtime_ns == before
    code, out, _ = run("photos", "-o", "out", "--json")
    report = json.loads(out)
    assert (code, report["images"], report["labeled"], report["skipped"]) == (0, [], 0, 2)
    code, out, _ = run("photos", "-o", "out", "--again")
    assert (code, "2 labeled" in out) == (0, True)
    assert len(read_lines("done.jsonl")) == 2


@pytest.mark.parametrize("change", ["settings", "image", "missing result", "cut result", "bundle"])
def test_what_has_changed_is_done_again(run: Any, workplace: Path, change: str) -> None:
    flags = ["--save", "labels,overlay"]
    assert run("photos", "-o", "out", *flags)[0] == 0
    if change == "settings":
        flags = ["--save", "labels,overlay,probabilities"]
    elif change == "image":
        Image.fromarray(make_image(20, 30, 9)).save("photos/one.png")
    elif change == "missing result":
        Path("out/one_overlay.png").unlink()
    elif change == "cut result":
        Path("out/one.png").write_bytes(b"cut")
    else:
        write_bundle(workplace / "b", name="another")
    code, out, _ = run("photos", "-o", "out", "--json", *flags)
    report = json.loads(out)
    everything = change in ("settings", "bundle")
    assert code == 0
    assert [image["image"] for image in report["images"]] == ["photos/one.png", "photos/two.png"][: 1 + everything]
    with Image.open("out/one.png") as image:
        np.testing.assert_array_equal(np.array(image), expected_labels("one.png"))
    assert json.loads(run("photos", "-o", "out", "--json", *flags)[1])["skipped"] == 2


def test_failures_are_recorded_and_tried_again(run: Any) -> None:
    Path("photos/bad.png").write_text("I am text")
    assert run("photos", "-o", "out")[0] == 1
    (failure,) = read_lines("failures.jsonl")
    assert (failure["image"], failure["stage"], failure["type"]) == ("photos/bad.png", "decode", "ImageError")
    assert "is text, not an image" in failure["error"]
    code, out, err = run("photos", "-o", "out")
    assert code == 1
    assert "2 were done before" in out
    assert "bad.png" in err
    Image.fromarray(make_image(4, 4)).save("photos/bad.png")
    assert run("photos", "-o", "out")[0] == 0
    assert not Path("out/failures.jsonl").exists()


def test_a_list(run: Any) -> None:
    Path("list.txt").write_text(f"photos/one.png\n\n{Path.cwd()}/photos/../photos/two.png\nnothing.png\n")
    code, out, err = run("--list", "list.txt", "-o", "out")
    assert code == 1
    assert "2 labeled" in out
    assert err == "atrous segment: nothing.png: there is no such file\n"
    whole = str(Path.cwd() / "photos/two.png.png").lstrip("/")
    assert listing() == sorted(["photos/one.png.png", whole])
    with Image.open("out/photos/one.png.png") as image:
        np.testing.assert_array_equal(np.array(image), expected_labels("one.png"))
    assert "2 were done before" in run("--list", "list.txt", "-o", "out")[1]
    Path("list.txt").write_text("out/photos/one.png.png\n")
    assert "inside the output folder" in run("--list", "list.txt", "-o", "out")[2]


def test_a_list_is_read_as_it_is_needed() -> None:
    """Endless lines: the first job comes after one of them."""
    from atrous.runtime.batch.images import read_jobs

    lines = (f"../a/{number}.jpg\n" for number in itertools.count())
    jobs = list(itertools.islice(read_jobs(lines, Path("out"), ["labels"]), 3))
    assert [str(job.outputs["labels"]) for job in jobs] == ["out/a/0.jpg.png", "out/a/1.jpg.png", "out/a/2.jpg.png"]
    assert next(lines) == "../a/3.jpg\n"


def test_workers_and_batches(run: Any) -> None:
    for index in range(12):
        Image.fromarray(make_image(9, 9, index)).save(f"photos/{index}.png")
    code, out, _ = run("photos", "-o", "out", "--json", "--workers", "decode=2,network=1", "--batch", "4")
    report = json.loads(out)
    assert code == 0
    workers = {stage["name"]: stage["most_workers"] for stage in report["pipeline"]["stages"]}
    assert list(workers) == ["decode", "prepare", "network", "labels", "encode"]
    assert (workers["decode"], workers["network"]) == (2, 1)
    for name in ("one.png", "two.png", *(f"{index}.png" for index in range(12))):
        with Image.open(Path("out") / name) as image:
            np.testing.assert_array_equal(np.array(image), expected_labels(name))


def test_the_bottleneck_is_named(run: Any) -> None:
    for index in range(12):
        Image.fromarray(make_image(9, 9, index)).save(f"photos/{index}.png")
    code, out, _ = run("photos", "-o", "out")
    assert code == 0
    assert "the bottleneck is " in out.splitlines()[-1]


def test_void_color() -> None:
    """The last palette entry is PASCAL VOC's void, also where the bundle has fewer classes."""
    from atrous.runtime.pictures import make_lookup

    assert tuple(make_lookup(()).tolist()[255]) == make_voc_colors()[255]
