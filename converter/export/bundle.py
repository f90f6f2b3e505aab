"""Writes a bundle, the folder from which the runtime serves a Caffe net.

    manifest.json       files, preprocessing, outputs and verification
    model.py            the net as readable torch code; its weights are in model.safetensors
    model.onnx          the faithful net: Caffe's blobs by Caffe's names, float32
    deploy.onnx         the net to ship: image in, head out

`atrous.bundle.writing` renames the finished folder into its place.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ... import __version__
from ...bundle.choices import ENGINE_FORMS, ColorOrder, Detection, Head, PointOrder, Task
from ...bundle.crf_parameters import CrfParameters
from ...bundle.manifest import MANIFEST_NAME, BlobSpec, Deploy, MadeFor, Manifest, Preprocessing, Source, Upsampling
from ...bundle.palettes import Color, make_distinct_colors
from ...bundle.writing import describe_file, new_bundle
from ...errors import ConverterError, ExportError, OutputError
from ..check.compare import VerificationReport
from ..check.verify import verify_model
from ..files.mean_image import is_numpy
from ..graph.net import Blob, Net
from ..graph.subgraph import cut_net
from .deploy import CRF_TYPES, Deployment, export_deploy, fix_deployment, plan_deployment
from .dynamic_axes import find_dynamic_axes
from .footprint import measure_footprint
from .made_for import choose_made_for
from .onnx_export import export_onnx
from .onnx_graph import DEFAULT_OPSET
from .onnx_part import export_part
from .pixel_rule import Pixel, choose_pixel_rule
from .run_graph import describe_run, export_run
from .run_pixels import read_run_pixels
from .run_plan import RunDeployment, plan_run
from .source import write_model_source
from .torch_module import to_torch


@dataclass(frozen=True)
class PreprocessingOptions:
    """Preprocessing of the net's image, in gray levels of 0 to 255; None takes the value of the file's data layer.

    Attributes:
        mean: subtracted first, in `color_order`, or the file of a mean image to average; without a data layer in the
            prototxt 0 if the net's first layers subtract one, else DeepLab's.
        scale: factor after the mean is subtracted.
        color_order: of the net's input channels.
        minimum: smallest (height, width) in pixels; smaller images are padded.
        transposed: whether the net takes images with rows and columns exchanged, as MATLAB feeds them; such a net is
            deployed for `atrous run`.
        made_for: the size the net was made for; None takes the prototxt's (`choose_made_for`).
    """

    mean: tuple[float, ...] | Path | None = None
    scale: float | None = None
    color_order: ColorOrder = "BGR"
    minimum: tuple[int, int] | None = None
    transposed: bool = False
    made_for: MadeFor | None = None


@dataclass(frozen=True)
class BundleOptions:
    """Properties of a bundle that the Caffe files lack.

    Attributes:
        name: the bundle's name; by default the net's.
        classes: names of the classes, in channel order; by default `class 0`, `class 1`, ...
        palette: an RGB color for each class; by default distinct colors.
        preprocessing: mean, scale, color order and padding, in place of the file's.
        crf: dense CRF parameters; None takes those of a DenseCRF layer, if the net has one.
        head: output of deploy.onnx, for class scores of RGB images.
        task: what the net is for; None to find out.
        points: order of the coordinates, for the task "points".
        fixed: the one image size of deploy.onnx, (height, width), whose shapes are all static then; None for any size.
        batch: images per run of deploy.onnx with a fixed size.
        detection: the form in model.onnx of layers that decode boxes (see `onnx_part`).
        rename: blob of the net -> its name in model.onnx, for inputs and outputs.
        opset: ONNX opset version of both ONNX files, 17 to 21.
        sources: (role, path, format, dialect) of the Caffe files.
        verify: compare torch and ONNX Runtime before the bundle is moved into place.
    """

    name: str = ""
    classes: Sequence[str] = ()
    palette: Sequence[tuple[int, int, int]] = ()
    preprocessing: PreprocessingOptions = field(default_factory=PreprocessingOptions)
    crf: CrfParameters | None = None
    head: Head = "scores"
    task: Task | None = None
    points: PointOrder = "xy"
    fixed: tuple[int, int] | None = None
    batch: int = 1
    detection: Detection = "standard"
    rename: Mapping[str, str] = field(default_factory=dict)
    opset: int = DEFAULT_OPSET
    sources: Sequence[tuple[str, Path, str, str]] = field(default_factory=tuple)
    verify: bool = True


def write_bundle(
    net: Net,
    folder: str | os.PathLike[str],
    options: BundleOptions | None = None,
    *,
    replace: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> Manifest:
    """Convert a net and write its bundle.

    Args:
        net: from `read_net`, with weights.
        folder: of the bundle; must not exist, or with `replace` be a bundle.
        options: properties that the Caffe files lack.
        replace: replace an existing bundle.
        progress: called with the name of each step as it begins.

    Returns:
        The manifest as written.

    Raises:
        OutputError: the folder exists or cannot be written.
        WeightsError: a parameter is NaN or infinite.
        ExportError: the net has no output for the task, or the opset is not supported.
        VerificationError: torch and ONNX Runtime disagree.
    """
    options = options or BundleOptions()
    with new_bundle(Path(os.path.abspath(folder)), replace=replace) as place:
        manifest = _fill(net, place, options, progress)
        (place / MANIFEST_NAME).write_bytes(manifest.to_json())
        progress("moving the bundle into place")
    return manifest


def _fill(net: Net, place: Path, options: BundleOptions, progress: Callable[[str], None]) -> Manifest:
    """Write all files but the manifest into `place`; returns the manifest."""
    from safetensors import SafetensorError
    from safetensors.torch import save_model

    from ..precision.facts import describe_graph

    warnings = list(net.warnings)
    if net.parameter_shapes() and not net.parameters:
        warnings.append("the net has no weights: its parameters come from its fillers")
    sources = list(options.sources)
    if isinstance(options.preprocessing.mean, Path):
        mean_format = "npy" if is_numpy(options.preprocessing.mean) else "binaryproto"
        sources.append(("mean", options.preprocessing.mean, mean_format, net.dialect))
    plan = _plan(net, options, warnings)
    shipped = _fix(plan, options)
    classes = _name_classes(options, plan)
    is_colored = not isinstance(plan, RunDeployment) or plan.task == "segment"
    palette = _choose_palette(options, len(classes) if is_colored else 0)
    faithful = _without_crf(net, plan, warnings)
    progress("building the torch module")
    module = to_torch(faithful)
    progress("writing model.py and model.safetensors")
    (place / "model.py").write_text(write_model_source(faithful), encoding="utf-8")
    try:
        save_model(module, str(place / "model.safetensors"))
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error)) from error  # `new_bundle` reports it with the bundle's own path
    progress("writing model.onnx")
    part, missing = export_part(
        faithful,
        module,
        place / "model.onnx",
        opset=options.opset,
        detection=options.detection,
        rename=options.rename,
    )
    warnings += missing
    deployment: dict[str, Any] = {"preprocessing": None, "deploy": None, "crf": None}
    path, head = place / "deploy.onnx", options.head
    if isinstance(plan, RunDeployment):
        progress("writing deploy.onnx")
        given = options.preprocessing
        rule = read_run_pixels(plan, net, given.mean, given.scale, given.color_order, warnings)
        described = describe_run(plan, rule)
        try:
            model = export_run(plan, described, module, path, opset=options.opset)
            deployment |= {"run": described, "graphs": {path.name: describe_graph(model)}}
        except ExportError as error:
            if options.task is not None:
                raise
            warnings.append(f"no deploy.onnx: {error}")
    elif plan is not None and shipped is not None:
        progress("writing deploy.onnx")
        given = options.preprocessing
        mean, scale, doubts = choose_pixel_rule(net, _require_pixel(given.mean), given.scale, given.color_order)
        warnings += doubts
        pixels: dict[str, Any] = {"mean": mean, "scale": scale, "color_order": options.preprocessing.color_order}
        model = export_deploy(shipped, module, path, head=head, opset=options.opset, **pixels)
        deployment = {
            "preprocessing": Preprocessing(
                **pixels, size_rule=shipped.size_rule, made_for=choose_made_for(shipped, given.made_for)
            ),
            "deploy": _describe_deployment(shipped, head),
            "crf": plan.crf if options.crf is None else options.crf,
            "graphs": {path.name: describe_graph(model)},
        }
    reports = _verify(faithful, module, part, place, options, progress)
    # safetensors writes its file with mode 600
    (place / "model.safetensors").chmod((place / "model.py").stat().st_mode)
    return Manifest(
        name=options.name or net.name or "net",
        created=datetime.now(timezone.utc).replace(microsecond=0),
        atrous_version=__version__,
        sources=tuple(_source(*source) for source in sources),
        inputs=_describe_blobs(faithful, faithful.inputs, options.rename),
        outputs=_describe_blobs(part or faithful, (part or faithful).outputs, options.rename),
        classes=classes,
        palette=palette,
        files={path.name: describe_file(path) for path in sorted(place.iterdir())},
        verification=tuple(report.summarize() for report in reports),
        warnings=tuple(warnings),
        versions=_read_versions(),
        **deployment,
    )


def _verify(
    net: Net, module: Any, part: Net | None, place: Path, options: BundleOptions, progress: Callable[[str], None]
) -> list[VerificationReport]:
    """Compare model.onnx with torch; one with nodes of another engine in its standard form."""
    if not options.verify or part is None:
        return []
    progress("comparing torch and ONNX Runtime")
    path, standard = place / "model.onnx", place / "standard.onnx"
    if options.detection in ENGINE_FORMS:
        path = standard
        export_onnx(part, module, path, opset=options.opset, rename=options.rename)
    reports = verify_model(net, module, path, rename=options.rename)
    standard.unlink(missing_ok=True)
    for report in reports:
        report.require_passed()
    return reports


def _plan(net: Net, options: BundleOptions, warnings: list[str]) -> Deployment | RunDeployment | None:
    """The deployment for class scores of an RGB image, if the net has them; else for `atrous run`; else none."""
    reason: ExportError | None = None
    if options.task in (None, "segment") and not options.preprocessing.transposed:
        try:
            plan = plan_deployment(net, minimum=options.preprocessing.minimum)
            if plan.scores.shape[1] > 1 or options.task == "segment" or options.classes:
                if _may_be_picture(net, plan, options):
                    warnings.append(
                        f'the 3 planes of "{plan.scores.name}" are taken for scores of 3 classes: if they are a '
                        "picture, convert with --task image, else with --classes"
                    )
                return plan
        except ExportError as error:
            reason = error
    made_for = options.preprocessing.made_for
    size = made_for.size if made_for is not None and made_for.resize else None
    try:
        return plan_run(
            net,
            task=options.task,
            classes=len(options.classes),
            points=options.points,
            size=size,
            transposed=options.preprocessing.transposed,
        )
    except ExportError as error:
        if options.task is not None:
            raise
        warnings.append(f"no deploy.onnx: {reason or error}")
        return None


def _may_be_picture(net: Net, plan: Deployment, options: BundleOptions) -> bool:
    """Whether nothing says that the net's three planes are class scores, and not red, green and blue."""
    is_said = options.task == "segment" or bool(options.classes) or plan.scores_are == "probabilities"
    refines = plan.crf is not None or any(layer.type == "ArgMax" for layer in net.layers)
    return plan.scores.shape[1] == 3 and not is_said and not refines


