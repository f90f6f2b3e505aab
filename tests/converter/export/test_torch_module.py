"""Net -> torch.fx.GraphModule: its values, and its use in torch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from atrous.converter import read_net, run_blobs, to_torch
from atrous.errors import NetError

from ..graph.test_names import AWKWARD, awkward_net
from ..nets import DEEPLAB, conv, data, layer, random_input, random_weights, read_seeded, relu

DEEPLAB_SIZES = [(1, 3, 41, 49), (2, 3, 33, 57), (1, 3, 9, 9)]


def test_layers_are_submodules_by_name_and_code_reads_like_the_prototxt() -> None:
    module = to_torch(read_seeded(DEEPLAB))
    assert [name for name, _ in module.named_children()] == [entry.name for entry in read_net(DEEPLAB).layers]
    lines = module.code.splitlines()
    calls = [line.split("self.")[1].split("(")[0] for line in lines if "self." in line]
    assert calls == [name for name, _ in module.named_children()]
    assert "def forward(self, data)" in module.code
    assert not module.training


def test_values_are_those_of_a_pipeline_written_by_hand() -> None:
    net = read_seeded(DEEPLAB)
    weights = {name: [torch.from_numpy(b.copy()) for b in blobs] for name, blobs in random_weights(net).items()}
    x = torch.randn(1, 3, 41, 49, generator=torch.Generator().manual_seed(0))

    def layer_of(name: str, value: torch.Tensor, hole: int = 1, last: bool = False) -> torch.Tensor:
        weight, bias = weights[name]
        pad = hole * (weight.shape[2] - 1) // 2
        value = F.conv2d(value, weight, bias.flatten(), padding=pad, dilation=hole)
        return value if last else F.relu(value)

    def pool(value: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(value, 3, 2, 1, ceil_mode=True)

    y = pool(layer_of("conv1", x))
    y = pool(layer_of("conv2", y))
    y = pool(layer_of("conv3", y, hole=2))
    y = layer_of("fc8", layer_of("fc6", y, hole=3), last=True)
    y = F.interpolate(y, (41, 49), mode="bilinear", align_corners=True)
    torch.testing.assert_close(to_torch(net)(x), y)


def test_one_output_is_a_tensor_and_several_are_a_dict_by_blob() -> None:
    one = to_torch(read_seeded(data(1, 3, 4, 4) + conv("c", "data", "y/a", 2)))
    assert one(torch.zeros(1, 3, 4, 4)).shape == (1, 2, 4, 4)
    two = to_torch(read_seeded(data(1, 3, 4, 4) + conv("c", "data", "y/a", 2) + relu("r", "data", "b b")))
    outputs = two(torch.zeros(1, 3, 4, 4))
    assert list(outputs) == ["b b", "y/a"]
    assert outputs["b b"].shape == (1, 3, 4, 4)


def test_net_that_computes_nothing_is_refused() -> None:
    with pytest.raises(NetError, match="computes nothing"):
        to_torch(read_net(data(1, 3, 4, 4)))


# ---- run_blobs


def test_every_top_has_its_recording_key() -> None:
    text = (
        data(1, 2, 3, 3)
        + layer("Power", "p", "data", "x", "power_param { shift: 1 }")
        + layer("Power", "p", "x", "x", "power_param { scale: 2 }")
        + layer("Power", "p", "x", "x", "power_param { shift: -5 }")
        + layer("Slice", "s", "x", ["l", "r"])
    )
    x = np.arange(18, dtype=np.float32).reshape(1, 2, 3, 3)
    blobs = run_blobs(to_torch(read_net(text)), {"data": x})
    assert list(blobs) == ["data:data", "p:x", "p:x#2", "p:x#3", "s:l", "s:r"]
    np.testing.assert_array_equal(blobs["p:x"], x + 1)
    np.testing.assert_array_equal(blobs["p:x#2"], 2 * (x + 1))
    np.testing.assert_array_equal(blobs["p:x#3"], 2 * (x + 1) - 5)
    np.testing.assert_array_equal(blobs["s:r"], 2 * (x[:, 1:] + 1) - 5)


def test_layer_over_several_bottoms_records_each_top() -> None:
    text = data(1, 2, 3, 3) + data(1, 2, 3, 3, name="other")
    text += layer(
        "Convolution", "c", ["data", "other"], ["x", "y"], "convolution_param { num_output: 2 kernel_size: 1 }"
    )
    net = read_seeded(text)
    blobs = run_blobs(to_torch(net), random_input(net))
    assert list(blobs) == ["data:data", "other:other", "c:x", "c:y"]
    assert np.abs(blobs["c:x"] - blobs["c:y"]).max() > 0.1


def test_run_blobs_requires_exactly_the_inputs() -> None:
    module = to_torch(read_net(data(1, 2, 3, 3) + relu("r", "data", "y")))
    with pytest.raises(NetError, match=r"the net's inputs are \['data'\]; got \['image'\]"):
        run_blobs(module, {"image": np.zeros((1, 2, 3, 3), np.float32)})


def test_sizes_that_torch_cannot_run_are_one_line() -> None:
    pooling = layer("Pooling", "p", "data", "y", "pooling_param { pool: MAX kernel_size: 3 stride: 2147483647 }")
    module = to_torch(read_net(data(1, 1, 4, 4) + pooling))
    with pytest.raises(
        NetError, match=r"^torch cannot run the net on data of 1x1x4x4: [^\n]*overflowed[^\n]*; give sizes"
    ):
        run_blobs(module, {"data": np.zeros((1, 1, 4, 4), np.float32)})


def test_run_blobs_does_not_touch_its_inputs() -> None:
    x = -np.ones((1, 2, 3, 3), np.float32)
    x.setflags(write=False)
    run_blobs(to_torch(read_net(data(1, 2, 3, 3) + relu("r", "data") + relu("q", "data"))), {"data": x})
    assert (x == -1).all()


# ---- use in torch


@pytest.fixture(scope="module")
def deeplab() -> Any:
    return to_torch(read_seeded(DEEPLAB))


@pytest.mark.parametrize("size", DEEPLAB_SIZES)
def test_any_batch_and_size(deeplab: Any, size: tuple[int, ...]) -> None:
    assert deeplab(torch.zeros(size)).shape == (size[0], 5, *size[2:])


def test_export_with_dynamic_batch_and_size(deeplab: Any) -> None:
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.export.export(deeplab, (torch.zeros(2, 3, 41, 49),), dynamic_shapes=(sizes,)).module()
    for size in DEEPLAB_SIZES:
        x = torch.randn(size, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(program(x), deeplab(x))


def test_compile_captures_one_graph(deeplab: Any) -> None:
    """Eager backend: this tests that the graph has no break, which needs no C++ compiler."""
    compiled = torch.compile(copy.deepcopy(deeplab), backend="eager", fullgraph=True, dynamic=True)
    for size in DEEPLAB_SIZES[:2]:
        x = torch.randn(size, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(compiled(x), deeplab(x))


def test_half_on_the_cpu(deeplab: Any) -> None:
    half = copy.deepcopy(deeplab).half()
    x = torch.randn(1, 3, 41, 49, generator=torch.Generator().manual_seed(1))
    y = half(x.half())
    assert y.dtype == torch.float16
    wanted = deeplab(x)
    assert (y.float() - wanted).abs().max() < 0.01 * wanted.abs().max()
    blobs = run_blobs(half, {"data": x.numpy()})
    assert blobs["fc8_interp:fc8_interp"].dtype == np.float16


def test_gradients_reach_every_parameter(deeplab: Any) -> None:
    module = copy.deepcopy(deeplab)
    module(torch.randn(1, 3, 41, 49, generator=torch.Generator().manual_seed(1))).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_state_dict_has_caffes_names(deeplab: Any) -> None:
    keys = [f"{name}.{kind}" for name in ("conv1", "conv2", "conv3", "fc6", "fc8") for kind in ("weight", "bias")]
    assert list(deeplab.state_dict()) == keys


# ---- parameters


def test_weights_are_copied_not_borrowed() -> None:
    text = data(1, 3, 4, 4) + conv("c", "data", "y", 2)
    weights = random_weights(read_net(text))
    before = weights["c"][0].copy()
    module = to_torch(read_net(text, weights))
    with torch.no_grad():
        module.c.weight.zero_()
    assert (weights["c"][0] == before).all()


def test_net_without_weights_is_the_same_every_time() -> None:
    text = data(1, 3, 4, 4) + conv(
        "c", "data", "y", 2, body='weight_filler { type: "xavier" } bias_filler { value: 3 }'
    )
    first, second = to_torch(read_net(text)), to_torch(read_net(text))
    assert (first.c.weight == second.c.weight).all()
    assert first.c.weight.abs().max() > 0
    assert first.c.bias.tolist() == [3, 3]


SHARED = data(1, 2, 6, 6) + "".join(
    conv(name, "data", name, 2, 3, f"dilation: {hole} pad: {hole}", 'param { name: "w" } param { name: "b" }')
    for name, hole in (("one", 1), ("two", 2))
)


def test_shared_parameters_stay_shared() -> None:
    net = read_seeded(SHARED)
    module = to_torch(net)
    assert module.one.weight is module.two.weight
    assert module.one.bias is module.two.bias
    assert len(list(module.parameters())) == 2
    copied = copy.deepcopy(module)
    assert copied.one.weight is copied.two.weight
    sum(output.sum() for output in module(torch.ones(1, 2, 6, 6)).values()).backward()
    assert module.one.weight.grad is module.two.weight.grad


def test_permissive_sharing_of_another_shape_copies_the_values() -> None:
    text = (
        data(1, 2, 6, 6)
        + conv("a", "data", "x", 9, 2, "bias_term: false", 'param { name: "w" }')
        + conv("b", "data", "y", 8, 3, "bias_term: false group: 2", 'param { name: "w" share_mode: PERMISSIVE }')
    )
    weight = np.arange(72, dtype=np.float32).reshape(9, 2, 2, 2)
    module = to_torch(read_net(text, {"a": [weight]}))
    assert module.b.weight.shape == (8, 1, 3, 3)
    assert (module.b.weight.detach().numpy().ravel() == weight.ravel()).all()


# ---- awkward names


def test_awkward_layer_names_run() -> None:
    net = read_seeded(awkward_net())
    module = to_torch(net)
    x = np.ones((1, 2, 3, 3), np.float32)
    blobs = run_blobs(module, {"in": x})
    assert len(blobs) == len(AWKWARD) + 1
    torch.testing.assert_close(module(torch.from_numpy(x)), torch.from_numpy(list(blobs.values())[-1]))
    torch.testing.assert_close(copy.deepcopy(module)(torch.from_numpy(x)), module(torch.from_numpy(x)))


def test_awkward_input_names_run() -> None:
    """Each becomes an argument; the three that look alike stay distinct."""
    names = ["a.b", "a/b", "a_b", "class", "self", "None", "getattr", "torch", "1x1", "ﬁ", "fi", "²", "", "x y", "__x"]
    names = [name for name in names if name]
    text = "".join(data(1, 1, 2, 2, name=name) for name in names) + layer("Concat", "c/at", names, "out put")
    net = read_net(text)
    module = to_torch(net)
    values = [torch.full((1, 1, 2, 2), float(index)) for index in range(len(names))]
    assert module(*values)[0, :, 0, 0].tolist() == list(range(len(names)))
    blobs = run_blobs(module, {name: value.numpy() for name, value in zip(names, values, strict=True)})
    assert blobs["c/at:out put"][0, :, 0, 0].tolist() == list(range(len(names)))


def test_a_net_of_stages_names_them() -> None:
    text = data(1, 3, 4, 4) + layer("ReLU", "r", "data", "r", 'include { stage: "deploy" }')
    with pytest.raises(NetError, match=r"computes nothing.*give one, as in --stage deploy"):
        to_torch(read_net(text))
