"""The role of each layer of a file: input, dropped, computed, or unsupported."""

from __future__ import annotations

import pytest

from atrous.converter import Net, read_net
from atrous.errors import NetError, UnsupportedLayersError

from ..nets import conv, data, layer, relu


def inputs_of(net: Net) -> dict[str, tuple[int, ...]]:
    return {blob.name: blob.shape for blob in net.inputs}


def reasons_of(net: Net) -> dict[str, str]:
    return {entry.name: entry.reason for entry in net.dropped}


TRAIN_VAL = (
    layer(
        "ImageSegData", "source", [], ["data", "label", "data_dim"],
        "include { phase: TRAIN } transform_param { mirror: true crop_size: 41 mean_value: 1 }",
    )
    + layer(
        "ImageSegData", "source", [], ["data", "label", "data_dim"],
        "include { phase: TEST } transform_param { crop_size: 49 mean_value: 104.008 mean_value: 116.669 "
        "mean_value: 122.675 } image_data_param { label_type: PIXEL }",
    )
    + conv("fc8", "data", "fc8", 5)
    + layer("Interp", "label_shrink", "label", "label_shrink", "interp_param { shrink_factor: 8 }")
    + layer("SoftmaxWithLoss", "loss", ["fc8", "label_shrink"], "loss", "include { phase: TRAIN }")
    + layer("SegAccuracy", "accuracy", ["fc8", "label_shrink"], "accuracy")
    + layer("Silence", "silence", "data_dim", [])
    + layer("MatWrite", "fc8_mat", "fc8", [], "mat_write_param { prefix: 'features' }")
)  # fmt: skip


def test_train_val_net_of_deeplab() -> None:
    net = read_net(TRAIN_VAL)
    assert inputs_of(net) == {"data": (1, 3, 49, 49)}
    assert [entry.name for entry in net.layers] == ["fc8"]
    assert [blob.name for blob in net.outputs] == ["fc8"]
    reasons = reasons_of(net)
    assert reasons["label_shrink"] == "prepares labels for layers that only training needs"
    assert "atrous evaluate" in reasons["accuracy"]
    assert "outputs take its place" in reasons["fc8_mat"]
    assert "phase: TRAIN" in reasons["loss"]
    assert "silence" in reasons
    assert [entry.line for entry in net.dropped if entry.name == "accuracy"] == [6]


def test_the_other_phase_of_the_same_net() -> None:
    assert inputs_of(read_net(TRAIN_VAL, phase="TRAIN")) == {"data": (1, 3, 41, 41)}


def test_data_dim_that_something_reads_is_an_input() -> None:
    net = read_net(
        TRAIN_VAL + layer("Reshape", "keep", "data_dim", "size", "reshape_param { shape { dim: 0 dim: -1 } }")
    )
    assert inputs_of(net) == {"data": (1, 3, 49, 49), "data_dim": (1, 1, 1, 2)}


def test_label_that_the_net_itself_reads_is_an_input() -> None:
    text = layer("HDF5Data", "d", [], ["data", "mask"]) + layer("Eltwise", "e", ["data", "mask"], "y")
    shapes = {"data": (1, 2, 3, 3), "mask": (1, 2, 3, 3)}
    assert inputs_of(read_net(text, input_shapes=shapes)) == shapes


def test_part_of_a_label_branch_that_the_net_reads_stays() -> None:
    text = (
        layer("HDF5Data", "d", [], ["data", "label"])
        + relu("shared", "label", "l1")
        + relu("only_loss", "l1", "l2")
        + layer("Eltwise", "e", ["data", "l1"], "y")
        + layer("EuclideanLoss", "loss", ["y", "l2"], "loss")
    )
    net = read_net(text, input_shapes={"data": (1, 2, 3, 3), "label": (1, 2, 3, 3)})
    assert [entry.name for entry in net.layers] == ["shared", "e"]
    assert set(reasons_of(net)) == {"only_loss", "loss"}
    assert [blob.name for blob in net.outputs] == ["y"]


