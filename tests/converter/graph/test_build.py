"""The graph rules of build.py, numbered as in its docstring, on small nets."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np
import pytest

from atrous.converter import Net, read_net, read_prototxt, reshape_net, write_caffemodel
from atrous.errors import NetError, UnsupportedLayersError

from ..nets import conv, data, layer, random_weights, relu


def names_of(net: Net, name: str) -> list[str]:
    """The producers of a layer's bottoms."""
    found = next(entry for entry in net.layers if entry.name == name)
    return [blob.producer.name if blob.producer else blob.name for blob in found.bottoms]


# ---- rule 1: names


def test_bottom_is_the_latest_version_of_its_name() -> None:
    net = read_net(data(1, 2, 3, 3) + relu("a", "data", "x") + relu("b", "x") + relu("c", "x", "y"))
    assert names_of(net, "c") == ["b"]
    assert [(blob.name, blob.producer.name) for blob in net.outputs if blob.producer] == [("y", "c")]
    assert [key for key, _ in net.recorded_tops()] == ["data:data", "a:x", "b:x", "c:y"]


def test_unknown_bottom_names_layer_line_and_nearest_blob() -> None:
    text = data(1, 2, 3, 3) + relu("a", "data", "conv1_1") + relu("b", "conv1-1", "y")
    with pytest.raises(
        NetError, match=r'layer "b" \(line 3\): reads blob "conv1-1".*did you mean "conv1_1"\?'
    ) as caught:
        read_net(text)
    assert (caught.value.layer, caught.value.line) == ("b", 3)


def test_unknown_bottom_far_from_any_name_gets_no_hint() -> None:
    with pytest.raises(NetError) as caught:
        read_net(data(1, 2, 3, 3) + relu("a", "qqqqqqq", "y"))
    assert "did you mean" not in str(caught.value)


def test_a_blob_is_not_known_before_its_layer() -> None:
    with pytest.raises(NetError, match=r'reads blob "y"'):
        read_net(data(1, 2, 3, 3) + relu("b", "y", "z") + relu("a", "data", "y"))


@pytest.mark.parametrize(
    "text", [data(1, 2, 3, 3, name=""), data(1, 2, 3, 3) + relu("a", "data", "x").replace("x", "")]
)
def test_blob_without_a_name_is_refused(text: str) -> None:
    with pytest.raises(NetError, match=r"without a name"):
        read_net(text)


def test_input_declared_twice_is_refused() -> None:
    with pytest.raises(NetError, match=r'input "data" is declared twice'):
        read_net(data(1, 2, 3, 3) * 2 + relu("a", "data", "x"))


# ---- rules 2 and 3: in place


def test_in_place_over_an_input() -> None:
    net = read_net(data(1, 2, 3, 3) + relu("a", "data") + relu("b", "data", "y"))
    assert names_of(net, "b") == ["a"]
    assert [blob.name for blob in net.inputs] == ["data"]


def test_in_place_counts_only_at_the_same_index() -> None:
    text = data(1, 4, 3, 3) + data(1, 4, 3, 3, name="other")
    with pytest.raises(NetError, match=r'writes blob "other", which another layer has written'):
        read_net(text + layer("Eltwise", "sum", ["data", "other"], "other"))
    assert read_net(text + layer("Eltwise", "sum", ["data", "other"], "data")).outputs[0].name == "data"


def test_top_written_twice_by_one_layer_is_refused() -> None:
    with pytest.raises(NetError, match=r'"s".*writes top "x" twice'):
        read_net(data(1, 4, 3, 3) + layer("Slice", "s", "data", ["x", "x"]))


def test_top_written_by_two_layers_is_refused() -> None:
    with pytest.raises(NetError, match=r'layer "b".*writes blob "x", which another layer has written already'):
        read_net(data(1, 4, 3, 3) + relu("a", "data", "x") + relu("b", "data", "x"))


@pytest.mark.parametrize("reader_first", [True, False])
def test_in_place_after_another_reader_is_refused(reader_first: bool) -> None:
    """Caffe splits a blob with two readers before either runs, so the top would have two producers."""
    reader, writer = relu("r", "x", "y"), relu("w", "x")
    text = data(1, 4, 3, 3) + relu("a", "data", "x")
    if reader_first:
        with pytest.raises(NetError, match=r'layer "w".*in place after another layer has read it'):
            read_net(text + reader + writer)
    else:
        assert names_of(read_net(text + writer + reader), "r") == ["w"]


def test_in_place_on_a_blob_read_twice_by_the_layer_itself_is_refused() -> None:
    with pytest.raises(NetError, match=r"in place after another layer has read it"):
        read_net(data(1, 4, 3, 3) + layer("Eltwise", "double", ["data", "data"], "data"))


