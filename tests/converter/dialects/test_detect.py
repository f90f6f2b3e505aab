"""Detection of a binary's dialect: real files of each Caffe, and contrived ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from atrous.converter.dialects.detect import Detection, LayerEvidence, detect_in_binary, name_v1_type
from atrous.converter.files.caffemodel import read_caffemodel
from atrous.errors import CaffemodelError
from atrous.wire import VARINT, encode_block, encode_tag, encode_varint


def v2(*layers: tuple[str, int]) -> Detection:
    """The dialect of V2 layers given as (type, number of an empty parameter message)."""
    return detect_in_binary(
        [
            LayerEvidence(kind, None, encode_block(2, kind.encode()) + encode_block(number, b""))
            for kind, number in layers
        ],
        "V2",
    )


def v1(*layers: tuple[int, bytes]) -> Detection:
    """The dialect of V1 layers given as (type number, further bytes)."""
    return detect_in_binary(
        [LayerEvidence("", kind, encode_tag(5, VARINT) + encode_varint(kind) + rest) for kind, rest in layers], "V1"
    )


def param(number: int, *numbers: int) -> bytes:
    return encode_block(number, b"".join(encode_tag(inner, VARINT) + b"\x02" for inner in numbers))


# Real files ---------------------------------------------------------------------------------------------------------


def test_recorded_files_are_attributed_to_their_caffe(goldens: Path) -> None:
    """The detected Caffe wrote the file, or writes the same bytes for it."""
    detected: Counter[str] = Counter()
    for case_file in sorted((goldens / "goldens" / "tiny").glob("*/case.json")):
        weights = case_file.with_name("weights.caffemodel")
        case = json.loads(case_file.read_text())
        if not weights.exists():
            continue
        fork = case.get("weights_from", {}).get("fork", case["fork"])
        dialect = read_caffemodel(weights).dialect
        assert not dialect.ambiguous
        if dialect.evidence:
            assert fork in (dialect.name, *dialect.also), (case_file.parent.name, dialect)
            detected[dialect.name] += 1
        else:
            assert dialect.name == "bvlc"
    assert detected == {"deeplab_v1": 7, "deeplab_v2": 1, "pspnet": 2, "segnet": 2, "crfasrnn": 1, "ssd": 1}


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("enet-cityscapes/cityscapes_weights.caffemodel", "enet"),
        ("faceboxes/faceboxes_iter_120000.caffemodel", "ssd"),
        ("wechat-detect/detect.caffemodel", "ssd"),
        ("cifar10-quick-2014/cifar10_quick_iter_5000.caffemodel", "bvlc"),
        ("nsfw-squeezenet/nsfw_squeezenet.caffemodel", "bvlc"),
    ],
)
def test_published_files(shared_dir: Path, file: str, name: str) -> None:
    assert read_caffemodel(shared_dir / "weights" / file).dialect.name == name


# V2 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "number", "name"),
    [
        ("Input", 143, "bvlc"),
        ("Interp", 143, "deeplab_v2"),
        ("Interp", 153, "deeplab_v2_xmyqsh"),
        ("Crop", 144, "bvlc"),
        ("SegAccuracy", 144, "deeplab_v2"),
        ("LSTM", 146, "bvlc"),
        ("MultiStageMeanfield", 146, "crfasrnn"),
        ("MultiStageMeanfield", 1000, "crfasrnn_crfrnn"),
        ("ImageLabelData", 1000, "fyu_dilation"),
        ("BN", 45, "segnet"),
        ("BN", 152, "pspnet"),
        ("Embed", 137, "bvlc"),
        ("Upsample", 137, "segnet"),
        ("Upsample", 147, "enet"),
        ("Swish", 147, "bvlc"),
        ("DomainTransform", 147, "deeplab_v2"),
        ("ROIPooling", 8266711, "faster_rcnn"),
        ("PSROIPooling", 149, "rfcn"),
        ("PriorBox", 203, "ssd"),
        ("ShuffleChannel", 164, "shufflenet"),
    ],
)
def test_one_layer_identifies_the_fork(kind: str, number: int, name: str) -> None:
    found = v2(("Convolution", 106), (kind, number))
    assert found.name == name
    assert not found.ambiguous
    if name != "bvlc":
        assert any(f'"{kind}" beside field {number}' in line for line in found.evidence)


def test_two_layers_identify_what_one_cannot() -> None:
    assert "pspnet" in v2(("Interp", 143)).also
    found = v2(("Interp", 143), ("BN", 152))
    assert (found.name, found.also) == ("pspnet", ())


def test_private_mixes_are_reported() -> None:
    found = v2(("Interp", 143), ("PriorBox", 203))
    assert any("private mix" in line for line in found.evidence)
    assert any("no known Caffe has it there" in line for line in v2(("TripletLoss", 137)).evidence)


# V1 -----------------------------------------------------------------------------------------------------------------

CONV, IMAGE, SOFTMAX_LOSS = 10, 15, 21


def test_type_39_is_identified_by_its_parameter() -> None:
    assert v1((39, param(CONV, 1))).name == "bvlc"
    assert v1((39, param(IMAGE, 4))).name == "deeplab_v1"
    assert name_v1_type(39, "bvlc") == "DECONVOLUTION"
    assert name_v1_type(39, "deeplab_v1") == "IMAGE_SEG_DATA"


def test_hole_identifies_deeplab_v1() -> None:
    found = v1((4, param(CONV, 1, 17)))
    assert found.name == "deeplab_v1"
    assert "hole" in found.evidence[0]


def test_strict_dim_identifies_deeplab_v1() -> None:
    found = v1((4, param(CONV, 1) + encode_tag(1003, VARINT) + b"\x00"))
    assert found.name == "deeplab_v1"
    assert found.evidence == ("type number 4 beside field 10, 1003: deeplab_v1",)
    assert v1((4, param(CONV, 1) + encode_tag(1002, VARINT) + b"\x00")).evidence == ()


def test_parameters_of_deconvnet() -> None:
    assert v1((42, param(44, 1))).name == "deconvnet"
    assert v1((42, param(45, 1))).name == "deeplab_v1"
    assert v1((43, param(45, 3))).name == "deconvnet"
    assert v1((SOFTMAX_LOSS, param(44, 2))).name == "deeplab_v1"
    assert v1((SOFTMAX_LOSS, param(42, 1))).name == "bvlc"


def test_type_40_is_ambiguous_without_other_evidence() -> None:
    bare = v1((40, b""))
    assert bare.ambiguous
    assert {"deeplab_v1", "crfasrnn"} <= {bare.name, *bare.also}
    assert v1((40, b""), (4, param(CONV, 17))).name == "deeplab_v1"
    settled = v1((40, b""), (39, param(CONV, 1)))
    assert name_v1_type(40, settled.name) == "CROP"
    assert not settled.ambiguous


def test_an_ambiguous_structure_is_rejected_with_the_evidence(tmp_path: Path) -> None:
    path = tmp_path / "w.caffemodel"
    layer = encode_block(4, b"crop") + encode_tag(5, VARINT) + b"\x28" + encode_block(2, b"x") + encode_block(3, b"y")
    path.write_bytes(encode_block(2, layer))
    file = read_caffemodel(path)
    with pytest.raises(CaffemodelError, match=r"type number 40.*crfasrnn"):
        file.read_structure()
    chosen: Any = file.read_structure("crfasrnn")
    assert chosen.net.layer[0].type == "Crop"
    assert file.read_structure("deeplab_v1").net.layer[0].type == "SegAccuracy"
