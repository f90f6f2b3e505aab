"""Nets of which a part has no ONNX form, and the forms of layers that decode boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from atrous.converter import (
    BundleOptions,
    ExportError,
    VerificationInputError,
    export_onnx,
    to_torch,
    verify_bundle,
    write_bundle,
)

from ..nets import conv, data, layer, read_seeded, relu

SSD = (
    data(1, 3, 32, 40)
    + conv("loc", "data", "loc", 8, 8, "stride: 8")
    + conv("conf", "data", "conf", 6, 8, "stride: 8")
    + "".join(
        layer("Permute", f"{name}_p", name, f"{name}_p", "permute_param { order: 0 order: 2 order: 3 order: 1 }")
        + layer("Flatten", f"{name}_flat", f"{name}_p", f"{name}_flat")
        for name in ("loc", "conf")
    )
    + layer("PriorBox", "priors", ["conf", "data"], "priors", "prior_box_param { min_size: 8 max_size: 16 }")
    + layer(
        "DetectionOutput", "boxes", ["loc_flat", "conf_flat", "priors"], "boxes",
        "detection_output_param { num_classes: 3 nms_param { nms_threshold: 0.45 top_k: 30 } keep_top_k: 9 "
        "code_type: CENTER_SIZE confidence_threshold: 0.01 }",
    )
)  # fmt: skip


def write(text: str, folder: Path, **options: Any) -> Any:
    return write_bundle(read_seeded(text), folder, BundleOptions(**options))


def outputs(folder: Path) -> dict[str, list[Any]]:
    graph = onnx.load(str(folder / "model.onnx")).graph
    return {
        value.name: [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in graph.output
    }


def test_a_detector_is_one_onnx_file(tmp_path: Path) -> None:
    manifest = write(SSD, tmp_path / "b")
    assert outputs(tmp_path / "b") == {"boxes": [1, 1, "boxes_2", 7]}
    assert all(report.passed for report in manifest.verification)
    assert all(report.passed for report in verify_bundle(tmp_path / "b"))
    assert any(warning.startswith("no deploy.onnx") for warning in manifest.warnings)
    assert not any("model.onnx ends" in warning for warning in manifest.warnings)


def test_detection_can_be_cut_off(tmp_path: Path) -> None:
    manifest = write(SSD, tmp_path / "b", detection="cut")
    assert list(outputs(tmp_path / "b")) == ["loc_flat", "conf_flat", "priors"]
    assert [blob.name for blob in manifest.outputs] == ["loc_flat", "conf_flat", "priors"]
    assert 'model.onnx ends before layer "boxes": DetectionOutput is left out' in "\n".join(manifest.warnings)
    assert all(report.passed for report in verify_bundle(tmp_path / "b"))


@pytest.mark.parametrize(("detection", "node"), [("opencv", "DetectionOutput"), ("tensorrt", "EfficientNMS_TRT")])
def test_detection_in_the_form_of_an_engine(tmp_path: Path, detection: Any, node: str) -> None:
    """The standard form of the same net is verified in ONNX Runtime, which lacks these nodes."""
    manifest = write(SSD, tmp_path / "b", detection=detection)
    nodes = {item.op_type: item for item in onnx.load(str(tmp_path / "b" / "model.onnx")).graph.node}
    assert "NonMaxSuppression" not in nodes
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in nodes[node].attribute}
    if detection == "opencv":
        assert (attributes["num_classes"], attributes["keep_top_k"]) == (3, 9)
        assert attributes["code_type"] == b"CORNER"
    else:
        assert (attributes["max_output_boxes"], attributes["background_class"]) == (9, 0)
        assert len(nodes[node].output) == 4
    assert manifest.verification
    assert not (tmp_path / "b" / "standard.onnx").exists()


def test_a_net_is_cut_before_a_layer_without_a_form(tmp_path: Path) -> None:
    """The whole net stays in model.py."""
    text = SSD.replace("top_k: 30", "top_k: 30 eta: 0.9") + relu("side", "loc", "side")
    manifest = write(text, tmp_path / "b")
    assert set(outputs(tmp_path / "b")) == {"loc_flat", "conf_flat", "priors", "side"}
    assert "eta below 1" in "\n".join(manifest.warnings)
    assert "DetectionOutput(" in (tmp_path / "b" / "model.py").read_text()
    assert all(report.passed for report in verify_bundle(tmp_path / "b"))


def test_a_net_without_any_form_runs_in_torch_only(tmp_path: Path) -> None:
    text = data(1, 3, 8, 8) + data(1, 1, 8, 8, name="edges") + data(1, 1, 1, 2, name="dim")
    text += layer("DomainTransform", "d", ["data", "edges", "dim"], "y")
    manifest = write(text, tmp_path / "b")
    assert sorted(manifest.files) == ["model.py", "model.safetensors"]
    assert any(
        warning.startswith('no model.onnx: layer "d": DomainTransform has no ONNX form')
        for warning in manifest.warnings
    )
    assert [blob.name for blob in manifest.outputs] == ["y"]
    with pytest.raises(VerificationInputError, match=r"has no model\.onnx to compare"):
        verify_bundle(tmp_path / "b")


def test_an_unsupported_opset_is_still_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="opset 5 is not supported"):
        write(SSD, tmp_path / "b", opset=5)
    assert list(tmp_path.iterdir()) == []


def test_json_of_the_table_says_which_layers_choose(tmp_path: Path) -> None:
    model = export_onnx(net := read_seeded(SSD), to_torch(net))
    (table,) = (json.loads(entry.value) for entry in model.metadata_props if entry.key == "atrous.blobs")
    assert [entry["key"] for entry in table if entry["chooses"]] == ["boxes:boxes"]
