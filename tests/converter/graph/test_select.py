"""Rule 1 of select.py: the layers of a phase, also against recordings of Caffe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from atrous.converter import export_onnx, read_net, to_torch
from atrous.converter.files.prototxt import read_prototxt
from atrous.converter.graph.select import filter_layers
from atrous.errors import NetError


def keep(rules: str, **state: object) -> bool:
    net = read_prototxt(f'layer {{ name: "a" type: "ReLU"\n{rules} }}')
    return bool(filter_layers(net, **state).kept)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rules", "state", "kept"),
    [
        ("", {}, True),
        ("include { }", {}, True),
        ("exclude { }", {}, False),
        ("include { phase: TEST }", {}, True),
        ("include { phase: TEST }", {"phase": "TRAIN"}, False),
        ("exclude { phase: TRAIN }", {"phase": "TRAIN"}, False),
        ("phase: TRAIN", {}, True),
        ("include { min_level: 1 }", {}, False),
        ("include { min_level: 1 max_level: 3 }", {"level": 3}, True),
        ("include { max_level: 3 }", {"level": 4}, False),
        ("include { min_level: -2 }", {"level": -2}, True),
        ('include { stage: "a" stage: "b" }', {"stages": ["a"]}, False),
        ('include { stage: "a" stage: "b" }', {"stages": ["b", "a", "c"]}, True),
        ('include { not_stage: "a" }', {}, True),
        ('include { not_stage: "a" }', {"stages": ["a"]}, False),
        ('include { phase: TRAIN } include { stage: "a" }', {"stages": ["a"]}, True),
        ('exclude { phase: TRAIN } exclude { stage: "a" }', {"stages": ["a"]}, False),
        ('exclude { phase: TEST stage: "a" }', {}, True),
    ],
)
def test_rules(rules: str, state: dict[str, object], kept: bool) -> None:
    assert keep(rules, **state) is kept


def test_rule_1_the_caller_replaces_phase_and_level_and_adds_stages() -> None:
    net = read_prototxt(
        'state { phase: TRAIN level: 5 stage: "file" }\n'
        'layer { name: "test" type: "ReLU" include { phase: TEST max_level: 0 } }\n'
        'layer { name: "both" type: "ReLU" include { stage: "file" stage: "mine" } }\n'
    )
    found = filter_layers(net, stages=["mine"])
    assert [layer.name for _, layer in found.kept] == ["test", "both"]
    assert found.stages == {"file", "mine"}


def test_reasons() -> None:
    net = read_prototxt(
        'layer { name: "a" type: "Data" include { phase: TRAIN } }\n'
        'layer { name: "b" type: "ReLU" include { min_level: 2 } include { stage: "deploy" } }\n'
        'layer { name: "c" type: "ReLU" exclude { phase: TEST not_stage: "x" } }\n'
        'layer { name: "d" type: "ReLU" }\n'
    )
    found = filter_layers(net)
    assert [(dropped.name, dropped.type, dropped.line) for dropped in found.dropped] == [
        ("a", "Data", 1),
        ("b", "ReLU", 2),
        ("c", "ReLU", 3),
    ]
    assert [dropped.reason for dropped in found.dropped] == [
        "include { phase: TRAIN }, the phase is TEST",
        'include { min_level: 2 }, the level is 0; include { stage: "deploy" }, which is not set',
        'exclude { phase: TEST not_stage: "x" }',
    ]
    assert [index for index, _ in found.kept] == [3]


def test_refusals() -> None:
    with pytest.raises(NetError, match="include and exclude") as caught:
        keep("include { } exclude { }")
    assert (caught.value.layer, caught.value.line) == ("a", 1)
    with pytest.raises(NetError, match="TEST or TRAIN"):
        keep("", phase="DEPLOY")


def test_as_caffe_recorded_it(goldens: Path) -> None:
    """The layers kept are the layers that real Caffe ran, in every recording of a tiny net."""
    checked = 0
    for case_file in sorted((goldens / "goldens" / "tiny").glob("*/case.json")):
        case = json.loads(case_file.read_text())
        if "expected_error" in case or "ran_as" in case:
            continue
        net = read_prototxt(case_file.with_name("net.prototxt"))
        found = filter_layers(net, phase=case["phase"], level=case["level"], stages=case["stages"])
        kept = [layer.name for _, layer in found.kept if layer.top]
        ran = [key.split(":")[0] for key in case["order"] if not key.startswith("input:")]
        assert set(kept) == set(ran), case_file.parent.name
        checked += 1
    assert checked > 200


STAGES = """
layer { name: "t" type: "Data" top: "data" include { stage: "train" } }
layer { name: "v" type: "Data" top: "data" include { stage: "val" } }
layer { name: "d" type: "Input" top: "data" include { stage: "deploy" } input_param { shape { dim: 1 dim: 3 } } }
layer { name: "r" type: "ReLU" bottom: "data" top: "r" }
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (STAGES, "the file does not declare the shape of input"),
        (STAGES.replace('bottom: "data"', 'bottom: "pre"'), 'reads blob "pre"'),
    ],
)
def test_files_of_several_stages_name_the_stage_to_give(text: str, words: str) -> None:
    """DIGITS writes training, validation and deployment into one file."""
    with pytest.raises(NetError, match=words) as caught:
        read_net(text)
    assert str(caught.value).endswith("give one, as in --stage deploy; its other stages are train, val")
    assert read_net(STAGES, stages=["deploy"]).inputs[0].shape == (1, 3)
    with pytest.raises(NetError) as caught:
        read_net(STAGES, stages=["val"])
    assert "--stage" not in str(caught.value)


