"""The parameters of an image's dense CRF, as a bundle carries them: plain frozen data, to and from a dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ...errors import CrfInputError

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
        if self.mode not in NORMALIZATION_OF_MODE:
            raise CrfInputError(f'CRF mode "{self.mode}" is unknown: use "deeplab" or "pydensecrf"')
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 0:
            raise CrfInputError(f"CRF iterations must be an integer from 0 up, got {self.iterations!r}")

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
        _require_keys(data, {"mode", "iterations", "gaussian", "bilateral"}, "CRF parameters")
        gaussian = []
        for entry in data["gaussian"]:
            _require_keys(entry, {"sxy", "weight"}, "a gaussian term")
            gaussian.append(GaussianTerm(sxy=_sigma(entry["sxy"]), weight=float(entry["weight"])))  # type: ignore[arg-type]
        bilateral = []
        for entry in data["bilateral"]:
            _require_keys(entry, {"sxy", "srgb", "weight"}, "a bilateral term")
            bilateral.append(
                BilateralTerm(
                    sxy=_sigma(entry["sxy"]),  # type: ignore[arg-type]
                    srgb=_sigma(entry["srgb"]),
                    weight=float(entry["weight"]),
                )
            )
        return cls(data["mode"], data["iterations"], tuple(gaussian), tuple(bilateral))


def _require_keys(data: Mapping[str, Any], expected: set[str], what: str) -> None:
    if not isinstance(data, Mapping) or set(data) != expected:
        got = sorted(data) if isinstance(data, Mapping) else type(data).__name__
        raise CrfInputError(f"{what} need exactly the keys {sorted(expected)}, got {got}")


def _sigma(value: object) -> float | tuple[float, ...]:
    try:
        if isinstance(value, Sequence) and not isinstance(value, str):
            return tuple(float(v) for v in value)
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise CrfInputError(f"a sigma must be a number or a list of numbers, got {value!r}") from None