def test_in_place_where_the_layer_cannot() -> None:
    with pytest.raises(NetError, match=r'"p".*cannot run in place'):
        read_net(data(1, 4, 3, 3) + layer("Pooling", "p", "data", "data", "pooling_param { kernel_size: 1 }"))


def test_in_place_chain_keeps_every_version_apart() -> None:
    text = data(1, 4, 3, 3) + conv("c", "data", "x", 2) + relu("a", "x") + relu("b", "x") + relu("d", "x")
    assert [key for key, _ in read_net(text).recorded_tops()] == ["data:data", "c:x", "a:x", "b:x", "d:x"]


# ---- rule 4: shared memory


SPLIT = data(1, 4, 3, 3) + relu("r", "data", "x") + layer("Split", "s", "x", ["a", "b"])


def test_in_place_write_shows_in_the_other_tops_of_a_split() -> None:
    net = read_net(SPLIT + relu("w", "a") + relu("reader", "b", "y"))
    assert names_of(net, "reader") == ["w"]


def test_reader_before_the_write_sees_the_old_values() -> None:
    net = read_net(SPLIT + relu("reader", "b", "y") + relu("w", "a"))
    assert names_of(net, "reader") == ["s"]


def test_in_place_write_shows_through_a_reshape_of_the_same_shape() -> None:
    same = layer("Reshape", "s", "x", "a", "reshape_param { shape { dim: 0 dim: 0 dim: 0 dim: 0 } }")
    net = read_net(data(1, 4, 3, 3) + relu("r", "data", "x") + same + relu("w", "a") + relu("reader", "x", "y"))
    assert names_of(net, "reader") == ["w"]


@pytest.mark.parametrize("kind", ["Concat", "Slice"])
def test_concat_and_slice_of_one_blob_share_memory(kind: str) -> None:
    net = read_net(
        data(1, 4, 3, 3) + relu("r", "data", "x") + layer(kind, "s", "x", "a") + relu("w", "a") + relu("q", "x", "y")
    )
    assert names_of(net, "q") == ["w"]


def test_slice_of_several_tops_copies() -> None:
    net = read_net(data(1, 4, 3, 3) + layer("Slice", "s", "data", ["a", "b"]) + relu("w", "a") + relu("q", "data", "y"))
    assert names_of(net, "q") == ["data"]


def test_write_through_another_shape_is_refused_with_advice() -> None:
    text = data(1, 4, 3, 3) + relu("r", "data", "x") + layer("Flatten", "f", "x", "flat") + relu("w", "flat")
    with pytest.raises(
        NetError, match=r'reads blob "x" but layer "w" writes "flat" in place.*give the top of "w" a name'
    ):
        read_net(text + relu("q", "x", "y"))


def test_reading_one_name_of_shared_memory_leaves_the_other_writable() -> None:
    """Caffe counts readers by name: `b` has one, `a` has none but the layers that write over it."""
    net = read_net(SPLIT + relu("w", "a") + relu("reader", "b", "y") + relu("w2", "a"))
    assert names_of(net, "reader") == ["w"]
    assert [blob.name for blob in net.outputs] == ["a", "y"]
    assert not net.warnings


def test_output_written_over_in_another_shape_is_refused() -> None:
    text = SPLIT + layer("Flatten", "f", "a", "flat") + relu("w", "flat")
    with pytest.raises(NetError, match=r'output "b": layer "w" writes "flat" in place.*give the top of "w" a name'):
        read_net(text)


def test_merged_outputs_are_reported() -> None:
    net = read_net(SPLIT + relu("w", "a"))
    assert [blob.name for blob in net.outputs] == ["a"]
    assert any('output "b" shares its memory with "a"' in warning for warning in net.warnings)
    assert not read_net(SPLIT + relu("w", "a") + relu("q", "b", "y")).warnings


# ---- rule 5: shared parameters


def shared(first: str, second: str, mode: str = "") -> str:
    share = f'param {{ name: "w" {mode} }}'
    return (
        data(1, 4, 6, 6)
        + layer("Convolution", "a", "data", "x", f"{share} convolution_param {{ {first} bias_term: false }}")
        + layer("Convolution", "b", "data", "y", f"{share} convolution_param {{ {second} bias_term: false }}")
    )


def test_shared_parameter_is_one_blob() -> None:
    net = read_net(shared("num_output: 2 kernel_size: 3", "num_output: 2 kernel_size: 3 dilation: 2"))
    assert [str(key) for entry in net.layers for key in entry.parameters] == ["a/0", "a/0"]
    assert net.parameter_count() == 2 * 4 * 9


def test_strict_sharing_requires_the_same_shape() -> None:
    with pytest.raises(NetError, match=r'"b".*param "w" of shape \(3, 4, 3, 3\) cannot share.*"a"'):
        read_net(shared("num_output: 2 kernel_size: 3", "num_output: 3 kernel_size: 3"))


