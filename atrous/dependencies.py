"""Optional libraries: imported late, in one place, with the pip line for who lacks one."""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import dataclass
from types import ModuleType

from .errors import BackendError, MissingDependencyError


@dataclass(frozen=True)
class Dependency:
    """A library outside the core."""

    module: str  # the name it is imported by
    distributions: tuple[str, ...]  # the names it is installed under, the usual one first
    extra: str  # the extra of atrous that installs it
    brings: str  # what it makes possible, as the end of "needed to ..."

    @property
    def pip_line(self) -> str:
        """The command that installs it."""
        return f'pip install "atrous[{self.extra}]"'


OPTIONAL = {
    dependency.module: dependency
    for dependency in (
        Dependency("onnxruntime", ("onnxruntime", "onnxruntime-gpu"), "cpu", "run bundles (the default backend)"),
        Dependency("torch", ("torch",), "torch", "convert nets, and run bundles by the torch backend"),
        Dependency("safetensors", ("safetensors",), "torch", "read the torch backend's weights"),
        Dependency("google.protobuf", ("protobuf",), "convert", "read prototxt and caffemodel files"),
        Dependency("onnx", ("onnx",), "convert", "write ONNX"),
        Dependency("httpx", ("httpx",), "http", "download models and images"),
        Dependency("onnx_ir", ("onnx-ir",), "convert", "change the precision of a graph"),
        Dependency("openvino", ("openvino",), "openvino", "run bundles by the openvino backend"),
        Dependency("mlperf_loadgen", ("mlcommons-loadgen",), "bench", "run MLPerf's load scenarios"),
        Dependency("jinja2", ("jinja2",), "bench", "write the benchmark's report"),
        Dependency("matplotlib", ("matplotlib",), "bench", "draw plots"),
        Dependency("psutil", ("psutil",), "bench", "watch the machine while it is measured"),
        Dependency("pynvml", ("nvidia-ml-py",), "bench", "watch a GPU's clocks while it is measured"),
        Dependency("tensorrt", ("tensorrt",), "gpu", "build and run TensorRT engines"),
        Dependency(
            "onnxruntime_ep_nv_tensorrt_rtx",
            ("onnxruntime-ep-nv-tensorrt-rtx-cu13",),
            "rtx",
            "build engines of TensorRT for RTX, and run them by the onnxruntime-rtx backend",
        ),
        Dependency("starlette", ("starlette",), "serve", "serve bundles over HTTP"),
        Dependency("uvicorn", ("uvicorn",), "serve", "serve bundles over HTTP"),
        Dependency("prometheus_client", ("prometheus-client",), "serve", "count the requests of a server"),
        Dependency("python_multipart", ("python-multipart",), "serve", "read forms with an image"),
        Dependency("grpc", ("grpcio",), "serve", "serve bundles over gRPC"),
        Dependency("huggingface_hub", ("huggingface-hub",), "hub", "exchange bundles with the Hugging Face Hub"),
        Dependency("tritonclient.grpc", ("tritonclient",), "triton", "check a model repository of Triton"),
        Dependency("av", ("av",), "video", "read and write videos"),
        Dependency("pydensecrf.densecrf", ("pydensecrf2", "pydensecrf"), "pydensecrf", "run the CRF of pydensecrf"),
        Dependency("fsspec", ("fsspec",), "storage", "read and write object stores"),
        Dependency("upath", ("universal-pathlib",), "storage", "read and write object stores"),
        Dependency("ray", ("ray",), "ray", "label on a Ray cluster"),
        Dependency("pyarrow", ("ray[data]",), "ray", "label on a Ray cluster"),
        Dependency("cuda.bindings", ("cuda-bindings",), "gpu", "use a GPU's memory, for TensorRT and the dense CRF"),
    )
}


def import_optional(module: str) -> ModuleType:
    """Import a library of `OPTIONAL`, or a module in one.

    Raises MissingDependencyError with the pip line if it is not installed, BackendError if it does not load.
    """
    dependency = OPTIONAL.get(module) or OPTIONAL[module.partition(".")[0]]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise BackendError(f"{module} is installed, but lacks {error.name}: {dependency.pip_line}") from error
        raise MissingDependencyError(
            f"{module} is not installed; it is needed to {dependency.brings}. Install it: {dependency.pip_line}"
        ) from error
    except Exception as error:  # a native library may fail to load in any way
        raise BackendError(f"{module} is installed, but cannot be loaded: {error}") from error


def import_crf() -> ModuleType:
    """Import `atrous.runtime.crf`; raises MissingDependencyError if its compiled extension is not installed."""
    try:
        return importlib.import_module(".runtime.crf", __package__)
    except ImportError as error:
        raise MissingDependencyError(
            f"the dense CRF cannot be loaded ({error}). Install atrous from a wheel; in the source tree: pip install ."
        ) from error


def read_version(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