def test_loss_whose_second_top_is_read_is_no_longer_training() -> None:
    text = (
        data(1, 5, 3, 3) + layer("SoftmaxWithLoss", "loss", ["data", "data"], ["loss", "prob"]) + relu("r", "prob", "y")
    )
    with pytest.raises(
        UnsupportedLayersError, match=r'"loss" of type SoftmaxWithLoss .*its top "prob" is read by the net'
    ):
        read_net(text)


def test_loss_that_only_a_measurement_reads_is_dropped_with_it() -> None:
    text = (
        data(1, 5, 3, 3)
        + relu("r", "data", "y")
        + layer("SoftmaxWithLoss", "loss", ["y", "y"], ["loss", "prob"])
        + layer("Accuracy", "acc", ["prob", "y"], "acc")
        + layer("Silence", "s", ["loss"], [])
    )
    net = read_net(text)
    assert [blob.name for blob in net.outputs] == ["y"]
    assert set(reasons_of(net)) == {"loss", "acc", "s"}


# ---- data layers and their sizes

SOURCES = [
    ("Data", "transform_param { crop_size: 7 }", (1, 3, 7, 7)),
    ("ImageData", "image_data_param { new_height: 5 new_width: 9 }", (1, 3, 5, 9)),
    ("ImageData", "image_data_param { new_height: 5 new_width: 9 is_color: false }", (1, 1, 5, 9)),
    ("ImageData", "image_data_param { new_height: 5 new_width: 9 } transform_param { crop_size: 4 }", (1, 3, 4, 4)),
    ("WindowData", "window_data_param { crop_size: 6 }", (1, 3, 6, 6)),
    ("DenseImageData", "dense_image_data_param { new_height: 4 new_width: 8 }", (1, 3, 4, 8)),
    ("MemoryData", "memory_data_param { batch_size: 2 channels: 4 height: 5 width: 6 }", (2, 4, 5, 6)),
    (
        "AnnotatedData",
        "transform_param { resize_param { prob: 1 resize_mode: WARP height: 8 width: 10 } }",
        (1, 3, 8, 10),
    ),
]


@pytest.mark.parametrize(("kind", "body", "shape"), SOURCES)
def test_data_layer_declares_its_size(kind: str, body: str, shape: tuple[int, ...]) -> None:
    net = read_net(layer(kind, "d", [], ["data", "label"], body) + relu("r", "data", "y"))
    assert inputs_of(net) == {"data": shape}
    assert next(iter(net.definition.input_tops)).type == kind


@pytest.mark.parametrize("kind", ["Data", "ImageData", "HDF5Data", "WindowData", "MemoryData", "ImageSegData"])
@pytest.mark.parametrize("tops", [1, 2, 3, 5])
def test_data_layer_without_a_size_is_an_error(kind: str, tops: int) -> None:
    text = layer(kind, "d", [], ["data", "label", "c", "d", "e"][:tops]) + relu("r", "data", "y")
    with pytest.raises(NetError, match=rf'"d" \(line 1\): .*shape of input "data" \({kind}\).*--input data='):
        read_net(text)
    assert inputs_of(read_net(text, input_shapes={"data": (1, 2, 3, 4)})) == {"data": (1, 2, 3, 4)}


def test_python_layer_without_bottoms_is_a_source() -> None:
    python = layer("Python", "d", [], ["data", "label"], 'python_param { module: "voc_layers" layer: "VOC" }')
    text = python + relu("r", "data", "y")
    with pytest.raises(NetError, match=r"does not declare the shape"):
        read_net(text)
    assert inputs_of(read_net(text, input_shapes={"data": (1, 3, 4, 4)})) == {"data": (1, 3, 4, 4)}


def test_python_layer_with_bottoms_is_unsupported_by_name() -> None:
    text = data(1, 2, 3, 3) + layer("Python", "p", "data", "y", 'python_param { module: "my.layers" layer: "Roi" }')
    with pytest.raises(UnsupportedLayersError, match=r"arbitrary code \(my\.layers\.Roi\)"):
        read_net(text)


def test_transform_of_the_data_layer_is_kept() -> None:
    transform = read_net(TRAIN_VAL).definition.transform
    assert [round(value, 3) for value in transform.mean_value] == [104.008, 116.669, 122.675]
    assert read_net(data(1, 2, 3, 3) + relu("r", "data", "y")).definition.transform is None


