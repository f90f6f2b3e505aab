"""Detection of the Caffe that a file comes from.

Text names its fields, so a text file is read the same in every dialect; the fork that knows most of what BVLC Caffe
lacks is chosen. Binaries contain only numbers, and forks use the same number for different fields. The evidence in a
binary, strongest first:

1. A V2 layer's type beside a contested parameter number: "Interp" with 143 is DeepLab v2's, "Input" with 143 BVLC's.
2. A V1 layer's type number beside its parameter: 39 with convolution_param is DECONVOLUTION, with image_data_param
   DeepLab v1's IMAGE_SEG_DATA.
3. Fields 17 to 19 of a V1 convolution: DeepLab v1's hole, hole_h, hole_w (BVLC Caffe added its own only in V2).

A file without evidence reads the same in every Caffe and is reported as BVLC's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...wire import LENGTH, VARINT, WireReader
from .known import BVLC, DIALECTS, binary_dialects, fork_layer_types
from .renumber import LAYER_TYPES, belongs, contested_layer_fields, enum_values, wire_fields
from .upgrade import camel_case, v1_type_names

_CONV_PARAM_V1 = 10
_HOLE_FIELDS = (17, 18, 19)
_MIN_CONTESTED_TYPE = 39
_MIN_CONTESTED_FIELD = 42
_MIN_PARAM = 9
_V1_COMMON = frozenset({32, 33, 35, 36, 1001, 1002})
"""include, exclude, loss_weight, transform_param, param, blob_share_mode: the same in every fork."""


@dataclass(frozen=True)
class Detection:
    """The dialect of a file and the reasons for it."""

    name: str  # of the dialect
    evidence: tuple[str, ...] = ()  # one sentence each; empty if nothing in the file depends on the dialect
    also: tuple[str, ...] = ()  # other dialects that fit equally well
    ambiguous: bool = False  # the dialects in `also` would read the file differently


@dataclass(frozen=True)
class ForkUse:
    """One use in a text file of something that BVLC Caffe lacks."""

    what: str  # `ConvolutionParameter.hole`, `V1LayerParameter.LayerType.INTERP` or `type "Interp"`
    dialects: tuple[str, ...]  # the forks that have it
    line: int  # 1-based


@dataclass(frozen=True)
class LayerEvidence:
    """The parts of a binary layer that detection reads."""

    type: str  # type string of V2; empty in V1
    type_number: int | None  # type number of V1, or None
    structure: bytes  # the layer's bytes without its blobs


def detect_in_text(uses: Sequence[ForkUse], file_format: str) -> Detection:
    """Detect the dialect of a text file from its uses of forks' features, in order; ties go to the dialect seen first.

    Dialects that cannot read the format ("V0", "V1" or "V2") are left out.
    """
    votes: Counter[str] = Counter()
    for use in uses:
        votes.update(name for name in dict.fromkeys(use.dialects) if file_format in DIALECTS[name].formats)
    if not votes:
        return Detection(BVLC.name, ("nothing in the file is unknown to BVLC Caffe",))
    name = max(votes, key=votes.__getitem__)
    known = [f"{use.what} (line {use.line})" for use in uses if name in use.dialects]
    more = [f"and {len(known) - 4} more"] if len(known) > 4 else []
    foreign = [f"not of {name}: {use.what} (line {use.line})" for use in uses if name not in use.dialects]
    return Detection(name, (*known[:4], *more, *foreign[:4]))


def find_type_uses(types: Iterable[tuple[str, int]]) -> list[ForkUse]:
    """The uses of forks' layer types among (type, line)."""
    known = fork_layer_types()
    return [ForkUse(f'type "{kind}"', known[kind], line) for kind, line in types if kind in known]


def detect_in_binary(layers: Sequence[LayerEvidence], file_format: str) -> Detection:
    """Detect the dialect of a "V0", "V1" or "V2" binary; raises WireError if a layer's bytes are not a message."""
    if file_format == "V0":
        return Detection(BVLC.name)
    return _detect_v2(layers) if file_format == "V2" else _detect_v1(layers)


def name_v1_type(number: int, dialect: str) -> str | None:
    """The enum name of a V1 type number in a dialect."""
    return v1_type_names().get(enum_values(LAYER_TYPES, dialect).get(number, number))


