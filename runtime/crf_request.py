"""The CRF's parameters of one request to a server, by name, on top of a bundle's.

======================== =======================================================
`crf`                    false turns the CRF off
`mode`                   "deeplab" or "pydensecrf"
`iterations`             0 to `MAX_ITERATIONS`
`sxy`, `srgb`, `weight`  of the first bilateral term
`gaussian_sxy`,          of the first Gaussian term
`gaussian_weight`
======================== =======================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..bundle.crf_parameters import NORMALIZATION_OF_MODE, CrfParameters
from ..errors import CrfInputError

MAX_ITERATIONS = 100
MAX_SIGMA = 1e6  # pixels or gray levels
#: name in a request -> field of `CrfParameters` that holds the terms, and field of its first term
_TERMS = {
    "sxy": ("bilateral", "sxy"),
    "srgb": ("bilateral", "srgb"),
    "weight": ("bilateral", "weight"),
    "gaussian_sxy": ("gaussian", "sxy"),
    "gaussian_weight": ("gaussian", "weight"),
}
NAMES = ("crf", "mode", "iterations", *_TERMS)


def choose_crf(crf: CrfParameters | None, wanted: Mapping[str, object]) -> CrfParameters | None:
    """The parameters of a request's CRF; None if it is off.

    Args:
        crf: the server's own, None if it runs no CRF.
        wanted: values of JSON by the names above; numbers and true, false may be strings.

    Raises:
        CrfInputError: if a name is unknown, a value has the wrong type or range, or there is no CRF to change.
    """
    unknown = sorted(wanted.keys() - set(NAMES))
    if unknown:
        raise CrfInputError(f'there is no parameter "{unknown[0]}"; the parameters are {", ".join(NAMES)}')
    is_on = _read_switch(wanted["crf"]) if "crf" in wanted else crf is not None
    if crf is None:
        if is_on or wanted.keys() - {"crf"}:
            raise CrfInputError("this model has no CRF: leave out the CRF's parameters")
        return None
    changes: dict[str, Any] = {}
    if "mode" in wanted:
        if wanted["mode"] not in tuple(NORMALIZATION_OF_MODE):
            raise CrfInputError(f'"mode" must be one of {", ".join(NORMALIZATION_OF_MODE)}, got {wanted["mode"]!r}')
        changes["mode"] = wanted["mode"]
    if "iterations" in wanted:
        number = _read_number("iterations", wanted["iterations"])
        if number != int(number) or not 0 <= number <= MAX_ITERATIONS:
            raise CrfInputError(f'"iterations" must be an integer of 0 to {MAX_ITERATIONS}, got {number:g}')
        changes["iterations"] = int(number)
    for name in wanted.keys() & _TERMS.keys():
        kind, field = _TERMS[name]
        terms = changes.get(kind, getattr(crf, kind))
        if not terms:
            raise CrfInputError(f'the model\'s CRF has no {kind} term: "{name}" has no effect')
        number = _read_number(name, wanted[name])
        if field != "weight" and not 0 < number <= MAX_SIGMA:
            raise CrfInputError(f'"{name}" must be positive and at most {MAX_SIGMA:g}, got {number:g}')
        changes[kind] = (replace(terms[0], **{field: number}), *terms[1:])
    return replace(crf, **changes) if is_on else None


def _read_switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise CrfInputError(f'"crf" must be true or false, got {value!r}')


def _read_number(name: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise CrfInputError(f'"{name}" must be a number, got {value!r}')
    return number
