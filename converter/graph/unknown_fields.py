"""Treatment of fields that the schema lacks, by the role of their layer.

1. A layer that becomes an input or is dropped: ignored, with a warning.
2. A layer of a plug-in, or of a type without a conversion: kept; `context.message` has them.
3. A layer of atrous: settings that change no result (`dialects.inert`), and those of `param` and fillers, are ignored,
   with a warning; with any other field, which may change the result, it is a layer without a conversion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..dialects.inert import is_inert
from ..files.prototxt import Prototxt, shorten_list
from ..files.text_tree import ExtendedMessage, UnknownField
from ..layers import Operator, find_operator, registered_name
from .definition import LayerEntry


def layer_messages(prototxt: Prototxt) -> list[Any]:
    """The LayerParameter of each layer, with its unknown fields."""
    return [
        ExtendedMessage(message, prototxt.unknown[index]) if index in prototxt.unknown else message
        for index, message in enumerate(prototxt.net.layer)
    ]


def settle_fields(messages: Iterable[Any], running: Sequence[LayerEntry]) -> tuple[list[LayerEntry], list[str]]:
    """Apply the rules: the entries that run, and warnings.

    Args:
        messages: of all layers of the file, from :func:`layer_messages`.
        running: the layers that run, of these messages.
    """
    kept = {id(entry.message) for entry in running}
    unused = [
        field
        for message in messages
        if isinstance(message, ExtendedMessage) and id(message) not in kept
        for field in message.unknown_fields
    ]
    settled: list[LayerEntry] = []
    inert: list[UnknownField] = []
    for entry in running:
        message = entry.message
        if isinstance(message, ExtendedMessage) and _is_own(message):
            error = next((field.make_error() for field in message.unknown_fields if not _is_inert(field)), None)
            inert += message.unknown_fields if error is None else ()
            entry = replace(entry, message=message.message, unsupported=str(error) if error else None, error=error)
        settled.append(entry)
    warnings = []
    if unused:
        warnings.append(f"ignoring unknown fields of layers that are not converted: {shorten_list(unused)}")
    if inert:
        warnings.append(f"ignoring unknown fields that change no result: {shorten_list(inert)}")
    return settled, warnings


def _is_own(message: Any) -> bool:
    """Whether atrous itself converts the layer, not a plug-in."""
    operator = find_operator(registered_name(message))
    package = Operator.__module__.rpartition(".")[0]
    return operator is not None and operator.__module__.startswith(f"{package}.")


def _is_inert(field: UnknownField) -> bool:
    is_of_training = field.path[0] == "param" or any(name.endswith("filler") for name in field.path[:-1])
    return is_of_training or any(map(is_inert, field.path))
