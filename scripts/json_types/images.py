"""`segment`, `run`, `evaluate`, `tune-crf`."""

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


class EvaluatedDataset(Part):
    """The images of an evaluation."""

    key: str
    """the value of --dataset"""
    title: str
    split: str
    root: str
    """its folder"""
    images: int
    mapping: dict[str, str | None] | None
    """class of the label images -> class of the bundle, null for ignored; null without --label-classes and --map"""


class EvaluatedVariant(Part):
    """Figures over all images, fractions of 1; null if undefined."""

    mean_iou: float | None
    pixel_accuracy: float | None
    mean_accuracy: float | None
    frequency_weighted_iou: float | None
    mean_iou_95: tuple[float | None, float | None]
    """central 95 % over images drawn with replacement"""
    class_ious: dict[str, float | None]
    band_ious: dict[str, float | None]
    """by width of the band along borders, in pixels"""
    confusion: list[list[int]]
    """pixels; row = truth, column = label"""
    mean_iou_mapped: float | None
    """mean over the classes that mapped labels can have; null without a mapping"""


class Bands(Part):
    """Bands along borders."""

    reference: Literal["void", "labels"]
    widths: list[int]
    """pixels"""


class Published(Part):
    """A published result of this net or data set."""

    model: str
    dataset: str
    split: str
    crf: bool
    mean_iou: float
    """fraction of 1"""
    source: str
    bundles: list[str]
    note: str


class EvaluatedImage(Part):
    """Figures of one image, by variant; null if all of its pixels are void."""

    name: str
    height: int
    width: int
    judged: int
    """pixels that are not void"""
    mean_iou: dict[str, float | None]
    pixel_accuracy: dict[str, float | None]


class EvaluateDone(Output):
    """Mean IoU and other figures on a labeled data set."""

    command: Literal["evaluate"]
    backend: str
    device: str
    precision: str
    bundle: str
    """its name"""
    dataset: EvaluatedDataset
    evaluated: int
    """images that did not fail"""
    judged_pixels: int
    void_pixels: int
    ignored_pixels: dict[str, int]
    """void pixels of classes without a counterpart, by class"""
    variants: dict[Literal["network", "crf"], EvaluatedVariant]
    crf_gain_95: tuple[float, float] | None
    """central 95 % of the CRF's gain in mean IoU; null unless both variants were evaluated"""
    bands: Bands
    published: list[Published]
    warnings: list[str]
    suggested_map: dict[str, str] | None
    """content of a file for --map, if the classes seem to be in another order"""
    failures: list[FailedImage]
    worst: list[str]
    """names of the images with the lowest mean IoU, worst first"""
    images: list[EvaluatedImage]
    size: Size
    pipeline: Pipeline | None
    """null with --ray"""
    files: dict[str, str]
    """the files written with -o"""


class SearchPart(Part):
    """Mean IoU on a part of the images, fractions of 1."""

    images: int
    network: float
    """without a CRF"""
    present: float | None
    """with the bundle's parameters"""
    chosen: float
    """with the winner"""
    chosen_95: tuple[float, float]
    gain_over_network_95: tuple[float, float]
    gain_over_present_95: tuple[float, float] | None


class SearchPoint(Part):
    """CRF parameters that were tried."""

    weight: float
    """of the bilateral term"""
    sxy: float
    """pixels"""
    srgb: float
    """gray levels"""
    near_weight: float
    """of the position term"""
    near_sxy: float
    """pixels"""
    mean_iou: float | None
    """on all images; null if it was discarded early"""
    discarded_after: int | None = None
    """images that it was scored on by then"""
    behind: float | None = None
    """mean IoU behind the best by then"""


class TuneCrfDone(Output):
    """A search for CRF parameters."""

    command: Literal["tune-crf"]
    bundle: str
    """its name"""
    dataset: str
    method: str
    crf: CrfParameters
    """the winner"""
    chosen_on: SearchPart
    held_out: SearchPart | None
    is_better: bool
    """whether the winner is no worse than the present parameters on the held-out images"""
    points: list[SearchPoint]
    """best first"""
    crf_runs: int
    lattice_builds: int
    size: Size
    warnings: list[str]
    written: bool
    """whether the bundle was changed"""
    files: dict[str, str]
    """the files written with -o"""


Crf = CrfFiles | Failed
Segment = SegmentImages | SegmentVideo | SegmentOnRay | Failed
Merge = MergeDone | Failed
Probe = ProbeDone | Failed
Run = RunDone | Failed
Evaluate = EvaluateDone | Failed
TuneCrf = TuneCrfDone | Failed
