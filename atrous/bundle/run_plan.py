"""The section "run" of a manifest: `deploy.onnx` of a net that does not map one RGB image to class scores.

`atrous run` and `runtime.load_runner` follow it: each input of the graph says what it is fed with, each output what its
values are.
"""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, model_validator

from .choices import ColorOrder, PointOrder, Task
from .section import FileName, Section, Sides
from .size_rule import SizeRule

InputSource = Literal["color", "gray", "lightness", "depth", "array"]
OutputKind = Literal["classes", "values", "points", "labels", "image", "chroma", "map", "array"]

#: the kind of output that each task is about
KINDS: dict[Task, OutputKind] = {
    "segment": "labels",
    "classify": "classes",
    "regress": "values",
    "points": "points",
    "image": "image",
    "colorize": "chroma",
    "map": "map",
}
#: channels of each image input of the graph
CHANNELS: dict[InputSource, int] = {"color": 3, "gray": 1, "lightness": 1, "depth": 1}
#: the dtype of each; an array is float32 too
DTYPES: dict[InputSource, str] = {"color": "uint8", "gray": "uint8", "lightness": "float32", "depth": "float32"}


class RunInput(Section):
    """An input of the graph.

    * `color`: uint8 N x H x W x 3 RGB;
    * `gray`: uint8 N x H x W x 1, ITU-R 601 luma;
    * `lightness`: float32 N x H x W x 1, CIE L* of 0 to 100;
    * `depth`: float32 N x H x W x 1, the values of the depth file;
    * `array`: float32, the net's own blob.

    The graph computes (value - mean) * scale, channel by channel, in the order of `color_order`, repeats the edges
    `margin` pixels outward, and exchanges rows and columns if `transposed`. Images are resized to `size`; None leaves
    their size, if the net takes it. `size_rule` is of the image with its margin.
    """

    name: str
    blob: str
    source: InputSource
    shape: tuple[NonNegativeInt | str, ...]
    color_order: ColorOrder | None = None
    mean: tuple[float, ...] = ()
    scale: float = 1.0
    margin: NonNegativeInt = 0
    transposed: bool = False
    size: Sides | None = None
    size_rule: SizeRule | None = None

    @model_validator(mode="after")
    def _channels_agree(self) -> RunInput:
        if self.source == "array":
            return self
        count = CHANNELS[self.source]
        if len(self.mean) != count or len(self.shape) != 4 or self.shape[3] != count:
            raise ValueError(
                f'input "{self.name}" is {self.source}: it needs {count} mean values and N x H x W x {count}'
            )
        if self.size_rule is None or (self.source == "color") != (self.color_order is not None):
            raise ValueError(
                f'input "{self.name}" is {self.source}: "size_rule" or "color_order" is missing or misplaced'
            )
        return self


class RunOutput(Section):
    """An output of the graph, float32, by Caffe's blob name.

    * `classes`: N x L (x 1 x 1), scores of the classes of the manifest;
    * `values`: N x K, numbers; `points`: N x 2K, coordinates in the order of `points`;
    * `labels`: N x L x h x w, class scores of each pixel;
    * `image`: N x 1 or 3 x h x w, gray or in `color_order`: its gray levels are value / scale + mean;
    * `chroma`: N x 2 x h x w, CIE a* and b* for the image's lightness;
    * `map`: N x K x h x w, planes of values, of 0 to 1 if `is_unit`;
    * `array`: anything else.
    """

    name: str
    kind: OutputKind
    shape: tuple[NonNegativeInt | str, ...]
    scores_are: Literal["logits", "probabilities"] | None = None
    points: PointOrder | None = None
    color_order: ColorOrder | None = None
    mean: tuple[float, ...] = ()
    scale: float = 1.0
    is_unit: bool = False

    @model_validator(mode="after")
    def _kind_has_what_it_needs(self) -> RunOutput:
        if (self.kind in ("classes", "labels")) != (self.scores_are is not None):
            raise ValueError(f'output "{self.name}": "scores_are" belongs to classes and labels, and to no other')
        if (self.kind == "points") != (self.points is not None):
            raise ValueError(f'output "{self.name}": "points" belongs to points, and to no other')
        if self.kind == "image" and (self.scale == 0 or len(self.mean) not in (1, 3)):
            raise ValueError(f'output "{self.name}" is an image: it needs 1 or 3 mean values and a scale other than 0')
        return self


class RunPlan(Section):
    """The graph that `atrous run` runs, and what its net is for."""

    file: FileName
    task: Task
    inputs: tuple[RunInput, ...]
    outputs: tuple[RunOutput, ...]

    @model_validator(mode="after")
    def _has_both_ends(self) -> RunPlan:
        if not self.inputs or not self.outputs:
            raise ValueError('"run" needs at least one input and one output')
        return self
