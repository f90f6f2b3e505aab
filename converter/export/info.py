"""The `--info` file of `atrous convert`: JSON with settings that Caffe's files lack; `model.json` has its form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...bundle.choices import Task
from ...bundle.section import Sides, describe_fault
from ...errors import ConverterError

_Byte = Annotated[int, Field(ge=0, le=255)]


class ConversionInfo(BaseModel):
    """The content of an info file; every field is optional, and other keys are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)

    name: str | None = None  # of the bundle
    classes: tuple[str, ...] | None = None  # names in channel order
    palette: tuple[tuple[_Byte, _Byte, _Byte], ...] | None = None  # RGB by class
    mean: tuple[float, ...] | None = None  # by channel, subtracted first, in gray levels, in the net's channel order
    scale: float | None = None  # factor after the mean
    minimum_size: Sides | None = None  # (height, width) in pixels to which smaller images are padded
    size: Sides | None = None  # (height, width) in pixels to which images are resized by default
    task: Task | None = None  # what the net is for
    crf: dict[str, Any] | None = None  # parameters of the dense CRF in the manifest's form, or some of them

    @model_validator(mode="after")
    def _match_palette(self) -> ConversionInfo:
        if self.classes and self.palette and len(self.classes) != len(self.palette):
            raise ValueError(f"{len(self.palette)} colors for {len(self.classes)} classes; give one each, or none")
        return self


def read_info(path: Path) -> ConversionInfo:
    """Read an info file; raises ConverterError, which names the field, if it cannot be read or is invalid."""
    try:
        return ConversionInfo.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConverterError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ConverterError(f"{path}: {describe_fault(error)}") from None
