"""`merge_runs`: check that the shards of a run are complete and disjoint, and join their records into one.

Rules:

1. The shards are those of the newest run: of the number N that the last finished shard states. Each of the N has come
   to its end, with the same settings (bundle, backend, CRF and so on) and from the same list of images.
2. Gaps: the sums over the shards' own images equal the sum over the list (see `shards`), and every result that a record
   names exists with the size in it.
3. Doubles: no result is recorded by two shards.
4. `done.jsonl` then has one line for each result, the newest; lines of earlier runs count as the shards count them. It
   is written whole before the shards' files are removed, so that a kill at any moment costs nothing: merge again.

Memory: 50 bytes per line of the records.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ...bundle.files import remove_leftovers, write_file
from ...errors import InputError, OutputError
from .journal import DONE_NAME, FAILURES_NAME, find_journals, name_record
from .lines import encode_header, encode_line, find_lines, read_lines, remove_lines
from .shards import ListSum, Shard, hash_identity
from .storage import (
    is_store,
    list_names,
    locate,
    measure_bytes,
    open_place,
    prepare_place,
    read_object,
    remove,
    write_content,
)

_SHOWN = 5


@dataclass(frozen=True)
class MergeSummary:
    """Counts of joined shards.

    Attributes:
        shards: number of shards.
        images: number of images of their list.
        finished: results in the joined record, those of earlier runs included.
        failed: images that failed.
        copied: files brought from other folders.
    """

    shards: int
    images: int
    finished: int
    failed: int
    copied: int


@dataclass(frozen=True)
class _Part:
    """The journal of a shard, or one without a shard, and its last line if that is an end."""

    path: Path
    shard: Shard | None
    end: dict[str, Any] | None


def merge_runs(
    folders: Sequence[str | Path], out: str | Path | None = None, *, advance: Callable[[int], None] = lambda steps: None
) -> MergeSummary:
    """Check the shards of a run and join their records into `OUT/done.jsonl` and `OUT/failures.jsonl`.

    Args:
        folders: the folders that the shards were written to: one for all, or several.
        out: the folder to join them in; None for the only folder. Results of other folders are linked there, or copied
            to another file system; the other folders stay as they are.
        advance: called with 1 for each line of the records.

    Returns:
        The counts. The next run of the same command without shards skips what is finished.

    Raises:
        InputError: if a shard is missing, unfinished, of other settings or of another list, an image is missing or
            recorded twice, or a result is missing; nothing is changed then.
        OutputError: if a run is writing to a folder, or a file cannot be read or written.
    """
    sources = list(dict.fromkeys(map(open_place, folders)))
    if not sources or (out is None and len(sources) > 1):
        raise InputError("name the folder to join several folders in: -o OUT" if sources else "there are no folders")
    target = sources[0] if out is None else open_place(out)
    for folder in sources:
        if not list_names(folder):
            raise InputError(f"there is nothing in {folder}: give the output folders of the shards")
    into_itself = [target] if not any(_is_same(target, folder) for folder in sources) else []
    parts = [
        _Part(path, shard, _read_end(path)) for folder in [*into_itself, *sources]
        for path, shard in find_journals(folder).items()
    ]  # fmt: skip
    shards = _check_ends(parts)
    last = {part.path for part in shards}
    ordered = [*(part for part in parts if part.path not in last), *shards]  # later ones count
    is_kept = _choose_lines(ordered, last, advance)
    prepare_place(target)
    copied = _bring_results(ordered, is_kept, target)
    earlier = [place for place in find_lines(target / DONE_NAME) if place.name != DONE_NAME]
    if is_store(target):
        buffer = io.BytesIO()
        _write_lines(buffer, ordered, is_kept)
        write_content(target / DONE_NAME, buffer.getvalue())
    else:
        write_file(target / DONE_NAME, lambda file: _write_lines(file, ordered, is_kept), durable=True)
        remove_leftovers(target)
    for place in earlier:
        remove(place)
    failures = [entry for part in shards for entry in _read_failures(part)]
    remove_lines(target / FAILURES_NAME)
    if failures:
        write_content(target / FAILURES_NAME, encode_header("failures") + b"".join(map(encode_line, failures)))
    for part in parts:
        if part.shard is not None and _is_same(part.path.parent, target):
            remove_lines(part.path)
            remove_lines(_find_failures(part))
    listed = shards[0].end["listed"]["images"] if shards[0].end else 0
    return MergeSummary(len(shards), listed, int(is_kept.sum()), len(failures), copied)


def _read_end(path: Path) -> dict[str, Any] | None:
    entry: dict[str, Any] = {}
    for entry in read_lines(path, "done"):  # noqa: B007 (the last one)
        pass
    end = entry.get("end")
    return end if isinstance(end, dict) else None


def _check_ends(parts: Iterable[_Part]) -> list[_Part]:
    """The shards of the newest run, in order; rules 1 and 2."""
    sharded = [(part, part.shard) for part in parts if part.shard is not None]
    if not sharded:
        raise InputError("there are no records of shards: give the output folders of segment --shard")
    newest = max(sharded, key=lambda entry: (entry[0].end or {}).get("at_s", 0.0))[1]
    found: dict[int, _Part] = {}
    for part, shard in sharded:
        if shard.count == newest.count:
            if shard.index in found:
                raise InputError(f"shard {shard} is in {found[shard.index].path} and in {part.path}: give one of them")
            found[shard.index] = part
    missing = [index for index in range(newest.count) if index not in found]
    if missing:
        raise InputError(
            f"{_name_shards(missing, newest)} without a record: run segment --shard I/{newest.count} for each, or give "
            "all folders"
        )
    unfinished = [index for index in range(newest.count) if found[index].end is None]
    if unfinished:
        raise InputError(f"{_name_shards(unfinished, newest)} interrupted or running: run them again, they resume")
    chosen = [found[index] for index in range(newest.count)]
    first = chosen[0].end or {}
    for name, what in (("settings", "with other settings"), ("listed", "from another list of images")):
        for part in chosen:
            value = (part.end or {}).get(name)
            if value != first.get(name):
                raise InputError(
                    f"{part.path} was made {what} than {chosen[0].path}: {_describe_difference(first.get(name), value)}"
                )
    own = ListSum()
    for part in chosen:
        own += _read_sum(part, "own")
    listed = _read_sum(chosen[0], "listed")
    if own != listed:
        raise InputError(f"the shards have {own.images} images and their list {listed.images}: run all of them again")
    return chosen


def _name_shards(indices: Sequence[int], shard: Shard) -> str:
    shown = ", ".join(map(str, indices[:_SHOWN])) + (", ..." if len(indices) > _SHOWN else "")
    return f"{len(indices)} of {shard.count} shards ({shown}) are"


def _read_sum(part: _Part, name: str) -> ListSum:
    try:
        entry = (part.end or {})[name]
        return ListSum(int(entry["images"]), int(entry["digest"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{part.path}: the end of the record is malformed: run the shard again") from error


def _describe_difference(one: Any, other: Any) -> str:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return "run the shard again"
    names = [name for name in one if one[name] != other.get(name)]
    return f"{', '.join(names)} ({one.get(names[0])} and {other.get(names[0])})" if names else "run the shard again"


def _choose_lines(parts: Sequence[_Part], last: set[Path], advance: Callable[[int], None]) -> npt.NDArray[np.bool_]:
    """Whether to keep each line of the records, one after the other; rules 2 and 3."""
    results, owners = array("Q"), array("Q")
    for number, part in enumerate(parts):
        for entry in _read_items(part):
            results.append(hash_identity(_name_result(entry)))
            owners.append(number)
    numbers, owned = np.array(results, np.uint64), np.array(owners, np.int64)
    _, places = np.unique(numbers[::-1], return_index=True)  # the last of equals
    is_kept = np.zeros(len(numbers), bool)
    is_kept[len(numbers) - 1 - places] = True
    is_last = np.array([part.path in last for part in parts], bool)[owned] if len(owned) else is_kept
    pairs = np.unique(np.stack([numbers[is_last], owned[is_last].astype(np.uint64)]), axis=1)[0]
    doubled = pairs[1:][pairs[1:] == pairs[:-1]]
    missing: list[str] = []
    for is_wanted, number, (part, entry) in zip(is_kept, numbers, _read_all(parts), strict=True):
        if len(doubled) and number == doubled[0]:
            raise InputError(f"{_name_result(entry)} was labeled by two shards: their lists named images differently")
        if is_wanted and not _has_results(part.path.parent, entry):
            missing.append(str(part.path.parent / _name_result(entry)))
        advance(1)
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise InputError(f"{len(missing)} results are missing or have another size: {shown}: run their shards again")
    return is_kept


def _read_items(part: _Part) -> Iterator[dict[str, Any]]:
    for entry in read_lines(part.path, "done"):
        outputs = entry.get("outputs")
        if isinstance(outputs, dict) and outputs and isinstance(entry.get("bytes"), int) and entry["bytes"] >= 0:
            if any(not _is_inside(name) for name in outputs.values()):
                raise InputError(f"{part.path}: names a result outside its folder: {outputs}")
            yield entry


def _find_failures(part: _Part) -> Path:
    return part.path.with_name(name_record(FAILURES_NAME, part.shard))


def _read_failures(part: _Part) -> Iterable[dict[str, Any]]:
    path = _find_failures(part)
    return read_lines(path, "failures") if find_lines(path) else ()


def _read_all(parts: Iterable[_Part]) -> Iterator[tuple[_Part, dict[str, Any]]]:
    return ((part, entry) for part in parts for entry in _read_items(part))


def _is_inside(name: object) -> bool:
    return isinstance(name, str) and not os.path.isabs(name) and ".." not in Path(name).parts


def _name_result(entry: dict[str, Any]) -> str:
    return str(min(entry["outputs"].values()))


def _has_results(folder: Path, entry: dict[str, Any]) -> bool:
    try:
        return sum(measure_bytes(folder / name) for name in entry["outputs"].values()) == int(entry["bytes"])
    except OSError:
        return False


def _write_lines(file: IO[bytes], parts: Sequence[_Part], is_kept: npt.NDArray[np.bool_]) -> None:
    file.write(encode_header("done"))
    for is_wanted, (_, entry) in zip(is_kept, _read_all(parts), strict=True):
        if is_wanted:
            file.write(encode_line(entry))


def _bring_results(parts: Sequence[_Part], is_kept: npt.NDArray[np.bool_], target: Path) -> int:
    """Link or copy the results of other folders to the target; returns the number of files."""
    copied, others = 0, {part.path for part in parts if not _is_same(part.path.parent, target)}
    if not others:
        return 0
    for is_wanted, (part, entry) in zip(is_kept, _read_all(parts), strict=True):
        if is_wanted and part.path in others:
            for name in entry["outputs"].values():
                source = part.path.parent / name
                files = [f"{name}/{inside}" for inside in list_names(source)] or [name]
                for file in files:
                    _bring_file(part.path.parent / file, target / file)
                copied += len(files)
    return copied


def _bring_file(source: Path, target: Path) -> None:
    if is_store(source) or is_store(target):
        write_content(target, read_object(str(source), 1 << 40) if is_store(source) else source.read_bytes())
        return
    if target.exists() and os.path.samefile(source, target):
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
        with source.open("rb") as file:
            write_file(target, lambda written: shutil.copyfileobj(file, written))
    except OSError as error:
        raise OutputError(f"cannot be copied to {target}: {error.strerror}", path=source) from error


def _is_same(one: Path, other: Path) -> bool:
    return locate(one) == locate(other)
