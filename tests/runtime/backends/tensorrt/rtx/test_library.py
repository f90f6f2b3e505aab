"""Finding the library: exact versions only, each problem with its name."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from atrous.errors import BackendError, MissingDependencyError
from atrous.runtime.backends.tensorrt.rtx import library


@pytest.fixture
def fake_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel's package without its libraries, at the pinned version, on Linux."""
    folder = tmp_path / library.PACKAGE
    folder.mkdir()
    (folder / "__init__.py").write_text("raise SystemExit('this code must not run')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, library.SDK_MODULE, None)
    monkeypatch.delitem(sys.modules, library.PACKAGE, raising=False)
    only_wheel = {library.PACKAGE: library.importlib.util.find_spec(library.PACKAGE), library.SDK_MODULE: None}
    monkeypatch.setattr(library.importlib.util, "find_spec", only_wheel.get)
    monkeypatch.setattr(library, "read_version", lambda name: library.PINNED)
    monkeypatch.setattr(library.platform, "system", lambda: "Linux")
    monkeypatch.setattr(library.platform, "machine", lambda: "x86_64")
    return folder


def add_libraries(folder: Path) -> None:
    for name in ("libtensorrt_rtx.so.1.7.1", "libtensorrt_onnxparser_rtx.so.1.7.1"):
        (folder / name).write_bytes(b"no library")


def test_found(fake_wheel: Path) -> None:
    add_libraries(fake_wheel)
    assert library.find_library() == library.RtxLibrary("1.7.1.116", fake_wheel)
    assert library.read_provider_library() == "1.7.1.116"


def test_files_missing(fake_wheel: Path) -> None:
    with pytest.raises(BackendError, match=r"lacks libtensorrt_rtx\.so\.1\.7\.1, libtensorrt_onnxparser.*install"):
        library.find_library()


@pytest.mark.parametrize(("version", "part"), [("0.6.0", "cu13 0.6.0 is installed"), (None, "another distribution")])
def test_another_version(fake_wheel: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, part: str) -> None:
    add_libraries(fake_wheel)
    monkeypatch.setattr(library, "read_version", lambda name: version)
    with pytest.raises(BackendError, match=rf'{part}.* 0\.5\.0 only.*pip install "atrous\[rtx\]"'):
        library.find_library()
    with pytest.raises(BackendError, match=r"stored engines are for 0\.5\.0"):
        library.read_provider_library()


def test_another_system(fake_wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.platform, "machine", lambda: "aarch64")
    with pytest.raises(BackendError, match="Linux x86-64 only"):
        library.find_library()


def test_nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'SDK.*nor onnxruntime-ep-nv.*pip install "atrous\[rtx\]"'):
        library.find_library()


def test_the_sdk_is_preferred(sdk: None, fake_wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(library.SDK_MODULE)
    module.__dict__.update(__version__="1.9.0.1", ComputeCapability=None)
    monkeypatch.setitem(sys.modules, library.SDK_MODULE, module)
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: SimpleNamespace(origin=None))
    assert library.find_library() == library.RtxLibrary("1.9.0.1", None)
    assert library.load_library(library.find_library()) is module
    module.__version__ = "11.4.0"
    with pytest.raises(BackendError, match=r"tensorrt_rtx 11\.4\.0 cannot build for targets"):
        library.find_library()


def test_files_that_are_no_libraries(fake_wheel: Path) -> None:
    add_libraries(fake_wheel)
    with pytest.raises(BackendError, match="cannot be loaded"):
        library.load_library(library.find_library())


def test_libraries_of_another_version(fake_wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries' own version counts, not that of the distribution."""
    parts = {"Major": 1, "Minor": 7, "Patch": 1, "Build": 117}
    functions = {f"getInferLib{part}Version": lambda number=number: number for part, number in parts.items()}
    monkeypatch.setattr(library.ctypes, "CDLL", lambda path, mode: SimpleNamespace(**functions))
    add_libraries(fake_wheel)
    with pytest.raises(BackendError, match=r"holds TensorRT for RTX 1\.7\.1\.117; .* 1\.7\.1\.116 only"):
        library.load_library(library.find_library())
