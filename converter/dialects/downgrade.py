"""Today's layers in the form of 2014: the reverse of `upgrade`, for writing V1 weights.

1. CamelCase types become enum names; a type that V1 files cannot name is refused.
2. `param { }` entries become param, blob_share_mode, blobs_lr, weight_decay.
3. A convolution of V1 has one number a parameter: two kernel sizes become kernel_h and kernel_w.
4. DeepLab v1 says `hole` where V2 says `dilation`; the same numbers must not say `dilation` in another V1 file.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ...errors import CaffemodelError
from ...proto import schema
from .upgrade import camel_case, v1_type_names

_COMMON = ("name", "type", "param", "blobs", "phase", "propagate_down")


@cache
def _v1_types() -> dict[str, int]:
    return {camel_case(name): number for number, name in v1_type_names().items() if name != "NONE"}


def fit_age(layer: Any, version: str, dialect: str) -> Any:
    """A copy of a V2 layer as it stands in files of the given age: LayerParameter, or V1LayerParameter.

    Raises:
        CaffemodelError: files of that age cannot hold the layer.
    """
    adapted = type(layer)()
    adapted.CopyFrom(layer)
    if adapted.HasField("convolution_param"):
        _fit_convolution(adapted.convolution_param, layer.name, version, dialect)
    return adapted if version == "V2" else _to_v1(adapted)


def _fit_convolution(param: Any, name: str, version: str, dialect: str) -> None:
    if version == "V2":
        holes = _holes(param)
        if holes:
            if param.dilation:
                raise CaffemodelError(f'layer "{name}" gives hole and dilation')
            param.dilation.extend(holes)
            for field in ("hole", "hole_h", "hole_w"):
                param.ClearField(field)
        return
    if dialect != "deeplab_v1" and (param.dilation or param.HasField("force_nd_im2col")):
        raise CaffemodelError(
            f'layer "{name}" has dilation or force_nd_im2col, which V1 files other than DeepLab\'s never had'
        )
    if param.dilation:
        if len(param.dilation) > 2:
            raise CaffemodelError(f'layer "{name}" has {len(param.dilation)} dilations; V1 knows two axes')
        if len(param.dilation) == 1:
            param.hole = param.dilation[0]
        else:
            param.hole_h, param.hole_w = param.dilation
        param.ClearField("dilation")
    for field, pair in (("kernel_size", "kernel"), ("stride", "stride"), ("pad", "pad")):
        values = list(getattr(param, field))
        if len(values) > 2:
            raise CaffemodelError(f'layer "{name}" has {len(values)} values of {field}; V1 knows two axes')
        if len(values) == 2:
            param.ClearField(field)
            setattr(param, f"{pair}_h", values[0])
            setattr(param, f"{pair}_w", values[1])


def _holes(param: Any) -> list[int]:
    if param.HasField("hole_h"):
        return [param.hole_h, param.hole_w]
    return [param.hole] if param.HasField("hole") else []


def _to_v1(layer: Any) -> Any:
    old = schema.message("V1LayerParameter")()
    old.name = layer.name
    if layer.type not in _v1_types():
        raise CaffemodelError(f'layer "{layer.name}" has the type "{layer.type}", which V1 files cannot name: write V2')
    old.type = _v1_types()[layer.type]
    for field, value in layer.ListFields():
        if field.name in _COMMON:
            continue
        if field.name not in old.DESCRIPTOR.fields_by_name:
            raise CaffemodelError(f'layer "{layer.name}" has {field.name}, which V1 files cannot hold: write V2')
        target = getattr(old, field.name)
        if hasattr(target, "extend"):
            target.extend(value)
        elif hasattr(target, "CopyFrom"):
            target.CopyFrom(value)
        else:
            setattr(old, field.name, value)
    _to_v1_params(layer.param, old)
    return old


def _to_v1_params(specs: Any, old: Any) -> None:
    """Rule 2; a list is written whole or, where no entry says anything, not at all."""
    if any(spec.HasField("name") for spec in specs):
        old.param.extend(spec.name for spec in specs)
    if any(spec.HasField("share_mode") for spec in specs):
        old.blob_share_mode.extend(spec.share_mode for spec in specs)
    if any(spec.HasField("lr_mult") for spec in specs):
        old.blobs_lr.extend(spec.lr_mult for spec in specs)
    if any(spec.HasField("decay_mult") for spec in specs):
        old.weight_decay.extend(spec.decay_mult for spec in specs)
