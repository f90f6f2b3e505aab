"""Shapes on `atrous build`'s command line: sizes, batches and workspaces, read and joined to profiles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..bundle.manifest import SizeRule
    from ..runtime.backends.tensorrt.options import Profile

Size = tuple[int, int]  # height, width
Batch = tuple[int, int, int]  # smallest, usual, largest
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SMALLEST_USEFUL = 32  # pixels; a size rule below that says nothing about what users will send


def read_size(text: str, option: str) -> Size:
    """A height and a width in pixels, such as 513x513; one number stands for both."""
    parts = text.lower().replace(",", "x").split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f'"{text}" is not a size such as 513x513', param_hint=option)
    return int(parts[0]), int(parts[-1])


def read_batch(text: str) -> Batch:
    """Images a run: one number, or smallest:largest, or smallest:usual:largest."""
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f'"{text}" is not a batch such as 1, 1:8 or 1:4:8', param_hint="--batch")
    numbers = [int(part) for part in parts]
    return numbers[0], numbers[len(numbers) // 2], numbers[-1]


def read_bytes(text: str | None, option: str) -> int | None:
    """A number of bytes, such as 4G, 4GiB or 500M, in powers of 1024."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", text.strip().upper())
    if found is None:
        raise click.BadParameter(f'"{text}" is not a size such as 4G', param_hint=option)
    return int(float(found.group(1)) * _UNITS[found.group(2)])


def make_profiles(
    name: str,
    wanted: Sequence[int],
    rule: SizeRule,
    batch: Batch,
    sizes: Sequence[Size],
    ranges: tuple[Sequence[Size], Sequence[Size], Sequence[Size]],
) -> tuple[Profile, ...]:
    """The profiles of a bundle's one input, N x H x W x 3.

    Args:
        name: of the input.
        wanted: its shape in the graph, -1 for a free size.
        rule: the bundle's size rule.
        batch: images a run.
        sizes: a profile of one size each.
        ranges: smallest, usual and largest sizes, as many of each; a profile of a range each.

    Raises:
        click.UsageError: if the ranges are not as many of each, the network takes another batch, or nothing says
            which sizes to build for.
    """
    from ..runtime.backends.tensorrt.options import ShapeRange

    smallest, usual, largest = ranges
    if not len(smallest) == len(usual) == len(largest):
        raise click.UsageError(
            f"--min, --opt and --max make profiles together; {len(smallest)}, {len(usual)} and {len(largest)} are given"
        )
    if -1 not in wanted:
        if sizes or smallest:
            raise click.UsageError(f"the network takes {'x'.join(map(str, wanted))} only: leave the shapes out")
        return ()
    if wanted[0] != -1 and set(batch) != {wanted[0]}:
        raise click.UsageError(f"the network takes {wanted[0]} images a run only: give --batch {wanted[0]}")
    if not sizes and not smallest:
        sizes = [_find_usual_size(rule)]
    triples = [*((size, size, size) for size in sizes), *zip(smallest, usual, largest, strict=True)]
    profiles = []
    for triple in triples:
        shapes = [
            tuple(side if side != -1 else given for side, given in zip(wanted, (images, *size, 3), strict=True))
            for images, size in zip(batch, triple, strict=True)
        ]
        profiles.append({name: ShapeRange(*shapes)})
    return tuple(profiles)


def _find_usual_size(rule: SizeRule) -> Size:
    size = rule.fixed or rule.minimum
    if min(size) < _SMALLEST_USEFUL:
        raise click.UsageError(
            "the network takes any size: say which to build for, by --shape HxW, or by --min, --opt and --max"
        )
    return size
