"""A bundle gains a variant whole or not at all: rejected, killed, raced, replaced."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from atrous import runtime
from atrous.bundle.manifest import GraphFacts, Variant
from atrous.bundle.writing import add_variant
from atrous.converter import BundleOptions, read_net, write_bundle
from atrous.converter.precision import (
    Evidence,
    HeadReader,
    Picture,
    VariantOptions,
    make_variant,
    verify_variants,
    write_variant,
)
from atrous.converter.precision.assess import Agreement, Reference, run_as_shipped
from atrous.converter.precision.cast import cast_graph
from atrous.converter.precision.float_types import BFLOAT16
from atrous.errors import BundleError, PrecisionError, TargetMissedError

from ...processes import child_env
from ..nets import DEEPLAB, random_weights, read_seeded
from .graphs import make_deploy, make_image

ENTRY = Variant(file="deploy.fp16.onnx", precision="fp16", kept={}, verification={"passed": True})
FACTS = GraphFacts(
    opset=17, inputs={}, outputs={}, types=(), subgraphs=(), quantized=False,
    node_precisions={}, wide_nodes={}, patterns={},
)  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("precision") / "bundle"
    write_bundle(read_seeded(DEEPLAB), folder, BundleOptions(verify=False))
    return folder


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def digest_of(bundle: Path) -> str:
    return runtime.read_bundle(bundle).manifest.files["deploy.onnx"].sha256


def evidence() -> Evidence:
    images = [make_image(41, 49, seed) for seed in (1, 2)]
    return Evidence(images, [Picture(image) for image in images], "noise")


def options(precision: Any = "fp16", agreement: float = 0.5, **others: Any) -> VariantOptions:
    return VariantOptions(precision, agreement, threads=1, **others)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
def test_a_variant_is_listed_and_runs(bundle: Path, precision: str) -> None:
    result = make_variant(bundle, options(precision), evidence(), HeadReader("scores"))
    entry = write_variant(bundle, result)
    opened = runtime.read_bundle(bundle)
    opened.verify_files()
    variant = opened.manifest.variants[precision]  # type: ignore[index]
    assert variant.file == entry.file == f"deploy.{precision}.onnx"
    assert variant.verification["passed"] is True
    lacks_fp8 = tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 32)
    runs = precision != "bf16" and not (precision == "fp8" and lacks_fp8)
    assert variant.verification["onnxruntime_cpu"]["runs"] is runs  # type: ignore[index,call-overload]
    if not runs:
        return
    with runtime.load(bundle, precision=precision, threads=1) as narrow, runtime.load(bundle, threads=1) as wide:
        agreement = float(np.mean(narrow(make_image(41, 49, 1)) == wide(make_image(41, 49, 1))))
    assert agreement > 0.9


def test_a_missed_target_leaves_the_bundle_byte_for_byte(bundle: Path) -> None:
    before = snapshot(bundle)
    result = make_variant(bundle, options("int8", 1.0), evidence(), HeadReader("scores"))
    assert not result.passed
    with pytest.raises(TargetMissedError, match="no int8 variant was written") as caught:
        write_variant(bundle, result)
    assert caught.value.exit_code == 1
    assert snapshot(bundle) == before


def test_keep_anyway_writes_it_marked(bundle: Path) -> None:
    result = make_variant(bundle, options("int8", 1.0, sensitivity="never"), evidence(), HeadReader("scores"))
    write_variant(bundle, result, keep_anyway=True)
    verification = runtime.read_bundle(bundle).manifest.variants["int8"].verification
    assert verification["passed"] is False
    assert "target is 100" in str(verification["misses"])
    (check,) = verify_variants(bundle, evidence().pictures, HeadReader("scores"), threads=1)
    assert not check.passed


def test_layers_are_left_alone_until_the_target_is_met(bundle: Path) -> None:
    all_coded = make_variant(bundle, options("int8", 0.5), evidence(), HeadReader("scores"))
    target = (all_coded.assessment.agreement.share + 1) / 2
    result = make_variant(bundle, options("int8", target), evidence(), HeadReader("scores"))
    assert result.passed
    assert result.assessment.agreement.share >= target
    alone = result.entry["verification"]["left_alone"]
    assert 0 < len(alone) < 5
    assert alone == sorted(row.layer for row in result.sensitivities[: len(alone)])
    assert all("sensitive" in reason for reason in result.entry["kept"].values())


@pytest.mark.parametrize("precision", ["fp16", "int8", "fp8"])
def test_values_beyond_half_precision_stay_finite(tmp_path: Path, precision: str) -> None:
    """Blobs beyond 65504: their layers stay float32, behind Q/DQ too, and the manifest says so."""
    net = read_seeded(DEEPLAB)
    weights = {
        layer.name: [np.array(blob) for blob in random_weights(net)[layer.name]]
        for layer in net.layers
        if layer.operator.weight_shapes()
    }
    weights["conv2"][0] *= 1e3
    folder = tmp_path / "large"
    write_bundle(read_net(DEEPLAB, weights), folder, BundleOptions(verify=False))
    rest = "fp32" if precision == "fp16" else "fp16"
    result = make_variant(folder, options(precision, rest=rest, sensitivity="never"), evidence(), HeadReader("scores"))
    assert all(np.isfinite(row.noise) for row in result.assessment.rows)
    assert result.assessment.agreement.share > 0.8
    assert any("too close to 65504" in reason for reason in result.entry["kept"].values())


def test_replacing_a_variant_never_reuses_a_listed_name(bundle: Path) -> None:
    """A reader with the old manifest must find the old bytes or none, never others."""
    first = add_variant(bundle, ENTRY, b"one", FACTS, digest_of(bundle))
    second = add_variant(bundle, ENTRY, b"two", FACTS, digest_of(bundle))
    assert first.file != second.file
    assert not (bundle / first.file).exists()
    opened = runtime.read_bundle(bundle)
    assert opened.read_file(opened.deploy_file("fp16")) == b"two"
    assert first.file not in opened.manifest.files
    third = add_variant(bundle, ENTRY, b"three", FACTS, digest_of(bundle))
    assert third.file == first.file


def test_a_bundle_converted_meanwhile_is_refused(bundle: Path) -> None:
    before = snapshot(bundle)
    with pytest.raises(BundleError, match="converted anew"):
        add_variant(bundle, ENTRY, b"one", FACTS, "0" * 64)
    assert snapshot(bundle) == before


_KILLED = """
import os, signal, sys
from pathlib import Path
from atrous.bundle.manifest import GraphFacts, Variant
from atrous.bundle.writing import add_variant
step = int(sys.argv[2])
calls = 0
whole = os.replace
def replace(source, target):
    global calls
    calls += 1
    if calls == step:
        os.kill(os.getpid(), signal.SIGKILL)
    whole(source, target)
