"""The sweep finds a layer that was made sensitive on purpose, and the search leaves alone as few layers as possible."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx
import pytest

from atrous.converter.export.deploy import export_deploy, fix_deployment, plan_deployment
from atrous.converter.export.torch_module import to_torch
from atrous.converter.precision import HeadReader, Picture, sensitivity
from atrous.converter.precision.assess import Reference, assess
from atrous.converter.precision.calibrate import observe
from atrous.converter.precision.quantize import find_quantizable, quantize_graph
from atrous.converter.precision.sensitivity import crop_center, find_fewest, sweep_layers

from ..nets import DEEPLAB, read_seeded
from .graphs import MEAN, change_weight, make_deploy, make_image, weights_of


@pytest.mark.parametrize("head", ["scores", "labels"])
def test_a_planted_bad_layer_is_found(head: str) -> None:
    """One weight per channel far beyond the others leaves int8 no steps for the rest; float32 is not affected."""
    model = make_deploy(head=head)  # type: ignore[arg-type]
    weight = weights_of(model)["conv3.weight"].copy()
    weight[:, 0, 0, 0] = 60.0
    model = change_weight(model, "conv3.weight", weight)
    # the channel that the large weights read is silenced, so that they matter to the scale alone
    silent = weights_of(model)["conv2.weight"].copy()
    silent[0] = 0
    model = change_weight(model, "conv2.weight", silent)
    quiet = weights_of(model)["conv2.bias"].copy()
    quiet.reshape(-1)[0] = 0
    model = change_weight(model, "conv2.bias", quiet)
    pictures = [Picture(make_image(41, 49, seed)) for seed in (1, 2)]
    seen = observe(model, [picture.image for picture in pictures], threads=1)
    layers = find_quantizable(model)
    reaches = {layer.source: seen[layer.source].largest for layer in layers}

    def build(alone: Collection[str]) -> onnx.ModelProto:
        return quantize_graph(model, [layer for layer in layers if layer.node not in alone], reaches, seen, "int8")

    reference = Reference(model, pictures, HeadReader(head), threads=1)  # type: ignore[arg-type]
    ranked = sweep_layers(reference, build, [layer.node for layer in layers])
    assert ranked[0].layer == "conv3"
    assert ranked[0].disagreement > 2 * ranked[1].disagreement
    assert {row.layer for row in ranked} == {"conv1", "conv2", "conv3", "fc6", "fc8"}
    assert (ranked[0].noise is None) == (head == "labels")


def test_a_graph_of_one_size_and_batch_sees_whole_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "SWEEP_SIDE", 16)
    net = read_seeded(DEEPLAB)
    model = export_deploy(fix_deployment(plan_deployment(net), (41, 49), 2), to_torch(net), mean=MEAN)
    pictures = [Picture(make_image(41, 49))]
    seen, layers = observe(model, [pictures[0].image], threads=1), find_quantizable(model)
    reaches = {layer.source: seen[layer.source].largest for layer in layers}

    def build(alone: Collection[str]) -> onnx.ModelProto:
        return quantize_graph(model, [layer for layer in layers if layer.node not in alone], reaches, seen, "int8")

    reference = Reference(model, pictures, HeadReader("scores"), threads=1)
    assert len(sweep_layers(reference, build, [layer.node for layer in layers])) == 5
    assert assess(reference, build(())).agreement.share > 0.9


@pytest.mark.parametrize("needed", [1, 2, 3, 4, 7])
def test_the_fewest_are_left_alone(needed: int) -> None:
    ranked = [f"layer{index}" for index in range(8)]
    asked: list[int] = []

    def passes(alone: Sequence[str]) -> bool:
        asked.append(len(alone))
        assert list(alone) == ranked[: len(alone)]
        return len(alone) >= needed

    assert find_fewest(ranked, passes) == ranked[:needed]
    assert len(asked) <= 4
    assert needed in asked  # what is returned was itself checked


def test_no_prefix_passes() -> None:
    assert find_fewest(["a", "b", "c"], lambda alone: False) is None
    assert find_fewest(["a"], lambda alone: True) is None


def test_crops_are_of_the_middle() -> None:
    image = np.zeros((10, 20, 3), np.uint8)
    image[4:6, 9:11] = 1
    assert crop_center(image, 2).all()
    assert crop_center(image, 50).shape == (10, 20, 3)
