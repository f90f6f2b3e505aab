"""Dynamic axes: the sizes that may change, against the net built at every size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, note, settings

from atrous.converter import Net, read_net
from atrous.converter.export.deploy import find_size_rule
from atrous.converter.export.dynamic_axes import SYMBOLS, find_dynamic_axes
from atrous.converter.graph.build import reshape_net
from atrous.errors import ConverterError, ExportError, NetError
from tools.corpus import find_prototxts, read_corpus_net

from ..nets import DEEPLAB, conv, data, layer, relu
from ..random_graphs import RandomNet, random_nets

#: sizes at which the corpus is built; a build of a large net takes a tenth of a second
CORPUS_SIZES = (*range(1, 70, 5), *range(96, 600, 67), 224, 321, 512, 513)


def sizes(net: Net) -> dict[str, list[str | int]]:
    axes = find_dynamic_axes(net)
    return {blob.name: axes.sizes(blob) for blob in net.blobs()}


def test_sizes_that_follow_the_input_have_its_names() -> None:
    found = sizes(read_net(DEEPLAB))
    assert found["data"] == ["batch", 3, "height", "width"]
    assert found["conv1"] == ["batch", 6, "height", "width"]
    assert found["pool1"] == ["batch", 6, "pool1_2", "pool1_3"]
    assert found["fc8"] == ["batch", 5, "fc8_2", "fc8_3"]
    # of 41 + 16 pixels come 57 scores, of 41 + 1 come 41 still: its own size, not the input's
    assert found["fc8_interp"] == ["batch", 5, "fc8_interp_2", "fc8_interp_3"]


def test_inner_product_fixes_height_and_width_but_not_the_batch() -> None:
    ip = layer("InnerProduct", "ip", "x", "y", "inner_product_param { num_output: 4 }")
    found = sizes(read_net(data(1, 3, 8, 8) + conv("c", "data", "x", 2) + ip))
    assert found == {"data": ["batch", 3, 8, 8], "x": ["batch", 2, 8, 8], "y": ["batch", 4]}


def test_sizes_that_rounding_hides_from_an_inner_product_are_not_taken() -> None:
    """7 and 8 columns both pool to the 4 that the weights are for; 9 do not."""
    pool = "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
    ip = layer("InnerProduct", "ip", "p", "y", "inner_product_param { num_output: 4 }")
    found = sizes(read_net(data(1, 3, 7, 7) + layer("Pooling", "p", "data", "p", pool) + ip))
    assert found == {"data": ["batch", 3, 7, 7], "p": ["batch", 3, 4, 4], "y": ["batch", 4]}


@pytest.mark.parametrize("size", [193, 200, 256])
def test_a_large_stride_hides_no_size_from_an_inner_product(size: int) -> None:
    """All of 193 to 256 columns pool to 4, none beyond."""
    pool = "pooling_param { pool: MAX kernel_size: 64 stride: 64 }"
    ip = layer("InnerProduct", "ip", "p", "y", "inner_product_param { num_output: 4 }")
    net = read_net(data(1, 3, size, size) + layer("Pooling", "p", "data", "p", pool) + ip)
    assert sizes(net)["data"] == ["batch", 3, size, size]
    check_against_builder(net, ({"height": height} for height in range(190, 260)))


def test_reshape_to_numbers_fixes_all() -> None:
    reshape = "reshape_param { shape { dim: 2 dim: -1 dim: 8 } }"
    net = read_net(data(2, 3, 8, 8) + layer("Reshape", "r", "data", "y", reshape))
    found = sizes(net)
    assert found["data"] == ["batch", 3, "height", "width"]
    assert found["y"] == [2, "y_1", 8]
    half = read_net(data(1, 3, 4, 4) + layer("Reshape", "r", "data", "y", "reshape_param { shape { dim: 1 dim: 48 } }"))
    assert sizes(half)["data"] == [1, 3, 4, 4]


def test_batch_folded_into_another_axis_is_not_called_batch() -> None:
    net = read_net(data(1, 3, 4, 4) + layer("Reshape", "r", "data", "y", "reshape_param { shape { dim: -1 dim: 4 } }"))
    assert sizes(net)["y"] == ["y_0", 4]


def test_inputs_of_the_same_size_move_together() -> None:
    text = data(1, 3, 8, 8) + data(1, 3, 8, 8, name="other") + layer("Eltwise", "e", ["data", "other"], "y")
    found = sizes(read_net(text))
    assert found["data"] == found["other"] == found["y"] == ["batch", 3, "height", "width"]


def test_input_of_another_size_keeps_it() -> None:
    text = data(1, 3, 8, 8) + data(1, 1, 1, 2, name="data_dim") + relu("r", "data", "y") + relu("q", "data_dim", "z")
    assert sizes(read_net(text))["z"] == ["batch", 1, 1, 2]


def test_fixed_output_size() -> None:
    net = read_net(data(1, 3, 8, 8) + layer("Interp", "i", "data", "y", "interp_param { height: 5 width: 8 }"))
    assert sizes(net)["y"] == ["batch", 3, 5, 8]


def test_inputs_without_a_plane_have_a_batch_only() -> None:
    assert sizes(read_net(data(4, 10) + relu("r", "data", "y")))["y"] == ["batch", 10]
    assert sizes(read_net(data(2, 3, 4, 5, 6) + relu("r", "data", "y")))["y"] == ["batch", 3, 4, 5, 6]


def test_finding_the_axes_leaves_the_net_as_it_was() -> None:
    net = read_net(DEEPLAB)
    before = [blob.shape for blob in net.blobs()]
    find_dynamic_axes(net)
    assert [blob.shape for blob in net.blobs()] == before


# ---- against the builder


def build_at(net: Net, sizes: dict[str, int]) -> Net | None:
    """The net at these sizes of its first image input and of inputs that share them; None where it rejects them."""
    reference = next((blob.shape for blob in net.inputs if len(blob.shape) == 4), net.inputs[0].shape)
    shapes = {}
    for blob in net.inputs:
        shape = list(blob.shape)
        for name, size in sizes.items():
            axis = SYMBOLS[name]
            if (axis == 0 or len(shape) == 4) and shape[axis : axis + 1] == [reference[axis]]:
                shape[axis] = size
        shapes[blob.name] = shape
    try:
        built = reshape_net(net, shapes)
    except NetError as error:
        if "impossible shape" in str(error):
            raise OverflowError from error  # the builder's limit on memory, which is not a rule of the net
        return None
    return built if built.parameter_shapes() == net.parameter_shapes() else None


def check_against_builder(net: Net, changes: Iterable[dict[str, int]]) -> None:
    """Acceptance and all shapes, at every change of the net's own sizes."""
    axes = find_dynamic_axes(net)
    for blob in net.blobs():
        assert tuple(map(str, axes.shape(blob))) == tuple(map(str, blob.shape))
    for change in changes:
        try:
            built = build_at(net, change)
        except OverflowError:
            continue
        values = {**axes.trace.values, **change}
        assert (not axes.trace.restrict(axes.trace.guards, values)) == (built is not None), change
        varies = all(change.get(name, size) == size for name, size in axes.fixed.items())
        assert axes.accepts(change) == (built is not None and varies), change
        for blob, other in zip(net.blobs(), built.blobs(), strict=True) if built and varies else ():
            assert axes.shape_at(blob, change) == other.shape, (blob.name, change)


