"""`evaluate`, `tune-crf`."""

from __future__ import annotations

from typing import Literal

from ...bundle.crf_parameters import CrfParameters
from .base import Failed, FailedImage, Output, Part, Pipeline, Size


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


Evaluate = EvaluateDone | Failed
TuneCrf = TuneCrfDone | Failed
