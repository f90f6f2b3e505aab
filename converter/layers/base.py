"""The interface of a layer type: parameters, top shapes, weights, torch module and ONNX nodes.

A subclass of :class:`Operator` is one Caffe layer type (or several similar ones). Each layer of a net has an instance,
built from a :class:`LayerContext`, which makes the checks of Caffe's set-up. This file does not import torch:
:class:`ModuleSpec` names the module, and `torch_module` builds it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

import numpy as np

from ...errors import ConverterError, ExportError, NetError
from ..dialects.known import BVLC, Dialect
from ..graph.crop_rule import CropRule
from ..graph.geometry import IDENTITY, PlaneMap, map_window
from ..graph.geometry import Window as Window
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
        dialect: the Caffe that the file comes from, with its capability flags.
        line: line in the prototxt, or None.
        blob_count: number of its blobs in the weights, or None if unknown; distinguishes SegNet's BN from PSPNet's.
        crop_rule: meaning of a Crop without crop_param in this file.
        phase: TEST or TRAIN: the layer's own where it gives one, else the net's.
    """

    name: str
    type: str
    message: Any
    bottoms: tuple[Blob, ...]
    top_names: tuple[str, ...]
    dialect: Dialect = BVLC
    line: int | None = None
    blob_count: int | None = None
    crop_rule: CropRule = CropRule.ZERO
    phase: str = "TEST"


@dataclass(frozen=True)
class ModuleSpec:
    """A torch module by class name and arguments, to instantiate or to write as source.

    Attributes:
        class_name: `nn.X` for torch's own, else the name of a class in `converter.modules`.
        arguments: keyword arguments, literals only.
        parameters: which attribute of the module takes each Caffe blob, in Caffe's order.
    """

    class_name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        plain = {name: shorten_floats(value) for name, value in self.arguments.items()}
        object.__setattr__(self, "arguments", plain)

    def source(self) -> str:
        """The Python expression that makes the module."""
        return f"{self.class_name}({', '.join(f'{name}={_literal(value)}' for name, value in self.arguments.items())})"


def _literal(value: Any) -> str:
    """The source of a value; `repr` gives `inf` and `nan`, which are not literals."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def shorten_floats(value: Any) -> Any:
    """The shortest decimals that are the same float32, as 0.1 for a message's 0.10000000149011612; tuples within."""
    if isinstance(value, tuple):
        return tuple(shorten_floats(item) for item in value)
    if isinstance(value, float) and float(np.float32(value)) == value:
        return float(str(np.float32(value)))
    return value


def given(**arguments: Any) -> dict[str, Any]:
    """The arguments that are set; None, False, 0 and () are the module's defaults and stay out of its source."""
    return {name: value for name, value in arguments.items() if value}


