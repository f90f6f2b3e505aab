"""All backends take, give and refuse the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.runtime.backends import BACKENDS, Backend, open_backend
from atrous.runtime.bundle import read_bundle
from atrous.runtime.errors import BackendError, InputError

from ..bundles import make_image, write_torch_bundle

BATCH = np.stack([make_image(9, 11, seed) for seed in range(2)])


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "torch":
        pytest.importorskip("torch", reason="torch is not installed")
    return open_backend(request.param, read_bundle(write_torch_bundle(tmp_path)), threads=1)


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
    with pytest.raises(BackendError, match="onnxruntime, torch, fake") as caught:
        open_backend("caffe", read_bundle(write_torch_bundle(tmp_path)))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_unknown_device(tmp_path: Path, name: str) -> None:
    with pytest.raises(BackendError, match="tpu"):
        open_backend(name, read_bundle(write_torch_bundle(tmp_path)), device="tpu")
