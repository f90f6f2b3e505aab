"""Reading of prototxt files of any syntax and fork into one form.

Steps: bytes -> text (`${NAME}` filled in) -> messages of the merged schema (`text_parser`) -> V2 form (`upgrade`) ->
checks of the whole net. The layers of a phase are selected later (`graph.select`).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...bundle.files import open_regular
from ...errors import PrototxtError, UnknownFieldError
from ...text_files import find_wide_codec
from ..dialects.detect import ForkUse, find_type_uses
from ..dialects.known import DIALECTS
from ..dialects.upgrade import upgrade_net
from . import text_parser
from .text_parser import ParsedText
from .text_tree import UnknownField

_SOLVER_FIELD = re.compile(
    r"(train_|test_)?net(_param)?|test_(iter|interval|initialization)|base_lr|lr_policy|max_iter|iter_size|solver_\w+"
    r"|snapshot\w*|step(size|value)|gamma|power|momentum2?|weight_decay|display|average_loss|random_seed|type"
)
_SOLVER_NET = re.compile(r'^\s*(?:net|test_net|train_net)\s*:\s*["\']([^"\']*)["\']', re.MULTILINE)
_TEMPLATE = re.compile(r"\$\{(\w+)\}", re.ASCII)
_HOLES = ("hole", "hole_h", "hole_w")
_MAX_INPUT_AXES = 32
_MAX_LISTED = 30


@dataclass(frozen=True)
class Prototxt:
    """A net in V2 form, and facts about its text."""

    # NetParameter with all layers in `layer`, with string types; `input`, `input_dim` and `input_shape` are unchanged,
    # with matching counts
    net: Any
    lines: tuple[int, ...]  # 1-based line of each layer
    format: str  # "V0", "V1" or "V2"
    path: Path | None  # the file, or None for text
    # uses of fields, enum values and layer types that BVLC Caffe lacks, in the order of the text
    forks: tuple[ForkUse, ...]
    warnings: tuple[str, ...]  # one sentence each
    # index in `net.layer` -> its fields that the schema lacks; `read_net` rejects those that count
    unknown: Mapping[int, tuple[UnknownField, ...]] = field(default_factory=dict)


def read_prototxt(source: str | os.PathLike[str], *, variables: Mapping[str, str] | None = None) -> Prototxt:
    """Read a net definition.

    Args:
        source: a file, or the text itself (a string with a line break or a brace is text).
        variables: values of `${NAME}` templates.

    Raises:
        PrototxtError: not a net definition, a syntax error, an unknown field outside layers, a template in place of a
            value, or a net that Caffe rejects.
    """
    variables = variables or {}
    path, data = _load(source)
    text, warnings = _decode(data, path)
    text, unused = _fill_templates(text, variables, path)
    warnings += [f"--set {name}: the file does not contain ${{{name}}}" for name in unused]
    parsed = _parse(text, path)
    _require_values(parsed, path)

    net = parsed.message
    lines = parsed.lines.get("layers" if net.layers else "layer", [])
    upgraded = upgrade_net(net, path=path, lines=lines, unknown_types=parsed.unknown_types)
    layer_lines = tuple(lines[index] for index in upgraded.sources)
    _check_types(upgraded.net, layer_lines, path)
    check_inputs(upgraded.net, path)
    if upgraded.format == "V2":
        _reject_v1_fields(_drop_unit_holes(upgraded.net, parsed.forks), path)
    warnings += [*upgraded.warnings, *_warn_of_named_templates(upgraded.net, layer_lines)]
    if parsed.ignored:
        warnings.append(f"ignoring settings that change no result: {shorten_list(parsed.ignored)}")
    type_uses = find_type_uses((layer.type, line) for layer, line in zip(upgraded.net.layer, layer_lines, strict=True))
    return Prototxt(
        net=upgraded.net,
        lines=layer_lines,
        format=upgraded.format,
        path=path,
        forks=tuple(sorted([*parsed.forks, *type_uses], key=lambda use: use.line)),
        warnings=tuple(warnings),
        unknown=_group_by_layer(parsed.unknown, upgraded.sources),
    )


def shorten_list(items: Sequence[object]) -> str:
    """The first five items, and the number of the others."""
    more = f" and {len(items) - 5} more" if len(items) > 5 else ""
    return ", ".join(map(str, items[:5])) + more


def _group_by_layer(unknown: Iterable[UnknownField], sources: Sequence[int]) -> dict[int, tuple[UnknownField, ...]]:
    """Index of a layer of the upgraded net -> its unknown fields; `sources` are the layers' indices in the text."""
    by_entry: dict[int, list[UnknownField]] = {}
    for item in unknown:
        by_entry.setdefault(item.entry, []).append(item)
    return {index: tuple(by_entry[entry]) for index, entry in enumerate(sources) if entry in by_entry}


