"""Selection of a file's layers: those that run, those the caller supplies, and those left out, with the reason.

1. NetState decides which layers exist in this phase:
   - the caller's phase and level replace the file's `state`; the caller's stages are added to the file's;
   - a rule is met if its phase (where given) is the phase, min_level <= level <= max_level, all its `stage` are set and
     none of its `not_stage` is; `include { }` is always met;
   - a layer with `include` runs if any of its rules is met, one with `exclude` if none is; both in one layer are an
     error. A layer's own `phase` changes how it computes, not whether it runs.
2. Data layers, and Python layers without bottoms, become inputs: one for each top that a layer reads. Where this phase
   has no data layer for a blob, the other phase's gives its name and shape.
3. Losses, measurements and file writers are dropped; their bottoms become outputs.
4. Layers that only prepare labels for dropped layers are dropped with them.
5. A type with neither role nor operator is unsupported; all are reported at once.
6. Fields that the schema lacks: see `unknown_fields`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ...errors import NetError
from ..dialects.detect import Detection, detect_in_text
from ..dialects.known import DIALECTS, Dialect, find_dialect, fork_layer_types
from ..files.prototxt import Prototxt
from ..files.text_tree import without_unknown
from ..layers import find_operator, registered_name, registered_types
from .crop_rule import find_crop_rule
from .definition import PHASES, DroppedLayer, InputTop, LayerEntry, NetDefinition
from .inputs import legacy_inputs, source_shapes
from .roles import PYTHON_LAYER, reads_data, training_reason, unsupported_reason
from .unknown_fields import layer_messages, settle_fields

_MAX_SUGGESTIONS = 32
"""Unknown types with a "did you mean"; each one costs a comparison with every registered type."""


class FilteredLayers(NamedTuple):
    """The layers of a net under one state."""

    # (index in `Prototxt.net.layer`, LayerParameter) of each layer that runs, in order
    kept: tuple[tuple[int, Any], ...]
    dropped: tuple[DroppedLayer, ...]  # the others
    stages: frozenset[str]  # all stages that are set, the file's included


def filter_layers(
    prototxt: Prototxt, *, phase: str = "TEST", level: int = 0, stages: Iterable[str] = ()
) -> FilteredLayers:
    """Apply a net's include and exclude rules (rule 1).

    Args:
        prototxt: the net.
        phase: "TEST" or "TRAIN".
        level: compared with min_level and max_level.
        stages: compared with stage and not_stage.

    Raises:
        NetError: an unknown phase, or a layer with both include and exclude.
    """
    if phase not in PHASES:
        raise NetError(f'phase "{phase}" is not known; give TEST or TRAIN')
    active = frozenset(stages) | frozenset(prototxt.net.state.stage)
    kept: list[tuple[int, Any]] = []
    dropped: list[DroppedLayer] = []
    for index, layer in enumerate(prototxt.net.layer):
        line = prototxt.lines[index] or None
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
        dropped.append(DroppedLayer(layer.name, layer.type, line, reason))
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
    """A rule on one line, in prototxt syntax."""
    parts = [f"phase: {PHASES[rule.phase]}"] if rule.HasField("phase") else []
    parts += [f"{name}: {getattr(rule, name)}" for name in ("min_level", "max_level") if rule.HasField(name)]
    parts += [f'{name}: "{stage}"' for name in ("stage", "not_stage") for stage in getattr(rule, name)]
    return f"{{ {' '.join(parts)} }}" if parts else "{ }"


def define_net(
    prototxt: Prototxt,
    *,
    phase: str = "TEST",
    level: int = 0,
    stages: Sequence[str] = (),
    dialect: str | None = None,
    blob_counts: Mapping[str, int] | None = None,
    already_filtered: bool = False,
) -> NetDefinition:
    """Assign each layer of a file its role in the converted net.

    Args:
        prototxt: the read file.
        phase: TEST or TRAIN.
        level: NetState level.
        stages: NetState stages.
        dialect: overrides the detected dialect.
        blob_counts: layer name -> number of blobs in the weights, where known.
        already_filtered: the net was saved by Caffe, which keeps only layers of the phase it ran in; skip rule 1.

    Raises:
        NetError: contradicting rules, input fields that do not match, or a dialect that does not read this syntax.
    """
    if dialect is not None:
        detection = Detection(dialect, ("given by the caller",))
    else:
        detection = detect_in_text(prototxt.forks, prototxt.format)
    found = find_dialect(detection.name, prototxt.format)
    kept: Iterable[tuple[int, Any]] = enumerate(prototxt.net.layer)
    dropped: list[DroppedLayer] = []
    if not already_filtered:  # rule 1
        filtered = filter_layers(prototxt, phase=phase, level=level, stages=stages)
        kept, dropped = filtered.kept, list(filtered.dropped)
    definition = _Selection(prototxt, kept, dropped, found).define(detection.evidence, dict(blob_counts or {}))
    doubts = _find_dialect_doubts(prototxt, definition, found, given=dialect is not None)
    definition = replace(definition, warnings=(*definition.warnings, *doubts))
    crop_rule = find_crop_rule(prototxt.net.layer, found, given=dialect is not None)
    unset = () if already_filtered else _find_unset_stages(prototxt, filtered.stages)
    return replace(definition, crop_rule=crop_rule, phase=phase, unset_stages=unset)


def _find_dialect_doubts(prototxt: Prototxt, definition: NetDefinition, dialect: Dialect, *, given: bool) -> list[str]:
    """Warnings where the dialect decides the result without evidence, or contradicts the file."""
    types = {entry.message.type for entry in definition.entries}
    if given:
        foreign = [kind for kind, owners in fork_layer_types().items() if kind in types and dialect.name not in owners]
        if foreign:
            return [f'the dialect "{dialect.name}" has no layer type {", ".join(sorted(foreign))}']
        return []
    if prototxt.format != "V1" or any(
        "V1" in DIALECTS[name].formats for use in prototxt.forks for name in use.dialects
    ):
        return []
    doubtful = [
        f"{kind}{place}"
        for kind, place in (("ArgMax", " without axis"), ("InnerProduct", ""))
        if any(
            entry.message.type == kind and not (kind == "ArgMax" and entry.message.argmax_param.HasField("axis"))
            for entry in definition.entries
        )
    ]
    if not doubtful:
        return []
    return [
        f"read as a file of BVLC Caffe; DeepLab v1's Caffe computes {' and '.join(doubtful)} with other shapes: give "
        "--dialect deeplab_v1 if the net was trained with it"
    ]


def _find_unset_stages(prototxt: Prototxt, active: frozenset[str]) -> tuple[str, ...]:
    """The stages of the file's rules if none of them is set, those of layers that declare a shape first."""
    declaring: dict[str, None] = {}
    others: dict[str, None] = {}
    for layer in prototxt.net.layer:
        stages = [stage for rule in (*layer.include, *layer.exclude) for stage in rule.stage]
        (declaring if layer.input_param.shape else others).update(dict.fromkeys(stages))
    found = tuple(declaring | others)
    return () if active.intersection(found) else found


