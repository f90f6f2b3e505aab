"""model.onnx: faithful, dynamic, and made of nodes that engines run fast."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from atrous.converter import Net, export_onnx, read_net, run_blobs, to_torch
from atrous.converter.export.onnx_export import BLOB_TABLE, value_names
from atrous.errors import ExportError, OutputError

from ..nets import DEEPLAB, conv, data, layer, random_input, read_seeded, relu

Array = np.ndarray[Any, Any]


def open_session(model: onnx.ModelProto | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run_onnx(model: onnx.ModelProto, inputs: dict[str, Array]) -> dict[str, Array]:
    session = open_session(model)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.fixture(scope="module")
def deeplab() -> tuple[Net, Any]:
    net = read_seeded(DEEPLAB)
    return net, to_torch(net)


# ---- the nodes


def test_dilated_convolutions_stay_one_node(deeplab: tuple[Net, Any]) -> None:
    """No Pad, no SpaceToBatch: one node per layer in order, except for the padding of ceil pooling."""
    nodes = list(export_onnx(*deeplab).graph.node)
    convs = [node for node in nodes if node.op_type == "Conv"]
    dilations = {node.output[0]: next(list(a.ints) for a in node.attribute if a.name == "dilations") for node in convs}
    assert list(dilations.values()) == [[1, 1], [1, 1], [2, 2], [3, 3], [1, 1]]
    assert {node.op_type for node in nodes} <= {
        *("Conv", "Relu", "MaxPool", "Identity", "Resize"),  # the layers
        *("Shape", "Slice", "Sub", "Add", "Mul", "Concat"),  # the size of the resize
    }
    assert len([node for node in nodes if node.op_type in ("Relu", "MaxPool", "Resize")]) == 8


def test_resize_is_linear_with_aligned_corners_and_sizes(deeplab: tuple[Net, Any]) -> None:
    (resize,) = [node for node in export_onnx(*deeplab).graph.node if node.op_type == "Resize"]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in resize.attribute}
    assert attributes == {"mode": b"linear", "coordinate_transformation_mode": b"align_corners"}
    assert list(resize.input[1:3]) == ["", ""]  # neither roi nor scales
    assert resize.input[3]


def test_inputs_and_outputs_are_caffes_blobs(deeplab: tuple[Net, Any]) -> None:
    model = export_onnx(*deeplab)
    assert [(i.name, shape_of(i)) for i in model.graph.input] == [("data", ["batch", 3, "height", "width"])]
    assert [(o.name, shape_of(o)) for o in model.graph.output] == [
        ("fc8_interp", ["batch", 5, "fc8_interp_2", "fc8_interp_3"])
    ]
    produced = {name for node in model.graph.node for name in node.output}
    assert {"conv1", "pool1", "fc6", "fc8", "fc8_interp"} <= produced
    assert {"conv1:conv1", "fc6:fc6"} <= produced  # the versions before ReLU and dropout


def test_weights_are_float32_under_their_state_dict_names(deeplab: tuple[Net, Any]) -> None:
    net, module = deeplab
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in export_onnx(net, module).graph.initializer}
    for name, tensor in module.state_dict().items():
        assert stored[name].dtype == np.float32
        assert (stored[name] == tensor.numpy()).all()


def test_model_names_its_producer(deeplab: tuple[Net, Any]) -> None:
    model = export_onnx(*deeplab)
    assert model.producer_name == "atrous"
    assert model.graph.name == "mini-deeplab"


# ---- opsets


@pytest.mark.parametrize("opset", range(17, 22))
def test_every_opset_is_valid_and_computes_the_same(deeplab: tuple[Net, Any], opset: int) -> None:
    net, module = deeplab
    model = export_onnx(net, module, opset=opset)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert model.ir_version <= 10
    for shape in ((1, 3, 41, 49), (2, 3, 33, 25)):
        inputs = random_input(net, data=shape)
        with torch.no_grad():
            wanted = module(torch.from_numpy(inputs["data"])).numpy()
        np.testing.assert_allclose(run_onnx(model, inputs)["fc8_interp"], wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("opset", [16, 22, 0])
def test_other_opsets_are_refused(deeplab: tuple[Net, Any], opset: int) -> None:
    with pytest.raises(ExportError, match=f"opset {opset} is not supported; choose one of 17 to 21"):
        export_onnx(*deeplab, opset=opset)


# ---- every blob


def test_all_blobs_equal_torch(deeplab: tuple[Net, Any]) -> None:
    net, module = deeplab
    inputs = random_input(net)
    results = run_onnx(export_onnx(net, module, all_blobs=True), inputs)
    blobs, names = run_blobs(module, inputs), value_names(net)
    compared = 0
    for key, blob in net.recorded_tops():
        np.testing.assert_allclose(results[names[blob]], blobs[key], atol=1e-5 * np.abs(blobs[key]).max())
        compared += 1
    assert compared == len(results) == 14


def test_blob_table_locates_each_blob(deeplab: tuple[Net, Any]) -> None:
    model = export_onnx(*deeplab)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    table = json.loads(properties[BLOB_TABLE])
    rows = {row["key"]: row for row in table}
    assert len(rows) == 14
    assert rows["relu_conv1:conv1"]["value"] == "conv1"
    assert rows["conv1:conv1"]["value"] == "conv1:conv1"
    assert rows["conv1:conv1"]["feeds"] == ["data"]
    assert rows["relu_conv1:conv1"]["feeds"] == ["conv1:conv1"]
    produced = {name for node in model.graph.node for name in node.output}
    assert {row["value"] for row in table} <= produced


# ---- graphs


def check_equal(text: str, *shapes: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    """torch and ONNX Runtime agree on every output, at the file's sizes and at others."""
    net = read_seeded(text)
    module = to_torch(net)
    model = export_onnx(net, module)
    onnx.checker.check_model(model, full_check=True)
    names = value_names(net)
    for given in ({}, *shapes):
        inputs = random_input(net, **given)
        with torch.no_grad():
            outputs = module(*(torch.from_numpy(inputs[blob.name]) for blob in net.inputs))
        wanted = outputs if isinstance(outputs, dict) else {net.outputs[0].name: outputs}
        found = run_onnx(model, inputs)
        for blob in net.outputs:
            np.testing.assert_allclose(found[names[blob]], wanted[blob.name].numpy(), atol=1e-5, rtol=1e-5)
    return model


