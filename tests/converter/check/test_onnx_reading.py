"""ONNX files of a bundle: parsed if complete, refused if a tensor is in another file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from atrous.converter import verify_bundle, write_bundle
from atrous.converter.check.onnx_reading import parse_onnx
from atrous.converter.export.onnx_export import BLOB_TABLE
from atrous.converter.precision import Evidence, HeadReader, Picture, VariantOptions, make_variant, verify_variants
from atrous.errors import ConverterError

from ...runtime.backends.test_self_contained import PLACES, put_initializer
from ...runtime.bundles import make_model
from ...runtime.bundles import write_bundle as write_model_bundle
from ..nets import DEEPLAB, read_seeded

PATH = Path("b/deploy.onnx")
PICTURE = Picture(np.zeros((33, 33, 3), np.uint8))
READER = HeadReader("scores", 5)


def test_complete_model() -> None:
    content = make_model("lowres")
    assert parse_onnx(content, PATH).SerializeToString() == content


@pytest.mark.parametrize("put", PLACES, ids=lambda put: put.__name__)
def test_tensor_in_another_file(put: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.ModelProto.FromString(make_model())
    put(model)
    with pytest.raises(ConverterError, match=r'^b/deploy\.onnx: the tensor "w" lies in another file'):
        parse_onnx(model.SerializeToString(), PATH)


@pytest.mark.parametrize("content", [b"text", make_model()[:-3]], ids=["text", "truncated"])
def test_not_a_model(content: bytes) -> None:
    with pytest.raises(ConverterError, match=r"^b/deploy\.onnx: is not an ONNX model .*; convert the net again"):
        parse_onnx(content, PATH)


def drop_outputs(model: onnx.ModelProto) -> None:
    del model.graph.node[0].output[:]


def drop_inputs(model: onnx.ModelProto) -> None:
    del model.graph.node[-1].input[:]


def name_no_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Unknown"


def write_twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(model.graph.node[0])


FAULTS = [drop_outputs, drop_inputs, name_no_operator, write_twice]


@pytest.mark.parametrize("damage", FAULTS, ids=lambda damage: damage.__name__)
def test_invalid_graph(damage: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.ModelProto.FromString(make_model())
    damage(model)
    with pytest.raises(ConverterError, match=r"^b/deploy\.onnx: the network cannot run: .*; convert the net again$"):
        parse_onnx(model.SerializeToString(), PATH)


@pytest.mark.parametrize("make", [make_variant, verify_variants], ids=lambda make: make.__name__)
def test_graph_that_onnx_runtime_rejects(tmp_path: Path, make: Callable[..., object]) -> None:
    """Every node is valid, but the weights have another number of channels."""
    folder = write_model_bundle(tmp_path / "b")
    model = onnx.load(folder / "deploy.onnx")
    weight = next(each for each in model.graph.initializer if each.name == "weight")
    weight.CopyFrom(numpy_helper.from_array(np.zeros((4, 2, 1, 1), np.float32), "weight"))
    replace_file(folder, "deploy.onnx", model.SerializeToString())
    evidence = Evidence([PICTURE.image], [PICTURE], "zeros")
    arguments = (VariantOptions("fp16", 0.9), evidence, READER) if make is make_variant else ([PICTURE], READER)
    with pytest.raises(ConverterError, match=r"b: the network cannot run: .*; convert the net again"):
        make(folder, *arguments)


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Write a file of a bundle, and a variant of it, into the manifest."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    targets = {"label_agreement": 0.9, "max_miou_loss_points": None}
    verification = {"reference_sha256": manifest["files"]["deploy.onnx"]["sha256"], "targets": targets}
    manifest["variants"] = {"fp16": {"file": name, "precision": "fp16", "verification": verification}}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("table", ["[", "[]", "[{}]", '{"key": 1}', '[{"key": "a", "value": 5}]'])
def test_table_of_blobs_that_is_invalid(tmp_path: Path, table: str) -> None:
    folder = tmp_path / "b"
    write_bundle(read_seeded(DEEPLAB), folder)
    model = onnx.load(folder / "model.onnx")
    (entry,) = (each for each in model.metadata_props if each.key == BLOB_TABLE)
    entry.value = table
    replace_file(folder, "model.onnx", model.SerializeToString())
    with pytest.raises(ConverterError, match=r"model\.onnx: the table of the net's blobs is invalid"):
        verify_bundle(folder)


@pytest.fixture
def stranger(tmp_path: Path) -> Callable[[str], Path]:
    """Returns a function that writes a bundle with a model that reads /etc/passwd, listed in the manifest."""

    def write(name: str) -> Path:
        folder = tmp_path / "b"
        write_bundle(read_seeded(DEEPLAB), folder)
        model = onnx.load(folder / ("model.onnx" if name == "model.onnx" else "deploy.onnx"))
        put_initializer(model)
        replace_file(folder, name, model.SerializeToString())
        return folder

    return write


def test_verify_refuses_model_onnx(stranger: Callable[[str], Path]) -> None:
    with pytest.raises(ConverterError, match=r'model\.onnx: the tensor "w" lies in another file'):
        verify_bundle(stranger("model.onnx"))


def test_variants_are_not_made_from_it(stranger: Callable[[str], Path]) -> None:
    evidence = Evidence([PICTURE.image], [PICTURE], "zeros")
    with pytest.raises(ConverterError, match='the tensor "w" lies in another file'):
        make_variant(stranger("deploy.onnx"), VariantOptions("fp16", 0.9), evidence, READER)


@pytest.mark.parametrize("name", ["deploy.onnx", "deploy.fp16.onnx"])
def test_variants_are_not_verified_against_it(stranger: Callable[[str], Path], name: str) -> None:
    with pytest.raises(ConverterError, match='the tensor "w" lies in another file'):
        verify_variants(stranger(name), [PICTURE], READER)
