"""The onnxruntime-rtx backend on a fake of ONNX Runtime's plug-in interface, which computes the bundle's network."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from atrous.bundle.folder import Bundle, read_bundle
from atrous.errors import BackendError, BundleError, EngineError, InputError
from atrous.runtime import devices
from atrous.runtime.backends import Backend, onnxruntime_rtx, open_backend
from atrous.runtime.backends.onnxruntime import make_settings
from atrous.runtime.backends.tensorrt import workflow
from atrous.runtime.backends.tensorrt.capabilities import find_rtx_capabilities
from atrous.runtime.backends.tensorrt.options import BuildOptions, Profile, ShapeRange, static_profile
from atrous.runtime.backends.tensorrt.rtx import builder, library
from atrous.runtime.backends.tensorrt.rtx.context import PROVIDER
from atrous.runtime.backends.tensorrt.store import EngineStore, find_store
from atrous.runtime.backends.tensorrt.targets import name_target

from ..bundles import expected_scores, make_image, write_bundle

GPU = devices.CudaDevice("Some RTX GPU", "8.9", 16 << 30)
SMALL = static_profile({"image": (1, 9, 11, 3)})
LARGE: Profile = {"image": ShapeRange((1, 20, 20, 3), (1, 30, 30, 3), (2, 40, 40, 3))}


class FakeOnnxRuntime:
    """The calls that the backend makes; a session computes the network of the test bundles."""

    __version__ = "1.32.0"

    def __init__(self, package: Any) -> None:
        self.package, self.registered, self.models = package, [], []
        self.options: dict[str, str] = {}
        self.run_entries: list[dict[str, str]] = []
        self.started = [PROVIDER, "CPUExecutionProvider"]
        self.SessionOptions = lambda: SimpleNamespace(
            add_session_config_entry=lambda name, value: None, add_provider_for_devices=self.add_provider
        )
        self.RunOptions = self.make_run_options

    def add_provider(self, found: list[Any], options: dict[str, str]) -> None:
        assert [device.ep_name for device in found] == [PROVIDER]
        self.options = options

    def make_run_options(self) -> Any:
        entries: dict[str, str] = {}
        return SimpleNamespace(entries=entries, add_run_config_entry=entries.__setitem__)

    def get_ep_devices(self) -> list[Any]:
        names = ["CPUExecutionProvider", *(name for name, _ in self.registered)]
        return [SimpleNamespace(ep_name=name) for name in names]

    def register_execution_provider_library(self, name: str, path: str) -> None:
        assert (name, path) == (PROVIDER, self.package.get_library_path())
        assert not self.registered, "registered twice"
        self.registered.append((name, path))

    def InferenceSession(self, model: bytes, settings: Any) -> Any:  # noqa: N802 - its name
        self.models.append(onnx.load_from_string(model))
        dynamic = ["batch", None, None]
        return SimpleNamespace(
            get_inputs=lambda: [SimpleNamespace(name="image", type="tensor(uint8)", shape=[*dynamic, 3])],
            get_outputs=lambda: [SimpleNamespace(name="scores", type="tensor(float)", shape=["batch", 4, None, None])],
            get_providers=lambda: self.started,
            run=self.run,
        )

    def run(self, names: list[str], feeds: dict[str, Any], settings: Any) -> list[Any]:
        self.run_entries.append(settings.entries if settings is not None else {})
        return [np.stack([expected_scores(image) for image in feeds["image"]])]


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return read_bundle(write_bundle(tmp_path / "bundle"))


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeOnnxRuntime:
    """A machine with an RTX GPU and the pinned wheel."""
    package = SimpleNamespace(get_library_path=lambda: str(tmp_path / "libprovider.so"))
    fake = FakeOnnxRuntime(package)
    modules = {"onnxruntime": fake, library.PACKAGE: package}
    monkeypatch.setattr(onnxruntime_rtx, "import_optional", modules.__getitem__)
    monkeypatch.setattr(onnxruntime_rtx.ctypes, "CDLL", lambda path, mode=0: None)
    monkeypatch.setattr(onnxruntime_rtx, "list_cuda_devices", lambda: (GPU,))
    monkeypatch.setattr(library, "read_version", lambda name: library.PINNED)
    return fake


def store_engine(
    bundle: Bundle, *profiles: Profile, targets: tuple[str, ...] = ("sm86", "sm89"), plan: bytes = b"plan"
) -> None:
    model = bundle.read_file("deploy.onnx")
    options = BuildOptions(profiles or (SMALL,), targets=targets)
    capabilities = find_rtx_capabilities(library.PINNED_LIBRARY)
    prepared = workflow.prepare_build(model, bundle.graph_facts(), options, capabilities)
    EngineStore(find_store(bundle.path)).put(prepared.make_key(None), plan, b"", {})


def build_plan(bundle: Bundle, *profiles: Profile, targets: tuple[str, ...]) -> bytes:
    """Build with the installed library."""
    model, found = bundle.read_file("deploy.onnx"), library.find_library()
    options = BuildOptions(profiles, targets=targets)
    prepared = workflow.prepare_build(model, bundle.graph_facts(), options, find_rtx_capabilities(found.version))
    return builder.build_engine(found, prepared.plan, model).plan


def open_rtx(bundle: Bundle, **options: object) -> Backend:
    return open_backend("onnxruntime-rtx", bundle, options=options)


def test_runs_the_stored_engine(runtime: FakeOnnxRuntime, bundle: Bundle, tmp_path: Path) -> None:
    store_engine(bundle)
    backend = open_rtx(bundle)
    image = make_image(9, 11)
    np.testing.assert_array_equal(backend.run({"image": image[None]})["scores"][0], expected_scores(image))
    (node,) = runtime.models[0].graph.node
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert attributes["ep_cache_context"] == b"plan"
    assert runtime.options.pop("nv_runtime_cache_path").startswith(str(tmp_path / "cache" / "atrous" / "kernels"))
    assert runtime.options == {"enable_cuda_graph": "0"}
    assert runtime.run_entries == [{}]
    assert (backend.name, backend.device) == ("onnxruntime-rtx", "cuda")
    backend.close()
    with pytest.raises(BackendError, match="this backend was closed"):
        backend.run({"image": image[None]})


def test_registers_once(runtime: FakeOnnxRuntime, bundle: Bundle) -> None:
    store_engine(bundle)
    open_rtx(bundle)
    open_rtx(bundle, cuda_graphs=True, runtime_cache=False)
    assert len(runtime.registered) == 1
    assert runtime.options == {"enable_cuda_graph": "1"}


def test_the_profile_of_a_shape(runtime: FakeOnnxRuntime, bundle: Bundle) -> None:
    store_engine(bundle, SMALL, LARGE)
    backend = open_rtx(bundle)
    for size in ((9, 11), (33, 40), (9, 11)):
        backend.run({"image": make_image(*size)[None]})
    assert [entries["nv_profile_index"] for entries in runtime.run_entries] == ["0", "1", "0"]
    with pytest.raises(InputError, match=r"no profile .* allows image 1x9x12x3; it has image 1x9x11x3; image 1x20"):
        backend.run({"image": make_image(9, 12)[None]})
    assert len(runtime.run_entries) == 3


def test_the_engine_for_this_gpu(runtime: FakeOnnxRuntime, bundle: Bundle) -> None:
    store_engine(bundle, targets=("sm120",), plan=b"for another")
    with pytest.raises(EngineError, match=r'settings\.targets is \["sm120"\] there and \["sm89"\] here'):
        open_rtx(bundle)
    store_engine(bundle, targets=("sm89", "sm120"), plan=b"for both")
    store_engine(bundle, LARGE, targets=("sm89",), plan=b"large")
    open_rtx(bundle, shape="1x9x11x3")
    assert b"for both" in runtime.models[-1].SerializeToString()
    with pytest.raises(EngineError, match="no profile of these engines allows image 1x50x50x3"):
        open_rtx(bundle, shape="1x50x50x3")


def test_no_engine(runtime: FakeOnnxRuntime, bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="no engine is built"):
        open_rtx(bundle)
    with pytest.raises(BundleError, match="fp16"):
        open_backend("onnxruntime-rtx", bundle, precision="fp16")


def test_an_engine_of_a_stranger(runtime: FakeOnnxRuntime, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    store_engine(bundle)
    monkeypatch.setenv("XDG_DATA_HOME", str(bundle.path.parent / "other"))
    with pytest.raises(EngineError, match="signed by another installation"):
        open_rtx(bundle)
    open_rtx(bundle, trust=True)


def test_the_graph_itself(runtime: FakeOnnxRuntime, bundle: Bundle) -> None:
    backend = open_rtx(bundle, source="graph", minimum="1x9x9x3", shape="1x9x11x3", maximum="2x20x20x3")
    assert len(runtime.models[0].graph.node) > 1
    shapes = {name: value for name, value in runtime.options.items() if name.startswith("nv_profile")}
    assert shapes == {
        "nv_profile_min_shapes": "image:1x9x9x3",
        "nv_profile_opt_shapes": "image:1x9x11x3",
        "nv_profile_max_shapes": "image:2x20x20x3",
    }
    with pytest.raises(InputError, match="no profile"):
        backend.run({"image": make_image(8, 9)[None]})


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"source": "graph"}, "dynamic sizes: give the shapes"),
        ({"source": "graph", "shape": "1x9"}, "is .x.x.x3, the profile has 1x9"),
        ({"source": "graph", "shape": "big"}, '"big" is not a shape'),
        ({"source": "graph", "minimum": "1x9x9x3"}, "give both"),
        ({"minimum": "1x9x9x3", "maximum": "1x9x9x3"}, 'for the source "graph"'),
        ({"source": "graph", "shape": "1x9x9x3", "minimum": "1x10x9x3", "maximum": "1x20x9x3"}, "min <= opt <= max"),
    ],
)
def test_impossible_shapes(runtime: FakeOnnxRuntime, bundle: Bundle, options: dict[str, str], part: str) -> None:
    with pytest.raises(InputError, match=part):
        open_rtx(bundle, **options)


def test_on_the_real_interface(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime's own calls, with its CPU in the provider's place."""
    real = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    if not hasattr(real, "get_ep_devices"):
        pytest.skip(f"onnxruntime {real.__version__} has no provider plug-ins")
    monkeypatch.setattr(onnxruntime_rtx, "PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(onnxruntime_rtx, "make_settings", lambda runtime, entries: make_settings(runtime))
    (device, *_) = onnxruntime_rtx._list_devices(real)
    model = bundle.read_file("deploy.onnx")
    session = onnxruntime_rtx._open_session(real, device, model, {"enable_cuda_graph": "0"}, "here")
    profiles = BuildOptions((SMALL, LARGE)).profiles_json()
    backend = onnxruntime_rtx.OnnxRuntimeRtxBackend(real, session, profiles)
    images = [make_image(9, 11), make_image(33, 40)]
    for image, result in zip(images, backend.run_many({"image": image[None]} for image in images), strict=True):
        np.testing.assert_allclose(result["scores"][0], expected_scores(image), atol=1e-4)
    assert [spec.shape for spec in backend.inputs] == [("batch", "height", "width", 3)]
    with pytest.raises(BackendError, match="here: CPUExecutionProvider refuses the network"):
        onnxruntime_rtx._open_session(real, device, b"no model", {}, "here")


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graphs", [False, True])
@pytest.mark.parametrize("source", ["engine", "graph"])
def test_agrees_with_the_cpu(bundle: Bundle, source: str, cuda_graphs: bool) -> None:
    """On an RTX GPU. Every shape runs three times, so that CUDA graphs are replayed; the tolerance allows TF32."""
    obstacles = onnxruntime_rtx.find_obstacles()
    if obstacles:
        pytest.skip(f"this machine lacks {'; '.join(obstacles)}")
    options: dict[str, object] = {"source": source, "cuda_graphs": cuda_graphs}
    if source == "engine":
        target = name_target(devices.list_cuda_devices()[0].capability)
        plan = build_plan(bundle, SMALL, LARGE, targets=(target,))
        store_engine(bundle, SMALL, LARGE, targets=(target,), plan=plan)
    else:
        options |= {"minimum": "1x9x9x3", "shape": "1x9x11x3", "maximum": "2x40x40x3"}
    backend = open_rtx(bundle, **options)
    for seed in range(3):
        for size in ((9, 11), (33, 40)):
            image = make_image(*size, seed)
            found = backend.run({"image": image[None]})["scores"][0]
            np.testing.assert_allclose(found, expected_scores(image), atol=0.05)
    backend.close()


# --- what this machine lacks -----------------------------------------------------------------------------------------


def test_no_driver(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(onnxruntime_rtx.ctypes, "CDLL", refuse)
    with pytest.raises(BackendError, match=r"needs NVIDIA's driver \(libcuda\.so\.1, libnvidia-ml\.so\.1") as caught:
        open_rtx(bundle)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("found", "part"),
    [
        ((), "needs a GPU .the driver reports none"),
        ((devices.CudaDevice("NVIDIA H200", "9.0", 1),), r"8\.6, 8\.9, or 12\.0 and later \(NVIDIA H200 has 9\.0\)"),
    ],
)
def test_no_such_gpu(
    runtime: FakeOnnxRuntime, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, found: tuple[Any, ...], part: str
) -> None:
    monkeypatch.setattr(onnxruntime_rtx, "list_cuda_devices", lambda: found)
    with pytest.raises(BackendError, match=part):
        open_rtx(bundle)


def test_another_device(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match='cuda, not "cpu"'):
        open_backend("onnxruntime-rtx", bundle, device="cpu")


def test_an_old_onnxruntime(runtime: FakeOnnxRuntime, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(FakeOnnxRuntime, "register_execution_provider_library")
    with pytest.raises(BackendError, match=r"1\.32\.0 cannot load provider plug-ins"):
        open_rtx(bundle)


def test_a_provider_that_finds_nothing(runtime: FakeOnnxRuntime, bundle: Bundle) -> None:
    runtime.register_execution_provider_library = lambda name, path: None  # type: ignore[method-assign]
    with pytest.raises(BackendError, match="finds no GPU"):
        open_rtx(bundle)


def test_a_silent_fallback_is_an_error(runtime: FakeOnnxRuntime, bundle: Bundle) -> None:
    store_engine(bundle)
    runtime.started = ["CPUExecutionProvider"]
    with pytest.raises(BackendError, match=f"asked for {PROVIDER}, ONNX Runtime started CPUExecutionProvider"):
        open_rtx(bundle)


def test_this_machine(bundle: Bundle) -> None:
    """On a machine that lacks something, the error says what; on others, that there is no engine yet."""
    if not onnxruntime_rtx.find_obstacles():
        pytest.skip("this machine has an RTX GPU")
    with pytest.raises(BackendError, match="the onnxruntime-rtx backend needs "):
        open_rtx(bundle)
