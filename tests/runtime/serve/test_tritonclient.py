"""NVIDIA's own client, unchanged, by HTTP and gRPC: labels byte-equal to a direct call."""

from __future__ import annotations

import io
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .conftest import Served

EXAMPLE = Path(__file__).parents[3] / "examples" / "triton_client.py"

pytest.importorskip("tritonclient", reason="tritonclient is not installed (make triton-check has it)")
pytest.importorskip("geventhttpclient", reason="tritonclient[http] is not installed (make triton-check has it)")


@pytest.fixture(params=["http", "grpc"])
def triton(request: pytest.FixtureRequest, served: Served) -> Any:
    """Module and client."""
    import importlib

    module = importlib.import_module(f"tritonclient.{request.param}")
    address = served.grpc if request.param == "grpc" else served.http.removeprefix("http://")
    with module.InferenceServerClient(address) as client:
        yield module, client


def make_input(module: Any, image: np.ndarray) -> Any:
    tensor = module.InferInput("image", [1, *image.shape], "UINT8")
    tensor.set_data_from_numpy(image[None])
    return tensor


def test_health_and_metadata(triton: Any, served: Served) -> None:
    _, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(served.model)
    assert not client.is_model_ready("nope")
    found = client.get_model_metadata(served.model)
    name = found["name"] if isinstance(found, dict) else found.name
    assert name == served.model


def test_labels_are_those_of_a_direct_call(triton: Any, served: Served, scenes: Any, direct: Any) -> None:
    module, client = triton
    for _, _, image in scenes:
        wanted = [module.InferRequestedOutput("labels")]
        answer = client.infer(served.model, [make_input(module, image)], outputs=wanted, request_id="a")
        np.testing.assert_array_equal(answer.as_numpy("labels")[0], direct(image))


def test_a_png(triton: Any, served: Served, scenes: Any, direct: Any) -> None:
    module, client = triton
    wanted = [module.InferRequestedOutput("labels_png")]
    answer = client.infer(served.model, [make_input(module, scenes[0][2])], outputs=wanted).as_numpy("labels_png")
    assert answer.shape == (1, 1)
    with Image.open(io.BytesIO(answer[0, 0])) as picture:
        np.testing.assert_array_equal(np.array(picture), direct(scenes[0][2]))


def test_the_example_program(served: Served, scenes: Any, direct: Any, tmp_path: Path) -> None:
    photos = []
    for name, content, _ in scenes:
        photos.append(tmp_path / name)
        photos[-1].write_bytes(content)
    runpy.run_path(str(EXAMPLE))["main"](served.http.removeprefix("http://"), served.model, tmp_path / "out", *photos)
    for name, _, image in scenes:
        with Image.open(tmp_path / "out" / name) as labels:
            assert labels.mode == "P"
            np.testing.assert_array_equal(np.array(labels), direct(image))


def test_parameters(triton: Any, served: Served, scenes: Any, direct: Any) -> None:
    module, client = triton
    image = scenes[0][2]
    answer = client.infer(served.model, [make_input(module, image)], parameters={"iterations": 0})
    raw = direct.run_network(direct.prepare(image))
    expected = direct.finish(image, raw, crf=False).labels
    # no update of the CRF is the network's own labels, up to ties after rounding
    assert (answer.as_numpy("labels")[0] != expected).mean() < 1e-4


def test_unknown_model(triton: Any, scenes: Any) -> None:
    from tritonclient.utils import InferenceServerException

    module, client = triton
    with pytest.raises(InferenceServerException) as caught:
        client.infer("nope", [make_input(module, scenes[0][2])])
    assert caught.value.status() in ("404", "StatusCode.NOT_FOUND")