# ---- doubts about the dialect


@pytest.mark.parametrize(
    ("dialect", "layer", "warns"),
    [
        ("bvlc", 'type: "Interp"', True),
        ("ssd", 'type: "Interp"', True),
        ("deeplab_v2", 'type: "Interp"', False),
        ("bvlc", 'type: "ReLU"', False),
        (None, 'type: "Interp"', False),
    ],
)
def test_a_dialect_without_the_layer_warns(dialect: str | None, layer: str, warns: bool) -> None:
    text = f'input: "x" input_shape {{ dim: 1 dim: 2 dim: 5 dim: 5 }} layer {{ name: "i" {layer} bottom: "x" top: "y"'
    text += " interp_param { zoom_factor: 2 } }" if "Interp" in layer else " }"
    warnings = read_net(text, dialect=dialect).warnings
    assert any(f'the dialect "{dialect}" has no layer type Interp' in warning for warning in warnings) is warns


V1 = 'input: "x" input_dim: 1 input_dim: 2 input_dim: 5 input_dim: 5 layers { name: "y" bottom: "x" top: "y" '


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("type: ARGMAX", "ArgMax without axis"),
        ("type: INNER_PRODUCT inner_product_param { num_output: 3 }", "InnerProduct"),
        ("type: ARGMAX argmax_param { axis: 1 }", None),
        ("type: RELU", None),
        ("type: ARGMAX strict_dim: true", None),  # a field of DeepLab v1 decides
    ],
)
def test_v1_files_whose_meaning_depends_on_the_dialect_warn(layer: str, words: str | None) -> None:
    warnings = read_net(V1 + layer + " }").warnings
    assert len(warnings) == (words is not None)
    assert words is None or f"DeepLab v1's Caffe computes {words} with other shapes" in warnings[0]
    assert not read_net(V1 + layer.replace(" argmax_param { axis: 1 }", "") + " }", dialect="deeplab_v1").warnings


# ---- inputs without a reader


def test_an_input_without_a_reader_is_an_output() -> None:
    text = (
        'input: "x" input_shape { dim: 1 dim: 2 } input: "free" input_shape { dim: 3 } '
        'input: "label" input_shape { dim: 1 }\n'
        'layer { name: "r" type: "ReLU" bottom: "x" top: "y" }\n'
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "y" bottom: "label" top: "l" }\n'
    )
    net = read_net(text)
    assert [blob.name for blob in net.outputs] == ["free", "y"]
    x, free = np.float32([[-1, 2]]), np.float32([1, 2, 3])
    module = to_torch(net)
    values = module(torch.from_numpy(x), torch.from_numpy(free), torch.zeros(1))
    assert (values["free"].numpy() == free).all()
    model = export_onnx(net, module)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    feeds = {"x": x, "free": free, "label": np.zeros(1, np.float32)}
    found = dict(zip(names, session.run(None, feeds), strict=True))
    assert (found["free"] == free).all()
    assert found["y"].tolist() == [[0, 2]]