def test_in_place_on_an_input() -> None:
    """The input keeps its name; the version written in place over it has its recording key."""
    model = check_equal(data(1, 2, 3, 3) + relu("r", "data") + conv("c", "data", "y", 2))
    assert [i.name for i in model.graph.input] == ["data"]
    assert "r:data" in {name for node in model.graph.node for name in node.output}


def test_output_that_was_written_over_an_input() -> None:
    model = check_equal(data(1, 2, 3, 3) + relu("r", "data") + relu("q", "data"))
    assert [o.name for o in model.graph.output] == ["q:data"]


def test_split_of_an_input_is_named_by_identities() -> None:
    check_equal(data(1, 2, 3, 3) + layer("Split", "s", "data", ["a", "b"]) + relu("r", "a"))


def test_one_value_as_two_tops() -> None:
    """An operator may return one value of its own for both tops; each gets its name."""
    from atrous.converter.export.onnx_graph import OnnxGraph

    graph = OnnxGraph("twice")
    graph.inputs.append(onnx.helper.make_tensor_value_info("x", 1, [2]))
    graph.reserve("x")
    for name in ("a", "b"):
        graph.reserve(name)
    graph.enter_layer("layer")
    value = graph.add("Neg", ["x"])
    for name in ("a", "b"):
        graph.name_top(value, name)
        graph.outputs.append(onnx.helper.make_tensor_value_info(name, 1, [2]))
    model = graph.model(producer="test", version="0")
    onnx.checker.check_model(model, full_check=True)
    results = run_onnx(model, {"x": np.array([1, -2], np.float32)})
    assert results["a"].tolist() == results["b"].tolist() == [-1, 2]


