"""The contract of all backends: same feeds, same outputs, same errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from atrous.bundle.folder import read_bundle
from atrous.errors import BackendError, BundleError, InputError
from atrous.runtime.backends import BACKENDS, Backend, open_backend

from ..bundles import MEAN, WEIGHT, expected_scores, make_image, make_model, write_bundle, write_torch_bundle

INT8_VARIANT = {"file": "deploy.int8.onnx", "precision": "int8", "verification": {"passed": True}}
BATCH = np.stack([make_image(9, 11, seed) for seed in range(2)])


#: every backend that runs on a CPU, and the modes of those that have several
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "onnxruntime": ("onnxruntime", {}),
    "onnxruntime bound": ("onnxruntime", {"io_binding": True}),
    "openvino": ("openvino", {}),
    "torch": ("torch", {}),
    "torch channels_last": ("torch", {"mode": "channels_last"}),
    "fake": ("fake", {}),
}


def make_int8_model() -> bytes:
    """The deploy graph with Q/DQ pairs around the convolution's image and weights."""
    model = onnx.load_from_string(make_model())
    graph = model.graph
    weight = next(entry for entry in graph.initializer if entry.name == "weight")
    step = float(np.abs(WEIGHT).max() / 127)
    codes = np.round(numpy_helper.to_array(weight) / step).astype(np.int8)
    graph.initializer.remove(weight)
    constants = {"codes": codes, "ws": np.float32(step), "s": np.float32(2), "z": np.int8(0)}
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items())
    convolution = next(node for node in graph.node if node.op_type == "Conv")
    graph.node.remove(convolution)
    graph.node.extend(
        [
            helper.make_node("QuantizeLinear", ["data", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"]),
            helper.make_node("DequantizeLinear", ["codes", "ws", "z"], ["dw"]),
            helper.make_node("Conv", ["dq", "dw"], ["scores"]),
        ]
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    name, options = CASES[request.param]
    if name != "fake":
        pytest.importorskip(name, reason=f"{name} is not installed")
    return name, options


@pytest.fixture
def backend(case: tuple[str, dict[str, Any]], tmp_path: Path) -> Backend:
    return open_backend(case[0], read_bundle(write_torch_bundle(tmp_path)), threads=1, options=case[1])


def test_every_backend_is_in_the_contract() -> None:
    needs_a_device = {"tensorrt", "onnxruntime-rtx"}  # their own tests check the contract on fakes
    assert {name for name, _ in CASES.values()} == set(BACKENDS) - needs_a_device


def test_describes_itself(backend: Backend) -> None:
    assert backend.name in BACKENDS
    assert backend.device == "cpu"
    (image,) = backend.inputs
    assert (image.name, image.dtype, len(image.shape), image.shape[3]) == ("image", "uint8", 4, 3)
    (scores,) = backend.outputs
    assert (scores.name, scores.dtype, len(scores.shape), scores.shape[1]) == ("scores", "float32", 4, 4)


def test_runs_a_batch(backend: Backend) -> None:
    both = backend.run({"image": BATCH})["scores"]
    assert both.shape == (2, 4, 9, 11)
    assert both.dtype == np.float32
    for index in range(2):
        alone = backend.run({"image": BATCH[index : index + 1]})["scores"]
        np.testing.assert_array_equal(alone[0], both[index])


def test_gives_the_networks_scores(backend: Backend) -> None:
    found = backend.run({"image": BATCH})["scores"]
    if backend.name == "fake":  # its formula
        centers = np.linspace(0, 255, 4)[:, None, None]
        expected = [-np.abs(image.mean(2) - centers) for image in BATCH]
    else:
        expected = [expected_scores(image) for image in BATCH]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_takes_any_size_after_any(backend: Backend) -> None:
    for height, width in ((9, 11), (1, 1), (30, 2), (9, 11)):
        image = make_image(height, width)
        assert backend.run({"image": image[None]})["scores"].shape == (1, 4, height, width)


def test_takes_arrays_in_any_memory_order(backend: Backend) -> None:
    straight = backend.run({"image": BATCH})["scores"]
    strided = np.ascontiguousarray(BATCH.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
    read_only = BATCH.copy()
    read_only.setflags(write=False)
    for feed in (strided, np.flip(np.flip(BATCH, 1).copy(), 1), read_only):
        np.testing.assert_array_equal(backend.run({"image": feed})["scores"], straight)


def test_run_many_is_run_in_order(backend: Backend) -> None:
    images = [make_image(9, 11, seed)[None] for seed in range(3)]
    found = list(backend.run_many({"image": image} for image in images))
    assert len(found) == 3
    for result, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(result["scores"], backend.run({"image": image})["scores"])


def test_run_many_takes_feeds_as_they_are_needed(backend: Backend) -> None:
    taken: list[int] = []

    def give() -> Iterator[dict[str, np.ndarray]]:
        for number in range(3):
            taken.append(number)
            yield {"image": BATCH}

    results = backend.run_many(give())
    assert taken == []
    next(results)
    assert taken == [0]


def test_close_while_other_threads_run(backend: Backend) -> None:
    """A run that has begun ends properly, later ones are refused; `close` does not wait forever."""
    expected = backend.run({"image": BATCH})["scores"]
    started = threading.Barrier(3)

    def run_until_closed() -> str:
        started.wait()
        while True:
            try:
                np.testing.assert_array_equal(backend.run({"image": BATCH})["scores"], expected)
            except BackendError as error:
                return str(error)

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(run_until_closed) for _ in range(2)]
        started.wait()
        time.sleep(0.02)
        backend.close()
        assert [future.result(timeout=30) for future in futures] == ["this backend was closed"] * 2


def test_results_belong_to_the_caller(backend: Backend) -> None:
    first = backend.run({"image": BATCH})["scores"]
    kept = first.copy()
    backend.run({"image": BATCH[::-1].copy()})
    np.testing.assert_array_equal(first, kept)
    first[:] = 0  # and are writable


def test_runs_in_several_threads_at_once(backend: Backend) -> None:
    images = [make_image(9 + index % 3, 11, seed=index)[None] for index in range(12)]
    expected = [backend.run({"image": image})["scores"] for image in images]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda image: backend.run({"image": image})["scores"], images))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("make_feeds", "part"),
    [
        (dict, "was fed"),
        (lambda: {"picture": BATCH}, "was fed"),
        (lambda: {"image": BATCH, "mask": BATCH}, "was fed"),
        (lambda: {"image": BATCH.tolist()}, "got a list"),
        (lambda: {"image": BATCH.astype(np.float32)}, "must be uint8.*float32"),
        (lambda: {"image": BATCH[0]}, "got uint8 of shape 9 x 11 x 3"),
        (lambda: {"image": BATCH[..., :2]}, "x 2$"),
        (lambda: {"image": BATCH[:0]}, "shape 0 x"),
    ],
)
def test_refuses(backend: Backend, make_feeds: Callable[[], Any], part: str) -> None:
    with pytest.raises(InputError, match=part):
        backend.run(make_feeds())


