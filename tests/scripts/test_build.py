"""`atrous build`: dry runs for every line without TensorRT; builds, the store and rebuilds on a stub module."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from atrous.errors import (
    AtrousError,
    BackendError,
    BundleError,
    EngineError,
    EnginePrecisionError,
    MissingDependencyError,
    OutputError,
)
from atrous.runtime.backends.tensorrt import compat, keys
from atrous.runtime.backends.tensorrt.keys import Machine
from atrous.runtime.backends.tensorrt.signing import Signer
from atrous.runtime.backends.tensorrt.store import EngineStore
from atrous.runtime.tensorrt_choices import PLANNED_LINE
from atrous.scripts import build

from ..runtime.backends.tensorrt import inspector, stubs
from ..runtime.backends.tensorrt.onnx_models import make_graph
from ..runtime.bundles import describe_model, make_model, write_bundle
from .building import run, run_json
from .running import run_atrous

MACHINE = Machine("Some GPU", "9.0", 132, "550.54.15", "Linux x86_64")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "four-colors")


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stub of TensorRT 10 on a machine with a GPU."""
    module = stubs.make_tensorrt("10")
    monkeypatch.setattr(compat, "import_optional", lambda name: module)
    monkeypatch.setattr(keys, "read_machine", lambda index=0: MACHINE)
    return module


# --- without TensorRT ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", build.LINES)
def test_dry_run_for_every_line(bundle: Path, line: str) -> None:
    result = run_json(bundle, "--dry-run", "--tensorrt", line, "--shape", "33x49", "--batch", "2")
    assert result["plan"]["line"] == line
    assert result["profiles"] == [{"image": {name: [2, 33, 49, 3] for name in ("min", "opt", "max")}}]
    assert "plan = builder.build_serialized_network(network, config)" in result["plan"]["calls"]


def test_dry_run_as_a_user_sees_it(bundle: Path) -> None:
    done = run_atrous("build", bundle, "--dry-run", "--shape", "513", "--tensorrt", "8.5")
    assert done.code == 0, done.stderr
    assert "network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))" in done.stdout
    assert "profile_0.set_shape('image', (1, 513, 513, 3), (1, 513, 513, 3), (1, 513, 513, 3))" in done.stdout


