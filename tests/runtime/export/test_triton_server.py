"""Exported repositories in a real Triton (`make triton-check`): labels, statuses, parameters, the self-test.

The server is that of the wheel `nvidia-pytriton`, which lacks the onnxruntime backend: Python runs the network's own
file instead (`tools/triton_check`). All else is as exported.
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atrous import runtime
from atrous.runtime.export import TritonOptions, export_triton
from atrous.scripts.demo import convert_miniature
from atrous.scripts.main import main
from atrous.scripts.miniature.settings import MiniatureFiles, read_settings
from tools.triton_check.server import TritonServer, find_wheel, run_server

from .. import bundles

if find_wheel() is None:
    pytest.skip("nvidia-pytriton is not installed: run make triton-check", allow_module_level=True)

from tritonclient import grpc as triton_grpc
from tritonclient import http as triton_http
from tritonclient.utils import InferenceServerException

FILES = MiniatureFiles()
SCENES = sorted(FILES.settings.parent.glob("scene-*.png"))
MADE_FOR = {"size": [24, 40], "source": "option", "resize": True}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name of a model -> its bundle: the miniature by both heads that have scores, and small nets of other kinds."""
    folder, settings = tmp_path_factory.mktemp("bundles"), read_settings(FILES.settings)
    convert_miniature(FILES, settings, folder / "scores")
    info = {"classes": list(settings.classes), "palette": [list(color) for color in settings.palette]}
    (folder / "info.json").write_text(json.dumps({**info, "crf": settings.crf.to_dict()}))
    net = [str(path) for path in (FILES.prototxt, FILES.caffemodel)]
    assert main(["convert", *net, "-o", str(folder / "lowres"), "--head", "lowres", "--info", str(folder / "info.json"),
                 "--no-verify"]) == 0  # fmt: skip
    rules = bundles.make_manifest({})["preprocessing"]
    bundles.write_bundle(folder / "labels", "labels")
    bundles.write_bundle(folder / "resized", preprocessing={**rules, "made_for": MADE_FOR}, crf=bundles.CRF)
    bundles.write_bundle(folder / "plain", "lowres")
    return {path.name: path for path in folder.iterdir() if path.is_dir()}


@pytest.fixture(scope="module")
def server(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("triton")
    for name, source in sources.items():
        export_triton(source, folder / "repository", TritonOptions(name=name, instances=1))
    with run_server(folder / "repository", folder) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: TritonServer) -> Iterator[Any]:
    with triton_http.InferenceServerClient(server.http) as client:
        yield client


@pytest.fixture(scope="module")
def grpc(server: TritonServer) -> Iterator[Any]:
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        yield client


def infer(client: Any, model: str, image: np.ndarray, *wanted: str, **parameters: object) -> dict[str, np.ndarray]:
    """Send an image by HTTP or gRPC, and return the outputs that were asked for."""
    library = triton_http if isinstance(client, triton_http.InferenceServerClient) else triton_grpc
    given = library.InferInput("image", [1, *image.shape], "UINT8")
    given.set_data_from_numpy(image[None])
    outputs = [library.InferRequestedOutput(name) for name in wanted]
    answer = client.infer(model, [given], outputs=outputs, parameters=parameters or None)
    return {name: answer.as_numpy(name)[0] for name in wanted}


