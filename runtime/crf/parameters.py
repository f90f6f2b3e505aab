"""The parameters of an image's dense CRF, as a bundle carries them: plain frozen data, to and from a dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from ..errors import CrfInputError
from .checks import check_iterations

Mode = Literal["deeplab", "pydensecrf"]
Normalization = Literal["none", "before", "after", "symmetric"]

#: How a mode normalises its filters. DeepLab's own programs divide after filtering; pydensecrf's default splits the
#: division before and after. On one photo the two differ in 1.2 % of the labels.
NORMALIZATION_OF_MODE: dict[str, Normalization] = {"deeplab": "after", "pydensecrf": "symmetric"}


@dataclass(frozen=True)
class GaussianTerm:
    """The kernel exp(-|position difference|^2 / (2 sxy^2)), times `weight`.

    Attributes:
        sxy: standard deviation in pixels, one number or (x, y).
        weight: how strongly equal labels of near pixels attract; positive smooths.
    """

    sxy: float | tuple[float, float] = 3.0
    weight: float = 3.0


@dataclass(frozen=True)
class BilateralTerm:
    """As `GaussianTerm`, times exp(-|colour difference|^2 / (2 srgb^2)).

    Attributes:
        sxy: standard deviation in pixels, one number or (x, y).
        srgb: standard deviation in grey levels (0 to 255), one number or one per channel.
        weight: how strongly equal labels of near, similar pixels attract; positive smooths.
    """

    sxy: float | tuple[float, float] = 121.0
    srgb: float | tuple[float, ...] = 5.0
    weight: float = 4.0


@dataclass(frozen=True)
class CrfParameters:
    """Everything `dense_crf` needs besides the image and the network's output.

    The defaults are the released settings of DeepLab-LargeFOV.

    Attributes:
        mode: "deeplab" (normalise after filtering, as DeepLab's own programs) or "pydensecrf" (symmetric).
        iterations: mean-field updates.
        gaussian: terms of position alone.
        bilateral: terms of position and colour.
    """

    mode: Mode = "deeplab"
    iterations: int = 10
    gaussian: tuple[GaussianTerm, ...] = field(default=(GaussianTerm(),))
    bilateral: tuple[BilateralTerm, ...] = field(default=(BilateralTerm(),))

    def __post_init__(self) -> None:
        if not isinstance(self.mode, str) or self.mode not in NORMALIZATION_OF_MODE:
            raise CrfInputError(f'CRF mode "{self.mode}" is unknown: use "deeplab" or "pydensecrf"')
        check_iterations(self.iterations)

    @property
    def normalization(self) -> Normalization:
        """The normalization of every term."""
        return NORMALIZATION_OF_MODE[self.mode]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data: {"mode", "iterations", "gaussian": [{"sxy", "weight"}], "bilateral": [...]}."""

        def plain(value: float | tuple[float, ...]) -> float | list[float]:
            return list(value) if isinstance(value, tuple) else value

        return {
            "mode": self.mode,
            "iterations": self.iterations,
            "gaussian": [{"sxy": plain(t.sxy), "weight": t.weight} for t in self.gaussian],
            "bilateral": [{"sxy": plain(t.sxy), "srgb": plain(t.srgb), "weight": t.weight} for t in self.bilateral],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CrfParameters:
        """The inverse of `to_dict`.

        Raises:
            CrfInputError: a key is missing or unknown, or a value has the wrong type.
        """
        _require_keys(data, cls, "CRF parameters")
        gaussian = _read_terms(data["gaussian"], GaussianTerm, "a gaussian term")
        bilateral = _read_terms(data["bilateral"], BilateralTerm, "a bilateral term")
        return cls(data["mode"], data["iterations"], gaussian, bilateral)


def _require_keys(data: Any, kind: type[Any], what: str) -> None:
    expected = sorted(entry.name for entry in fields(kind))
    got = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
    if got != expected:
        raise CrfInputError(f"{what} must have exactly the keys {expected}, got {got}")


def _read_terms(entries: Any, kind: Any, what: str) -> tuple[Any, ...]:
    if not isinstance(entries, Sequence):
        raise CrfInputError(f"CRF terms must be a list, got {type(entries).__name__}")
    terms = []
    for entry in entries:
        _require_keys(entry, kind, what)
        try:
            values = {
                key: tuple(map(float, v)) if isinstance(v, (list, tuple)) else float(v) for key, v in entry.items()
            }
        except (TypeError, ValueError):
            raise CrfInputError(f"{what} must hold numbers, or lists of numbers for sigmas, got {entry}") from None
        terms.append(kind(**values))
    return tuple(terms)
