"""Memory and receptive field of a deployed net, from its layers' shapes and windows.

* Memory: the blobs alive at once while the layers run in order, each from its layer to its last reader; in-place layers
  share their bottom's memory.
* Reach: half the receptive field (`graph.summary`). It is unbounded where a layer mixes the whole plane.
* Effective reach: the effect of a pixel on a score falls off like a Gaussian (Luo et al. 2016), whose variance is the
  sum over the path of each window's variance times its stride squared. Two standard deviations hold 95 %.
"""

from __future__ import annotations

import math
from fractions import Fraction

from ...bundle.manifest import Footprint
from ..graph.build import reshape_net
from ..graph.net import Blob, Layer, Net
from ..graph.summary import ReceptiveField, summarize_layers
from ..layers import count
from .deploy import Deployment

_FLOAT_BYTES = 4
_PREPARED_BYTES = 2 * 3 * _FLOAT_BYTES  # the image as float32, before and after one step of the preprocessing
_LEAST_SIDE = 96  # measured at this size or larger, so that windows and padding weigh as in real images
#: types that mix the whole plane, though they have no window
_WHOLE_PLANE = frozenset(
    {"MVN", "Normalize", "Reduction", "LSTM", "RNN", "SPP", "DomainTransform", "Flatten", "Reshape"}
)


def measure_footprint(plan: Deployment) -> Footprint:
    """The footprint of a deployed net."""
    net = _enlarge(plan)
    height, width = net.inputs[0].shape[2:]
    alive = _find_peak(net) * _FLOAT_BYTES / (height * width)
    rows = summarize_layers(net)
    field = max((side for row in rows for side in row.receptive_field), default=Fraction(1))
    is_whole = field >= min(height, width) or any(_is_whole_plane(layer) for layer in net.layers)
    effective = min(2 * _find_spread(net), float(field / 2))
    return Footprint(
        bytes_per_pixel=round(alive + _PREPARED_BYTES, 1),
        reach=None if is_whole else math.ceil(field / 2),
        effective_reach=math.ceil(effective),
        stride=max(1, math.ceil(max((side for row in rows for side in row.stride), default=Fraction(1)))),
    )


def _enlarge(plan: Deployment) -> Net:
    """The net at a size larger than its receptive field, if it takes one."""
    rows = summarize_layers(plan.net)
    field = math.ceil(max((side for row in rows for side in row.receptive_field), default=Fraction(1)))
    wanted = max(_LEAST_SIDE, min(field + 1, 4096))
    image = plan.image
    if plan.size_rule.fixed is not None or min(image.shape[2:]) >= wanted:
        return plan.net
    sides = plan.size_rule.padded_size(wanted, wanted)
    return reshape_net(plan.net, {image.name: (*image.shape[:2], *sides)})


def _find_peak(net: Net) -> int:
    """The largest number of floats alive at once."""
    last: dict[Blob, int] = {}
    for index, layer in enumerate(net.layers):
        last.update(dict.fromkeys(layer.bottoms, index))
    last.update(dict.fromkeys(net.outputs, len(net.layers)))
    alive = peak = sum(count(blob.shape) for blob in net.inputs)
    for index, layer in enumerate(net.layers):
        in_place = {blob.name for blob in layer.bottoms if last[blob] == index}
        alive += sum(count(top.shape) for top in layer.tops if top.name not in in_place)
        peak = max(peak, alive)
        written = {top.name for top in layer.tops}
        ended = {blob for blob in layer.bottoms if last[blob] == index and blob.name not in written}
        ended |= {top for top in layer.tops if top not in last}
        alive -= sum(count(blob.shape) for blob in ended)
    return peak


def _is_whole_plane(layer: Layer) -> bool:
    window, shape = layer.operator.window(), layer.bottoms[0].shape if layer.bottoms else ()
    if layer.type in _WHOLE_PLANE:
        return True
    return (
        window is not None
        and len(shape) == 4
        and max(window.kernel) > 1
        and max(kernel - side for kernel, side in zip(window.kernel, shape[2:], strict=True)) >= 0
    )


def _find_spread(net: Net) -> float:
    """The largest standard deviation, in input pixels, of the path of windows to a blob."""
    variances: dict[Blob, float] = dict.fromkeys(net.inputs, 0.0)
    fields = {blob: ReceptiveField() for blob in net.inputs}
    for layer in net.layers:
        window = layer.operator.window()
        bottoms = [blob for blob in layer.bottoms if blob in variances]
        field = max((fields[blob] for blob in bottoms), key=lambda f: f.size, default=ReceptiveField())
        variance = max((variances[blob] for blob in bottoms), default=0.0)
        if window is not None:
            taps = max(
                -(-k // s) if window.upsampling else k for k, s in zip(window.kernel, window.stride, strict=True)
            )
            # a window of n taps has variance (n^2 - 1) / 12; of three taps apart, (extent - 1)^2 / 6
            variance += (taps - 1) ** 2 / 6 * float(max(field.stride)) ** 2
            field = field.through(window)
        fields.update(dict.fromkeys(layer.tops, field))
        variances.update(dict.fromkeys(layer.tops, variance))
    return math.sqrt(max(variances.values()))
