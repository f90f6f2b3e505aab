"""`deploy.onnx`: image in, head out, with everything DeepLab does around the net inside the graph.

    image  uint8 N x H x W x 3, RGB
      1. float, minus mean, times scale
      2. N x C x H x W, zeros below and to the right up to a size the net takes (0 after the mean, as DeepLab pads)
      3. color order of the net; where only convolutions read the image, in their weights
      4. the net, up to its class scores
    head   scores: float32 N x L x H x W, cut to the image     labels: uint8 N x H x W, the first largest score
           lowres: float32 N x L x h x w, before the last upsampling, for the CRF stage to upsample

The size rule follows from the net's size expressions: the smallest step of sizes at which the scores are as large as
the input.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper

from ... import __version__
from ...bundle.choices import Head
from ...bundle.crf_parameters import BilateralTerm, CrfParameters, GaussianTerm
from ...bundle.size_rule import SizeRule
from ...errors import ExportError, InputError, NetError
from ..graph.build import reshape_net
from ..graph.net import Blob, Net
from ..graph.size_proofs import Accepted, UnsettledError, find_accepted, holds_on_grid
from ..graph.sizes import Guard, Trace, at_least, equality
from ..graph.subgraph import cut_net
from .dynamic_axes import StaticAxes, find_dynamic_axes
from .onnx_export import GraphValues, check_opset, write_layers, write_model
from .onnx_graph import DEFAULT_OPSET, FLOAT, UINT8, OnnxGraph, Value

#: no image is padded further than to a multiple of this; beyond it the net counts as one of fixed size
_MAX_MULTIPLE = 1024
_OWN_NAMES = frozenset({"image", "scores", "labels", "lowres"})
#: labels are uint8
MAX_CLASSES = 256
#: layers that refine scores; ONNX has no form for them
CRF_TYPES = ("DenseCRF", "MultiStageMeanfield")
#: layers after the scores that deployment leaves to others
_AFTER_SCORES = ("ArgMax", *CRF_TYPES)


@dataclass(frozen=True)
class Deployment:
    """The deployment of a net.

    Attributes:
        net: the net, cut after its class scores.
        image: its image input.
        scores: the blob of class scores.
        lowres: the scores before the last upsampling, where that is a plain Interp.
        size_rule: sizes the net takes.
        scores_are: `probabilities` where the scores come from a Softmax, else `logits`.
        crf: parameters of a DenseCRF layer that stood after the scores, or None.
        padded_to: the (height, width) that smaller images are padded to by request or by the data layer, or None.
        is_static: the graph takes the image's shape only, and all its shapes are static.
    """

    net: Net
    image: Blob
    scores: Blob
    lowres: Blob | None
    size_rule: SizeRule
    scores_are: Literal["logits", "probabilities"]
    crf: CrfParameters | None
    padded_to: tuple[int, int] | None = None
    is_static: bool = False

    @property
    def class_count(self) -> int:
        """Number of classes."""
        return self.scores.shape[1]


def plan_deployment(net: Net, *, minimum: tuple[int, int] | None = None) -> Deployment:
    """Find the class scores, the size rule and the CRF of a segmentation net.

    Args:
        net: the net.
        minimum: pad images to at least this (height, width); by default the crop size of an ImageSegData layer, which
            is what DeepLab pads to, else the smallest size the net takes.

    Raises:
        ExportError: the net does not map one image to a plane of class scores.
    """
    output, crf = _find_scores(net)
    cut = cut_net(net, [output])
    images = [blob for blob in cut.inputs if len(blob.shape) == 4 and blob.shape[1] == 3]
    if len(cut.inputs) != 1 or len(images) != 1:
        names = ", ".join(f"{blob.name} {blob.shape}" for blob in cut.inputs)
        raise ExportError(f"a deployment needs one image input of 3 channels; this net takes {names}")
    cut = _take_one_image(cut)
    image, scores = cut.inputs[0], cut.outputs[0]
    if scores.shape[1] > MAX_CLASSES:
        raise ExportError(
            f"the net scores {scores.shape[1]} classes; labels of a deployment are 0 to {MAX_CLASSES - 1}"
        )
    padded_to = minimum or _padded_crop(net)
    rule = find_size_rule(cut, image, scores, padded_to)
    producer = scores.producer
    lowres = None
    if producer is not None and producer.type == "Interp":
        operator = producer.operator
        plain = not (operator.pad_begin or operator.pad_end) and operator.shrink == 1  # type: ignore[attr-defined]
        lowres = producer.bottoms[0] if plain else None
    softmax = producer is not None and producer.type == "Softmax" and producer.operator.axis == 1  # type: ignore[attr-defined]
    return Deployment(cut, image, scores, lowres, rule, "probabilities" if softmax else "logits", crf, padded_to)


def fix_deployment(plan: Deployment, size: tuple[int, int], batch: int = 1) -> Deployment:
    """The deployment at one image size, (height, width), and one number of images per run, with static shapes.

    Raises:
        ExportError: the net does not take images of this size without padding, or this number of them at a time.
    """
    rule, wanted = plan.size_rule, f"{size[0]}x{size[1]}"
    with suppress(InputError):
        padded = rule.padded_size(*size)
        if padded != size:
            raise ExportError(f"the net pads {wanted} images to {padded[0]}x{padded[1]}: give that as the fixed size")
    if rule.fixed not in (None, size):
        raise ExportError(f"the net takes {rule.fixed[0]}x{rule.fixed[1]} images only, not {wanted}")
    try:
        net = reshape_net(plan.net, {plan.image.name: (batch, 3, *size)})
    except NetError as error:
        raise ExportError(f"the net does not take {batch} images of {wanted} pixels: {error}") from error
    twins = dict(zip(plan.net.blobs(), net.blobs(), strict=True))
    if net.parameter_shapes() != plan.net.parameter_shapes() or twins[plan.scores].shape[0] != batch:
        raise ExportError(f"the net does not take {batch} images of {wanted} pixels at a time")
    return replace(
        plan,
        net=net,
        image=twins[plan.image],
        scores=twins[plan.scores],
        lowres=None if plan.lowres is None else twins[plan.lowres],
        size_rule=SizeRule(fixed=size),
        is_static=True,
    )


def _take_one_image(net: Net) -> Net:
    """The net at a batch of one."""
    shape = net.inputs[0].shape
    if shape[0] == 1:
        return net
    try:
        single = reshape_net(net, {net.inputs[0].name: (1, *shape[1:])})
    except NetError:
        single = None
    if single is None or single.parameter_shapes() != net.parameter_shapes():
        raise ExportError(f"a deployment takes one image at a time; this net takes {shape[0]}, no more and no less")
    return single


def _find_scores(net: Net) -> tuple[Blob, CrfParameters | None]:
    """The blob of class scores, and the CRF that reads it."""
    planes = [
        blob
        for blob in net.outputs
        if len(blob.shape) == 4 and not (blob.producer is not None and blob.producer.operator.chooses_boxes)
    ]
    if not planes:
        shapes = ", ".join(f"{blob.name} {blob.shape}" for blob in net.outputs)
        raise ExportError(f"the net has no plane of class scores to deploy; its outputs are {shapes}")
    blob = max(planes, key=lambda b: (b.shape[2] * b.shape[3], b.producer is not None))
    crf = None
    while blob.producer is not None and blob.producer.type in _AFTER_SCORES:
        if blob.producer.type == "DenseCRF":
            crf = _crf_parameters(blob.producer.message)
        blob = blob.producer.bottoms[0]
    return blob, crf


def _crf_parameters(message: Any) -> CrfParameters:
    """A DenseCRF layer's parameters; both forks normalize after filtering (mode `deeplab`)."""
    if message.HasField("densecrf_param"):  # CCNN's, which always runs ten iterations
        param = message.densecrf_param
        place = (param.x_bilateral, param.y_bilateral)
        color = (param.r_bilateral, param.g_bilateral, param.b_bilateral)
        gaussian = (GaussianTerm((param.x_gauss, param.y_gauss), param.wt_gauss),)
        return CrfParameters("deeplab", 10, gaussian, (BilateralTerm(place, color, param.wt_bilateral),))
    param = message.dense_crf_param
    return CrfParameters(
        "deeplab",
        param.max_iter,
        tuple(GaussianTerm(*term) for term in zip(param.pos_xy_std, param.pos_w, strict=True)),
        tuple(BilateralTerm(*term) for term in zip(param.bi_xy_std, param.bi_rgb_std, param.bi_w, strict=True)),
    )


