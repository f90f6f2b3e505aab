"""Builds a :class:`Net` from its definition: names become single assignments, shapes are computed, graph rules checked.

The graph rules are those of Caffe's own set-up:
1. a bottom is the latest version of its name; an unknown name is an error;
2. a top may repeat the name of the bottom at the same index (in place); any other repetition is an error;
3. in place on a blob that another layer has already read is an error, since Caffe splits that blob first;
4. Split, Flatten, Reshape, and Concat or Slice of one blob share the memory of their bottom: an in-place write to one
   of these blobs changes all of them, so later readers of the others see it too;
5. a `param` name seen before shares the first layer's blob: same shape (STRICT) or same count (PERMISSIVE);
6. blobs that no layer reads are the outputs, sorted by name, inputs included.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from google.protobuf.descriptor import FieldDescriptor

from ...errors import CropOffsetError, NetError, UnsupportedLayersError
from ..dialects.known import find_dialect
from ..files.blob import MAX_AXES
from ..layers import LayerContext, Operator, count, find_operator, registered_name
from .crop_rule import CropRule
from .definition import PHASES, DroppedLayer, InputTop, LayerEntry, NetDefinition
from .names import UniqueNames, make_attribute
from .net import Blob, Layer, Net, ParameterKey, Shape
from .sizes import as_size, concrete

_SHARING_TYPES = frozenset({"Split", "Flatten", "Reshape", "Squeeze"})
"""Types whose top is their bottom's memory under another name (rule 4)."""
INT_MAX = 2**31 - 1
"""Caffe stores sizes, strides and element counts in a C++ int."""


def build_net(
    definition: NetDefinition, input_shapes: Mapping[str, Sequence[int]] | None = None, *, tolerant: bool = False
) -> Net:
    """Build the net of a definition; `input_shapes` replace the declared ones, by input name.

    With `tolerant`, layers without a conversion are skipped; they and the layers that depend on them are listed in
    `dropped`. Otherwise they raise UnsupportedLayersError, all at once, or, if unknown fields are the only reason, the
    PrototxtError of the first one. A graph or size that Caffe would refuse raises NetError.
    """
    if definition.unsupported and not tolerant:
        errors = [entry.error for entry in definition.entries if entry.error is not None]
        raise (
            errors[0] if len(errors) == len(definition.unsupported) else UnsupportedLayersError(definition.unsupported)
        )
    try:
        return _Builder(definition, input_shapes or {}).build()
    except CropOffsetError as error:
        if definition.crop_rule is not CropRule.GRAPH_ASSUMED:
            raise
        warning = f"every Crop without crop_param starts at 0, as in BVLC Caffe, since {error}"
        definition = replace(definition, crop_rule=CropRule.ZERO, warnings=(*definition.warnings, warning))
        return _Builder(definition, input_shapes or {}).build()


def reshape_net(net: Net, input_shapes: Mapping[str, Sequence[int]]) -> Net:
    """Build a net again for other input shapes, with the same parameters.

    Args:
        net: from `read_net`.
        input_shapes: input name -> new shape; inputs not named keep theirs.

    Raises:
        NetError: a layer cannot take these sizes.
    """
    shapes = {blob.name: blob.shape for blob in net.inputs} | {k: tuple(v) for k, v in input_shapes.items()}
    other = build_net(net.definition, shapes, tolerant=True)
    twins = dict(zip(net.blobs(), other.blobs(), strict=True))
    return replace(other, outputs=tuple(twins[blob] for blob in net.outputs), parameters=net.parameters)


@dataclass(eq=False)
class _Memory:
    """The memory of one or more blob names (rule 4): its number of in-place writes and the blob of the last one."""

    writes: int = 0
    last: Blob | None = None


