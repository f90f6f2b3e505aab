"""What computes the blobs of a bundle, and the comparison of all of them.

The torch stage runs `model.py` with `model.safetensors` and listens to its submodules; the ONNX stage makes every blob
an output. Both speak of blobs by recording key, through the table that model.onnx carries in its metadata.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import MissingDependencyError, VerificationInputError
from .compare import TOLERANCE, OnnxStage, VerificationReport, compare_stages

Array = NDArray[Any]


class TorchStage:
    """The bundle's `model.py` with its weights; executes `source`, the file's bytes whose digest was checked."""

    name = "torch"

    def __init__(self, bundle: Path, source: bytes, table: Sequence[Mapping[str, Any]]) -> None:
        try:
            import safetensors  # noqa: F401
            import torch  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError(f"the torch stage needs {error.name}: pip install 'atrous[torch]'") from error
        code = ModuleType("atrous_bundle_model")
        code.__file__ = str(bundle / "model.py")
        # Not through importlib, which would run an unlisted __pycache__/model.*.pyc instead.
        exec(compile(source, code.__file__, "exec"), code.__dict__)
        self._module = code.load(bundle / "model.safetensors")
        self._table = table

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every blob by its recording key."""
        import torch

        by_module: dict[str, list[Mapping[str, Any]]] = {}
        for entry in self._table:
            by_module.setdefault(entry["module"], []).append(entry)
        blobs: dict[str, Array] = {}
        handles = [
            self._module.get_submodule(name).register_forward_hook(_listener(entries, blobs))
            for name, entries in by_module.items()
        ]
        try:
            with torch.no_grad():
                self._module(*(torch.from_numpy(np.ascontiguousarray(array)) for array in inputs.values()))
        finally:
            for handle in handles:
                handle.remove()
        return blobs


def _listener(entries: Sequence[Mapping[str, Any]], blobs: dict[str, Array]) -> Callable[..., None]:
    calls = iter(entries)

    def listen(module: Any, arguments: Any, result: Any) -> None:
        if entries[0]["per_bottom"]:
            blobs[next(calls)["key"]] = result.detach().numpy().copy()
            return
        values = result if isinstance(result, tuple) else (result,)
        for entry in entries:
            blobs[entry["key"]] = values[entry["index"]].detach().numpy().copy()

    return listen


def verify_bundle(
    bundle: Path,
    *,
    recorded: Path | None = None,
    image: Path | None = None,
    sizes: Sequence[tuple[int, int]] = (),
    tolerance: float = TOLERANCE,
    progress: Callable[[str], None] = lambda step: None,
) -> list[VerificationReport]:
    """Compare the stages of a bundle.

    Args:
        bundle: the folder.
        recorded: an .npz of blobs that real Caffe computed, with the inputs it ran on.
        image: a photo to run on, at each size in `sizes` or at its own.
        sizes: (height, width) to run at; by default the bundle's own and one other.
        tolerance: the largest error that passes.
        progress: called with the name of each step.

    Returns:
        One report for each stage and input; torch and ONNX against the recording where there is one, else ONNX against
        torch.

    Raises:
        ConverterError: the bundle or the recording cannot be read.
    """
    manifest, source = _read_bundle(bundle)
    progress("loading model.onnx")
    onnx_stage = OnnxStage(bundle / "model.onnx")
    progress("loading model.py")
    torch_stage = TorchStage(bundle, source, onnx_stage.table)
    reports = []
    cases = [_recorded_case(recorded, manifest)] if recorded else list(_cases(manifest, image, sizes))
    for inputs, references in cases:
        shapes = {name: array.shape for name, array in inputs.items()}
        progress(f"running on {', '.join('x'.join(map(str, shape)) for shape in shapes.values())}")
        torch_blobs, onnx_blobs = _run(torch_stage, inputs), _run(onnx_stage, inputs)
        pairs = [("model.onnx", onnx_blobs, "torch", torch_blobs)]
        if references:
            pairs = [("torch", torch_blobs, "Caffe", references), ("model.onnx", onnx_blobs, "Caffe", references)]
        reports += [
            compare_stages(
                onnx_stage.table, blobs, reference,
                stage=stage, reference_name=name, input_shapes=shapes, tolerance=tolerance,
            )
            for stage, blobs, name, reference in pairs
        ]  # fmt: skip
    empty = next((report for report in reports if not report.differences), None)
    if empty is not None:
        raise VerificationInputError(
            f"{recorded}: holds none of the net's blobs; its arrays are to be named <layer>:<top>, as in "
            f"{onnx_stage.table[0]['key']}"
        )
    return reports


