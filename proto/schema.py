"""The message classes of `caffe.proto`, built at run time.

No generated module is imported and the default descriptor pool is left alone, so an installed Caffe (whose own
`caffe.proto` would collide there) and any protobuf from 4.22 on can live in the same process.

The parser knows the part of proto2 that `caffe.proto` uses: messages, enums, labelled fields with `default`,
`packed` and the two options of ours, `(wire)` and `(wire_value)`, which say where a fork keeps a field in binaries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor

SCHEMA_PATH = Path(__file__).with_name("caffe.proto")
PACKAGE = "atrous"

Wire = MappingProxyType[str, "int | None"]
"""Dialect -> number in that dialect's binaries; None where it is known from text files alone."""

_TOKEN = re.compile(r'\s+|//[^\n]*|(?P<token>"[^"]*"|[A-Za-z_][\w.]*|[-+]?[\d.][\w.]*(?:[-+]\d+)?|\S)')
_SCALARS = {
    name: getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in ("double", "float", "int64", "uint64", "int32", "uint32", "bool", "string", "bytes")
}
_LABELS = {
    name: getattr(descriptor_pb2.FieldDescriptorProto, f"LABEL_{name.upper()}")
    for name in ("optional", "required", "repeated")
}


class Schema(NamedTuple):
    """A schema as read from its text.

    Attributes:
        pool: the private pool that holds the descriptors.
        classes: message -> its class. All are made at once and kept: protobuf before 4.25 crashes on a class that was
            collected while its parent's was in use.
        field_wires: (message, field) -> where the forks keep that field.
        value_wires: (enum, value name) -> which number the forks give that value.
    """

    pool: descriptor_pool.DescriptorPool
    classes: dict[str, type[Any]]
    field_wires: dict[tuple[str, str], Wire]
    value_wires: dict[tuple[str, str], Wire]


class _Parser:
    """A recursive-descent parser over the tokens of one `.proto` file."""

    def __init__(self, text: str) -> None:
        self._tokens: Iterator[str] = (m["token"] for m in _TOKEN.finditer(text) if m["token"])
        self._ahead = next(self._tokens, "")
        self.file = descriptor_pb2.FileDescriptorProto(name="atrous/caffe.proto", package=PACKAGE, syntax="proto2")
        self.field_wires: dict[tuple[str, str], Wire] = {}
        self.value_wires: dict[tuple[str, str], Wire] = {}
        self._kinds: dict[str, int] = {}
        self._open: list[tuple[Any, str]] = []

    def parse(self) -> None:
        while self._ahead:
            word = self._take()
            if word in ("syntax", "package", "import"):
                self._skip_statement()
            elif word == "extend":
                self._skip_block()
            elif word == "message":
                self._message(self.file.message_type.add(), "")
            elif word == "enum":
                self._enum(self.file.enum_type.add(), "")
            else:
                self._fail(word)
        for field, scope in self._open:
            self._resolve(field, scope)

    def message_names(self) -> list[str]:
        return [name for name, kind in self._kinds.items() if kind == descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE]

    def _message(self, message: Any, scope: str) -> None:
        message.name = self._take()
        path = f"{scope}.{message.name}" if scope else message.name
        self._kinds[path] = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
        self._expect("{")
        while (word := self._take()) != "}":
            if word == "message":
                self._message(message.nested_type.add(), path)
            elif word == "enum":
                self._enum(message.enum_type.add(), path)
            elif word in _LABELS:
                self._field(message.field.add(), _LABELS[word], path)
            else:
                self._fail(word)

    def _field(self, field: Any, label: int, message: str) -> None:
        kind, field.name = self._take(), self._take()
        field.label = label
        if kind in _SCALARS:
            field.type = _SCALARS[kind]
        else:
            field.type_name = kind
            self._open.append((field, message))
        self._expect("=")
        field.number = int(self._take())
        for option, value in self._options():
            if option == "default":
                field.default_value = value
            elif option == "packed":
                field.options.packed = value == "true"
            elif option == "(wire)":
                self.field_wires[message, field.name] = _parse_wire(value)
            else:
                self._fail(option)

    def _enum(self, enum: Any, scope: str) -> None:
        enum.name = self._take()
        path = f"{scope}.{enum.name}" if scope else enum.name
        self._kinds[path] = descriptor_pb2.FieldDescriptorProto.TYPE_ENUM
        self._expect("{")
        while (word := self._take()) != "}":
            value = enum.value.add(name=word)
            self._expect("=")
            value.number = int(self._take())
            for option, text in self._options():
                if option != "(wire_value)":
                    self._fail(option)
                self.value_wires[path, value.name] = _parse_wire(text)

    def _resolve(self, field: Any, scope: str) -> None:
        """Finds a type name from the innermost message outwards, as protobuf does."""
        while True:
            path = f"{scope}.{field.type_name}" if scope else field.type_name
            if path in self._kinds:
                field.type, field.type_name = self._kinds[path], f".{PACKAGE}.{path}"
                return
            if not scope:
                self._fail(field.type_name, "a known type")
            scope = scope.rpartition(".")[0]

    def _options(self) -> Iterator[tuple[str, str]]:
        if self._ahead == "[":
            self._take()
            while True:
                name = self._take()
                if name == "(":
                    name = f"({self._take()})"
                    self._expect(")")
                self._expect("=")
                yield name, self._take().strip('"')
                if (separator := self._take()) == "]":
                    break
                if separator != ",":
                    self._fail(separator)
        self._expect(";")

    def _take(self) -> str:
        token, self._ahead = self._ahead, next(self._tokens, "")
        return token

    def _expect(self, token: str) -> None:
        if (got := self._take()) != token:
            self._fail(got, token)

    def _skip_statement(self) -> None:
        while self._take() not in (";", ""):
            pass

    def _skip_block(self) -> None:
        while self._take() not in ("}", ""):
            pass

    def _fail(self, got: str, wanted: str = "a declaration") -> NoReturn:
        raise ValueError(f'caffe.proto: expected {wanted}, got "{got}" before "{self._ahead}"')