def test_permissive_sharing_requires_the_same_count() -> None:
    one, other = "num_output: 9 kernel_size: 2", "num_output: 4 kernel_size: 3"
    net = read_net(shared(one, other, "share_mode: PERMISSIVE"))
    assert net.parameter_count() == 144
    with pytest.raises(NetError, match=r"cannot share"):
        read_net(shared(one, other))
    with pytest.raises(NetError, match=r"cannot share"):
        read_net(shared(one, "num_output: 5 kernel_size: 3", "share_mode: PERMISSIVE"))


def test_unnamed_parameters_are_not_shared() -> None:
    text = shared("num_output: 2 kernel_size: 3", "num_output: 2 kernel_size: 3").replace('name: "w"', "lr_mult: 1")
    assert read_net(text).parameter_count() == 2 * 72


def test_more_param_entries_than_blobs_are_refused() -> None:
    with pytest.raises(NetError, match=r"has 1 param\{\} entries for 0 parameter blob"):
        read_net(data(1, 2, 3, 3) + layer("ReLU", "a", "data", "x", "param { lr_mult: 1 }"))


# ---- rule 6: outputs


def test_outputs_are_unread_tops_by_name() -> None:
    net = read_net(data(1, 4, 3, 3) + relu("1", "data", "z") + relu("2", "data", "b") + relu("3", "data", "m"))
    assert [blob.name for blob in net.outputs] == ["b", "m", "z"]


def test_silenced_blobs_are_no_outputs() -> None:
    text = data(1, 4, 3, 3) + relu("1", "data", "a") + relu("2", "data", "b")
    net = read_net(text + layer("Silence", "hush", "a", []))
    assert [blob.name for blob in net.outputs] == ["b"]
    assert [entry.name for entry in net.dropped] == ["hush"]


def test_net_of_silence_alone_keeps_its_tops_as_outputs() -> None:
    net = read_net(data(1, 4, 3, 3) + relu("1", "data", "a") + layer("Silence", "hush", "a", []))
    assert [blob.name for blob in net.outputs] == ["a"]


# ---- shapes


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (1, 3, 0, 4), (1, 1 << 20, 1 << 10, 1 << 10)])
def test_impossible_input_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(NetError, match=r"impossible shape"):
        read_net(data(*shape) + relu("a", "data", "x"))


def test_shape_given_by_the_caller() -> None:
    text = 'input: "data"\n' + relu("a", "data", "x")
    with pytest.raises(NetError, match=r'does not declare the shape of input "data".*--input data=1,3,321,321'):
        read_net(text)
    assert read_net(text, input_shapes={"data": (2, 3, 5, 7)}).outputs[0].shape == (2, 3, 5, 7)
    with pytest.raises(NetError, match=r"the net has no input image; its inputs are: data"):
        read_net(text, input_shapes={"data": (1, 1, 1, 1), "image": (1, 1, 1, 1)})
    with pytest.raises(NetError, match=r"impossible shape"):
        read_net(text, input_shapes={"data": (1, -3, 5, 7)})


def test_top_of_impossible_size_is_refused_before_anything_is_allocated() -> None:
    tile = "tile_param { axis: 1 tiles: 2000000000 }"
    with pytest.raises(NetError, match=r"impossible shape"):
        read_net(data(1, 4, 9, 9) + layer("Tile", "t", "data", "x", tile))


def test_parameter_of_impossible_size_is_refused() -> None:
    with pytest.raises(NetError, match=r'"ip".*parameter blob 0 would have the impossible shape'):
        read_net(
            data(1, 1000, 100, 100)
            + layer("InnerProduct", "ip", "data", "x", "inner_product_param { num_output: 1000000 }")
        )


def test_reshape_of_a_net_keeps_parameters_and_outputs() -> None:
    text = data(1, 3, 8, 8) + conv("c", "data", "x", 2, 3) + relu("r", "x", "y")
    net = read_net(text, random_weights(read_net(text)))
    other = reshape_net(net, {"data": (2, 3, 9, 11)})
    assert other.outputs[0].shape == (2, 2, 7, 9)
    assert other.parameters is net.parameters
    assert net.outputs[0].shape == (1, 2, 6, 6)
    with pytest.raises(NetError, match=r"its top would be empty"):
        reshape_net(net, {"data": (1, 3, 2, 2)})


# ---- unsupported layers


def test_unsupported_layers_are_listed_at_once_with_lines() -> None:
    text = (
        data(1, 2, 3, 3) + layer("Mystery", "m", "data", "x") + relu("r", "x", "y") + layer("Softmaxx", "s", "y", "z")
    )
    with pytest.raises(UnsupportedLayersError) as caught:
        read_net(text)
    assert [(name, kind, line) for name, kind, line, _ in caught.value.layers] == [
        ("m", "Mystery", 2), ("s", "Softmaxx", 4)
    ]  # fmt: skip
    assert "did you mean Softmax?" in str(caught.value)
    assert "register_layer" in str(caught.value)


