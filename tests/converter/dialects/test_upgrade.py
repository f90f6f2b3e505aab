"""V0 and V1 nets upgraded by the rules numbered in `upgrade`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from atrous.converter.dialects.upgrade import camel_case
from atrous.converter.files.prototxt import Prototxt, read_prototxt
from atrous.errors import PrototxtError
from atrous.proto import schema


def v0(layer: str, connections: str = "") -> str:
    return f"layers {{ layer {{ {layer} }} {connections} }}\n"


def only(text: str) -> Any:
    net = read_prototxt(text)
    assert len(net.net.layer) == 1
    return net.net.layer[0]


# V0 -----------------------------------------------------------------------------------------------------------------


def test_rule_1_parameters_go_to_the_message_of_the_type() -> None:
    layer = only(
        v0(
            'name: "c" type: "conv" num_output: 8 kernelsize: 5 stride: 2 pad: 1 group: 2 biasterm: false '
            'weight_filler { type: "gaussian" std: 0.1 } blobs_lr: 1 blobs_lr: 2 weight_decay: 0.5',
            'bottom: "x" top: "y"',
        )
    )
    conv = layer.convolution_param
    assert (layer.name, layer.type, list(layer.bottom), list(layer.top)) == ("c", "Convolution", ["x"], ["y"])
    assert (conv.num_output, list(conv.kernel_size), list(conv.stride), list(conv.pad)) == (8, [5], [2], [1])
    assert (conv.group, conv.bias_term, conv.weight_filler.type) == (2, False, "gaussian")
    assert [spec.lr_mult for spec in layer.param] == [1, 2]
    assert [spec.HasField("decay_mult") for spec in layer.param] == [True, False]


@pytest.mark.parametrize(
    ("text", "kind", "path", "value"),
    [
        ('type: "pool" pool: AVE kernelsize: 3', "Pooling", "pooling_param.pool", 1),
        ('type: "pool" kernelsize: 3', "Pooling", "pooling_param.kernel_size", 3),
        ('type: "innerproduct" num_output: 5', "InnerProduct", "inner_product_param.num_output", 5),
        ('type: "dropout" dropout_ratio: 0.25', "Dropout", "dropout_param.dropout_ratio", 0.25),
        ('type: "lrn" local_size: 3 k: 2', "LRN", "lrn_param.k", 2),
        ('type: "concat" concat_dim: 0', "Concat", "concat_param.concat_dim", 0),
        ('type: "data" source: "s" batchsize: 7', "Data", "data_param.batch_size", 7),
        ('type: "data" cropsize: 227', "Data", "transform_param.crop_size", 227),
        ('type: "images" meanfile: "m"', "ImageData", "transform_param.mean_file", "m"),
        ('type: "images" shuffle_images: true', "ImageData", "image_data_param.shuffle", True),
        ('type: "window_data" det_crop_mode: "square"', "WindowData", "window_data_param.crop_mode", "square"),
        ('type: "hdf5_output" hdf5_output_param { file_name: "f" }', "HDF5Output", "hdf5_output_param.file_name", "f"),
        ('type: "softmax_loss"', "SoftmaxWithLoss", "name", ""),
        ('type: "im2col"', "Im2col", "name", ""),
    ],
)
def test_rule_1_types(text: str, kind: str, path: str, value: object) -> None:
    layer = only(v0(text))
    assert layer.type == kind
    found: Any = layer
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


def test_rule_1_a_parameter_that_the_type_lacks_is_reported() -> None:
    net = read_prototxt("\n" + v0('name: "r" type: "relu" num_output: 3'))
    assert net.warnings == ('layer "r" (line 2): ignoring num_output: not a parameter of "relu" layers',)


def test_rule_2_padding_is_folded_into_its_reader() -> None:
    net = read_prototxt(
        v0('name: "p" type: "padding" pad: 3', 'bottom: "x" top: "p"')
        + v0('name: "c" type: "conv" num_output: 1 kernelsize: 7 pad: 1', 'bottom: "p" top: "c"')
        + v0('name: "q" type: "pool" kernelsize: 2', 'bottom: "c" top: "q"')
    )
    conv, pool = net.net.layer
    assert (list(conv.bottom), list(conv.convolution_param.pad)) == (["x"], [3])
    assert not pool.pooling_param.HasField("pad")
    assert net.lines == (2, 3)


def test_the_recorded_v0_net(goldens: Path) -> None:
    net = read_prototxt(goldens / "goldens" / "tiny" / "v0-padding-conv" / "net.prototxt")
    assert net.format == "V0"
    assert [layer.name for layer in net.net.layer] == ["conv1", "relu1", "pool1", "norm1", "ip", "prob"]
    assert list(net.net.layer[0].convolution_param.pad) == [2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (v0('name: "x" type: "fancy"'), '"fancy"'),
        (
            v0('type: "padding" pad: 1', 'bottom: "x" top: "p"') + v0('type: "relu"', 'bottom: "p" top: "r"'),
            "only conv and pool",
        ),
        (
            v0('type: "padding" pad: 1', 'bottom: "x" top: "p"')
            + v0('type: "conv"', 'bottom: "p" bottom: "x" top: "r"'),
            "one input each",
        ),
        (v0('type: "relu"') + 'layers { name: "a" type: RELU }', "of 2013"),
    ],
)
def test_v0_refusals_name_their_line(text: str, words: str) -> None:
    with pytest.raises(PrototxtError) as caught:
        read_prototxt(text)
    assert words in str(caught.value)
    assert caught.value.line is not None


# V1 -----------------------------------------------------------------------------------------------------------------


def test_rule_3_lists_become_param_entries() -> None:
    layer = only(
        'layers { name: "c" type: CONVOLUTION param: "w" param: "b" blob_share_mode: STRICT '
        "blob_share_mode: PERMISSIVE blobs_lr: 1 blobs_lr: 2 blobs_lr: 3 weight_decay: 1 }\n"
    )
    first, second, third = layer.param
    assert (first.name, first.share_mode, first.lr_mult, first.decay_mult) == ("w", 0, 1, 1)
    assert (second.name, second.share_mode, second.lr_mult, second.HasField("decay_mult")) == ("b", 1, 2, False)
    assert (third.HasField("name"), third.lr_mult) == (False, 3)


def test_rule_4_transformations_leave_the_data_message() -> None:
    layer = only(
        'layers { name: "d" type: IMAGE_DATA image_data_param { source: "s" scale: 0.5 mirror: true crop_size: 9 } }\n'
    )
    transform, data = layer.transform_param, layer.image_data_param
    assert (transform.scale, transform.mirror, transform.crop_size) == (0.5, True, 9)
    assert data.source == "s"
    assert not any(data.HasField(name) for name in ("scale", "mirror", "crop_size"))


@pytest.mark.parametrize(
    ("enum", "name"),
    [
        ("CONVOLUTION", "Convolution"),
        ("ABSVAL", "AbsVal"),
        ("IM2COL", "Im2col"),
        ("HDF5_DATA", "HDF5Data"),
        ("SOFTMAX_LOSS", "SoftmaxWithLoss"),
        ("SIGMOID_CROSS_ENTROPY_LOSS", "SigmoidCrossEntropyLoss"),
        ("TANH", "TanH"),
        ("RELU", "ReLU"),
        ("IMAGE_SEG_DATA", "ImageSegData"),
        ("DENSE_CRF", "DenseCRF"),
        ("MAT_WRITE", "MatWrite"),
        ("SEG_ACCURACY", "SegAccuracy"),
        ("UNPOOLING", "Unpooling"),
        ("BN", "BN"),
        ("MULTI_STAGE_MEANFIELD", "MultiStageMeanfield"),
        ("PRELU", "PReLU"),
        ("ROIPOOLING", "ROIPooling"),
        ("ROI_POOLING", "ROIPooling"),
        ("BATCH_NORM", "BatchNorm"),
        ("RELU6", "ReLU6"),
        ("PRIORBOX", "PriorBox"),
        ("VOXEL_SOFTMAX", "VoxelSoftmax"),
    ],
)
def test_rule_5_types(enum: str, name: str) -> None:
    assert camel_case(enum) == name


def test_rule_5_every_parameter_message_keeps_its_name() -> None:
    """LayerParameter has every parameter message of V1LayerParameter under the same name."""
    old, new = schema.descriptor("V1LayerParameter"), schema.descriptor("LayerParameter")
    for field in old.fields:
        if field.message_type is not None and field.name != "layer":
            twin = new.fields_by_name[field.name]
            assert twin.message_type is field.message_type or twin.message_type.name == field.message_type.name


def test_a_v2_net_is_unchanged(goldens: Path) -> None:
    path = goldens / "goldens" / "tiny" / "bn-scale-inplace" / "net.prototxt"
    net: Prototxt = read_prototxt(path)
    assert net.format == "V2"
    assert net.net == text_format.Parse(path.read_text(), schema.message("NetParameter")())
