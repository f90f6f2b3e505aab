"""The bundle's `manifest.json` as types: what a bundle promises, read strictly.

The converter writes the file as plain JSON; this module is the only reader and therefore the definition.
Rules, in the order they are checked:

1. The file is UTF-8 JSON of at most 16 MiB, one object.
2. `schema_version` equals `SCHEMA_VERSION`; it is looked at before anything else.
3. Every field is known, present and of its own JSON type (no string where a number belongs, no NaN).
4. File names are relative, with forward slashes, and stay inside the bundle.
5. The parts agree: files named are listed, no more colours than classes, the head has what it needs.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from ..errors import BundleError, InputError

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 16 << 20
MAX_LABELS = 256  # labels are stored as uint8


def check_contained_name(name: str) -> str:
    """Return `name` if it can only mean a file below the bundle's folder.

    Raises:
        ValueError: for an absolute path, a `..`, a backslash, a drive, an empty part or a control character.
    """
    parts = name.split("/")
    contained = (
        name != ""
        and not PurePosixPath(name).is_absolute()
        and not any(part in ("", ".", "..") for part in parts)
        and not any(character in "\\:" or ord(character) < 32 for character in name)
    )
    if not contained:
        raise ValueError(f"{name!r} is not a plain relative path inside the bundle")
    return name


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, AfterValidator(check_contained_name)]
Side = Annotated[int, Field(gt=0, le=1 << 20)]
Sides = tuple[Side, Side]  # (height, width) in pixels
Byte = Annotated[int, Field(ge=0, le=255)]
Head = Literal["scores", "labels", "lowres"]
Precision = Literal["fp16", "bf16", "int8", "fp8"]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class FileEntry(_Section):
    """Size and digest of one file of the bundle."""

    sha256: Sha256
    bytes: NonNegativeInt


class Source(_Section):
    """A Caffe file the bundle was made from; `file` is its base name."""

    role: Literal["prototxt", "caffemodel", "mean"]
    file: str
    sha256: Sha256
    bytes: NonNegativeInt
    format: Literal["V0", "V1", "V2", "HDF5", "binaryproto"]
    dialect: str


class BlobSpec(_Section):
    """A blob of `model.onnx` by Caffe's name; a string in `shape` names a dynamic axis."""

    name: str
    shape: tuple[NonNegativeInt | str, ...]
    dtype: str


