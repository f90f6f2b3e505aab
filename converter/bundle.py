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
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .cutting import cut_net
from .deploy import Deployment, Head, export_deploy, plan_deployment
from .errors import BundleWriteError, ExportError
from .model_source import write_model_source
from .net import Net
from .onnx_export import export_onnx
from .onnx_graph import DEFAULT_OPSET
from .torch_module import to_torch
from .verify import VerificationReport, verify_model
from .version import VERSION

SCHEMA_VERSION = 1
#: DeepLab's mean pixel in grey levels, blue, green, red; also that of most VGG-16 descendants
DEEPLAB_MEAN = (104.008, 116.669, 122.675)


@dataclass(frozen=True)
class Preprocessing:
    """What a net expects of its image; grey levels are 0 to 255."""

    mean: tuple[float, float, float] = DEEPLAB_MEAN
    scale: float = 1.0
    color_order: Literal["BGR", "RGB"] = "BGR"
    minimum: tuple[int, int] | None = None


@dataclass(frozen=True)
class BundleOptions:
    """What the Caffe files do not say.

    Attributes:
        name: the bundle's name; by default the net's own.
        classes: names of the classes, in channel order; by default `class 0`, `class 1`, ...
        palette: an RGB colour for each class.
        preprocessing: mean, scale, colour order and padding; None reads what a data layer says, else DeepLab's.
        crf: dense CRF parameters in the manifest's form; None takes those of a DenseCRF layer, if the net has one.
        head: what deploy.onnx returns.
        opset: of both ONNX files, 17 to 21.
        sources: (role, path, format, dialect) of the Caffe files.
        verify: compare torch and ONNX Runtime before the bundle counts as written.
    """

    name: str = ""
    classes: Sequence[str] = ()
    palette: Sequence[tuple[int, int, int]] = ()
    preprocessing: Preprocessing | None = None
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
        BundleWriteError: the folder exists or cannot be written.
        ExportError: the net has no ONNX form.
        VerificationError: torch and ONNX Runtime disagree.
    """
    options = options or BundleOptions()
    target = Path(folder)
    check_target(target, replace=replace)
    with _temporary_folder(target) as place:
        manifest = _fill(net, place, options, progress)
        (place / "manifest.json").write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        progress("moving the bundle into place")
        _move(place, target, replace)
    return manifest


def check_target(target: Path, *, replace: bool) -> None:
    """Refuse a target that would overwrite something other than a bundle the user wants replaced.

    Raises:
        BundleWriteError: with what to do.
    """
    if not target.exists():
        return
    if not target.is_dir() or (any(target.iterdir()) and not (target / "manifest.json").exists()):
        raise BundleWriteError(f"{target}: exists and is not a bundle; choose another folder")
    if any(target.iterdir()) and not replace:
        raise BundleWriteError(f"{target}: a bundle is there already; give --force to replace it")


def _fill(net: Net, place: Path, options: BundleOptions, progress: Callable[[str], None]) -> dict[str, Any]:
    """Write all files but the manifest into `place`; returns the manifest."""
    from safetensors.torch import save_model

    warnings = list(net.warnings)
    preprocessing = options.preprocessing
    if preprocessing is None:
        preprocessing, guess = read_preprocessing(net)
        warnings += guess
    plan = _plan(net, preprocessing, warnings)
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
            mean=preprocessing.mean,
            scale=preprocessing.scale,
            color_order=preprocessing.color_order,
            opset=options.opset,
        )
    reports: list[VerificationReport] = []
    if options.verify:
        progress("comparing torch and ONNX Runtime")
        reports = verify_model(faithful, module, place / "model.onnx")
        for report in reports:
            report.require_passed()
    return _manifest(faithful, plan, options, preprocessing, place, reports, warnings)


def _plan(net: Net, preprocessing: Preprocessing, warnings: list[str]) -> Deployment | None:
    try:
        return plan_deployment(net, minimum=preprocessing.minimum)
    except ExportError as error:
        warnings.append(f"no deploy.onnx: {error}")
        return None


def _without_crf(net: Net, plan: Deployment | None, warnings: list[str]) -> Net:
    """The net up to its DenseCRF layer, which becomes the bundle's CRF stage."""
    crf_layers = [layer for layer in net.layers if layer.type == "DenseCRF"]
    if plan is None or not crf_layers:
        return net
    warnings.append(f'the DenseCRF layer "{crf_layers[0].name}" became the CRF stage of the bundle')
    scores = next(top for layer in net.layers for top in layer.tops if _names_same(top, plan))
    return cut_net(net, [scores])


