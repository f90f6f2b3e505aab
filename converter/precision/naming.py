"""Layers of a graph by the names of its nodes, which `OnnxGraph` writes as `<layer>/<operator>/node`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from ...errors import PrecisionError


def layer_of(node: str) -> str:
    """The layer a node belongs to; `graph` for the preprocessing, `head` for the head."""
    parts = node.rsplit("/", 2)
    return parts[0] if len(parts) == 3 else node


def find_nodes(wanted: Sequence[str], nodes: Iterable[str]) -> dict[str, str]:
    """The nodes that names of nodes or layers stand for: node -> the name that meant it.

    Raises:
        PrecisionError: for the first name that is neither, with names like it.
    """
    known = list(nodes)
    layers = {layer_of(node) for node in known}
    found: dict[str, str] = {}
    for name in wanted:
        meant = [node for node in known if name in (node, layer_of(node))]
        if not meant:
            near = get_close_matches(name, [*layers, *known], n=3)
            hint = f"; there is {', '.join(near)}" if near else f"; its layers are {', '.join(sorted(layers)[:12])}"
            raise PrecisionError(f'the graph has no layer and no node "{name}"{hint}')
        found |= dict.fromkeys(meant, name)
    return found
