"""Downgrade of V2 layers to V1, the reverse of `upgrade`, for writing V1 weights.

1. CamelCase types become enum names; types without one are rejected.
2. `param { }` entries become param, blob_share_mode, blobs_lr, weight_decay.
3. A V1 convolution has one number per parameter: two kernel sizes become kernel_h and kernel_w.
4. `dilation` becomes `hole` in the dialect that has it; V1 files of other dialects have no dilation.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ...errors import CaffemodelError
from ...proto import schema
from .known import find_dialect
from .upgrade import assign, camel_case, v1_type_names

_COMMON = ("name", "type", "param", "blobs", "phase", "propagate_down")


@cache
def _v1_types() -> dict[str, int]:
    return {camel_case(name): number for number, name in v1_type_names().items() if name != "NONE"}


def downgrade_layer(layer: Any, file_format: str, dialect: str) -> Any:
    """A copy of a layer for "V1" (a V1LayerParameter) or "V2" files (with `hole` as `dilation`).

    Raises CaffemodelError if the format cannot express the layer.
    """
    adapted = type(layer)()
    adapted.CopyFrom(layer)
    if adapted.HasField("convolution_param"):
        _adapt_convolution(adapted.convolution_param, layer.name, file_format, dialect)
    return adapted if file_format == "V2" else _to_v1(adapted)


def _adapt_convolution(param: Any, name: str, file_format: str, dialect: str) -> None:
    if file_format == "V2":
        holes = [param.hole_h, param.hole_w] if param.HasField("hole_h") else [param.hole]
        if param.HasField("hole_h") or param.HasField("hole"):
            if param.dilation:
                raise CaffemodelError(f'layer "{name}" has both hole and dilation; keep dilation')
            param.dilation.extend(holes)
            for field in ("hole", "hole_h", "hole_w"):
                param.ClearField(field)
        return
    if not find_dialect(dialect).has_hole and (param.dilation or param.HasField("force_nd_im2col")):
        raise CaffemodelError(
            f'layer "{name}" has dilation or force_nd_im2col, which V1 files of {dialect} cannot express: write V2'
        )
    if param.dilation:
        if len(param.dilation) > 2:
            raise CaffemodelError(f'layer "{name}" has {len(param.dilation)} dilations; V1 has two axes')
        if len(param.dilation) == 1:
            param.hole = param.dilation[0]
        else:
            param.hole_h, param.hole_w = param.dilation
        param.ClearField("dilation")
    for field, pair in (("kernel_size", "kernel"), ("stride", "stride"), ("pad", "pad")):
        values = list(getattr(param, field))
        if len(values) > 2:
            raise CaffemodelError(f'layer "{name}" has {len(values)} values of {field}; V1 has two axes')
        if len(values) == 2:
            param.ClearField(field)
            setattr(param, f"{pair}_h", values[0])
            setattr(param, f"{pair}_w", values[1])


def _to_v1(layer: Any) -> Any:
    old = schema.message("V1LayerParameter")()
    old.name = layer.name
    if layer.type not in _v1_types():
        raise CaffemodelError(
            f'layer "{layer.name}" has the type "{layer.type}", which V1 files cannot express: write V2'
        )
    old.type = _v1_types()[layer.type]
    for field, value in layer.ListFields():
        if field.name in _COMMON:
            continue
        if field.name not in old.DESCRIPTOR.fields_by_name:
            raise CaffemodelError(f'layer "{layer.name}" has {field.name}, which V1 files cannot express: write V2')
        assign(old, field.name, value)
    _to_v1_params(layer.param, old)
    return old


def _to_v1_params(specs: Any, old: Any) -> None:
    """Rule 2; a list is written for all entries, or not at all if no entry sets it."""
    if any(spec.HasField("name") for spec in specs):
        old.param.extend(spec.name for spec in specs)
    if any(spec.HasField("share_mode") for spec in specs):
        old.blob_share_mode.extend(spec.share_mode for spec in specs)
    if any(spec.HasField("lr_mult") for spec in specs):
        old.blobs_lr.extend(spec.lr_mult for spec in specs)
    if any(spec.HasField("decay_mult") for spec in specs):
        old.weight_decay.extend(spec.decay_mult for spec in specs)
