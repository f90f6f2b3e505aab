"""`atrous convert`: a prototxt and a caffemodel to a bundle."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..bundle.choices import COLOR_ORDERS, DETECTIONS, HEADS, POINT_ORDERS, TASKS
from ..bundle.palettes import CLASS_SETS, Color
from ..text_files import decode_text
from . import console
from .fetched import resolve_net
from .net_options import net_options, parse_assignments, require_file

if TYPE_CHECKING:
    from ..bundle.crf_parameters import CrfParameters
    from ..bundle.manifest import MadeFor, Manifest
    from ..bundle.section import Sides
    from ..converter import BundleOptions, Net
    from ..converter.export.info import ConversionInfo

_Callback = Callable[[click.Context, click.Parameter, str | None], Any]


def _numbers(*counts: int) -> _Callback:
    """The callback of an option of finite numbers; their count is one of `counts`."""
    count = " or ".join(map(str, counts))

    def parse(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[float, ...] | None:
        if text is None:
            return None
        try:
            values = tuple(float(part) for part in text.replace("x", ",").split(","))
        except ValueError:
            raise click.BadParameter(
                f'"{text}" is not {count} numbers separated by commas', context, parameter
            ) from None
        if len(values) not in counts:
            raise click.BadParameter(f"needs {count} numbers, {len(values)} were given", context, parameter)
        if not all(map(math.isfinite, values)):
            raise click.BadParameter(f'"{text}" is not finite', context, parameter)
        return values

    return parse


def _parse_mean(context: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    """A number for each channel, or the file of a mean image."""
    if text is not None and (text.endswith((".binaryproto", ".npy")) or Path(text).is_file()):
        return require_file(Path(text), "mean image")
    return _numbers(1, 3, 4)(context, parameter, text)


def _parse_size(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, int] | None:
    values = _numbers(2)(context, parameter, text)
    if values is None:
        return None
    if any(value < 1 or value != int(value) for value in values):
        raise click.BadParameter(f'"{text}" is not a height and a width in pixels', context, parameter)
    return int(values[0]), int(values[1])


def _parse_names(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text is not None else ()


@click.command()
@click.argument("net", type=click.Path(path_type=Path))
@click.argument("weights", type=click.Path(path_type=Path), required=False)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the bundle, or a file NAME.onnx to write only the faithful ONNX model.",
)
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@click.option("--name", default="", help="Name of the bundle.  [default: the net's own]")
@click.option(
    "--info",
    type=click.Path(path_type=Path),
    help="JSON file with any of: name, classes, palette, mean, scale, minimum_size, size, task, crf. "
    "Options override it.",
)
@click.option("--classes", "class_set", help=f"{', '.join(CLASS_SETS)}, or a file with one class name per line.")
@click.option(
    "--mean",
    callback=_parse_mean,
    metavar="B,G,R|GRAY|FILE",
    help="Mean pixel in gray levels, in the net's channel order, or a mean image (.binaryproto, .npy) to average.  "
    "[default: the data layer's, else 0 if the net subtracts one itself, else DeepLab's]",
)
@click.option(
    "--scale",
    callback=_numbers(1),
    metavar="FACTOR",
    help="Factor applied after the mean is subtracted.  [default: the data layer's, else 1]",
)
@click.option(
    "--color-order",
    type=click.Choice(COLOR_ORDERS),
    default="BGR",
    show_default=True,
    help="Channel order the net was trained with.",
)
@click.option(
    "--minimum-size",
    callback=_parse_size,
    metavar="H,W",
    help="Pad images to at least this size in pixels.  [default: an ImageSegData layer's crop size]",
)
@click.option(
    "--size",
    callback=_parse_size,
    metavar="HxW",
    help="Size in pixels that the net was made for: images are resized to it by default.  [default: the prototxt's "
    "size, for nets that do not take images of every size by padding or cropping]",
)
@click.option(
    "--head", type=click.Choice(HEADS), default="scores", show_default=True, help="The output of deploy.onnx."
)
@click.option(
    "--task",
    type=click.Choice(TASKS),
    help="What the net is for: class of each pixel, class of the image, numbers, key points, an image, colors for a "
    "gray image, or planes of values.  [default: found in the net]",
)
@click.option(
    "--points",
    type=click.Choice(POINT_ORDERS),
    default=POINT_ORDERS[0],
    show_default=True,
    help="Order of the coordinates for --task points: fractions of the image's size, or pixels of the net's input.",
)
@click.option(
    "--transposed", is_flag=True, help="The net takes images with rows and columns exchanged, as MATLAB feeds them."
)
@click.option(
    "--fixed",
    callback=_parse_size,
    metavar="HxW",
    help="Export deploy.onnx for images of this one size in pixels, with static shapes.  [default: any size]",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 1024),
    help="Number of images per run of deploy.onnx; needs --fixed.  [default with --fixed: 1]",
)
@click.option("--crf-mode", type=click.Choice(["deeplab", "pydensecrf"]), help="Normalization of the dense CRF.")
@click.option(
    "--crf-gaussian",
    callback=_numbers(2),
    metavar="SXY,W",
    help="The CRF's Gaussian term: standard deviation in pixels, and weight.",
)
@click.option(
    "--crf-bilateral",
    callback=_numbers(3),
    metavar="SXY,SRGB,W",
    help="The CRF's bilateral term: standard deviations in pixels and in gray levels, and weight.",
)
@click.option("--crf-iterations", type=click.IntRange(1, 1000), help="Iterations of the dense CRF.  [default: 10]")
@click.option("--until", metavar="LAYER", help="Name of the last layer; those that it does not need are left out.")
@click.option(
    "--outputs",
    callback=_parse_names,
    metavar="BLOB,...",
    help="Blobs that become the outputs; layers that they do not need are left out.  [default: blobs without a reader]",
)
@click.option(
    "--rename",
    multiple=True,
    callback=parse_assignments,
    metavar="OLD=NEW",
    help="New name of an input or output of model.onnx; may be repeated.",
)
@click.option(
    "--detection",
    type=click.Choice(DETECTIONS),
    default="standard",
    show_default=True,
    help="Layers that decode boxes in model.onnx: standard operators, the node of an engine, or cut off before them.",
)
@click.option(
    "--opset",
    type=click.IntRange(17, 21),
    default=17,
    show_default=True,
    help="ONNX opset version of the exported files (17 to 21).",
)
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
    mean: Any,
    scale: tuple[float] | None,
    color_order: Any,
    minimum_size: tuple[int, int] | None,
    size: tuple[int, int] | None,
    head: Any,
    task: Any,
    points: Any,
    transposed: bool,
    fixed: tuple[int, int] | None,
    batch: int | None,
    crf_mode: str | None,
    crf_gaussian: tuple[float, ...] | None,
    crf_bilateral: tuple[float, ...] | None,
    crf_iterations: int | None,
    until: str | None,
    outputs: tuple[str, ...],
    rename: dict[str, str],
    detection: Any,
    opset: int,
    no_verify: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Convert NET (a prototxt) with WEIGHTS (a caffemodel) to a bundle: torch, ONNX, manifest.

    Without WEIGHTS, NET is the folder of a model from `atrous fetch`, or a caffemodel with its own net definition.
    """
    if batch is not None and fixed is None:
        raise click.UsageError("--batch needs --fixed: without it, the graph takes any number of images")
    files = resolve_net(net, weights)
    from ..bundle.writing import check_target
    from ..converter import BundleOptions, PreprocessingOptions, read_net, write_bundle
    from ..converter.export.info import ConversionInfo, read_info
    from ..converter.files.caffemodel import read_caffemodel
    from ..converter.graph.subgraph import choose_outputs

    started_s = time.perf_counter()
    is_file = out.suffix == ".onnx" and not out.is_dir()
    if not is_file:
        check_target(out, replace=force)
    elif fixed is not None:
        raise click.UsageError("--fixed is for deploy.onnx of a bundle: give a folder with -o")
    elif out.exists() and not force:
        raise click.UsageError(f"{out} exists; give --force to replace it")
    info = info or files.info
    known = read_info(info) if info is not None else ConversionInfo()
    classes, palette = _choose_classes(class_set, known)
    crf = _choose_crf(known.crf, crf_mode, crf_gaussian, crf_bilateral, crf_iterations)
    prototxt = require_file(files.prototxt, "prototxt") if files.prototxt is not None else None
    weight_file = read_caffemodel(require_file(files.weights, "caffemodel"))
    # layers without a conversion may be among those that are left out
    built = read_net(prototxt, weight_file, **options, tolerant=bool(until or outputs))
    built = choose_outputs(built, until=until, outputs=outputs)
    settings = BundleOptions(
        name=name or known.name or "",
        classes=classes,
        palette=palette,
        preprocessing=PreprocessingOptions(
            mean=mean or known.mean,
            scale=scale[0] if scale is not None else known.scale,
            color_order=color_order,
            minimum=minimum_size or known.minimum_size,
            transposed=transposed,
            made_for=_choose_size(size, known, minimum_size),
        ),
        crf=crf,
        head=head,
        task=task or known.task,
        points=points,
        fixed=fixed,
        batch=batch or 1,
        detection=detection,
        rename=rename,
        opset=opset,
        sources=[
            *([("prototxt", prototxt, built.definition.format, built.dialect)] if prototxt is not None else []),
            ("caffemodel", files.weights, weight_file.format, weight_file.dialect.name),
        ],
        verify=not no_verify,
    )
    with console.show_steps() as show:
        write = _write_file if is_file else write_bundle
        manifest = write(built, out, settings, replace=force, progress=show)
    seconds = time.perf_counter() - started_s
    if as_json:
        report = {"bundle": str(out), "seconds": seconds, "manifest": json.loads(manifest.to_json())}
        console.print_json("convert", report)
    else:
        _print(out, manifest, seconds)
    return 0


