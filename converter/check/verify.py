"""Verification of a conversion: ONNX Runtime against torch, and both against recordings of real Caffe.

`verify_model` checks a net that is being converted, `verify_bundle` a bundle on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle.folder import read_bundle
from ...bundle.manifest import Manifest
from ...errors import VerificationInputError
from ..export.dynamic_axes import find_dynamic_axes
from ..graph.net import Net
from .compare import TOLERANCE, Array, VerificationReport, compare_stages
from .stages import OnnxStage, TorchStage, follow_choices

Blobs = dict[str, Array]


def verify_model(
    net: Net,
    module: Any,
    onnx_path: Path,
    *,
    tolerance: float = TOLERANCE,
    rename: Mapping[str, str] | None = None,
) -> list[VerificationReport]:
    """Compare every blob in ONNX Runtime and in torch, at the sizes of :func:`verification_shapes`.

    `rename` has the names of inputs in the file that differ from the net's.
    """
    from ..export.torch_module import run_blobs

    stage = OnnxStage(onnx_path)
    reports = []
    for shapes in verification_shapes(net):
        inputs = random_inputs(shapes)
        given = {(rename or {}).get(name, name): array for name, array in inputs.items()}
        computed = stage.run(given)
        reports.append(
            compare_stages(
                stage.table,
                computed,
                follow_choices(module, stage.table, given, computed, run_blobs(module, inputs)),
                stage=stage.name,
                reference_name="torch",
                input_shapes=shapes,
                tolerance=tolerance,
            )
        )
    return reports


def verification_shapes(net: Net) -> list[dict[str, tuple[int, ...]]]:
    """Input shapes to check: a moderate odd size and an even one with a batch of two, or else the net's own."""
    axes = find_dynamic_axes(net)
    has_image = any(len(blob.shape) == 4 and blob.shape[1] == 3 for blob in net.inputs)
    found = []
    for batch, height, width in ((1, 97, 129), (2, 64, 96), (1, 128, 128)):
        sizes = {"batch": batch} | ({"height": height, "width": width} if has_image else {})
        if axes.accepts(sizes):
            found.append({blob.name: axes.shape_at(blob, sizes) for blob in net.inputs})
    return found[:2] or [{blob.name: blob.shape for blob in net.inputs}]


