"""A hypothesis strategy of valid Caffe nets: branches, joins, in-place layers, heads.

The strategy keeps the shape of every blob by formulas of its own, so a drawn net also tests the layout. Each blob has a
`plane`, the chain of layers that made its height and width from the input's: blobs of one plane have one size whatever
the input's is, so they can be joined and the net still takes other sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st

from .nets import data, layer

Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class Drawn:
    """A blob of the net being drawn: its name, channels, size, and what its size comes from."""

    name: str
    channels: int
    size: tuple[int, int]
    plane: tuple[Any, ...] = ()


@dataclass
class RandomNet:
    """A drawn net.

    Attributes:
        text: the prototxt.
        shapes: (N, C, H, W) that each 4-D blob must have, by the formulas of this file.
        types: the layer types in it.
        fixed: its head has weights for one height and width only.
    """

    text: str
    shapes: dict[str, tuple[int, int, int, int]]
    types: set[str]
    fixed: bool = False


@dataclass
class _Builder:
    draw: Draw
    batch: int
    lines: list[str] = field(default_factory=list)
    open: list[Drawn] = field(default_factory=list)
    read: set[str] = field(default_factory=set)
    shapes: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    types: set[str] = field(default_factory=set)

    # ---- drawing

    def integer(self, least: int, most: int) -> int:
        value: int = self.draw(st.integers(least, most))
        return value

    def flag(self) -> bool:
        return bool(self.draw(st.booleans()))

    def one_of(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def blob(self) -> Drawn:
        """Some blob; the latest are likelier, so that nets get deep."""
        chosen: Drawn = self.one_of(*self.open, *self.open[-2:], self.open[-1], self.open[-1])
        return chosen

    # ---- writing

    def write(
        self, kind: str, bottoms: list[Drawn], top: Drawn, body: str = "", *, more: tuple[str, ...] = ()
    ) -> Drawn:
        """Add a layer; `more` are further tops that are not read again."""
        names = [blob.name for blob in bottoms]
        self.lines.append(layer(kind, f"l{len(self.lines)}", names, [top.name, *more], body))
        self.types.add(kind)
        if top.name not in names:
            self.read.update(names)
            self.open.append(top)
        self.shapes[top.name] = (self.batch, top.channels, *top.size)
        return top

    def new(self, like: Drawn, **changes: Any) -> Drawn:
        return replace(like, name=f"b{len(self.lines)}", **changes)

    def top_of(self, bottom: Drawn) -> Drawn:
        """The bottom itself, in place, where Caffe allows it and the draw says so; else a new blob."""
        if bottom.name == "data" or bottom.name in self.read or self.flag():
            return self.new(bottom)
        return bottom


def _sides(name: str, pair: tuple[int, int], prefix: str) -> str:
    height, width = pair
    return f"{name}: {height}" if height == width else f"{prefix}_h: {height} {prefix}_w: {width}"


def _window(build: _Builder, bottom: Drawn, most: int) -> tuple[tuple[int, int], ...]:
    """A kernel, stride, pad of height and width; square half the time."""

    def pair(least: int, most: int) -> tuple[int, int]:
        first = build.integer(least, most)
        return (first, first) if square else (first, build.integer(least, most))

    square = build.flag()
    kernel = pair(1, min(most, *bottom.size))
    stride = pair(1, 3 if min(bottom.size) > 4 else 1)
    pad = tuple(build.integer(0, k - 1) for k in kernel)
    return kernel, stride, (pad[0], pad[0]) if square else (pad[0], pad[1])


def _convolution(build: _Builder) -> None:
    bottom = build.blob()
    kernel, stride, pad = _window(build, bottom, 4)
    extents = [
        (size + 2 * p - 1) // (k - 1) if k > 1 else 3 for k, p, size in zip(kernel, pad, bottom.size, strict=True)
    ]
    dilation = build.integer(1, max(1, min(3, *extents)))
    size = tuple(
        (n + 2 * p - (dilation * (k - 1) + 1)) // s + 1
        for n, k, s, p in zip(bottom.size, kernel, stride, pad, strict=True)
    )
    group = build.one_of(*(g for g in range(1, bottom.channels + 1) if bottom.channels % g == 0))
    outputs = group * build.integer(1, max(1, 6 // group))
    kind = "DepthwiseConvolution" if group == outputs == bottom.channels > 1 and build.flag() else "Convolution"
    body = " ".join(
        (
            f"num_output: {outputs}",
            _sides("kernel_size", kernel, "kernel"),
            _sides("stride", stride, "stride"),
            _sides("pad", pad, "pad"),
            f"dilation: {dilation}",
            f"group: {group}" if kind == "Convolution" else "",
            "bias_term: false" if build.flag() else "",
        )
    )
    same = stride == (1, 1) and all(2 * p == dilation * (k - 1) for k, p in zip(kernel, pad, strict=True))
    plane = bottom.plane if same else (*bottom.plane, ("conv", kernel, stride, pad, dilation))
    build.write(
        kind, [bottom], build.new(bottom, channels=outputs, size=size, plane=plane), f"convolution_param {{ {body} }}"
    )


def _deconvolution(build: _Builder) -> None:
    bottom = build.blob()
    if max(bottom.size) > 24:
        return
    kernel, stride = build.integer(1, 4), build.integer(1, 3)
    pad = build.integer(0, min(1, kernel - 1))
    size = tuple(stride * (n - 1) + kernel - 2 * pad for n in bottom.size)
    if min(size) < 1:
        return
    group = build.one_of(1, bottom.channels)
    outputs = group * build.integer(1, 2)
    body = f"num_output: {outputs} kernel_size: {kernel} stride: {stride} pad: {pad} group: {group}"
    top = build.new(bottom, channels=outputs, size=size, plane=(*bottom.plane, ("deconv", kernel, stride, pad)))
    build.write("Deconvolution", [bottom], top, f"convolution_param {{ {body} }}")


def _pool_size(size: int, kernel: int, stride: int, pad: int, clips: bool, up: bool = True) -> int:
    out = (math.ceil if up else math.floor)((size + 2 * pad - kernel) / stride) + 1
    return out - 1 if clips and up and (out - 1) * stride >= size + pad else out


def _pooling(build: _Builder) -> None:
    bottom = build.blob()
    kernel, stride, pad = _window(build, bottom, 4)
    method = build.one_of("MAX", "MAX", "AVE")
    if pad == (0, 0):  # a window outside the plane gives -FLT_MAX or 0 / 0, which spoil all that follows
        stride = tuple(min(s, k) for s, k in zip(stride, kernel, strict=True))
    up = build.integer(0, 5) > 0
    size = tuple(
        _pool_size(n, k, s, p, any(pad), up) for n, k, s, p in zip(bottom.size, kernel, stride, pad, strict=True)
    )
    body = " ".join(
        (
            f"pool: {method}",
            _sides("kernel_size", kernel, "kernel"),
            _sides("stride", stride, "stride"),
            _sides("pad", pad, "pad"),
            "" if up else "round_mode: FLOOR",
        )
    )
    plane = (*bottom.plane, ("pool", kernel, stride, pad, up))
    build.write("Pooling", [bottom], build.new(bottom, size=size, plane=plane), f"pooling_param {{ {body} }}")


def _unpooling(build: _Builder) -> None:
    """SegNet's pair: a pool that writes its mask, and the Upsample that reads it."""
    bottom = build.blob()
    if min(bottom.size) < 2:
        return
    size = tuple(_pool_size(n, 2, 2, 0, False) for n in bottom.size)
    pooled, mask = build.new(bottom, size=size, plane=(*bottom.plane, ("pool", 2))), f"mask{len(build.lines)}"
    build.write("Pooling", [bottom], pooled, "pooling_param { pool: MAX kernel_size: 2 stride: 2 }", more=(mask,))
    top = build.new(pooled, size=tuple(2 * n for n in size), plane=(*pooled.plane, ("unpool", 2)))
    build.write("Upsample", [pooled, Drawn(mask, pooled.channels, pooled.size)], top, "upsample_param { scale: 2 }")


