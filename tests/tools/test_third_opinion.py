"""OpenCV as a third opinion, on a few recordings; the whole sweep is `python -m tools.third_opinion`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from atrous.converter import read_net, run_blobs, to_torch
from atrous.converter.check.opencv_process import OpenCv, OpenCvError
from tools.opencv_nets import difference, run_plain
from tools.plain_prototxt import plain_text, write_plain_weights
from tools.recordings import find_recordings
from tools.third_opinion import Opinion, ask_opencv, describe, main, print_tables

from ..converter.nets import DEEPLAB, conv, data, layer, random_input, read_seeded, relu

cv2 = pytest.importorskip("cv2", reason="opencv-python-headless<5 is not installed")
if not hasattr(cv2.dnn, "readNetFromCaffe"):
    pytest.skip(f"OpenCV {cv2.__version__} has no Caffe importer", allow_module_level=True)


@pytest.fixture(scope="module")
def opencv() -> Iterator[OpenCv]:
    with OpenCv() as process:
        yield process


CASES = {
    # OpenCV reads the file as published and computes the same
    "conv-dilation": ("agree", "published", ""),
    "pool-max-k3s2p1": ("agree", "published", ""),
    "pool-ave-k3s2p1": ("agree", "published", ""),
    "bn-scale-inplace": ("agree", "published", ""),
    "v1-classifier": ("agree", "published", ""),
    "ssd-detection": ("agree", "published", ""),
    # OpenCV rejects the syntax but has the layers
    "dl1-hole2": ("agree", "plain", ""),
    "dl1-interp-zoom": ("agree", "plain", ""),
    "state-train-test-duplicates": ("agree", "plain", ""),
    "dl1-largefov-mini": ("agree", "part", "has no layer type ArgMax"),
    # OpenCV computes something else than Caffe
    "deconv-dilation": ("differ", "published", "the dilation of a Deconvolution is ignored"),
    "dl1-interp-pad": ("differ", "plain", "pad_beg and pad_end of Interp are ignored"),
    "graph-two-consumers-inplace-each": ("differ", "published", "in-place layers"),
    # OpenCV rejects the net
    "pool-floor": ("OpenCV refuses", "", "pooling_param"),
    "tile-axis0": ("OpenCV refuses", "", "tiles of Tile is not read"),
    "bad-concat-shape": ("Caffe refuses", "", ""),
}


@pytest.mark.parametrize("name", CASES)
def test_each_difference_is_decided_by_real_caffe(name: str, goldens: Path, opencv: OpenCv, tmp_path: Path) -> None:
    (recording,) = find_recordings(goldens, "tiny", name)
    opinion = ask_opencv(recording, opencv, tmp_path)
    verdict, text, why = CASES[name]
    assert (opinion.verdict, opinion.text) == (verdict, text), describe(opinion)
    assert why in opinion.why
    assert opinion.caffe == ("atrous" if verdict == "differ" else ""), describe(opinion)
    if verdict == "agree":
        assert opinion.error < 1e-6


def test_sweep_prints_its_tables_and_fails_only_where_caffe_is_against_us(
    goldens: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([str(goldens), "--kind", "tiny", "--only", "lrn-*", "--json", str(tmp_path / "o.json")]) == 0
    shown = capsys.readouterr().out
    assert "tiny     4 recordings: 2 agree (2 published), 2 differ (2 published)" in shown
    assert "2  atrous" in shown
    assert '"caffe": "atrous"' in (tmp_path / "o.json").read_text()


def test_tables_count_what_is_not_explained(capsys: pytest.CaptureFixture[str]) -> None:
    print_tables([Opinion("tiny/a", "differ", "published", caffe="OpenCV"), Opinion("tiny/b", "OpenCV refuses")])
    assert capsys.readouterr().out.count("not explained") == 2


def test_plain_text_is_the_same_net(tmp_path: Path) -> None:
    """Phase rules, shared weights, in-place layers and `hole` disappear; the numbers stay equal."""
    net = read_seeded(DEEPLAB)
    text = plain_text(net, net.layers)
    assert "hole" not in text
    assert write_plain_weights(net, net.layers, tmp_path / "w.caffemodel")
    (tmp_path / "net.prototxt").write_text(text)
    again = read_net(tmp_path / "net.prototxt", tmp_path / "w.caffemodel")
    assert all(top.name not in {blob.name for blob in each.bottoms} for each in again.layers for top in each.tops)
    inputs = random_input(net)
    ours, plain = (run_blobs(to_torch(each), inputs) for each in (net, again))
    for layer_of_ours, layer_of_plain in zip(net.layers, again.layers, strict=True):
        key, plain_key = (f"{each.name}:{each.tops[0].name}" for each in (layer_of_ours, layer_of_plain))
        np.testing.assert_array_equal(ours[key], plain[plain_key])


def test_deeplab_of_2015_agrees_with_opencv(opencv: OpenCv, tmp_path: Path) -> None:
    net = read_seeded(DEEPLAB)
    inputs = random_input(net)
    ours = run_blobs(to_torch(net), inputs)
    run = run_plain(opencv, net, inputs | ours, tmp_path, all_tops=True)
    assert (run.layers, run.missing) == (len(net.layers), [])
    for key, top in run.tops.items():
        assert difference(top, run.values[key], ours[key])[0] < 1e-5, key


def test_layers_that_opencv_lacks_get_our_values(opencv: OpenCv, tmp_path: Path) -> None:
    net = read_net(
        data(1, 3, 5, 6) + relu("r", "data", "a") + layer("ArgMax", "am", "a", "m") + layer("Power", "p", "m", "q")
    )
    inputs = random_input(net)
    values = {"r:a": np.maximum(inputs["data"], 0), "am:m": np.full((1, 1, 1), 7.0, np.float32)}
    run = run_plain(opencv, net, inputs | values, tmp_path)
    assert (run.layers, run.missing) == (2, ["has no layer type ArgMax"])
    np.testing.assert_array_equal(run.values["r:a"], values["r:a"])
    np.testing.assert_array_equal(run.values["p:q"], values["am:m"])


def test_refusal_has_its_reason(opencv: OpenCv, tmp_path: Path) -> None:
    net = read_net(data(1, 3, 5, 6) + layer("ArgMax", "am", "data", "m"))
    with pytest.raises(OpenCvError, match='Can\'t create layer "am#0" of type "ArgMax"') as caught:
        run_plain(opencv, net, random_input(net), tmp_path)
    assert caught.value.why == "has no layer type ArgMax"


def test_process_survives_a_net_that_takes_too_long(tmp_path: Path) -> None:
    net = read_seeded(data(1, 3, 64, 64) + conv("c", "data", "c", 64, 7))
    with OpenCv(timeout_s=0.001) as process:
        for _ in range(2):
            with pytest.raises(OpenCvError, match="takes more than"):
                run_plain(process, net, random_input(net), tmp_path)
