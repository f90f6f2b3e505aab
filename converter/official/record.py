"""`model.json`: what lies in a folder of a fetched model, where it came from, and what a conversion needs to know.

The first part is the form that `atrous convert --info` takes (name, classes, palette, mean, scale, minimum_size, crf);
the rest is provenance. No checksum of the official files was ever published, so the first download is trusted and its
SHA-256 is what every later look at the files, and every later download, is held against.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...bundle.files import write_file
from ...errors import FetchError
from .catalogue import Catalogue, Colour, OfficialModel, Sha256
from .quantities import describe_size, hash_file

RECORD_FILE = "model.json"
_MAX_RECORD_BYTES = 1 << 20

LocalName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][\w.-]{0,120}$")]
Count = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerFile(_Strict):
    """A file as a server gave it.

    Attributes:
        url: the address that was asked.
        final_url: where redirects led.
        etag: as the server gave it, or empty.
        last_modified: as the server gave it, or empty.
        size_bytes: of the file on the server.
        sha256: of the file on the server.
        member: what was taken out of it, for a zip file.
    """

    url: str
    final_url: str
    etag: str
    last_modified: str
    size_bytes: Count
    sha256: Sha256
    member: str | None = None


class LocalFile(_Strict):
    """A file of the folder.

    Attributes:
        file: its name.
        sha256: of its content.
        size_bytes: its size.
        origin: how it came here; `written` is by atrous itself.
        date: when, in UTC.
        server: for a downloaded file, what the server gave.
        imported_from: for an imported file, the path it was copied from.
    """

    file: LocalName
    sha256: Sha256
    size_bytes: Count
    origin: Literal["downloaded", "imported", "written"]
    date: str
    server: ServerFile | None = None
    imported_from: str | None = None


class ModelFiles(_Strict):
    """The two files that a conversion takes."""

    prototxt: LocalFile
    weights: LocalFile


class ModelRecord(_Strict):
    """The content of `model.json`.

    Attributes:
        schema_version: of this form.
        name: of the model, and of a bundle made of it.
        title: what its authors call it.
        role: as in the catalogue.
        classes: names in channel order; empty where they are only numbered.
        palette: an RGB colour for each class.
        mean: in grey levels, blue, green, red.
        scale: factor after the mean.
        minimum_size: images are padded to this height and width at least.
        crf: dense CRF parameters in the manifest's form, or None.
        crf_source: where they are from.
        variables: values of the prototxt's `${NAME}` placeholders.
        files: what lies beside.
        notes: what happened on the way here and is known of the model.
        atrous: version that wrote this.
    """

    schema_version: Literal[1] = 1
    name: str
    title: str
    role: Literal["segmentation", "initialization"]
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    mean: tuple[float, float, float]
    scale: float
    minimum_size: tuple[int, int]
    crf: dict[str, Any] | None
    crf_source: str
    variables: dict[str, str]
    files: ModelFiles
    notes: tuple[str, ...]
    atrous: str


def describe_model(catalogue: Catalogue, model: OfficialModel) -> dict[str, Any]:
    """The part of a record that follows from the catalogue alone."""
    classes, palette = catalogue.find_classes(model)
    return {
        "name": model.name,
        "title": model.title,
        "role": model.role,
        "classes": classes,
        "palette": palette,
        "mean": model.mean,
        "scale": 1.0,
        "minimum_size": (model.input_size, model.input_size),
        "crf": model.crf,
        "crf_source": model.crf_source,
    }


def read_record(folder: Path) -> ModelRecord | None:
    """The record of a folder; None where there is none.

    Raises:
        FetchError: there is one, and it is not of the form.
    """
    path = folder / RECORD_FILE
    try:
        if path.stat().st_size > _MAX_RECORD_BYTES:
            raise FetchError(f"{path}: is too large to be a record of a fetched model")
        return ModelRecord.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise FetchError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise FetchError(
            f"{path}: is no record of a fetched model ({place + ': ' if place else ''}{first['msg']}); "
            "remove it and fetch the model again"
        ) from None


def write_record(folder: Path, record: ModelRecord) -> None:
    """Write the record of a folder.

    Raises:
        OutputError: it cannot be written.
    """
    text = json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_file(folder / RECORD_FILE, text.encode())


def find_damage(folder: Path, record: ModelRecord) -> tuple[str, ...]:
    """What is no longer as recorded, each a sentence; the files are read whole."""
    found = []
    for file in (record.files.weights, record.files.prototxt):
        path = folder / file.file
        try:
            size = os.stat(path).st_size
        except OSError as error:
            found.append(f"{path}: cannot be read ({error.strerror})")
            continue
        if size != file.size_bytes:
            found.append(f"{path}: has {describe_size(size)}, and had {describe_size(file.size_bytes)} when recorded")
        elif (digest := hash_file(path)) != file.sha256:
            found.append(f"{path}: its sha256 is {digest[:16]}..., and was {file.sha256[:16]}... when recorded")
    return tuple(found)
