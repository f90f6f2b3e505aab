"""`deeplab-miniature.json`: what the prototxt and the caffemodel do not say, read strictly, and where the files are."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ...bundle.crf_parameters import CrfParameters
from ...bundle.manifest import Manifest

FOLDER = Path(__file__).resolve().parent
NAME = "deeplab-miniature"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Training(_Section):
    """Training of the weights; `minutes` is the wall time of one training on `threads` threads."""

    seed: int
    iterations: int
    batch: int
    crop: tuple[int, int]
    scenes: int
    threads: int
    minutes: float
    torch: str


class Score(_Section):
    """Mean IoU and IoU by class of one set of label maps, as fractions of 1."""

    mean_iou: float
    ious: dict[str, float]


class Figures(_Section):
    """Figures measured on the scenes of `seeds` (first, last), all sizes mixed, the net converted from Caffe's files.

    `gain_95` is the central 95 % of the gain in mean IoU over scenes drawn again with replacement.
    """

    seeds: tuple[int, int]
    network: Score
    crf: Score
    gain_95: tuple[float, float]


class Settings(_Section):
    """Everything about the miniature beside its net, as `atrous convert --info` reads it; `mean` is BGR, 0 to 255."""

    schema_version: Literal[1]
    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    mean: tuple[float, float, float]
    crf: CrfParameters
    training: Training
    validation: Figures
    test: Figures
    scenes: tuple[int, ...]


class MiniatureFiles:
    """The miniature's files in a folder."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self.prototxt = folder / f"{NAME}.prototxt"
        self.caffemodel = folder / f"{NAME}.caffemodel"
        self.settings = folder / f"{NAME}.json"
        self.scores = folder / f"{NAME}-scores.npz"

    def scene(self, seed: int) -> tuple[Path, Path]:
        """The picture and the label map of a shipped scene."""
        return self.folder / f"scene-{seed}.png", self.folder / f"labels-{seed}.png"


def read_settings(path: Path) -> Settings:
    """Read the settings; pydantic.ValidationError names an invalid field."""
    return Settings.model_validate_json(path.read_bytes(), strict=True)


def is_miniature(manifest: Manifest) -> bool:
    """Whether a bundle was made from the caffemodel that ships with atrous."""
    digest = hashlib.sha256(MiniatureFiles().caffemodel.read_bytes()).hexdigest()
    return any(source.sha256 == digest for source in manifest.sources)
