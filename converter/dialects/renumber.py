"""Field numbers of a dialect's binaries <-> those of the merged schema.

Messages keep their shape; only tags and colliding enum values change. Which field a number is:

1. In a LayerParameter the layer's type decides: 143 beside "Interp" is `interp_param`, beside "Input" `input_param`.
2. Elsewhere the dialect decides; a number it lacks is the only fork field with that number, if there is one.
3. Any other number is left out and counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache

from google.protobuf.descriptor import FieldDescriptor

from ...proto import schema
from ...wire import (
    FIXED32,
    FIXED64,
    LENGTH,
    VARINT,
    Field,
    WireError,
    WireReader,
    encode_block,
    encode_tag,
    encode_varint,
)
from .known import DIALECTS

PRIVATE_NUMBERS = 10000
"""Numbers from here on exist only in the merged schema, in no file."""
LAYER_TYPES = "V1LayerParameter.LayerType"

Unknown = Counter[tuple[str, int]]

_WIRE_TYPES = {
    FieldDescriptor.CPPTYPE_FLOAT: (FIXED32, LENGTH),
    FieldDescriptor.CPPTYPE_DOUBLE: (FIXED64, LENGTH),
    FieldDescriptor.CPPTYPE_STRING: (LENGTH,),
    FieldDescriptor.CPPTYPE_MESSAGE: (LENGTH,),
}


@dataclass(frozen=True)
class MergedField:
    """A field of the merged schema, as the renumbering needs it."""

    name: str
    number: int
    message: str | None
    enum: str | None
    wire_types: tuple[int, ...]
    is_text: bool


def belongs(layer_type: str, param: str) -> bool:
    """Whether a parameter message is that of a layer type: `interp_param` of "Interp"."""
    return layer_type.lower() == param.removesuffix("_param").replace("_", "") or param in _parameters().get(
        layer_type, ()
    )


@cache
def _parameters() -> dict[str, tuple[str, ...]]:
    return {kind: names for dialect in DIALECTS.values() for kind, names in dialect.parameters.items()}


@cache
def merged_fields(message: str) -> dict[int, MergedField]:
    """The fields of a message by their merged number."""
    return {
        item.number: MergedField(
            item.name,
            item.number,
            schema.short_name(item.message_type.full_name) if item.message_type else None,
            schema.short_name(item.enum_type.full_name) if item.enum_type else None,
            _WIRE_TYPES.get(item.cpp_type, (VARINT, LENGTH)),
            item.type == FieldDescriptor.TYPE_STRING,
        )
        for item in schema.descriptor(message).fields
    }


@cache
def wire_fields(message: str, dialect: str) -> dict[int, MergedField]:
    """The fields of a message by the number they have in a dialect's binaries."""
    own, forks = {}, {}
    for item in merged_fields(message).values():
        wire = schema.field_wire(message, item.name)
        if wire is None:
            own[item.number] = item
        elif (number := wire.get(dialect)) is not None:
            forks[number] = item
    return {**own, **forks}


@cache
def contested_layer_fields() -> dict[int, tuple[MergedField, ...]]:
    """Numbers of LayerParameter that some fork uses for a field of its own -> those fields."""
    found: dict[int, list[MergedField]] = {}
    for item in merged_fields("LayerParameter").values():
        for number in {n for n in (schema.field_wire("LayerParameter", item.name) or {}).values() if n is not None}:
            found.setdefault(number, []).append(item)
    return {number: tuple(items) for number, items in found.items()}


@cache
def _only_fork_field(message: str, number: int, wire_type: int) -> MergedField | None:
    found = [
        item
        for item in merged_fields(message).values()
        if number in (schema.field_wire(message, item.name) or {}).values()
    ]
    return found[0] if len(found) == 1 and wire_type in found[0].wire_types else None


@cache
def _type_field(layer_type: str) -> MergedField | None:
    """The only fork parameter message that belongs to a layer type, under any number."""
    found = [
        item
        for item in merged_fields("LayerParameter").values()
        if item.number >= PRIVATE_NUMBERS and belongs(layer_type, item.name)
    ]
    return found[0] if len(found) == 1 else None


def find_layer_field(layer_type: str, number: int, dialect: str) -> MergedField | None:
    """The field that a number of LayerParameter is in a layer of this type; None if unknown."""
    mine = wire_fields("LayerParameter", dialect).get(number)
    if number not in contested_layer_fields():
        return mine if mine is not None else _type_field(layer_type) if number >= 100 else None
    candidates = (mine, *contested_layer_fields()[number], merged_fields("LayerParameter").get(number))
    for item in candidates:
        if item is not None and belongs(layer_type, item.name):
            return item
    return _type_field(layer_type)


@cache
def enum_values(enum: str, dialect: str) -> dict[int, int]:
    """A dialect's number of an enum value -> its merged number, where they differ."""
    holder, _, name = enum.rpartition(".")
    numbers: dict[int, int] = {}
    if not holder:
        return numbers
    for value in schema.descriptor(holder).enum_types_by_name[name].values:
        wire = schema.value_wire(enum, value.name)
        number = wire.get(dialect) if wire else None
        if number is not None:
            numbers[number] = value.number
    return numbers


