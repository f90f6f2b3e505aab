"""Fields that the schema lacks, by the role of their layer; the rules are numbered in `graph/unknown_fields.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from atrous.converter import ModuleSpec, Operator, read_net, read_prototxt, register_layer
from atrous.errors import PrototxtError, UnknownFieldError, UnsupportedLayersError

from ..nets import data, layer, relu

FIELDS = "turn_param { degrees: 90 axes: [1, -2] dim: 3 dim: 4 name: 'n' mode: FAST on: true inner < x: 0.5f > }"


class Turn(Operator):
    """A plug-in's layer that remembers its message."""

    seen: ClassVar[list[Operator]] = []

    def set_up(self) -> None:
        Turn.seen.append(self)

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("nn.Identity")


@pytest.fixture
def turn() -> Iterator[type[Turn]]:
    registration = register_layer("Turn")
    Turn.seen = []
    yield registration(Turn)
    registration.undo()


# ---- rule 1: layers that are not converted


@pytest.mark.parametrize(
    "text",
    [
        'layer { name: "d" type: "Data" top: "data" data_param { cache: true threads: 4 shuffle: true } %s }',
        'layer { name: "d" type: "ImageData" top: "data" image_data_param { cache: true } %s }',
        'layer { name: "d" type: "Data" top: "data" my_param { a { b: 1 } } %s }',
        # a fork's own data layer, by its name
        'layer { name: "d" type: "PoseData" top: "data" pose_param { stride: 8 } %s }',
    ],
)
def test_data_layers_lose_unknown_fields(text: str) -> None:
    net = read_net(text % "transform_param { crop_size: 8 jitter: 2 }" + "\n" + relu("r", "data", "r"))
    assert [(blob.name, blob.shape) for blob in net.inputs] == [("data", (1, 3, 8, 8))]
    assert "ignoring unknown fields of layers that are not converted: " in net.warnings[0]
    assert "(line 1)" in net.warnings[0]


def test_losses_metrics_and_other_phases_lose_unknown_fields() -> None:
    net = read_net(
        data(1, 3, 8, 8)
        + relu("r", "data", "r")
        + layer("SoftmaxWithLoss", "l", ["r", "label"], "loss", "loss_param { focal: 2 }")
        + layer("FocalLoss", "f", ["r", "label"], "focal", "focal_loss_param { gamma: 2 }")
        + layer("TopAccuracy", "a", ["r", "label"], "acc", "top_param { k: 5 }")
        + layer("ParseEvaluate", "e", ["r", "label"], "eval", "parse_evaluate_param { num_labels: 21 }")
        + layer("ReLU", "t", "r", "t", "relu_param { odd: 1 } include { phase: TRAIN }")
    )
    assert [entry.name for entry in net.layers] == ["r"]
    assert {dropped.name: dropped.reason for dropped in net.dropped}["f"].startswith("a loss by its name")
    for field in ("loss_param.focal", "focal_loss_param", "top_param", "parse_evaluate_param", "relu_param.odd"):
        assert field in net.warnings[0]


def test_a_loss_whose_top_is_read_is_not_dropped() -> None:
    text = data(1, 3, 8, 8) + layer("FocalLoss", "f", "data", "f") + relu("r", "f", "r")
    with pytest.raises(UnsupportedLayersError, match="its top"):
        read_net(text)


# ---- rule 2: plug-ins and unknown types


def test_a_plugin_reads_its_own_message(turn: type[Turn]) -> None:
    net = read_net(data(1, 3, 8, 8) + layer("Turn", "t", "data", "t", FIELDS + " turn_param { degrees: 7 }"))
    message = turn.seen[-1].context.message
    first, second = message.turn_param
    assert (first.degrees, second.degrees) == (90, 7)
    assert (first["axes"], first.dim, first.all("name")) == ([1, -2], [3, 4], ["n"])
    assert (first.mode, first.on, first.inner.x) == ("FAST", True, 0.5)
    assert (first.HasField("on"), first.HasField("off"), first.get("off", 3)) == (True, False, 3)
    assert (message.HasField("turn_param"), message.HasField("other_param"), message.name) == (True, False, "t")
    with pytest.raises(AttributeError, match="it has: degrees, axes"):
        _ = first.angle
    assert not net.warnings


def test_a_plugin_reads_new_fields_of_known_messages(turn: type[Turn]) -> None:
    body = "convolution_param { kernel_size: 3 angle: 30 engine: MKLDNN }"
    read_net(data(1, 3, 8, 8) + layer("Turn", "t", "data", "t", body))
    param = turn.seen[-1].context.message.convolution_param
    assert (list(param.kernel_size), param.angle, param.engine) == ([3], 30, "MKLDNN")