class SizeRule(_Section):
    """Which input sizes the network takes.

    Either `fixed`, this (height, width) only, or the smallest `multiple * k + offset` per axis that is at least both
    `minimum` and the image. What is added lies below and to the right of the image and is 0 after the mean.
    """

    minimum: Sides = (1, 1)
    multiple: PositiveInt = 1
    offset: NonNegativeInt = 0
    fixed: Sides | None = None

    @model_validator(mode="after")
    def _either_or(self) -> SizeRule:
        given = self.model_fields_set - {"fixed"}
        if given != (set() if self.fixed is not None else {"minimum", "multiple", "offset"}):
            raise ValueError('give either "fixed", or all of "minimum", "multiple" and "offset"')
        return self

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) that an image of `height` x `width` pixels is padded to.

        Raises:
            InputError: if the network takes one size only, and it is another.
        """
        if self.fixed is not None:
            if (height, width) != self.fixed:
                raise InputError(
                    f"the image is {width}x{height} pixels, the network takes only {self.fixed[1]}x{self.fixed[0]}: "
                    "resize the image to that"
                )
            return self.fixed
        return (
            _align(max(height, self.minimum[0]), self.multiple, self.offset),
            _align(max(width, self.minimum[1]), self.multiple, self.offset),
        )


def _align(side: int, multiple: int, offset: int) -> int:
    """The smallest multiple * k + offset, k >= 0, that is at least `side`."""
    return -(-max(side - offset, 0) // multiple) * multiple + offset


class Preprocessing(_Section):
    """What `deploy.onnx` does to the image inside the graph: (pixel - mean) * scale, channel by channel.

    `mean` is in the order of `color_order`, one value a channel, in grey levels of 0 to 255.
    """

    color_order: Literal["BGR", "RGB"]
    mean: tuple[float, float, float]
    scale: float
    size_rule: SizeRule


class Upsampling(_Section):
    """The last, linear upsampling that a `lowres` head leaves to the reader."""

    padded: SizeRule
    align_corners: bool


class Deploy(_Section):
    """The graph that ships: `input` uint8 N x H x W x 3 RGB, and one output named after its head.

    * `scores`: float32 N x L x H x W, already cropped to the image;
    * `labels`: uint8 N x H x W, their argmax;
    * `lowres`: float32 N x L x h x w, before the last upsampling.

    `scores_are` tells whether the scores come from a softmax ("probabilities") or not ("logits"); `blob` is Caffe's
    name of them, by which the torch module gives them too.
    """

    file: FileName
    input: str
    head: Head
    output: str
    scores_are: Literal["logits", "probabilities"] = "logits"
    blob: str | None = None
    upsampling: Upsampling | None = None

    @model_validator(mode="after")
    def _head_has_what_it_needs(self) -> Deploy:
        if self.output != self.head:
            raise ValueError(f'output "{self.output}" must be named after the head "{self.head}"')
        if (self.head == "lowres") != (self.upsampling is not None):
            raise ValueError('"upsampling" belongs to the head "lowres", and to no other')
        return self


class GaussianTerm(_Section):
    """exp(-|position|^2 / (2 sxy^2)) times `weight`; `sxy` in pixels, one value or (x, y)."""

    sxy: PositiveFloat | tuple[PositiveFloat, PositiveFloat]
    weight: float


class BilateralTerm(_Section):
    """As `GaussianTerm`, times the same of the colour; `srgb` in grey levels, one value or (r, g, b)."""

    sxy: PositiveFloat | tuple[PositiveFloat, PositiveFloat]
    srgb: PositiveFloat | tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    weight: float


class CrfSection(_Section):
    """Parameters of the dense CRF and the name of their normalization."""

    mode: Literal["deeplab", "pydensecrf"]
    iterations: Annotated[int, Field(ge=0, le=1000)]
    gaussian: tuple[GaussianTerm, ...]
    bilateral: tuple[BilateralTerm, ...]


class Variant(_Section):
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
    kept: dict[str, str] = {}
    calibration: dict[str, JsonValue] | None = None
    verification: dict[str, JsonValue]


class Manifest(_Section):
    """Everything a reader of a bundle needs to know.

    A net that does not map one image to a plane of scores has no `deploy` and no `preprocessing`; `warnings` says why.
    Classes beyond the palette get colours of the reader's choice. `variants` are by precision; `deploy` is float32.
    """

    schema_version: Literal[1]
    name: str
    created: AwareDatetime
    atrous_version: str
    sources: tuple[Source, ...]
    inputs: tuple[BlobSpec, ...]
    outputs: tuple[BlobSpec, ...]
    preprocessing: Preprocessing | None
    deploy: Deploy | None
    classes: Annotated[tuple[str, ...], Field(max_length=MAX_LABELS)]
    palette: tuple[tuple[Byte, Byte, Byte], ...]
    crf: CrfSection | None
    variants: dict[Precision, Variant] = {}
    files: dict[FileName, FileEntry]
    verification: tuple[dict[str, JsonValue], ...]
    warnings: tuple[str, ...] = ()
    versions: dict[str, str]

    @model_validator(mode="after")
    def _parts_agree(self) -> Manifest:
        if len(self.palette) > len(self.classes):
            raise ValueError(f"{len(self.palette)} palette colours for {len(self.classes)} classes")
        if (self.deploy is None) != (self.preprocessing is None):
            raise ValueError('"deploy" and "preprocessing" come together or not at all')
        if self.deploy is not None and self.deploy.file not in self.files:
            raise ValueError(f'deploy.file "{self.deploy.file}" is not listed under "files"')
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
        raise BundleError(f"is not a bundle's manifest: {_describe(error)}", path=path) from error
    if found != SCHEMA_VERSION:
        remedy = "update atrous" if found > SCHEMA_VERSION else "convert the net again"
        raise BundleError(
            f"has schema_version {found}, this atrous reads {SCHEMA_VERSION}: {remedy}",
            path=path,
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise BundleError(_describe(error), path=path) from error


def _describe(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_input=False)
    first = faults[0]
    place = ".".join(str(part) for part in first["loc"] if part != "[key]")
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return (f"{place}: " if place else "") + first["msg"].removeprefix("Value error, ") + more
