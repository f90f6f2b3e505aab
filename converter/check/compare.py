"""Comparison of two stages of a conversion, or of a stage and a recording of real Caffe, blob by blob.

Blobs are matched by recording key `<layer>:<top>`. The error of a blob is its largest absolute difference relative to
max(1, the largest absolute reference value). The report names the first blob out of tolerance and the blobs it reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...bundle.manifest import Comparison
from ...errors import VerificationError

Array = NDArray[Any]
TOLERANCE = 1e-4
"""Largest error of any blob: against real Caffe, and of ONNX Runtime against torch."""


@dataclass(frozen=True)
class BlobDifference:
    """One blob of two stages."""

    key: str  # `<layer>:<top>`
    type: str  # the layer's type
    shape: tuple[int, ...]  # its shape
    error: float  # see the module docstring; inf where shapes or non-finite values differ
    feeds: tuple[str, ...]  # keys of the blobs the layer reads


@dataclass(frozen=True)
class VerificationReport:
    """A stage against a reference on one input.

    Attributes:
        stage: name of the checked stage, such as `model.onnx`.
        reference: name of the reference, such as `torch`.
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
        """One sentence about the result."""
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
        """Raise a VerificationError that names the first blob out of tolerance, if there is one."""
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
        """Every blob as plain data; JSON has no infinity, so an infinite error is a string."""
        return [{**asdict(row), "error": _plain_error(row.error)} for row in self.differences]


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
    """Compare all blobs of the net's blob table (`onnx_export.blob_table`) that both stages have, by key."""
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
