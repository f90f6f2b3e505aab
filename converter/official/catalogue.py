"""The catalogue: the official models, the addresses of their files, and the settings that belong to each.

The data is `models.json`; a company's mirror is another file of the same form. An address is `seen` in public scripts
or `derived` from their pattern, and `verified` stays false until someone has downloaded the model. Where a `sha256` is
given, the file must have it; the official models have none.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...errors import FetchError
from ...printable import clean
from .nets import ARCHITECTURES

CATALOGUE_FILE = Path(__file__).with_name("models.json")
SIZE_TOLERANCE = 3  # a file smaller than a third or larger than three times of the stated size is rejected
MAX_BYTES = 4 << 30

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_*][\w.*-]{0,99}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Url = Annotated[str, Field(pattern=r"^https?://[\x21-\x7e]+$", max_length=2000)]
Channel = Annotated[int, Field(ge=0, le=255)]


class Strict(BaseModel):
    """An immutable object of a JSON file; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Address(Strict):
    """The address of a file, and where it is known from."""

    url: Url
    basis: Literal["seen", "derived"]


class RemoteFile(Strict):
    """A file on a server, at addresses that are tried in order."""

    file: FileName
    addresses: Annotated[tuple[Address, ...], Field(min_length=1, max_length=20)]
    size_bytes: Annotated[int, Field(gt=0)] | None = None
    size_basis: str = ""  # where the size is from
    sha256: Sha256 | None = None
    member: FileName | None = None  # the caffemodel in a zip file; `*` stands for any text

    @property
    def size_range(self) -> tuple[int, int]:
        """Least and largest plausible size in bytes."""
        size = self.size_bytes
        return (1, MAX_BYTES) if size is None else (size // SIZE_TOLERANCE, min(size * SIZE_TOLERANCE, MAX_BYTES))


class Settings(Strict):
    """Settings of a model that its record repeats."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
    title: str
    role: Literal["segmentation", "initialization"]  # training starts from an initialization, which has no classifier
    mean: tuple[float, float, float]  # in gray levels: blue, green, red
    crf: dict[str, Any] | None  # in the manifest's form
    crf_source: str


class OfficialModel(Settings):
    """A model of the catalogue."""

    about: str
    architecture: str  # a key of nets.ARCHITECTURES
    labels: Annotated[int, Field(ge=0, le=1000)]  # number of classes; 0 for an initialization
    classes: str | None  # name of a class set, or None for numbered classes
    input_size: Annotated[int, Field(ge=1, le=10_000)]  # images are padded to this height and width at least
    verified: bool  # someone has downloaded the model from these addresses
    weights: RemoteFile
    page: Url | None = None  # where to look for the file by hand; the catalogue's page by default
    notes: tuple[str, ...] = ()


class ClassSet(Strict):
    """Names and RGB colors of classes, in channel order."""

    classes: tuple[str, ...] = ()
    palette: tuple[tuple[Channel, Channel, Channel], ...] = ()


class Catalogue(Strict):
    """All models of one file; `page` is where to look for them by hand."""

    schema_version: Literal[1]
    page: Url
    about: str
    class_sets: dict[str, ClassSet]
    models: tuple[OfficialModel, ...]

    @model_validator(mode="after")
    def _check_references(self) -> Catalogue:
        if len({model.name for model in self.models}) < len(self.models):
            raise ValueError("two models have the same name")
        for model in self.models:
            if model.architecture not in ARCHITECTURES:
                raise ValueError(f'{model.name}: no architecture "{model.architecture}"')
            if model.classes is not None and len(self.find_classes(model).classes) != model.labels:
                raise ValueError(f'{model.name}: no class set "{model.classes}" with {model.labels} classes')
        return self

    def find(self, name: str) -> OfficialModel:
        """The model of this name, in any case; the FetchError for an unknown name lists similar ones."""
        for model in self.models:
            if model.name == name.lower():
                return model
        near = difflib.get_close_matches(name.lower(), [model.name for model in self.models], 3, 0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "atrous fetch lists the models"
        raise FetchError(f'"{name}" is not in the catalogue; {hint}')

    def find_classes(self, model: OfficialModel) -> ClassSet:
        """Class names and colors of a model; empty for numbered classes."""
        return self.class_sets.get(model.classes or "", ClassSet())


def read_catalogue(path: str | os.PathLike[str] = CATALOGUE_FILE) -> Catalogue:
    """Read a catalogue file; raises FetchError if it cannot be read or does not have the catalogue's form."""
    try:
        return Catalogue.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise FetchError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise FetchError(f"{path}: {describe_invalid(error)}; models.json in atrous shows the form") from None


def describe_invalid(error: ValidationError) -> str:
    """The first problem of a JSON file, with its place."""
    first = error.errors(include_url=False)[0]
    return clean(f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}")
