"""Cuts a net off after chosen blobs: keeps the layers and inputs that they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
