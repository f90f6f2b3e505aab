"""ONNX files of a bundle: parsed if complete, refused if a tensor is in another file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from atrous.converter import verify_bundle, write_bundle
from atrous.converter.check.onnx_reading import parse_onnx
from atrous.converter.precision import Evidence, HeadReader, Picture, VariantOptions, make_variant, verify_variants
from atrous.errors import ConverterError

from ...runtime.backends.test_self_contained import PLACES, put_initializer
from ...runtime.bundles import make_model
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


@pytest.fixture
def stranger(tmp_path: Path) -> Callable[[str], Path]:
    """Returns a function that writes a bundle with a model that reads /etc/passwd, listed in the manifest."""

    def write(name: str) -> Path:
        folder = tmp_path / "b"
        manifest = json.loads(write_bundle(read_seeded(DEEPLAB), folder).to_json())
        source = folder / ("model.onnx" if name == "model.onnx" else "deploy.onnx")
        model = onnx.load(source)
        put_initializer(model)
        content = model.SerializeToString()
        (folder / name).write_bytes(content)
        manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        targets = {"label_agreement": 0.9, "max_miou_loss_points": None}
        verification = {"reference_sha256": manifest["files"]["deploy.onnx"]["sha256"], "targets": targets}
        manifest["variants"] = {"fp16": {"file": name, "precision": "fp16", "verification": verification}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
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