def _padded_crop(net: Net) -> tuple[int, int] | None:
    for top in net.definition.input_tops:
        if top.type == "ImageSegData" and top.shape is not None and len(top.shape) == 4 and top.shape[1] == 3:
            return top.shape[2], top.shape[3]
    return None


def find_size_rule(net: Net, image: Blob, scores: Blob | None, minimum: tuple[int, int] | None) -> SizeRule:
    """The smallest step of input sizes at which the scores always have the input's height and width.

    With `scores` None, the smallest step of sizes that the net takes, whatever its outputs.

    `multiple`, then `offset`, are the smallest such that the net takes all sizes `multiple * k + offset`, k > 0, from
    some size on. That is decided for all of them: along each axis for one period of what the net accepts, and where
    height and width depend on each other for the whole plane.

    Raises:
        ExportError: the scores are never as large as the input.
    """
    axes, wanted = find_dynamic_axes(net), minimum or (1, 1)
    trace = axes.trace
    sides = {name: trace.symbol(name, size) for name, size in zip(("height", "width"), image.shape[2:], strict=True)}
    wanted_sides = axes.shape(scores)[2:] if scores is not None else ()
    same = [equality(*pair) for pair in zip(wanted_sides, sides.values(), strict=scores is not None)]
    guards = trace.restrict([*trace.guards, *same], {"batch": image.shape[0]})
    alone = {name: [guard for guard in guards if trace.symbols(guard.terms) <= {name}] for name in sides}
    joint = [guard for guard in guards if trace.symbols(guard.terms) == sides.keys()]
    with suppress(UnsettledError):
        accepted = [find_accepted(trace, alone[name], name) for name in sides]
        for multiple, offset in _find_steps(accepted):
            least = [_find_least(sizes, multiple, offset) for sizes in accepted]
            if all(holds_on_grid(trace, guard, dict(zip(sides, least, strict=True)), multiple) for guard in joint):
                sizes = (max(wanted[0], least[0]), max(wanted[1], least[1]))
                return SizeRule(minimum=sizes, multiple=multiple, offset=offset)
    height, width = image.shape[2:]
    if scores is None or scores.shape[2:] == (height, width):
        return SizeRule(fixed=(height, width))
    raise ExportError(
        f"the scores of a {height}x{width} image are {scores.shape[2]}x{scores.shape[3]} and no size comes back as it "
        "went in; deploy the net from model.onnx, or end it with an Interp layer"
    )


