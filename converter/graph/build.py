"""From layer messages to a :class:`Net`: names resolved to single assignments, shapes computed, Caffe's graph checks.

A :class:`NetDefinition` is what the file says after the phase rules: which layers run, which tops a caller supplies,
what was left out and why. :func:`lay_out` turns it into a net for given input sizes, as often as one likes.

The graph rules are those of Caffe's own set-up:
1. a bottom is the latest version of its name; an unknown name is refused;
2. a top may repeat the name of the bottom at the same index (in place), any other repetition is refused;
3. an in-place layer on a blob that another layer has read already is refused, since Caffe splits that blob first;
4. Split, Flatten, Reshape, and Concat or Slice of one blob, share the memory of their bottom: what is written in
   place on one of these blobs shows in all of them, so a later reader of the others sees it too;
5. a `param` name seen before shares the first layer's blob: same shape (STRICT) or same count (PERMISSIVE);
6. blobs nobody reads are the outputs, in order of their names.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import CropOffsetError, NetError, UnsupportedLayersError
from ..layers import LayerContext, Operator, count, find_operator, registered_name
from .crop_rule import CropRule
from .names import unique_attribute
from .net import Blob, DroppedLayer, Layer, Net, ParameterKey, Shape
from .select import PHASES
from .sizes import as_size, concrete

#: Types whose top is their bottom's memory under another name (rule 4).
_SHARING_TYPES = frozenset({"Split", "Flatten", "Reshape", "Squeeze"})
#: No blob of a sane net is larger; Caffe itself stops at 2^31 - 1 elements.
MAX_BLOB_ELEMENTS = 2**31 - 1


@dataclass(frozen=True)
class InputTop:
    """A blob that the caller supplies.

    Attributes:
        top: blob name.
        shape: its declared shape, or None where the file does not say.
        layer: the Input or data layer it stands for, or None for a legacy `input:` field.
        type: that layer's type, or "input".
        line: its line, or None.
    """

    top: str
    shape: Shape | None
    layer: str | None
    type: str
    line: int | None


@dataclass(frozen=True)
class LayerEntry:
    """A layer that runs.

    Attributes:
        message: its LayerParameter message.
        line: where it stands in the file, or None.
        attribute: the submodule name it keeps from the net it was cut out of, or None to be given one.
    """

    message: Any
    line: int | None
    attribute: str | None = None


@dataclass(frozen=True)
class NetDefinition:
    """What a file defines for one phase, before any size is known.

    Attributes:
        name: the net's name.
        input_tops: blobs a caller supplies.
        entries: layers that run.
        dropped: layers left out, with reasons.
        unsupported: (name, type, line, reason) of layers without a conversion.
        silenced: blobs that Silence layers read, which are no outputs.
        dialect: which Caffe the file is from.
        dialect_evidence: why.
        warnings: for people.
        blob_counts: layer name -> number of blobs in the weights, where known.
        transform: the TransformationParameter of the image data layer, or None.
        crop_rule: what a Crop without crop_param means.
        phase: TEST or TRAIN.
        format: syntax of the file: V0, V1 or V2.
    """

    name: str
    input_tops: tuple[InputTop, ...]
    entries: tuple[LayerEntry, ...]
    dropped: tuple[DroppedLayer, ...]
    unsupported: tuple[tuple[str, str, int | None, str], ...]
    silenced: frozenset[str]
    dialect: str
    dialect_evidence: tuple[str, ...]
    warnings: tuple[str, ...]
    blob_counts: Mapping[str, int] = field(default_factory=dict)
    transform: Any = None
    format: str = "V2"
    crop_rule: CropRule = CropRule.ZERO
    phase: str = "TEST"


def lay_out(
    definition: NetDefinition, input_shapes: Mapping[str, Sequence[int]] | None = None, *, tolerant: bool = False
) -> Net:
    """Lay a definition out for given input shapes.

    Args:
        definition: what the file says.
        input_shapes: input name -> shape, in place of the declared ones.
        tolerant: go on past layers without a conversion; they and what depends on them are listed in `dropped`.

    Raises:
        UnsupportedLayersError: layers without a conversion (all at once), unless tolerant.
        NetError: a graph or size that Caffe would refuse.
    """
    if definition.unsupported and not tolerant:
        raise UnsupportedLayersError(definition.unsupported)
    try:
        return _Layout(definition, dict(input_shapes or {})).run()
    except CropOffsetError as error:
        if definition.crop_rule is not CropRule.GRAPH_ASSUMED:
            raise
        warning = f"every Crop without crop_param starts at 0, as in BVLC Caffe, since {error}"
        definition = replace(definition, crop_rule=CropRule.ZERO, warnings=(*definition.warnings, warning))
        return _Layout(definition, dict(input_shapes or {})).run()


class _Layout:
    def __init__(self, definition: NetDefinition, input_shapes: dict[str, Sequence[int]]) -> None:
        self.definition = definition
        self.input_shapes = input_shapes
        self.current: dict[str, Blob] = {}
        #: (id of a blob version, the name it was read by) -> how often
        self.readers: Counter[tuple[int, str]] = Counter()
        self.inputs: list[Blob] = []
        self.layers: list[Layer] = []
        self.dropped = list(definition.dropped)
        self.attributes: set[str] = set()
        self.shared: dict[str, tuple[ParameterKey, Shape, str]] = {}
        self.unknown_blobs: set[str] = set()
        #: blob name -> all names of its memory; in place or not, a name never moves to other memory
        self.sharers: dict[str, set[str]] = {}
        self.overwritten: dict[str, str] = {}
        self.merged: dict[str, str] = {}

    def run(self) -> Net:
        for source in self.definition.input_tops:
            self._add_input(source)
        unsupported = {(name, line): reason for name, _, line, reason in self.definition.unsupported}
        for entry in self.definition.entries:
            reason = unsupported.get((entry.message.name, entry.line))
            if reason is None and self.unknown_blobs.intersection(entry.message.bottom):
                reason = "reads the output of a layer without a conversion"
            if reason is not None:
                self._drop(entry, reason)
            else:
                self._add_layer(entry)
        self._check_unread_shapes()
        unread = [
            blob
            for name, blob in self.current.items()
            if blob.name == name and blob.producer is not None and not self.readers[id(blob), name]
        ]
        for blob in unread:
            if blob.name in self.overwritten:
                raise NetError(f'output "{blob.name}": {self.overwritten[blob.name]}')
        outputs = [b for b in unread if b.name not in self.definition.silenced] or unread
        merged = tuple(
            f'output "{name}" shares its memory with "{other}", which is written in place: "{other}" stands for both'
            for name, other in sorted(self.merged.items())
        )
        notes = [f'layer "{layer.name}": {note}' for layer in self.layers for note in layer.operator.notes()]
        return Net(
            name=self.definition.name,
            inputs=tuple(self.inputs),
            outputs=tuple(sorted(outputs, key=lambda blob: blob.name)),
            layers=tuple(self.layers),
            dropped=tuple(self.dropped),
            dialect=self.definition.dialect,
            dialect_evidence=self.definition.dialect_evidence,
            warnings=(*self.definition.warnings, *merged, *notes),
            definition=self.definition,
        )

    def _add_input(self, source: InputTop) -> None:
        if not source.top:
            raise NetError("declares an input without a name", layer=source.layer, line=source.line)
        if source.top in self.current:
            raise NetError(f'input "{source.top}" is declared twice', layer=source.layer, line=source.line)
        given = self.input_shapes.get(source.top, source.shape)
        if given is None:
            raise NetError(
                f'the file does not say the shape of input "{source.top}" ({source.type}); '
                f"give it, as in --input {source.top}=1,3,321,321",
                layer=source.layer,
                line=source.line,
            )
        shape = tuple(as_size(size) for size in given)
        if any(size <= 0 for size in shape) or count(map(concrete, shape)) > MAX_BLOB_ELEMENTS:
            raise NetError(
                f'input "{source.top}" has the impossible shape {shape}', layer=source.layer, line=source.line
            )
        blob = Blob(source.top, shape, None)
        self.current[source.top] = blob
        self.sharers[source.top] = {source.top}
        self.inputs.append(blob)

    def _check_unread_shapes(self) -> None:
        unknown = set(self.input_shapes) - {blob.name for blob in self.inputs}
        if unknown:
            names = ", ".join(blob.name for blob in self.inputs) or "none"
            raise NetError(f"the net has no input {', '.join(sorted(unknown))}; its inputs are: {names}")

    def _drop(self, entry: LayerEntry, reason: str) -> None:
        self.dropped.append(DroppedLayer(entry.message.name, entry.message.type, entry.line, reason))
        self.unknown_blobs.update(entry.message.top)

    def _add_layer(self, entry: LayerEntry) -> None:
        message, line = entry.message, entry.line
        bottoms = tuple(self._find_bottom(message, name, line) for name in message.bottom)
        context = LayerContext(
            name=message.name,
            type=message.type,
            message=message,
            bottoms=bottoms,
            top_names=tuple(message.top),
            dialect=self.definition.dialect,
            line=line,
            blob_count=self.definition.blob_counts.get(message.name),
            crop_rule=self.definition.crop_rule,
            phase=PHASES[message.phase] if message.HasField("phase") else self.definition.phase,
        )
        operator_type = find_operator(registered_name(message))
        assert operator_type is not None, "unsupported layers were refused before"
        operator = operator_type(context)
        self.readers.update((id(blob), name) for blob, name in zip(bottoms, message.bottom, strict=True))
        self._check_tops(operator, entry)
        layer = Layer(
            name=message.name,
            attribute=entry.attribute or unique_attribute(message.name, self.attributes),
            type=message.type,
            line=line,
            operator=operator,
            bottoms=bottoms,
            message=message,
        )
        layer.tops = tuple(
            self._make_top(layer, index, name, shape)
            for index, (name, shape) in enumerate(zip(message.top, operator.top_shapes(), strict=True))
        )
        layer.parameters = self._share_parameters(layer)
        self._track_storage(layer)
        for top in layer.tops:
            self.current[top.name] = top
        self.layers.append(layer)

    def _track_storage(self, layer: Layer) -> None:
        """Rule 4: which tops share memory, and what an in-place layer changes under other names."""
        shares = layer.type in _SHARING_TYPES or (
            layer.type in ("Concat", "Slice") and len(layer.bottoms) == len(layer.tops) == 1
        )
        names = layer.message.bottom
        for index, top in enumerate(layer.tops):
            if index < len(names) and names[index] == top.name:
                self._overwrite(layer, top)
                continue
            self.sharers[top.name] = self.sharers[names[0]] if shares else set()
            self.sharers[top.name].add(top.name)

    def _overwrite(self, layer: Layer, top: Blob) -> None:
        for name in self.sharers[top.name] - {top.name}:
            blob = self.current[name]
            if blob.shape == top.shape:
                self.current[name] = top
                if blob.name == name and not self.readers[id(blob), name]:
                    self.merged[name] = top.name
            else:
                self.overwritten[name] = (
                    f'layer "{layer.name}" writes "{top.name}" in place before, which shares its memory with "{name}"; '
                    f'give the top of "{layer.name}" a name of its own'
                )

    def _find_bottom(self, message: Any, name: str, line: int | None) -> Blob:
        if name in self.overwritten:
            raise NetError(f'reads blob "{name}" but {self.overwritten[name]}', layer=message.name, line=line)
        if name in self.current:
            self.merged.pop(name, None)
            return self.current[name]
        near = difflib.get_close_matches(name, self.current, 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise NetError(f'reads blob "{name}", which no layer before it writes{hint}', layer=message.name, line=line)

    def _check_tops(self, operator: Operator, entry: LayerEntry) -> None:
        message = entry.message
        names = list(message.top)
        for index, name in enumerate(names):
            if not name:
                operator.refuse("writes a top without a name")
            if names.index(name) != index:
                operator.refuse(f'writes top "{name}" twice')
            in_place = index < len(message.bottom) and message.bottom[index] == name
            if not in_place:
                if name in self.current:
                    operator.refuse(f'writes blob "{name}", which another layer has written already (rename the top)')
                continue
            if not operator.allows_in_place:
                operator.refuse("cannot run in place; give the top a name of its own")
            if self.readers[id(self.current[name]), name] > 1:
                operator.refuse(
                    f'writes blob "{name}" in place after another layer has read it; give the top a name of its own'
                )

    @staticmethod
    def _make_top(layer: Layer, index: int, name: str, shape: Shape) -> Blob:
        if any(size < 0 for size in shape) or count(map(concrete, shape)) > MAX_BLOB_ELEMENTS:
            layer.operator.refuse(f'top "{name}" would have the impossible shape {shape}')
        return Blob(name, shape, layer, index)

    def _share_parameters(self, layer: Layer) -> tuple[ParameterKey, ...]:
        """The owner's key for each parameter blob (rule 5)."""
        keys = []
        shapes = layer.operator.weight_shapes()
        if len(layer.message.param) > len(shapes):
            layer.operator.refuse(
                f"has {len(layer.message.param)} param{{}} entries for {len(shapes)} parameter blob(s)"
            )
        for index, shape in enumerate(shapes):
            if count(map(concrete, shape)) > MAX_BLOB_ELEMENTS:
                layer.operator.refuse(f"parameter blob {index} would have the impossible shape {shape}")
            key = ParameterKey(layer.attribute, index)
            spec = layer.message.param[index] if index < len(layer.message.param) else None
            if spec is None or not spec.name:
                keys.append(key)
                continue
            owner = self.shared.setdefault(spec.name, (key, shape, layer.name))
            permissive = spec.share_mode == 1
            same = count(owner[1]) == count(shape) if permissive else owner[1] == shape
            if not same:
                layer.operator.refuse(
                    f'param "{spec.name}" of shape {shape} cannot share the blob of layer "{owner[2]}", '
                    f"whose shape is {owner[1]}"
                )
            keys.append(owner[0])
        return tuple(keys)
