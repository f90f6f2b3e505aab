"""open_backend("tensorrt"): from a bundle and the store that `atrous build` fills to results, on stubs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from atrous.bundle.folder import Bundle, read_bundle
from atrous.errors import BackendError, BundleError, EngineError, InputError
from atrous.runtime.backends import open_backend
from atrous.runtime.backends.onnxruntime import OnnxRuntimeBackend
from atrous.runtime.backends.protocol import TensorSpec
from atrous.runtime.backends.tensorrt import backend as module
from atrous.runtime.backends.tensorrt import compat, workflow
from atrous.runtime.backends.tensorrt.capabilities import read_capabilities
from atrous.runtime.backends.tensorrt.options import BuildOptions, static_profile
from atrous.runtime.backends.tensorrt.store import EngineStore, find_store
from tools.gpu_bench.fake_driver import FakeDriver
from tools.gpu_bench.fake_engine import FakeEngine

from ...bundles import expected_scores, make_image, write_bundle
from . import stubs
from .test_keys import MACHINE

SHAPE = (1, 9, 11, 3)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return read_bundle(write_bundle(tmp_path / "bundle"))


@pytest.fixture(params=["8.5", "11"])
def trt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A TensorRT without a GPU: the stub builds, a fake engine runs."""
    trt = stubs.make_tensorrt(request.param)
    driver = FakeDriver()

    def load(_: Any, plan: bytes) -> SimpleNamespace:
        network = OnnxRuntimeBackend(trt.models[-1], threads=1)
        shape = tuple(int(side) for side in plan.rpartition(b"|")[2].decode().split("x"))
        engine = FakeEngine(
            driver,
            inputs=[TensorSpec("image", "uint8", shape)],
            outputs=[TensorSpec("scores", "float32", (shape[0], 4, *shape[1:3]))],
            function=network.run,
            shape_rule=lambda _: {"scores": (shape[0], 4, *shape[1:3])},
            profiles=[{"image": (shape, shape, shape)}],
        )
        return SimpleNamespace(engine=engine, close=lambda: None, log=[])

    monkeypatch.setattr(compat, "load_tensorrt", lambda: (trt, read_capabilities(trt)))
    monkeypatch.setattr(compat, "LoadedEngine", load)
    monkeypatch.setattr(module, "CudaDriver", lambda: driver)
    monkeypatch.setattr(module, "read_machine", lambda: MACHINE)
    object.__getattribute__(trt, "_module").models = []
    return trt


def build(trt: Any, bundle: Bundle, shape: tuple[int, ...] = SHAPE, machine: Any = MACHINE) -> None:
    """Store an engine as `atrous build` does; its plan is the shape."""
    model = bundle.read_file("deploy.onnx")
    trt.models.append(model)
    options = BuildOptions(profiles=(static_profile({"image": shape}),))
    prepared = workflow.prepare_build(model, bundle.graph_facts(), options, read_capabilities(trt))
    plan = b"plan|" + "x".join(map(str, shape)).encode()
    EngineStore(find_store(bundle.path)).put(prepared.make_key(machine), plan, b"", {})


def test_runs_the_stored_engine(trt: Any, bundle: Bundle) -> None:
    build(trt, bundle)
    image = make_image(9, 11)
    backend = open_backend("tensorrt", bundle, options={"cuda_graphs": True})
    assert (backend.name, backend.device) == ("tensorrt", "cuda")
    for _ in range(3):
        np.testing.assert_allclose(backend.run({"image": image[None]})["scores"][0], expected_scores(image), atol=1e-4)
    with pytest.raises(InputError, match="must be uint8 of shape 1 x 9 x 11 x 3"):
        backend.run({"image": make_image(9, 12)[None]})
    backend.close()


def test_chooses_by_shape(trt: Any, bundle: Bundle) -> None:
    for side in (9, 10, 12):
        build(trt, bundle, (1, side, 11, 3))
    for side in (12, 9, 10):
        backend = open_backend("tensorrt", bundle, options={"shape": f"1x{side}x11x3"})
        assert backend.inputs[0].shape == (1, side, 11, 3)
    with pytest.raises(EngineError, match="no profile of these engines allows image 2x9x11x3") as caught:
        open_backend("tensorrt", bundle, options={"shape": "2x9x11x3"})
    assert caught.value.field == "profiles"
    with pytest.raises(InputError, match='"large" is not a shape'):
        open_backend("tensorrt", bundle, options={"shape": "large"})


def test_no_engine_names_the_command(trt: Any, bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="atrous build"):
        open_backend("tensorrt", bundle)


def test_engine_of_another_gpu_names_the_field(trt: Any, bundle: Bundle) -> None:
    build(trt, bundle, machine=replace(MACHINE, gpu="Another GPU"))
    with pytest.raises(EngineError, match=r"gpu\.name is .Another GPU. there") as caught:
        open_backend("tensorrt", bundle)
    assert caught.value.field == "gpu.name"


def test_altered_plan_does_not_run(trt: Any, bundle: Bundle) -> None:
    build(trt, bundle)
    (plan,) = bundle.path.glob("engines/*/*.plan")
    plan.write_bytes(plan.read_bytes().replace(b"11", b"12"))
    with pytest.raises(EngineError, match="was altered") as caught:
        open_backend("tensorrt", bundle)
    assert caught.value.field == "plan.sha256"


def test_an_engine_that_cannot_be_described_is_freed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newest first, although the error is kept, and its traceback has the engine."""
    trt = stubs.make_tensorrt("10")
    plan = b'{"version": "10.13.3.9"}'
    chosen = SimpleNamespace(choose=lambda *fields, here: None, read_plan=lambda engine, trust: plan)
    monkeypatch.setattr(module, "EngineStore", lambda folder: chosen)
    monkeypatch.setattr(compat, "load_tensorrt", lambda: (trt, read_capabilities(trt)))
    monkeypatch.setattr(module, "CudaDriver", FakeDriver)
    monkeypatch.setattr(module, "read_machine", lambda: MACHINE)
    with pytest.raises(TypeError) as caught:  # the stub has no tensors
        open_backend("tensorrt", bundle)
    assert caught.value.__traceback__ is not None
    assert trt.behavior.made
    assert trt.behavior.list_alive() == []


def test_device_and_precision(trt: Any, bundle: Bundle) -> None:
    with pytest.raises(BackendError, match='runs on the device cuda, not "cpu"'):
        open_backend("tensorrt", bundle, device="cpu")
    with pytest.raises(BundleError, match="has no fp16 network"):
        open_backend("tensorrt", bundle, precision="fp16")