os.replace = replace
entry = Variant(file="deploy.fp16.onnx", precision="fp16", verification={"passed": True})
add_variant(Path(sys.argv[1]), entry, b"model", GraphFacts.model_validate_json(sys.argv[4]), sys.argv[3])
"""


@pytest.mark.parametrize("step", [1, 2])
def test_killed_in_the_middle_the_old_bundle_holds(bundle: Path, step: int) -> None:
    """Killed before the first and before the second rename: the graph's, the manifest's."""
    before = snapshot(bundle)
    line = [sys.executable, "-c", _KILLED, str(bundle), str(step), digest_of(bundle), FACTS.model_dump_json()]
    done = subprocess.run(line, env=child_env(), check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    after = snapshot(bundle)
    assert {name: after[name] for name in before} == before
    assert not runtime.read_bundle(bundle).manifest.variants
    # and the next writer is not in the way of what was left behind, and removes it
    add_variant(bundle, ENTRY, b"model", FACTS, digest_of(bundle))
    assert runtime.read_bundle(bundle).deploy_file("fp16") == "deploy.fp16.onnx"
    assert snapshot(bundle).keys() == before.keys() | {"deploy.fp16.onnx"}


def test_verification_again_and_of_an_altered_file(bundle: Path) -> None:
    write_variant(bundle, make_variant(bundle, options(), evidence(), HeadReader("scores")))
    (check,) = verify_variants(bundle, evidence().pictures, HeadReader("scores"), threads=1)
    assert check.passed
    assert check.file == "deploy.fp16.onnx"
    assert json.loads(json.dumps(check.to_json()))["passed"] is True
    path = bundle / "deploy.fp16.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match="bytes, the manifest says"):
        verify_variants(bundle, evidence().pictures, HeadReader("scores"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"keep": ("fc66",)}, "no layer and no node"),
        ({"precision": "fp8", "method": "entropy"}, "entropy assumes"),
        ({"precision": "int8", "method": "percentile", "percentile": 0.0}, "option percentile"),
        ({"precision": "int8", "keep": ("conv1", "conv2", "conv3", "fc6", "fc8")}, "no layer is left"),
    ],
)
def test_variants_that_cannot_be_made(bundle: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(PrecisionError, match=words):
        make_variant(bundle, options(**changes), evidence(), HeadReader("scores"))


def test_no_images(bundle: Path) -> None:
    with pytest.raises(PrecisionError, match="--images"):
        make_variant(bundle, options(), Evidence([], [], "nothing"), HeadReader("scores"))


def test_a_folder_that_is_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle: make one with"):
        make_variant(tmp_path, options(), evidence(), HeadReader("scores"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda entry: entry.pop("file"), "variants.fp16.file: Field required"),
        (lambda entry: entry["verification"].pop("targets"), "variants.fp16.verification.targets"),
        (lambda entry: entry["verification"]["targets"].update(label_agreement="most"), "label_agreement"),
        (lambda entry: entry["verification"].update(reference_sha256="0" * 64), "another float32 graph"),
    ],
)
def test_a_malformed_entry_is_an_error(bundle: Path, change: Any, words: str) -> None:
    write_variant(bundle, make_variant(bundle, options(), evidence(), HeadReader("scores")))
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest["variants"]["fp16"])
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises((BundleError, PrecisionError), match=words):
        verify_variants(bundle, evidence().pictures, HeadReader("scores"))


def test_only_errors_of_onnx_runtime_mean_that_it_cannot_run_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_deploy()
    reference = Reference(model, evidence().pictures, HeadReader("scores"), threads=1)
    result = run_as_shipped(reference, cast_graph(model, BFLOAT16).model, 1.0)
    assert result["runs"] is False
    assert "Conv" in result["reason"]

    def fail(*_: Any) -> None:
        raise TypeError("a bug of ours")

    monkeypatch.setattr(Agreement, "add", fail)
    with pytest.raises(TypeError, match="a bug of ours"):
        run_as_shipped(reference, model, 1.0)
