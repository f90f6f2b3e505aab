"""The nets written for the official weights, compared with the published prototxts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from atrous.converter import Net, read_net
from atrous.converter.graph.structure_diff import compare_structure
from atrous.converter.official.catalogue import read_catalogue
from atrous.converter.official.nets import ARCHITECTURES, Head, find_architecture
from atrous.errors import FetchError

#: architecture -> the published file in the corpus, and its experiment (see Head)
PUBLISHED = {
    "vgg16-4x4": ("deeplabv1-deeplab-4x4/test.prototxt", "pascal"),
    "vgg16-largefov": ("deeplabv1-largefov/test_1.prototxt", "voc12"),
    "vgg16-msc": ("deeplabv1-msc/test.prototxt", "pascal"),
    "vgg16-aspp": ("deeplabv2-vgg16-aspp/test.prototxt", "voc12"),
    "resnet101-msc-aspp": ("deeplabv2-resnet101/test.prototxt", "voc12"),
}


def describe(net: Net) -> dict[str, object]:
    """Everything that weights and results depend on, by layer name."""
    return {
        layer.name: (
            layer.type,
            tuple(blob.name for blob in layer.bottoms),
            tuple((blob.name, blob.shape) for blob in layer.tops),
            layer.operator.weight_shapes(),
            tuple(str(key) for key in layer.parameters),
        )
        for layer in net.layers
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_net_is_the_published_one(name: str, shared_dir: Path) -> None:
    file, experiment = PUBLISHED[name]
    variables = {"EXP": experiment, "NUM_LABELS": "21", "NET_ID": "published"}
    published = read_net(shared_dir / "corpus" / file, variables=variables)
    ours = read_net(ARCHITECTURES[name].write("ours", Head(experiment, 21)))
    assert describe(ours) == describe(published)
    assert ours.dialect == published.dialect
    assert ours.warnings == ()

    class Saved:
        layer = tuple(layer.message for layer in published.layers)

    assert compare_structure(ours, Saved) == ()


def test_every_architecture_is_compared_with_a_published_file_or_has_another_basis() -> None:
    uncompared = set(ARCHITECTURES) - set(PUBLISHED)
    assert uncompared == {"vgg16-msc-largefov"}
    assert "re-implementations" in ARCHITECTURES["vgg16-msc-largefov"].basis


def test_msc_largefov_is_largefov_with_paths_of_stride_8() -> None:
    """As in re-implementations of the published train.prototxt: strides 8, 4, 2, 1, 1."""
    net = read_net(ARCHITECTURES["vgg16-msc-largefov"].write("net", Head("voc12", 21)))
    layers = {layer.name: layer for layer in net.layers}
    strides = [layers[f"{blob}_conv"].operator.stride for blob in ("data", "pool1", "pool2", "pool3", "pool4")]  # type: ignore[attr-defined]
    assert strides == [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]
    assert {blob.shape for blob in layers["fc_fusion"].bottoms} == {(1, 21, 65, 65)}
    assert len(layers["fc_fusion"].bottoms) == 6
    largefov = read_net(ARCHITECTURES["vgg16-largefov"].write("net", Head("voc12", 21)))
    assert {layer.name for layer in largefov.layers} - set(layers) == {"fc8_interp"}
    assert [blob.shape for blob in net.outputs] == [(1, 21, 513, 513)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_without_a_head_the_net_ends_at_its_features(name: str) -> None:
    architecture = ARCHITECTURES[name]
    bare, whole = read_net(architecture.write("bare", None)), read_net(architecture.write("whole", Head("x", 5)))
    assert {layer.name for layer in bare.layers} < {layer.name for layer in whole.layers}
    assert not any(architecture.head_layer.fullmatch(layer.name) for layer in bare.layers)
    heads = [layer for layer in whole.layers if architecture.head_layer.fullmatch(layer.name) and layer.parameters]
    assert {architecture.head_layer.fullmatch(layer.name)["experiment"] for layer in heads} == {"x"}  # type: ignore[index]
    assert {layer.operator.weight_shapes()[0][0] for layer in heads} == {5}


def test_an_unknown_architecture_lists_the_known_ones() -> None:
    with pytest.raises(FetchError, match="vgg16-largefov"):
        find_architecture("vgg17")


def test_the_catalogues_sizes_are_those_of_the_nets() -> None:
    """Where a file is a caffemodel, its size follows from the net: four bytes a parameter."""
    checked = 0
    for model in read_catalogue().models:
        if model.weights.member is not None:
            continue
        head = Head("voc12", model.labels) if model.labels else None
        net = read_net(ARCHITECTURES[model.architecture].write("net", head))
        size = 4 * sum(math.prod(shape) for layer in net.layers for shape in layer.operator.weight_shapes())
        assert size == model.weights.size_bytes, model.name
        checked += 1
    assert checked == 10
