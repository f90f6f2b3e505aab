"""Backends: one small protocol, one file each, chosen by name; none is imported before it is asked for.

| name          | runs                     | needs                  |
|---------------|--------------------------|------------------------|
| `onnxruntime` | the bundle's deploy.onnx | `pip install "atrous[cpu]"` (or `gpu`) |
| `tensorrt`    | an engine of `atrous build` | an NVIDIA GPU, `pip install "atrous[gpu]"` |
| `openvino`    | the bundle's deploy.onnx | `pip install "atrous[openvino]"` |
| `torch`       | the bundle's model.py    | `pip install "atrous[torch]"`, and trust in the bundle |
| `fake`        | a formula                | nothing; for tests     |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ...errors import BackendError
from .options import read_options
from .protocol import Array, Backend, TensorSpec, check_feeds
from .streaming import run_many

if TYPE_CHECKING:
    from ...bundle.folder import Bundle

__all__ = ["BACKENDS", "Array", "Backend", "TensorSpec", "check_feeds", "open_backend", "run_many"]


@dataclass(frozen=True)
class _Request:
    """What `open_backend` was asked for."""

    bundle: Bundle
    device: str | None
    threads: int | None
    precision: str
    options: Mapping[str, object] | None


def open_backend(
    name: str,
    bundle: Bundle,
    *,
    device: str | None = None,
    threads: int | None = None,
    precision: str = "fp32",
    options: Mapping[str, object] | None = None,
) -> Backend:
    """Load a bundle's network.

    Args:
        name: one of `BACKENDS`.
        bundle: an opened bundle; the digests of the files used are checked here.
        device: "cpu" or "cuda"; None for the backend's usual one: "cuda" for tensorrt, "cpu" for the others.
        threads: threads of one run on the CPU; None leaves it to the backend.
        precision: "fp32", or one of the bundle's variants; what was asked for runs, or an error says why not. torch
            makes its own "fp16" and "bf16" of the float32 weights.
        options: the backend's own options by name, such as {"mode": "channels_last"}: the fields of
            `OnnxRuntimeOptions`, `TensorRtOptions`, `OpenVinoOptions`, `TorchOptions` and `FakeOptions`.

    Raises:
        BackendError: if the name, the device or, for this backend, the precision is unknown, or the backend refuses
            the model.
        InputError: if an option is unknown or has another type.
        MissingDependencyError: if its library is not installed.
        BundleError: if a file it needs is missing or altered.
        EngineError: if no engine for tensorrt was built here, or the one there must not run.
    """
    if name not in _OPENERS:
        raise BackendError(f'there is no backend "{name}"; there are {", ".join(BACKENDS)}')
    return _OPENERS[name](_Request(bundle, device, threads, precision, options))


def _open_onnxruntime(request: _Request) -> Backend:
    from .onnxruntime import OnnxRuntimeBackend, OnnxRuntimeOptions

    given = {"graph_level": _faithful_level(request), **(request.options or {})}
    options = read_options(OnnxRuntimeOptions, given, backend="onnxruntime")
    return _open_deploy(OnnxRuntimeBackend, request, options)


def _faithful_level(request: _Request) -> str:
    """How far ONNX Runtime may rewrite a graph: its optimizations break some variants, and their manifest says so."""
    for variant in request.bundle.manifest.variants.values():
        run = variant.verification.get("onnxruntime_cpu")
        if variant.precision == request.precision and isinstance(run, dict) and run.get("graph_level") == "disabled":
            return "disabled"
    return "all"


def _open_tensorrt(request: _Request) -> Backend:
    from .tensorrt.backend import TensorRtOptions, open_tensorrt

    options = read_options(TensorRtOptions, request.options, backend="tensorrt")
    return open_tensorrt(request.bundle, device=request.device, precision=request.precision, options=options)


def _open_openvino(request: _Request) -> Backend:
    from .openvino import OpenVinoBackend, OpenVinoOptions

    options = read_options(OpenVinoOptions, request.options, backend="openvino")
    return _open_deploy(OpenVinoBackend, request, options)


def _open_deploy(backend: Callable[..., Backend], request: _Request, options: object) -> Backend:
    """A backend that takes the variant's ONNX file itself."""
    bundle, file = request.bundle, request.bundle.deploy_file(request.precision)
    return backend(
        bundle.read_file(file),
        device=request.device or "cpu",
        threads=request.threads,
        path=bundle.path / file,
        options=options,
    )


def _open_torch(request: _Request) -> Backend:
    from .torch import TorchBackend, TorchOptions

    return TorchBackend(
        request.bundle,
        device=request.device or "cpu",
        threads=request.threads,
        precision=request.precision,
        options=read_options(TorchOptions, request.options, backend="torch"),
    )


def _open_fake(request: _Request) -> Backend:
    from .fake import FakeBackend, FakeOptions

    options = read_options(FakeOptions, request.options, backend="fake")
    if request.precision != "fp32":
        raise BackendError(f"the fake backend runs fp32 only, not {request.precision}: use the onnxruntime backend")
    if request.device not in (None, "cpu"):
        raise BackendError(f'the fake backend knows the device cpu, not "{request.device}"')
    bundle = request.bundle
    return FakeBackend(len(bundle.manifest.classes), input_name=bundle.deploy.input, **asdict(options))


_OPENERS: dict[str, Callable[[_Request], Backend]] = {
    "onnxruntime": _open_onnxruntime,
    "tensorrt": _open_tensorrt,
    "openvino": _open_openvino,
    "torch": _open_torch,
    "fake": _open_fake,
}
BACKENDS = tuple(_OPENERS)
