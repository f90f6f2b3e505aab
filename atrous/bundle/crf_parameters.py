"""Parameters of an image's dense CRF, as a bundle carries them and `runtime.crf` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MaxLen

from ..errors import CrfInputError

Mode = Literal["deeplab", "pydensecrf"]
Normalization = Literal["none", "before", "after", "symmetric"]

#: Normalization of the filters in each mode. DeepLab's own programs divide after filtering; pydensecrf's default splits
#: the division before and after. On one photo the two differ in 1.2 % of the labels.
NORMALIZATION_OF_MODE: dict[str, Normalization] = {"deeplab": "after", "pydensecrf": "symmetric"}
MAX_ITERATIONS = 1000
MAX_TERMS = 16

_Sigma = Annotated[float, Gt(0)]
#: pydantic reads these dataclasses as sections of the manifest, as strictly as the others
_STRICT = {"strict": True, "extra": "forbid", "allow_inf_nan": False}


def _set_plain(parameters: Any) -> None:
    """Replace NumPy's numbers and arrays, which neither compare nor serialize, by Python's; lists by tuples."""
    for field in fields(parameters):
        object.__setattr__(parameters, field.name, _to_plain(getattr(parameters, field.name)))


def _to_plain(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(map(_to_plain, value)) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class GaussianTerm:
    """The kernel exp(-|position difference|^2 / (2 sxy^2)), times `weight`.

    Attributes:
        sxy: standard deviation in pixels, one number or (x, y).
        weight: how strongly equal labels of near pixels attract; positive smooths.
    """

    __pydantic_config__ = _STRICT

    sxy: _Sigma | tuple[_Sigma, _Sigma] = 3.0
    weight: float = 3.0

    def __post_init__(self) -> None:
        _set_plain(self)


@dataclass(frozen=True)
class BilateralTerm:
    """As `GaussianTerm`, times exp(-|color difference|^2 / (2 srgb^2)).

    Attributes:
        sxy: standard deviation in pixels, one number or (x, y).
        srgb: standard deviation in gray levels (0 to 255), one number or one per channel.
        weight: how strongly equal labels of near, similar pixels attract; positive smooths.
    """

    __pydantic_config__ = _STRICT

    sxy: _Sigma | tuple[_Sigma, _Sigma] = 121.0
    srgb: _Sigma | tuple[_Sigma, ...] = 5.0
    weight: float = 4.0

    def __post_init__(self) -> None:
        _set_plain(self)


@dataclass(frozen=True)
class CrfParameters:
    """Everything `dense_crf` needs besides the image and the network's output.

    The defaults are the released settings of DeepLab-LargeFOV.

    Attributes:
        mode: "deeplab" (normalize after filtering, as DeepLab's own programs) or "pydensecrf" (symmetric).
        iterations: mean-field updates; a bundle may ask for at most 1000.
        gaussian: terms of position alone; a bundle has at most 16.
        bilateral: terms of position and color; a bundle has at most 16.
    """

    __pydantic_config__ = _STRICT

    mode: Mode = "deeplab"
    iterations: Annotated[int, Ge(0), Le(MAX_ITERATIONS)] = 10
    gaussian: Annotated[tuple[GaussianTerm, ...], MaxLen(MAX_TERMS)] = (GaussianTerm(),)
    bilateral: Annotated[tuple[BilateralTerm, ...], MaxLen(MAX_TERMS)] = (BilateralTerm(),)

    def __post_init__(self) -> None:
        _set_plain(self)
        if not isinstance(self.mode, str) or self.mode not in NORMALIZATION_OF_MODE:
            raise CrfInputError(f'CRF mode "{self.mode}" is unknown: use "deeplab" or "pydensecrf"')
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 0:
            raise CrfInputError(f"CRF iterations must be an integer of at least 0, got {self.iterations!r}")
        for name, kind in (("gaussian", GaussianTerm), ("bilateral", BilateralTerm)):
            terms = getattr(self, name)
            if not isinstance(terms, tuple) or not all(isinstance(term, kind) for term in terms):
                raise CrfInputError(f"CRF {name} must be a tuple of {kind.__name__}, or () for none, got {terms!r}")

    @property
    def normalization(self) -> Normalization:
        """The normalization of every term."""
        return NORMALIZATION_OF_MODE[self.mode]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data: {"mode", "iterations", "gaussian": [{"sxy", "weight"}], "bilateral": [...]}."""
        from pydantic import TypeAdapter

        data: dict[str, Any] = TypeAdapter(CrfParameters).dump_python(self, mode="json")
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CrfParameters:
        """The inverse of `to_dict`.

        Raises:
            CrfInputError: a key is missing or unknown, or a value has the wrong type or range.
        """
        from pydantic import TypeAdapter, ValidationError

        from .section import describe_fault

        _require_keys(data, cls)
        for term in _terms(data, "gaussian"):
            _require_keys(term, GaussianTerm)
        for term in _terms(data, "bilateral"):
            _require_keys(term, BilateralTerm)
        try:
            return TypeAdapter(cls).validate_python(data, strict=False)
        except ValidationError as error:
            raise CrfInputError(f"CRF parameters: {describe_fault(error)}") from None


def _terms(data: Any, name: str) -> Any:
    terms = data.get(name, ()) if isinstance(data, Mapping) else ()
    return terms if isinstance(terms, (list, tuple)) else ()


def _require_keys(data: Any, kind: type[Any]) -> None:
    expected = sorted(field.name for field in fields(kind))
    got = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
    if got != expected:
        raise CrfInputError(f"{kind.__name__} must have exactly the keys {expected}, got {got}")