def _names_same(top: Any, plan: Deployment) -> bool:
    wanted = plan.scores.producer
    return wanted is not None and top.name == plan.scores.name and top.producer.attribute == wanted.attribute


def read_preprocessing(net: Net) -> tuple[Preprocessing, list[str]]:
    """Mean and scale of the file's own data layer, else DeepLab's with a warning."""
    transform = net.definition.transform
    if transform is not None and len(transform.mean_value) in (1, 3):
        mean = [float(str(np.float32(value))) for value in transform.mean_value]
        blue, green, red = mean if len(mean) == 3 else mean * 3
        return Preprocessing((blue, green, red), float(str(np.float32(transform.scale)))), []
    return Preprocessing(), [
        "the file does not say the mean of its training images; DeepLab's "
        f"{DEEPLAB_MEAN} (blue, green, red) was taken: give --mean if the net was trained with another"
    ]


def _manifest(
    net: Net,
    plan: Deployment | None,
    options: BundleOptions,
    preprocessing: Preprocessing,
    place: Path,
    reports: Sequence[VerificationReport],
    warnings: Sequence[str],
) -> dict[str, Any]:
    import onnx
    import torch

    from .dynamic_axes import find_dynamic_axes

    axes = find_dynamic_axes(net)
    channels = plan.scores.shape[1] if plan else 0
    classes = list(options.classes) or [f"class {index}" for index in range(channels)]
    if plan and len(classes) != channels:
        raise BundleWriteError(f"{len(classes)} class names were given, the net scores {channels} classes")
    crf = options.crf if options.crf is not None else (plan.crf if plan else None)
    deploy = None
    if plan is not None:
        rule = plan.size_rule.to_json()
        deploy = {
            "file": "deploy.onnx",
            "input": "image",
            "head": options.head,
            "output": options.head,
            "scores_are": plan.scores_are,
            "upsampling": {"padded": rule, "align_corners": True} if options.head == "lowres" else None,
        }
    return {
        "schema_version": SCHEMA_VERSION,
        "name": options.name or net.name or "net",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "atrous_version": VERSION,
        "sources": [_source(*source) for source in options.sources],
        "inputs": [_blob_spec(blob.name, blob.shape, axes.inputs[blob.name]) for blob in net.inputs],
        "outputs": [
            _blob_spec(
                blob.name,
                blob.shape,
                [
                    ("batch", None, "height", "width", *[None] * 9)[i] or f"axis{i}" if moves else None
                    for i, moves in enumerate(axes.of(blob))
                ],
            )
            for blob in net.outputs
        ],
        "preprocessing": {
            "color_order": preprocessing.color_order,
            "mean": list(preprocessing.mean),
            "scale": preprocessing.scale,
            "size_rule": plan.size_rule.to_json(),
        }
        if plan
        else None,
        "deploy": deploy,
        "classes": classes,
        "palette": [list(color) for color in options.palette][: len(classes)],
        "crf": dict(crf) if crf is not None else None,
        "files": {path.name: _file_entry(path) for path in sorted(place.iterdir())},
        "verification": [report.to_json() for report in reports],
        "warnings": list(warnings),
        "versions": {"torch": str(torch.__version__), "onnx": str(onnx.__version__), "numpy": str(np.__version__)},
    }


def _source(role: str, path: Path, format_name: str, dialect: str) -> dict[str, Any]:
    return {"role": role, "file": path.name, **_file_entry(path), "format": format_name, "dialect": dialect}


def _blob_spec(name: str, shape: Sequence[int], symbols: Sequence[str | None]) -> dict[str, Any]:
    sizes = [symbol if symbol is not None else size for symbol, size in zip(symbols, shape, strict=False)]
    return {"name": name, "shape": sizes, "dtype": "float32"}


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
        place = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise BundleWriteError(
            f"{target}: cannot be written ({error.strerror}); choose a folder you may write"
        ) from error
    try:
        yield place
    except OSError as error:
        raise BundleWriteError(f"{target}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _move(place: Path, target: Path, replace: bool) -> None:
    place.chmod(0o755)
    if target.exists() and any(target.iterdir()):
        assert replace, "check_target refused this before"
        old = place.with_name(f"{place.name}.old")
        target.rename(old)
        place.rename(target)
        shutil.rmtree(old, ignore_errors=True)
        return
    if target.exists():
        target.rmdir()
    place.rename(target)
