"""Stages against each other and against recordings of real Caffe, blob by blob.

A stage is something that computes a net's blobs: the torch module, an ONNX file, later an engine. Blobs are matched by
their recording key `<layer>:<top>`. A difference is the largest absolute difference relative to max(1, the largest
absolute reference value); the first blob out of tolerance is named with what feeds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...bundle.manifest import Comparison
from ...errors import VerificationError
from ..export.dynamic_axes import find_dynamic_axes
from ..export.onnx_export import BLOB_TABLE
from ..graph.net import Net

Array = NDArray[Any]
#: of any blob, against real Caffe and of ONNX Runtime against torch
TOLERANCE = 1e-4


@dataclass(frozen=True)
class BlobDifference:
    """One blob of two stages.

    Attributes:
        key: `<layer>:<top>`.
        type: the layer's type.
        shape: its shape.
        error: the difference (see the module docstring); inf where shapes or non-finite values differ.
        feeds: keys of the blobs the layer reads.
    """

    key: str
    type: str
    shape: tuple[int, ...]
    error: float
    feeds: tuple[str, ...]


@dataclass(frozen=True)
class VerificationReport:
    """A stage against a reference on one input.

    Attributes:
        stage: what was checked, such as `model.onnx`.
        reference: what it was checked against, such as `torch`.
        input_shapes: input name -> shape.
        tolerance: the largest error that passes.
        differences: every blob, in execution order.
    """

    stage: str
    reference: str
    input_shapes: dict[str, tuple[int, ...]]
    tolerance: float
    differences: tuple[BlobDifference, ...]

    @property
    def worst(self) -> float:
        """The largest error of any blob."""
        return max((d.error for d in self.differences), default=0.0)

    @property
    def first_divergence(self) -> BlobDifference | None:
        """The first blob out of tolerance, or None."""
        return next((d for d in self.differences if not d.error <= self.tolerance), None)

    @property
    def passed(self) -> bool:
        """Whether every blob is within tolerance."""
        return self.first_divergence is None

    def describe(self) -> str:
        """One sentence for people."""
        first = self.first_divergence
        if first is None:
            return (
                f"{self.stage} equals {self.reference} in {len(self.differences)} blobs, "
                f"largest error {self.worst:.2g} (tolerance {self.tolerance:g})"
            )
        feeds = ", ".join(first.feeds) or "the input"
        return (
            f"{self.stage} differs from {self.reference} first at {first.key} ({first.type}): "
            f"error {first.error:.3g}, tolerance {self.tolerance:g}; it reads {feeds}"
        )

    def require_passed(self) -> None:
        """Raise where a blob is out of tolerance.

        Raises:
            VerificationError: naming the first such blob.
        """
        if not self.passed:
            raise VerificationError(self.describe())

    def summarize(self) -> Comparison:
        """The entry of the manifest."""
        first = self.first_divergence
        return Comparison(
            stage=self.stage,
            reference=self.reference,
            input_shapes={name: tuple(map(int, shape)) for name, shape in self.input_shapes.items()},
            blobs=len(self.differences),
            worst_error=_plain_error(self.worst),
            tolerance=self.tolerance,
            passed=self.passed,
            first_divergence=first.key if first else None,
        )

    def rows_json(self) -> list[dict[str, Any]]:
        """Every blob as plain data; JSON knows no infinity, so that one is a string."""
        return [
            {
                "key": row.key,
                "type": row.type,
                "shape": list(row.shape),
                "error": _plain_error(row.error),
                "feeds": list(row.feeds),
            }
            for row in self.differences
        ]


def _plain_error(error: float) -> float | str:
    return float(error) if np.isfinite(error) else str(error)


def measure_difference(computed: Array, reference: Array) -> float:
    """Largest absolute difference relative to max(1, largest absolute reference value)."""
    if computed.shape != reference.shape:
        return float("inf")
    a, b = np.asarray(computed, np.float64), np.asarray(reference, np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    finite = np.isfinite(a) & np.isfinite(b)
    if not (same | finite).all():
        return float("inf")
    largest = max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0.0)))
    return float(np.abs(np.subtract(a, b, out=np.zeros_like(a), where=~same)).max()) / largest


def compare_stages(
    table: Sequence[Mapping[str, Any]],
    computed: Mapping[str, Array],
    reference: Mapping[str, Array],
    *,
    stage: str,
    reference_name: str,
    input_shapes: Mapping[str, Sequence[int]],
    tolerance: float = TOLERANCE,
) -> VerificationReport:
    """Compare all blobs that both stages computed.

    Args:
        table: the blob table of the net (see `onnx_export.blob_table`).
        computed: key -> array of the stage under test.
        reference: key -> array of the reference.
        stage: name of the stage under test.
        reference_name: name of the reference.
        input_shapes: what both ran on.
        tolerance: the largest error that passes.
    """
    rows = tuple(
        BlobDifference(
            entry["key"],
            entry["type"],
            tuple(np.shape(computed[entry["key"]])),
            measure_difference(computed[entry["key"]], reference[entry["key"]]),
            tuple(entry["feeds"]),
        )
        for entry in table
        if entry["key"] in computed and entry["key"] in reference
    )
    shapes = {name: tuple(shape) for name, shape in input_shapes.items()}
    return VerificationReport(stage, reference_name, shapes, tolerance, rows)


class OnnxStage:
    """An ONNX file written by `export_onnx`, with every blob made an output in memory."""

    def __init__(self, path: str | Path) -> None:
        import onnx
        import onnxruntime

        from .onnx_reading import parse_onnx

        self.name = Path(path).name
        model = parse_onnx(Path(path).read_bytes(), Path(path))
        properties = {entry.key: entry.value for entry in model.metadata_props}
        self.table: list[dict[str, Any]] = json.loads(properties[BLOB_TABLE])
        known = {output.name for output in model.graph.output}
        for entry in self.table:
            if entry["value"] not in known:
                known.add(entry["value"])
                model.graph.output.append(onnx.ValueInfoProto(name=entry["value"]))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Fusions would change or remove the very blobs that are compared.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every blob by its recording key."""
        names = sorted({entry["value"] for entry in self.table})
        values = dict(zip(names, self._session.run(names, dict(inputs)), strict=True))
        return {entry["key"]: values[entry["value"]] for entry in self.table}


