"""The onnxruntime-rtx backend: ONNX Runtime with NVIDIA's provider of TensorRT for RTX (experimental).

It runs an engine of `atrous build --rtx`, or compiles the bundle's graph when it opens. The provider is a plug-in in a
wheel of its own. Kernels are compiled for the GPU at the first run, and kept in a folder of the user's cache: they are
code that nothing signs, so not in the bundle.

A run names the profile that its shapes need; shapes that no profile allows are refused here. CUDA graphs are captured
and replayed by the library itself, for every shape.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...dependencies import OPTIONAL, import_optional
from ...errors import BackendError, InputError
from ..devices import list_cuda_devices
from .onnxruntime import OnnxRuntimeBackend, describe_session, make_settings
from .protocol import Array, first_line
from .self_contained import require_self_contained
from .tensorrt.keys import rtx_fields
from .tensorrt.options import BuildOptions, ShapeRange, read_shape
from .tensorrt.rtx.context import PROVIDER, wrap_plan
from .tensorrt.rtx.library import PACKAGE, read_provider_library
from .tensorrt.store import EngineStore, find_runtime_cache, find_store, profile_allows
from .tensorrt.targets import is_run_by_provider, name_target

if TYPE_CHECKING:
    from ...bundle.folder import Bundle

_DRIVER_LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1")
_REGISTERING = threading.Lock()
#: a profile as the records of engines write it: input -> "min", "opt", "max" -> shape
RecordedProfile = Mapping[str, Mapping[str, Sequence[int]]]


@dataclass(frozen=True)
class OnnxRuntimeRtxOptions:
    """Options of the onnxruntime-rtx backend.

    Attributes:
        source: "engine" runs the engine that `atrous build --rtx` stored; "graph" compiles the bundle's graph.
        shape: engine: an input shape that the engine must allow, such as "8x513x513x3"; graph: the shape to compile
            for, with `minimum` and `maximum` the one to be fast at.
        minimum, maximum: with "graph", the smallest and the largest input shape.
        cuda_graphs: whether the library captures each shape as a CUDA graph, and replays it.
        runtime_cache: whether compiled kernels are kept for the next start.
        tf32: with "engine", whether to run the one that was built with TF32; a compiled graph always allows TF32.
        trust: whether to run an engine that this installation did not sign. A plan is code.
    """

    source: Literal["engine", "graph"] = "engine"
    shape: str | None = None
    minimum: str | None = None
    maximum: str | None = None
    cuda_graphs: bool = False
    runtime_cache: bool = True
    tf32: bool = False
    trust: bool = False

    def __post_init__(self) -> None:
        if (self.minimum is None) != (self.maximum is None):
            raise InputError("the options minimum and maximum belong together: give both")
        if self.source == "engine" and self.minimum is not None:
            raise InputError('minimum and maximum are for the source "graph"; an engine has its own profiles')


class OnnxRuntimeRtxBackend(OnnxRuntimeBackend):
    """A session on the provider of TensorRT for RTX. Runs of an engine with several profiles take turns."""

    name = "onnxruntime-rtx"
    device = "cuda"

    def __init__(self, runtime: Any, session: Any, profiles: Sequence[RecordedProfile]):
        """Run a session; `profiles` are those of its engine, none for a graph of fixed sizes."""
        self._runtime, self._session, self._bound = runtime, session, False
        self._profiles = profiles
        self._turn: contextlib.AbstractContextManager[Any]
        self._turn = threading.Lock() if len(profiles) > 1 else contextlib.nullcontext()
        self.inputs, self.outputs = describe_session(session)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs; see `Backend.run`. InputError is raised for a shape that no profile allows."""
        with self._turn:  # the provider keeps the chosen profile for the whole session
            return super().run(feeds)

    def _make_run_settings(self, feeds: Mapping[str, Array]) -> Any:
        shapes = {name: array.shape for name, array in feeds.items()}
        fitting = [index for index, profile in enumerate(self._profiles) if profile_allows(profile, shapes)]
        if self._profiles and not fitting:
            given = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
            allowed = "; ".join(_write_profile(profile) for profile in self._profiles)
            raise InputError(f"no profile of the engine allows {given}; it has {allowed}: build one that does")
        if len(self._profiles) < 2:
            return None
        settings = self._runtime.RunOptions()
        settings.add_run_config_entry("nv_profile_index", str(fitting[0]))
        return settings


def find_obstacles() -> list[str]:
    """Return what this machine lacks to run engines of TensorRT for RTX; empty if nothing."""
    missing = []
    for library in _DRIVER_LIBRARIES:
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(library)
    if missing:
        return [f"NVIDIA's driver ({', '.join(missing)} cannot be loaded)"]
    devices = list_cuda_devices()
    if not devices:
        return ["a GPU (the driver reports none)"]
    first = devices[0]
    if not is_run_by_provider(int(first.capability.replace(".", ""))):
        return [f"a GPU of compute capability 8.6, 8.9, or 12.0 and later ({first.name} has {first.capability})"]
    return []