def _write_file(
    net: Net, out: Path, settings: BundleOptions, *, replace: bool, progress: Callable[[str], None]
) -> Manifest:
    """Write model.onnx of the bundle alone; returns the bundle's manifest."""
    import tempfile

    from ..bundle.files import write_file
    from ..converter import ExportError, write_bundle

    with tempfile.TemporaryDirectory(prefix="atrous-") as folder:
        bundle = Path(folder) / "bundle"
        manifest = write_bundle(net, bundle, settings, progress=progress)
        if "model.onnx" not in manifest.files:
            raise ExportError("; ".join(warning for warning in manifest.warnings if "no model.onnx" in warning))
        write_file(out, (bundle / "model.onnx").read_bytes())
    return manifest


def _choose_size(given: Sides | None, known: ConversionInfo, minimum: Sides | None) -> MadeFor | None:
    """The size of `--size`, else of the info file, whose minimum is padded to; None is left to the converter."""
    from ..bundle.manifest import MadeFor

    if given is not None:
        return MadeFor(size=given, source="option", resize=True)
    if known.size is not None:
        return MadeFor(size=known.size, source="info", resize=True)
    if known.minimum_size is not None and minimum is None:
        return MadeFor(size=known.minimum_size, source="info", resize=False)
    return None


def _choose_classes(class_set: str | None, info: ConversionInfo) -> tuple[Sequence[str], Sequence[Color]]:
    """Class names and colors of `--classes`, else of the info file; empty ones are left to the converter."""
    if class_set is None:
        return info.classes or (), info.palette or ()
    if class_set in CLASS_SETS:
        return CLASS_SETS[class_set]
    path = Path(class_set)
    if not path.is_file():
        raise click.UsageError(f"--classes {class_set}: is not a file, and not one of {', '.join(CLASS_SETS)}")
    try:
        lines = decode_text(path.read_bytes()).splitlines()
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--classes {class_set}: cannot be read as text ({error})") from None
    return [line.strip() for line in lines if line.strip()], ()