def random_inputs(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> Blobs:
    """Seeded noise by input name: standard deviation 50 for images of three channels, 1 for other inputs."""
    random = np.random.default_rng(seed)
    return {
        name: (random.standard_normal(shape) * (50.0 if len(shape) == 4 and shape[1] == 3 else 1.0)).astype(np.float32)
        for name, shape in shapes.items()
    }


def verify_bundle(
    bundle: Path,
    *,
    recorded: Path | None = None,
    image: Path | None = None,
    sizes: Sequence[tuple[int, int]] = (),
    tolerance: float = TOLERANCE,
    progress: Callable[[str], None] = lambda step: None,
) -> list[VerificationReport]:
    """Compare the stages of a bundle. Executes its model.py: verify only bundles from makers you trust.

    Args:
        bundle: the folder.
        recorded: .npz of blobs that real Caffe computed, with the inputs it ran on.
        image: photo to run on, at each size in `sizes` or at its own.
        sizes: (height, width) in pixels to run at; by default the bundle's own and one other.
        tolerance: the largest error that passes.
        progress: called with the name of each step.

    Returns:
        One report for each stage and input: torch and ONNX against the recording where there is one, else ONNX against
        torch.

    Raises:
        BundleError: the bundle or one of its files is missing or altered.
        VerificationInputError: the recording or the image cannot be read, or the net does not take these sizes.
    """
    from .onnx_reading import refuse_invalid

    opened = read_bundle(bundle)
    manifest = opened.manifest
    opened.verify_files(["model.safetensors"])
    if "model.onnx" not in manifest.files:
        raise VerificationInputError(f"{bundle}: has no model.onnx to compare with torch; the manifest says why")
    progress("loading model.onnx")
    with refuse_invalid(bundle / "model.onnx"):
        onnx_stage = OnnxStage(bundle / "model.onnx", opened.read_file("model.onnx"))
    progress("loading model.py")
    torch_stage = TorchStage(bundle, opened.read_file("model.py"), onnx_stage.table)
    reports = []
    cases = [_read_recording(recorded, manifest)] if recorded else _make_cases(manifest, image, sizes)
    for inputs, references in cases:
        shapes = {name: array.shape for name, array in inputs.items()}
        progress(f"running on {', '.join('x'.join(map(str, shape)) for shape in shapes.values())}")
        torch_blobs, onnx_blobs = torch_stage.run(inputs), onnx_stage.run(inputs)
        followed = follow_choices(torch_stage.module, onnx_stage.table, inputs, onnx_blobs, torch_blobs)
        pairs = [("model.onnx", onnx_blobs, "torch", followed)]
        if references:
            pairs = [("torch", torch_blobs, "Caffe", references), ("model.onnx", onnx_blobs, "Caffe", references)]
        reports += [
            compare_stages(
                onnx_stage.table, blobs, reference,
                stage=stage, reference_name=name, input_shapes=shapes, tolerance=tolerance,
            )
            for stage, blobs, name, reference in pairs
        ]  # fmt: skip
    if not all(report.differences for report in reports):
        raise VerificationInputError(
            f"{recorded}: holds none of the net's blobs; name its arrays <layer>:<top>, as in "
            f"{onnx_stage.table[0]['key']}"
        )
    return reports


def _read_recording(path: Path, manifest: Manifest) -> tuple[Blobs, Blobs]:
    """The inputs and the blobs of a recording."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
    except OSError as error:
        raise VerificationInputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # zipfile and NumPy raise nearly anything on damaged files
        raise VerificationInputError(
            f"{path}: is not an .npz of plain arrays, or is damaged; write it by numpy.savez with arrays named "
            "<layer>:<top> and input:<name>"
        ) from error
    inputs = {}
    for spec in manifest.inputs:
        if f"input:{spec.name}" not in arrays:
            raise VerificationInputError(f"{path}: holds no array input:{spec.name}, the input that Caffe ran on")
        inputs[spec.name] = np.ascontiguousarray(arrays[f"input:{spec.name}"], np.float32)
    return inputs, {key: array for key, array in arrays.items() if not key.startswith("input:")}


def _make_cases(
    manifest: Manifest, image: Path | None, sizes: Sequence[tuple[int, int]]
) -> Iterator[tuple[Blobs, Blobs]]:
    """The photo or seeded noise at each size, without references."""
    own_size: list[tuple[int, int] | None] = [None]
    for size in list(sizes) or (own_size if image else _default_sizes(manifest)):
        yield _make_inputs(manifest, image, size), {}


def _default_sizes(manifest: Manifest) -> list[tuple[int, int] | None]:
    shape = manifest.inputs[0].shape
    dynamic = len(shape) == 4 and isinstance(shape[2], str) and isinstance(shape[3], str)
    rule = manifest.preprocessing.size_rule if manifest.preprocessing is not None else None
    if not dynamic or rule is None or rule.fixed is not None:
        return [None]
    multiple, offset = rule.multiple, rule.offset
    steps = -(-96 // multiple)
    return [(steps * multiple + offset, (steps + 4) * multiple + offset), ((steps + 3) * multiple + offset,) * 2]


def _make_inputs(manifest: Manifest, image: Path | None, size: tuple[int, int] | None) -> Blobs:
    """The photo for image inputs, seeded noise for the others and where there is no photo."""
    height, width = size or (128, 128)
    defaults = {0: 1, 2: height, 3: width}
    shapes, images = {}, {}
    for spec in manifest.inputs:
        if image is not None and len(spec.shape) == 4 and spec.shape[1] == 3:
            images[spec.name] = _prepare_image(image, size, manifest)
        else:
            shapes[spec.name] = [
                dim if isinstance(dim, int) else defaults.get(axis, 1) for axis, dim in enumerate(spec.shape)
            ]
    inputs = images | random_inputs(shapes)
    return {spec.name: inputs[spec.name] for spec in manifest.inputs}


def _prepare_image(path: Path, size: tuple[int, int] | None, manifest: Manifest) -> Array:
    """A photo as the net's input: float32 1 x 3 x H x W in the net's channel order, mean subtracted, scaled."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise VerificationInputError(f"{path}: is not a readable image ({error})") from error
    if size is not None:
        picture = picture.resize((size[1], size[0]))
    pixels = np.asarray(picture, np.float32)
    rule = manifest.preprocessing
    if rule is None or rule.color_order == "BGR":
        pixels = pixels[:, :, ::-1]
    prepared = pixels if rule is None else (pixels - np.asarray(rule.mean, np.float32)) * np.float32(rule.scale)
    return np.ascontiguousarray(prepared.transpose(2, 0, 1)[None])