def test_blob_called_as_an_earlier_version_of_another() -> None:
    """The recording key "c:x" of the first version of x is also the name of a blob."""
    text = data(1, 2, 3, 3) + conv("c", "data", "x", 2) + relu("r", "x") + relu("q", "data", "c:x")
    model = check_equal(text)
    assert sorted(o.name for o in model.graph.output) == ["c:x", "x"]


def test_blobs_called_as_the_exporter_calls_its_own() -> None:
    names = ["constant_0", "y/Resize", "c/Conv", "graph/Cast", "c.weight", "c/Conv/node"]
    text, bottom = data(1, 2, 9, 9) + conv("c", "data", "x", 2), "x"
    for index, name in enumerate(names):
        text, bottom = text + relu(f"r{index}", bottom, name), name
    check_equal(text + layer("Interp", "y", bottom, "out", "interp_param { zoom_factor: 2 }"), {"data": (2, 2, 8, 5)})


def test_awkward_names_of_blobs() -> None:
    names = ['a"b', "a\\b", "a\nb", "слой", "a b", "../x", "class", "ﬁ", "fi", ":", "a:b#2"]
    text, bottom = data(1, 2, 3, 3), "data"
    for index, name in enumerate(names):
        text, bottom = text + relu(f"r{index}", bottom, name), name
    check_equal(text, {"data": (3, 2, 5, 1)})


def test_shared_weight_is_stored_once() -> None:
    extra = 'param { name: "w" }'
    text = data(1, 2, 6, 6) + "".join(conv(n, "data", n, 3, 3, "bias_term: false", extra) for n in "abc")
    model = check_equal(text)
    assert [tensor.dims for tensor in model.graph.initializer] == [[3, 2, 3, 3]]


def test_several_inputs_of_other_sizes() -> None:
    text = data(1, 2, 8, 8) + data(1, 4, 3, 3, name="small") + conv("c", "data", "x", 2, 3) + relu("r", "small", "y")
    check_equal(text, {"data": (2, 2, 5, 9), "small": (2, 4, 3, 3)})


def test_fixed_size_where_the_net_has_one() -> None:
    ip = layer("InnerProduct", "ip", "x", "y", "inner_product_param { num_output: 4 }")
    model = check_equal(data(1, 2, 6, 6) + conv("c", "data", "x", 2) + ip, {"data": (3, 2, 6, 6)})
    assert shape_of(model.graph.input[0]) == ["batch", 2, 6, 6]
    assert shape_of(model.graph.output[0]) == ["batch", 4]


# ---- refusals


def test_half_precision_module_is_refused(deeplab: tuple[Net, Any]) -> None:
    net, _ = deeplab
    with pytest.raises(ExportError, match=r"weight is float16, the graph is float32; call module\.float\(\)"):
        export_onnx(net, to_torch(net).half())


def test_file_is_written_atomically(deeplab: tuple[Net, Any], tmp_path: Path) -> None:
    model = export_onnx(*deeplab, tmp_path / "new" / "model.onnx")
    assert onnx.load(tmp_path / "new" / "model.onnx") == model
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        export_onnx(*deeplab, tmp_path / "file" / "model.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "new"]


def test_layer_without_an_onnx_form_is_named() -> None:
    from atrous.converter import ModuleSpec, Operator, register_layer

    registration = register_layer("TorchOnlyForThisTest")

    @registration
    class TorchOnly(Operator):
        def module_spec(self) -> ModuleSpec:
            return ModuleSpec("nn.Sigmoid")

    try:
        net = read_net(data(1, 2, 3, 3) + layer("TorchOnlyForThisTest", "odd", "data", "y"))
        with pytest.raises(ExportError, match='layer "odd": TorchOnlyForThisTest has no ONNX form') as caught:
            export_onnx(net, to_torch(net))
        assert caught.value.layer == "odd"
    finally:
        registration.undo()
