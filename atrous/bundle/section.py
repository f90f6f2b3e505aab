"""Base of the bundle's types: frozen pydantic models that reject unknown fields, wrong JSON types and NaN."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Side = Annotated[int, Field(gt=0, le=1 << 20)]
Sides = tuple[Side, Side]  # (height, width) in pixels


class Section(BaseModel):
    """A frozen, strict section of the manifest."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def describe_fault(error: ValidationError) -> str:
    """The first fault of a validation, with its place and how many more there are."""
    faults = error.errors(include_url=False, include_input=False)
    first = faults[0]
    place = ".".join(str(part) for part in first["loc"] if part != "[key]")
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return (f"{place}: " if place else "") + first["msg"].removeprefix("Value error, ") + more
