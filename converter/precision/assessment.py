"""Checking a variant against float32 on the CPU: blobs, labels, mean IoU, and what ONNX Runtime makes of the file.

Two things are run. The meaning of the file (see `emulation`), every node as it is written, beside the float32 graph:
that is what the targets judge, as it holds for any faithful engine. And the file itself in ONNX Runtime with its own
optimizations, because that is what a CPU user runs; it may round less often, or have no kernels. Release 1.32 also
breaks graphs by optimizing them: float8 Q/DQ, and Q/DQ with float16 scales. Where that shows, the manifest says that
the file is to be run without optimizations, and `runtime` obeys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray

from ...bundle.manifest import Head
from .agreement import Agreement, Complete, Labels, Score, read_head
from .comparison import BlobError, Comparison
from .emulation import emulate
from .graph_values import open_session
from .progress import SILENT, ShowProgress

Array = NDArray[Any]
#: integer kernels round a little differently from what the file says; more than this is a fault
SLACK = 0.01


@dataclass(frozen=True)
class Picture:
    """An image to check on.

    Attributes:
        image: H x W x 3 uint8 RGB.
        truth: H x W uint8 labels, or None.
    """

    image: Array
    truth: Labels | None = None


@dataclass(frozen=True)
class Reader:
    """How a head's output becomes labels, and labels become mean IoU.

    Attributes:
        head: what the graph gives.
        complete: upsamples `lowres` scores.
        score: mean IoU of (truth, labels) pairs; None where nothing is labelled.
    """

    head: Head
    complete: Complete | None = None
    score: Score | None = None

    def read(self, output: Array, image: Array) -> tuple[Labels, Array | None]:
        """Labels and scores of one image's output."""
        height, width = image.shape[:2]
        return read_head(output, self.head, (height, width), self.complete)


@dataclass(frozen=True)
class Assessment:
    """What became of a variant.

    Attributes:
        agreement: of its labels with float32's.
        rows: each blob's error.
        miou: mean IoU of float32 and of the variant, or None.
    """

    agreement: Agreement
    rows: tuple[BlobError, ...]
    miou: tuple[float, float] | None

    @property
    def miou_loss(self) -> float | None:
        """In points; negative where the variant is better."""
        return None if self.miou is None else (self.miou[0] - self.miou[1]) * 100

    @property
    def worst(self) -> BlobError | None:
        """The blob with the largest error."""
        return max(self.rows, key=lambda row: row.error, default=None)

    @property
    def diverges_at(self) -> BlobError | None:
        """The blob whose own layer adds the most noise; the first of equals."""
        return max(self.rows, key=lambda row: row.step if math.isfinite(row.noise) else math.inf, default=None)

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        worst, diverges = self.worst, self.diverges_at
        return {
            **self.agreement.to_json(),
            "miou_fp32": self.miou[0] if self.miou else None,
            "miou": self.miou[1] if self.miou else None,
            "miou_loss_points": self.miou_loss,
            "worst_blob": worst.to_json() if worst else None,
            "diverges_at": diverges.to_json() if diverges else None,
            "blobs": [row.to_json() for row in self.rows],
        }


def assess(
    reference: onnx.ModelProto,
    variant: onnx.ModelProto,
    pictures: Sequence[Picture],
    reader: Reader,
    *,
    threads: int | None = None,
    show: ShowProgress = SILENT,
) -> Assessment:
    """Compare what a variant means with float32, blob by blob and label by label."""
    comparison = Comparison(reference, emulate(variant), threads=threads)
    agreement = Agreement()
    with show("comparing with float32", len(pictures)) as advance:
        for picture in pictures:
            ours, theirs = comparison.run(picture.image)
            labels, scores = reader.read(ours, picture.image)
            agreement.add(labels, reader.read(theirs, picture.image)[0], scores, picture.truth)
            advance(1)
    miou = agreement.score(reader.score) if reader.score is not None else None
    return Assessment(agreement, tuple(comparison.rows.values()), miou)


def run_as_shipped(
    reference: onnx.ModelProto,
    variant: onnx.ModelProto,
    pictures: Sequence[Picture],
    reader: Reader,
    expected: float,
    *,
    threads: int | None = None,
    show: ShowProgress = SILENT,
) -> dict[str, Any]:
    """What ONNX Runtime makes of the very file, in the manifest's form.

    Args:
        reference: the float32 graph.
        variant: the file.
        pictures: images.
        reader: of the head.
        expected: the label agreement of what the file means; ONNX Runtime with its optimizations must come as near to
            float32, but for `SLACK`.
        threads: of one run.
        show: draws progress.

    Returns:
        `runs`: whether it has kernels for all of it, with `reason` where not. Else `graph_level`, "all" or, where the
        optimizations break the result, "disabled"; `label_agreement` at that level; and `optimized_agreement`.
    """
    with show("running the file in ONNX Runtime", None):
        try:
            optimized = _agree(reference, variant, pictures, reader, threads, as_shipped=True)
            if optimized >= expected - SLACK:
                return {
                    "runs": True,
                    "graph_level": "all",
                    "label_agreement": optimized,
                    "optimized_agreement": optimized,
                }
            plain = _agree(reference, variant, pictures, reader, threads, as_shipped=False)
        except Exception as error:  # ONNX Runtime's errors share no base class
            return {"runs": False, "reason": _first_line(error)}
    return {"runs": True, "graph_level": "disabled", "label_agreement": plain, "optimized_agreement": optimized}


def _agree(
    reference: onnx.ModelProto,
    variant: onnx.ModelProto,
    pictures: Sequence[Picture],
    reader: Reader,
    threads: int | None,
    *,
    as_shipped: bool,
) -> float:
    """Share of labels a file has in common with the float32 file."""
    session = open_session(variant, threads=threads, as_shipped=as_shipped)
    base = open_session(reference, threads=threads, as_shipped=True)
    agreement = Agreement()
    for picture in pictures:
        feed = {reference.graph.input[0].name: picture.image[None]}
        labels, _ = reader.read(base.run(None, feed)[0], picture.image)
        agreement.add(labels, reader.read(session.run(None, feed)[0], picture.image)[0], None)
    return agreement.share


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