def _find_steps(accepted: Sequence[Accepted]) -> Iterator[tuple[int, int]]:
    """All (multiple, offset) of sizes that both axes accept from some size on; other multiples of theirs follow."""
    period = math.lcm(*(sizes.period for sizes in accepted))
    start = period * -(-max(sizes.start for sizes in accepted) // period)
    both = np.logical_and.reduce([sizes.at(np.arange(start, start + period)) for sizes in accepted])
    for multiple in (step for step in range(1, min(period, _MAX_MULTIPLE) + 1) if period % step == 0):
        for offset in np.flatnonzero(both.reshape(-1, multiple).all(0)):
            yield multiple, int(offset)


def _find_least(accepted: Accepted, multiple: int, offset: int) -> int:
    """The least size `multiple * k + offset`, k > 0, from which on all such sizes are accepted."""
    sizes = np.arange(multiple + offset, accepted.start + 2 * multiple, multiple)
    refused = np.flatnonzero(~accepted.at(sizes))
    return int(sizes[refused[-1] + 1 if len(refused) else 0])


def export_deploy(
    plan: Deployment,
    module: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    head: Head = "scores",
    mean: Sequence[float],
    scale: float = 1.0,
    color_order: Literal["BGR", "RGB"] = "BGR",
    opset: int = DEFAULT_OPSET,
) -> onnx.ModelProto:
    """Write `deploy.onnx`; see the module docstring.

    Args:
        plan: from :func:`plan_deployment`.
        module: the torch module of `plan.net`, or of a net that contains it.
        path: where to write, atomically; None only returns the model.
        head: scores, labels or lowres.
        mean: three gray levels of 0 to 255 in `color_order`, subtracted first.
        scale: multiplied after the mean.
        color_order: the order of the net's input channels; the image is RGB.
        opset: 17 to 21.

    Raises:
        ExportError: the head does not exist for this net, or a layer has no ONNX form.
    """
    if head == "lowres" and plan.lowres is None:
        raise ExportError("the net does not end with a plain Interp layer, so it has no lowres head; use scores")
    net = plan.net if head != "lowres" else cut_net(plan.net, [plan.lowres])  # type: ignore[list-item]
    graph = OnnxGraph(net.name, check_opset(opset))
    static = StaticAxes() if plan.is_static else None
    any_batch = (static or find_dynamic_axes(net)).of(net.inputs[0])[0]
    any_size = plan.size_rule.fixed is None
    if any_size:
        graph.proves = partial(_holds_at_all_sizes, find_dynamic_axes(net).trace, plan.size_rule)
    sizes = Trace()
    known = (plan.image.shape[0], *plan.image.shape[2:])
    shape = zip(("batch", "height", "width"), known, (any_batch, any_size, any_size), strict=True)
    image = Value("image", (*(sizes.symbol(name, size) if varies else size for name, size, varies in shape), 3))
    graph.inputs.append(helper.make_tensor_value_info("image", UINT8, _image_sizes(image)))
    graph.reserve("image")
    # Sizes are read from the float pixels: TensorRT accepts a uint8 tensor in Cast nodes only.
    pixels = Value(graph.add("Cast", [image.name], to=FLOAT), image.shape)
    graph.bind_sizes(pixels)
    prepared = _prepare(graph, pixels, plan, mean[::-1] if color_order == "BGR" else mean, scale)
    if color_order == "BGR":
        prepared = graph.add("Gather", [prepared, graph.constant([2, 1, 0], "int64")], axis=1)
    values = write_layers(graph, net, module, {net.inputs[0].name: prepared}, _OWN_NAMES, static)
    if color_order == "BGR" and net.outputs[0] not in net.inputs:
        graph.fold_gather(prepared)
    _write_head(graph, values, net.outputs[0], head, pixels)
    model = graph.model(producer="atrous", version=__version__)
    write_model(model, path)
    return model


def _holds_at_all_sizes(trace: Trace, rule: SizeRule, guard: Guard) -> bool:
    """Whether a condition surely holds at all sizes that images are padded to."""
    first = dict(zip(("height", "width"), rule.padded_size(1, 1), strict=True))
    with suppress(UnsettledError):
        return holds_on_grid(trace, guard, first, rule.multiple)
    return False


def _prepare(graph: OnnxGraph, image: Value, plan: Deployment, mean: Sequence[float], scale: float) -> str:
    """Steps 1 and 2: N x H x W x 3 gray levels, float32 by now -> float32 N x 3 x H' x W', RGB as the mean."""
    pixels = graph.add("Sub", [image.name, graph.constant(list(mean))])
    if scale != 1.0:
        pixels = graph.add("Mul", [pixels, graph.constant(scale)])
    planes = graph.add("Transpose", [pixels], perm=[0, 3, 1, 2])
    rule = plan.size_rule
    if rule.fixed is not None or (rule.multiple == 1 and rule.minimum == (1, 1)):
        return planes
    missing = []
    for axis, least in zip((1, 2), rule.minimum, strict=True):
        size = image.shape[axis]
        steps = (at_least(size, least) - rule.offset + (rule.multiple - 1)) // rule.multiple
        missing.append(steps * rule.multiple + rule.offset - size)
    pads = graph.shape_tensor([0, 0, 0, 0, 0, 0, *missing])
    return graph.add("Pad", [planes, pads, graph.constant(0.0)], mode="constant")


def _write_head(graph: OnnxGraph, values: GraphValues, blob: Blob, head: Head, image: Value) -> None:
    """The head; what was padded below and to the right of the image is cut off again."""
    graph.enter_layer("head")
    graph.reserve(head)
    name = values.names[blob]
    batch, height, width, _ = _image_sizes(image)
    classes = blob.shape[1]
    if head == "lowres":
        graph.name_top(name, "lowres")
        sides = ["lowres_height", "lowres_width"]
        shape = [batch, classes, *(blob.shape[2:] if isinstance(values.axes, StaticAxes) else sides)]
        graph.outputs.append(helper.make_tensor_value_info("lowres", FLOAT, shape))
        return
    if isinstance(height, str) or blob.shape[2:] != (height, width):
        name = graph.slice(graph.slice(name, 2, 0, image.shape[1]), 3, 0, image.shape[2])
    if head == "labels":
        largest = graph.add("ArgMax", [name], axis=1, keepdims=0)
        # by way of float32: TensorRT casts to uint8 from float32 and float16 only
        graph.add("Cast", [graph.add("Cast", [largest], to=FLOAT)], to=UINT8, output="labels")
        graph.outputs.append(helper.make_tensor_value_info("labels", UINT8, [batch, height, width]))
        return
    graph.name_top(name, "scores")
    graph.outputs.append(helper.make_tensor_value_info("scores", FLOAT, [batch, classes, height, width]))


def _image_sizes(image: Value) -> list[str | int]:
    """N x H x W x 3, with names for what may change."""
    names = ("batch", "height", "width", "channels")
    return [names[axis] if image.is_dynamic(axis) else image.shape[axis] for axis in range(4)]
