"""Mean and scale of the images of a net that is not deployed for class scores: as given, else the data layer's.

Where the file has no data layer:

* a net that subtracts a mean itself, or whose Caffe subtracts none: mean 0 (`pixel_rule`);
* a color image of a net whose output is an image: mean 0 and scale 1/255, as of most nets of that kind;
* any other color image: DeepLab's mean, which is that of ImageNet;
* lightness: mean 50, as of the published colorization nets; gray and depth: 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...bundle.choices import ColorOrder
from ...bundle.run_plan import InputSource
from ..files.mean_image import read_mean_pixel
from ..graph.net import Net
from ..layers.base import shorten_floats
from .pixel_rule import DEEPLAB_MEAN, explain_zero_mean
from .run_graph import PixelRule, check_mean
from .run_plan import RunDeployment

_LIGHTNESS_MEAN = 50.0


def read_run_pixels(
    plan: RunDeployment,
    net: Net,
    mean: Sequence[float] | Path | None,
    scale: float | None,
    color_order: ColorOrder,
    warnings: list[str],
) -> PixelRule:
    """The rules of a plan's images; assumptions are added to `warnings`.

    Raises:
        ExportError: if the number of mean values does not fit the net's channels.
    """
    sources = [source for planned in plan.inputs for source in planned.sources if source != "array"]
    sources = list(dict.fromkeys(sources))
    transform, has_scale = net.definition.transform, scale is not None
    if scale is None:
        scale = shorten_floats(transform.scale) if transform is not None else _guess_scale(plan, warnings)
    if isinstance(mean, Path):
        pixel, warning = read_mean_pixel(mean)
        warnings.extend([warning] if warning else [])
        return PixelRule(check_mean(pixel if sources[0] == "color" else pixel[:1], sources), scale, color_order)
    if mean is not None:
        return PixelRule(check_mean(mean, sources), scale, color_order)
    if transform is not None and transform.mean_value:
        values = [shorten_floats(value) for value in transform.mean_value]
        count = 3 if sources[0] == "color" else 1
        return PixelRule(check_mean(values * count if len(values) == 1 else values, sources), scale, color_order)
    zero = explain_zero_mean(net)
    warnings.extend([zero] if zero else [])
    is_known = transform is not None or zero is not None
    means: dict[InputSource, tuple[float, ...]] = {
        source: _guess_mean(plan, source, is_known, has_scale, color_order, warnings) for source in sources
    }
    if transform is not None and transform.mean_file:
        warnings.append(
            f'the file has the mean of its training images in another file, "{transform.mean_file}": give it by --mean'
        )
    return PixelRule(means, scale, color_order)


def _guess_scale(plan: RunDeployment, warnings: list[str]) -> float:
    if plan.task == "image":
        warnings.append(
            "the file does not say the range of its images; using 0 to 1 (--scale 0.00392157, --mean 0): give --scale "
            "and --mean if the net was trained with another"
        )
        return 1 / 255
    return 1.0


def _guess_mean(
    plan: RunDeployment,
    source: InputSource,
    is_known: bool,
    has_scale: bool,
    color_order: ColorOrder,
    warnings: list[str],
) -> tuple[float, ...]:
    if source == "lightness":
        return (_LIGHTNESS_MEAN,)
    if source == "color":
        if is_known or plan.task == "image":
            return (0.0, 0.0, 0.0)
        warnings.append(
            "the file does not say the mean of its training images; using that of ImageNet, "
            f"{', '.join(map(str, DEEPLAB_MEAN))} (blue, green, red): give --mean if the net was trained with another"
        )
        return DEEPLAB_MEAN if color_order == "BGR" else DEEPLAB_MEAN[::-1]
    if not is_known and not has_scale and plan.task != "image":
        what = "depth" if source == "depth" else "gray images"
        warnings.append(f"the file does not say mean and scale of its {what}; using 0 and 1: give --mean and --scale")
    return (0.0,)
