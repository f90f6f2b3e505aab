"""Assessment of a variant on the CPU: blobs, labels, mean IoU, and the file in ONNX Runtime.

Two graphs are run. One is the float32 graph of the file's meaning (see `compare`), which the targets judge, as it holds
for any faithful engine. The other is the file itself in ONNX Runtime with its optimizations, because CPU users run
that; it may round less often, or lack kernels. Release 1.32 also breaks some graphs by optimizing them: float8 Q/DQ,
and Q/DQ with float16 scales. If so, the manifest says to run the file without optimizations, and `runtime` obeys.

A net decides most pixels by a wide margin and some by a hair, where any rounding may change the label without harm. So
the agreement of the clear pixels is counted too: those whose two best float32 scores differ by at least 1 % of the span
of all scores of the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ..check.onnx_reading import list_runtime_errors
from .compare import BlobError, Comparison, emulate
from .graph import make_feed, open_session
from .images import Array, HeadReader, Labels, Picture
from .options import ShowProgress, Targets, no_progress

CLEAR_MARGIN = 0.01
#: integer kernels round slightly differently from the file; a larger loss of agreement is a fault
SLACK = 0.01


def find_clear(scores: Array) -> NDArray[np.bool_]:
    """Find the pixels (H, W) that L x H x W scores decide clearly."""
    if scores.shape[0] < 2:
        return np.ones(scores.shape[1:], np.bool_)
    best = np.partition(scores, -2, axis=0)[-2:]  # (2, H, W)
    clear: NDArray[np.bool_] = best[1] - best[0] >= CLEAR_MARGIN * float(scores.max() - scores.min())
    return clear


@dataclass
class Agreement:
    """Counts over images: pixels with equal labels, of all pixels and of those the reference decides clearly.

    `worst` is the least agreement of one image. A head of labels has no clear pixels.
    """

    images: int = 0
    pixels: int = 0
    agreed: int = 0
    clear: int = 0
    clear_agreed: int = 0
    worst: float = 1.0

    def add(self, reference: Labels, labels: Labels, scores: Array | None) -> None:
        """Add one image: H x W labels of both, and the reference's L x H x W scores if known."""
        same = reference == labels
        self.images += 1
        self.pixels += same.size
        self.agreed += int(same.sum())
        self.worst = min(self.worst, float(same.mean()))
        if scores is not None:
            clear = find_clear(scores)
            self.clear += int(clear.sum())
            self.clear_agreed += int((same & clear).sum())

    @property
    def share(self) -> float:
        """Share of all pixels that agree."""
        return self.agreed / max(self.pixels, 1)

    @property
    def disagreement(self) -> float:
        """Share of all pixels that disagree."""
        return (self.pixels - self.agreed) / max(self.pixels, 1)

    @property
    def clear_share(self) -> float | None:
        """Share of the clear pixels that agree; None if no pixel is known to be clear."""
        return self.clear_agreed / self.clear if self.clear else None


@dataclass(frozen=True)
class Assessment:
    """Comparison of a variant with float32: labels, blobs, and mean IoU (0 to 1) of float32 and of the variant."""

    agreement: Agreement
    rows: tuple[BlobError, ...]
    miou: tuple[float, float] | None

    @property
    def miou_loss(self) -> float | None:
        """Loss of mean IoU in points; negative if the variant is better."""
        return None if self.miou is None else (self.miou[0] - self.miou[1]) * 100

    @property
    def worst(self) -> BlobError | None:
        """The blob with the largest error."""
        return max(self.rows, key=lambda row: row.error, default=None)

    @property
    def diverges_at(self) -> BlobError | None:
        """The blob whose own layer adds the most noise; ties go to the first."""
        return max(self.rows, key=lambda row: row.step if math.isfinite(row.noise) else math.inf, default=None)

    def find_misses(self, targets: Targets) -> tuple[str, ...]:
        """Return a sentence for each target that is missed."""
        return tuple(targets.find_misses(self.agreement.share, self.miou_loss))

    def to_json(self) -> dict[str, Any]:
        """Return the assessment as the manifest records it."""
        worst, diverges, agreement = self.worst, self.diverges_at, self.agreement
        return {
            "images": agreement.images,
            "label_agreement": agreement.share,
            "worst_image_agreement": agreement.worst,
            "clear_agreement": agreement.clear_share,
            "clear_pixels": agreement.clear / max(agreement.pixels, 1),
            "miou_fp32": self.miou[0] if self.miou else None,
            "miou": self.miou[1] if self.miou else None,
            "miou_loss_points": self.miou_loss,
            "worst_blob": worst.to_json() if worst else None,
            "diverges_at": diverges.to_json() if diverges else None,
            "blobs": [row.to_json() for row in self.rows],
        }


