"""The manifest: what it accepts, and that every wrong one is one BundleError that names the field."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrous.bundle.manifest import MAX_MANIFEST_BYTES, parse_manifest
from atrous.bundle.section import check_contained_name
from atrous.bundle.size_rule import SizeRule
from atrous.errors import BundleError, InputError

from ...runtime.bundles import CRF, SIZE_RULE, make_manifest

FILES = {"deploy.onnx": b"onnx"}


def parse(**changes: Any) -> Any:
    return parse_manifest(json.dumps(make_manifest(FILES, **changes)).encode())


def replace(section: str, **changes: Any) -> dict[str, Any]:
    return {section: {**make_manifest(FILES)[section], **changes}}


def test_complete() -> None:
    manifest = parse(crf=CRF)
    assert manifest.deploy is not None
    assert manifest.deploy.head == "scores"
    assert manifest.palette[3] == (255, 0, 0)
    assert manifest.inputs[0].shape == (1, 3, "height", "width")
    assert manifest.crf is not None
    assert manifest.crf.bilateral[0].srgb == 10.0
    assert manifest.created.utcoffset() is not None


def test_without_a_deployable_network() -> None:
    manifest = parse(deploy=None, preprocessing=None, classes=[], palette=[], warnings=["no deploy.onnx: a classifier"])
    assert manifest.deploy is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (b"", "EOF"),
        (b"[]", "object"),
        (b"hello", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[" * 100_000, "recursion"),
        (b"{}", "schema_version"),
        (b'{"schema_version": "1"}', "schema_version"),
        (b'{"schema_version": true}', "schema_version"),
        (b'{"schema_version": 2, "new": 1}', "update atrous"),
        (b'{"schema_version": 0}', "convert the net again"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "at most"),
    ],
)
def test_not_a_manifest(text: bytes, part: str) -> None:
    with pytest.raises(BundleError, match=part):
        parse_manifest(text)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"extra": 1}, "extra"),
        ({"name": 3}, "name"),
        ({"created": "yesterday"}, "created"),
        ({"created": "2024-05-01T12:00:00"}, "created"),
        ({"palette": [[0, 0, 0]] * 5}, "5 palette colors for 4 classes"),
        ({"deploy": None}, "come together"),
        ({"warnings": [1]}, "warnings.0"),
        ({"palette": [[0, 0, 256]] * 4}, "palette.0.2"),
        ({"classes": [], "palette": []}, "classes"),
        ({"files": {}}, "not listed"),
        ({"files": {"../deploy.onnx": {"sha256": "0" * 64, "bytes": 1}}}, "relative path"),
        ({"files": {"deploy.onnx": {"sha256": "0" * 63, "bytes": 1}}}, "sha256"),
        ({"files": {"deploy.onnx": {"sha256": "0" * 64, "bytes": -1}}}, "bytes"),
        ({"files": {"deploy.onnx": {"sha256": "0" * 64, "bytes": "4"}}}, "bytes"),
        (replace("deploy", file="/etc/passwd"), "relative path"),
        (replace("deploy", head="lowres", output="lowres"), "upsampling"),
        (replace("deploy", output="labels"), "named after the head"),
        (replace("deploy", head="depth"), "deploy.head"),
        (replace("preprocessing", mean=[1.0, 2.0]), "preprocessing.mean"),
        (replace("preprocessing", size_rule={"fixed": [3, 4], **SIZE_RULE}), "either"),
        (replace("preprocessing", size_rule={"multiple": 8}), "either"),
        (replace("preprocessing", size_rule={"fixed": [0, 4]}), "fixed"),
        ({"crf": {**CRF, "mode": "fast"}}, "crf.mode"),
        ({"crf": {**CRF, "iterations": 1001}}, "crf.iterations"),
        ({"crf": {**CRF, "gaussian": CRF["gaussian"] * 17}}, "crf.gaussian"),
        ({"crf": {**CRF, "bilateral": CRF["bilateral"] * 17}}, "crf.bilateral"),
        ({"crf": {**CRF, "bilateral": [{"sxy": -1.0, "srgb": 3.0, "weight": 1.0}]}}, "sxy"),
        ({"crf": {**CRF, "gaussian": [{"sxy": 3.0, "weight": math.nan}]}}, "Invalid JSON|weight"),
    ],
)
def test_wrong_field(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(BundleError, match=part):
        parse(**changes)


@pytest.mark.parametrize("name", ["", "/a", "../a", "a/../b", "./a", "a//b", "a\\b", "C:a", "a\n", "a/"])
def test_name_leaves_the_bundle(name: str) -> None:
    with pytest.raises(ValueError, match="plain relative path"):
        check_contained_name(name)


@pytest.mark.parametrize("name", ["a", "engines/0a1b/plan", "..a", "a..b", "model.safetensors"])
def test_name_stays_inside(name: str) -> None:
    assert check_contained_name(name) == name


@pytest.mark.parametrize(
    ("size", "padded"), [((1, 1), (17, 17)), ((17, 17), (17, 17)), ((18, 25), (25, 25)), ((26, 400), (33, 401))]
)
def test_padded_size(size: tuple[int, int], padded: tuple[int, int]) -> None:
    rule = SizeRule.model_validate_json(json.dumps(SIZE_RULE))
    assert rule.padded_size(*size) == padded


def test_official_size_is_kept() -> None:
    rule = SizeRule(minimum=(513, 513), multiple=8, offset=1)
    assert rule.padded_size(375, 500) == (513, 513)
    assert rule.padded_size(514, 513) == (521, 513)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 40), st.integers(0, 50))
def test_padded_side_is_the_smallest(side: int, minimum: int, multiple: int, offset: int) -> None:
    rule = SizeRule(minimum=(minimum, 1), multiple=multiple, offset=offset)
    least = max(side, minimum)
    candidates = (multiple * k + offset for k in range(700))
    assert rule.padded_size(side, 1)[0] == next(size for size in candidates if size >= least)


def test_fixed_size() -> None:
    rule = SizeRule(fixed=(10, 20))
    assert rule.padded_size(10, 20) == (10, 20)
    for size in ((9, 20), (11, 20), (20, 10)):
        with pytest.raises(InputError, match="only 20x10"):
            rule.padded_size(*size)
