"""Verification of the variants in a bundle against their targets, for `atrous verify`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from ...bundle.folder import read_bundle
from ...bundle.section import describe_fault
from ...errors import PrecisionError
from ..check.onnx_reading import parse_onnx, refuses_invalid
from .assess import Assessment, Reference, assess
from .images import HeadReader, Picture
from .options import EIGHT_BIT_AGREEMENT, ShowProgress, Targets, no_progress


class _Verification(BaseModel):
    reference_sha256: str
    targets: Targets


class _Entry(BaseModel):
    file: str
    verification: _Verification


_ENTRIES = TypeAdapter(dict[str, _Entry])


@dataclass(frozen=True)
class VariantCheck:
    """Comparison of a variant with float32.

    Attributes:
        precision: of the variant.
        file: its ONNX file.
        assessment: the comparison.
        targets: the targets recorded with the variant; if they limit the loss of mean IoU and no image is labeled,
            99 % of the labels.
    """

    precision: str
    file: str
    assessment: Assessment
    targets: Targets

    @property
    def misses(self) -> tuple[str, ...]:
        """A sentence for each target that is missed."""
        return self.assessment.find_misses(self.targets)

    @property
    def passed(self) -> bool:
        """Whether every target is met."""
        return not self.misses

    def describe(self) -> str:
        """Return one sentence."""
        diverges, loss = self.assessment.diverges_at, self.assessment.miou_loss
        place = f"; {diverges.layer} adds the most noise, {diverges.step:.2g}" if diverges is not None else ""
        miou = f", mean IoU falls by {loss:.2f} points" if loss is not None else ""
        verdict = "meets its targets" if self.passed else "; ".join(self.misses)
        share = self.assessment.agreement.share
        return f"{self.file}: {share:.3%} of the labels agree with float32{miou}{place}: {verdict}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "precision": self.precision,
            "file": self.file,
            "targets": asdict(self.targets),
            "passed": self.passed,
            "misses": list(self.misses),
            **self.assessment.to_json(),
        }


@refuses_invalid
def verify_variants(
    bundle: Path,
    pictures: Sequence[Picture],
    reader: HeadReader,
    *,
    threads: int | None = None,
    show: ShowProgress = no_progress,
) -> list[VariantCheck]:
    """Compare every variant of a bundle with its float32 graph.

    Args:
        bundle: the folder.
        pictures: images to compare on.
        reader: of the head.
        threads: threads of ONNX Runtime.
        show: progress display.

    Raises:
        BundleError: the bundle cannot be read, or a file differs from the one its manifest lists.
        PrecisionError: the manifest's entry of a variant lacks what is needed to check it.
    """
    opened = read_bundle(bundle)
    content = opened.read_file(opened.deploy.file)
    try:
        entries = _ENTRIES.validate_python({key: entry.model_dump() for key, entry in opened.manifest.variants.items()})
    except ValidationError as error:
        raise PrecisionError(
            f"{bundle}: invalid manifest: variants.{describe_fault(error)}; make the variant again"
        ) from error
    reference = Reference(parse_onnx(content, bundle / opened.deploy.file), pictures, reader, threads, show)
    digest = hashlib.sha256(content).hexdigest()
    checks = []
    for precision, entry in entries.items():
        if entry.verification.reference_sha256 != digest:
            raise PrecisionError(
                f"{bundle / entry.file}: was made from another float32 graph; make it again with "
                f"`atrous precision {bundle} --to {precision}`"
            )
        variant = parse_onnx(opened.read_file(entry.file), bundle / entry.file)
        assessment = assess(reference, variant)
        targets = entry.verification.targets
        if targets.max_miou_loss_points is not None and assessment.miou is None:
            least = targets.label_agreement
            targets = Targets(EIGHT_BIT_AGREEMENT if least is None else least, None)
        checks.append(VariantCheck(precision, entry.file, assessment, targets))
    return checks