def test_unknown_types_are_listed_at_once_whatever_their_fields() -> None:
    text = data(1, 3, 8, 8) + layer("Turn", "t", "data", "t", FIELDS) + layer("Sorting", "s", "t", "s", "a_param { }")
    with pytest.raises(UnsupportedLayersError) as caught:
        read_net(text)
    assert [kind for _, kind, _, _ in caught.value.layers] == ["Turn", "Sorting"]


def test_unknown_types_of_v1_are_listed_too() -> None:
    text = (
        'layers { name: "d" type: VIDEO_DATA top: "data" image_data_param { new_length: 16 } }\n'
        'layers { name: "c" type: CONVOLUTION3D bottom: "data" top: "c" convolution_param { kernel_depth: 3 } }\n'
        'layers { name: "t" type: TURN_OVER bottom: "c" top: "t" turn_param { degrees: 90 } }\n'
    )
    with pytest.raises(UnsupportedLayersError) as caught:
        read_net(text, input_shapes={"data": (1, 3, 16, 8, 8)})
    reasons = {kind: reason for _, kind, _, reason in caught.value.layers}
    assert "over time" in reasons["Convolution3D"]
    assert reasons["TurnOver"].startswith("unknown type")


@pytest.mark.parametrize(
    ("kind", "near"),
    [("relu", "ReLU"), ("BATCH_NORM", "BatchNorm"), ("Convolutoin", "Convolution"), ("CReLU", None),
     ("HardSwish", None), ("L2Normalize", None), ("HoleConvolution", None), ("VoxelSoftmax", None), ("Resize", None)],
)  # fmt: skip
def test_only_misspelled_types_get_a_suggestion(kind: str, near: str | None) -> None:
    with pytest.raises(UnsupportedLayersError) as caught:
        read_net(data(1, 3, 8, 8) + layer(kind, "x", "data", "x"))
    assert caught.value.layers[0][3] == ("unknown type" if near is None else f"unknown type; did you mean {near}?")


@pytest.mark.parametrize("kind", ["Correlation", "Segmentation", "Region"])
def test_a_known_type_without_a_conversion_has_a_reason(kind: str) -> None:
    with pytest.raises(UnsupportedLayersError) as caught:
        read_net(data(1, 3, 8, 8) + layer(kind, "x", "data", "x"))
    assert "did you mean" not in str(caught.value)
    assert "unknown type" not in str(caught.value)


# ---- rule 3: layers of atrous


def test_settings_that_change_no_result_are_ignored() -> None:
    net = read_net(
        "eltwise_mem_sharing: false default_cudnn_math_override: 0 mem_param { optimize_test: true }\n"
        + data(1, 3, 8, 8)
        + layer("BatchNorm", "b", "data", "b", "batch_norm_param { eps: 0.1 engine: CUDNN }")
        + layer("ReLU", "r", "b", "r", "relu_param { engine: MKL2017 } debug: true")
    )
    assert "eltwise_mem_sharing (line 1)" in net.warnings[0]
    assert "batch_norm_param.engine (line 3), relu_param.engine (line 4), debug (line 4)" in net.warnings[1]
    assert net.layers[0].operator.context.message.batch_norm_param.eps == pytest.approx(0.1)


@pytest.mark.parametrize(
    "body",
    [
        "batch_norm_param { stats_batch_size: 32 }",  # Intel
        'convolution_param { num_output: 2 kernel_size: 1 conv_algorithm: "auto" }',
        "quantization_param { bw_layer_in: 8 scale_in: 2.1 precision: DYNAMIC_FIXED_POINT }",
        "dropout_param { dropout_ratio: 0.5 random_seed: 7 }",  # NVCaffe
        "convolution_param { num_output: 2 kernel_size: 1 cudnn_convolution_algo_seeker: FINDEX }",
        "convolution_param { num_output: 2 kernel_size: 1 engine: LIBDNN }",  # naibaf7
        "bottom_data_type: CAFFE_FLOAT device: 0",
        "reshape_every_iter: false",  # FlowNet
        "bottom_mlu_dtype { type: DT_FLOAT16 }",  # Cambricon
        "convolution_param { num_output: 2 kernel_size: 1 } param { lr_mult: 1 sparse_ratio: 0.5 }",
        'convolution_param { num_output: 2 kernel_size: 1 weight_filler { type: "gaussian" layer_type: 3 } }',
    ],
)
def test_settings_of_other_forks_that_change_no_result(body: str) -> None:
    kind = {"batch_norm": "BatchNorm", "convolution": "Convolution", "dropout": "Dropout"}.get(body.split("_param")[0])
    net = read_net(data(1, 3, 8, 8) + layer(kind or "ReLU", "x", "data", "y", body))
    assert "change no result" in net.warnings[0]