def _fix(plan: Deployment | RunDeployment | None, options: BundleOptions) -> Deployment | None:
    """The deployment of class scores, at the fixed size if one is requested."""
    if options.fixed is not None and not isinstance(plan, Deployment):
        raise ExportError("a fixed size is for nets that score the classes of each pixel of an RGB image: leave it out")
    if options.fixed is None or not isinstance(plan, Deployment):
        return plan if isinstance(plan, Deployment) else None
    return fix_deployment(plan, options.fixed, options.batch)


def _without_crf(net: Net, plan: Deployment | RunDeployment | None, warnings: list[str]) -> Net:
    """The net up to a CRF layer, which has no ONNX form; a DenseCRF becomes the bundle's CRF stage."""
    crf = next((layer for layer in net.layers if layer.type in CRF_TYPES), None)
    if not isinstance(plan, Deployment) or crf is None:
        return net
    if plan.crf is not None:
        warnings.append(f'the {crf.type} layer "{crf.name}" became the CRF stage of the bundle')
    else:
        warnings.append(f'the {crf.type} layer "{crf.name}" was left out, as it has no ONNX form; use the CRF stage')
    scores = plan.scores.producer
    twin = next(layer for layer in net.layers if scores is not None and layer.attribute == scores.attribute)
    return cut_net(net, [twin.tops[plan.scores.top_index]])


