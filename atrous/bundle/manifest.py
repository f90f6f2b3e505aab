"""The bundle's `manifest.json` as types, read and written here only.

Rules, in the order they are checked:

1. The file is UTF-8 JSON of at most 16 MiB, one object.
2. `schema_version` equals `SCHEMA_VERSION`; it is looked at before anything else.
3. Every field is known, present and of its own JSON type (no string where a number belongs, no NaN).
4. File names are relative, with forward slashes, and stay inside the bundle.
5. The parts agree: files named are listed, no more colors than classes, the head has what it needs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from ..errors import BundleError, CrfInputError
from .choices import ColorOrder, Head, Precision, Task
from .crf_parameters import CrfParameters
from .run_plan import RunPlan
from .section import FileName, Section, Sides, describe_fault
from .size_rule import SizeRule

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 16 << 20
MAX_LABELS = 256  # labels are stored as uint8
MAX_CLASSES = 1 << 16  # of a classifier


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Byte = Annotated[int, Field(ge=0, le=255)]
NodePrecision = Literal["fp32", "fp16", "bf16", "int8", "fp8", "other"]


class FileEntry(Section):
    """Size and digest of one file of the bundle."""

    sha256: Sha256
    bytes: NonNegativeInt


class Source(Section):
    """A Caffe file the bundle was made from; `file` is its base name."""

    role: Literal["prototxt", "caffemodel", "mean"]
    file: str
    sha256: Sha256
    bytes: NonNegativeInt
    format: Literal["V0", "V1", "V2", "HDF5", "binaryproto", "npy"]
    dialect: str


class BlobSpec(Section):
    """A blob of `model.onnx` by Caffe's name; a string in `shape` names a dynamic axis."""

    name: str
    shape: tuple[NonNegativeInt | str, ...]
    dtype: str


class MadeFor(Section):
    """The (height, width) in pixels that the net was made for.

    `source` says where the size is from: the prototxt, the `--info` file, or the option `convert --size`. With
    `resize`, images are resized to it by default; else they run at their own size, as DeepLab's do.
    """

    size: Sides
    source: Literal["prototxt", "info", "option"]
    resize: bool


class Preprocessing(Section):
    """Preprocessing inside `deploy.onnx`: (pixel - mean) * scale, channel by channel.

    `mean` is in the order of `color_order`, one value a channel, in gray levels of 0 to 255.
    """

    color_order: ColorOrder
    mean: tuple[float, float, float]
    scale: float
    size_rule: SizeRule
    made_for: MadeFor | None = None

    @property
    def usual_size(self) -> Sides | None:
        """The only (height, width) that the net takes, else the one it was made for, or None if that is unknown."""
        return self.size_rule.fixed or (self.made_for.size if self.made_for is not None else None)


class Upsampling(Section):
    """The last, linear upsampling that a `lowres` head leaves to the reader."""

    padded: SizeRule
    align_corners: bool


class Footprint(Section):
    """Memory and receptive field of the network, with which the runtime plans tiles.

    `bytes_per_pixel` is the largest sum of activations that are alive at once, in float32, per pixel of the padded
    image. A score depends on the pixels up to `reach` away along each axis, half the receptive field; null where it
    depends on the whole image. Beyond `effective_reach` pixels have little effect. `stride` is the step of the coarsest
    grid in pixels: parts of an image that begin at its multiples are sampled as in the whole.
    """

    bytes_per_pixel: Annotated[float, Field(gt=0)]
    reach: NonNegativeInt | None
    effective_reach: NonNegativeInt
    stride: PositiveInt


