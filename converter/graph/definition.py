"""The definition of a net for one phase, before any size is known: made by `select`, read by `build`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import PrototxtError
from .crop_rule import CropRule

if TYPE_CHECKING:
    from .net import Shape

PHASES = ("TRAIN", "TEST")
"""By number, as in caffe.proto."""


@dataclass(frozen=True)
class DroppedLayer:
    """A layer of the file that is not part of the converted net.

    Attributes:
        name: layer name.
        type: Caffe's type string, as in V2.
        line: 1-based line in the prototxt, or None.
        reason: the rule that excludes it, for people.
    """

    name: str
    type: str
    line: int | None
    reason: str


@dataclass(frozen=True)
class InputTop:
    """A blob that the caller supplies."""

    top: str  # blob name
    shape: Shape | None  # its declared shape, or None where the file does not declare one
    layer: str | None  # name of its Input or data layer, or None for a legacy `input:` field
    type: str  # that layer's type, or "input"
    line: int | None  # that layer's line, or None


@dataclass(frozen=True, eq=False)
class LayerEntry:
    """A layer that runs."""

    message: Any  # its LayerParameter message
    line: int | None  # 1-based line in the prototxt, or None
    attribute: str | None = None  # the submodule name it keeps from the net it was cut out of, or None for a new one
    unsupported: str | None = None  # the reason why it has no conversion, or None where it has one
    error: PrototxtError | None = None  # of a field that may change its result: the cause of `unsupported`


@dataclass(frozen=True)
class NetDefinition:
    """The inputs and layers of a net in one phase."""

    name: str  # the net's name
    input_tops: tuple[InputTop, ...]  # blobs that the caller supplies
    entries: tuple[LayerEntry, ...]  # layers that run, unsupported ones included
    dropped: tuple[DroppedLayer, ...]  # layers left out, with reasons
    silenced: frozenset[str]  # blobs that Silence layers read; they do not become outputs
    dialect: str  # the Caffe that the file comes from
    dialect_evidence: tuple[str, ...]  # the evidence for it
    warnings: tuple[str, ...]  # for people
    # layer name -> number of blobs in the weights, where known
    blob_counts: Mapping[str, int] = field(default_factory=dict)
    transform: Any = None  # TransformationParameter of the image data layer, or None
    format: str = "V2"  # syntax of the file: V0, V1 or V2
    crop_rule: CropRule = CropRule.ZERO  # the offset of a Crop without crop_param
    phase: str = "TEST"  # TEST or TRAIN
    read_names: frozenset[str] = frozenset()  # blobs that a layer of this phase reads, layers left out included
    unset_stages: tuple[str, ...] = ()  # stages of excluded layers, those that declare an input's shape first

    @property
    def stage_hint(self) -> str:
        """The end of an error about something that another stage of the file may have; empty without stages."""
        if not self.unset_stages:
            return ""
        first, *others = self.unset_stages
        rest = f"; its other stages are {', '.join(others)}" if others else ""
        return f"; the file has several stages: give one, as in --stage {first}{rest}"

    @property
    def unsupported(self) -> tuple[tuple[str, str, int | None, str], ...]:
        """(name, type, line, reason) of each layer without a conversion."""
        return tuple(
            (entry.message.name, entry.message.type, entry.line, entry.unsupported)
            for entry in self.entries
            if entry.unsupported is not None
        )