def _choose_crf(
    known: dict[str, Any] | None,
    mode: str | None,
    gaussian: tuple[float, ...] | None,
    bilateral: tuple[float, ...] | None,
    iterations: int | None,
) -> CrfParameters | None:
    """CRF parameters of the info file, with those of the options in their place."""
    from ..bundle.crf_parameters import CrfParameters

    if known is None and gaussian is None and bilateral is None:
        given = "--crf-mode" if mode else "--crf-iterations" if iterations else None
        if given:
            raise click.UsageError(f"{given} alone defines no CRF; give --crf-gaussian, --crf-bilateral or both")
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
    return CrfParameters.from_dict(crf)


def _print(out: Path, manifest: Manifest, seconds: float) -> None:
    for warning in manifest.warnings:
        console.print_warning(f"warning: {warning}")
    for report in manifest.verification:
        shapes = ", ".join("x".join(map(str, shape)) for shape in report.input_shapes.values())
        console.print_line(
            f"{report.stage} equals {report.reference} on {shapes}: {report.blobs} blobs, "
            f"largest error {report.worst_error:.2g} (tolerance {report.tolerance:g})"
        )
    preprocessing = manifest.preprocessing
    if preprocessing is not None and (fixed := preprocessing.size_rule.fixed) is not None:
        console.print_line(f"takes {fixed[0]}x{fixed[1]} pixels (height x width) only: images are resized to it")
    elif preprocessing is not None and (made_for := preprocessing.made_for) is not None:
        use = "images are resized to it" if made_for.resize else "images run at their own size"
        console.print_line(f"made for {made_for.size[0]}x{made_for.size[1]} pixels (height x width): {use} by default")
    if manifest.run is not None:
        outputs = ", ".join(f"{output.name} ({output.kind})" for output in manifest.run.outputs)
        console.print_line(f"task: {manifest.run.task}, by atrous run; outputs: {outputs}")
    written = manifest.files if out.is_dir() else {"model.onnx": manifest.files["model.onnx"]}
    size = sum(entry.bytes for entry in written.values())
    files = f"{len(written)} files, " if out.is_dir() else ""
    console.print_line(f"{out}: {manifest.name}, {files}{size / 1e6:.1f} MB, {seconds:.1f} s")
