"""The command `atrous fetch`, and fetched models as arguments of other commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atrous.converter.official import fetch as fetch_module
from atrous.converter.official.catalogue import read_catalogue

from ..converter.official import serving
from ..converter.official.serving import Site, running_site
from ..converter.official.tiny import make_catalogue, make_zip, register, write_weights
from .running import run_with


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running_site() as running:
        yield running


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `atrous ...` in this process and in an empty folder: (exit code, stdout, stderr)."""
    register(monkeypatch)
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments: object) -> tuple[int, str, str]:
        return run_with(capsys, *map(str, arguments))

    return run_command


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    return write_weights(tmp_path / "made.caffemodel")


def write_catalogue(*urls: str, **changes: Any) -> str:
    catalogue, _ = make_catalogue(*urls, **changes)
    Path("mirror.json").write_text(catalogue.model_dump_json())
    return "mirror.json"


def test_the_three_commands_of_the_readme(run: Any, site: Site, weights: bytes) -> None:
    """Fetch, convert, segment: classes, mean, padding and CRF travel with the model."""
    catalogue = write_catalogue(site.serve("w", serving.whole(weights)))
    code, out, err = run("fetch", "tiny", "--catalogue", catalogue)
    assert code == 0, err
    assert out.startswith(f"Tiny from {site.url('w')} in ")
    assert out.endswith("next: atrous convert tiny -o BUNDLE\n")
    assert "tiny/tiny.prototxt" in out
    code, out, err = run("convert", "tiny", "-o", "b")
    assert code == 0, err
    manifest = json.loads(Path("b/manifest.json").read_text())
    assert manifest["name"] == "tiny"
    assert manifest["classes"] == ["background", "a", "b", "c", "d"]
    assert manifest["preprocessing"]["mean"] == [104.008, 116.669, 122.675]
    assert manifest["preprocessing"]["size_rule"]["minimum"] == [33, 33]
    assert manifest["crf"]["bilateral"] == [{"sxy": 121, "srgb": 5, "weight": 4}]
    assert [source["file"] for source in manifest["sources"]] == ["tiny.prototxt", "tiny.caffemodel"]
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)).save("photo.png")
    code, out, err = run("segment", "b", "photo.png", "-o", "labels")
    assert code == 0, err
    assert "with the dense CRF" in out
    with Image.open("labels/photo.png") as labels:
        assert labels.size == (30, 20)


def test_the_list(run: Any) -> None:
    code, out, err = run("fetch")
    assert (code, err) == (0, "")
    names, lines = [model.name for model in read_catalogue().models], out.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(names)]] == names
    (line,) = [line for line in lines if line.startswith("deeplab-largefov ")]
    for part in ("82.0 MB", "21", "121,5,4 + 3,3", "2 of 4", "no"):
        assert f" {part} " in line
    assert "none has been tried" in out
    assert "No checksums" in out


def test_the_list_as_json(run: Any, site: Site, weights: bytes) -> None:
    catalogue = write_catalogue(site.serve("w", serving.whole(weights)))
    code, out, _ = run("fetch", "--json", "--catalogue", catalogue)
    assert code == 0
    content = json.loads(out)
    assert (content["schema_version"], content["command"]) == (1, "fetch")
    (model,) = content["models"]
    assert (model["name"], model["fetched"], model["verified"]) == ("tiny", "no", False)
    assert model["weights"]["addresses"] == [{"url": site.url("w"), "basis": "seen"}]
    Path("tiny").mkdir()
    Path("tiny/.w.caffemodel.0.part").touch()
    assert json.loads(run("fetch", "--json", "--catalogue", catalogue)[1])["models"][0]["fetched"] == "begun"
    run("fetch", "tiny", "--catalogue", catalogue)
    assert json.loads(run("fetch", "--json", "--catalogue", catalogue)[1])["models"][0]["fetched"] == "yes"
    Path("tiny/model.json").write_text("{}")
    assert json.loads(run("fetch", "--json", "--catalogue", catalogue)[1])["models"][0]["fetched"] == "no"


def test_show(run: Any) -> None:
    code, out, _ = run("fetch", "deeplab-v2-resnet101", "--show")
    assert code == 0
    for part in (
        "http://liangchiehchen.com/projects/released/deeplab_aspp_resnet101/prototxt_and_model.zip (seen)",
        "member of the zip file: train2_iter_20000.caffemodel",
        "21 classes (voc), mean B,G,R 104.008, 116.669, 122.675, images of at least 513 x 513",
        "CRF 67,3,4 + 1,3 (deeplab): the values in community use",
        "checksum: none published",
        "addresses verified: no; fetched: no",
    ):
        assert part in out
    content = json.loads(run("fetch", "vgg16-128", "--show", "--json")[1])
    assert content["model"]["role"] == "initialization"
    assert "no classifier" in run("fetch", "vgg16-128", "--show")[1]


