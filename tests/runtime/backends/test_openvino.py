"""OpenVINO: correct numbers, hostile models refused before it parses them, requests freed."""

from __future__ import annotations

import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from atrous.errors import BackendError
from atrous.runtime.backends.openvino import OpenVinoBackend, OpenVinoOptions

from ..bundles import expected_scores, make_image, make_model, make_outside_model

pytest.importorskip("openvino", reason="openvino is not installed")


@pytest.mark.parametrize("options", [None, OpenVinoOptions(hint="throughput")])
def test_scores(options: OpenVinoOptions | None) -> None:
    backend = OpenVinoBackend(make_model(), threads=1, options=options)
    for height, width in ((5, 6), (1, 1), (9, 4)):  # each new shape is compiled
        image = make_image(height, width)
        found = backend.run({"image": image[None]})["scores"][0]
        np.testing.assert_allclose(found, expected_scores(image), atol=1e-4)


def test_names_at_both_ends_of_identities() -> None:
    """OpenVINO merges an Identity with its neighbor, and the port then has the names of both."""
    model = onnx.load_from_string(make_model())
    for node in model.graph.node:
        node.input[:] = ["aaa" if name == "image" else name for name in node.input]
        node.output[:] = ["bbb" if name == "scores" else name for name in node.output]
    model.graph.node.insert(0, onnx.helper.make_node("Identity", ["image"], ["aaa"]))
    model.graph.node.append(onnx.helper.make_node("Identity", ["bbb"], ["scores"]))
    backend = OpenVinoBackend(model.SerializeToString(), threads=1)
    assert [spec.name for spec in (*backend.inputs, *backend.outputs)] == ["image", "scores"]
    image = make_image(5, 6)
    found = backend.run({"image": image[None]})["scores"][0]
    np.testing.assert_allclose(found, expected_scores(image), atol=1e-4)


def test_outputs_outlive_the_next_run() -> None:
    backend = OpenVinoBackend(make_model(), threads=1)
    first = backend.run({"image": make_image(5, 6)[None]})["scores"]
    kept = first.copy()
    backend.run({"image": make_image(5, 6, seed=1)[None]})
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    "model",
    [b"", b"text", make_model()[:-40], b"<?xml version='1.0'?><net name='x' version='11'></net>"],
    ids=["empty", "text", "cut", "its own format"],
)
def test_not_a_model(model: bytes) -> None:
    with pytest.raises(BackendError, match=r"b/deploy\.onnx: (OpenVINO refuses|the model is)") as caught:
        OpenVinoBackend(model, path=Path("b/deploy.onnx"))
    assert "\n" not in str(caught.value)


class Request:
    """An infer request that waits for `go`."""

    def __init__(self, started: threading.Event, go: threading.Event):
        self.started, self.go = started, go

    def infer(self, *_: Any, **__: Any) -> list[np.ndarray]:
        self.started.set()
        assert self.go.wait(30)
        return [np.zeros((1, 4, 5, 6), np.float32)]


def test_close_during_a_run_frees_everything_after_it() -> None:
    backend = OpenVinoBackend(make_model(), threads=1)
    started, go = threading.Event(), threading.Event()
    request = Request(started, go)
    alive = weakref.ref(request)
    assert backend._open is not None
    backend._open[1].put(request)
    del request
    thread = threading.Thread(target=backend.run, args=({"image": make_image(5, 6)[None]},))
    thread.start()
    assert started.wait(30)
    backend.close()
    go.set()
    thread.join(30)
    assert alive() is None


def test_request_that_failed_is_not_used_again() -> None:
    backend = OpenVinoBackend(make_model(), threads=1)
    assert backend._open is not None
    backend._open[1].put(None)
    with pytest.raises(BackendError, match="OpenVINO failed"):
        backend.run({"image": make_image(5, 6)[None]})
    assert backend.run({"image": make_image(5, 6)[None]})["scores"].shape == (1, 4, 5, 6)


def test_weights_outside_the_model_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_bytes(bytes(4))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackendError, match=r"^b/deploy\.onnx: the model takes weights from other files"):
        OpenVinoBackend(make_outside_model("secret"), path=Path("b/deploy.onnx"))
