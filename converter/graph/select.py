"""Which layers take part: phase, level and stages against `include` and `exclude`.

1. The caller's phase and level replace the file's `state`; the caller's stages are added to the file's.
2. A rule is met if its phase (where given) is the phase, min_level <= level <= max_level, all its `stage` are set and
   none of its `not_stage` is.
3. A layer with `include` takes part if any of its rules is met; one with `exclude` if none is. Both in one layer are
   refused. `include { }` is always met.
4. A layer's own `phase` changes how it computes, not whether it takes part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...errors import NetError
from ..files.prototxt import Prototxt

PHASES = ("TRAIN", "TEST")
"""By their number."""


@dataclass(frozen=True)
class DroppedLayer:
    """A layer that does not take part.

    Attributes:
        index: its place in `Prototxt.net.layer`.
        name: its name.
        type: its V2 type.
        line: 1-based.
        reason: the rule and what it was held against, for people.
    """

    index: int
    name: str
    type: str
    line: int
    reason: str


class FilteredLayers(NamedTuple):
    """The layers of a net under one state.

    Attributes:
        kept: (place in `Prototxt.net.layer`, LayerParameter) of each layer that takes part, in order.
        dropped: the others.
        stages: all stages that were set, the file's included.
    """

    kept: tuple[tuple[int, Any], ...]
    dropped: tuple[DroppedLayer, ...]
    stages: frozenset[str]


def filter_layers(
    prototxt: Prototxt, *, phase: str = "TEST", level: int = 0, stages: Iterable[str] = ()
) -> FilteredLayers:
    """Sorts a net's layers into those that take part and those that do not.

    Args:
        prototxt: the net.
        phase: "TEST" or "TRAIN".
        level: as `include { min_level: ... }` is held against.
        stages: as `include { stage: ... }` is held against.

    Raises:
        NetError: an unknown phase, or a layer with both include and exclude.
    """
    if phase not in PHASES:
        raise NetError(f'phase "{phase}" is not known; give TEST or TRAIN')
    active = frozenset(stages) | frozenset(prototxt.net.state.stage)
    kept: list[tuple[int, Any]] = []
    dropped: list[DroppedLayer] = []
    for index, layer in enumerate(prototxt.net.layer):
        line = prototxt.lines[index]
        if layer.include and layer.exclude:
            raise NetError("has both include and exclude rules; Caffe takes one kind", layer=layer.name, line=line)
        unmet = [_find_conflict(rule, phase, level, active) for rule in layer.include or layer.exclude]
        if layer.include and all(unmet):
            reason = "; ".join(f"include {conflict}" for conflict in unmet if conflict)
        elif layer.exclude and not all(unmet):
            reason = f"exclude {_describe(layer.exclude[unmet.index(None)])}"
        else:
            kept.append((index, layer))
            continue
        dropped.append(DroppedLayer(index, layer.name, layer.type, line, reason))
    return FilteredLayers(tuple(kept), tuple(dropped), active)


def _find_conflict(rule: Any, phase: str, level: int, stages: frozenset[str]) -> str | None:
    """The first part of a rule that the state does not meet, or None."""
    if rule.HasField("phase") and PHASES[rule.phase] != phase:
        return f"{{ phase: {PHASES[rule.phase]} }}, the phase is {phase}"
    if rule.HasField("min_level") and level < rule.min_level:
        return f"{{ min_level: {rule.min_level} }}, the level is {level}"
    if rule.HasField("max_level") and level > rule.max_level:
        return f"{{ max_level: {rule.max_level} }}, the level is {level}"
    for stage in rule.stage:
        if stage not in stages:
            return f'{{ stage: "{stage}" }}, which is not set'
    for stage in rule.not_stage:
        if stage in stages:
            return f'{{ not_stage: "{stage}" }}, which is set'
    return None


def _describe(rule: Any) -> str:
    """A rule in one line, as it would stand in the file."""
    parts = [f"phase: {PHASES[rule.phase]}"] if rule.HasField("phase") else []
    parts += [f"{name}: {getattr(rule, name)}" for name in ("min_level", "max_level") if rule.HasField(name)]
    parts += [f'{name}: "{stage}"' for name in ("stage", "not_stage") for stage in getattr(rule, name)]
    return f"{{ {' '.join(parts)} }}" if parts else "{ }"
