"""Fields of a prototxt that the schema lacks, kept as a plain tree.

The text parser keeps them inside layers, because a fork's layer usually has a message of its own. `graph.select` then
decides by the layer's role: a plug-in reads them, layers that are not converted lose them with a warning, and a
converted layer rejects them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import PrototxtError


class TextTree(Mapping[str, Any]):
    """A message of unknown type: `tree.degrees`, `tree["degrees"]` or `tree.get("degrees", 90)`.

    Numbers are int or float, `true` and `false` bool, strings and enum names str, messages trees. A field given several
    times is a list; `tree.all("dim")` is a list in any case.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[Any]] = {}

    def add(self, name: str, value: Any) -> None:
        """Append a value of a field."""
        self._values.setdefault(name, []).append(value)

    def all(self, name: str) -> list[Any]:
        """Every value of a field; empty if it is absent."""
        return list(self._values.get(name, ()))

    def HasField(self, name: str) -> bool:  # noqa: N802 - as protobuf messages call it
        """Whether the field is present."""
        return name in self._values

    def __getitem__(self, name: str) -> Any:
        values = self._values[name]
        return values[0] if len(values) == 1 else list(values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(f'the message has no field "{name}"; it has: {", ".join(self._values) or "none"}')
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"TextTree({dict(self)})"


@dataclass(frozen=True, eq=False)
class UnknownField:
    """A field, or a value of an enum, that the schema lacks."""

    entry: int  # index of its layer
    path: tuple[str, ...]  # from the layer on, such as ("batch_norm_param", "engine")
    value: Any  # a TextTree for a message
    line: int  # 1-based
    make_error: Callable[[], PrototxtError]  # the error to raise if the field counts

    def __str__(self) -> str:
        return f"{'.'.join(self.path)} (line {self.line})"


def without_unknown(message: Any) -> Any:
    """The protobuf message inside an ExtendedMessage; others are returned as they are."""
    return message.message if isinstance(message, ExtendedMessage) else message


class ExtendedMessage:
    """A protobuf message with unknown fields, which are read like its own."""

    def __init__(self, message: Any, fields: Iterable[UnknownField], depth: int = 0) -> None:
        self.message = message
        self.unknown_fields = tuple(fields)
        self._depth = depth
        self._own = TextTree()
        for field in self.unknown_fields:
            if len(field.path) == depth + 1:
                for value in field.value if isinstance(field.value, list) else [field.value]:
                    self._own.add(field.path[depth], value)

    def HasField(self, name: str) -> bool:  # noqa: N802 - as protobuf messages call it
        """Whether a field is present, of the schema or not."""
        return name in self._own or (name in self.message.DESCRIPTOR.fields_by_name and self.message.HasField(name))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._own:
            return self._own[name]
        value = getattr(self.message, name)
        inner = [field for field in self.unknown_fields if field.path[self._depth] == name]
        return ExtendedMessage(value, inner, self._depth + 1) if inner and hasattr(value, "DESCRIPTOR") else value