def _name_classes(options: BundleOptions, plan: Deployment | RunDeployment | None) -> tuple[str, ...]:
    channels = plan.class_count if plan else 0
    classes = tuple(options.classes) or tuple(f"class {index}" for index in range(channels))
    if channels and len(classes) != channels:
        raise OutputError(f"{len(classes)} class names were given, the net scores {channels} classes; give {channels}")
    return classes


def _choose_palette(options: BundleOptions, count: int) -> tuple[Color, ...]:
    colors = []
    for color in (options.palette or make_distinct_colors(count))[:count]:
        if len(color) != 3 or not all(0 <= int(value) <= 255 for value in color):
            raise OutputError(f"palette color {tuple(color)} is not red, green, blue of 0 to 255")
        colors.append((int(color[0]), int(color[1]), int(color[2])))
    return tuple(colors)


def _require_pixel(mean: tuple[float, ...] | Path | None) -> Pixel | Path | None:
    """The mean of a color image; ExportError unless it has three values."""
    if mean is None or isinstance(mean, Path):
        return mean
    if len(mean) != 3:
        raise ExportError(f"{len(mean)} mean values were given, the net's image has 3 channels")
    return mean[0], mean[1], mean[2]


def _describe_blobs(net: Net, blobs: Sequence[Blob], rename: Mapping[str, str]) -> tuple[BlobSpec, ...]:
    axes = find_dynamic_axes(net)
    return tuple(
        BlobSpec(name=rename.get(blob.name, blob.name), shape=tuple(axes.sizes(blob)), dtype="float32")
        for blob in blobs
    )


def _describe_deployment(plan: Deployment, head: Head) -> Deploy:
    upsampling = Upsampling(padded=plan.size_rule, align_corners=True) if head == "lowres" else None
    return Deploy(
        file="deploy.onnx",
        input="image",
        head=head,
        output=head,
        scores_are=plan.scores_are,
        blob=plan.scores.name,
        upsampling=upsampling,
        footprint=measure_footprint(plan),
    )


def _source(role: Any, path: Path, format_name: Any, dialect: str) -> Source:
    try:
        entry = describe_file(path)
    except OSError as error:
        raise ConverterError(
            f"{path}: cannot be read ({error.strerror}); do not move or delete it during the conversion"
        ) from error
    return Source(
        role=role, file=path.name, sha256=entry.sha256, bytes=entry.bytes, format=format_name, dialect=dialect
    )


def _read_versions() -> dict[str, str]:
    import torch

    return {"torch": str(torch.__version__), "onnx": str(onnx.__version__), "numpy": str(np.__version__)}