def _load(source: str | os.PathLike[str]) -> tuple[Path | None, bytes]:
    if isinstance(source, str) and ("\n" in source or "{" in source.replace("${", "")):
        return None, source.encode("utf-8", errors="surrogateescape")
    path = Path(source)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > text_parser.MAX_TEXT_BYTES:
                raise PrototxtError(f"{size} bytes are too many for a prototxt; is it the weights file?", path=path)
            return path, file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PrototxtError(f"cannot be read: {reason}", path=path) from error


def _decode(data: bytes, path: Path | None) -> tuple[str, list[str]]:
    """The text and warnings about it; other kinds of files are rejected by name."""
    codec = find_wide_codec(data)
    if codec is not None:
        data = data.decode(codec, errors="replace").encode()
    start = data[:512].lstrip()
    if b"\0" in data[:65536]:
        raise PrototxtError("is binary; a prototxt is text. If it is the weights, give it as WEIGHTS", path=path)
    if start.startswith(b"version https://git-lfs.github.com/"):
        raise PrototxtError('is a Git LFS pointer, not the file: run "git lfs pull" in its repository', path=path)
    if start[:1] == b"<":
        raise PrototxtError("is HTML or XML, not a prototxt: a failed download?", path=path)
    if not data.strip():
        raise PrototxtError("is empty", path=path)
    try:
        return data.decode("utf-8"), []
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return data.decode("utf-8", errors="replace"), [f"line {line} is not UTF-8; invalid characters were replaced"]


def _fill_templates(text: str, variables: Mapping[str, str], path: Path | None) -> tuple[str, list[str]]:
    for name, value in variables.items():
        if any(character in value for character in "\r\n\"'\\{}#"):
            raise PrototxtError(f"--set {name}: a value cannot contain quotes, braces, # or line breaks", path=path)
    used: set[str] = set()

    def replace(found: re.Match[str]) -> str:
        name = found[1]
        if name not in variables:
            return found[0]
        used.add(name)
        return str(variables[name])

    return _TEMPLATE.sub(replace, text), [name for name in variables if name not in used]


def _parse(text: str, path: Path | None) -> ParsedText:
    try:
        return text_parser.parse_text(text, "NetParameter", path=path, keep_unknown=True)
    except UnknownFieldError as error:
        if error.message == "NetParameter" and _SOLVER_FIELD.fullmatch(error.field):
            named = _SOLVER_NET.search(text)
            hint = f'; the net it trains is "{named[1]}"' if named else ""
            raise PrototxtError(
                f'is a solver definition (it has "{error.field}"), not a net{hint}', path=path, line=error.line
            ) from None
        raise


def _require_values(parsed: ParsedText, path: Path | None) -> None:
    if not parsed.missing:
        return
    missing = dict(list(parsed.missing.items())[:_MAX_LISTED])
    more = f" and {len(parsed.missing) - _MAX_LISTED} more" if len(parsed.missing) > _MAX_LISTED else ""
    needed = ", ".join(f"${{{name}}} (line {line})" for name, line in missing.items()) + more
    options = " ".join(f"--set {name}=VALUE" for name in missing)
    rest = [name for name in parsed.in_strings if name not in parsed.missing][:_MAX_LISTED]
    also = f" (also unset, inside strings: {', '.join(rest)})" if rest else ""
    raise PrototxtError(f"missing values of {needed}: give {options}{also}", path=path)


