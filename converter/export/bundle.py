"""Writing a bundle: the folder that is all the runtime ever sees of a Caffe net.

    manifest.json       what is in it, how images go in, what comes out, how that was checked
    model.py            the net as readable torch, with model.safetensors its weights
    model.onnx          faithful: Caffe's blobs by Caffe's names, float32
    deploy.onnx         what ships: image in, head out

`atrous.bundle.writing` puts the finished folder in its place in one step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from ... import __version__
from ...bundle.crf_parameters import CrfParameters
from ...bundle.manifest import (
    MANIFEST_NAME,
    BlobSpec,
    Deploy,
    Head,
    Manifest,
    Preprocessing,
    Source,
    Upsampling,
)
from ...bundle.palettes import Color, make_voc_colors
from ...bundle.writing import describe_file, new_bundle
from ...errors import ConverterError, ExportError, OutputError
from ..check.compare import VerificationReport, verify_model
from ..graph.net import Blob, Net
from ..graph.subgraph import cut_net
from .deploy import CRF_TYPES, Deployment, export_deploy, plan_deployment
from .dynamic_axes import find_dynamic_axes
from .onnx_export import export_onnx
from .onnx_graph import DEFAULT_OPSET
from .source import write_model_source
from .torch_module import to_torch

#: DeepLab's mean pixel in gray levels, blue, green, red; also that of most VGG-16 descendants
DEEPLAB_MEAN = (104.008, 116.669, 122.675)


@dataclass(frozen=True)
class PreprocessingOptions:
    """What a net expects of its image; gray levels are 0 to 255. None stands for what the file says.

    Attributes:
        mean: subtracted first, in `color_order`; a file without a data layer does not say it, then DeepLab's is taken.
        scale: multiplied after the mean.
        color_order: of the net's input channels.
        minimum: images are padded to at least this (height, width).
    """

    mean: tuple[float, float, float] | None = None
    scale: float | None = None
    color_order: Literal["BGR", "RGB"] = "BGR"
    minimum: tuple[int, int] | None = None


@dataclass(frozen=True)
class BundleOptions:
    """What the Caffe files do not say.

    Attributes:
        name: the bundle's name; by default the net's own.
        classes: names of the classes, in channel order; by default `class 0`, `class 1`, ...
        palette: an RGB color for each class; by default PASCAL VOC's color map.
        preprocessing: mean, scale, color order and padding, as far as the file's own are not meant.
        crf: dense CRF parameters; None takes those of a DenseCRF layer, if the net has one.
        head: what deploy.onnx returns.
        opset: of both ONNX files, 17 to 21.
        sources: (role, path, format, dialect) of the Caffe files.
        verify: compare torch and ONNX Runtime before the bundle counts as written.
    """

    name: str = ""
    classes: Sequence[str] = ()
    palette: Sequence[tuple[int, int, int]] = ()
    preprocessing: PreprocessingOptions = field(default_factory=PreprocessingOptions)
    crf: CrfParameters | None = None
    head: Head = "scores"
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
        folder: where the bundle goes; must not exist, or be a bundle with `replace`.
        options: what the Caffe files do not say.
        replace: put the new bundle in the place of an old one.
        progress: called with the name of each step as it begins.

    Returns:
        The manifest as written.

    Raises:
        OutputError: the folder exists or cannot be written.
        ExportError: the net has no ONNX form.
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
    if not net.parameters.keys() >= net.parameter_shapes().keys():
        warnings.append("the net has no weights: its parameters are what its fillers make")
    mean, scale = _read_pixel_rule(net, options.preprocessing, warnings)
    plan = _plan(net, options.preprocessing, warnings)
    classes = _name_classes(options, plan)
    palette = _choose_palette(options, len(classes))
    faithful = _without_crf(net, plan, warnings)
    progress("building the torch module")
    module = to_torch(faithful)
    progress("writing model.py and model.safetensors")
    (place / "model.py").write_text(write_model_source(faithful), encoding="utf-8")
    try:
        save_model(module, str(place / "model.safetensors"))
    except SafetensorError as error:
        raise OutputError(f"cannot be written ({error})", path=place / "model.safetensors") from error
    progress("writing model.onnx")
    export_onnx(faithful, module, place / "model.onnx", opset=options.opset)
    deployed = None
    if plan is not None:
        progress("writing deploy.onnx")
        deployed = export_deploy(
            plan,
            module,
            place / "deploy.onnx",
            head=options.head,
            mean=mean,
            scale=scale,
            color_order=options.preprocessing.color_order,
            opset=options.opset,
        )
    reports: list[VerificationReport] = []
    if options.verify:
        progress("comparing torch and ONNX Runtime")
        reports = verify_model(faithful, module, place / "model.onnx")
        for report in reports:
            report.require_passed()
    # safetensors makes its file readable by the owner only
    (place / "model.safetensors").chmod((place / "model.py").stat().st_mode)
    crf = options.crf if options.crf is not None else plan.crf if plan is not None else None
    return Manifest(
        name=options.name or net.name or "net",
        created=datetime.now(timezone.utc).replace(microsecond=0),
        atrous_version=__version__,
        sources=tuple(_source(*source) for source in options.sources),
        inputs=_describe_blobs(faithful, faithful.inputs),
        outputs=_describe_blobs(faithful, faithful.outputs),
        preprocessing=None if plan is None else _describe_preprocessing(plan, options.preprocessing, mean, scale),
        deploy=None if plan is None else _describe_deployment(plan, options.head),
        classes=classes,
        palette=palette,
        crf=crf if plan is not None else None,
        files={path.name: describe_file(path) for path in sorted(place.iterdir())},
        graphs={} if deployed is None else {"deploy.onnx": describe_graph(deployed)},
        verification=tuple(report.summarize() for report in reports),
        warnings=tuple(warnings),
        versions=_read_versions(),
    )


def _plan(net: Net, preprocessing: PreprocessingOptions, warnings: list[str]) -> Deployment | None:
    try:
        return plan_deployment(net, minimum=preprocessing.minimum)
    except ExportError as error:
        warnings.append(f"no deploy.onnx: {error}")
        return None


def _without_crf(net: Net, plan: Deployment | None, warnings: list[str]) -> Net:
    """The net up to a CRF layer, which ONNX cannot hold; a DenseCRF becomes the bundle's CRF stage."""
    crf = next((layer for layer in net.layers if layer.type in CRF_TYPES), None)
    if plan is None or crf is None:
        return net
    if plan.crf is not None:
        warnings.append(f'the {crf.type} layer "{crf.name}" became the CRF stage of the bundle')
    else:
        warnings.append(f'the {crf.type} layer "{crf.name}" was left out: ONNX cannot hold it; use the CRF stage')
    scores = plan.scores.producer
    twin = next(layer for layer in net.layers if scores is not None and layer.attribute == scores.attribute)
    return cut_net(net, [twin.tops[plan.scores.top_index]])


