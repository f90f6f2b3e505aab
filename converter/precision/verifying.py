"""The variants a bundle holds, checked again: what `atrous verify` says of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import PrecisionError
from ..check.onnx_reading import parse_onnx
from .assessment import Assessment, Picture, Reader, assess
from .committing import read_deploy
from .progress import SILENT, ShowProgress
from .targets import CODE_AGREEMENT, Targets


@dataclass(frozen=True)
class VariantCheck:
    """One variant against float32.

    Attributes:
        precision: of the variant.
        file: its ONNX file.
        assessment: how it compares.
        targets: what it was judged by: those recorded with it; where they speak of mean IoU and nothing is labelled,
            99 % of the labels.
        misses: targets it misses.
    """

    precision: str
    file: str
    assessment: Assessment
    targets: Targets
    misses: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every target is met."""
        return not self.misses

    def describe(self) -> str:
        """One sentence for people."""
        agreement, diverges = self.assessment.agreement, self.assessment.diverges_at
        place = f"; {diverges.layer} adds the most noise, {diverges.step:.2g}" if diverges is not None else ""
        loss = self.assessment.miou_loss
        miou = f", mean IoU falls by {loss:.2f} points" if loss is not None else ""
        verdict = "meets its targets" if self.passed else "; ".join(self.misses)
        return f"{self.file}: {agreement.share:.3%} of the labels as in float32{miou}{place}: {verdict}"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "precision": self.precision,
            "file": self.file,
            "targets": self.targets.to_json(),
            "passed": self.passed,
            "misses": list(self.misses),
            **self.assessment.to_json(),
        }


def verify_variants(
    bundle: Path,
    pictures: Sequence[Picture],
    reader: Reader,
    *,
    threads: int | None = None,
    show: ShowProgress = SILENT,
) -> list[VariantCheck]:
    """Compare every variant of a bundle with its float32 graph.

    Args:
        bundle: the folder.
        pictures: images to compare on.
        reader: of the head.
        threads: of ONNX Runtime.
        show: draws progress.

    Raises:
        PrecisionError: the bundle cannot be read, or a file is not the one its manifest lists.
    """
    manifest, content = read_deploy(bundle)
    variants = manifest.get("variants", {})
    if not variants:
        return []
    reference = parse_onnx(content, bundle)
    digest = hashlib.sha256(content).hexdigest()
    checks = []
    for precision, entry in variants.items():
        recorded = entry["verification"]
        if recorded.get("reference_sha256", digest) != digest:
            raise PrecisionError(
                f"{bundle / entry['file']}: was made of another float32 graph; make it again with "
                f"`atrous precision {bundle} --to {precision}`"
            )
        variant = parse_onnx(_read_listed(bundle, entry["file"], manifest), bundle / entry["file"])
        assessment = assess(reference, variant, pictures, reader, threads=threads, show=show)
        targets = _recall_targets(recorded, assessment)
        misses = tuple(targets.find_misses(assessment.agreement.share, assessment.miou_loss))
        checks.append(VariantCheck(precision, entry["file"], assessment, targets, misses))
    return checks


def _recall_targets(recorded: dict[str, Any], assessment: Assessment) -> Targets:
    asked = recorded.get("targets", {})
    agreement, loss = asked.get("label_agreement"), asked.get("max_miou_loss_points")
    if loss is not None and assessment.miou is None:
        return Targets(CODE_AGREEMENT if agreement is None else agreement, None)
    return Targets(agreement, loss)


def _read_listed(bundle: Path, name: str, manifest: dict[str, Any]) -> bytes:
    path = bundle / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PrecisionError(f"{path}: cannot be read ({error.strerror}); make the variant again") from error
    if hashlib.sha256(content).hexdigest() != manifest["files"].get(name, {}).get("sha256"):
        raise PrecisionError(f"{path}: is not the file the manifest lists; make the variant again")
    return content
