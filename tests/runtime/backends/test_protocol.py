"""All backends take, give and refuse the same."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.runtime.backends import BACKENDS, Backend, open_backend
from atrous.runtime.bundle import read_bundle
from atrous.runtime.errors import BackendError, BundleError, InputError

from ..bundles import expected_scores, make_image, write_torch_bundle

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
    needs_a_device = {"tensorrt"}  # its runner has a contract test of its own, on a fake driver
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
    if backend.name == "fake":  # a formula of its own: see its own tests
        centres = np.linspace(0, 255, 4)[:, None, None]
        expected = [-np.abs(image.mean(2) - centres) for image in BATCH]
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


def test_results_belong_to_the_caller(backend: Backend) -> None:
    first = backend.run({"image": BATCH})["scores"]
    kept = first.copy()
    backend.run({"image": BATCH[::-1].copy()})
    np.testing.assert_array_equal(first, kept)
    first[:] = 0  # and may be written to


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


def test_precision_that_is_not_there(case: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises((BackendError, BundleError), match="int8"):
        open_backend(case[0], read_bundle(write_torch_bundle(tmp_path)), precision="int8")
