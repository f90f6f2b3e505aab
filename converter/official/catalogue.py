"""The catalogue: which models there are, where their files are said to be, and what belongs to each.

The data is `models.json`, so that a mirror inside a company is another such file and no code. What it states about an
address is only what is known: `seen` in public scripts, or `derived` from the pattern of those; `verified` stays false
until somebody has fetched it. Where a `sha256` is given it is required; the official models have none.
"""

from __future__ import annotations

import difflib
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...errors import FetchError

CATALOGUE_FILE = Path(__file__).with_name("models.json")

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_*][\w.*-]{0,99}$")]
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Channel = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Channel, Channel, Channel]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Address(_Strict):
    """Where a file is said to be.

    Attributes:
        url: http or https.
        basis: `seen` in public scripts, or `derived` from the pattern of other addresses.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^\s\x00-\x1f]+$", max_length=2000)]
    basis: Literal["seen", "derived"]


class RemoteFile(_Strict):
    """A file on a server.

    Attributes:
        file: its name there.
        addresses: in the order in which they are tried.
        size_bytes: its size, as far as it is known; None where it is not.
        size_basis: how the size is known.
        sha256: required of the file where given.
        member: for a zip file, the caffemodel in it; `*` stands for anything.
        prototxt_member: for a zip file, the prototxt in it.
    """

    file: FileName
    addresses: Annotated[tuple[Address, ...], Field(min_length=1, max_length=20)]
    size_bytes: Annotated[int, Field(gt=0)] | None = None
    size_basis: str = ""
    sha256: Sha256 | None = None
    member: FileName | None = None
    prototxt_member: FileName | None = None


class OfficialModel(_Strict):
    """One model and what belongs to it.

    Attributes:
        name: what a user types.
        title: what its authors call it.
        role: `segmentation`, or `initialization` for weights that training starts from and that have no classifier.
        about: a line about it.
        architecture: one of `nets.ARCHITECTURES`.
        labels: number of classes; 0 for an initialization.
        classes: name of a class set of the catalogue, or None where classes are only numbered.
        input_size: images are padded to this height and width at least.
        mean: in grey levels, blue, green, red.
        crf: parameters of the dense CRF in the manifest's form, or None.
        crf_source: where they are from.
        verified: somebody has fetched this model from these addresses.
        weights: the caffemodel, or the zip file it is in.
        prototxt: the published prototxt, where it is a file of its own.
        notes: what else is known.
    """

    name: ModelName
    title: str
    role: Literal["segmentation", "initialization"]
    about: str
    architecture: str
    labels: Annotated[int, Field(ge=0, le=1000)]
    classes: str | None
    input_size: Annotated[int, Field(ge=1, le=10_000)]
    mean: tuple[float, float, float]
    crf: dict[str, Any] | None
    crf_source: str
    verified: bool
    weights: RemoteFile
    prototxt: RemoteFile | None = None
    notes: tuple[str, ...] = ()


class ClassSet(_Strict):
    """Names and RGB colours of classes, in channel order."""

    classes: tuple[str, ...]
    palette: tuple[Colour, ...]


class Catalogue(_Strict):
    """All models of one file.

    Attributes:
        schema_version: of the file's form.
        page: where a person finds the models by hand.
        about: what the file is.
        class_sets: by the names that models use.
        models: in the order in which they are listed.
    """

    schema_version: Literal[1]
    page: str
    about: str
    class_sets: dict[str, ClassSet]
    models: tuple[OfficialModel, ...]

    @model_validator(mode="after")
    def _check_references(self) -> Catalogue:
        from .nets import ARCHITECTURES

        names = [model.name for model in self.models]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ValueError(f"models are named twice: {', '.join(sorted(repeated))}")
        for model in self.models:
            if model.architecture not in ARCHITECTURES:
                raise ValueError(f'{model.name}: no architecture "{model.architecture}"')
            if model.classes is not None and len(self.find_classes(model)[0]) != model.labels:
                raise ValueError(f'{model.name}: class set "{model.classes}" has not {model.labels} classes')
        return self

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What a user can type."""
        return tuple(model.name for model in self.models)

    def find(self, name: str) -> OfficialModel:
        """The model of this name.

        Raises:
            FetchError: there is none; the message names near ones.
        """
        for model in self.models:
            if model.name == name.lower():
                return model
        near = difflib.get_close_matches(name.lower(), self.names, 3, 0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "atrous fetch lists the models"
        raise FetchError(f'"{name}" is not in the catalogue; {hint}')

    def find_classes(self, model: OfficialModel) -> tuple[tuple[str, ...], tuple[Colour, ...]]:
        """Class names and colours of a model; empty where its classes are only numbered."""
        if model.classes is None:
            return (), ()
        if model.classes not in self.class_sets:
            raise ValueError(f'{model.name}: no class set "{model.classes}"')
        found = self.class_sets[model.classes]
        return found.classes, found.palette


def read_catalogue(path: str | os.PathLike[str] = CATALOGUE_FILE) -> Catalogue:
    """Read a catalogue file.

    Raises:
        FetchError: it cannot be read, or is not of the catalogue's form.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Catalogue.model_validate(content)
    except OSError as error:
        raise FetchError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the catalogue"
        raise FetchError(f"{path}: {place}: {first['msg']}; models.json in atrous shows the form") from None
    except ValueError as error:
        raise FetchError(f"{path}: is not JSON ({error})") from None
