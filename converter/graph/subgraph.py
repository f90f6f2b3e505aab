"""A net cut off after chosen blobs: what they need is kept, everything else goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .build import lay_out
from .net import Blob, FloatArray, Layer, Net, ParameterKey


def cut_net(net: Net, outputs: Sequence[Blob]) -> Net:
    """The part of a net that computes `outputs`.

    Args:
        net: the net.
        outputs: blobs of it, which become the outputs in this order.

    Returns:
        A net of its own: it can be reshaped, converted and exported. Its layers keep their submodule names, so that the
        whole net's torch module serves it too; its parameters are the same arrays.
    """
    needed_layers: set[int] = set()
    needed_inputs: set[str] = set()
    waiting = list(outputs)
    while waiting:
        blob = waiting.pop()
        if blob.producer is None:
            needed_inputs.add(blob.name)
        elif id(blob.producer) not in needed_layers:
            needed_layers.add(id(blob.producer))
            waiting.extend(blob.producer.bottoms)
    if len(needed_layers) == len(net.layers) and len(needed_inputs) == len(net.inputs):
        return net if tuple(outputs) == net.outputs else replace(net, outputs=tuple(outputs))
    kept = [index for index, layer in enumerate(net.layers) if id(layer) in needed_layers]
    definition = replace(
        net.definition,
        entries=tuple(replace(net.definition.entries[index], attribute=net.layers[index].attribute) for index in kept),
        input_tops=tuple(top for top in net.definition.input_tops if top.top in needed_inputs),
    )
    cut = lay_out(definition, {blob.name: blob.shape for blob in net.inputs if blob.name in needed_inputs})
    pairs = list(zip((net.layers[index] for index in kept), cut.layers, strict=True))
    return replace(
        cut,
        outputs=tuple(_same_blob(blob, pairs, cut) for blob in outputs),
        parameters=_renamed_parameters(net, pairs),
    )


def _same_blob(blob: Blob, pairs: Sequence[tuple[Layer, Layer]], cut: Net) -> Blob:
    for old, new in pairs:
        if blob.producer is old:
            return new.tops[blob.top_index]
    return next(other for other in cut.inputs if other.name == blob.name)


def _renamed_parameters(net: Net, pairs: Sequence[tuple[Layer, Layer]]) -> dict[ParameterKey, FloatArray]:
    renamed: dict[ParameterKey, FloatArray] = {}
    for old, new in pairs:
        for old_key, new_key in zip(old.parameters, new.parameters, strict=True):
            if old_key in net.parameters:
                renamed[new_key] = net.parameters[old_key]
    return renamed