def read_scene(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("head", ["scores", "lowres"])
def test_labels_of_the_scenes(head: str, http: Any, grpc: Any, sources: dict[str, Path]) -> None:
    assert len(SCENES) == 5
    with runtime.load(sources[head], crf=True, threads=1) as segmenter:
        for path in SCENES:
            image = read_scene(path)
            expected = segmenter(image).tobytes()
            assert infer(http, head, image, "labels")["labels"].tobytes() == expected
            assert infer(grpc, head, image, "labels")["labels"].tobytes() == expected


@pytest.mark.parametrize("model", ["labels", "resized", "plain"])
@pytest.mark.parametrize("size", [(30, 41), (17, 17), (1, 1)])
def test_labels_of_other_nets(model: str, size: tuple[int, int], http: Any, sources: dict[str, Path]) -> None:
    image = bundles.make_image(*size)
    with runtime.load(sources[model], threads=1) as segmenter:
        assert np.array_equal(infer(http, model, image, "labels")["labels"], segmenter(image))


def test_all_outputs(http: Any, grpc: Any, sources: dict[str, Path], tmp_path: Path) -> None:
    image = read_scene(SCENES[0])
    with runtime.load(sources["scores"], crf=True, threads=1) as segmenter:
        expected = segmenter.segment(image, probabilities=True)
    for client in (http, grpc):
        answer = infer(client, "scores", image, "labels_png", "probabilities")
        assert np.array_equal(answer["probabilities"], expected.probabilities)
        (tmp_path / "labels.png").write_bytes(answer["labels_png"][0])
        with Image.open(tmp_path / "labels.png") as picture:
            assert np.array_equal(np.asarray(picture), expected.labels)


def test_parameters(http: Any, grpc: Any, sources: dict[str, Path]) -> None:
    image = read_scene(SCENES[1])
    with runtime.load(sources["lowres"], crf=False, threads=1) as segmenter:
        plain = segmenter(image)
    for client in (http, grpc):
        assert np.array_equal(infer(client, "lowres", image, "labels", crf=False)["labels"], plain)
        few = infer(client, "lowres", image, "labels", iterations=2)["labels"]
        assert 0 < (few != plain).mean() < 0.2
        for bad in ({"mode": "fast"}, {"iterations": 1000}, {"nothing": 1}):
            with pytest.raises(InferenceServerException, match=r"mode|iterations|nothing") as caught:
                infer(client, "lowres", image, "labels", **bad)
            assert caught.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")


def test_metadata(http: Any, sources: dict[str, Path]) -> None:
    about = http.get_model_metadata("scores")
    assert (about["name"], about["versions"], about["platform"]) == ("scores", ["1"], "ensemble")
    assert about["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    assert [output["name"] for output in about["outputs"]] == ["labels", "labels_png", "probabilities"]
    parameters = http.get_model_config("scores")["parameters"]
    manifest = runtime.read_bundle(sources["scores"]).manifest
    assert tuple(json.loads(parameters["classes"]["string_value"])) == manifest.classes


def test_images_wait_for_each_other(server: TritonServer, http: Any) -> None:
    """Requests at once: all are answered as alone."""
    images = [bundles.make_image(48, 48, seed) for seed in range(12)]
    alone = [infer(http, "plain", image, "labels")["labels"] for image in images]
    with triton_http.InferenceServerClient(server.http, concurrency=12) as client:
        waiting = []
        for image in images:
            given = triton_http.InferInput("image", [1, *image.shape], "UINT8")
            given.set_data_from_numpy(image[None])
            waiting.append(client.async_infer("plain", [given], outputs=[triton_http.InferRequestedOutput("labels")]))
        assert all(np.array_equal(each.get_result().as_numpy("labels")[0], one) for each, one in zip(
            waiting, alone, strict=True
        ))  # fmt: skip


def test_metrics(server: TritonServer, http: Any) -> None:
    infer(http, "labels", bundles.make_image(9, 9), "labels")
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'nv_inference_request_success{model="labels",version="1"}' in text


def test_numpy_2_is_refused_at_the_start(sources: dict[str, Path], tmp_path: Path) -> None:
    """This Triton reads NumPy 2's arrays as empty: without the self-test, every answer would fail in an odd way."""
    python = os.environ.get("ATROUS_NUMPY2_PYTHON")
    if not python:
        pytest.skip("ATROUS_NUMPY2_PYTHON names no Python with NumPy 2")
    export_triton(sources["plain"], tmp_path / "repository", TritonOptions(instances=1))
    for model in (tmp_path / "repository").glob("*[!h]"):  # the step alone
        if model.is_dir():
            shutil.rmtree(model)
    with pytest.raises(RuntimeError), run_server(tmp_path / "repository", tmp_path, python=Path(python)):
        pass
    assert 'pip install \\"numpy<2\\"' in (tmp_path / "triton.log").read_text()


@pytest.mark.parametrize(
    ("address", "body", "status"),
    [
        ("v2/models/nope", None, 404),
        ("v2/models/lowres/versions/7", None, 404),
        ("v2/models/nope/ready", None, 400),
        ("v2/bogus", None, 404),
        ("v2/models/lowres/infer", {"inputs": []}, 400),
        ("v2/models/lowres/infer", {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 1, 3],
                                                "data": [0, 0, 0]}]}, 400),
        ("v2/models/lowres/infer", {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [2, 1, 1, 3],
                                                "data": [0] * 6}]}, 400),
        ("v2/models/lowres/infer", {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 4],
                                                "data": [0] * 4}]}, 400),
    ],
)  # fmt: skip
def test_refused_requests(address: str, body: dict[str, Any] | None, status: int, server: TritonServer) -> None:
    content = json.dumps(body).encode() if body is not None else None
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(f"http://{server.http}/{address}", content), timeout=10)
    with caught.value as answer:
        assert answer.code == status
        assert list(json.loads(answer.read())) == ["error"]
