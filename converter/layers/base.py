"""What every layer type states: its parameters, top shapes, weights, torch module and ONNX nodes.

One subclass of :class:`Operator` is one Caffe layer type (or a few spellings of one). It is made anew for every layer
of a net from a :class:`LayerContext`, checks there what Caffe checks in its set-up, and answers the questions below.
Nothing here imports torch: the module is named by a :class:`ModuleSpec` and made by `torch_module`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

import numpy as np

from ...errors import ExportError, NetError
from ..graph.crop_rule import CropRule
from ..graph.geometry import IDENTITY, PlaneMap, map_window
from ..graph.net import Blob, FloatArray, Shape

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value


@dataclass(frozen=True)
class LayerContext:
    """Where a layer stands.

    Attributes:
        name: layer name.
        type: V2 type string.
        message: its LayerParameter message.
        bottoms: the blobs it reads, with shapes and producers.
        top_names: the names it writes.
        dialect: the Caffe the file is from.
        line: line in the prototxt, or None.
        blob_count: how many blobs the weights hold for it, or None where not known; tells SegNet's BN from PSPNet's.
        crop_rule: what a Crop without crop_param means in this file.
        phase: TEST or TRAIN: the layer's own where it gives one, else the net's.
    """

    name: str
    type: str
    message: Any
    bottoms: tuple[Blob, ...]
    top_names: tuple[str, ...]
    dialect: str = "bvlc"
    line: int | None = None
    blob_count: int | None = None
    crop_rule: CropRule = CropRule.ZERO
    phase: str = "TEST"


@dataclass(frozen=True)
class ModuleSpec:
    """A torch module by name, so that it can be made or printed as source.

    Attributes:
        class_name: `nn.X` for torch's own, else the name of a class in `converter.modules`.
        arguments: keyword arguments, literals only.
        parameters: which attribute of the module takes each Caffe blob, in Caffe's order.
    """

    class_name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        plain = {name: _shorten_floats(value) for name, value in self.arguments.items()}
        object.__setattr__(self, "arguments", plain)

    def source(self) -> str:
        """The Python expression that makes the module."""
        return f"{self.class_name}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


def _shorten_floats(value: Any) -> Any:
    """The shortest decimals that are the same float32, as 0.1 for a message's 0.10000000149011612; tuples within."""
    if isinstance(value, tuple):
        return tuple(_shorten_floats(item) for item in value)
    if isinstance(value, float) and float(np.float32(value)) == value:
        return float(str(np.float32(value)))
    return value


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window along (height, width), for the receptive field.

    `kernel` is the extent with dilation; a transposed window has its stride in `upsampling`.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    upsampling: bool = False


