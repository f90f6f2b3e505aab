"""Prototxt text, layer by layer, in V1 or V2 syntax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

Syntax = Literal["V1", "V2"]
Value = int | bool | str
Fields = Mapping[str, Value]

#: V2 type name -> V1 type name
_V1_NAMES = {
    "Convolution": "CONVOLUTION",
    "Dropout": "DROPOUT",
    "Eltwise": "ELTWISE",
    "Interp": "INTERP",
    "Padding": "PADDING",
    "Pooling": "POOLING",
    "ReLU": "RELU",
}


class Head(NamedTuple):
    """The classifier at the end of a net."""

    experiment: str  # part of the layer's name, such as voc12 in fc8_voc12
    labels: int  # number of classes


class NetText:
    """Builds a prototxt; `str(net)` is the text of the file.

    Args:
        name: the net's name.
        syntax: V1 writes `layers { type: CONVOLUTION hole: 2 }`, V2 `layer { type: "Convolution" dilation: 2 }`.
        size: height and width of the input `data` (1 x 3 x size x size, BGR, mean subtracted).
    """

    def __init__(self, name: str, syntax: Syntax, size: int) -> None:
        self.syntax = syntax
        self._lines = [f'name: "{name}"', 'input: "data"']
        self._lines += [f"input_dim: {extent}" for extent in (1, 3, size, size)]

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"

    def add(
        self,
        kind: str,
        name: str,
        bottoms: str | Sequence[str],
        top: str | None = None,
        *,
        shared: Sequence[str] = (),
        strict_dim: bool = True,
        **parameters: Fields,
    ) -> str:
        """Add a layer.

        Args:
            kind: the V2 name of its type.
            name: the layer's name.
            bottoms: names of its bottoms.
            top: name of its top; the layer's name by default.
            shared: names of its shared parameters (V2).
            strict_dim: False accepts weights of any shape with the same count (V1).
            parameters: parameter messages by field name.

        Returns:
            The name of the top.
        """
        top = name if top is None else top
        type_line = f"type: {_V1_NAMES[kind]}" if self.syntax == "V1" else f'type: "{kind}"'
        lines = [f'name: "{name}"', type_line]
        lines += [f'bottom: "{bottom}"' for bottom in ([bottoms] if isinstance(bottoms, str) else bottoms)]
        lines.append(f'top: "{top}"')
        if self.syntax == "V1" and not strict_dim:
            lines.append("strict_dim: false")
        lines += [f'param {{ name: "{owner}" }}' for owner in shared]
        for message, fields in parameters.items():
            written = " ".join(
                f"{field}: {str(value).lower() if isinstance(value, bool) else value}"
                for field, value in fields.items()
            )
            lines.append(f"{message} {{ {written} }}")
        self._lines += ["layer {" if self.syntax == "V2" else "layers {", *(f"  {line}" for line in lines), "}"]
        return top

    def add_convolution(
        self,
        name: str,
        bottom: str,
        outputs: int,
        kernel: int,
        *,
        pad: int = 0,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
        shared: Sequence[str] = (),
        strict_dim: bool = True,
    ) -> str:
        """Add a convolution; its dilation is the field `hole` in V1."""
        fields: dict[str, Value] = {"num_output": outputs, "kernel_size": kernel}
        if pad:
            fields["pad"] = pad
        if stride != 1:
            fields["stride"] = stride
        if dilation != 1:
            fields["hole" if self.syntax == "V1" else "dilation"] = dilation
        if not bias:
            fields["bias_term"] = False
        return self.add("Convolution", name, bottom, shared=shared, strict_dim=strict_dim, convolution_param=fields)

    def add_relu(self, name: str, blob: str) -> None:
        """Add an in-place ReLU."""
        self.add("ReLU", name, blob, blob)

    def add_dropout(self, name: str, blob: str) -> None:
        """Add an in-place dropout: the identity in deployment, but part of the published nets."""
        self.add("Dropout", name, blob, blob, dropout_param={"dropout_ratio": "0.5"})

    def add_pooling(self, name: str, bottom: str, kernel: int, stride: int, method: str = "MAX") -> str:
        """Add a pooling with padding 1."""
        fields: dict[str, Value] = {"pool": method, "kernel_size": kernel, "stride": stride, "pad": 1}
        return self.add("Pooling", name, bottom, pooling_param=fields)