def _parse_wire(text: str) -> Wire:
    """`deeplab_v2:143 parsenet` -> {"deeplab_v2": 143, "parsenet": None}."""
    wire: dict[str, int | None] = {}
    for item in text.split():
        dialect, _, number = item.partition(":")
        wire[dialect] = int(number) if number else None
    return MappingProxyType(wire)


@cache
def load_schema() -> Schema:
    """Reads `caffe.proto` (once) into a private descriptor pool."""
    parser = _Parser(SCHEMA_PATH.read_text(encoding="utf-8"))
    parser.parse()
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(parser.file.SerializeToString())
    classes = {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in parser.message_names()
    }
    return Schema(pool, classes, parser.field_wires, parser.value_wires)


def descriptor(name: str) -> Descriptor:
    """The descriptor of a message, by its name inside the package (`ConvolutionParameter`).

    Raises:
        KeyError: the schema has no such message.
    """
    return load_schema().pool.FindMessageTypeByName(f"{PACKAGE}.{name}")


def message(name: str) -> type[Any]:
    """The class of a message, by its name inside the package (`NetParameter`).

    Raises:
        KeyError: the schema has no such message.
    """
    return load_schema().classes[name]


def field_wire(message_name: str, field_name: str) -> Wire | None:
    """Where the forks keep a field of theirs in binaries; None for a field of BVLC Caffe or of a fork-only message."""
    return load_schema().field_wires.get((message_name, field_name))


def value_wire(enum_name: str, value_name: str) -> Wire | None:
    """Which number the forks give an enum value of theirs; None for a value of BVLC Caffe.

    Args:
        enum_name: with its message, as in `V1LayerParameter.LayerType`.
        value_name: as in `INTERP`.
    """
    return load_schema().value_wires.get((enum_name, value_name))


def short_name(full_name: str) -> str:
    """`atrous.ConvolutionParameter` -> `ConvolutionParameter`."""
    return full_name.removeprefix(f"{PACKAGE}.")
