"""Backends: one protocol, one file each, chosen by name, imported at the first use.

| name          | runs                        | needs                                      |
|---------------|-----------------------------|--------------------------------------------|
| `onnxruntime` | the bundle's deploy.onnx    | `pip install "atrous[cpu]"` (or `gpu`)     |
| `tensorrt`    | an engine of `atrous build` | an NVIDIA GPU, `pip install "atrous[gpu]"` |
| `onnxruntime-rtx` | an engine of `atrous build --rtx` | an RTX GPU, `pip install "atrous[rtx]"` |
| `openvino`    | the bundle's deploy.onnx    | `pip install "atrous[openvino]"`           |
| `torch`       | the bundle's model.py       | `pip install "atrous[torch]"`, and trust in the bundle |
| `fake`        | a formula, for tests        | nothing                                    |
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ...errors import BackendError
from .protocol import Array, Backend, TensorSpec, check_feeds

if TYPE_CHECKING:
    from ...bundle.folder import Bundle

__all__ = ["BACKENDS", "Array", "Backend", "TensorSpec", "check_feeds", "open_backend"]

_log = logging.getLogger(__name__)

BACKENDS = ("onnxruntime", "tensorrt", "onnxruntime-rtx", "openvino", "torch", "fake")


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
        device: "cpu" or "cuda"; None for the backend's default: "cuda" for tensorrt and onnxruntime-rtx, else "cpu".
        threads: CPU threads of one run; None for the backend's default.
        precision: "fp32", or one of the bundle's variants; never replaced by another. torch makes its own "fp16" and
            "bf16" from the float32 weights.
        options: the backend's own options by name, such as {"mode": "channels_last"}: the fields of
            `OnnxRuntimeOptions`, `TensorRtOptions`, `OnnxRuntimeRtxOptions`, `OpenVinoOptions`, `TorchOptions` or
            `FakeOptions`.

    Raises:
        BackendError: if the name, the device or, for this backend, the precision is unknown, or the backend refuses
            the model.
        InputError: if an option is unknown or has another type.
        MissingDependencyError: if its library is not installed.
        BundleError: if a file it needs is missing or altered.
        EngineError: if no engine for tensorrt or onnxruntime-rtx fits this machine, or the engine is not trusted.
    """
    limit = "one thread per core" if threads is None else f"{threads} threads"
    _log.info("opening %s of %s by %s, device %s, %s", precision, bundle.path, name, device or "default", limit)
    from .options import read_options  # not above: it needs pydantic, which a machine that only runs engines may lack

    if name == "tensorrt":
        from .tensorrt.backend import TensorRtOptions, open_tensorrt

        engine_options = read_options(TensorRtOptions, options, backend=name)
        return open_tensorrt(bundle, device=device, precision=precision, options=engine_options)
    if name == "onnxruntime-rtx":
        from .onnxruntime_rtx import OnnxRuntimeRtxOptions, open_onnxruntime_rtx

        rtx_options = read_options(OnnxRuntimeRtxOptions, options, backend=name)
        return open_onnxruntime_rtx(bundle, device=device, precision=precision, options=rtx_options)
    common: dict[str, Any] = {"device": device or "cpu", "threads": threads}
    if name in ("onnxruntime", "openvino"):
        file = bundle.deploy_file(precision)
        common |= {"model": bundle.read_file(file), "path": bundle.path / file}
    if name == "onnxruntime":
        from .onnxruntime import OnnxRuntimeBackend, OnnxRuntimeOptions

        given = {"graph_level": find_safe_level(bundle, precision), **(options or {})}
        return OnnxRuntimeBackend(**common, options=read_options(OnnxRuntimeOptions, given, backend=name))
    if name == "openvino":
        from .openvino import OpenVinoBackend, OpenVinoOptions

        return OpenVinoBackend(**common, options=read_options(OpenVinoOptions, options, backend=name))
    if name == "torch":
        from .torch import TorchBackend, TorchOptions

        torch_options = read_options(TorchOptions, options, backend=name)
        return TorchBackend(bundle, **common, precision=precision, options=torch_options)
    if name != "fake":
        raise BackendError(f'there is no backend "{name}"; there are {", ".join(BACKENDS)}')
    from .fake import FakeBackend, FakeOptions

    fake_options = read_options(FakeOptions, options, backend=name)
    if precision != "fp32":
        raise BackendError(f"the fake backend runs fp32 only, not {precision}: use the onnxruntime backend")
    if common["device"] != "cpu":
        raise BackendError(f'the fake backend runs on cpu, not "{device}"')
    return FakeBackend(len(bundle.manifest.classes), input_name=bundle.deploy.input, **asdict(fake_options))


def find_safe_level(bundle: Bundle, precision: str) -> str:
    """ONNX Runtime's graph optimization level for a variant: some variants break if optimized; the manifest says so."""
    for variant in bundle.manifest.variants.values():
        run = variant.verification.get("onnxruntime_cpu")
        if variant.precision == precision and isinstance(run, dict) and run.get("graph_level") == "disabled":
            return "disabled"
    return "all"
