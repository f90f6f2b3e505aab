"""Which nodes compute in the narrow type, which stay float32, and why: the named list.

The rules, in the order they are asked; the first that speaks decides:

 1. A node without float tensors has no type to choose.
 2. A node the user named stays float32.
 3. Bodies of Scan, Loop and If, and these nodes themselves, stay: their states pass through every step and gather
    rounding as they go.
 4. Grey levels minus their mean stay: 255 levels and a mean of five digits need more than 11 bits; the one rounding
    happens at the first layer.
 5. Numbers that count (pooling masks, coordinates, labels: whatever was cast from an integer, and arithmetic on
    nothing else) stay: float16 counts to 2 048 only, and an unpooling mask must name every pixel.
 6. An operator not in `NARROW` or `MOVES` stays, with the reason of `WIDE` where there is one.
 7. A node whose weights, inputs or outputs do not fit into the type stays.
 8. A node that only moves values goes with what it moves.
 9. The tail stays: from the last weighted layer on, the scores are written as float32 anyway, and rounding after the
    interpolation would make ties between classes.

What stays is cast to and from by explicit Cast nodes; Resize's roi, scales and sizes are never cast.
"""

from __future__ import annotations

#: compute in the narrow type
NARROW = frozenset(
    {
        "Conv", "ConvTranspose", "Gemm", "MatMul",
        "Relu", "LeakyRelu", "PRelu", "Elu", "Clip", "Sigmoid", "Tanh", "Abs", "Neg",
        "Add", "Sub", "Mul", "Max", "Min", "Sum",
        "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "Resize",
        "QuantizeLinear", "DequantizeLinear",
    }
)  # fmt: skip

#: only move, copy or repeat values
MOVES = frozenset(
    {
        "Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Concat", "Pad",
        "Expand", "Tile", "Gather", "DepthToSpace", "SpaceToDepth", "Compress",
    }
)  # fmt: skip

#: stay float32, whatever the range of their values
WIDE = {
    "Softmax": "a sum of exponentials over all classes",
    "LogSoftmax": "a sum of exponentials over all classes",
    "Exp": "exceeds float16 at 11.1",
    "Log": "magnifies the rounding of small numbers",
    "Pow": "leaves the range of float16 soon",
    "Sqrt": "belongs to a norm, whose squares leave the range of float16",
    "Reciprocal": "belongs to a norm, whose squares leave the range of float16",
    "Div": "divides by norms and sums that may be tiny",
    "ReduceSum": "a sum over many values",
    "ReduceMean": "a sum over many values",
    "ReduceL2": "a sum of squares",
    "ReduceSumSquare": "a sum of squares",
    "LRN": "a sum of squares, and a power",
    "BatchNormalization": "divides by a variance; fold it into the convolution before it",
    "InstanceNormalization": "divides by a variance of the image",
    "MeanVarianceNormalization": "divides by a variance of the image",
    "ArgMax": "decides by the last digit",
    "TopK": "decides by the last digit",
    "MaxRoiPool": "takes coordinates as numbers",
    "ScatterElements": "writes to places that a pooling mask names",
    "GatherElements": "reads places that a pooling mask names",
    "Cast": "changes the type itself",
    "Range": "counts",
    "ConstantOfShape": "is filled at run time",
    "Mod": "counts",
    "Floor": "counts",
    "Greater": "decides by the last digit",
}

#: hold graphs of their own
BODIES = {
    "Scan": "its state gathers rounding over the steps",
    "Loop": "its state gathers rounding over the steps",
    "If": "its branches are chosen at run time",
}

#: inputs that keep the type they have, by operator
FIXED_INPUTS = {"Resize": (1, 2, 3), "Shape": (0,), "Size": (0,)}

#: have weights; the tail begins behind the last of them
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

#: what the tail may consist of
TAIL = MOVES | {"Resize", "Softmax", "LogSoftmax", "ArgMax", "Cast"}

REASON_NAMED = "named by the user"
REASON_PIXELS = "grey levels minus their mean need more than 11 bits"
REASON_COUNTS = "counts pixels: a mask, a coordinate or a label"
REASON_TAIL = "the scores leave as float32; rounding after the interpolation would make ties"
REASON_UNKNOWN = "not on the list of operators known to be safe"
