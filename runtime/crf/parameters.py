"""Parameters of an image's dense CRF: frozen data that a bundle carries, to and from a dict; and shortcuts by name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal

from ..errors import CrfInputError
from .checks import MAX_ITERATIONS, check_integer

Mode = Literal["deeplab", "pydensecrf"]
Normalization = Literal["none", "before", "after", "symmetric"]

#: The normalization of each mode's filters. DeepLab's own programs divide after filtering; pydensecrf's default splits
#: the division before and after. On one photo the two differ in 1.2 % of the labels.
NORMALIZATION_OF_MODE: dict[str, Normalization] = {"deeplab": "after", "pydensecrf": "symmetric"}

#: Shortcuts that combine well, as `dense_crf(image, probabilities, **FAST)`: half precision rows; without labels that
#: nowhere reach a hundredth of the best one's probability; pixels that are 99.9 % sure after one update are frozen.
#: docs/crf-performance.md has the measured gain and effect.
FAST: Mapping[str, Any] = MappingProxyType({"storage": "float16", "prune": 0.01, "settle": 0.999})


@dataclass(frozen=True)
class GaussianTerm:
    """The kernel exp(-|position difference|^2 / (2 sxy^2)), times `weight`.

    Attributes:
        sxy: standard deviation in pixels, one number or (x, y).
        weight: strength of the attraction between equal labels of near pixels; positive smooths.
    """

    sxy: float | tuple[float, float] = 3.0
    weight: float = 3.0


@dataclass(frozen=True)
class BilateralTerm:
    """The kernel of `GaussianTerm` times exp(-|color difference|^2 / (2 srgb^2)).

    Attributes:
        sxy: standard deviation in pixels, one number or (x, y).
        srgb: standard deviation in gray levels (0 to 255), one number or one per channel.
        weight: strength of the attraction between equal labels of near, similar pixels; positive smooths.
    """

    sxy: float | tuple[float, float] = 121.0
    srgb: float | tuple[float, ...] = 5.0
    weight: float = 4.0


@dataclass(frozen=True)
class CrfParameters:
    """All inputs of `dense_crf` besides the image and the network's output.

    The defaults are the released settings of DeepLab-LargeFOV.

    Attributes:
        mode: "deeplab" (normalizes after filtering, as DeepLab's own programs) or "pydensecrf" (symmetric).
        iterations: number of mean-field updates.
        gaussian: terms of position alone.
        bilateral: terms of position and color.

    Raises:
        CrfInputError: an unknown mode or an invalid number of iterations.
    """

    mode: Mode = "deeplab"
    iterations: int = 10
    gaussian: tuple[GaussianTerm, ...] = field(default=(GaussianTerm(),))
    bilateral: tuple[BilateralTerm, ...] = field(default=(BilateralTerm(),))

    def __post_init__(self) -> None:
        if not isinstance(self.mode, str) or self.mode not in NORMALIZATION_OF_MODE:
            raise CrfInputError(f'CRF mode {self.mode!r} is unknown: use "deeplab" or "pydensecrf"')
        check_integer(self.iterations, "iterations", 0, MAX_ITERATIONS)

    @property
    def normalization(self) -> Normalization:
        """The normalization of every term."""
        return NORMALIZATION_OF_MODE[self.mode]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data: {"mode", "iterations", "gaussian": [{"sxy", "weight"}], "bilateral": [...]}."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # tuples become lists
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CrfParameters:
        """Return the parameters that `to_dict` wrote.

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