class Operator:
    """One layer: subclasses fill in what differs from an elementwise function of one bottom."""

    #: (least, most) number of bottoms and tops; None is any number.
    bottom_range: ClassVar[tuple[int, int | None]] = (1, 1)
    top_range: ClassVar[tuple[int, int | None]] = (1, 1)
    #: the layer is applied to each bottom by itself, with the same weights, giving one top each
    maps_each_bottom: ClassVar[bool] = False
    #: Caffe lets it write over its bottom
    allows_in_place: ClassVar[bool] = True

    def __init__(self, context: LayerContext) -> None:
        self.context = context
        self.bottoms = context.bottoms
        self._check_count("bottom", len(context.bottoms), self.bottom_range)
        self._check_count("top", len(context.top_names), self.top_range)
        self.set_up()

    def set_up(self) -> None:
        """Read and check the layer's parameters (Caffe's LayerSetUp and Reshape checks)."""

    def top_shapes(self) -> tuple[Shape, ...]:
        """Shape of each top; the bottoms' own unless a subclass says otherwise."""
        return tuple(blob.shape for blob in self.bottoms)

    def weight_shapes(self) -> tuple[Shape, ...]:
        """Shape of each parameter blob as Caffe stores it; every subclass with weights says its own."""
        return ()

    def fillers(self) -> tuple[Any, ...]:
        """FillerParameter message (or None for zeros) of each parameter blob, used only where no weights are given."""
        return (None,) * len(self.weight_shapes())

    def module_spec(self) -> ModuleSpec:
        """The torch module that computes the layer."""
        raise NotImplementedError(f"{type(self).__name__} states no torch module")

    def load(self, module: Any, blobs: Sequence[FloatArray]) -> None:
        """Copy the parameter blobs into the module; the default reshapes each into its attribute."""
        from ..export.torch_parameters import copy_blob

        for attribute, blob in zip(self.module_spec().parameters, blobs, strict=True):
            copy_blob(getattr(module, attribute), blob)

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        """Write the layer's ONNX nodes; returns the name of each top's value.

        Raises:
            ExportError: the layer has no faithful ONNX form.
        """
        raise ExportError(f"{self.context.type} has no ONNX form; it runs in torch only", layer=self.context.name)

    def multiply_adds(self) -> int:
        """Multiply-adds of one forward pass at the laid-out shapes."""
        return 0

    def window(self) -> Window | None:
        """The sliding window over the first bottom's plane; None where the layer is pointwise."""
        return None

    def notes(self) -> tuple[str, ...]:
        """What a person should know of how this layer was read, in plain sentences."""
        return ()

    def coordinate_map(self) -> PlaneMap | None:
        """Where a pixel of the first bottom lies on the first top; None where the layer does not keep pixels in place.

        By default the window's centres, or the identity for a layer without a window that keeps the plane's size.
        """
        bottom, top = self.bottoms[0].shape, self.top_shapes()[0]
        if len(bottom) != 4 or len(top) != 4:
            return None
        window = self.window()
        if window is not None:
            return map_window(window)
        return IDENTITY if bottom[2:] == top[2:] else None

    # ---- helpers for subclasses

    def refuse(self, message: str) -> NoReturn:
        """Raise a NetError that names this layer and its line."""
        raise NetError(f"{self.context.type}: {message}", layer=self.context.name, line=self.context.line)

    def bottom_axis(self, axis: int, bottom: int = 0, *, extra: int = 0) -> int:
        """The non-negative form of a bottom's axis, as in Caffe (`extra` axes past the end allowed)."""
        count = len(self.bottoms[bottom].shape)
        if not -count <= axis < count + extra:
            self.refuse(f"axis {axis} is out of range for the {count}-D blob {self.bottoms[bottom].shape}")
        return axis + count if axis < 0 else axis

    def _check_count(self, what: str, count: int, allowed: tuple[int, int | None]) -> None:
        least, most = allowed
        if count < least or (most is not None and count > most):
            wanted = (
                f"exactly {least}" if least == most else f"at least {least}" + (f", at most {most}" if most else "")
            )
            self.refuse(f"has {count} {what}(s) but takes {wanted}")


def count(shape: Iterable[int]) -> int:
    """Number of elements of a shape."""
    return math.prod(shape)


_REGISTRY: dict[str, type[Operator]] = {}
_OperatorType = TypeVar("_OperatorType", bound="type[Operator]")


def register_layer(*type_names: str) -> Callable[[_OperatorType], _OperatorType]:
    """Class decorator that makes an :class:`Operator` the conversion of these Caffe layer types.

    A Python layer is registered as `Python:<module>.<Layer>`, the names of its python_param.

    A user's own layers register in the same way; a later registration of a name replaces the earlier one.
    """

    def register(operator: _OperatorType) -> _OperatorType:
        for name in type_names:
            _REGISTRY[name] = operator
        return operator

    return register


def registered_name(message: Any) -> str:
    """The name a layer's operator is registered under: its type, or `Python:<module>.<Layer>` for a Python layer."""
    if message.type != "Python":
        return str(message.type)
    return f"Python:{message.python_param.module}.{message.python_param.layer}"


def find_operator(type_name: str) -> type[Operator] | None:
    """The operator registered for a Caffe type string, or None."""
    return _REGISTRY.get(type_name)


def registered_types() -> tuple[str, ...]:
    """All Caffe type strings with a conversion, sorted."""
    return tuple(sorted(_REGISTRY))
