"""Plans `deploy.onnx` for nets of any inputs and outputs; see `atrous.bundle.run_plan` for what it describes.

What an output is, unless a task says otherwise:

1. a vector (N x L, or N x L x 1 x 1) after a Softmax, or with as many values as class names were given: classes;
2. any other vector: values;
3. planes after a Softmax, or as many as class names were given: labels;
4. two planes smaller than one gray image: chroma, as of colorization nets, whose input is then lightness;
5. one plane of a gray image, or three of a color image, that no Sigmoid made: an image;
6. at least two planes, if depth is among the inputs, or of about the image's size: labels;
7. any other planes: maps; anything else: an array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...bundle.choices import PointOrder, Task
from ...bundle.run_plan import KINDS, InputSource, OutputKind
from ...bundle.size_rule import SizeRule
from ...errors import ExportError, NetError
from ..graph.build import reshape_net
from ..graph.net import Blob, Net
from ..graph.subgraph import cut_net
from .deploy import MAX_CLASSES, find_size_rule
from .dynamic_axes import find_dynamic_axes

#: kinds by the task they make, the first that occurs decides
_TASKS: tuple[tuple[OutputKind, Task], ...] = (
    *(("labels", "segment"), ("image", "image"), ("chroma", "colorize"), ("classes", "classify")),
    *(("points", "points"), ("map", "map"), ("values", "regress"), ("array", "regress")),
)
_ABOUT = 8  # pixels between the sizes of an image and of its labels
_WHOLE_IMAGE: tuple[OutputKind, ...] = ("classes", "values", "points", "chroma")
_SOURCES: dict[int, tuple[InputSource, ...]] = {1: ("gray",), 3: ("color",), 4: ("color", "depth")}


@dataclass(frozen=True)
class PlannedInput:
    """An input blob: the parts it is joined from, channel by channel, and its size."""

    blob: Blob
    sources: tuple[InputSource, ...]
    margin: int = 0
    is_transposed: bool = False
    size: tuple[int, int] | None = None  # without the margin; None for the image's own
    size_rule: SizeRule | None = None


@dataclass(frozen=True)
class PlannedOutput:
    """An output blob."""

    blob: Blob
    kind: OutputKind
    is_softmax: bool
    is_unit: bool


@dataclass(frozen=True)
class RunDeployment:
    """The deployment of a net with any inputs and outputs.

    Attributes:
        net: the net for one image, cut after its outputs.
        task: what it is for.
        points: order of the coordinates, for the task "points".
    """

    net: Net
    task: Task
    inputs: tuple[PlannedInput, ...]
    outputs: tuple[PlannedOutput, ...]
    points: PointOrder | None = None

    @property
    def class_count(self) -> int:
        """Number of classes that an output scores, 0 if none does."""
        return next((o.blob.shape[1] for o in self.outputs if o.kind in ("labels", "classes")), 0)


def plan_run(
    net: Net,
    *,
    task: Task | None = None,
    classes: int = 0,
    points: PointOrder = "xy",
    size: tuple[int, int] | None = None,
    transposed: bool = False,
) -> RunDeployment:
    """Find out what each input and output of a net is.

    Args:
        net: the net.
        task: what it is for; None to find out.
        classes: number of class names that were given.
        points: order of the coordinates, for the task "points".
        size: (height, width) that images are resized to; None for the prototxt's, where that matters.
        transposed: whether the net takes images with rows and columns exchanged, as MATLAB feeds them.

    Raises:
        ExportError: if the net takes no image, or has no output for the task.
    """
    order = {layer: index for index, layer in enumerate(net.layers)}
    last = sorted(net.outputs, key=lambda blob: -1 if blob.producer is None else order[blob.producer])
    net = _take_one(cut_net(net, last))
    if not net.inputs or not any(len(blob.shape) == 4 for blob in net.inputs):
        raise ExportError("the net takes no image: use its model.onnx")
    boxes = [blob.name for blob in net.outputs if blob.producer is not None and blob.producer.operator.chooses_boxes]
    if boxes:
        raise ExportError(f"the net finds boxes ({', '.join(boxes)}): use its model.onnx")
    outputs = [_describe_output(net, blob, classes) for blob in net.outputs]
    if task is not None:
        outputs = _apply_task(outputs, task)
    kinds = {output.kind for output in outputs}
    chosen = task if task is not None else next(found for kind, found in _TASKS if kind in kinds)
    planned = tuple(outputs)
    return RunDeployment(
        net, chosen, _plan_inputs(net, planned, size, transposed), planned, points if chosen == "points" else None
    )


def _take_one(net: Net) -> Net:
    """The net at a batch of one, if it can have it."""
    shapes = {blob.name: blob.shape for blob in net.inputs}
    if all(shape[:1] == (1,) for shape in shapes.values()):
        return net
    batch = {shape[0] for shape in shapes.values() if len(shape) == 4}
    single = {name: (1, *s[1:]) if len(s) == 4 or s[:1] == tuple(batch) else s for name, s in shapes.items()}
    try:
        reshaped = reshape_net(net, single)
    except NetError:
        return net
    return reshaped if reshaped.parameter_shapes() == net.parameter_shapes() else net


def _describe_output(net: Net, blob: Blob, classes: int) -> PlannedOutput:
    """Rules 1 to 7 of the module."""
    producer = blob.producer.type if blob.producer is not None else ""
    is_softmax, is_unit = producer == "Softmax", producer == "Sigmoid"
    channels = [image.shape[1] for image in net.inputs if len(image.shape) == 4]
    kind: OutputKind = "array"
    count = blob.shape[1] if len(blob.shape) > 1 else 0
    if _is_vector(blob):
        kind = "classes" if is_softmax or (classes and count == classes) else "values"
    elif len(blob.shape) == 4:
        image = next((image.shape[2:] for image in net.inputs if len(image.shape) == 4), (0, 0))
        is_full = all(abs(side - own) <= _ABOUT for side, own in zip(blob.shape[2:], image, strict=True))
        has_depth = len(channels) > 1 or channels == [4]
        can_label = 1 < count <= MAX_CLASSES
        if can_label and (is_softmax or (classes and count == classes)):
            kind = "labels"
        elif count == 2 and channels == [1] and not is_full:
            kind = "chroma"
        elif count in (1, 3) and channels == [count] and not is_unit:
            kind = "image"
        elif can_label and (has_depth or is_full) and not is_unit:
            kind = "labels"
        else:
            kind = "map"
    return PlannedOutput(blob, kind, is_softmax, is_unit)


def _is_vector(blob: Blob) -> bool:
    return len(blob.shape) == 2 or (len(blob.shape) == 4 and blob.shape[2:] == (1, 1))


def _apply_task(outputs: Sequence[PlannedOutput], task: Task) -> list[PlannedOutput]:
    """Give the output that suits the task best its kind."""
    kind = KINDS[task]

    def suits(output: PlannedOutput) -> bool:
        count = output.blob.shape[1] if len(output.blob.shape) > 1 else 0
        if kind == "points" or kind == "values":
            return _is_vector(output.blob) and (kind == "values" or (count % 2 == 0 and not output.is_softmax))
        if kind == "classes":
            return _is_vector(output.blob)
        fits = {"labels": 2 <= count <= MAX_CLASSES, "image": count in (1, 3), "chroma": count == 2}.get(
            kind, count > 0
        )
        return fits and len(output.blob.shape) == 4

    found = [output for output in outputs if suits(output)]
    if not found:
        shapes = ", ".join(f"{output.blob.name} {output.blob.shape}" for output in outputs)
        raise ExportError(f'no output of the net suits the task "{task}"; its outputs are {shapes}')
    best = max(found, key=lambda output: (output.kind == kind, output.blob.shape[1:]))
    return [replace(output, kind=kind) if output is best else output for output in outputs]


def _plan_inputs(
    net: Net, outputs: Sequence[PlannedOutput], size: tuple[int, int] | None, transposed: bool
) -> tuple[PlannedInput, ...]:
    is_colorized = any(output.kind == "chroma" for output in outputs)
    has_color = any(len(blob.shape) == 4 and blob.shape[1] == 3 for blob in net.inputs)
    is_whole = any(output.kind in _WHOLE_IMAGE for output in outputs)
    axes = find_dynamic_axes(net)
    margin = _find_margin(net, outputs)
    planned = []
    for blob in net.inputs:
        sources = _SOURCES.get(blob.shape[1], ()) if len(blob.shape) == 4 else ()
        if sources == ("gray",):
            sources = ("lightness",) if is_colorized else ("depth",) if has_color else sources
        if not sources:
            planned.append(PlannedInput(blob, ("array",)))
            continue
        rule = SizeRule(fixed=(blob.shape[2], blob.shape[3]))
        if axes.of(blob)[2] and axes.of(blob)[3]:
            rule = find_size_rule(net, blob, None, None)
        own = (blob.shape[2] - 2 * margin, blob.shape[3] - 2 * margin)
        if transposed:
            own, rule = own[::-1], _swap_sides(rule)
        is_made_for = own != (1, 1) and is_whole
        wanted = own if rule.fixed is not None or is_made_for else None
        planned.append(PlannedInput(blob, sources, margin, transposed, size or wanted, rule))
    return tuple(planned)


def _swap_sides(rule: SizeRule) -> SizeRule:
    """The rule of images that are fed with rows and columns exchanged."""
    if rule.fixed is not None:
        return SizeRule(fixed=rule.fixed[::-1])
    return SizeRule(minimum=rule.minimum[::-1], multiple=rule.multiple, offset=rule.offset)


def _find_margin(net: Net, outputs: Sequence[PlannedOutput]) -> int:
    """Pixels to repeat at each edge so that an output covers the whole image: those that unpadded convolutions cut off.

    The output's height is step * height - cut; the margin is cut / (2 * step), where both sides agree on it.
    """
    axes = find_dynamic_axes(net)
    image = next(blob for blob in net.inputs if len(blob.shape) == 4)
    output = next((output for output in outputs if output.kind in ("image", "map", "labels")), None)
    if output is None or not all(axes.of(image)[2:]) or not all(axes.of(output.blob)[2:]):
        return 0
    margins = set()
    for axis, name in ((2, "height"), (3, "width")):
        sizes = [image.shape[axis], image.shape[axis] + 64]
        if not all(axes.accepts({name: size}) for size in sizes):
            return 0
        ends = [axes.shape_at(output.blob, {name: size})[axis] for size in sizes]
        step, rest = divmod(ends[1] - ends[0], 64)
        cut = step * sizes[0] - ends[0]
        if rest or step < 1 or cut <= 0 or cut % (2 * step):
            return 0
        margins.add(cut // (2 * step))
    return margins.pop() if len(margins) == 1 else 0
