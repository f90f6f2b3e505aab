"""`atrous build --rtx`: refusals, dry runs and the store on a stub of NVIDIA's SDK; a real build where the wheel is."""

from __future__ import annotations

from pathlib import Path

import pytest

from atrous.errors import BackendError, EnginePrecisionError, InputError, MissingDependencyError
from atrous.runtime.backends.tensorrt.rtx import library

from ..runtime.backends.tensorrt.onnx_models import find_facts
from ..runtime.backends.tensorrt.rtx.conftest import sdk, wheel
from ..runtime.bundles import make_model, write_bundle
from .building import run, run_json

__all__ = ["sdk", "wheel"]  # fixtures
TARGETS = ("--rtx", "--target", "sm86,sm89,sm120")


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return write_bundle(tmp_path / "four-colors")


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: None)


def test_dry_run_without_a_library(bundle: Path, no_library: None) -> None:
    done = run(bundle, *TARGETS, "--shape", "33", "--dry-run")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "# TensorRT for RTX 1.7.1.116"
    assert "config.set_compute_capability(trt.ComputeCapability.SM120, 2)" in lines
    assert lines[-1].startswith("# fp16 is the precision for RTX")
    result = run_json(bundle, *TARGETS, "--shape", "33", "--dry-run")
    assert result["settings"]["targets"] == ["sm86", "sm89", "sm120"]
    assert (result["plan"]["line"], len(result["advice"])) == ("rtx", 1)


def test_without_a_library(bundle: Path, no_library: None) -> None:
    with pytest.raises(MissingDependencyError, match=r'pip install "atrous\[rtx\]"'):
        run(bundle, *TARGETS, "--shape", "33")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--target", "sm86"), "--target needs --rtx"),
        (("--rtx",), "--rtx needs --target, some of sm75,"),
        ((*TARGETS, "--repeats", "2"), "--repeats does not apply to --rtx"),
        ((*TARGETS, "--timing-cache", "t"), "--timing-cache does not apply to --rtx"),
        ((*TARGETS, "--tensorrt", "10", "--dry-run"), "omit one of them"),
    ],
)
def test_usage(bundle: Path, arguments: tuple[str, ...], part: str) -> None:
    done = run(bundle, "--shape", "33", *arguments)
    assert done.exit_code == 2
    assert part in " ".join(done.stderr.split())


def test_refusals(bundle: Path, sdk: None) -> None:
    with pytest.raises(InputError, match='does not build for "sm90"'):
        run(bundle, "--rtx", "--target", "sm90", "--shape", "33")
    with pytest.raises(BackendError, match="has no refit without a GPU"):
        run(bundle, *TARGETS, "--shape", "33", "--refit")


def test_build_and_store(bundle: Path, sdk: None) -> None:
    built = run_json(bundle, *TARGETS, "--shape", "33")
    assert built["built"]
    assert built["engine"]["gpu"] == "sm86, sm89, sm120"
    assert built["engine"]["targets"] == ["sm86", "sm89", "sm120"]
    assert built["engine"]["tensorrt"] == "rtx 1.7.1.116"
    assert built["audit"]["products"] == {"fp32": 1}
    assert built["warnings"] == ["warning: some warning (2 times)"]
    again = run(bundle, *TARGETS, "--shape", "33")
    assert "already built" in again.stdout
    other = run(bundle, "--rtx", "--target", "sm86", "--shape", "33")
    assert "advice: fp16 is the precision for RTX" in other.stdout
    assert ": fp32 for sm86, 0.0 MB, " in other.stdout
    assert [row["gpu"] for row in run_json(bundle, "--list")["engines"]] == ["sm86, sm89, sm120", "sm86"]


def test_garbage(bundle: Path, sdk: None, monkeypatch: pytest.MonkeyPatch) -> None:
    run_json(bundle, *TARGETS, "--shape", "33")
    assert run_json(bundle, "--gc", "--rtx", "--outdated")["garbage"] == []
    monkeypatch.setattr(library, "find_library", lambda: library.RtxLibrary("1.8.0.1", None))
    assert run_json(bundle, "--gc")["garbage"] == []
    (row,) = run_json(bundle, "--gc", "--rtx", "--outdated")["garbage"]
    assert row["reason"] == 'tensorrt.version is "rtx 1.7.1.116" there and "rtx 1.8.0.1" here'
    assert run_json(bundle, "--list")["engines"] == []


def test_a_wide_engine_is_not_stored(bundle: Path, sdk: None, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = find_facts(make_model())
    narrow = facts.model_copy(update={"node_precisions": dict.fromkeys(facts.node_precisions, "fp16")})
    monkeypatch.setattr("atrous.bundle.folder.Bundle.graph_facts", lambda self, precision: narrow)
    monkeypatch.setattr("atrous.bundle.folder.Bundle.deploy_file", lambda self, precision: "deploy.onnx")
    with pytest.raises(EnginePrecisionError, match="only 0% of the graph's fp16 products reach it"):
        run(bundle, *TARGETS, "--shape", "33", "--precision", "fp16")
    assert run_json(bundle, "--list")["engines"] == []


def test_a_real_build(bundle: Path, wheel: library.RtxLibrary) -> None:
    result = run_json(bundle, *TARGETS, "--min", "17", "--opt", "33", "--max", "65", "--batch", "1:2")
    assert result["audit"]["products"] == {"fp32": 1}
    assert result["engine"]["plan_bytes"] > 100_000
