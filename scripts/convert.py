"""`atrous convert`: a prototxt and a caffemodel -> a bundle."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console
from .fetched import resolve_net
from .net_options import net_options, require_file

if TYPE_CHECKING:
    from ..bundle.crf_parameters import CrfParameters
    from ..bundle.manifest import Manifest

#: name of --classes -> class names and colours in `runtime.palettes`
CLASS_SETS = {
    "voc": ("VOC_CLASSES", "VOC_COLORS"),
    "cityscapes": ("CITYSCAPES_CLASSES", "CITYSCAPES_COLORS"),
    "camvid": ("CAMVID_CLASSES", "CAMVID_COLORS"),
}

#: grey levels by which the pixels of a mean image differ where they are meant to be one
LEAST_SPREAD = 1e-2


@click.command()
@click.argument("net", type=click.Path(path_type=Path))
@click.argument("weights", type=click.Path(path_type=Path), required=False)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder of the bundle.")
@click.option("--force", is_flag=True, help="Replace a bundle that is there already.")
@click.option("--name", default="", help="Name of the bundle.  [default: the net's own]")
@click.option(
    "--info",
    type=click.Path(path_type=Path),
    help="JSON file with any of: name, classes, palette, mean, scale, minimum_size, crf. Options come before it.",
)
@click.option("--classes", "class_set", help="voc, cityscapes, camvid, or a file with one class name a line.")
@click.option(
    "--mean",
    callback=lambda c, p, v: _parse_mean(v),
    metavar="B,G,R|FILE",
    help="Mean pixel in grey levels, in the net's channel order, or a mean image (mean.binaryproto) to take it from.  "
    "[default: the data layer's, else DeepLab's]",
)
@click.option(
    "--scale",
    callback=lambda c, p, v: _parse_numbers(v, 1, "--scale"),
    metavar="FACTOR",
    help="Factor after the mean.  [default: the data layer's, else 1]",
)
@click.option(
    "--color-order",
    type=click.Choice(["BGR", "RGB"]),
    default="BGR",
    show_default=True,
    help="Channel order the net was trained with.",
)
@click.option(
    "--minimum-size",
    callback=lambda c, p, v: _parse_size(v, "--minimum-size"),
    metavar="H,W",
    help="Pad images to at least this size.  [default: an ImageSegData layer's crop size]",
)
@click.option(
    "--head",
    type=click.Choice(["scores", "labels", "lowres"]),
    default="scores",
    show_default=True,
    help="What deploy.onnx returns.",
)
@click.option("--crf-mode", type=click.Choice(["deeplab", "pydensecrf"]), help="Normalization of the dense CRF.")
@click.option(
    "--crf-gaussian",
    callback=lambda c, p, v: _parse_numbers(v, 2, "--crf-gaussian"),
    metavar="SXY,W",
    help="Gaussian term: standard deviation in pixels and weight.",
)
@click.option(
    "--crf-bilateral",
    callback=lambda c, p, v: _parse_numbers(v, 3, "--crf-bilateral"),
    metavar="SXY,SRGB,W",
    help="Bilateral term: standard deviations in pixels and grey levels, and weight.",
)
@click.option("--crf-iterations", type=click.IntRange(1, 1000), help="Of the dense CRF.  [default: 10]")
@click.option("--opset", type=click.IntRange(17, 21), default=17, show_default=True, help="Of the ONNX files.")
@click.option("--no-verify", is_flag=True, help="Do not compare torch and ONNX Runtime.")
@net_options
@console.json_option
def command(
    net: Path,
    weights: Path | None,
    out: Path,
    force: bool,
    name: str,
    info: Path | None,
    class_set: str | None,
    mean: tuple[float, ...] | Path | None,
    scale: tuple[float, ...] | None,
    color_order: str,
    minimum_size: tuple[int, int] | None,
    head: str,
    crf_mode: str | None,
    crf_gaussian: tuple[float, ...] | None,
    crf_bilateral: tuple[float, ...] | None,
    crf_iterations: int | None,
    opset: int,
    no_verify: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Convert NET (a prototxt) with WEIGHTS (a caffemodel) into a bundle: torch, ONNX, manifest.

    Without WEIGHTS, NET is the folder of a model that `atrous fetch` has put there, or a caffemodel that holds its own
    net definition.
    """
    files = resolve_net(net, weights)
    from ..bundle.writing import check_target
    from ..converter import read_net
    from ..converter.export.bundle import BundleOptions, write_bundle
    from ..converter.files.caffemodel import read_caffemodel

    started = time.perf_counter()
    check_target(out, replace=force)
    known = _read_info(info or files.info)
    prototxt = require_file(files.prototxt, "prototxt") if files.prototxt is not None else None
    weight_file = read_caffemodel(require_file(files.weights, "caffemodel"))
    laid_out = read_net(prototxt, weight_file, **options)
    classes, palette = choose_classes(class_set, known, _channels(laid_out))
    mean_file = mean if isinstance(mean, Path) else None
    if isinstance(mean, Path):
        mean, warnings = read_mean_pixel(mean)
        laid_out = replace(laid_out, warnings=(*laid_out.warnings, *warnings))
    settings = BundleOptions(
        name=name or str(known.get("name", "")),
        classes=classes,
        palette=palette,
        preprocessing=_preprocessing(known, mean, scale, color_order, minimum_size),
        crf=_crf(known.get("crf"), crf_mode, crf_gaussian, crf_bilateral, crf_iterations),
        head=head,  # type: ignore[arg-type]
        opset=opset,
        sources=[
            *([("prototxt", prototxt, laid_out.definition.format, laid_out.dialect)] if prototxt is not None else []),
            ("caffemodel", files.weights, weight_file.format, weight_file.dialect.name),
            *([("mean", mean_file, "binaryproto", laid_out.dialect)] if mean_file is not None else []),
        ],
        verify=not no_verify,
    )
    with console.show_steps() as show:
        manifest = write_bundle(laid_out, out, settings, replace=force, progress=show)
    seconds = time.perf_counter() - started
    if as_json:
        console.print_json(
            "convert", {"bundle": str(out), "seconds": seconds, "manifest": json.loads(manifest.to_json())}
        )
    else:
        _print(out, manifest, seconds)
    return 0


