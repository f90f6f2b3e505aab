"""Writing a bundle: the folder that is all the runtime ever sees of a Caffe net.

    manifest.json       what is in it, how images go in, what comes out, how that was checked
    model.py            the net as readable torch, with model.safetensors its weights
    model.onnx          faithful: Caffe's blobs by Caffe's names, float32
    deploy.onnx         what ships: image in, head out

Everything is written into a temporary folder beside the target and renamed at the end; nobody sees half a bundle.
The form of the manifest is defined by its strict reader, `runtime.manifest`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ... import __version__
from ...bundle.files import temporary_name
from ...bundle.palettes import make_voc_colors
from ...errors import ExportError, OutputError
from ..check.compare import VerificationReport, verify_model
from ..graph.net import Net
from ..graph.subgraph import cut_net
from .deploy import CRF_TYPES, Deployment, Head, export_deploy, plan_deployment
from .dynamic_axes import find_dynamic_axes
from .onnx_export import export_onnx
from .onnx_graph import DEFAULT_OPSET
from .source import write_model_source
from .torch_module import to_torch

SCHEMA_VERSION = 1
#: DeepLab's mean pixel in grey levels, blue, green, red; also that of most VGG-16 descendants
DEEPLAB_MEAN = (104.008, 116.669, 122.675)
#: Every name a bundle can have: its own files, variants, engines, the bytecode cache of an imported model.py, and
#: temporary files of killed writers
_FILES = re.compile(
    r"manifest\.json|model\.(py|safetensors|onnx)|deploy(\.(fp16|bf16|int8|fp8)(\.[0-9a-f]{12})?)?\.onnx"
    r"|__pycache__/model\.[\w.-]+\.pyc|engines/[0-9a-f]{64}/(engine\.json|[0-9a-f]{32}\.(plan|timing))"
    r"|\.(manifest\.json|deploy\.[\w.]+\.onnx)\.\w+|engines/[0-9a-f]{64}/\.[\w.]+\.part"
)
_FOLDERS = re.compile(r"engines(/[0-9a-f]{64})?|__pycache__")


@dataclass(frozen=True)
class Preprocessing:
    """What a net expects of its image; grey levels are 0 to 255. None stands for what the file says.

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
        palette: an RGB colour for each class; by default PASCAL VOC's colour map.
        preprocessing: mean, scale, colour order and padding, as far as the file's own are not meant.
        crf: dense CRF parameters in the manifest's form; None takes those of a DenseCRF layer, if the net has one.
        head: what deploy.onnx returns.
        opset: of both ONNX files, 17 to 21.
        sources: (role, path, format, dialect) of the Caffe files.
        verify: compare torch and ONNX Runtime before the bundle counts as written.
    """

    name: str = ""
    classes: Sequence[str] = ()
    palette: Sequence[tuple[int, int, int]] = ()
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    crf: Mapping[str, Any] | None = None
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
) -> dict[str, Any]:
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
    target = Path(os.path.abspath(folder))
    check_target(target, replace=replace)
    with _temporary_folder(target) as place:
        manifest = _fill(net, place, options, progress)
        (place / "manifest.json").write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        progress("moving the bundle into place")
        _move(place, target, replace)
    return manifest


def check_target(target: Path, *, replace: bool) -> None:
    """Refuse a target that is not an empty folder or, with `replace`, a bundle and nothing else.

    Raises:
        OutputError: names the entries that are not part of a bundle, and what to do.
    """
    try:
        if not target.exists() or (target.is_dir() and not any(target.iterdir())):
            return
        if not target.is_dir() or not _has_manifest(target):
            raise OutputError(f"{target}: exists and is not a bundle; choose another folder")
        if not replace:
            raise OutputError(f"{target}: a bundle is there already; give --force to replace it")
        foreign = _find_foreign(target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be read ({error.strerror}); choose another folder") from error
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise OutputError(
            f"{target}: contains {', '.join(foreign[:3])}{more}, which atrous did not write; move them away, or choose "
            "another folder"
        )


def _has_manifest(folder: Path) -> bool:
    path = folder / "manifest.json"
    try:
        return path.is_file() and bool(json.loads(path.read_bytes())["schema_version"] == SCHEMA_VERSION)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _find_foreign(folder: Path) -> list[str]:
    """The entries that a bundle cannot have; folders end in a slash."""
    foreign = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_folder = path.is_dir() and not path.is_symlink()
        if not (_FOLDERS if is_folder else _FILES).fullmatch(name):
            foreign.append(f"{name}/" if is_folder else name)
    return foreign


def _fill(net: Net, place: Path, options: BundleOptions, progress: Callable[[str], None]) -> dict[str, Any]:
    """Write all files but the manifest into `place`; returns the manifest."""
    from safetensors.torch import save_model

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
    save_model(module, str(place / "model.safetensors"))
    progress("writing model.onnx")
    export_onnx(faithful, module, place / "model.onnx", opset=options.opset)
    if plan is not None:
        progress("writing deploy.onnx")
        export_deploy(
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
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": options.name or net.name or "net",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "atrous_version": __version__,
        "sources": [_source(*source) for source in options.sources],
        **_describe_blobs(faithful),
        "preprocessing": None,
        "deploy": None,
        "classes": classes,
        "palette": palette,
        "crf": None,
        "files": {path.name: _file_entry(path) for path in sorted(place.iterdir())},
        "verification": [report.to_json() for report in reports],
        "warnings": warnings,
        "versions": _read_versions(),
    }
    if plan is not None:
        crf = options.crf if options.crf is not None else plan.crf
        manifest["crf"] = dict(crf) if crf is not None else None
        manifest["deploy"] = _describe_deployment(plan, options.head)
        manifest["preprocessing"] = {
            "color_order": options.preprocessing.color_order,
            "mean": list(mean),
            "scale": scale,
            "size_rule": plan.size_rule.to_json(),
        }
    return manifest


def _plan(net: Net, preprocessing: Preprocessing, warnings: list[str]) -> Deployment | None:
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


def _name_classes(options: BundleOptions, plan: Deployment | None) -> list[str]:
    channels = plan.scores.shape[1] if plan else 0
    classes = list(options.classes) or [f"class {index}" for index in range(channels)]
    if plan and len(classes) != channels:
        raise OutputError(f"{len(classes)} class names were given, the net scores {channels} classes; give {channels}")
    return classes


def _choose_palette(options: BundleOptions, count: int) -> list[list[int]]:
    colors = [[int(value) for value in color] for color in options.palette or make_voc_colors(count)]
    if any(len(color) != 3 or not all(0 <= value <= 255 for value in color) for color in colors):
        raise OutputError("a colour of the palette is not red, green, blue of 0 to 255")
    return colors[:count]


def _read_pixel_rule(net: Net, given: Preprocessing, warnings: list[str]) -> tuple[tuple[float, float, float], float]:
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


def _describe_blobs(net: Net) -> dict[str, Any]:
    axes = find_dynamic_axes(net)
    return {
        kind: [{"name": blob.name, "shape": axes.sizes(blob), "dtype": "float32"} for blob in blobs]
        for kind, blobs in (("inputs", net.inputs), ("outputs", net.outputs))
    }


def _describe_deployment(plan: Deployment, head: Head) -> dict[str, Any]:
    upsampling = {"padded": plan.size_rule.to_json(), "align_corners": True} if head == "lowres" else None
    return {
        "file": "deploy.onnx",
        "input": "image",
        "head": head,
        "output": head,
        "scores_are": plan.scores_are,
        "blob": plan.scores.name,
        "upsampling": upsampling,
    }


def _read_versions() -> dict[str, str]:
    import onnx
    import torch

    return {"torch": str(torch.__version__), "onnx": str(onnx.__version__), "numpy": str(np.__version__)}


def _source(role: str, path: Path, format_name: str, dialect: str) -> dict[str, Any]:
    return {"role": role, "file": path.name, **_file_entry(path), "format": format_name, "dialect": dialect}


def _file_entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return {"sha256": digest.hexdigest(), "bytes": path.stat().st_size}


@contextlib.contextmanager
def _temporary_folder(target: Path) -> Iterator[Path]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        place = temporary_name(target)
        place.mkdir()
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror}); choose a folder you may write") from error
    try:
        yield place
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _move(place: Path, target: Path, replace: bool) -> None:
    if not target.exists():
        place.rename(target)
        return
    check_target(target, replace=replace)  # again: files may have been added since the beginning
    old = place.with_name(f"{place.name}.old")
    target.rename(old)
    try:
        place.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