def _interp(build: _Builder) -> None:
    bottom = build.blob()
    begin, end = (-build.integer(0, 1), -build.integer(0, 1)) if min(bottom.size) > 3 and build.flag() else (0, 0)
    inner = [n + begin + end for n in bottom.size]
    form = build.one_of("zoom", "zoom", "shrink", "size")
    factor = build.integer(1, 3)
    size: tuple[int, ...]
    if form == "zoom" and max(inner) < 20:
        size, body = tuple(n + (n - 1) * (factor - 1) for n in inner), f"zoom_factor: {factor}"
    elif form == "shrink":
        size, body = tuple((n - 1) // factor + 1 for n in inner), f"shrink_factor: {factor}"
    else:
        size = build.integer(1, 12), build.integer(1, 12)
        body = f"height: {size[0]} width: {size[1]}"
    body += (f" pad_beg: {begin}" if begin else "") + (f" pad_end: {end}" if end else "")
    top = build.new(bottom, size=size, plane=(*bottom.plane, ("interp", body)))
    build.write("Interp", [bottom], top, f"interp_param {{ {body} }}")


def _down_up_crop(build: _Builder) -> None:
    """A skip connection as FCN has it: pool, deconvolve to at least the old size, crop to it."""
    bottom = build.blob()
    if not 2 <= min(bottom.size) <= max(bottom.size) <= 24:
        return
    size = tuple(_pool_size(n, 2, 2, 0, False) for n in bottom.size)
    pooled = build.new(bottom, size=size, plane=(*bottom.plane, ("pool", 2)))
    build.write("Pooling", [bottom], pooled, "pooling_param { pool: AVE kernel_size: 2 stride: 2 }")
    outputs = build.integer(1, 3)
    grown = build.new(pooled, channels=outputs, size=tuple(2 * n + 2 for n in size), plane=(*pooled.plane, "grown"))
    build.write(
        "Deconvolution", [pooled], grown, f"convolution_param {{ num_output: {outputs} kernel_size: 4 stride: 2 }}"
    )
    top = build.new(bottom, channels=outputs)
    offset = build.integer(0, 2)
    build.write("Crop", [grown, bottom], top, f"crop_param {{ axis: 2 offset: {offset} }}")


ACTIVATIONS = {
    "ReLU": ("", "relu_param { negative_slope: 0.1 }"),
    "PReLU": ("", "prelu_param { channel_shared: true }"),
    "ELU": ("", "elu_param { alpha: 0.5 }"),
    "Sigmoid": ("",),
    "TanH": ("",),
    "BNLL": ("",),
    "Swish": ("", "swish_param { beta: 1.5 }"),
    "Power": ("power_param { scale: 0.5 shift: 0.25 }", "power_param { power: 2 }"),
    "Dropout": ("", "dropout_param { dropout_ratio: 0.3 }"),
    "Clip": ("clip_param { min: -0.5 max: 0.75 }",),
}


def _activation(build: _Builder) -> None:
    kind = build.one_of("ReLU", "ReLU", *ACTIVATIONS)
    bottom = build.blob()
    build.write(kind, [bottom], build.top_of(bottom), build.one_of(*ACTIVATIONS[kind]))


def _not_in_place(build: _Builder) -> None:
    kind, body = build.one_of(("AbsVal", ""), ("Softmax", ""), ("Softmax", "softmax_param { axis: 2 }"), ("MVN", ""))
    bottom = build.blob()
    build.write(kind, [bottom], build.new(bottom), body)


def _normalize(build: _Builder) -> None:
    bottom = build.blob()
    size = build.one_of(1, 3, 5)
    region = build.one_of("ACROSS_CHANNELS", "ACROSS_CHANNELS", "WITHIN_CHANNEL")
    body = f"lrn_param {{ local_size: {size} alpha: 0.5 beta: 0.75 norm_region: {region} }}"
    build.write("LRN", [bottom], build.new(bottom), body)


def _batch_norm(build: _Builder) -> None:
    bottom = build.blob()
    normed = build.write("BatchNorm", [bottom], build.top_of(bottom), "batch_norm_param { eps: 0.01 }")
    if build.flag():
        bias = str(build.flag()).lower()
        build.write("Scale", [normed], build.top_of(normed), f"scale_param {{ bias_term: {bias} }}")


def _partners(build: _Builder, *, same_channels: bool) -> list[Drawn]:
    first = build.blob()
    fitting = [b for b in build.open if b.plane == first.plane and (b.channels == first.channels or not same_channels)]
    partners: list[Drawn] = build.draw(st.lists(st.sampled_from(fitting), min_size=1, max_size=2))
    return [first, *partners]


def _eltwise(build: _Builder) -> None:
    bottoms = _partners(build, same_channels=True)
    operation = build.one_of("SUM", "SUM", "MAX", "PROD")
    coefficients = "".join(f" coeff: {build.one_of(-1, 0.5, 2)}" for _ in bottoms) if build.flag() else ""
    body = f"operation: {operation}" + (coefficients if operation == "SUM" else "")
    build.write("Eltwise", bottoms, build.new(bottoms[0]), f"eltwise_param {{ {body} }}")


def _concat(build: _Builder) -> None:
    bottoms = _partners(build, same_channels=False)
    channels = sum(blob.channels for blob in bottoms)
    if channels <= 16:
        build.write("Concat", bottoms, build.new(bottoms[0], channels=channels), "concat_param { axis: 1 }")


def _slice(build: _Builder) -> None:
    bottom = build.blob()
    if bottom.channels < 2:
        return
    at = build.integer(1, bottom.channels - 1)
    first = build.new(bottom, channels=at)
    second = replace(first, name=f"{first.name}s", channels=bottom.channels - at)
    build.write("Slice", [bottom], first, f"slice_param {{ axis: 1 slice_point: {at} }}", more=(second.name,))
    build.open.append(second)
    build.shapes[second.name] = (build.batch, second.channels, *second.size)


def _shuffle(build: _Builder) -> None:
    bottom = build.blob()
    group = build.one_of(*(g for g in range(1, bottom.channels + 1) if bottom.channels % g == 0))
    build.write("ShuffleChannel", [bottom], build.new(bottom), f"shuffle_channel_param {{ group: {group} }}")


STEPS = (
    *(_convolution,) * 4,
    *(_pooling,) * 2,
    *(_activation,) * 4,
    *(_batch_norm,) * 2,
    *(_eltwise, _concat) * 2,
    _deconvolution,
    _interp,
    _down_up_crop,
    _unpooling,
    _not_in_place,
    _normalize,
    _slice,
    _shuffle,
)


def _head(build: _Builder) -> bool:
    """End the net in a blob that is no longer an image; return whether this fixes the input's size."""
    bottom = build.blob()
    form = build.one_of("none", "none", "global", "flatten", "argmax", "reduction", "reshape", "permute")
    end = [f"h{len(build.lines)}", f"h{len(build.lines)}f"]
    if form == "global":
        build.lines.append(
            layer("Pooling", "head", bottom.name, end[0], "pooling_param { pool: AVE global_pooling: true }")
        )
        build.lines.append(layer("InnerProduct", "ip", end[0], end[1], "inner_product_param { num_output: 5 }"))
        build.lines.append(layer("Softmax", "prob", end[1], "prob"))
    elif form == "flatten":
        build.lines.append(layer("Flatten", "head", bottom.name, end[0]))
        build.lines.append(layer("InnerProduct", "ip", end[0], end[1], "inner_product_param { num_output: 3 }"))
        build.lines.append(layer("ReLU", "relu", end[1], end[1]))
    elif form == "argmax":
        build.lines.append(layer("ArgMax", "head", bottom.name, end[0], "argmax_param { axis: 1 }"))
    elif form == "reduction":
        build.lines.append(
            layer("Reduction", "head", bottom.name, end[0], "reduction_param { axis: 2 operation: MEAN }")
        )
    elif form == "reshape":
        build.lines.append(
            layer("Reshape", "head", bottom.name, end[0], "reshape_param { shape { dim: 0 dim: 0 dim: -1 } }")
        )
    elif form == "permute":
        build.lines.append(
            layer("Permute", "head", bottom.name, end[0], "permute_param { order: 0 order: 2 order: 3 order: 1 }")
        )
    return bool(form == "flatten")


@st.composite
def random_nets(draw: Draw, steps: int = 10, channels: int = 0) -> RandomNet:
    """A net of up to `steps` steps over an image of 5 to 17 pixels a side and these channels; 0 draws 1 to 4."""
    build = _Builder(draw, draw(st.integers(1, 2)))
    size = draw(st.integers(5, 17)), draw(st.integers(5, 17))
    image = Drawn("data", channels or draw(st.integers(1, 4)), size)
    build.open.append(image)
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=2, max_size=steps)):
        step(build)
    if not build.lines:
        build.write("ReLU", [image], build.new(image))
    fixed = _head(build)
    text = data(build.batch, image.channels, *size) + "".join(build.lines)
    return RandomNet(text, build.shapes, build.types, fixed)