class Operator:
    """One layer; the defaults are those of an element-wise function of one bottom."""

    #: (least, most) number of bottoms and tops; None is any number.
    bottom_range: ClassVar[tuple[int, int | None]] = (1, 1)
    top_range: ClassVar[tuple[int, int | None]] = (1, 1)
    #: the layer maps each bottom to one top separately, with the same weights
    maps_each_bottom: ClassVar[bool] = False
    #: its top is rows of boxes whose choice depends on the data, so that rounding errors may change it
    chooses_boxes: ClassVar[bool] = False
    #: its top is random
    is_random: bool = False
    #: Caffe lets it overwrite its bottom
    allows_in_place: ClassVar[bool] = True
    #: multiply-adds for each value of the first bottom
    adds_per_value: ClassVar[int] = 0

    def __init__(self, context: LayerContext) -> None:
        self.context = context
        self.bottoms = context.bottoms
        self._check_count("bottom", len(context.bottoms), self.bottom_range)
        self._check_count("top", len(context.top_names), self.top_range)
        self.set_up()

    def set_up(self) -> None:
        """Read and check the layer's parameters (Caffe's LayerSetUp and Reshape checks)."""

    def top_shapes(self) -> tuple[Shape, ...]:
        """Shape of each top; by default that of the first bottom."""
        return (self.bottoms[0].shape,) * len(self.context.top_names)

    def weight_shapes(self) -> tuple[Shape, ...]:
        """Shape of each parameter blob as Caffe stores it; every subclass with weights says its own."""
        return ()

    def adapt_blobs(self, blobs: dict[int, Any]) -> tuple[dict[int, Any], str | None]:
        """The blobs of a weights file by index, in the order of :meth:`weight_shapes`, and a warning or None."""
        return blobs, None

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
        self.refuse_export("has no ONNX form; it runs in torch only")

    def multiply_adds(self) -> int:
        """Multiply-adds of one forward pass at the laid-out shapes."""
        return self.adds_per_value * count(self.bottoms[0].shape) if self.adds_per_value else 0

    def window(self) -> Window | None:
        """The sliding window over the first bottom's plane; None where the layer is pointwise."""
        return None

    def notes(self) -> tuple[str, ...]:
        """Warnings for the user about the conversion of this layer."""
        return ()

    def coordinate_map(self) -> PlaneMap | None:
        """Map from pixels of the first bottom to pixels of the first top; None if the layer rearranges pixels.

        By default the window's centers, or the identity for a layer without a window that keeps the plane's size.
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

    def refuse_export(self, message: str) -> NoReturn:
        """Raise an ExportError that names this layer."""
        raise ExportError(f"{self.context.type} {message}", layer=self.context.name)

    def require_positive(self, **fields: Any) -> None:
        """Refuse fields, numbers or tuples of them, that are not above 0."""
        for name, value in fields.items():
            if not all(number > 0 for number in (value if isinstance(value, tuple) else (value,))):
                self.refuse(f"{name} must be above 0, not {value}")

    def require_same_count(self, **fields: Sized) -> None:
        """Refuse repeated fields of different lengths."""
        if len({len(values) for values in fields.values()}) > 1:
            counts = " and ".join(f"{len(values)} {name}" for name, values in fields.items())
            self.refuse(f"has {counts}; give the same number of each")

    def bottom_axis(self, axis: int, bottom: int = 0, *, extra: int = 0) -> int:
        """The non-negative form of a bottom's axis, as in Caffe (`extra` axes past the end allowed)."""
        count = len(self.bottoms[bottom].shape)
        if not -count <= axis < count + extra:
            self.refuse(f"axis {axis} is out of range for the {count}-D blob {self.bottoms[bottom].shape}")
        return axis + count if axis < 0 else axis

    def require_planes(self) -> None:
        """Refuse bottoms that are not (N, C, H, W)."""
        for blob in self.bottoms:
            if len(blob.shape) != 4:
                self.refuse(f'needs 4-D bottoms (N, C, H, W), "{blob.name}" is {blob.shape}')

    def read_pair(self, param: Any, field: str, prefix: str = "") -> tuple[Any, Any] | None:
        """(height, width) from `field`, or from `prefix`_h and `prefix`_w; None where neither is present."""
        names = [f"{prefix or field}_{side}" for side in "hw"]
        present = [param.HasField(name) for name in (field, *names)]
        if present[1] != present[2] or all(present):
            self.refuse(f"give either {field}, or both {names[0]} and {names[1]}")
        if present[1]:
            return getattr(param, names[0]), getattr(param, names[1])
        return (getattr(param, field),) * 2 if present[0] else None

    @staticmethod
    def filler_or(param: Any, field: str, value: float) -> Any:
        """The FillerParameter in `field`, or one that fills with `value` where it is absent."""
        filler = getattr(param, field)
        return filler if param.HasField(field) else type(filler)(type="constant", value=value)

    def _check_count(self, what: str, count: int, allowed: tuple[int, int | None]) -> None:
        least, most = allowed
        if count < least or (most is not None and count > most):
            wanted = (
                f"exactly {least}" if least == most else f"at least {least}" + (f", at most {most}" if most else "")
            )
            self.refuse(f"has {count} {what}(s) but needs {wanted}")


def count(shape: Iterable[int]) -> int:
    """Number of elements of a shape."""
    return math.prod(shape)


_REGISTRY: dict[str, type[Operator]] = {}
_OperatorType = TypeVar("_OperatorType", bound="type[Operator]")


class Registration:
    """Registers an :class:`Operator` for Caffe layer types when called, and can undo that."""

    def __init__(self, type_names: tuple[str, ...], replace: bool) -> None:
        self._type_names, self._replace = type_names, replace
        self._earlier: dict[str, type[Operator] | None] = {}
        self._operator: type[Operator] | None = None

    def __call__(self, operator: _OperatorType) -> _OperatorType:
        """Register the class, and return it.

        Raises:
            ConverterError: another class converts one of the types, and `replace` is false.
        """
        for name in self._type_names:
            other = _REGISTRY.get(name)
            is_reload = other is not None and _full_name(other) == _full_name(operator)
            if other is not None and not (self._replace or is_reload):
                raise ConverterError(
                    f'layer type "{name}" is already converted by {_full_name(other)}; to replace that conversion, '
                    f"use register_layer({name!r}, replace=True)"
                )
        self._operator = operator
        self._earlier = {name: _REGISTRY.get(name) for name in self._type_names}
        _REGISTRY.update(dict.fromkeys(self._type_names, operator))
        return operator

    def undo(self) -> None:
        """Restore the earlier conversions, except of types that were registered again since."""
        for name, earlier in self._earlier.items():
            if _REGISTRY.get(name) is self._operator:
                _REGISTRY.pop(name)
                if earlier is not None:
                    _REGISTRY[name] = earlier
        self._earlier = {}


def register_layer(*type_names: str, replace: bool = False) -> Registration:
    """Make an :class:`Operator` the conversion of these Caffe layer types; a class decorator.

    A Python layer is registered as `Python:<module>.<Layer>`, the names of its python_param.

    Args:
        type_names: Caffe's type strings, as in V2.
        replace: allow replacing a conversion of another class.

    Returns:
        The decorator. Keep it to undo the registration: `registration = register_layer("Mish")`,
        `registration(Mish)`, `registration.undo()`.
    """
    return Registration(type_names, replace)


def _full_name(operator: type[Operator]) -> str:
    return f"{operator.__module__}.{operator.__qualname__}"


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
