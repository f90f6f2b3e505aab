"""`model.json`: the files of a fetched model, where they came from, and the settings for its conversion.

The settings have the form of `atrous convert --info` (name, classes, palette, mean, scale, minimum_size, crf). No
checksum of the official files was ever published, so the first download is trusted: its SHA-256 is recorded here, and
the files and later downloads are compared with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from ...bundle.files import hash_stream
from ...errors import FetchError
from .catalogue import ClassSet, Settings, Sha256, Strict, describe_invalid

RECORD_FILE = "model.json"
_MAX_RECORD_BYTES = 1 << 20


class LocalFile(Strict):
    """A file of the folder, and where it came from."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][\w.-]{0,120}$")]
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0)]
    date: str  # UTC
    origin: Literal["downloaded", "imported", "written"]  # written by atrous itself
    url: str | None = None
    final_url: str | None = None  # where redirects led
    download_sha256: Sha256 | None = None  # of the downloaded file, which may be a zip file
    member: str | None = None  # name in the zip file
    imported_from: str | None = None


class ModelRecord(Settings, ClassSet):
    """The content of `model.json`; images are padded to the height and width `minimum_size` at least."""

    schema_version: Literal[1] = 1
    scale: float = 1.0
    minimum_size: tuple[int, int]
    prototxt: LocalFile
    weights: LocalFile
    notes: tuple[str, ...]
    atrous: str


def read_record(folder: Path) -> ModelRecord | None:
    """The record of a folder, None if it has none; raises FetchError if it is invalid or cannot be read."""
    path = folder / RECORD_FILE
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > _MAX_RECORD_BYTES:
            raise FetchError(f"{path}: is too large for the record of a fetched model")
        return ModelRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise FetchError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        advice = "remove it and fetch the model again"
        raise FetchError(f"{path}: invalid record of a fetched model ({describe_invalid(error)}); {advice}") from None


def find_damage(folder: Path, record: ModelRecord) -> list[str]:
    """Differences between the files and their record, each as a sentence; the files are read completely."""
    found = []
    for file in (record.weights, record.prototxt):
        path = folder / file.file
        try:
            digest = hash_file(path)
        except OSError as error:
            found.append(f"{path}: cannot be read ({error.strerror})")
        else:
            if digest != file.sha256:
                found.append(f"{path}: its sha256 is {digest[:16]}..., but {file.sha256[:16]}... when recorded")
    return found


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hash_stream(file)