def test_tolerant_build_skips_them() -> None:
    text = (
        data(1, 2, 3, 3)
        + relu("ok", "data", "a")
        + layer("Mystery", "m", "a", "x")
        + relu("after", "x", "y")
        + conv("side", "a", "z", 3)
    )
    net = read_net(text, tolerant=True)
    assert [entry.name for entry in net.layers] == ["ok", "side"]
    assert [(entry.name, entry.reason) for entry in net.dropped] == [
        ("m", "unknown type"),
        ("after", "reads the output of a layer without a conversion"),
    ]
    assert [blob.name for blob in net.outputs] == ["z"]


def test_building_allocates_no_parameters() -> None:
    """A net of 4 GB of weights is built at once."""
    ip = layer("InnerProduct", "ip", "data", "x", "inner_product_param { num_output: 100000 }")
    net = read_net(data(1, 100, 10, 10) + ip)
    assert net.parameter_count() == 100_000 * 10_000 + 100_000
    assert not net.parameters
    assert np.prod(net.outputs[0].shape) == 100_000


def test_layers_of_one_name_are_judged_separately(tmp_path: Path) -> None:
    """In a caffemodel layers have no lines, so (name, line) does not identify one."""
    text = data(1, 2, 3, 3) + relu("same", "data", "a") + layer("Mystery", "same", "data", "b") + conv("c", "a", "y", 3)
    blobs = {"c": [np.ones((3, 2, 1, 1), np.float32), np.ones(3, np.float32)]}
    write_caffemodel(tmp_path / "w.caffemodel", read_prototxt(text), blobs)
    net = read_net(None, tmp_path / "w.caffemodel", tolerant=True)
    assert [(entry.name, entry.type) for entry in net.layers] == [("same", "ReLU"), ("c", "Convolution")]
    assert [(entry.name, entry.type) for entry in net.dropped] == [("same", "Mystery")]
    other = reshape_net(net, {"data": (1, 2, 5, 5)})
    assert other.outputs[0].shape == (1, 3, 5, 5)


def test_last_in_place_write_stands_for_all_names_of_its_memory() -> None:
    text = data(1, 2, 3, 3) + layer("Split", "s", "data", ["a", "b", "c"])
    net = read_net(text + relu("ra", "a") + relu("rb", "b"))
    assert [(blob.name, blob.producer.name) for blob in net.outputs if blob.producer] == [("b", "rb")]
    assert net.warnings == tuple(
        f'output "{name}" shares its memory with "b", which is written in place: "b" stands for both' for name in "ac"
    )


@pytest.mark.parametrize("field", ["stride", "kernel_size", "dilation", "pad", "num_output", "group"])
def test_integer_that_caffe_cannot_store_is_refused(field: str) -> None:
    body = {"num_output": 1, "kernel_size": 1} | {field: 2**31}
    text = " ".join(f"{name}: {value}" for name, value in body.items())
    with pytest.raises(NetError, match=rf'"c" \(line 2\): Convolution: convolution_param.{field} is 2147483648; the'):
        read_net(data(1, 2, 3, 3) + layer("Convolution", "c", "data", "y", f"convolution_param {{ {text} }}"))


def many_tops(count: int) -> str:
    return layer("Split", "s", "data", [f"t{index}" for index in range(count)])


LARGE = {
    "tops": data(1, 1, 2, 2) + many_tops(40_000),
    "in place": data(1, 1, 2, 2) + many_tops(4_000) + "".join(relu(f"r{index}", f"t{index}") for index in range(4_000)),
    "equal names": data(1, 1, 2, 2) + "".join(relu("r", "data", f"y{index}") for index in range(8_000)),
    "axes": data(*[2**62] * 100_000),
    "dims": data(1, 1, 2, 2)
    + layer("Reshape", "r", "data", "y", "reshape_param { shape { " + "dim: 9 " * 40_000 + "} }"),
    "unknown types": data(1, 1, 2, 2) + "".join(layer(f"ReLU{n}", "r", "data", f"y{n}") for n in range(3_000)),
}


@pytest.mark.parametrize("kind", LARGE)
def test_time_is_linear_in_the_size_of_the_file(kind: str) -> None:
    """Each of these took 4 to 20 s of quadratic loops, or had a message of megabytes."""
    start = time.process_time()
    with contextlib.suppress(NetError):
        read_net(LARGE[kind])
    assert time.process_time() - start < 4


def test_input_of_too_many_axes_is_refused_in_one_short_line() -> None:
    with pytest.raises(NetError, match=r"impossible shape \(1, 1, 1, 1, \.\.\.\) of 33 axes; Caffe takes at most 32$"):
        read_net(data(*[1] * 33))