def _name_classes(options: BundleOptions, plan: Deployment | None) -> tuple[str, ...]:
    channels = plan.scores.shape[1] if plan else 0
    classes = tuple(options.classes) or tuple(f"class {index}" for index in range(channels))
    if plan and len(classes) != channels:
        raise OutputError(f"{len(classes)} class names were given, the net scores {channels} classes; give {channels}")
    return classes


def _choose_palette(options: BundleOptions, count: int) -> tuple[Color, ...]:
    colors = []
    for color in (options.palette or make_voc_colors(count))[:count]:
        if len(color) != 3 or not all(0 <= int(value) <= 255 for value in color):
            raise OutputError(f"palette color {tuple(color)} is not red, green, blue of 0 to 255")
        colors.append((int(color[0]), int(color[1]), int(color[2])))
    return tuple(colors)


def _read_pixel_rule(
    net: Net, given: PreprocessingOptions, warnings: list[str]
) -> tuple[tuple[float, float, float], float]:
    """Mean, in the net's channel order, and scale: as given, else as the file's own data layer says."""
    transform = net.definition.transform
    scale = given.scale
    if scale is None:
        scale = _shortest(transform.scale) if transform is not None else 1.0
    if given.mean is not None:
        return given.mean, scale
    if transform is None or transform.mean_file or len(transform.mean_value) not in (0, 1, 3):
        why = "does not say the mean of its training images"
        if transform is not None and transform.mean_file:
            why = f'keeps the mean of its training images in another file, "{transform.mean_file}"'
        warnings.append(
            f"the file {why}; DeepLab's {DEEPLAB_MEAN} (blue, green, red) was taken: "
            "give --mean, a pixel or the mean image, if the net was trained with another"
        )
        mean = DEEPLAB_MEAN
        return (mean if given.color_order == "BGR" else (mean[2], mean[1], mean[0])), scale
    values = [_shortest(value) for value in transform.mean_value] or [0.0]
    first, second, third = values if len(values) == 3 else values * 3
    return (first, second, third), scale


def _shortest(value: float) -> float:
    """A float32 as the decimal number it was written as."""
    return float(str(np.float32(value)))


def _describe_blobs(net: Net, blobs: Sequence[Blob]) -> tuple[BlobSpec, ...]:
    axes = find_dynamic_axes(net)
    return tuple(BlobSpec(name=blob.name, shape=tuple(axes.sizes(blob)), dtype="float32") for blob in blobs)


def _describe_preprocessing(
    plan: Deployment, given: PreprocessingOptions, mean: tuple[float, float, float], scale: float
) -> Preprocessing:
    return Preprocessing(color_order=given.color_order, mean=mean, scale=scale, size_rule=plan.size_rule)


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
    )


def _source(role: Any, path: Path, format_name: Any, dialect: str) -> Source:
    try:
        entry = describe_file(path)
    except OSError as error:
        raise ConverterError(f"{path}: cannot be read ({error.strerror}); it was moved or deleted meanwhile") from error
    return Source(
        role=role, file=path.name, sha256=entry.sha256, bytes=entry.bytes, format=format_name, dialect=dialect
    )


def _read_versions() -> dict[str, str]:
    import torch

    return {"torch": str(torch.__version__), "onnx": str(onnx.__version__), "numpy": str(np.__version__)}
