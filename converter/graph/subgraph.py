"""Cuts a net off after chosen blobs or a chosen layer: keeps the layers and inputs that they need."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ...errors import NetError
from .build import build_net
from .definition import LayerEntry
from .net import Blob, Layer, Net


def cut_net(net: Net, outputs: Sequence[Blob]) -> Net:
    """The part of a net that computes the given blobs of it, which become its outputs in this order.

    It is complete: it can be reshaped, converted and exported. Its layers keep their submodule names, so the whole
    net's torch module serves it too; its parameters are the same arrays.
    """
    needed: set[Blob | Layer] = set()
    waiting = list(outputs)
    while waiting:
        blob = waiting.pop()
        if blob.producer is None:
            needed.add(blob)
        elif blob.producer not in needed:
            needed.add(blob.producer)
            waiting.extend(blob.producer.bottoms)
    if needed.issuperset(net.layers) and needed.issuperset(net.inputs):
        return net if tuple(outputs) == net.outputs else replace(net, outputs=tuple(outputs))
    inputs = {blob.name: blob.shape for blob in net.inputs if blob in needed}
    layers = [layer for layer in net.layers if layer in needed]
    if len(layers) + len(inputs) == len(net.layers) + len(net.inputs):
        return replace(net, outputs=tuple(outputs))
    definition = replace(
        net.definition,
        entries=tuple(LayerEntry(layer.message, layer.line, layer.attribute) for layer in layers),
        input_tops=tuple(top for top in net.definition.input_tops if top.top in inputs),
    )
    cut = build_net(definition, inputs)
    pairs = list(zip(layers, cut.layers, strict=True))
    twins = {old: new for a, b in pairs for old, new in zip(a.tops, b.tops, strict=True)}
    given = {blob.name: blob for blob in cut.inputs}
    twins |= {blob: given[blob.name] for blob in net.inputs if blob.name in given}
    keys = {old: new for a, b in pairs for old, new in zip(a.parameters, b.parameters, strict=True)}
    return replace(
        cut,
        outputs=tuple(twins[blob] for blob in outputs),
        parameters={new: net.parameters[old] for old, new in keys.items() if old in net.parameters},
    )


def choose_outputs(net: Net, *, until: str | None = None, outputs: Sequence[str] = ()) -> Net:
    """The part of a net up to a layer, or that computes the blobs of these names.

    Args:
        net: the net; layers without a conversion may be missing (`read_net(..., tolerant=True)`).
        until: name of the last layer; of several layers of this name, the last one.
        outputs: names of blobs, which become the outputs in this order; the last version of each.

    Raises:
        NetError: there is no such layer or blob, or it needs a layer without a conversion.
    """
    blobs: list[Blob] = []
    if until is not None:
        layer = next((layer for layer in reversed(net.layers) if layer.name == until), None)
        if layer is None:
            raise NetError(f'there is no layer "{until}"{_explain(net, until, (layer.name for layer in net.layers))}')
        blobs += layer.tops
    last = {blob.name: blob for layer in net.layers for blob in layer.tops}
    for name in outputs:
        if name not in last:
            raise NetError(f'no layer writes the blob "{name}"{_explain(net, name, last)}')
        if last[name] not in blobs:
            blobs.append(last[name])
    return replace(cut_net(net, blobs), warnings=net.warnings) if blobs else net


def _explain(net: Net, name: str, known: Iterable[str]) -> str:
    """The end of an error about a name: why it is missing, or the most similar one."""
    missing = next(
        (layer for layer in net.definition.entries if name in (layer.message.name, *layer.message.top)), None
    )
    dropped = next((layer for layer in net.dropped if missing is not None and layer.name == missing.message.name), None)
    if dropped is not None:
        return f': layer "{dropped.name}" ({dropped.type}) {dropped.reason}'
    near = difflib.get_close_matches(name, list(known), 1)
    return f'; did you mean "{near[0]}"?' if near else "; `atrous inspect` lists the layers"