def _run(stage: TorchStage | OnnxStage, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """A stage's blobs; what a library says of sizes the net cannot take becomes one line."""
    try:
        return stage.run(inputs)
    except Exception as error:  # each library has its own
        shapes = ", ".join(f"{name} of {'x'.join(map(str, array.shape))}" for name, array in inputs.items())
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise VerificationInputError(
            f"the net does not run on {shapes}: {reason}; give sizes that it takes, such as those it was converted at"
        ) from error


def _read_bundle(bundle: Path) -> tuple[dict[str, Any], bytes]:
    """The manifest, and the bytes of `model.py`; the digests of all files that are compared are checked."""
    path = bundle / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        files = manifest["files"]
        inputs = manifest["inputs"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VerificationInputError(f"{bundle}: is not a readable bundle ({error}); convert the net again") from error
    del inputs
    for name in ("model.safetensors", "model.onnx"):
        _read_listed(bundle, name, files)
    return manifest, _read_listed(bundle, "model.py", files)


def _read_listed(bundle: Path, name: str, files: Mapping[str, Any]) -> bytes:
    if not (bundle / name).is_file():
        raise VerificationInputError(f"{bundle / name}: is missing; convert the net again")
    content = (bundle / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != files.get(name, {}).get("sha256"):
        raise VerificationInputError(f"{bundle / name}: is not the file the manifest lists; convert the net again")
    return content


def _recorded_case(path: Path, manifest: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, Array]]:
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise VerificationInputError(
            f"{path}: is not an .npz of plain arrays, or is damaged; numpy.savez writes one, its arrays named "
            "<layer>:<top> and input:<name>"
        ) from error
    inputs = {}
    for spec in manifest["inputs"]:
        name = spec["name"]
        if f"input:{name}" not in arrays:
            raise VerificationInputError(f"{path}: holds no array input:{name}, the input Caffe ran on")
        inputs[name] = np.ascontiguousarray(arrays[f"input:{name}"], np.float32)
    return inputs, {key: array for key, array in arrays.items() if not key.startswith("input:")}


def _cases(
    manifest: Mapping[str, Any], image: Path | None, sizes: Sequence[tuple[int, int]]
) -> Sequence[tuple[dict[str, Array], dict[str, Array]]]:
    own_size: list[tuple[int, int] | None] = [None]
    chosen = list(sizes) or (own_size if image else _default_sizes(manifest))
    return [(_make_inputs(manifest, image, size), {}) for size in chosen]


def _default_sizes(manifest: Mapping[str, Any]) -> list[tuple[int, int] | None]:
    shape = manifest["inputs"][0]["shape"]
    dynamic = len(shape) == 4 and isinstance(shape[2], str) and isinstance(shape[3], str)
    rule = (manifest.get("preprocessing") or {}).get("size_rule", {})
    if not dynamic or "multiple" not in rule:
        return [None]
    multiple, offset = rule["multiple"], rule["offset"]
    steps = -(-96 // multiple)
    return [(steps * multiple + offset, (steps + 4) * multiple + offset), ((steps + 3) * multiple + offset,) * 2]


def _make_inputs(manifest: Mapping[str, Any], image: Path | None, size: tuple[int, int] | None) -> dict[str, Array]:
    """Seeded noise, or the photo, for every input."""
    random = np.random.default_rng(0)
    inputs: dict[str, Array] = {}
    for spec in manifest["inputs"]:
        shape = list(spec["shape"])
        if len(shape) == 4 and shape[1] == 3 and image is not None:
            inputs[spec["name"]] = _prepare_image(image, size, manifest)
            continue
        planes = size or (128, 128)
        fallback = {0: 1, 2: planes[0], 3: planes[1]}
        sizes = [dim if isinstance(dim, int) else fallback.get(axis, 1) for axis, dim in enumerate(shape)]
        spread = 50.0 if len(sizes) == 4 and sizes[1] == 3 else 1.0
        inputs[spec["name"]] = (random.standard_normal(sizes) * spread).astype(np.float32)
    return inputs


def _prepare_image(path: Path, size: tuple[int, int] | None, manifest: Mapping[str, Any]) -> Array:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise VerificationInputError(f"{path}: is not a readable image ({error})") from error
    if size is not None:
        picture = picture.resize((size[1], size[0]))
    pixels = np.asarray(picture, np.float32)
    settings = manifest.get("preprocessing") or {"color_order": "BGR", "mean": [0, 0, 0], "scale": 1.0}
    if settings["color_order"] == "BGR":
        pixels = pixels[:, :, ::-1]
    prepared = (pixels - np.asarray(settings["mean"], np.float32)) * np.float32(settings["scale"])
    return np.ascontiguousarray(prepared.transpose(2, 0, 1)[None])