class _Builder:
    def __init__(self, definition: NetDefinition, input_shapes: Mapping[str, Sequence[int]]) -> None:
        self.definition = definition
        self.input_shapes = input_shapes
        #: blob name -> the version last written under this name, its memory, and that memory's writes at the time
        self.written: dict[str, tuple[Blob, _Memory, int]] = {}
        #: names not read since they were last written
        self.unread: dict[str, None] = {}
        #: (blob version, the name it was read by) -> number of reads
        self.reads: Counter[tuple[Blob, str]] = Counter()
        self.inputs: list[Blob] = []
        self.layers: list[Layer] = []
        self.dropped = list(definition.dropped)
        self.attributes = UniqueNames()
        #: param name -> key and shape of the shared blob, and the layer that owns it
        self.shared: dict[str, tuple[ParameterKey, Shape, str]] = {}
        #: tops of dropped layers
        self.unknown_blobs: set[str] = set()

    def build(self) -> Net:
        for source in self.definition.input_tops:
            self._add_input(source)
        for entry in self.definition.entries:
            reason = entry.unsupported
            if reason is None and self.unknown_blobs.intersection(entry.message.bottom):
                reason = "reads the output of a layer without a conversion"
            if reason is None:
                self._add_layer(entry)
            else:
                self.dropped.append(DroppedLayer(entry.message.name, entry.message.type, entry.line, reason))
                self.unknown_blobs.update(entry.message.top)
        self._check_input_names()
        unread, merged = self._find_unread()
        outputs = [blob for blob in unread if blob.name not in self.definition.silenced] or unread
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

    def _find_unread(self) -> tuple[list[Blob], list[str]]:
        """Blobs that no layer reads, and a warning for each one that an in-place write has replaced (rules 4, 6)."""
        unread, warnings = [], []
        for name in self.unread:
            try:
                blob = self._latest(name)
            except _OverwrittenError as error:
                raise NetError(f'output "{name}": {error}') from None
            if blob.name != name:
                warnings.append(
                    f'output "{name}" shares its memory with "{blob.name}", which is written in place: "{blob.name}" '
                    "stands for both"
                )
            elif blob.producer is not None or name not in self.definition.read_names:
                unread.append(blob)
        computed = [blob for blob in unread if blob.producer is not None]
        return unread if computed else [], sorted(warnings)

    def _add_input(self, source: InputTop) -> None:
        def refuse(reason: str) -> NoReturn:
            raise NetError(reason, layer=source.layer, line=source.line)

        if not source.top:
            refuse("declares an input without a name")
        if source.top in self.written:
            refuse(f'input "{source.top}" is declared twice')
        given = self.input_shapes.get(source.top, source.shape)
        if given is None:
            refuse(
                f'the file does not declare the shape of input "{source.top}" ({source.type}); '
                f"give it, as in --input {source.top}=1,3,321,321{self.definition.stage_hint}"
            )
        shape = tuple(as_size(size) for size in given)
        if _is_impossible(shape) or 0 in shape:
            refuse(f'input "{source.top}" has the impossible shape {_format_shape(shape)}')
        blob = Blob(source.top, shape, None)
        self._write(blob, _Memory())
        self.inputs.append(blob)

    def _check_input_names(self) -> None:
        unknown = set(self.input_shapes) - {blob.name for blob in self.inputs}
        if unknown:
            names = ", ".join(blob.name for blob in self.inputs) or "none"
            raise NetError(f"the net has no input {', '.join(sorted(unknown))}; its inputs are: {names}")

    def _add_layer(self, entry: LayerEntry) -> None:
        message, line = entry.message, entry.line
        _check_parameters(message, line)
        bottoms = tuple(self._read(message, name, line) for name in message.bottom)
        context = LayerContext(
            name=message.name,
            type=message.type,
            message=message,
            bottoms=bottoms,
            top_names=tuple(message.top),
            dialect=find_dialect(self.definition.dialect),
            line=line,
            blob_count=self.definition.blob_counts.get(message.name),
            crop_rule=self.definition.crop_rule,
            phase=PHASES[message.phase] if message.HasField("phase") else self.definition.phase,
        )
        operator_type = find_operator(registered_name(message))
        assert operator_type is not None, "unsupported layers were refused before"
        operator = operator_type(context)
        self._check_tops(operator)
        layer = Layer(
            name=message.name,
            attribute=entry.attribute or self.attributes.add(make_attribute(message.name)),
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
        self._write_tops(layer)
        self.layers.append(layer)

    def _read(self, message: Any, name: str, line: int | None) -> Blob:
        """The blob version that a layer reads (rule 1)."""
        if name not in self.written:
            near = difflib.get_close_matches(name, self.written, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise NetError(
                f'reads blob "{name}", which no layer before it writes{hint or self.definition.stage_hint}',
                layer=message.name,
                line=line,
            )
        try:
            blob = self._latest(name)
        except _OverwrittenError as error:
            raise NetError(f'reads blob "{name}" but {error}', layer=message.name, line=line) from None
        self.reads[blob, name] += 1
        self.unread.pop(name, None)
        return blob

    def _latest(self, name: str) -> Blob:
        """The version last written under any name of a name's memory (rule 4); _OverwrittenError for another shape."""
        blob, memory, writes = self.written[name]
        last = memory.last
        if memory.writes == writes or last is None:
            return blob
        if last.shape != blob.shape:
            assert last.producer is not None
            writer = last.producer.name
            raise _OverwrittenError(
                f'layer "{writer}" writes "{last.name}" in place before, which shares its memory with "{name}"; '
                f'give the top of "{writer}" a name of its own'
            )
        return last

    def _write(self, blob: Blob, memory: _Memory) -> None:
        self.written[blob.name] = (blob, memory, memory.writes)
        self.unread[blob.name] = None

    def _write_tops(self, layer: Layer) -> None:
        shares = layer.type in _SHARING_TYPES or (
            layer.type in ("Concat", "Slice") and len(layer.bottoms) == len(layer.tops) == 1
        )
        names = layer.message.bottom
        for index, top in enumerate(layer.tops):
            if index < len(names) and names[index] == top.name:
                memory = self.written[top.name][1]
                memory.writes, memory.last = memory.writes + 1, top
            else:
                memory = self.written[names[0]][1] if shares else _Memory()
            self._write(top, memory)

    def _check_tops(self, operator: Operator) -> None:
        """Rules 2 and 3."""
        names, bottoms = operator.context.top_names, operator.context.message.bottom
        seen: set[str] = set()
        for index, name in enumerate(names):
            if not name:
                operator.refuse("writes a top without a name")
            if name in seen:
                operator.refuse(f'writes top "{name}" twice')
            seen.add(name)
            if index >= len(bottoms) or bottoms[index] != name:
                if name in self.written:
                    operator.refuse(f'writes blob "{name}", which another layer has written already (rename the top)')
                continue
            if not operator.allows_in_place:
                operator.refuse("cannot run in place; give the top a name of its own")
            if self.reads[operator.bottoms[index], name] > 1:
                operator.refuse(
                    f'writes blob "{name}" in place after another layer has read it; give the top a name of its own'
                )

    @staticmethod
    def _make_top(layer: Layer, index: int, name: str, shape: Shape) -> Blob:
        if _is_impossible(shape):
            layer.operator.refuse(f'top "{name}" would have the impossible shape {_format_shape(shape)}')
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
            if _is_impossible(shape):
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


class _OverwrittenError(Exception):
    """A blob whose memory holds another blob; the message is a clause that names the writer."""


def _is_impossible(shape: Shape) -> bool:
    """Whether Caffe refuses the shape; the number of axes comes first, as the product of many sizes is slow."""
    return len(shape) > MAX_AXES or any(size < 0 for size in shape) or count(map(concrete, shape)) > INT_MAX


def _format_shape(shape: Shape) -> str:
    if len(shape) <= MAX_AXES:
        return str(shape)
    return f"({', '.join(map(str, shape[:4]))}, ...) of {len(shape)} axes; Caffe takes at most {MAX_AXES}"


def _check_parameters(message: Any, line: int | None) -> None:
    """Refuse integers that do not fit Caffe's C++ int (seeds may use all 32 bits), and shapes of too many axes."""

    def refuse(reason: str) -> NoReturn:
        raise NetError(f"{message.type}: {param.name}.{field.name} {reason}", layer=message.name, line=line)

    for param, fields in message.ListFields():
        if not param.name.endswith("_param"):
            continue
        for field, value in fields.ListFields():
            if field.cpp_type == FieldDescriptor.CPPTYPE_UINT32 and "seed" not in field.name:
                largest = value if isinstance(value, int) else max(value)
                if largest > INT_MAX:
                    refuse(f"is {largest}; the largest value is {INT_MAX}")
            elif field.message_type is not None and field.message_type.name == "BlobShape":
                for shape in [value] if hasattr(value, "dim") else value:
                    if len(shape.dim) > MAX_AXES:
                        refuse(f"has {len(shape.dim)} axes; Caffe takes at most {MAX_AXES}")