def test_closed(backend: Backend) -> None:
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.run({"image": BATCH})


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"onnxruntime, .*fake") as caught:
        open_backend("caffe", read_bundle(write_torch_bundle(tmp_path)))
    assert caught.value.exit_code == 3


def test_unknown_device(case: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="tpu"):
        open_backend(case[0], read_bundle(write_torch_bundle(tmp_path)), device="tpu")


def test_unknown_option(case: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f'the {case[0]} backend has no option "warp"; it has '):
        open_backend(case[0], read_bundle(write_torch_bundle(tmp_path)), options={"warp": 9})


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_int8_variant(tmp_path: Path, name: str) -> None:
    """Both run a Q/DQ graph as its codes say: images in steps of 2, weights in steps of their largest over 127."""
    pytest.importorskip(name, reason=f"{name} is not installed")
    folder = write_bundle(tmp_path, contents={"deploy.int8.onnx": make_int8_model()}, variants={"int8": INT8_VARIANT})
    bundle = read_bundle(folder)
    found = open_backend(name, bundle, threads=1, precision="int8").run({"image": BATCH})["scores"]
    exact = open_backend(name, bundle, threads=1).run({"image": BATCH})["scores"]
    centered = BATCH[..., ::-1].astype(np.float64) - np.array(MEAN)  # BGR
    codes = np.clip(np.round(centered / 2), -128, 127)
    step = np.abs(WEIGHT).max() / 127
    expected = np.einsum("lc,nhwc->nlhw", np.round(WEIGHT / step), codes) * 2 * step
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert 1e-3 < np.abs(found - exact).max() < 0.2


def test_precision_that_is_not_there(case: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises((BackendError, BundleError), match="int8"):
        open_backend(case[0], read_bundle(write_torch_bundle(tmp_path)), precision="int8")