def test_without_tensorrt(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise MissingDependencyError(f"{name} is not installed")

    monkeypatch.setattr(compat, "import_optional", missing)
    with pytest.raises(MissingDependencyError) as caught:
        run(bundle, "--shape", "33")
    assert caught.value.exit_code == 3
    assert run_json(bundle, "--dry-run", "--shape", "33")["plan"]["line"] == PLANNED_LINE


def test_without_a_gpu(bundle: Path, trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_here(index: int = 0) -> Machine:
        raise BackendError("no GPU is here")

    monkeypatch.setattr(keys, "read_machine", none_here)
    with pytest.raises(BackendError, match="no GPU is here"):
        run(bundle, "--shape", "33")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "choose the sizes to build for with --shape HxW"),
        (("--shape", "0x5"), "is not a size such as 513x513"),
        (("--shape", "1x2x3"), "is not a size"),
        (("--opt", "33"), "--min, --opt and --max make profiles together; 0, 1 and 0 are given"),
        (("--shape", "33", "--batch", "0"), "is not a batch"),
        (("--shape", "33", "--batch", "1:2:3:4"), "is not a batch"),
        (("--shape", "33", "--workspace", "much"), "is not a number of bytes such as 4G"),
    ],
)
def test_usage(bundle: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run(bundle, "--dry-run", "--tensorrt", "10", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_a_line_without_dry_run(bundle: Path) -> None:
    assert run(bundle, "--tensorrt", "10").exit_code == 2


def test_impossible_ranges_are_one_line(bundle: Path) -> None:
    done = run_atrous("build", bundle, "--dry-run", "--min", "65", "--opt", "33", "--max", "97")
    assert (done.code, len(done.stderr.splitlines())) == (2, 1)
    assert "1 <= min <= opt <= max" in done.stderr


@pytest.mark.parametrize("arguments", [("--dry-run", "--shape", "33"), ("--audit", "manifest.json")])
def test_a_bundle_without_facts(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    folder = write_bundle(tmp_path / "b", graphs={})
    with pytest.raises(BundleError, match=r"no facts about deploy\.onnx in its manifest: convert the net again"):
        run(folder, *arguments)


@pytest.mark.parametrize("inputs", [{}, {"image": {"type": "uint8", "shape": [-1, -1, 3]}}])
def test_facts_that_contradict_the_manifest(tmp_path: Path, inputs: dict[str, Any]) -> None:
    facts = {**describe_model(make_model()), "inputs": inputs}
    folder = write_bundle(tmp_path / "b", graphs={"deploy.onnx": facts})
    with pytest.raises(BundleError, match='no input "image" of 4 dimensions: convert the net again'):
        run(folder, "--dry-run", "--shape", "33")


# --- building --------------------------------------------------------------------------------------------------------


def test_build_then_find_then_force(bundle: Path, trt: Any) -> None:
    first = run_json(bundle, "--shape", "33", "--workspace", "1.5G")
    assert first["built"] is True
    assert first["audit"]["reached"] == 1.0
    assert (Path(first["folder"]) / "engine.json").is_file()
    assert Path(first["folder"]).parent == bundle / "engines"
    again = run_json(bundle, "--shape", "33", "--workspace", "1.5G")
    assert (again["built"], again["folder"]) == (False, first["folder"])
    assert trt.behavior.builds == 1
    assert run_json(bundle, "--shape", "33", "--workspace", "1.5G", "--force")["built"] is True
    assert run_json(bundle, "--shape", "33")["folder"] != first["folder"]
    assert trt.behavior.builds == 3


def test_what_a_person_sees(bundle: Path, trt: Any) -> None:
    result = run(bundle, "--shape", "33")
    assert "products: 1 fp32; 100% as narrow as in the graph" in result.output
    assert "already built" in run(bundle, "--shape", "33").output
    assert "four-colors/engines" in " ".join(run(bundle, "--list").output.split())


def test_timing_cache_file_and_replay(bundle: Path, trt: Any, tmp_path: Path) -> None:
    cache = tmp_path / "kept.timing"
    run_json(bundle, "--shape", "33", "--timing-cache", cache)
    assert cache.read_bytes() == b"timed;"
    run_json(bundle, "--shape", "33", "--timing-cache", cache, "--replay")
    run_json(bundle, "--shape", "33", "--replay")
    with pytest.raises(EngineError, match=r"no engine in .* fits"):
        run(bundle, "--shape", "65", "--replay")


def test_a_timing_cache_that_cannot_be_written_is_noticed_before_the_build(
    bundle: Path, trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atrous.runtime.backends.tensorrt.workflow.make_engine", None)  # must not be reached
    with pytest.raises(OutputError, match=r"deploy\.onnx: is a file; results need a folder"):
        run(bundle, "--shape", "33", "--timing-cache", bundle / "deploy.onnx" / "kept.timing")


def test_the_audit_fails_the_command(bundle: Path, trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __getattr__(self, name: str) -> Any:
            raise EnginePrecisionError("fp16 was asked for")

    monkeypatch.setattr("atrous.runtime.backends.tensorrt.workflow.audit_precision", lambda *_: Failing())
    with pytest.raises(EnginePrecisionError) as caught:
        run(bundle, "--shape", "33")
    assert caught.value.exit_code == 1
    assert run_json(bundle, "--list")["engines"] == []


def test_repeats_measure_the_noise(bundle: Path, trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds run through the backend; here the scores depend on the number of the build."""
    seen: list[tuple[int, ...]] = []

    class Backend:
        def __init__(self, engine: Any, driver: Any, log: Any) -> None:
            self.build = trt.behavior.opened = getattr(trt.behavior, "opened", -1) + 1

        def run(self, feeds: Any) -> dict[str, Any]:
            seen.append(feeds["image"].shape)
            scores = np.zeros((2, 4, 33, 33), np.float32)
            scores[:, 1, 0, : self.build] = 1  # build n labels n pixels of the first row otherwise
            return {"scores": scores}

        def close(self) -> None:
            seen.append(())

    monkeypatch.setattr("atrous.runtime.backends.tensorrt.backend.TensorRtBackend", Backend)
    monkeypatch.setattr("atrous.runtime.backends.tensorrt.driver.CudaDriver", SimpleNamespace)
    result = run_json(bundle, "--shape", "33", "--batch", "2", "--repeats", "3")
    assert trt.behavior.builds == 3
    noise = result["rebuild_noise"]
    assert (noise["builds"], noise["identical_pairs"]) == (3, 0)
    assert noise["worst_disagreement"] == pytest.approx(2 / 33**2)
    assert noise["mean_disagreement"] == pytest.approx((1 + 2 + 1) / 3 / 33**2)
    assert seen.count((2, 33, 33, 3)) == 3 * 4
    assert seen.count(()) == 3
    assert trt.behavior.list_alive() == []


def test_audit_of_recorded_json(bundle: Path, tmp_path: Path) -> None:
    """The bundle's one convolution has no name, so its layers are counted; times are summed by precision."""
    account, times = tmp_path / "layers.json", tmp_path / "times.json"
    account.write_text(json.dumps(inspector.make_8(inspector.FLOAT_8)))
    times.write_text(json.dumps([{"count": 10}, {"name": "conv1 + relu1", "averageMs": 2.5}]))
    result = run_json(bundle, "--audit", account, "--layer-times", times)
    assert result["audit"]["layers"] == {"fp16": 2, "fp32": 1}
    assert result["audit"]["time_ms"] == {"fp32": 2.5}
    assert "fp32: 2.500 ms" in run(bundle, "--audit", account, "--layer-times", times).output
    for text in ("", "[]", "{"):
        account.write_text(text)
        assert run(bundle, "--audit", account).exit_code == 2


def test_audit_names_narrow_products_that_write_float32(tmp_path: Path) -> None:
    variant = {"file": "deploy.int8.onnx", "precision": "int8", "verification": {"passed": True}}
    contents = {"deploy.int8.onnx": make_graph("int8")}
    folder = write_bundle(tmp_path / "b", contents=contents, variants={"int8": variant})
    account = tmp_path / "layers.json"
    account.write_text(json.dumps(inspector.make_myelin()))
    result = run(folder, "--precision", "int8", "--audit", account)
    assert result.output == (
        "products: 1 int8, 1 fp32; 100% as narrow as in the graph; 1 narrow products write float32; 1 reformats\n"
    )


def test_a_recorded_engine_that_is_silently_fp32(tmp_path: Path) -> None:
    model = make_graph("fp16")
    variant = {"file": "deploy.fp16.onnx", "precision": "fp16", "verification": {"passed": True}}
    folder = write_bundle(tmp_path / "b", contents={"deploy.fp16.onnx": model}, variants={"fp16": variant})
    account = tmp_path / "layers.json"
    account.write_text(json.dumps(inspector.make_11("Float")))
    done = run_atrous("build", folder, "--precision", "fp16", "--audit", account)
    assert done.code == 1
    assert "fp16 was requested, but only 50% of the graph's fp16 products reach it: conv1 (fp32)" in done.stderr


# --- the store -------------------------------------------------------------------------------------------------------


def test_list_trust_and_garbage(bundle: Path, trt: Any) -> None:
    made = run_json(bundle, "--shape", "33")
    store = EngineStore(bundle / "engines")
    foreign = EngineStore(bundle / "engines", Signer(b"t" * 32))
    mine = store.list_engines()[0]
    theirs = foreign.put(keys.EngineKey({**mine.fields, "gpu.name": "Other GPU"}), b"plan", b"", {})
    stale = store.put(keys.EngineKey({**mine.fields, "onnx.sha256": "0" * 64}), b"plan", b"", {})
    rows = {row["key"]: row for row in run_json(bundle, "--list")["engines"]}
    assert {key: row["signed_here"] for key, row in rows.items()} == {
        made["engine"]["key"]: True,
        theirs.folder.name: False,
        stale.folder.name: True,
    }
    assert run_json(bundle, "--trust", theirs.folder.name[:10])["trusted"] == theirs.folder.name
    assert all(row["signed_here"] for row in run_json(bundle, "--list")["engines"])
    assert run(bundle, "--trust", "nothing").exit_code == 2
    planned = run_json(bundle, "--gc", "--dry-run")
    assert [Path(row["path"]).name for row in planned["garbage"]] == [stale.folder.name]
    assert stale.folder.exists()
    assert "1 removed" in run(bundle, "--gc").output
    assert not stale.folder.exists()
    assert len(run_json(bundle, "--list")["engines"]) == 2


def test_outdated_engines_go_where_asked(bundle: Path, trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run_json(bundle, "--shape", "33")
    monkeypatch.setattr(keys, "read_machine", lambda index=0: replace(MACHINE, driver="570.0"))
    assert run_json(bundle, "--gc")["garbage"] == []
    (gone,) = run_json(bundle, "--gc", "--outdated")["garbage"]
    assert gone["reason"] == 'gpu.driver is "550.54.15" there and "570.0" here'
    assert run_json(bundle, "--list")["engines"] == []


def test_garbage_of_a_bundle_whose_engines_are_a_link(bundle: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "Documents").mkdir(parents=True)
    os.utime(home / "Documents", (0, 0))
    (bundle / "engines").symlink_to(home)
    done = run_atrous("build", bundle, "--gc")
    assert (done.code, len(done.stderr.splitlines())) == (2, 1)
    assert "is a link" in done.stderr
    assert (home / "Documents").exists()


def test_garbage_of_the_working_folder(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("src", "data"):
        (tmp_path / "work" / name).mkdir(parents=True)
        os.utime(tmp_path / "work" / name, (0, 0))
    monkeypatch.chdir(tmp_path / "work")
    assert "0 removed" in run(bundle, "--engines", ".", "--gc").output
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"src", "data"}


def test_engines_elsewhere(bundle: Path, trt: Any, tmp_path: Path) -> None:
    made = run_json(bundle, "--shape", "33", "--engines", tmp_path / "elsewhere")
    assert Path(made["folder"]).parent == tmp_path / "elsewhere"
    assert not (bundle / "engines").exists()


def test_all_failures_are_of_one_tree() -> None:
    assert all(issubclass(kind, AtrousError) for kind in (BackendError, EngineError, EnginePrecisionError))
