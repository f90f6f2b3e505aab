"""`atrous doctor`: sound where things are sound, 3 where they are not."""

from __future__ import annotations

import json
import sys

import pytest

from atrous.errors import MissingDependencyError
from atrous.runtime import devices, selfcheck
from atrous.runtime.backends import onnxruntime_providers
from atrous.scripts.doctor import Finding, list_abilities
from atrous.scripts.main import main

from .running import run_atrous


@pytest.fixture(autouse=True)
def sound_crf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CRF's own check has its own test; here it passes."""
    monkeypatch.setattr(selfcheck, "check_crf", lambda: "checked")


def examine(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict]:
    code = main(["doctor", "--json"])
    return code, json.loads(capsys.readouterr().out)


def find(report: dict, name: str) -> dict:
    return next(finding for finding in report["findings"] if finding["name"] == name)


def test_sound(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = examine(capsys)
    assert (code, report["sound"]) == (0, True)
    assert find(report, "numpy")["status"] == "ok"
    onnxruntime = find(report, "onnxruntime")
    assert onnxruntime["version"]
    assert "sum done by hand" in onnxruntime["detail"]
    assert "CPUExecutionProvider" in onnxruntime["detail"]
    assert report["processor"]["usable_cores"] >= 1


def test_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "all that is installed works" in out
    assert "OMP_NUM_THREADS=1" in out


def test_missing_extra_is_no_fault(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    code, report = examine(capsys)
    assert code == 0
    tensorrt = find(report, "tensorrt")
    assert tensorrt["status"] == "missing"
    assert tensorrt["remedy"] == 'pip install "atrous[gpu]"'
    assert "engines" in tensorrt["brings"]


@pytest.mark.parametrize("has_cuda", [True, False])
def test_two_packages_of_onnxruntime(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, has_cuda: bool
) -> None:
    """They overwrite each other; it is a fault if the GPU's provider is gone."""
    monkeypatch.setattr(onnxruntime_providers, "read_version", lambda name: "1.31.1")
    monkeypatch.setattr(onnxruntime_providers, "find_obstacle", lambda runtime, provider: "no driver: install one")
    providers = [*(["CUDAExecutionProvider"] if has_cuda else []), "CPUExecutionProvider"]
    library = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    monkeypatch.setattr(library, "get_available_providers", lambda: providers)
    monkeypatch.setattr(selfcheck, "check_onnxruntime", lambda: "checked")
    code, report = examine(capsys)
    found = find(report, "onnxruntime")
    assert (code, found["status"]) == ((0, "ok") if has_cuda else (3, "broken"))
    assert "onnxruntime and onnxruntime-gpu are both installed and overwrite each other" in found["detail"]
    assert found["remedy"] == 'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "atrous[gpu]"'
    assert ("CUDAExecutionProvider cannot start: no driver: install one" in found["detail"]) == has_cuda


def test_missing_core(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> str:
        raise MissingDependencyError("not compiled")

    monkeypatch.setattr(selfcheck, "check_crf", absent)
    code, report = examine(capsys)
    assert (code, report["sound"]) == (3, False)
    assert find(report, "dense CRF")["status"] == "missing"


@pytest.mark.parametrize("check", ["check_crf", "check_onnxruntime"])
def test_wrong_numbers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    def wrong() -> str:
        raise selfcheck.SelfCheckError("gives 1 where 2 is right")

    monkeypatch.setattr(selfcheck, check, wrong)
    assert main(["doctor"]) == 3
    out = capsys.readouterr().out
    assert "gives 1 where 2 is right" in out
    assert "needs repair" in out


def test_gpu_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    device = devices.CudaDevice("Some GPU", "9.0", 80 << 30)
    monkeypatch.setattr(devices, "list_cuda_devices", lambda: (device,))
    main(["doctor"])
    assert "Some GPU: compute capability 9.0, 80 GiB" in capsys.readouterr().out


def test_as_a_user_runs_it() -> None:
    outcome = run_atrous("doctor", "--json")
    assert outcome.code in (0, 3)
    assert outcome.json["sound"] is (outcome.code == 0)
    assert outcome.stderr == ""


def test_abilities_end_the_report(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    _, report = examine(capsys)
    abilities = {ability["command"]: ability for ability in report["commands"]}
    assert abilities["run"] == {"command": "run", "lacks": [], "remedies": []}
    assert abilities["fetch"]["lacks"] == ["httpx"]
    assert abilities["fetch"]["remedies"] == ['pip install "atrous[http]"']
    main(["doctor"])
    out = capsys.readouterr().out
    assert "what you can do here:" in out
    assert 'fetch            no, httpx missing: pip install "atrous[http]"' in out


def test_one_backend_of_several_is_enough() -> None:
    def list_lacking(*names: str) -> dict[str, tuple[str, ...]]:
        findings = [Finding(name, "ok", False) for name in ("dense CRF", *names)]
        findings.append(Finding("protobuf", "missing", False, remedy="a line"))
        return {ability.command: ability.lacks for ability in list_abilities(findings)}

    assert list_lacking("openvino")["segment"] == ()
    assert list_lacking()["segment"] == ("onnxruntime",)
    assert list_lacking()["inspect"] == ("protobuf",)
    assert list_lacking()["demo"] == ()