# ---- inputs declared in the file


def test_input_layer_shapes() -> None:
    one = 'layer { name: "i" type: "Input" top: "a" top: "b" input_param { shape { dim: 1 dim: 2 } } }\n'
    two = one.replace("shape { dim: 1 dim: 2 }", "shape { dim: 1 dim: 2 } shape { dim: 3 }")
    tail = relu("r", "a", "y")
    assert inputs_of(read_net(one + tail)) == {"a": (1, 2), "b": (1, 2)}
    assert inputs_of(read_net(two + tail)) == {"a": (1, 2), "b": (3,)}
    with pytest.raises(NetError, match=r"gives 3 shapes for 2 tops"):
        read_net(two.replace("shape { dim: 3 }", "shape { dim: 3 } shape { dim: 4 }") + tail)


def test_legacy_inputs() -> None:
    dims = 'input: "a" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4\n' + relu("r", "a", "y")
    assert inputs_of(read_net(dims)) == {"a": (1, 2, 3, 4)}
    shapes = 'input: "a" input_shape { dim: 5 dim: 6 }\ninput: "b" input_shape { dim: 7 }\n' + relu("r", "a", "y")
    assert inputs_of(read_net(shapes)) == {"a": (5, 6), "b": (7,)}


def test_legacy_inputs_of_both_kinds() -> None:
    """Caffes with an Input layer use the shape; others reject the net."""
    both = 'input: "a" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4 input_shape { dim: 5 dim: 6 }\n'
    assert inputs_of(read_net(both + relu("r", "a", "y"))) == {"a": (5, 6)}
    assert inputs_of(read_net(both + relu("r", "a", "y"), dialect="ssd")) == {"a": (5, 6)}
    with pytest.raises(NetError, match="both input_dim and input_shape"):
        read_net(both + relu("r", "a", "y"), dialect="deeplab_v2")


def test_net_without_layers_that_run() -> None:
    net = read_net(data(1, 2, 3, 3))
    assert net.outputs == ()
    assert inputs_of(net) == {"data": (1, 2, 3, 3)}


# ---- dialect


def test_dialect_is_detected_with_evidence() -> None:
    net = read_net(data(1, 2, 3, 3) + layer("Interp", "up", "data", "y", "interp_param { zoom_factor: 2 }"))
    assert net.dialect == "deeplab_v2"
    assert any(line.startswith('type "Interp"') and "(line 2)" in line for line in net.dialect_evidence)
    plain = read_net(data(1, 2, 3, 3) + relu("r", "data", "y"))
    assert plain.dialect == "bvlc"
    assert plain.dialect_evidence == ("nothing in the file is unknown to BVLC Caffe",)


def test_dialect_given_by_the_caller() -> None:
    net = read_net(data(1, 2, 3, 3) + relu("r", "data", "y"), dialect="ssd")
    assert (net.dialect, net.dialect_evidence) == ("ssd", ("given by the caller",))


def test_unknown_dialect_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NetError, match=r'unknown dialect "deeplab"; choose one of: bvlc, .*deeplab_v1'):
        read_net(data(1, 2, 3, 3) + relu("r", "data", "y"), dialect="deeplab")


def test_dialect_too_old_for_the_file_is_refused() -> None:
    with pytest.raises(NetError, match=r"uses the V2 syntax, which deeplab_v1 cannot read \(V0, V1 only\)"):
        read_net(data(1, 2, 3, 3) + relu("r", "data", "y"), dialect="deeplab_v1")


# ---- size


def test_time_is_linear_in_the_number_of_layers() -> None:
    """Rules 3 and 4 look at every layer once."""
    text = layer("HDF5Data", "d", [], ["data", "label"]) + "".join(
        relu(f"l{index}", f"l{index - 1}" if index else "label", f"l{index}")
        + layer("EuclideanLoss", f"loss{index}", [f"l{index}", "data"], f"loss{index}")
        for index in range(1500)
    )
    net = read_net(text + relu("r", "data", "y"), input_shapes={"data": (1, 2, 3, 3)})
    assert [entry.name for entry in net.layers] == ["r"]
    assert len(net.dropped) == 3000