def test_a_field_that_may_change_the_result_is_refused() -> None:
    text = data(1, 3, 8, 8) + 'layer { name: "r" type: "ReLU" bottom: "data" top: "r"\nrelu_param { bound: 6 } }'
    with pytest.raises(UnknownFieldError, match=r'3:14: ReLUParameter has no field "bound"'):
        read_net(text)
    text = data(1, 3, 8, 8) + layer("Pooling", "p", "data", "p", "pooling_param { pool: MEAN kernel_size: 2 }")
    with pytest.raises(PrototxtError, match='PoolMethod has no value "MEAN"'):
        read_net(text)


def test_fields_and_types_are_listed_at_once() -> None:
    """MS-CNN's nets have a field of their own in ROIPooling before layers of their own."""
    text = (
        data(1, 3, 8, 8) + layer("ReLU", "r", "data", "r", "relu_param { bound: 6 }") + layer("Sorting", "s", "r", "s")
    )
    with pytest.raises(UnsupportedLayersError) as caught:
        read_net(text)
    assert [kind for _, kind, _, _ in caught.value.layers] == ["ReLU", "Sorting"]
    assert 'ReLUParameter has no field "bound"' in str(caught.value)
    net = read_net(
        relu("a", "data", "a").join([data(1, 3, 8, 8), layer("ReLU", "r", "a", "r", "relu_param { x: 1 }")]),
        tolerant=True,
    )
    assert [entry.name for entry in net.layers] == ["a"]


def test_a_field_given_twice() -> None:
    """Some forks repeat resize_param in data layers."""
    twice = "transform_param { crop_size: 8 resize_param { height: 8 } resize_param { height: 9 } }"
    net = read_net(f'layer {{ name: "d" type: "Data" top: "data" {twice} }}\n' + relu("r", "data", "r"))
    assert "transform_param.resize_param (line 1)" in net.warnings[0]
    with pytest.raises(PrototxtError, match='"pool" is given twice'):
        read_net(data(1, 3, 8, 8) + layer("Pooling", "p", "data", "p", "pooling_param { pool: MAX pool: AVE }"))


@pytest.mark.parametrize("kind", ["RegionLoss", "Region", "ReLU"])
def test_values_of_another_type(kind: str) -> None:
    """Forks of YOLO write anchors as text or as numbers; softmax is a number or a bool."""
    body = 'region_param { anchors: "1.3, 1.7" softmax: true classes: 20 } convolution_param { group: x }'
    text = data(1, 3, 8, 8) + relu("r", "data", "r") + layer(kind, "x", "r", "y", body)
    if kind == "RegionLoss":
        assert "region_param.anchors (line 3)" in read_net(text).warnings[0]
    else:
        with pytest.raises(UnsupportedLayersError if kind == "Region" else PrototxtError) as caught:
            read_net(text)
        assert ("expected a number for anchors" in str(caught.value)) is (kind == "ReLU")


@pytest.mark.parametrize("text", ["inputs: 3", "layr { name: 'x' }", "base_lr: 0.1"])
def test_unknown_fields_of_the_net_are_refused(text: str) -> None:
    with pytest.raises(PrototxtError):
        read_prototxt(data(1, 3, 8, 8) + text)


# ---- limits


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("a_param { " * 33 + "} " * 33, "nested more than 32"),
        ("a_param { b: }", "expected a value for b"),
        ("a_param { b 3 }", 'expected ":" after b'),
        ("a_param { b: [1 2] }", 'expected "," or "]"'),
        ("a_param { b: 1", 'missing "}" of the a_param opened in line 2'),
        ("a_param", 'expected ":" after a_param'),
        ("a_param { b: ${X} }", "--set X=VALUE"),
    ],
)
def test_malformed_unknown_fields(body: str, words: str) -> None:
    with pytest.raises(PrototxtError, match=words.replace("[", r"\[").replace("{", r"\{").replace("$", r"\$")):
        read_prototxt(data(1, 3, 8, 8) + 'layer { name: "t" type: "Turn" ' + body + (" }" if body[-1] != "1" else ""))


def test_the_number_of_unknown_values_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atrous.converter.files.text_untyped.MAX_UNKNOWN_VALUES", 10)
    with pytest.raises(PrototxtError, match="more than 10 values of unknown fields"):
        read_prototxt('layer { name: "t" type: "Turn" t_param { ' + "a: 1 " * 11 + "} }")