class _Selection:
    def __init__(
        self, prototxt: Prototxt, kept: Iterable[tuple[int, Any]], filtered: Iterable[DroppedLayer], dialect: Dialect
    ) -> None:
        self.prototxt, self.dialect = prototxt, dialect
        self.messages = layer_messages(prototxt)
        self.entries = [LayerEntry(self.messages[index], prototxt.lines[index] or None) for index, _ in kept]
        self.dropped = list(filtered)
        self.silenced: set[str] = set()
        self.unknown_types: set[str] = set()
        self.sources: list[InputTop] = legacy_inputs(prototxt.net, dialect)
        self.label_tops: set[str] = set()
        self.transform: Any = None

    def define(self, evidence: tuple[str, ...], blob_counts: dict[str, int]) -> NetDefinition:
        running = [entry for entry in self.entries if not self._take_source(entry)]
        running = self._drop_training(running)
        running = self._drop_label_branches(running)
        running, warnings = settle_fields(self.messages, running)
        running = [self._mark_unsupported(entry) for entry in running]
        read = {name for entry in running for name in entry.message.bottom}
        self._borrow_sources(running, read)
        declared = {source.top for source in self.sources if source.shape is not None}
        inputs = [
            source
            for source in self.sources
            # Caffe drops an `input:` without a shape if a layer gives the same blob with one.
            if (source.top in read or source.type in ("Input", "input"))
            and not (source.shape is None and source.top in declared)
        ]
        return NetDefinition(
            name=self.prototxt.net.name,
            input_tops=tuple(inputs),
            entries=tuple(running),
            dropped=tuple(self.dropped),
            silenced=frozenset(self.silenced),
            dialect=self.dialect.name,
            dialect_evidence=evidence,
            warnings=(*self.prototxt.warnings, *warnings),
            blob_counts=blob_counts,
            transform=self.transform,
            read_names=frozenset(name for entry in self.entries for name in entry.message.bottom),
            format=self.prototxt.format,
        )

    def _borrow_sources(self, running: Sequence[LayerEntry], read: set[str]) -> None:
        """Rule 2, second sentence."""
        missing = read - {top for entry in running for top in entry.message.top} - {s.top for s in self.sources}
        for index, message in enumerate(map(without_unknown, self.messages)):
            if not _reads_data(message) or missing.isdisjoint(message.top):
                continue
            line = self.prototxt.lines[index] or None
            if self.transform is None and message.HasField("transform_param"):
                self.transform = message.transform_param
            for top, shape in zip(message.top, source_shapes(message), strict=True):
                if top in missing:
                    self.sources.append(InputTop(top, shape, message.name, message.type, line))
                    missing.discard(top)

    def _drop(self, entry: LayerEntry, reason: str) -> None:
        self.dropped.append(DroppedLayer(entry.message.name, entry.message.type, entry.line, reason))

    def _take_source(self, entry: LayerEntry) -> bool:
        """Rule 2."""
        message = without_unknown(entry.message)
        if not _reads_data(message):
            return False
        shapes = source_shapes(message)
        if message.HasField("transform_param") and self.transform is None:
            self.transform = message.transform_param
        for index, (top, shape) in enumerate(zip(message.top, shapes, strict=True)):
            self.sources.append(InputTop(top, shape, message.name, message.type, entry.line))
            if message.type != "Input" and index > 0 and top != "data_dim":
                self.label_tops.add(top)
        return True

    def _drop_training(self, entries: list[LayerEntry]) -> list[LayerEntry]:
        """Rule 3."""
        running = []
        last_read = {
            name: position
            for position, entry in enumerate(entries)
            if _training_reason(entry.message) is None
            for name in entry.message.bottom
        }
        for position, entry in enumerate(entries):
            message = entry.message
            reason = _training_reason(message)
            own = set(message.top) - set(message.bottom)
            used = sorted(name for name in own if last_read.get(name, -1) > position)
            if reason is None:
                running.append(entry)
            elif used:
                reason = f'a training layer, but its top "{used[0]}" is read by the net'
                running.append(replace(entry, unsupported=reason))
            else:
                if message.type == "Silence":
                    self.silenced.update(message.bottom)
                self._drop(entry, reason)
        return running

    def _drop_label_branches(self, entries: list[LayerEntry]) -> list[LayerEntry]:
        """Rule 4."""
        labels = set(self.label_tops)
        branch = []
        needed: set[str] = set()
        for entry in entries:
            if entry.message.bottom and labels.issuperset(entry.message.bottom):
                labels.update(entry.message.top)
                branch.append(entry)
            else:
                needed.update(entry.message.bottom)
        dropped: set[LayerEntry] = set()
        for entry in reversed(branch):
            if needed.isdisjoint(entry.message.top):
                dropped.add(entry)
                self._drop(entry, "prepares labels for layers that only training needs")
            else:
                needed.update(entry.message.bottom)
        return [entry for entry in entries if entry not in dropped]

    def _mark_unsupported(self, entry: LayerEntry) -> LayerEntry:
        """Rule 5."""
        message = entry.message
        if entry.unsupported or _is_registered(message):
            return entry
        if message.type == PYTHON_LAYER:
            param = message.python_param
            reason = (
                f"arbitrary code ({param.module}.{param.layer}); register a conversion as "
                f'"{registered_name(message)}", or cut the net before it'
            )
        elif (known := unsupported_reason(message.type)) is not None:
            reason = known
        else:
            self.unknown_types.add(message.type)
            near = _find_misspelled(message.type) if len(self.unknown_types) <= _MAX_SUGGESTIONS else None
            reason = f"unknown type; did you mean {near}?" if near else "unknown type"
        return replace(entry, unsupported=reason)


def _find_misspelled(kind: str) -> str | None:
    """The registered type that this name misspells; a name with a prefix, such as CReLU, is a type of its own."""
    name, known = kind.replace("_", "").lower(), {item.lower(): item for item in registered_types()}
    if name not in known and name.endswith(tuple(known)):
        return None
    near = difflib.get_close_matches(name, known, 1, cutoff=0.85)
    return known[near[0]] if near else None


def _is_registered(message: Any) -> bool:
    return find_operator(registered_name(message)) is not None


def _reads_data(message: Any) -> bool:
    return reads_data(message, is_registered=_is_registered(message))


def _training_reason(message: Any) -> str | None:
    return training_reason(message.type, is_registered=_is_registered(message))
