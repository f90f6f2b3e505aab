"""Reasons why ONNX Runtime's CUDA and TensorRT providers do not start, which the library only logs.

They are libraries of the package onnxruntime-gpu. They need NVIDIA's driver, and CUDA, cuDNN and TensorRT of the
versions that they were built with. The packages onnxruntime and onnxruntime-gpu have the same files: if both are
installed, the one installed last has overwritten the other.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...dependencies import OPTIONAL, read_version
from ..devices import list_cuda_devices

_LIBRARIES = {
    "CUDAExecutionProvider": "libonnxruntime_providers_cuda.so",
    "TensorrtExecutionProvider": "libonnxruntime_providers_tensorrt.so",
}
_SHARED = "libonnxruntime_providers_shared.so"
_INSTALL = 'pip install "atrous[gpu]"'
_MISSING = re.compile(r"(lib[\w.+-]+\.so[\w.]*): cannot open")


def list_packages() -> list[str]:
    """Return the installed packages of ONNX Runtime; more than one is a conflict."""
    return [name for name in OPTIONAL["onnxruntime"].distributions if read_version(name) is not None]


def suggest_reinstall() -> str:
    """Return the command that leaves onnxruntime-gpu as the only package of ONNX Runtime."""
    installed = list_packages()
    return f"pip uninstall -y {' '.join(installed)} && {_INSTALL}" if installed else _INSTALL


def describe_conflict() -> str:
    """Return a sentence about several installed packages of ONNX Runtime, "" if there are not."""
    installed = list_packages()
    return f"{' and '.join(installed)} are both installed and overwrite each other" if len(installed) > 1 else ""


def explain_absence(provider: str, available: Sequence[str]) -> str:
    """Return why the imported ONNX Runtime lacks a provider, and what to do."""
    reason = describe_conflict()
    more = f"; {reason}" if reason else ""
    return f"this ONNX Runtime has no {provider} (it has {', '.join(available)}{more}): {suggest_reinstall()}"


def load_libraries(runtime: Any) -> None:
    """Load CUDA and cuDNN, and TensorRT if it is installed, from pip's packages, which no loader searches."""
    preload = getattr(runtime, "preload_dlls", None)  # since 1.21
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            preload()
    with contextlib.suppress(Exception):  # without it, the provider reports what it lacks
        importlib.import_module("tensorrt_libs")


def find_obstacle(runtime: Any, provider: str) -> str:
    """Return why a provider of the imported ONNX Runtime cannot start, and what to do; "" if nothing is found."""
    name = _LIBRARIES.get(provider)
    folder = Path(str(getattr(runtime, "__file__", ""))).parent / "capi"
    if name is None or not (folder / name).exists():
        return ""
    load_libraries(runtime)
    try:
        ctypes.CDLL(str(folder / _SHARED), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / name))
    except OSError as error:
        found = _MISSING.search(str(error))
        return f"{error}: {_suggest(found[1] if found else '')}"
    return "" if list_cuda_devices() else "NVIDIA's driver reports no GPU: run on a machine with one"


def _suggest(library: str) -> str:
    """The package that brings a library that a provider lacks."""
    if library.startswith("libcuda.so"):
        return "install NVIDIA's driver"
    tensorrt = re.fullmatch(r"libnv\w+\.so\.(\d+)", library)
    if tensorrt and library.startswith(("libnvinfer", "libnvonnxparser")):
        return f'pip install "tensorrt=={tensorrt[1]}.*"'
    return 'pip install "onnxruntime-gpu[cuda,cudnn]"'