def open_onnxruntime_rtx(
    bundle: Bundle, *, device: str | None, precision: str, options: OnnxRuntimeRtxOptions
) -> OnnxRuntimeRtxBackend:
    """Load an engine of `atrous build --rtx` for this machine's first GPU, or compile the bundle's graph.

    Raises:
        BackendError: for another device than "cuda", or if there is no such GPU, driver or provider; names what lacks.
        MissingDependencyError: if ONNX Runtime or the provider is not installed.
        BundleError: if the bundle has no such variant.
        EngineError: if no engine was built for this GPU, or the stored one must not run; names the field.
        InputError: if the shapes do not fit the graph.
    """
    if device not in (None, "cuda"):
        raise BackendError(f'the onnxruntime-rtx backend runs on the device cuda, not "{device}"')
    bundle.deploy_file(precision)
    obstacles = find_obstacles()
    if obstacles:
        raise BackendError(
            f"the onnxruntime-rtx backend needs {'; '.join(obstacles)}: run it on a machine with an RTX GPU, or use "
            "the onnxruntime backend here (see `atrous doctor`)"
        )
    runtime, provider = _register_provider()
    prepare = _prepare_engine if options.source == "engine" else _prepare_graph
    model, profiles, digest = prepare(bundle, precision, options)
    settings = {"enable_cuda_graph": str(int(options.cuda_graphs))}
    if options.runtime_cache:
        settings["nv_runtime_cache_path"] = str(_make_folder(find_runtime_cache(digest)))
    if options.source == "graph" and profiles:
        settings |= {
            f"nv_profile_{part}_shapes": ";".join(
                f"{name}:{'x'.join(map(str, shapes[part]))}" for name, shapes in profiles[0].items()
            )
            for part in ("min", "opt", "max")
        }
    session = _open_session(runtime, provider, model, settings, str(bundle.path))
    return OnnxRuntimeRtxBackend(runtime, session, profiles)


def _prepare_engine(
    bundle: Bundle, precision: str, options: OnnxRuntimeRtxOptions
) -> tuple[bytes, Sequence[RecordedProfile], str]:
    """The model around the stored plan, the engine's profiles, and the plan's digest."""
    target, version = name_target(list_cuda_devices()[0].capability), read_provider_library()
    wanted: dict[str, object] = {
        "onnx.sha256": bundle.manifest.files[bundle.deploy_file(precision)].sha256,
        "precision.name": precision,
        "settings.tf32": options.tf32,
        **rtx_fields(version),
    }

    def find_wanted(fields: Mapping[str, object]) -> dict[str, object]:
        targets = fields.get("settings.targets")
        fits = isinstance(targets, list) and target in targets
        return {"settings.targets": targets if fits else [target]}

    shapes = {bundle.deploy.input: read_shape(options.shape)} if options.shape is not None else None
    store = EngineStore(find_store(bundle.path))
    engine = store.choose(wanted, shapes, here=find_wanted)
    plan, digest = store.read_plan(engine, trust=options.trust), engine.record.plan.sha256
    targets, profiles = engine.fields["settings.targets"], engine.fields.get("profiles")
    written = ",".join(targets if isinstance(targets, list) else ())
    name = f"atrous{digest[:32]}"
    model = wrap_plan(plan, bundle.graph_facts(precision), name=name, targets=written, version=version)
    return model, profiles if isinstance(profiles, list) else [], digest


def _prepare_graph(
    bundle: Bundle, precision: str, options: OnnxRuntimeRtxOptions
) -> tuple[bytes, Sequence[RecordedProfile], str]:
    """The bundle's graph, the profile of the options, and the graph's digest."""
    file, name = bundle.deploy_file(precision), bundle.deploy.input
    model, facts = bundle.read_file(file), bundle.graph_facts(precision)
    require_self_contained(model, bundle.path / file)
    given = BuildOptions()
    if options.shape is not None:
        texts = (options.minimum or options.shape, options.shape, options.maximum or options.shape)
        given = BuildOptions(profiles=({name: ShapeRange(*map(read_shape, texts))},))
    given.check_inputs(facts)
    return model, given.profiles_json(), bundle.manifest.files[file].sha256


def _register_provider() -> tuple[Any, Any]:
    """Return ONNX Runtime and its first device of the provider, which is registered once for the process."""
    runtime: Any = import_optional("onnxruntime")
    package: Any = import_optional(PACKAGE)  # loads its own libraries
    line = OPTIONAL[PACKAGE].pip_line
    if not hasattr(runtime, "register_execution_provider_library"):
        raise BackendError(f"ONNX Runtime {runtime.__version__} cannot load provider plug-ins: {line}")
    try:
        for library in sorted(Path(package.get_library_path()).parent.glob("libcudart.so.*")):
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)  # the provider needs it, and would look elsewhere
        with _REGISTERING:
            if not _list_devices(runtime):
                runtime.register_execution_provider_library(PROVIDER, package.get_library_path())
            found = _list_devices(runtime)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise BackendError(f"ONNX Runtime cannot load {PROVIDER}: {first_line(error)}: {line}") from error
    if not found:
        raise BackendError(f"{PROVIDER} finds no GPU that it runs on: see `atrous doctor`")
    return runtime, found[0]


def _list_devices(runtime: Any) -> list[Any]:
    return [device for device in runtime.get_ep_devices() if device.ep_name == PROVIDER]


def _open_session(runtime: Any, provider: Any, model: bytes, options: Mapping[str, str], where: str) -> Any:
    settings = make_settings(runtime, {"session.disable_cpu_ep_fallback": "1"})
    try:
        settings.add_provider_for_devices([provider], dict(options))
        session = runtime.InferenceSession(model, settings)
    except Exception as error:  # its exceptions share no base class
        raise BackendError(f"{where}: {PROVIDER} refuses the network: {first_line(error)}") from error
    started = session.get_providers()
    if PROVIDER not in started:
        raise BackendError(f"{where}: asked for {PROVIDER}, ONNX Runtime started {', '.join(started)}")
    return session


def _write_profile(profile: RecordedProfile) -> str:
    parts = ("min", "opt", "max")
    ranges = {name: ShapeRange(*(tuple(shapes[part]) for part in parts)) for name, shapes in profile.items()}
    return ", ".join(f"{name} {shapes.describe()}" for name, shapes in ranges.items())


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        problem = f"{folder}: the runtime cache cannot be created ({error.strerror})"
        raise BackendError(f"{problem}: set the option runtime_cache to false") from error
    return folder