@dataclass(frozen=True)
class Reference:
    """The float32 graph and the images that variants are compared on."""

    model: onnx.ModelProto
    pictures: Sequence[Picture]
    reader: HeadReader
    threads: int | None = None
    show: ShowProgress = no_progress

    def open(self, model: onnx.ModelProto, *, optimize: bool = False) -> Callable[[Array], Array]:
        """Open a session of a model with the reference's input; returns a function from an image to the output."""
        session, name = open_session(model, threads=self.threads, optimize=optimize), self.model.graph.input[0].name
        return lambda image: session.run(None, {name: make_feed(self.model, image)})[0]


def assess(reference: Reference, variant: onnx.ModelProto) -> Assessment:
    """Compare the meaning of a variant with float32, blob by blob and label by label."""
    reader = reference.reader
    comparison = Comparison(reference.model, emulate(variant), threads=reference.threads)
    agreement = Agreement()
    labeled: list[tuple[Labels, Labels, Labels]] = []
    with reference.show("comparing with float32", len(reference.pictures)) as advance:
        for picture in reference.pictures:
            ours, theirs = comparison.run(picture.image)
            expected, scores = reader.read(ours, picture.image)
            labels, _ = reader.read(theirs, picture.image)
            agreement.add(expected, labels, scores)
            if picture.truth is not None:
                labeled.append((picture.truth, expected, labels))
            advance(1)
    miou = None
    if reader.score is not None and labeled:
        before = reader.score([(truth, expected) for truth, expected, _ in labeled])
        miou = before, reader.score([(truth, labels) for truth, _, labels in labeled])
    return Assessment(agreement, tuple(comparison.rows.values()), miou)


def run_as_shipped(reference: Reference, variant: onnx.ModelProto, expected: float) -> dict[str, Any]:
    """Run the file itself in ONNX Runtime; returns the manifest's entry.

    `expected` is the label agreement of the file's meaning, which the optimized file must reach up to `SLACK`. In the
    entry, `runs` says whether ONNX Runtime can run the file, with the `reason` if not. Otherwise `graph_level` is
    "all", or "disabled" if the optimizations break the result; `label_agreement` is at that level;
    `optimized_agreement` is with them.
    """
    reader, images = reference.reader, [picture.image for picture in reference.pictures]

    def measure(optimize: bool) -> float:
        run, agreement = reference.open(variant, optimize=optimize), Agreement()
        for image, labels in zip(images, expected_labels, strict=True):
            agreement.add(labels, reader.read(run(image), image)[0], None)
        return agreement.share

    with reference.show("running the file in ONNX Runtime", None):
        base = reference.open(reference.model, optimize=True)
        expected_labels = [reader.read(base(image), image)[0] for image in images]
        try:
            optimized = measure(optimize=True)
            intact = optimized >= expected - SLACK
            plain = optimized if intact else measure(optimize=False)
        except list_runtime_errors() as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return {"runs": False, "reason": lines[0][:300]}
    return {
        "runs": True,
        "graph_level": "all" if intact else "disabled",
        "label_agreement": plain,
        "optimized_agreement": optimized,
    }
