"""`inspect`, `convert`, `verify`, `precision`, `build`."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from ...bundle.manifest import Comparison, Manifest, Variant
from .base import Failed, Output, Part


class InspectedInput(Part):
    """An input of the net."""

    name: str
    """the blob"""
    type: str
    """the type of the data layer, or input"""
    layer: str | None
    """name of the data layer, if there is one"""
    line: int | None
    """its line in the prototxt"""
    shape: list[int]
    """N, C, H, W for images"""


class InspectedOutput(Part):
    """A blob that no layer reads."""

    name: str
    shape: list[int]


class InspectedLayer(Part):
    """A layer that runs."""

    name: str
    type: str
    line: int | None
    """in the prototxt"""
    shapes: list[list[int]]
    """the shape of each top"""
    parameters: int
    """number of its own parameters"""
    multiply_adds: int
    """of one forward pass"""
    receptive_field: tuple[float, float]
    """height and width in input pixels"""
    stride: tuple[float, float]
    """height and width in input pixels"""


class ListedLayer(Part):
    """A layer that was left out, or that cannot be converted."""

    name: str
    type: str
    line: int | None
    """in the prototxt"""
    reason: str


class WeightsProblem(Part):
    """A layer whose weights do not fit."""

    layer: str
    problem: str


class InspectDone(Output):
    """A net: layers, shapes, cost, dialect, unsupported layers."""

    command: Literal["inspect"]
    name: str
    """the net's own name, may be empty"""
    dialect: str
    """the fork of Caffe"""
    dialect_evidence: list[str]
    """sentences for people"""
    inputs: list[InspectedInput]
    outputs: list[InspectedOutput]
    layers: list[InspectedLayer]
    """in the order of execution"""
    dropped: list[ListedLayer]
    """layers that do not run, such as those of the training"""
    unsupported: list[ListedLayer]
    """layers without a conversion"""
    parameters: int
    """number of parameters, shared ones counted once"""
    multiply_adds: int
    """of one forward pass"""
    warnings: list[str]
    weights_problem: str | None
    """why the given weights do not fit, or null"""
    weights_problems: list[WeightsProblem]
    """the same, layer by layer"""


class ConvertDone(Output):
    """A written bundle."""

    command: Literal["convert"]
    bundle: str
    """its folder"""
    seconds: float
    """of the whole conversion"""
    manifest: Manifest
    """its manifest.json"""


class BlobDifference(Part):
    """One blob of two stages."""

    key: str
    """<layer>:<top>"""
    type: str
    """the layer's type"""
    shape: list[int]
    error: float | str
    """largest difference relative to max(1, largest absolute value); "inf" or "nan" as text"""
    feeds: list[str]
    """keys of the blobs that the layer reads"""


class VerifiedStage(Comparison):
    """A stage compared with a reference, blob by blob."""

    differences: list[BlobDifference]
    """every blob, in the order of execution"""


class VerifiedVariant(Part):
    """A precision variant compared with float32."""

    precision: str
    file: str
    targets: dict[str, float | None]
    """label_agreement and max_miou_loss_points, null if not requested"""
    misses: list[str]
    """a sentence for each target that is missed"""
    images: int
    """number of images compared"""
    label_agreement: float
    """share of labels equal to float32's"""
    worst_image_agreement: float
    """the same, of the worst image"""
    clear_agreement: float | None
    """the same, of the pixels that no rounding can decide"""
    clear_pixels: float
    """share of those pixels"""
    miou_fp32: float | None
    """mean IoU in float32, if images are labeled"""
    miou: float | None
    """mean IoU of the variant"""
    miou_loss_points: float | None
    worst_blob: dict[str, JsonValue] | None
    diverges_at: dict[str, JsonValue] | None
    blobs: list[dict[str, JsonValue]]
    """name, layer, error, noise and step of each blob"""


class VerifyDone(Output):
    """The stages of a bundle compared."""

    command: Literal["verify"]
    bundle: str
    """its folder"""
    passed: bool
    """whether every stage and variant passed"""
    reports: list[VerifiedStage]
    variants: list[VerifiedVariant]


class PrecisionDone(Output):
    """A written variant."""

    command: Literal["precision"]
    bundle: str
    """its folder"""
    passed: bool
    """whether it met its targets"""
    variant: Variant
    """its entry in manifest.json"""


class BuildOutput(Output):
    """The result of `build`: keys depend on its options. TensorRT support is experimental, and so is this form."""

    command: Literal["build"]
    bundle: str | None = None
    """folder of the bundle"""
    folder: str | None = None
    """folder of the engine, or of the store"""
    built: bool | None = None
    """false if the engine was there"""
    engine: dict[str, JsonValue] | None = None
    """the engine built or found"""
    audit: dict[str, JsonValue] | None = None
    """precision of the engine's layers against the graph"""
    warnings: list[str] | None = None
    advice: list[str] | None = None
    seconds: list[float] | None = None
    """of the build, and of the audit"""
    rebuild_noise: dict[str, JsonValue] | None = None
    """labels that differ between builds"""
    engines: list[dict[str, JsonValue]] | None = None
    """with --list"""
    removed: bool | None = None
    """with --gc: whether files were removed"""
    garbage: list[dict[str, JsonValue]] | None = None
    """with --gc: path and reason"""
    trusted: str | None = None
    """with --trust: the engine's key"""
    precision: str | None = None
    """with --dry-run"""
    profiles: JsonValue = None
    """with --dry-run: shapes"""
    settings: dict[str, JsonValue] | None = None
    """with --dry-run"""
    findings: list[dict[str, JsonValue]] | None = None
    """with --dry-run: what the parser of TensorRT would reject"""
    plan: JsonValue = None
    """with --dry-run: the calls of a build"""


Inspect = InspectDone | Failed
Convert = ConvertDone | Failed
Verify = VerifyDone | Failed
Precision = PrecisionDone | Failed
Build = BuildOutput | Failed
