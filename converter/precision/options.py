"""Options of a variant, the targets it must reach, and the progress callback.

| precision | default target with labeled images | without |
|---|---|---|
| fp16, bf16 | at least 99.9 % of the labels agree with float32 | the same |
| int8, fp8 | at most 1 point of mean IoU is lost | at least 99 % of the labels agree |
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import pydantic
from pydantic import ConfigDict, Field, ValidationError, model_validator

from ...bundle.choices import Precision
from ...errors import PrecisionError

Method = Literal["minmax", "percentile", "entropy"]
HALF_AGREEMENT = 0.999
EIGHT_BIT_AGREEMENT = 0.99
MIOU_LOSS = 1.0

#: description and number of steps (None if unknown) -> a context manager that yields a function to advance the bar
ShowProgress = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]


def no_progress(description: str, total: int | None = None) -> AbstractContextManager[Callable[[int], None]]:
    """Show nothing."""
    return nullcontext(lambda steps: None)


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class VariantOptions:
    """Options of a variant, validated on construction.

    Attributes:
        precision: fp16, bf16, int8 or fp8.
        target_agreement: least share of labels equal to float32's, 0 to 1.
        max_miou_loss: largest loss of mean IoU against float32, in points (hundredths). If neither target is given,
            the defaults in the module docstring apply.
        keep: names of layers or nodes that stay float32.
        method: calibration method of int8 and fp8.
        percentile: share of the numbers that the method `percentile` covers, above 0 and up to 100.
        rest: type of the layers of an int8 or fp8 variant that are not quantized. fp32 runs everywhere; fp16 needs
            opset 19, and TensorRT 10 with its strongly typed networks to be fast.
        activations: codes of int8 activations: int8 for TensorRT, uint8 for CPUs.
        weight_bits: bits of int8 weight codes, 7 or 8; None for 7 with uint8 activations, else 8. CPUs without VNNI
            multiply 7-bit weights exactly with their fast instruction, 8-bit ones only with a slower one.
        sensitivity: when to measure layers one by one: `auto` if targets are missed, `always` or `never`.
        threads: threads of ONNX Runtime; None for one per core.

    Raises:
        PrecisionError: an option is unknown or out of range, or two options exclude each other.
    """

    precision: Precision
    target_agreement: float | None = Field(default=None, ge=0, le=1)
    max_miou_loss: float | None = Field(default=None, allow_inf_nan=False)
    keep: tuple[str, ...] = ()
    method: Method = "minmax"
    percentile: float = Field(default=99.99, gt=0, le=100)
    rest: Literal["fp32", "fp16"] = "fp32"
    activations: Literal["int8", "uint8"] = "int8"
    weight_bits: Literal[7, 8] | None = None
    sensitivity: Literal["auto", "always", "never"] = "auto"
    threads: int | None = Field(default=None, ge=1)

    @model_validator(mode="wrap")
    @classmethod
    def _validate(cls, data: Any, handler: Callable[[Any], VariantOptions]) -> VariantOptions:
        try:
            options = handler(data)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise PrecisionError(f"invalid option {name}: {first['msg']}, not {first['input']!r}") from error
        if options.precision == "fp8" and options.method == "entropy":
            raise PrecisionError("entropy assumes the equal steps of int8, which fp8 lacks: use minmax or percentile")
        if options.precision != "int8" and options.weight_bits is not None:
            raise PrecisionError(f"weight_bits is for int8 only, not for {options.precision}")
        return options

    @property
    def code_bits(self) -> int:
        """Bits of int8 weight codes that are used."""
        return self.weight_bits or (7 if self.activations == "uint8" else 8)


@dataclass(frozen=True)
class Targets:
    """Targets of a variant, as the manifest records them; None if not requested."""

    label_agreement: float | None  # least share of labels equal to float32's
    max_miou_loss_points: float | None  # largest loss of mean IoU against float32, in points

    def find_misses(self, agreement: float, miou_loss: float | None) -> list[str]:
        """Return a sentence for each target that is missed."""
        misses = []
        least, most = self.label_agreement, self.max_miou_loss_points
        if least is not None and not agreement >= least:
            misses.append(f"{agreement:.3%} of the labels agree with float32, the target is {least:.3%}")
        if most is not None and miou_loss is None:
            misses.append("the loss of mean IoU cannot be measured without labeled images: give --dataset")
        elif most is not None and miou_loss is not None and not miou_loss <= most:
            misses.append(f"mean IoU falls by {miou_loss:.2f} points, the target is at most {most:.2f}")
        return misses


def choose_targets(options: VariantOptions, labeled: bool) -> Targets:
    """Return the requested targets, or the defaults if neither is requested."""
    if options.target_agreement is not None or options.max_miou_loss is not None:
        return Targets(options.target_agreement, options.max_miou_loss)
    if options.precision in ("fp16", "bf16"):
        return Targets(HALF_AGREEMENT, None)
    return Targets(None, MIOU_LOSS) if labeled else Targets(EIGHT_BIT_AGREEMENT, None)