class Deploy(Section):
    """The graph that ships: `input` uint8 N x H x W x 3 RGB, and one output named after its head.

    * `scores`: float32 N x L x H x W, already cropped to the image;
    * `labels`: uint8 N x H x W, their argmax;
    * `lowres`: float32 N x L x h x w, before the last upsampling.

    `scores_are` is "probabilities" where the scores come from a softmax, else "logits"; `blob` is Caffe's name of them,
    which the torch module uses too.
    """

    file: FileName
    input: str
    head: Head
    output: str
    scores_are: Literal["logits", "probabilities"] = "logits"
    blob: str | None = None
    upsampling: Upsampling | None = None
    footprint: Footprint | None = None

    @model_validator(mode="after")
    def _head_has_what_it_needs(self) -> Deploy:
        if self.output != self.head:
            raise ValueError(f'output "{self.output}" must be named after the head "{self.head}"')
        if (self.head == "lowres") != (self.upsampling is not None):
            raise ValueError('"upsampling" belongs to the head "lowres", and to no other')
        return self


class Comparison(Section):
    """A stage of the conversion compared with a reference, every blob on one input."""

    stage: str  # the stage compared, such as "model.onnx"
    reference: str  # the stage or recording it was compared with
    input_shapes: dict[str, tuple[NonNegativeInt, ...]]  # input name -> shape
    blobs: NonNegativeInt  # number of blobs compared
    worst_error: float | str  # largest error relative to max(1, largest absolute value), or "inf" or "nan"
    tolerance: float  # largest error that passes
    passed: bool  # whether all blobs passed
    first_divergence: str | None  # recording key of the first blob that did not pass, or None


class Variant(Section):
    """`deploy.onnx` in another precision: same input, same head, same dtypes at both ends.

    Attributes:
        file: the ONNX file, such as "deploy.fp16.onnx"; the precision is in the graph itself.
        precision: what its convolutions compute in.
        kept: names of the nodes left in a wider type, with the reason: name -> reason.
        calibration: how the ranges of int8 or fp8 were found: method, images, percentile; None for fp16 and bf16.
        verification: what was compared with the float32 graph, the figures, the targets, and whether it passed.
    """

    file: FileName
    precision: Precision
    kept: dict[str, str] = Field(default_factory=dict)
    calibration: dict[str, JsonValue] | None = None
    verification: dict[str, JsonValue]


class GraphBlob(Section):
    """An input or output of an ONNX graph; -1 is a free size."""

    type: str
    shape: tuple[int, ...]


class GraphFacts(Section):
    """Facts about an ONNX file that a runtime needs before it builds an engine, so that it does not parse the file.

    A node is listed by its name, or by its first output if it has none.
    """

    opset: PositiveInt  # version of ONNX's operators
    inputs: dict[str, GraphBlob]  # input name -> type and shape
    outputs: dict[str, GraphBlob]  # output name -> type and shape
    types: tuple[str, ...]  # all element types in the graph, sorted
    subgraphs: tuple[str, ...]  # nodes with a body (Scan, Loop, If), whose nodes are not described
    quantized: bool  # whether the graph has QuantizeLinear or DequantizeLinear
    node_precisions: dict[str, NodePrecision]  # product (Conv, ConvTranspose, Gemm, MatMul) -> its precision
    wide_nodes: dict[str, str]  # in a graph with float16: node that computes in float32 -> its operator
    patterns: dict[str, tuple[str, ...]]  # pattern that some TensorRT version rejects or mishandles -> nodes with it