def random_inputs(net: Net, shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, Array]:
    """Image-like noise (standard deviation 50) for inputs of three channels, unit noise for others."""
    random = np.random.default_rng(seed)
    inputs = {}
    for blob in net.inputs:
        shape = tuple(shapes.get(blob.name, blob.shape))
        spread = 50.0 if len(shape) == 4 and shape[1] == 3 else 1.0
        inputs[blob.name] = (random.standard_normal(shape) * spread).astype(np.float32)
    return inputs


def verify_model(net: Net, module: Any, onnx_path: Path, *, tolerance: float = TOLERANCE) -> list[VerificationReport]:
    """ONNX Runtime against torch, every blob, at the sizes of :func:`verification_shapes`."""
    from ..export.torch_module import run_blobs

    stage = OnnxStage(onnx_path)
    reports = []
    for shapes in verification_shapes(net):
        inputs = random_inputs(net, shapes)
        reports.append(
            compare_stages(
                stage.table,
                stage.run(inputs),
                run_blobs(module, inputs),
                stage=stage.name,
                reference_name="torch",
                input_shapes=shapes,
                tolerance=tolerance,
            )
        )
    return reports


def verification_shapes(net: Net) -> list[dict[str, tuple[int, ...]]]:
    """Input sizes to check: a moderate odd size and an even one with a batch of two, where the net takes them.

    A net that takes neither is checked at its own size.
    """
    axes = find_dynamic_axes(net)
    has_image = any(len(blob.shape) == 4 and blob.shape[1] == 3 for blob in net.inputs)
    found = []
    for batch, height, width in ((1, 97, 129), (2, 64, 96), (1, 128, 128)):
        sizes = {"batch": batch} | ({"height": height, "width": width} if has_image else {})
        if axes.accepts(sizes):
            found.append({blob.name: axes.shape_at(blob, sizes) for blob in net.inputs})
    return found[:2] or [{blob.name: blob.shape for blob in net.inputs}]
