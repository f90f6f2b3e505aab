"""The reason why a provider does not start, on libraries made here that need what this machine lacks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atrous.errors import BackendError
from atrous.runtime.backends import onnxruntime as module
from atrous.runtime.backends import onnxruntime_providers as providers
from atrous.runtime.backends.onnxruntime import OnnxRuntimeBackend
from atrous.runtime.devices import CudaDevice

from ..bundles import make_model
from .test_onnxruntime import make_runtime

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


def make_package(folder: Path, needed: str = "") -> Any:
    """An ONNX Runtime whose providers need a library that is not there."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    capi = folder / "capi"
    capi.mkdir()
    more = []
    if needed:
        empty = capi / needed
        subprocess.run([compiler, "-shared", "-o", empty, "-x", "c", "/dev/null", f"-Wl,-soname,{needed}"], check=True)
        more = ["-Wl,--no-as-needed", "-x", "none", str(empty)]
    for name in ("shared", "cuda", "tensorrt"):
        library = capi / f"libonnxruntime_providers_{name}.so"
        added = more if name != "shared" else []
        subprocess.run([compiler, "-shared", "-o", library, "-x", "c", "/dev/null", *added], check=True)
    if needed:
        empty.unlink()
    return SimpleNamespace(__file__=str(folder / "__init__.py"))


@pytest.mark.parametrize(
    ("provider", "needed", "remedy"),
    [
        (CUDA, "libcublasLt.so.99", 'pip install "onnxruntime-gpu[cuda,cudnn]"'),
        (TENSORRT, "libnvinfer.so.99", 'pip install "tensorrt==99.*"'),
        (CUDA, "libcuda.so.99", "install NVIDIA's driver"),
    ],
)
def test_a_missing_library(tmp_path: Path, provider: str, needed: str, remedy: str) -> None:
    found = providers.find_obstacle(make_package(tmp_path, needed), provider)
    assert found.startswith(f"{needed}: cannot open shared object file")
    assert found.endswith(f": {remedy}")


def test_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = make_package(tmp_path)
    monkeypatch.setattr(providers, "list_cuda_devices", lambda: ())
    assert "NVIDIA's driver reports no GPU" in providers.find_obstacle(runtime, CUDA)
    monkeypatch.setattr(providers, "list_cuda_devices", lambda: (CudaDevice("A GPU", "9.0", 1),))
    assert providers.find_obstacle(runtime, CUDA) == ""


def test_a_package_without_the_provider(tmp_path: Path) -> None:
    assert providers.find_obstacle(SimpleNamespace(__file__=str(tmp_path / "__init__.py")), CUDA) == ""


def test_the_error_of_a_session_has_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = make_runtime([CUDA, "CPUExecutionProvider"], ["CPUExecutionProvider"])
    runtime.__file__ = make_package(tmp_path, "libcudnn.so.99").__file__
    loaded: list[str] = []
    runtime.preload_dlls = lambda: loaded.append("CUDA") or print("not found")
    monkeypatch.setattr(module, "import_optional", lambda _: runtime)
    with pytest.raises(BackendError, match=rf"started CPUEx\w+: {CUDA} cannot start: libcudnn\.so\.99: cannot open"):
        OnnxRuntimeBackend(make_model(), device="cuda")
    assert loaded


def test_what_the_library_prints_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    providers.load_libraries(SimpleNamespace(preload_dlls=lambda: print("Failed to load libcublas.so.13")))
    assert capsys.readouterr().out == ""