def to_merged(data: bytes, message: str, dialect: str, unknown: Unknown | None = None) -> bytes:
    """The bytes of a message in a dialect, renumbered for the merged schema; raises WireError if they are invalid.

    `unknown` counts the numbers left out, by (message, number).
    """
    return _Renumberer(data, dialect, Counter() if unknown is None else unknown).read(message, 0, len(data))


def from_merged(data: bytes, message: str, dialect: str) -> bytes:
    """The bytes of a message in the merged schema, renumbered as a dialect writes them.

    Raises WireError if the dialect has no number for a field or value that is set; the error names it.
    """
    return _Renumberer(data, dialect, Counter()).write(message, 0, len(data))


class _Renumberer:
    def __init__(self, data: bytes, dialect: str, unknown: Unknown) -> None:
        self._reader, self._dialect, self._unknown = WireReader(data), dialect, unknown

    def read(self, message: str, start: int, stop: int, *, dialect: str | None = None) -> bytes:
        dialect = dialect or self._dialect
        fields = list(self._reader.fields(start, stop))
        layer_type = self._layer_type(fields) if message == "LayerParameter" else None
        known = wire_fields(message, dialect)
        parts: list[bytes] = []
        for found in fields:
            if layer_type is not None:
                item = find_layer_field(layer_type, found.number, dialect)
            else:
                item = known.get(found.number) or _only_fork_field(message, found.number, found.wire_type)
            if item is None:
                holder = message if layer_type is None else f'LayerParameter of type "{layer_type}"'
                self._unknown[holder, found.number] += 1
            else:
                parts.append(self._read_field(found, item, dialect))
        return b"".join(parts)

    def _read_field(self, found: Field, item: MergedField, dialect: str) -> bytes:
        if item.message is not None and found.wire_type == LENGTH:
            if item.message == "BNParameter":
                dialect = self._bn_dialect(found, dialect)
            return encode_block(item.number, self.read(item.message, found.start, found.stop, dialect=dialect))
        if item.enum is not None and found.wire_type == VARINT:
            value = enum_values(item.enum, dialect).get(found.value, found.value)
            return encode_tag(item.number, VARINT) + encode_varint(value)
        if item.is_text and found.wire_type == LENGTH:  # protobuf rejects strings that are not UTF-8
            return encode_block(item.number, self._reader.text(found).encode())
        return self._copy(found, item.number)

    def _bn_dialect(self, found: Field, dialect: str) -> str:
        """SegNet's or PSPNet's BNParameter: 3 is an enum in one, a float in the other, 4 to 6 exist in one only."""
        for inner in self._reader.fields(found.start, found.stop):
            if inner.number >= 4 or (inner.number == 3 and inner.wire_type == FIXED32):
                return "pspnet"
            if inner.number == 3:
                return "segnet"
        if dialect == "pspnet" or found.number == 152:
            return "pspnet"
        return "segnet"

    def _layer_type(self, fields: list[Field]) -> str:
        named = [found for found in fields if found.number == 2 and found.wire_type == LENGTH]
        return self._reader.text(named[-1]) if named else ""

    def write(self, message: str, start: int, stop: int) -> bytes:
        numbers = _write_numbers(message, self._dialect)
        parts: list[tuple[int, bytes]] = []
        for found in self._reader.fields(start, stop):
            item = merged_fields(message).get(found.number)
            if item is None or item.number not in numbers:
                name = item.name if item is not None else str(found.number)
                raise WireError(f"{message}.{name} has no number in files of {self._dialect}", found.at)
            number = numbers[item.number]
            if item.message is not None:
                parts.append((number, encode_block(number, self.write(item.message, found.start, found.stop))))
            elif item.enum is not None and found.value >= PRIVATE_NUMBERS:
                back = {merged: wire for wire, merged in enum_values(item.enum, self._dialect).items()}
                if found.value not in back:
                    raise WireError(f"{message}.{item.name} has a value that files of {self._dialect} lack", found.at)
                parts.append((number, encode_tag(number, VARINT) + encode_varint(back[found.value])))
            else:
                parts.append((number, self._copy(found, number)))
        return b"".join(part for _, part in sorted(parts, key=lambda item: item[0]))

    def _copy(self, found: Field, number: int) -> bytes:
        """The unchanged payload under another number."""
        data, tag = self._reader.data, encode_tag(number, found.wire_type)
        if found.wire_type == LENGTH:
            return tag + encode_varint(found.stop - found.start) + data[found.start : found.stop]
        if found.repeats == 1:
            return tag + data[found.start : found.stop]
        width = (found.stop - found.at) // found.repeats
        return b"".join(tag + data[at + 1 : at + width] for at in range(found.at, found.stop, width))


@cache
def _write_numbers(message: str, dialect: str) -> dict[int, int]:
    """Merged number -> number in a dialect's files, without BVLC fields that a fork's field hides."""
    return {item.number: number for number, item in wire_fields(message, dialect).items()}
