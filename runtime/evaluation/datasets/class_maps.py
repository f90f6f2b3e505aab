"""Maps the classes of label images to those of a bundle: by name, or by a JSON file.

By name, in this order; letter case, spaces and punctuation do not count:

1. the same name;
2. a synonym of `_SYNONYMS`, if one class of the bundle has it ("pavement" is "sidewalk");
3. the part before a hyphen, if one class of the bundle has it ("wall-brick" is "wall", and "sky" is "sky-other").

Classes without a counterpart are void in the mapped labels; `ClassMap.count_ignored` counts their pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from ....errors import DatasetError
from ....text_files import decode_text
from ..confusion import VOID, LabelMap

_MAX_BYTES = 1 << 20
_SYNONYMS = (
    *(("sidewalk", "pavement"), ("vegetation", "tree"), ("trafficsign", "sign", "signsymbol"), ("rider", "bicyclist")),
    *(("person", "pedestrian", "people"), ("airplane", "aeroplane", "plane"), ("motorcycle", "motorbike", "minibike")),
    *(("sofa", "couch"), ("tv", "tvmonitor", "television"), ("fridge", "refrigerator"), ("shelf", "shelves")),
    *(("book", "books"), ("bookshelf", "bookcase"), ("window", "windowpane"), ("blind", "blinds", "windowblind")),
    *(("picture", "painting"), ("rug", "carpet"), ("clothes", "apparel"), ("dresser", "chestofdrawers")),
    *(("counter", "countertop"), ("trafficlight", "trafficsignal"), ("car", "automobile"), ("ground", "earth")),
)
_GROUPS = {name: group for group in _SYNONYMS for name in group}


@dataclass(frozen=True)
class ClassMap:
    """The classes of label images, and the class of the bundle that each stands for.

    Attributes:
        source: what the classes are called, such as "camvid".
        names: the classes of the label images, by label.
        targets: for each, the label in the bundle, or `VOID` if it is ignored.
    """

    source: str
    names: tuple[str, ...]
    targets: tuple[int, ...]

    def apply(self, labels: LabelMap) -> LabelMap:
        """Bring H x W uint8 labels, classes of `names` and `VOID`, to the bundle's classes and `VOID`."""
        table = np.full(256, VOID, np.uint8)
        table[: len(self.targets)] = self.targets
        mapped: LabelMap = table[labels]
        return mapped

    def count_ignored(self, labels: LabelMap) -> dict[str, int]:
        """Pixels of each class without a counterpart that occurs in labels of the form that `apply` takes."""
        counts = np.bincount(labels.ravel(), minlength=256)
        pairs = zip(self.names, self.targets, counts.tolist(), strict=False)
        return {name: count for name, target, count in pairs if target == VOID and count}

    def describe(self, classes: Sequence[str]) -> dict[str, str | None]:
        """The map in the form of its JSON file: name -> class of the bundle, None for an ignored one."""
        pairs = zip(self.names, self.targets, strict=True)
        return {name: None if target == VOID else classes[target] for name, target in pairs}


def simplify_name(name: str) -> str:
    """A class name without letter case, spaces and punctuation."""
    return "".join(character for character in name.lower() if character.isalnum())


def match_names(names: Sequence[str], classes: Sequence[str]) -> tuple[int, ...]:
    """For each name the index of its class, or `VOID`; see the rules of this module."""
    exact = {simplify_name(name): index for index, name in reversed(list(enumerate(classes)))}
    return tuple(_match(name, exact, classes) for name in names)


def _match(name: str, exact: Mapping[str, int], classes: Sequence[str]) -> int:
    plain = simplify_name(name)
    if plain in exact:
        return exact[plain]
    found = {exact[other] for other in _GROUPS.get(plain, ()) if other in exact}
    if len(found) == 1:
        return found.pop()
    parent = simplify_name(name.partition("-")[0])
    if parent in exact:
        return exact[parent]
    children = [index for index, other in enumerate(classes) if simplify_name(other.partition("-")[0]) == plain]
    return children[0] if len(children) == 1 else VOID


def read_map(
    path: Path, names: Sequence[str], numbers: Mapping[int, int], classes: Sequence[str], base: Sequence[int]
) -> tuple[int, ...]:
    """Read a map file, one JSON object: class of the label images -> class of the bundle, or null to ignore it.

    Both are names or numbers; "*" stands for all classes of the label images that are not listed.

    Args:
        path: the file.
        names: classes of the label images, by label.
        numbers: numbers as stored in the label images -> label.
        classes: names of the bundle's classes.
        base: targets of the classes that the file does not list.

    Raises:
        DatasetError: if the file cannot be read, or names a class that does not exist.
    """
    content = _read_object(path)
    targets = list(base)
    if "*" in content:
        targets = [_find_class(content.pop("*"), classes, path)] * len(targets)
    by_name = {simplify_name(name): index for index, name in enumerate(names)}
    for key, value in content.items():
        source = numbers.get(int(key)) if key.isdecimal() and len(key) < 10 else by_name.get(simplify_name(key))
        if source is None or source >= len(targets):
            raise DatasetError(f'"{key}" is not a class of the label images{_suggest(key, names)}', path=path)
        targets[source] = _find_class(value, classes, path)
    return tuple(targets)


def _read_object(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DatasetError("is larger than 1 MiB, which is not a map of classes", path=path)
        content = json.loads(decode_text(path.read_bytes()))
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror}", path=path) from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"is not JSON ({error})", path=path) from error
    if not isinstance(content, dict) or not content:
        raise DatasetError('is not a JSON object such as {"tree": "vegetation", "11": null}', path=path)
    return content


def _find_class(value: object, classes: Sequence[str], path: Path) -> int:
    if value is None:
        return VOID
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(classes):
        return value
    plain = [simplify_name(name) for name in classes]
    if isinstance(value, str) and simplify_name(value) in plain:
        return plain.index(simplify_name(value))
    raise DatasetError(f"{json.dumps(value)} is not a class of the bundle{_suggest(value, classes)}", path=path)


def _suggest(wrong: object, names: Sequence[str]) -> str:
    close = get_close_matches(str(wrong).lower(), [name.lower() for name in names], n=1)
    return (
        f': did you mean "{close[0]}"?' if close else f"; there are {', '.join(names[:8])}" + ", ..." * (len(names) > 8)
    )
