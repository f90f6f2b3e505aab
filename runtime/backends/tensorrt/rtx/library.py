"""Finds TensorRT for RTX: NVIDIA's own Python module, else the libraries in the pinned wheel."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .....dependencies import OPTIONAL, read_version
from .....errors import BackendError, MissingDependencyError
from .binding import Binding

#: module of NVIDIA's SDK, which is not on PyPI
SDK_MODULE = "tensorrt_rtx"
PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx"
DISTRIBUTION = "onnxruntime-ep-nv-tensorrt-rtx-cu13"
#: the version of the distribution whose tables `binding` knows, and of the library in it
PINNED, PINNED_LIBRARY = "0.5.0", "1.7.1.116"
_FILES = ("libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so")
_PIP_LINE = f"{OPTIONAL[PACKAGE].pip_line} (Linux x86-64)"


@dataclass(frozen=True)
class RtxLibrary:
    """A library that was found: its version, and the folder of its files; None for NVIDIA's module."""

    version: str
    folder: Path | None


def find_library() -> RtxLibrary:
    """Find the SDK's module, else the wheel, without loading the wheel's libraries.

    Raises:
        MissingDependencyError: if neither is installed.
        BackendError: if the version is another one, or a file is missing.
    """
    if importlib.util.find_spec(SDK_MODULE) is not None:
        return RtxLibrary(str(_import_sdk().__version__), None)
    spec = importlib.util.find_spec(PACKAGE)  # runs none of its code
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            f"neither NVIDIA's SDK of TensorRT for RTX ({SDK_MODULE}) nor {DISTRIBUTION} is installed; one is needed "
            f"to build with --rtx. Install it: {_PIP_LINE}"
        )
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise BackendError(f"builds through {DISTRIBUTION} work on Linux x86-64 only: use NVIDIA's SDK ({SDK_MODULE})")
    version = read_version(DISTRIBUTION)
    if version != PINNED:
        found = f"{DISTRIBUTION} {version}" if version else f"{PACKAGE} of another distribution"
        raise BackendError(
            f"{found} is installed; builds know the tables of {DISTRIBUTION} {PINNED} only, and another version would "
            f"crash: {_PIP_LINE}"
        )
    folder = Path(spec.origin).parent
    missing = [path.name for path in _list_files(folder) if not path.is_file()]
    if missing:
        raise BackendError(f"{folder}: lacks {', '.join(missing)}: install {DISTRIBUTION} again: {_PIP_LINE}")
    return RtxLibrary(PINNED_LIBRARY, folder)


def read_provider_library() -> str:
    """Return the version of the library in the installed wheel; BackendError unless it is the pinned wheel."""
    found = read_version(DISTRIBUTION)
    if found != PINNED:
        raise BackendError(
            f"the provider's wheel is {DISTRIBUTION} {found or 'of another name'}, stored engines are for {PINNED}: "
            f'{_PIP_LINE}, or compile the graph with the option source "graph"'
        )
    return PINNED_LIBRARY


def load_library(library: RtxLibrary) -> Any:
    """Return NVIDIA's module, or a `Binding` of the wheel; for a child process only.

    Raises BackendError if the libraries do not load, or report another version than expected.
    """
    if library.folder is None:
        return _import_sdk()
    try:
        runtime, parser = (ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL) for path in _list_files(library.folder))
        parts = ("Major", "Minor", "Patch", "Build")
        version = ".".join(str(getattr(runtime, f"getInferLib{part}Version")()) for part in parts)
    except (OSError, AttributeError) as error:
        raise BackendError(f"the libraries in {library.folder} cannot be loaded: {error}") from error
    if version != library.version:
        raise BackendError(
            f"{library.folder} holds TensorRT for RTX {version}; builds know the tables of {library.version} only: "
            f"{_PIP_LINE}"
        )
    return Binding(runtime, parser, version)


def _list_files(folder: Path) -> list[Path]:
    release = PINNED_LIBRARY.rpartition(".")[0]
    return [folder / f"{name}.{release}" for name in _FILES]


def _import_sdk() -> Any:
    try:
        module = importlib.import_module(SDK_MODULE)
    except Exception as error:  # a native library may fail to load in any way
        raise BackendError(f"{SDK_MODULE} is installed, but cannot be loaded: {error}") from error
    version = str(getattr(module, "__version__", ""))
    if not version.startswith("1.") or not hasattr(module, "ComputeCapability"):
        raise BackendError(f"{SDK_MODULE} {version or 'without a version'} cannot build for targets: install 1.x")
    return module
