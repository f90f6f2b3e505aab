"""OpenCV as a third reader of a bundle's ONNX files, beside torch and ONNX Runtime.

Each file runs as it is, on seeded inputs, and its outputs are compared with ONNX Runtime's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle.folder import read_bundle
from ...errors import VerificationError, VerificationInputError
from .compare import TOLERANCE, Array, BlobDifference, VerificationReport, measure_difference
from .onnx_reading import parse_onnx, refuse_invalid
from .opencv_process import INTERPRETER, OpenCv, OpenCvError

FILES = ("model.onnx", "deploy.onnx")
_TIMEOUT_S = 600.0


def verify_opencv(
    bundle: Path, *, sizes: Sequence[tuple[int, int]] = (), tolerance: float = TOLERANCE
) -> list[VerificationReport]:
    """Compare the outputs of model.onnx and deploy.onnx in OpenCV with those in ONNX Runtime.

    OpenCV 5 reads both. OpenCV 4 takes static shapes only: files with open sizes are left out there.

    Args:
        bundle: the folder.
        sizes: (height, width) in pixels to run at; by default 97 x 129, or the bundle's own if that is fixed.
        tolerance: the largest error that passes.

    Raises:
        MissingDependencyError: OpenCV is not installed.
        BackendError: it does not load.
        VerificationError: OpenCV cannot run one of the files.
        VerificationInputError: OpenCV 4, and a bundle without a file of static shapes; or sizes that do not fit.
    """
    opened = read_bundle(bundle)
    reports = []
    with OpenCv(os.environ.get(INTERPRETER) or sys.executable, timeout_s=_TIMEOUT_S) as opencv:
        version = opencv.version()
        for name in FILES:
            if name not in opened.manifest.files:
                continue
            content = opened.read_file(name)
            shapes = _read_inputs(content, bundle / name)
            if version.startswith("4.") and any(isinstance(dim, str) for shape in shapes.values() for dim in shape):
                continue
            for size in sizes or [(97, 129)]:
                closed = {name: _close(shape, size) for name, shape in shapes.items()}
                reports.append(_compare_file(opencv, version, bundle / name, content, closed, tolerance))
    if not reports:
        raise VerificationInputError(
            f"{bundle}: OpenCV {version} reads only ONNX of static shapes, and this bundle has none; convert the net "
            "with --fixed HxW, or install OpenCV 5"
        )
    return reports


def _compare_file(
    opencv: OpenCv,
    version: str,
    path: Path,
    content: bytes,
    shapes: dict[str, tuple[int, ...]],
    tolerance: float,
) -> VerificationReport:
    with refuse_invalid(path):
        inputs, expected = run_in_onnx_runtime(content, shapes)
    try:
        found = opencv.run_onnx(content, inputs, list(expected))
    except OpenCvError as error:
        raise VerificationError(
            f"{path}: OpenCV {version} cannot run it: {error}; ONNX Runtime can (docs/readers.md lists OpenCV's limits)"
        ) from error
    rows = tuple(compare_outputs(expected, found))
    return VerificationReport(f"{path.name} in OpenCV {version}", "ONNX Runtime", shapes, tolerance, rows)


def compare_outputs(expected: Mapping[str, Array], found: Mapping[str, Array]) -> Iterator[BlobDifference]:
    """Compare each output; OpenCV 4 has no arrays of fewer than two axes and writes N as N x 1."""
    for name, array in expected.items():
        theirs = found[name]
        if array.ndim < 2 and theirs.size == array.size:
            theirs = theirs.reshape(array.shape)
        yield BlobDifference(name, "output", array.shape, measure_difference(theirs, array), ())


def run_in_onnx_runtime(
    content: bytes, shapes: Mapping[str, Sequence[int]], spread: float = 50.0
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Run a model on seeded inputs of these shapes; the inputs and the outputs.

    uint8 inputs are gray levels from 0 to 255, images of three channels noise of standard deviation `spread`, and
    others noise of standard deviation 1.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    inputs: dict[str, Array] = {}
    for spec in session.get_inputs():
        shape = tuple(shapes[spec.name])
        if spec.type == "tensor(uint8)":
            inputs[spec.name] = random.integers(0, 256, shape, np.uint8)
        else:
            scale = spread if len(shape) == 4 and shape[1] == 3 else 1.0
            inputs[spec.name] = (random.standard_normal(shape) * scale).astype(np.float32)
    names = [spec.name for spec in session.get_outputs()]
    return inputs, dict(zip(names, session.run(names, inputs), strict=True))


def _read_inputs(content: bytes, path: Path) -> dict[str, list[int | str]]:
    """Input -> shape; open sizes are strings."""
    model = parse_onnx(content, path)
    return {
        value.name: [dim.dim_param or int(dim.dim_value) for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }


def _close(shape: Sequence[Any], size: tuple[int, int]) -> tuple[int, ...]:
    """The shape with a batch of 1 and this height and width (pixels) in place of open sizes."""
    sizes = {"batch": 1, "height": size[0], "width": size[1]}
    return tuple(sizes.get(dim, 1) if isinstance(dim, str) else dim for dim in shape)