def _parse_numbers(text: str | None, wanted: int, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise click.BadParameter(f'"{text}" is not {wanted} numbers separated by commas', param_hint=option) from None
    if len(values) != wanted:
        raise click.BadParameter(f"needs {wanted} numbers, {len(values)} were given", param_hint=option)
    if not all(map(math.isfinite, values)):
        raise click.BadParameter(f'"{text}" is not finite', param_hint=option)
    return values


def _parse_mean(text: str | None) -> tuple[float, ...] | Path | None:
    """Three numbers, or the file of a mean image."""
    if text is not None and (text.endswith(".binaryproto") or Path(text).is_file()):
        return Path(text)
    return _parse_numbers(text, 3, "--mean")


def read_mean_pixel(path: Path) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """The mean pixel of a mean image, and a warning where its pixels differ: nets that take any size have one pixel.

    Raises:
        ConverterError: no mean image.
        click.UsageError: it has another number of channels than an image.
    """
    from ..converter.files.caffemodel import read_mean

    image = read_mean(require_file(path, "mean image"))
    channels, height, width = image.shape
    if channels not in (1, 3):
        raise click.UsageError(f"{path}: a mean image of {channels} channels; give one of 1 or 3, or --mean B,G,R")
    pixel = tuple(round(float(value), 4) for value in image.mean((1, 2), dtype="float64"))
    if not all(map(math.isfinite, pixel)):
        raise click.UsageError(f"{path}: a mean image that is not finite; give --mean B,G,R")
    spread = float((image.max((1, 2)) - image.min((1, 2))).max())
    if spread < LEAST_SPREAD:
        return pixel * (3 // channels), ()
    return pixel * (3 // channels), (
        f"{path.name} is a mean image of {height} x {width} whose pixels differ by up to {spread:.3g} grey levels; "
        f"its mean pixel {', '.join(f'{value:g}' for value in pixel)} is subtracted, at any size",
    )


def _parse_size(text: str | None, option: str) -> tuple[int, int] | None:
    """A height and a width in pixels."""
    values = _parse_numbers(text, 2, option)
    if values is None:
        return None
    if any(value < 1 or value != int(value) for value in values):
        raise click.BadParameter(f'"{text}" is not a height and a width in pixels', param_hint=option)
    return int(values[0]), int(values[1])


#: what an --info file may hold, and how it is recognised
_INFO: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    "classes": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "palette": lambda value: (
        isinstance(value, list) and all(_is_numbers(c, 3, int) and 0 <= min(c) <= max(c) <= 255 for c in value)
    ),
    "mean": lambda value: _is_numbers(value, 3),
    "scale": lambda value: _is_numbers([value], 1),
    "minimum_size": lambda value: _is_numbers(value, 2, int) and min(value) > 0,
    "crf": lambda value: isinstance(value, dict),
}


def _is_numbers(value: Any, wanted: int, kind: type = float) -> bool:
    kinds = (int,) if kind is int else (int, float)
    return (
        isinstance(value, list)
        and len(value) == wanted
        and all(isinstance(v, kinds) and not isinstance(v, bool) for v in value)
    )


def _read_info(path: Path | None) -> dict[str, Any]:
    """The content of an --info file; all of it is optional, other keys are left to other readers."""
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--info {path}: cannot be read as JSON ({error})") from None
    if not isinstance(content, dict):
        raise click.UsageError(f"--info {path}: holds no JSON object")
    for key, is_valid in _INFO.items():
        if content.get(key) is not None and not is_valid(content[key]):
            raise click.UsageError(f'--info {path}: "{key}" is not what it should be; see `atrous convert --help`')
    return {key: value for key, value in content.items() if value is not None}


def _channels(net: Any) -> int:
    from ..converter.export.deploy import plan_deployment
    from ..errors import ExportError

    try:
        return int(plan_deployment(net).scores.shape[1])
    except ExportError:
        return 0


def choose_classes(
    class_set: str | None, known: dict[str, Any], channels: int
) -> tuple[list[str], list[tuple[int, int, int]]]:
    """Class names and palette: from the option, the --info file, or numbered classes in distinct colours."""
    from ..bundle import palettes

    names: list[str] = list(known.get("classes", ()))
    colors = [(red, green, blue) for red, green, blue in known.get("palette", ())]
    if class_set in CLASS_SETS:
        names_of, colors_of = CLASS_SETS[class_set]
        names, colors = list(getattr(palettes, names_of)), list(getattr(palettes, colors_of))
    elif class_set is not None:
        names, colors = _read_names(class_set), []
    names = names or [f"class {index}" for index in range(channels)]
    if colors and len(colors) != len(names):
        raise click.UsageError(f"--info: {len(colors)} colours for {len(names)} classes; give one each, or none")
    return names, colors or list(palettes.make_distinct_colors(len(names)))


def _read_names(path: str) -> list[str]:
    """The class names of a file, one a line."""
    if not Path(path).is_file():
        raise click.UsageError(f"--classes {path}: is no file, and none of {', '.join(CLASS_SETS)}")
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--classes {path}: cannot be read as text ({error})") from None
    return [line.strip() for line in lines if line.strip()]


def _crf(
    known: dict[str, Any] | None,
    mode: str | None,
    gaussian: tuple[float, ...] | None,
    bilateral: tuple[float, ...] | None,
    iterations: int | None,
) -> CrfParameters | None:
    """Dense CRF parameters: those of the --info file, each option in the place of its part."""
    if known is None and gaussian is None and bilateral is None:
        given = "--crf-mode" if mode else "--crf-iterations" if iterations else None
        if given:
            raise click.UsageError(f"{given} alone makes no CRF; give --crf-gaussian, --crf-bilateral or both")
        return None
    crf: dict[str, Any] = {"mode": "deeplab", "iterations": 10, "gaussian": [], "bilateral": [], **(known or {})}
    if mode is not None:
        crf["mode"] = mode
    if iterations is not None:
        crf["iterations"] = iterations
    if gaussian is not None:
        crf["gaussian"] = [{"sxy": gaussian[0], "weight": gaussian[1]}]
    if bilateral is not None:
        crf["bilateral"] = [{"sxy": bilateral[0], "srgb": bilateral[1], "weight": bilateral[2]}]
    return check_crf(crf)


def check_crf(crf: dict[str, Any]) -> CrfParameters:
    """CRF parameters, if readers of the bundle will accept them.

    Raises:
        click.UsageError: naming the first that they will not.
    """
    from ..bundle.crf_parameters import CrfParameters
    from ..errors import CrfInputError

    try:
        return CrfParameters.from_dict(crf)
    except CrfInputError as error:
        raise click.UsageError(str(error)) from None


def _preprocessing(
    known: dict[str, Any],
    mean: tuple[float, ...] | None,
    scale: tuple[float, ...] | None,
    color_order: str,
    minimum_size: tuple[int, int] | None,
) -> Any:
    from ..converter.export.bundle import PreprocessingOptions

    given, least = mean or known.get("mean"), minimum_size or known.get("minimum_size")
    factor = scale[0] if scale is not None else known.get("scale")
    return PreprocessingOptions(
        mean=(float(given[0]), float(given[1]), float(given[2])) if given else None,
        scale=float(factor) if factor is not None else None,
        color_order="RGB" if color_order == "RGB" else "BGR",
        minimum=(least[0], least[1]) if least else None,
    )


def _print(out: Path, manifest: Manifest, seconds: float) -> None:
    for warning in manifest.warnings:
        console.print_warning(f"warning: {warning}")
    for report in manifest.verification:
        shapes = ", ".join("x".join(map(str, shape)) for shape in report.input_shapes.values())
        click.echo(
            f"{report.stage} equals {report.reference} on {shapes}: {report.blobs} blobs, "
            f"largest error {report.worst_error:.2g} (tolerance {report.tolerance:g})"
        )
    size = sum(entry.bytes for entry in manifest.files.values())
    click.echo(f"{out}: {manifest.name}, {len(manifest.files)} files, {size / 1e6:.1f} MB, {seconds:.1f} s")
