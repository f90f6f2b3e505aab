"""NVRTC compiles the kernels for every generation since Ampere, without a GPU; compiled kernels are kept."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from atrous.errors import BackendError, MissingDependencyError
from atrous.runtime.crf.gpu import compiler
from atrous.runtime.crf.gpu.source import read_signatures

ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATROUS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvrtc_compiles(architecture: str) -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="make cuda-check installs NVRTC")
    cubin = compiler.load_cubin(architecture)
    assert cubin.startswith(b"\x7fELF")
    for name in read_signatures():
        assert f".text.{name}\0".encode() in cubin


class FakeNvrtc(types.ModuleType):
    """Compiles to the architecture's name, or fails at one call."""

    def __init__(self, failing: str = "", version: tuple[int, int] = (13, 5)) -> None:
        super().__init__("cuda.bindings.nvrtc")
        self.failing, self.version, self.compiled = failing, version, 0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> tuple[Any, ...]:
            if name == "nvrtcCompileProgram":
                self.compiled += 1
            if name.endswith("Log") or name == "nvrtcGetCUBIN":
                return (0,)
            results = {
                "nvrtcVersion": self.version,
                "nvrtcGetSupportedArchs": ([80, 90],),
                "nvrtcCreateProgram": (7,),
                "nvrtcGetProgramLogSize": (5,),
                "nvrtcGetCUBINSize": (4,),
            }
            return (6 if name == self.failing else 0, *results.get(name, ()))

        return call


def install(monkeypatch: pytest.MonkeyPatch, nvrtc: Any) -> None:
    bindings = types.ModuleType("cuda.bindings")
    bindings.nvrtc = nvrtc  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda", types.ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", nvrtc)


def test_kernels_are_kept_by_architecture_and_compiler(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    nvrtc = FakeNvrtc()
    install(monkeypatch, nvrtc)
    for _ in range(2):
        assert compiler.load_cubin("sm_80") == b"    "
    assert nvrtc.compiled == 1
    compiler.load_cubin("sm_90")
    nvrtc.version = (13, 6)
    compiler.load_cubin("sm_90")
    assert nvrtc.compiled == 3
    assert len([path for path in cache.rglob("*") if path.is_file()]) == 3


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, FakeNvrtc())
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("ATROUS_CACHE", str(blocked))
    assert compiler.load_cubin("sm_80") == b"    "


def test_unknown_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvrtc())
    with pytest.raises(BackendError, match=r"NVRTC 13\.5 does not compile for sm_75.*nvidia-cuda-nvrtc"):
        compiler.load_cubin("sm_75")


def test_a_failed_compilation_shows_the_log(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    install(monkeypatch, FakeNvrtc("nvrtcCompileProgram"))
    with pytest.raises(BackendError, match="nvrtcCompileProgram failed"):
        compiler.load_cubin("sm_80")
    assert not cache.exists()


def test_without_cuda_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "atrous\[gpu\]"') as caught:
        compiler.load_cubin("sm_80")
    assert caught.value.exit_code == 3


def test_without_nvrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    nvrtc = types.ModuleType("cuda.bindings.nvrtc")

    def fail() -> None:
        raise RuntimeError("libnvrtc.so.13 was not found")

    nvrtc.nvrtcVersion = fail  # type: ignore[attr-defined]
    install(monkeypatch, nvrtc)
    with pytest.raises(MissingDependencyError, match=r'libnvrtc.so.13 was not found.*pip install "atrous\[gpu\]"'):
        compiler.load_cubin("sm_80")
