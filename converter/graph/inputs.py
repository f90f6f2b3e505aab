"""Names and shapes of a net's inputs, from `input:` fields and data layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import NetError
from ..dialects.known import Dialect
from .definition import InputTop
from .net import Shape
from .roles import PYTHON_LAYER


def legacy_inputs(net: Any, dialect: Dialect) -> list[InputTop]:
    """The `input:` fields of a net with their `input_dim` or `input_shape`, whose counts the reader has checked.

    Where both are given, Caffes that turn them into an Input layer use the shape; in other dialects NetError is raised.
    """
    dims = list(net.input_dim)
    if net.input and dims and net.input_shape and not dialect.shape_before_dims:
        raise NetError("the net gives both input_dim and input_shape; keep one of them")
    shapes: list[Shape | None] = [tuple(shape.dim) for shape in net.input_shape]
    if not shapes:
        shapes = [tuple(dims[at : at + 4]) or None for at in range(0, 4 * len(net.input), 4)]
    return [InputTop(name, shape, None, "input", None) for name, shape in zip(net.input, shapes, strict=False)]


def source_shapes(message: Any) -> tuple[Shape | None, ...]:
    """Declared shape of each top of a data layer, None where the file declares none; image lists get a batch of 1."""
    tops = len(message.top)
    if message.type == "Input":
        declared: list[Shape | None] = [tuple(shape.dim) for shape in message.input_param.shape]
        if len(declared) not in (0, 1, tops):
            raise NetError(f"gives {len(declared)} shapes for {tops} tops; give one, or one each", layer=message.name)
        return tuple(declared) if len(declared) == tops else tuple((declared or [None]) * tops)
    if message.type == "MemoryData":
        param = message.memory_data_param
        data: Shape | None = (param.batch_size, param.channels, param.height, param.width)
        known = 0 not in (param.batch_size, param.channels, param.height, param.width)
        shapes = _pad_with_none([data, (param.batch_size,)] if known else [], tops)
        sizes = (param.batch_size, 1, 1, 2)  # DeepLab's blob of each image's height and width
        return tuple(sizes if top == "data_dim" else shape for top, shape in zip(message.top, shapes, strict=True))
    if message.type == PYTHON_LAYER:
        return (None,) * tops
    height, width = _image_size(message)
    data = (1, _channels(message), height, width) if height and width else None
    label: Shape | None = (1,)
    if message.type == "ImageSegData" and data is not None:
        label = (1, 1, height, width)
    rest: list[Shape | None] = [label, (1, 1, 1, 2) if message.type == "ImageSegData" else None]
    return _pad_with_none([data, *rest], tops)


def _pad_with_none(shapes: Sequence[Shape | None], length: int) -> tuple[Shape | None, ...]:
    return tuple([*shapes, *[None] * length][:length])


def _image_size(message: Any) -> tuple[int, int]:
    transform = message.transform_param
    for height, width in (
        (transform.crop_size, transform.crop_size),
        (transform.crop_height, transform.crop_width),
        (transform.crop_h, transform.crop_w),
        (message.image_data_param.new_height, message.image_data_param.new_width),
        (message.dense_image_data_param.new_height, message.dense_image_data_param.new_width),
        (message.window_data_param.crop_size, message.window_data_param.crop_size),
        (transform.resize_param.height, transform.resize_param.width),
    ):
        if height and width:
            return height, width
    return 0, 0


def _channels(message: Any) -> int:
    is_gray = message.type == "ImageData" and not message.image_data_param.is_color
    return 1 if is_gray else max(3, len(message.transform_param.mean_value))