def test_a_fetch_as_json(run: Any, site: Site, weights: bytes) -> None:
    catalogue = write_catalogue(site.serve("w", serving.whole(weights)))
    code, out, _ = run("fetch", "tiny", "--catalogue", catalogue, "--json", "-o", "here/deep")
    assert code == 0
    content = json.loads(out)
    assert (content["state"], content["folder"]) == ("fetched", "here/deep")
    assert content["model"] == json.loads(Path("here/deep/model.json").read_text())
    assert (
        json.loads(run("fetch", "tiny", "--catalogue", catalogue, "--json", "-o", "here/deep")[1])["state"] == "present"
    )


def test_a_present_model(run: Any, site: Site, weights: bytes) -> None:
    catalogue = write_catalogue(site.serve("w", serving.whole(weights)))
    run("fetch", "tiny", "--catalogue", catalogue)
    code, out, err = run("fetch", "tiny", "--catalogue", catalogue)
    assert (code, err) == (0, "")
    assert "Tiny is present, and its files equal their record" in out
    assert len(site.seen) == 1
    Path("tiny/tiny.prototxt").write_text("changed")
    code, _, err = run("fetch", "tiny", "--catalogue", catalogue)
    assert code == 1
    assert "Repair it: atrous fetch tiny --again" in err


def test_dead_addresses_are_listed_with_the_remedy(run: Any, site: Site) -> None:
    catalogue = write_catalogue(site.url("gone"), site.serve("page", serving.page(size=1000)))
    code, out, err = run("fetch", "tiny", "--catalogue", catalogue)
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        "atrous: tiny: no address gave w.caffemodel (1.2 kB)",
        f"  {site.url('gone')}: HTTP status 404 Not Found",
        f"  {site.url('page')}: is an HTML or XML page, not weights: the download failed; fetch it again",
        "  If you find the file by hand (begin at http://models.invalid/): atrous fetch tiny --from FILE",
    ]
    code, out, _ = run("fetch", "tiny", "--catalogue", catalogue, "--json")
    assert (code, json.loads(out)["error"]["type"]) == (1, "DownloadError")


def test_a_file_by_hand(run: Any, weights: bytes) -> None:
    catalogue = write_catalogue("http://127.0.0.1:9/")
    Path("download.zip").write_bytes(make_zip({"a/b.caffemodel": weights}))
    code, out, err = run("fetch", "tiny", "--catalogue", catalogue, "--from", "download.zip")
    assert code == 0, err
    assert out.startswith("Tiny from download.zip in ")
    assert run("convert", "tiny", "-o", "b", "--no-verify")[0] == 0
    Path("other").write_bytes(b"<html>")
    code, _, err = run("fetch", "tiny", "--catalogue", catalogue, "--from", "other")
    assert code == 2
    assert err.startswith("atrous: other: ")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["deeplap"], "did you mean deeplab"),
        (["--again"], "give the NAME"),
        (["--from", "x"], "give the NAME"),
        (["--show"], "give the NAME"),
        (["deeplab", "--timeout", "0"], "--timeout"),
        (["deeplab", "--catalogue", "none.json"], "none.json: cannot be read"),
        (["deeplab", "--from", "none"], "none: is not a readable file"),
    ],
)
def test_wrong_usage(run: Any, arguments: list[str], part: str) -> None:
    code, out, err = run("fetch", *arguments)
    assert (code, out) == (2, "")
    assert part in err
    assert "Traceback" not in err
    assert not Path("deeplab").exists()


