"""What a variant must reach before it may be called done.

| precision | with labelled images | without |
|---|---|---|
| fp16, bf16 | at least 99.9 % of the labels agree | the same |
| int8, fp8 | at most 1 point of mean IoU is lost | at least 99 % of the labels agree |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Precision = Literal["fp16", "bf16", "int8", "fp8"]
FLOAT_AGREEMENT = 0.999
CODE_AGREEMENT = 0.99
MIOU_LOSS = 1.0


@dataclass(frozen=True)
class Targets:
    """What is asked of a variant; None where it is not asked.

    Attributes:
        agreement: the least share of labels that agree with float32.
        max_miou_loss: the largest loss of mean IoU against float32, in points (hundredths).
    """

    agreement: float | None
    max_miou_loss: float | None

    def find_misses(self, agreement: float, miou_loss: float | None) -> list[str]:
        """Each target that is not met, as a sentence; empty where all are."""
        misses = []
        if self.agreement is not None and not agreement >= self.agreement:
            misses.append(f"{agreement:.3%} of the labels agree with float32, the target is {self.agreement:.3%}")
        if self.max_miou_loss is not None:
            if miou_loss is None:
                misses.append("a loss of mean IoU was to be limited and there are no labelled images: give --dataset")
            elif not miou_loss <= self.max_miou_loss:
                misses.append(
                    f"mean IoU falls by {miou_loss:.2f} points, the target is at most {self.max_miou_loss:.2f}"
                )
        return misses

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {"label_agreement": self.agreement, "max_miou_loss_points": self.max_miou_loss}


def choose_targets(
    precision: Precision, labelled: bool, *, agreement: float | None = None, max_miou_loss: float | None = None
) -> Targets:
    """The user's targets, or the defaults where none is given."""
    if agreement is not None or max_miou_loss is not None:
        return Targets(agreement, max_miou_loss)
    if precision in ("fp16", "bf16"):
        return Targets(FLOAT_AGREEMENT, None)
    return Targets(None, MIOU_LOSS) if labelled else Targets(CODE_AGREEMENT, None)
