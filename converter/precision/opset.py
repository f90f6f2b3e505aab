"""Raising the opset of a deployment graph.

Types came to ONNX's operators one by one: Q/DQ with float16 scales and with float8 needs opset 19, Conv in bfloat16
needs 22. The layers this package writes keep their meaning from 17 to 22; onnx's own version converter rewrites what
changed its form, such as axes that became inputs.
"""

from __future__ import annotations

import onnx

from ...errors import PrecisionError

#: opset -> the IR version it came with
_IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10}


def read_opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model uses."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def raise_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same model in at least this opset; the model itself where it has it.

    Raises:
        PrecisionError: onnx cannot convert one of its operators.
    """
    own = read_opset(model)
    if own >= opset:
        return model
    from onnx import version_converter

    try:
        raised = version_converter.convert_version(model, opset)
    except Exception as error:  # the converter's own errors share no base class
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise PrecisionError(
            f"the graph has opset {own} and cannot be raised to {opset} ({reason}); convert the net with a higher "
            "--opset, or choose another precision"
        ) from error
    raised.ir_version = max(model.ir_version, _IR_VERSIONS.get(opset, 10))
    return raised