def _check_types(net: Any, lines: tuple[int, ...], path: Path | None) -> None:
    for layer, line in zip(net.layer, lines, strict=True):
        if not layer.type:
            raise PrototxtError(f'layer "{layer.name}" has no type', path=path, line=line)


def check_inputs(net: Any, path: Path | None) -> None:
    """Check counts and sizes of the legacy `input` fields; raises PrototxtError if they do not match.

    If both kinds are there, the dialect may ignore input_dim.
    """
    inputs, dims, shapes = len(net.input), len(net.input_dim), len(net.input_shape)
    if inputs and dims and not shapes and dims != 4 * inputs:
        raise PrototxtError(f"{inputs} input(s) need {4 * inputs} input_dim entries, found {dims}", path=path)
    if inputs and shapes and shapes != inputs:
        raise PrototxtError(f"{inputs} input(s) need {inputs} input_shape entries, found {shapes}", path=path)
    for shape in (net.input_dim, *(shape.dim for shape in net.input_shape)):
        if any(dim < 0 for dim in shape):
            raise PrototxtError("an input has a negative size", path=path)
        if shape is not net.input_dim and len(shape) > _MAX_INPUT_AXES:
            raise PrototxtError(f"an input has {len(shape)} axes; Caffe allows {_MAX_INPUT_AXES}", path=path)


def _drop_unit_holes(net: Any, forks: list[ForkUse]) -> list[ForkUse]:
    """The uses without those of `hole`, which is removed, if a V2 net has it with the value 1 only."""
    params = [layer.convolution_param for layer in net.layer if layer.HasField("convolution_param")]
    if any(getattr(param, name) != 1 for param in params for name in _HOLES):
        return forks
    for param in params:
        for name in _HOLES:
            param.ClearField(name)
    return [use for use in forks if use.what.rpartition(".")[2] not in _HOLES]


def _reject_v1_fields(forks: list[ForkUse], path: Path | None) -> None:
    """Reject fields in a V2 net that only forks without V2 have: the file mixes two syntaxes."""
    for use in forks:
        owners = [DIALECTS[name] for name in use.dialects]
        if any("V2" in owner.formats for owner in owners):
            continue
        message, _, name = use.what.rpartition(".")
        advice = owners[0].replacements.get(use.what, 'write the net with "layers { }" throughout')
        raise PrototxtError(
            f'{message} has no field "{name}" in a net of "layer {{ }}" '
            f'(only {" and ".join(use.dialects)}, with "layers {{ }}", have it); {advice}',
            path=path,
            line=use.line,
        )


def _warn_of_named_templates(net: Any, lines: tuple[int, ...]) -> list[str]:
    """Warn about templates left in layer names, by which weights are matched."""
    found: dict[str, int] = {}
    for layer, line in zip(net.layer, lines, strict=True):
        for match in _TEMPLATE.finditer(layer.name):
            found.setdefault(match[1], line)
    return [
        f"layer names contain ${{{name}}} (line {line}); if the weights have it filled in, give --set {name}=VALUE"
        for name, line in found.items()
    ]


def find_template_values(names: Iterable[str], candidates: Sequence[str]) -> dict[str, str]:
    """Values of `${NAME}` in layer names that make as many of these names as possible equal to candidates.

    Returns NAME -> value; empty if no value fits. Names with several templates are left out.
    """
    found: dict[str, Counter[str]] = {}
    for name in names:
        parts = _TEMPLATE.split(name)  # text, NAME, text
        if len(parts) != 3:
            continue
        before, variable, after = parts
        fitting = {
            other[len(before) : len(other) - len(after)]
            for other in candidates
            if len(other) > len(before) + len(after) and other.startswith(before) and other.endswith(after)
        }
        found.setdefault(variable, Counter()).update(fitting)
    return {variable: max(counts, key=counts.__getitem__) for variable, counts in found.items() if counts}
