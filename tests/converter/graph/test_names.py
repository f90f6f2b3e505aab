"""Names of layers and blobs become attributes of the module and keys of recordings."""

from __future__ import annotations

import re

from atrous.converter import read_net

from ..nets import conv, data, relu

AWKWARD = [
    *("", " ", ".", "..", "a.b", "a_b", "a/b", "a\\b", 'a"b', "a'b", "a\nb", "a\tb", "\x00", "class", "None", "match"),
    *("forward", "training", "train", "half", "to", "type", "graph", "code", "meta", "_modules", "_parameters", "load"),
    *(
        "__init__",
        "__dict__",
        "__class__",
        "self",
        "torch",
        "getattr",
        "1x1",
        "3",
        "-",
        "conv+1",
        "ﬁ",
        "fi",
        "\U0001d41d\U0001d41e\U0001d41f",
    ),
    *("größe", "слой", "层", "²", "a²", "①", "…", "\u202eabc", "x" * 300, 'x"); import os; os.abort(); ("'),
]


def awkward_net() -> str:
    """A chain of one 1x1 convolution for each name."""
    text, bottom = data(1, 2, 3, 3, name="in"), "in"
    for index, name in enumerate(AWKWARD):
        text += conv(name, bottom, f"top{index}", 2)
        bottom = f"top{index}"
    return text


def test_awkward_names_become_unique_attributes() -> None:
    net = read_net(awkward_net())
    assert [entry.name for entry in net.layers] == AWKWARD
    attributes = [entry.attribute for entry in net.layers]
    assert len(set(attributes)) == len(attributes)
    for attribute in attributes:
        assert re.fullmatch(r"[\w/ :+\-]+", attribute), attribute
        assert attribute.strip() == attribute


def test_plain_names_stay_as_they_are() -> None:
    names = ["conv1_1", "conv2_1/expand", "res2a_branch2a", "fc8_voc12", "inception_3a/3x3_reduce", "relu1-1", "a b"]
    text, bottom = data(1, 2, 3, 3, name="in"), "in"
    for index, name in enumerate(names):
        text, bottom = text + relu(name, bottom, f"top{index}"), f"top{index}"
    assert [entry.attribute for entry in read_net(text).layers] == names


def test_repeated_layer_names_get_numbers() -> None:
    text = data(1, 2, 3, 3) + relu("crop", "data", "a") + relu("crop", "a", "b") + relu("crop", "b", "c")
    net = read_net(text)
    assert [entry.attribute for entry in net.layers] == ["crop", "crop_2", "crop_3"]
    assert [key for key, _ in net.recorded_tops()] == ["data:data", "crop:a", "crop:b", "crop:c"]


def test_repeated_recording_keys_get_numbers() -> None:
    text = data(1, 2, 3, 3) + relu("r", "data", "a") + relu("r", "a") + relu("r", "a")
    assert [key for key, _ in read_net(text).recorded_tops()] == ["data:data", "r:a", "r:a#2", "r:a#3"]


def test_no_attribute_means_anything_to_torch() -> None:
    """Every name that a Module or GraphModule has already, public or not, is avoided."""
    import torch

    graph_module = torch.fx.GraphModule(torch.nn.Module(), torch.fx.Graph())
    known = {*dir(graph_module), *vars(graph_module), *dir(torch.nn.Module())}
    text, bottom = data(1, 2, 3, 3, name="in"), "in"
    for index, name in enumerate(sorted(known)):
        text, bottom = text + relu(name, bottom, f"top{index}"), f"top{index}"
    assert known.isdisjoint(entry.attribute for entry in read_net(text).layers)
