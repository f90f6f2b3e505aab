"""Inspector JSON in the schemas that TensorRT writes, for a VGG-like net of three products.

The forms: 8.x, from NVIDIA's developer guide (8.2 to 8.6, "Engine Inspector") and issues NVIDIA/TensorRT#2418 and
#4020: "Format/Datatype" is a sentence, fused names are joined by " + ", "Bindings" are names. 10.x: types are names
("Half"), Myelin's layers are "kgen" or "gemm" with "Metadata" such as "[ONNX Layer: x]", several joined by 0x1F.
Myelin's INT8 form, from the layers that TensorRT-RTX 1.7.1 lists after building a quantized net: a convolution is a
"correlation", or a "runtime_fusion" with "Corr" in its name; it reads Int8 and writes Float, and a "kgen" kernel that
names the same node scales the result.
11, from its migration guide ("Migrating IEngineInspector Usage from TensorRT 10.x to 11.x"): "I/O Tensors" are
objects with "IOMode", "DataType" and "ProfileInfo", and a layer's tensors have "Format" and "Datatype" apart.
"""

from __future__ import annotations

from typing import Any

HALF_8 = "Channel major FP16 format where channel % 8 == 0"
FLOAT_8 = "Row major linear FP32"
INT8_8 = "Thirty-two wide channel vectorized row major Int8 format"


def tensor_8(name: str, text: str) -> dict[str, Any]:
    return {"Name": name, "Location": "Device", "Dimensions": [1, 64, 65, 65], "Format/Datatype": text}


def make_8(conv: str = HALF_8, tactic: str = "sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16") -> dict[str, Any]:
    """An 8.x engine: a reformat, two fused convolutions, a pooling."""

    def convolution(name: str, text: str, kernel: str) -> dict[str, Any]:
        return {
            "Name": name,
            "LayerType": "CaskConvolution",
            "Inputs": [tensor_8("in", text)],
            "Outputs": [tensor_8("out", text)],
            "ParameterType": "Convolution",
            "Kernel": [3, 3],
            "PaddingMode": "kEXPLICIT_ROUND_DOWN",
            "Dilation": [12, 12],
            "Weights": {"Type": "Half", "Count": 36864},
            "Bias": {"Type": "Half", "Count": 64},
            "TacticName": kernel,
            "TacticValue": "0x82ff1c5fb1ba4ce0",
        }

    return {
        "Layers": [
            {
                "Name": "Reformatting CopyNode for Input Tensor 0 to conv1 + relu1",
                "LayerType": "Reformat",
                "Inputs": [tensor_8("data", FLOAT_8)],
                "Outputs": [tensor_8("Reformatted Input Tensor 0 to conv1 + relu1", conv)],
                "ParameterType": "Reformat",
                "Origin": "REFORMAT",
                "TacticValue": "0x0",
            },
            convolution("conv1 + relu1", conv, tactic),
            {
                "Name": "pool1",
                "LayerType": "CaskPooling",
                "Inputs": [tensor_8("relu1", HALF_8)],
                "Outputs": [tensor_8("pool1", HALF_8)],
                "ParameterType": "Pooling",
                "PoolingType": "MAX",
                "TacticName": "sm50_xmma_pooling_max_nhwc_fp16",
            },
            convolution("conv2", HALF_8, "sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16"),
        ],
        "Bindings": ["data", "scores"],
    }


def make_10(first: str = "Half", second: str = "Half") -> dict[str, Any]:
    """A 10.x engine: Myelin's layers, with their nodes in the metadata."""

    def layer(name: str, kind: str, type_name: str, metadata: str) -> dict[str, Any]:
        tensor = {"Name": "t", "Dimensions": [1, 64, 65, 65], "Format/Datatype": type_name}
        return {
            "Name": name,
            "LayerType": kind,
            "Inputs": [tensor],
            "Outputs": [tensor],
            "TacticName": "sm90_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc",
            "StreamId": 0,
            "Metadata": metadata,
        }

    return {
        "Layers": [
            layer("__myl_Cast_myl0_0", "kgen", "Half", "[ONNX Layer: to_half]"),
            layer("__myl_ConvRelu_myl0_1", "conv", first, "[ONNX Layer: conv1]\x1f[ONNX Layer: relu1]"),
            layer("__myl_Conv_myl0_2", "gemm", second, "[ONNX Layer: conv2]"),
        ],
        "Bindings": ["data", "scores"],
    }


def make_11(first: str = "Half", key: str = "Datatype") -> dict[str, Any]:
    """An 11 engine: the same, with the type in a separate key."""
    account = make_10(first)
    for layer in account["Layers"]:
        for end in ("Inputs", "Outputs"):
            layer[end] = [
                {
                    "Name": "t",
                    "Dimensions": [1, 64, 65, 65],
                    "Format": "Channel major format",
                    key: t["Format/Datatype"],
                }
                for t in layer[end]
            ]
    del account["Bindings"]
    shape = {"MinShape": [1, 3, 33, 33], "OptShape": [1, 3, 33, 33], "MaxShape": [1, 3, 33, 33]}
    account["I/O Tensors"] = [
        {
            "Name": name,
            "IOMode": mode,
            "DataType": "Float",
            "Dimensions": [1, 3, 33, 33],
            "Location": "Device",
            "IsShapeInferenceIO": False,
            "ProfileInfo": [{**shape, "Format": "Row major linear FP32 format (kLINEAR)"}],
        }
        for name, mode in (("data", "Input"), ("scores", "Output"))
    ]
    return account


def make_myelin(product: str = "Int8", epilogue: str = "Float") -> dict[str, Any]:
    """An INT8 engine by Myelin: quantize, conv1 in Int8 with its epilogue kernel, conv2 in Float."""

    def layer(name: str, kind: str, given: str, made: str, nodes: tuple[str, ...]) -> dict[str, Any]:
        def tensors(type_name: str) -> list[dict[str, Any]]:
            return [
                {"Name": "t", "Dimensions": [-1, 16, -1, -1], "Format": "Channel major format", "Datatype": type_name}
            ]

        metadata = "\x1f".join(f"[ONNX Layer: {node}]" for node in nodes)
        return {
            "Name": name,
            "LayerType": kind,
            "Inputs": tensors(given),
            "Outputs": tensors(made),
            "TacticName": "__myelin_CASK_STUB" if kind == "correlation" else "",
            "StreamId": 0,
            "Metadata": metadata,
        }

    return {
        "Layers": [
            layer("__mye2568_0_myl0_0", "shape_call", "", "", ()),
            layer("__myl_MulMinMaxRounCast_myl0_1", "kgen", "Float", "Int8", ("q", "dq")),
            layer("conv1_myl0_2", "correlation", product, "Float", ("conv1",)),
            layer("__myl_MulAddReluMulMinMaxRounCast_myl0_3", "kgen", epilogue, "Float", ("conv1", "relu1")),
            layer("__myl_CorrAdd_myl0_4", "runtime_fusion", "Float", "Float", ("conv2", "out")),
        ],
        "I/O Tensors": [{"Name": "data", "DataType": "Float"}, {"Name": "scores", "DataType": "Float"}],
    }