class Manifest(Section):
    """Everything a reader of a bundle needs to know.

    A net that does not map one RGB image to a plane of scores has no `deploy` and no `preprocessing`, but `run`; where
    it has neither, `warnings` says why.
    Classes beyond the palette get colors of the reader's choice. `variants` are by precision; `deploy` is float32.
    `graphs` describes the deployed ONNX files; `crf_tuning` records how `tune-crf` chose the CRF parameters.
    """

    schema_version: Literal[1] = 1
    name: str
    created: AwareDatetime
    atrous_version: str
    sources: tuple[Source, ...]
    inputs: tuple[BlobSpec, ...]
    outputs: tuple[BlobSpec, ...]
    preprocessing: Preprocessing | None
    deploy: Deploy | None
    run: RunPlan | None = None
    classes: Annotated[tuple[str, ...], Field(max_length=MAX_CLASSES)]
    palette: tuple[tuple[Byte, Byte, Byte], ...]
    crf: CrfParameters | None
    crf_tuning: dict[str, JsonValue] | None = None
    variants: dict[Precision, Variant] = Field(default_factory=dict)
    files: dict[FileName, FileEntry]
    graphs: dict[FileName, GraphFacts] = Field(default_factory=dict)
    verification: tuple[Comparison, ...]
    warnings: tuple[str, ...] = ()
    versions: dict[str, str]

    def to_json(self) -> bytes:
        """The content of manifest.json; fields that were never set are left out."""
        plain = self.model_dump(mode="json", exclude_unset=True)
        return (json.dumps({"schema_version": SCHEMA_VERSION, **plain}, indent=1, allow_nan=False) + "\n").encode()

    @property
    def task(self) -> Task | None:
        """The purpose of the net; None if nothing of it can be deployed."""
        return self.run.task if self.run is not None else "segment" if self.deploy is not None else None

    @model_validator(mode="after")
    def _parts_agree(self) -> Manifest:
        if len(self.palette) > len(self.classes):
            raise ValueError(f"{len(self.palette)} palette colors for {len(self.classes)} classes")
        if (self.deploy is None) != (self.preprocessing is None):
            raise ValueError('"deploy" and "preprocessing" come together or not at all')
        if self.deploy is not None and self.deploy.file not in self.files:
            raise ValueError(f'deploy.file "{self.deploy.file}" is not listed under "files"')
        if self.run is not None and (self.deploy is not None or self.run.file not in self.files):
            raise ValueError('"run" excludes "deploy", and its file must be listed under "files"')
        if len(self.classes) > MAX_LABELS and (self.run is None or self.run.task == "segment"):
            raise ValueError(f"labels are stored as bytes: at most {MAX_LABELS} classes are possible")
        for name, variant in self.variants.items():
            if variant.precision != name or variant.file not in self.files:
                raise ValueError(f'variants.{name} must be of that precision, and its file listed under "files"')
        if self.variants and self.deploy is None:
            raise ValueError('"variants" are of "deploy", which is missing')
        if self.deploy is not None and not self.classes:
            raise ValueError('"classes" must name at least one class')
        if MANIFEST_NAME in self.files:
            raise ValueError(f'"files" cannot hold the digest of {MANIFEST_NAME} itself')
        return self


class _VersionOnly(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    schema_version: int


def parse_manifest(text: bytes, *, path: str | Path = MANIFEST_NAME) -> Manifest:
    """Parse the bytes of a manifest.json.

    Args:
        text: UTF-8 JSON.
        path: what error messages call the file.

    Raises:
        BundleError: naming the first field at fault and how many more there are.
    """
    if len(text) > MAX_MANIFEST_BYTES:
        raise BundleError(f"is {len(text)} bytes long; a manifest has at most {MAX_MANIFEST_BYTES}", path=path)
    try:
        found = _VersionOnly.model_validate_json(text).schema_version
    except ValidationError as error:
        raise BundleError(f"is not a bundle's manifest: {describe_fault(error)}", path=path) from error
    if found != SCHEMA_VERSION:
        remedy = "update atrous" if found > SCHEMA_VERSION else "convert the net again"
        raise BundleError(f"has schema_version {found}, this atrous reads {SCHEMA_VERSION}: {remedy}", path=path)
    try:
        manifest = Manifest.model_validate_json(text)
        if manifest.crf is not None:  # its defaults are for people, not for files
            CrfParameters.from_dict(json.loads(text)["crf"])
    except ValidationError as error:
        raise BundleError(describe_fault(error), path=path) from error
    except CrfInputError as error:
        raise BundleError(f"crf: {error}", path=path) from error
    return manifest
