"""Message classes of `caffe.proto`, built from its compiled descriptor set `caffe.pb`.

The classes live in a private descriptor pool. No generated module is imported and the default pool stays untouched, so
an installed Caffe, whose own `caffe.proto` would collide there, can live in the same process.

`make schema` regenerates `caffe.pb` after an edit of `caffe.proto`; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor

DESCRIPTOR_SET_PATH = Path(__file__).with_name("caffe.pb")
PACKAGE = "atrous"

Wire = MappingProxyType[str, "int | None"]
"""Dialect -> number in that dialect's binaries; None if only its text files use the name."""


class Schema(NamedTuple):
    """The loaded schema.

    Attributes:
        pool: the private pool of the descriptors.
        classes: message -> its class. All classes are made at once and kept: protobuf before 4.25 crashes on a class
            that was garbage-collected while its parent's was in use.
        field_wires: (message, field) -> numbers of a field that forks added.
        value_wires: (enum, value name) -> numbers of an enum value that forks added.
    """

    pool: descriptor_pool.DescriptorPool
    classes: dict[str, type[Any]]
    field_wires: dict[tuple[str, str], Wire]
    value_wires: dict[tuple[str, str], Wire]


@cache
def load_schema() -> Schema:
    """Load `caffe.pb` into a private descriptor pool, once per process."""
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTOR_SET_PATH.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(descriptor_pb2.DESCRIPTOR.serialized_pb)  # the options of caffe.proto extend it
    pool.AddSerializedFile(file.SerializeToString())
    messages = dict(_walk(file.message_type))
    found = {name: pool.FindMessageTypeByName(f"{PACKAGE}.{name}") for name in messages}
    classes = {name: message_factory.GetMessageClass(descriptor) for name, descriptor in found.items()}
    scopes = {f"{name}.": message for name, message in messages.items()} | {"": file}
    enums = {f"{scope}{enum.name}": enum for scope, holder in scopes.items() for enum in holder.enum_type}
    options_class = classes["WireOptions"]
    field_wires = {
        (name, field.name): wire
        for name, message in messages.items()
        for field in message.field
        if field.HasField("options") and (wire := _read_wire(field.options, options_class))
    }
    value_wires = {
        (name, value.name): wire
        for name, enum in enums.items()
        for value in enum.value
        if value.HasField("options") and (wire := _read_wire(value.options, options_class))
    }
    return Schema(pool, classes, field_wires, value_wires)


def _walk(messages: Iterable[Any], scope: str = "") -> Iterator[tuple[str, Any]]:
    """Messages and the messages nested in them, each with its name inside the package."""
    for message in messages:
        yield f"{scope}{message.name}", message
        yield from _walk(message.nested_type, f"{scope}{message.name}.")


def _read_wire(options: Any, options_class: type[Any]) -> Wire:
    """The `(wire)` or `(wire_value)` option: `deeplab_v2:143 parsenet` -> {"deeplab_v2": 143, "parsenet": None}."""
    parsed = options_class.FromString(options.SerializeToString())
    items = (item.partition(":") for item in (parsed.wire or parsed.wire_value).split())
    return MappingProxyType({dialect: int(number) if number else None for dialect, _, number in items})


def descriptor(name: str) -> Descriptor:
    """The descriptor of a message by its name inside the package (`ConvolutionParameter`); KeyError if unknown."""
    return load_schema().pool.FindMessageTypeByName(f"{PACKAGE}.{name}")


def message(name: str) -> type[Any]:
    """The class of a message by its name inside the package (`NetParameter`); KeyError if unknown."""
    return load_schema().classes[name]


def field_wire(message_name: str, field_name: str) -> Wire | None:
    """Field numbers in the binaries of the forks that added a field; None for BVLC fields and fork-only messages."""
    return load_schema().field_wires.get((message_name, field_name))


def value_wire(enum_name: str, value_name: str) -> Wire | None:
    """The same for an enum value; `enum_name` includes its message, as in `V1LayerParameter.LayerType`."""
    return load_schema().value_wires.get((enum_name, value_name))


def short_name(full_name: str) -> str:
    """`atrous.ConvolutionParameter` -> `ConvolutionParameter`."""
    return full_name.removeprefix(f"{PACKAGE}.")