def changes_of(net: Net, sizes: Iterable[int]) -> Iterator[dict[str, int]]:
    symbols = find_dynamic_axes(net).trace.values
    yield from ({"batch": batch} for batch in range(1, 6) if symbols)
    if "height" in symbols:
        for size in sizes:
            yield from ({"height": size}, {"width": size}, {"height": size, "width": 2 * size % 601 + 1})


MANY = settings(
    deadline=None, max_examples=15, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@MANY
@given(random_nets())
def test_random_nets_at_all_sizes(drawn: RandomNet) -> None:
    note(drawn.text)
    net = read_net(drawn.text)
    check_against_builder(net, changes_of(net, (*range(1, 40), *range(40, 601, 41))))


@pytest.mark.conformance
@settings(MANY, max_examples=30, derandomize=False)
@given(random_nets(steps=16))
def test_many_random_nets_at_all_sizes(drawn: RandomNet) -> None:
    note(drawn.text)
    net = read_net(drawn.text)
    check_against_builder(net, changes_of(net, range(1, 601)))


@MANY
@given(random_nets())
def test_size_rule_of_random_nets_is_the_smallest_that_the_builder_takes(drawn: RandomNet) -> None:
    note(drawn.text)
    net = read_net(drawn.text)
    image, scores = net.inputs[0], next((blob for blob in net.outputs if len(blob.shape) == 4), net.inputs[0])
    index = net.blobs().index(scores)

    def keeps(height: int, width: int) -> bool:
        built = build_at(net, {"height": height, "width": width})
        return built is not None and built.blobs()[index].shape[2:] == (height, width)

    try:
        rule = find_size_rule(net, image, scores, None)
    except ExportError:
        rule = None
    if rule is None or rule.fixed is not None:
        for multiple, offset in ((m, o) for m in (1, 2, 3, 4, 6, 8, 12, 16) for o in range(m)):
            sizes = [multiple * k + offset for k in (40, 41, 42, 43, 47)]
            assert not all(keeps(height, width) for height in sizes for width in sizes), (multiple, offset)
        return
    heights, widths = ([least + rule.multiple * k for k in (0, 1, 2, 5, 11)] for least in rule.minimum)
    assert all(keeps(height, width) for height in heights for width in widths)
    for axis, least in enumerate(rule.minimum):
        size = [heights[1], widths[1]]
        size[axis] = least - rule.multiple
        assert size[axis] < rule.multiple or not keeps(*size)


@pytest.mark.conformance
def test_corpus(shared_dir: Path) -> None:
    checked = 0
    for path in find_prototxts(shared_dir / "corpus"):
        try:
            net = read_corpus_net(path)
        except ConverterError:
            continue
        if net.inputs:
            check_against_builder(net, changes_of(net, CORPUS_SIZES))
            checked += 1
    assert checked > 150
