"""Parts that several commands print."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from ...runtime.pipeline.report import StageReport


class Part(BaseModel):
    """An object inside the output; every key is listed here."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Output(Part):
    """The object that a command prints."""

    schema_version: Literal[1]
    """version of this form"""


class ErrorText(Part):
    """An error that ended the command."""

    type: str
    """name of the error's class"""
    message: str
    """one line for people"""
    exit_code: int
    """2 wrong usage or input, 3 a library or device is missing"""


class Failed(BaseModel):
    """The output of a command that an error ended; beside it stand the figures that were measured before, if any."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    schema_version: Literal[1]
    command: str
    error: ErrorText


class FailedImage(Part):
    """An image that could not be processed."""

    image: str
    """its path or name"""
    error: str
    """one line for people"""


class Size(Part):
    """The size that the network runs at."""

    mode: Literal["size", "max_side", "native"]
    """resized to one size, at most so large, or the images' own size"""
    size: tuple[int, int] | None
    """height and width in pixels, if mode is "size", else null"""
    max_side: int | None
    """longest side in pixels, if mode is "max_side", else null"""
    made_for: tuple[int, int] | None
    """height and width that the net was made for, if known"""
    default: bool
    """whether the bundle's rule was used, and no option"""


class Pipeline(Part):
    """Use of the cores by the stages of a run."""

    schema_version: int
    """version of this form"""
    items: int
    """number of results"""
    failed: int
    """number of those that failed"""
    wall_s: float
    """seconds since the start"""
    cores: int
    """cores shared by the stages"""
    overlap: float
    """share of the time in which two or more stages were active"""
    most_alive: int
    """largest number of items at once"""
    max_alive: int
    """limit of the same"""
    stages: tuple[StageReport, ...]
    """the stages, in order"""
    rate_per_s: float
    """results a second"""
    calls_at_once: float
    """number of concurrent calls, averaged over time"""
    core_share: float
    """share of the cores' time that calls held"""
    bounds_per_s: dict[str, float]
    """upper bounds of the rate, by stage, and of the cores together"""
    limit: str
    """the stage with the lowest bound, or "cores"; empty before anything is measured"""
    efficiency: float
    """rate as a share of the lowest bound"""
    advice: tuple[str, ...]
    """sentences for people"""
