"""The error of a blob, the report of the first difference, and the stages."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from atrous.converter import export_onnx, read_net, to_torch, write_bundle
from atrous.converter.check.compare import compare_stages, measure_difference
from atrous.converter.check.stages import OnnxStage, TorchStage
from atrous.converter.check.verify import random_inputs, verification_shapes, verify_model
from atrous.errors import VerificationError, VerificationInputError

from ...runtime.bundles import make_model
from ..nets import DEEPLAB, data, layer, read_seeded

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("computed", "reference", "error"),
    [
        ([1, 2], [1, 2], 0),
        ([0.1], [0.2], 0.1),  # below 1 the difference itself counts
        ([110], [100], 0.1),
        ([-90, 0], [-100, 0], 0.1),
        ([NAN, INF, -INF], [NAN, INF, -INF], 0),
        ([NAN, 1], [1, 1], INF),
        ([1, 1], [NAN, 1], INF),
        ([INF], [-INF], INF),
        ([INF], [1e30], INF),
        ([INF, 5], [INF, 10], 0.5),  # infinities that agree do not hide the rest
        ([], [], 0),
        ([1, 2, 3], [1, 2], INF),
        ([[1, 2]], [[1], [2]], INF),
    ],
)
def test_difference(computed: list[float], reference: list[float], error: float) -> None:
    found = measure_difference(np.array(computed, np.float32), np.array(reference, np.float32))
    assert found == pytest.approx(error, rel=1e-5)


TABLE = [
    {"key": "a:x", "type": "Convolution", "feeds": ["data"]},
    {"key": "b:x", "type": "ReLU", "feeds": ["a:x"]},
    {"key": "c:y", "type": "Pooling", "feeds": ["b:x"]},
]


def report(*errors: float, **options: Any) -> Any:
    reference = {entry["key"]: np.ones((2, 2), np.float32) for entry in TABLE}
    computed = {entry["key"]: np.full((2, 2), 1 + error) for entry, error in zip(TABLE, errors, strict=False)}
    return compare_stages(
        TABLE, computed, reference, stage="model.onnx", reference_name="torch", input_shapes={"data": (1, 3)}, **options
    )


def test_first_divergence_is_named_with_what_feeds_it() -> None:
    found = report(0, 0.5, 0.7)
    assert not found.passed
    assert found.first_divergence.key == "b:x"
    assert found.worst == pytest.approx(0.7)
    with pytest.raises(VerificationError, match=r"model\.onnx differs from torch first at b:x \(ReLU\).*it reads a:x"):
        found.require_passed()


def test_within_tolerance() -> None:
    found = report(0, 5e-5, 9e-5)
    assert found.passed
    found.require_passed()
    assert "equals torch in 3 blobs" in found.describe()
    assert not report(0, 5e-5, 9e-5, tolerance=1e-6).passed


def test_nan_never_passes() -> None:
    assert not report(0, NAN).passed


def test_blobs_that_only_one_stage_has_are_left_out() -> None:
    assert [difference.key for difference in report(0, 0).differences] == ["a:x", "b:x"]


def test_report_is_plain_json() -> None:
    for errors in ((0, 0, 0), (INF,), (NAN,)):
        text = report(*errors).summarize().model_dump_json()
        assert json.loads(text)["passed"] is (errors == (0, 0, 0))
        json.dumps(report(*errors).rows_json(), allow_nan=False)


def test_onnx_stage_returns_every_blob(tmp_path: Path) -> None:
    net = read_seeded(DEEPLAB)
    export_onnx(net, to_torch(net), tmp_path / "model.onnx")
    stage = OnnxStage(tmp_path / "model.onnx")
    blobs = stage.run(random_inputs({"data": (2, 3, 33, 25)}))
    assert list(blobs) == [key for key, blob in net.recorded_tops() if blob.producer]
    assert blobs["fc8_interp:fc8_interp"].shape == (2, 5, 33, 25)
    assert (blobs["conv1:conv1"] < 0).any()
    assert (blobs["relu_conv1:conv1"] >= 0).all()


def test_verify_model_passes_and_finds_a_changed_weight(tmp_path: Path) -> None:
    import torch

    net = read_seeded(DEEPLAB)
    module = to_torch(net)
    export_onnx(net, module, tmp_path / "model.onnx")
    reports = verify_model(net, module, tmp_path / "model.onnx")
    assert [found.passed for found in reports] == [True, True]
    with torch.no_grad():
        module.conv2.weight[0, 0, 0, 0] += 0.1
    for found in verify_model(net, module, tmp_path / "model.onnx"):
        assert found.first_divergence is not None
        assert found.first_divergence.key == "conv2:conv2"


def test_sizes_to_verify_at_are_odd_and_even_where_the_net_takes_them() -> None:
    shapes = verification_shapes(read_net(DEEPLAB))
    assert [shape["data"] for shape in shapes] == [(1, 3, 97, 129), (2, 3, 64, 96)]
    fixed = read_net(
        data(1, 3, 6, 6) + layer("InnerProduct", "ip", "data", "y", "inner_product_param { num_output: 4 }")
    )
    assert verification_shapes(fixed) == [{"data": (1, 3, 6, 6)}]


def test_inputs_are_like_images_and_the_same_every_time() -> None:
    shapes = {"data": (1, 3, 40, 40), "gray": (1, 1, 40, 40)}
    inputs = random_inputs(shapes)
    assert 40 < inputs["data"].std() < 60
    assert 0.8 < inputs["gray"].std() < 1.2
    again = random_inputs(shapes)
    assert all((inputs[name] == again[name]).all() for name in inputs)


# ---- stages


@pytest.fixture
def stages(tmp_path: Path) -> tuple[TorchStage, OnnxStage]:
    write_bundle(read_seeded(DEEPLAB), tmp_path / "b")
    onnx_stage = OnnxStage(tmp_path / "b" / "model.onnx")
    return TorchStage(tmp_path / "b", (tmp_path / "b" / "model.py").read_bytes(), onnx_stage.table), onnx_stage


def test_sizes_that_the_net_rejects_are_one_line(stages: tuple[TorchStage, OnnxStage]) -> None:
    for shape in ((1, 4, 33, 33), (3,)):
        for stage in stages:
            with pytest.raises(
                VerificationInputError, match=rf"^the net does not run on data of {shape[0]}.*: .*give sizes"
            ):
                stage.run({"data": np.zeros(shape, np.float32)})


@pytest.mark.parametrize("error", [KeyError("ours"), TypeError("ours"), AttributeError("ours"), AssertionError("ours")])
def test_errors_of_the_program_stay_what_they_are(
    stages: tuple[TorchStage, OnnxStage], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(stages[0]._module.conv2, "forward", fail)
    monkeypatch.setattr(stages[1], "_session", SimpleNamespace(run=fail))
    for stage in stages:
        with pytest.raises(type(error), match="ours"):
            stage.run({"data": np.zeros((1, 3, 33, 33), np.float32)})


def test_foreign_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(make_model())
    with pytest.raises(
        VerificationInputError, match=r"model\.onnx: has no table of the net's blobs; convert the net again"
    ):
        OnnxStage(tmp_path / "model.onnx")
