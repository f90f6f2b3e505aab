"""A net as plain V2 text, for readers without phase rules, V0 and V1 syntax or `hole`.

The text has one `Input` layer per external blob, then the layers that run. Every version of a blob has its own name, so
no layer runs in place; a layer is named after its first top and has its own copy of shared weights. `hole` becomes
`dilation`, a depthwise type becomes Convolution with groups, and fork fields with BVLC's default are dropped; other
fork layers keep their types and fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format

from atrous.converter.dialects.downgrade import downgrade_layer
from atrous.converter.files.writer import write_caffemodel
from atrous.converter.graph.net import Blob, Layer, Net
from atrous.converter.layers.pooling import Pooling
from atrous.proto import schema

_DEPTHWISE = ("ConvolutionDepthwise", "DepthwiseConvolution")


def plain_name(blob: Blob) -> str:
    """The name of a blob version in the plain text: the input's name, or `<attribute>#<top>`."""
    return blob.name if blob.producer is None else f"{blob.producer.attribute}#{blob.top_index}"


def outer_blobs(layers: Sequence[Layer]) -> list[Blob]:
    """The external blobs: read by these layers, but written by none of them."""
    made = {top for layer in layers for top in layer.tops}
    read = dict.fromkeys(blob for layer in layers for blob in layer.bottoms)
    return [blob for blob in read if blob not in made]


def plain_text(net: Net, layers: Sequence[Layer]) -> str:
    """These layers of a net as V2 text at the net's sizes; external blobs become inputs."""
    message = schema.message("NetParameter")(name=net.name)
    for blob in outer_blobs(layers):
        source = message.layer.add(name=plain_name(blob), type="Input", top=[plain_name(blob)])
        source.input_param.shape.add(dim=blob.shape)
    for layer in layers:
        plain = downgrade_layer(layer.message, "V2", net.dialect)
        for field in ("include", "exclude", "phase", "param", "blobs", "bottom", "top"):
            plain.ClearField(field)
        plain.name = plain_name(layer.tops[0])
        plain.bottom.extend(map(plain_name, layer.bottoms))
        plain.top.extend(map(plain_name, layer.tops))
        if layer.type in _DEPTHWISE:
            plain.type = "Convolution"
            plain.convolution_param.group = layer.bottoms[0].shape[1]
        if isinstance(layer.operator, Pooling) and layer.operator.rounds_up:
            plain.pooling_param.ClearField("round_mode")
            plain.pooling_param.ClearField("ceil_mode")
        message.layer.append(plain)
    return str(text_format.MessageToString(message))


def write_plain_weights(net: Net, layers: Sequence[Layer], path: Path) -> bool:
    """Write the parameters for :func:`plain_text`; return False and write no file if there are none."""
    rows = [
        (
            plain_name(layer.tops[0]),
            layer.type,
            [
                net.parameters[key].reshape(shape)
                for key, shape in zip(layer.parameters, layer.operator.weight_shapes(), strict=True)
            ],
        )
        for layer in layers
        if layer.parameters
    ]
    if not rows or not net.parameters:
        return False
    write_caffemodel(path, net.name or "net", rows, format="V2", dialect="bvlc")
    return True