def test_an_interrupted_fetch(run: Any, site: Site, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    catalogue = write_catalogue(site.serve("w", serving.whole(weights)))
    monkeypatch.setattr(fetch_module, "fit_net", interrupt)
    code, _, err = run("fetch", "tiny", "--catalogue", catalogue)
    assert (code, err.strip()) == (130, "atrous: interrupted")
    assert not Path("tiny/model.json").exists()
    monkeypatch.undo()


# fetched models as NET


@pytest.fixture
def fetched(run: Any, weights: bytes) -> Path:
    catalogue = write_catalogue("http://127.0.0.1:9/")
    Path("w.caffemodel").write_bytes(weights)
    assert run("fetch", "tiny", "--catalogue", catalogue, "--from", "w.caffemodel")[0] == 0
    return Path("tiny")


@pytest.mark.parametrize("net", ["tiny", "./tiny/", "tiny/tiny.prototxt"])
def test_a_fetched_model_stands_for_both_files(run: Any, fetched: Path, net: str) -> None:
    code, _, err = run("convert", net, "-o", "b", "--no-verify")
    assert code == 0, err
    assert json.loads(Path("b/manifest.json").read_text())["crf"] is not None


@pytest.mark.parametrize("net", ["tiny", "tiny/tiny.prototxt"])
def test_inspect_takes_a_fetched_model(run: Any, fetched: Path, net: str) -> None:
    """By its folder or the prototxt in it: with its weights, and with its placeholders filled in."""
    code, out, err = run("inspect", net, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["weights_problem"], found["unsupported"]) == (None, [])
    assert found["parameters"] > 0


def test_options_override_the_record(run: Any, fetched: Path) -> None:
    options = ("--name", "mine", "--mean", "1,2,3", "--crf-gaussian", "5,6", "--minimum-size", "1,1")
    assert run("convert", "tiny", "-o", "b", "--no-verify", *options)[0] == 0
    manifest = json.loads(Path("b/manifest.json").read_text())
    assert (manifest["name"], manifest["preprocessing"]["mean"]) == ("mine", [1, 2, 3])
    assert manifest["crf"]["gaussian"] == [{"sxy": 5, "weight": 6}]
    assert manifest["crf"]["bilateral"] == [{"sxy": 121, "srgb": 5, "weight": 4}]


def test_two_files_are_used_as_they_are(run: Any, fetched: Path) -> None:
    code, _, err = run("convert", "tiny/tiny.prototxt", "tiny/tiny.caffemodel", "-o", "b", "--no-verify")
    assert code == 0, err
    assert json.loads(Path("b/manifest.json").read_text())["crf"] is None


def test_a_caffemodel_alone_is_converted_by_the_net_inside(run: Any, weights: bytes) -> None:
    code, _, err = run("convert", "made.caffemodel", "-o", "b", "--no-verify")
    assert code == 0, err
    assert [source["role"] for source in json.loads(Path("b/manifest.json").read_text())["sources"]] == ["caffemodel"]


def test_a_fetched_file_that_changed_is_not_converted(run: Any, fetched: Path) -> None:
    content = bytearray((fetched / "tiny.caffemodel").read_bytes())
    content[-1] ^= 1
    (fetched / "tiny.caffemodel").write_bytes(content)
    code, _, err = run("convert", "tiny", "-o", "b")
    assert code == 1
    assert "or give NET and WEIGHTS by name" in err


def test_an_initialization_is_not_converted_by_its_folder(run: Any, tmp_path: Path) -> None:
    catalogue = write_catalogue("http://127.0.0.1:9/", role="initialization", labels=0, classes=None, crf=None)
    write_weights(tmp_path / "init.caffemodel", labels=0)
    assert run("fetch", "tiny", "--catalogue", catalogue, "--from", "init.caffemodel")[0] == 0
    code, _, err = run("convert", "tiny", "-o", "b")
    assert code == 2
    assert "it has no classifier. To convert it as it is, give tiny/tiny.prototxt tiny/tiny.caffemodel" in err


@pytest.mark.parametrize(
    ("net", "part"),
    [
        ("deeplab-largefov", "has not been fetched into this folder: run atrous fetch deeplab-largefov"),
        ("DeepLab", "run atrous fetch deeplab."),
        ("deeplab-largefow", "did you mean deeplab-largefov"),
        ("zzz", "zzz does not exist"),
        ("sub/deeplab", "sub/deeplab does not exist"),
        ("empty", "is a folder without a fetched model"),
        ("net.prototxt", "net.prototxt was given without weights"),
    ],
)
def test_a_single_net_that_is_not_a_fetched_model(run: Any, net: str, part: str) -> None:
    Path("empty").mkdir()
    Path("net.prototxt").write_text("name: 'x'")
    code, _, err = run("convert", net, "-o", "b")
    assert code == 2
    assert part in err


def test_the_progress_bar(run: Any, site: Site, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    catalogue = write_catalogue(site.serve("a/w.zip", serving.whole(make_zip({"x.caffemodel": weights}))))
    code, _, err = run("fetch", "tiny", "--catalogue", catalogue)
    assert code == 0
    assert "127.0.0.1 w.zip" in err
    assert "unpacking" in err


def test_a_missing_library_is_named(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    for name in ("fetch", "download"):
        monkeypatch.delitem(sys.modules, f"atrous.converter.official.{name}")
    code, _, err = run("fetch", "deeplab")
    assert (code, err) == (3, 'atrous: httpx is not installed. Install it: pip install "atrous[http]"\n')
