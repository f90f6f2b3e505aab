"""A bundle's engine, from `atrous build`'s steps to labels: found, checked, loaded, run; or refused by the field."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous import runtime
from atrous.runtime.backends import open_backend
from atrous.runtime.backends.protocol import TensorSpec
from atrous.runtime.backends.tensorrt import backend, compat, workflow
from atrous.runtime.backends.tensorrt.capabilities import read_capabilities
from atrous.runtime.backends.tensorrt.fake_driver import FakeDriver
from atrous.runtime.backends.tensorrt.fake_engine import FakeEngine
from atrous.runtime.backends.tensorrt.options import BuildOptions, ShapeRange
from atrous.runtime.backends.tensorrt.signing import Signer
from atrous.runtime.backends.tensorrt.store import EngineStore, StoredEngine, find_store
from atrous.runtime.bundle import Bundle, read_bundle
from atrous.runtime.errors import EngineError

from ...bundles import expected_scores, make_image, write_bundle
from . import stubs
from .test_keys import MACHINE

SHAPES = ShapeRange((1, 8, 8, 3), (1, 16, 16, 3), (2, 64, 64, 3))
THEIRS = Signer(b"t" * 32)


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A stub TensorRT whose engines run on the fake driver, on a machine of the tests' own."""
    module = stubs.make_tensorrt("10")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(compat, "import_optional", lambda name: module)
    monkeypatch.setattr(backend, "read_machine", lambda: MACHINE)
    driver = FakeDriver()
    monkeypatch.setattr(backend, "CudaDriver", lambda: driver)
    engine = FakeEngine(
        driver,
        inputs=[TensorSpec("image", "uint8", ("batch", "height", "width", 3))],
        outputs=[TensorSpec("scores", "float32", ("batch", 4, "height", "width"))],
        function=lambda feeds: {"scores": np.stack([expected_scores(image) for image in feeds["image"]])},
        shape_rule=lambda shapes: {"scores": (shapes["image"][0], 4, *shapes["image"][1:3])},
        profiles=[{"image": (SHAPES.minimum, SHAPES.optimum, SHAPES.maximum)}],
    )
    loaded: list[bytes] = []

    def load(trt: Any, plan: bytes, logger: Any) -> tuple[None, FakeEngine]:
        loaded.append(plan)
        return None, engine

    real = compat.deserialize_engine
    monkeypatch.setattr(backend.compat, "deserialize_engine", load)
    module.behaviour.loaded, module.behaviour.deserialize = loaded, real
    return module


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return read_bundle(write_bundle(tmp_path / "four-colours"))


def build(trt: Any, bundle: Bundle, signer: Signer | None = None, **changes: Any) -> StoredEngine:
    """Build the bundle's network as `atrous build` does, on the stub's own deserialising."""
    options = replace(BuildOptions(profiles=({"image": SHAPES},)), **changes)
    model = bundle.read_file(bundle.deploy.file)
    prepared = workflow.prepare_build(model, options, read_capabilities(trt))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compat, "deserialize_engine", trt.behaviour.deserialize)
        return workflow.make_engine(trt, prepared, EngineStore(find_store(bundle.path), signer), MACHINE).engine


def test_build_open_run(trt: Any, bundle: Bundle) -> None:
    engine = build(trt, bundle)
    image = make_image(13, 21)
    opened = open_backend("tensorrt", bundle)
    np.testing.assert_array_equal(opened.run({"image": image[None]})["scores"][0], expected_scores(image))
    opened.close()
    assert trt.behaviour.loaded == [EngineStore(find_store(bundle.path)).read_plan(engine)]
    with runtime.load(bundle.path, "tensorrt") as segmenter:
        np.testing.assert_array_equal(segmenter(image), expected_scores(image).argmax(axis=0))


def refuse(trt: Any, bundle: Bundle, **options: object) -> str:
    """The field for which the bundle's engine is refused; TensorRT must not have seen a byte of it."""
    with pytest.raises(EngineError) as caught:
        open_backend("tensorrt", bundle, options=options)
    assert trt.behaviour.loaded == []
    assert caught.value.exit_code == 2
    return caught.value.field


def test_nothing_is_built_yet(trt: Any, bundle: Bundle) -> None:
    assert refuse(trt, bundle) == "key"


def test_tampered_and_truncated(trt: Any, bundle: Bundle) -> None:
    engine = build(trt, bundle)
    path = engine.folder / engine.record.plan.file
    plan = path.read_bytes()
    path.write_bytes(b"x" + plan[1:])
    assert refuse(trt, bundle) == "plan.sha256"
    assert refuse(trt, bundle, trust=True) == "plan.sha256"
    path.write_bytes(plan[:-1])
    assert refuse(trt, bundle) == "plan.bytes"


def test_foreign(trt: Any, bundle: Bundle) -> None:
    build(trt, bundle, THEIRS)
    assert refuse(trt, bundle) == "installation"
    open_backend("tensorrt", bundle, options={"trust": True}).close()
    assert len(trt.behaviour.loaded) == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"gpu": "Other GPU"}, "gpu.name"),
        ({"multiprocessors": 114}, "gpu.multiprocessors"),
        ({"driver": "570.0"}, "gpu.driver"),
        ({"system": "Linux aarch64"}, "system"),
    ],
)
def test_stale_by_the_machine(
    trt: Any, bundle: Bundle, change: dict[str, Any], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(trt, bundle)
    monkeypatch.setattr(backend, "read_machine", lambda: replace(MACHINE, **change))
    assert refuse(trt, bundle) == field


def test_stale_by_tensorrt(trt: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    build(trt, bundle)
    later = stubs.make_tensorrt("11")
    monkeypatch.setattr(compat, "import_optional", lambda name: later)
    assert refuse(trt, bundle) == "tensorrt.version"


def test_stale_by_the_graph(trt: Any, bundle: Bundle, tmp_path: Path) -> None:
    build(trt, bundle)
    other = read_bundle(write_bundle(tmp_path / "other", "lowres"))
    (bundle.path / "engines").rename(other.path / "engines")
    assert refuse(trt, other) == "onnx.sha256"


def test_stale_by_the_shapes(trt: Any, bundle: Bundle) -> None:
    build(trt, bundle)
    assert refuse(trt, bundle, shape="1x65x64x3") == "profiles"
    open_backend("tensorrt", bundle, options={"shape": "2x64x64x3"}).close()


def test_tf32_is_no_float32(trt: Any, bundle: Bundle) -> None:
    build(trt, bundle, tf32=True)
    assert refuse(trt, bundle) == "settings.tf32"
    open_backend("tensorrt", bundle, options={"tf32": True}).close()


def test_compatible_engines_run_on_other_gpus(trt: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    build(trt, bundle, hardware_compatible="ampere-plus")
    other = replace(MACHINE, gpu="Other GPU", capability="8.6", multiprocessors=80)
    monkeypatch.setattr(backend, "read_machine", lambda: other)
    open_backend("tensorrt", bundle).close()
    monkeypatch.setattr(backend, "read_machine", lambda: replace(other, capability="7.5"))
    trt.behaviour.loaded.clear()
    assert refuse(trt, bundle) == "gpu.name"
