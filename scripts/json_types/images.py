"""`segment`, `crf`, `merge`, `probe`, `run`."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from ...bundle.choices import ColorOrder, Task
from ...bundle.crf_parameters import CrfParameters
from .base import Failed, FailedImage, Output, Part, Pipeline, Size


class LabeledImage(Part):
    """A labeled image."""

    image: str
    """its path or address"""
    height: int
    """pixels"""
    width: int
    """pixels"""
    network_size: tuple[int, int]
    """height and width that the network ran at"""
    tiles: str | None
    """the tiles of a large image as a phrase, or null if it was labeled whole"""
    outputs: dict[str, str]
    """the files written, by kind"""
    classes: dict[str, float]
    """share of the pixels of each class that occurs, largest first"""
    timings_ms: dict[str, float]
    """milliseconds of each stage"""


class Pixels(Part):
    """The preprocessing of the network's image: (pixel - mean) * scale."""

    color_order: ColorOrder
    """of the network's channels"""
    mean: tuple[float, float, float]
    """in gray levels, in the network's channel order"""
    scale: float


class SegmentImages(Output):
    """Labeled images."""

    command: Literal["segment"]
    bundle: str
    """its folder"""
    backend: str
    device: str
    precision: str
    crf: bool
    """whether the dense CRF was on"""
    crf_shortcuts: dict[str, JsonValue]
    """approximations of the CRF; empty for the exact one"""
    size: Size
    preprocessing: Pixels
    """the bundle's, or the one tried"""
    labeled: int
    """images labeled in this run"""
    skipped: int
    """images that an earlier run had finished"""
    failures: list[FailedImage]
    pipeline: Pipeline
    images: list[LabeledImage]
    """those labeled in this run, in their order"""


class SegmentVideo(Output):
    """A labeled video."""

    command: Literal["segment"]
    bundle: str
    """its folder"""
    source: str
    """file or camera"""
    out: str
    """the written video"""
    frames: int
    """number of frames written"""
    damaged: int
    """packets that could not be decoded and were left out"""
    warm_starts: int
    """frames whose CRF started from the frame before"""
    pipeline: Pipeline


class RefinedFile(Part):
    """A refined array."""

    image: str
    """path of its image"""
    unary: str
    """path of the array"""
    height: int
    """pixels"""
    width: int
    """pixels"""
    labels: int
    outputs: dict[str, str]
    """the files written, by kind"""
    time_ms: float
    """milliseconds; the lattices are with the first array of an image"""


class CrfFiles(Output):
    """Refined arrays."""

    command: Literal["crf"]
    out: str
    """folder of the results"""
    parameters: CrfParameters
    refined: int
    """arrays refined in this run"""
    skipped: int
    """arrays that an earlier run had finished"""
    failures: list[FailedImage]
    """`image` is the array's path"""
    pipeline: Pipeline
    files: list[RefinedFile]
    """those refined in this run, in their order"""


class SegmentOnRay(Output):
    """Images labeled on a Ray cluster."""

    command: Literal["segment"]
    bundle: str
    """its folder"""
    out: str
    """the folder or address of the results"""
    actors: int
    cores: int
    """of each actor"""
    gpus: float
    """of each actor"""
    shards: int
    labeled: int
    """images labeled in this run"""
    skipped: int
    """images that an earlier run had finished"""
    failures: list[FailedImage]
    spent_ms: dict[str, float]
    """milliseconds by stage, summed over the labeled images"""
    duration_s: float
    """without the start of Ray"""


class MergeDone(Output):
    """Joined shards."""

    command: Literal["merge"]
    out: str
    """the folder of the joined record"""
    shards: int
    images: int
    """images of the list of all shards"""
    finished: int
    """results in the joined record, those of earlier runs included"""
    failed: int
    """images that failed"""
    copied: int
    """files brought from other folders"""


class ProbeTrial(Pixels):
    """A preprocessing on the photo."""

    network_size: tuple[int, int]
    """height and width that the network ran at"""
    information_bits: float
    """entropy of the mean prediction minus the mean entropy of the predictions"""
    confidence: float
    """mean over the pixels of the largest probability"""
    is_present: bool
    """whether it is the bundle's own"""


class ProbeDone(Output):
    """Likely preprocessings tried on a photo."""

    command: Literal["probe"]
    bundle: str
    """its folder"""
    photo: str
    """its path"""
    sheet: str
    """the picture of the trials"""
    trials: list[ProbeTrial]
    """most information first"""


class RunClass(Part):
    """A class of the image."""

    name: str
    label: int
    probability: float


class RunImage(Part):
    """The result of a net for one image; keys that its task does not have are null or empty."""

    image: str
    """its path"""
    height: int
    """pixels"""
    width: int
    """pixels"""
    task: Task
    classes: list[RunClass]
    """the most probable classes, best first"""
    values: list[float] | None
    """the numbers of a regression"""
    points: list[tuple[float, float]] | None
    """x and y in pixels of the image"""
    label_shares: dict[str, float] | None
    """share of the pixels of each class that occurs, largest first"""
    files: dict[str, str]
    """the files written: picture, result, arrays"""
    timings_ms: dict[str, float]
    """milliseconds of each stage"""


class RunDone(Output):
    """Images run through a net of any task."""

    command: Literal["run"]
    bundle: str
    """its folder"""
    task: Task
    images: list[RunImage]
    failures: list[FailedImage]


Crf = CrfFiles | Failed
Segment = SegmentImages | SegmentVideo | SegmentOnRay | Failed
Merge = MergeDone | Failed
Probe = ProbeDone | Failed
Run = RunDone | Failed