def _detect_v2(layers: Iterable[LayerEvidence]) -> Detection:
    pairs: Counter[tuple[str, int]] = Counter()
    for layer in layers:
        pairs.update(
            (layer.type, number) for number in _field_numbers(layer.structure) & contested_layer_fields().keys()
        )
    clashes = dict.fromkeys(binary_dialects("V2"), 0)
    evidence = []
    for (kind, number), count in pairs.items():
        fitting = [name for name in clashes if _fits_v2(kind, number, name)]
        place = f'type "{kind}" beside field {number}, {count} time(s)'
        if not fitting:
            evidence.append(f"{place}: no known Caffe has it there")
            continue
        _count_clashes(clashes, fitting)
        if BVLC.name not in fitting:
            evidence.append(f"{place}: {', '.join(fitting)}")
    best = _find_best(clashes)
    if clashes[best[0]]:
        evidence.append("no single known Caffe explains all of these: a private mix of forks")
    return Detection(best[0], tuple(evidence), () if best[0] == BVLC.name else tuple(best[1:]))


def _fits_v2(kind: str, number: int, dialect: str) -> bool:
    item = wire_fields("LayerParameter", dialect).get(number)
    return item is not None and belongs(kind, item.name)


def _detect_v1(layers: Iterable[LayerEvidence]) -> Detection:
    clashes = dict.fromkeys(binary_dialects("V1"), 0)
    contested: dict[int, None] = {}
    evidence: dict[str, None] = {}
    for layer in layers:
        if _has_hole(layer.structure):
            owners = [name for name in clashes if DIALECTS[name].has_hole]
            evidence[f"a convolution with a field from 17 to 19: hole, hole_h, hole_w of {', '.join(owners)}"] = None
            _count_clashes(clashes, owners)
        kind, numbers = layer.type_number or 0, _field_numbers(layer.structure)
        if kind >= _MIN_CONTESTED_TYPE:
            contested[kind] = None
        elif not any(number >= _MIN_CONTESTED_FIELD and number not in _V1_COMMON for number in numbers):
            continue
        fitting = [name for name in clashes if _fits_v1(kind, numbers, name)]
        _count_clashes(clashes, fitting)
        if len(fitting) < len(clashes):
            params = sorted(number for number in numbers if number >= _MIN_PARAM and number not in _V1_COMMON)
            beside = f" beside field {', '.join(map(str, params))}" if params else ""
            evidence[f"type number {kind}{beside}: {', '.join(fitting) or 'no known Caffe'}"] = None
    best = _find_best(clashes)
    readings = {tuple(name_v1_type(number, name) for number in contested) for name in best}
    ambiguous = len(readings) > 1 or bool(clashes[best[0]] and contested)
    also = () if best[0] == BVLC.name and not ambiguous else tuple(best[1:])
    return Detection(best[0], tuple(evidence), also, ambiguous)


def _count_clashes(clashes: dict[str, int], fitting: Sequence[str]) -> None:
    for name in clashes:
        clashes[name] += name not in fitting


def _find_best(clashes: dict[str, int]) -> list[str]:
    """The dialects with the fewest clashes."""
    fewest = min(clashes.values())
    return [name for name, count in clashes.items() if count == fewest]


def _fits_v1(number: int, fields: frozenset[int], dialect: str) -> bool:
    enum_name = name_v1_type(number, dialect)
    if enum_name is None:
        return False
    known = wire_fields("V1LayerParameter", dialect)
    params = [known.get(found) for found in fields if found >= _MIN_PARAM]
    return all(
        item is not None and (not item.name.endswith("_param") or belongs(camel_case(enum_name), item.name))
        for item in params
        if item is None or item.name not in ("transform_param", "loss_param", "softmax_param")
    )


def _has_hole(structure: bytes) -> bool:
    reader = WireReader(structure)
    return any(
        inner.number in _HOLE_FIELDS and inner.wire_type == VARINT
        for outer in reader.fields(0, len(structure))
        if outer.number == _CONV_PARAM_V1 and outer.wire_type == LENGTH
        for inner in reader.fields(outer.start, outer.stop)
    )


def _field_numbers(structure: bytes) -> frozenset[int]:
    return frozenset(found.number for found in WireReader(structure).fields(0, len(structure)))
