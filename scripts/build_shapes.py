"""Reads the sizes and batches of `atrous build`'s command line, and makes optimization profiles of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..bundle.size_rule import SizeRule
    from ..runtime.backends.tensorrt.options import Profile

Size = tuple[int, int]  # height, width
Batch = tuple[int, int, int]  # minimum, optimum, maximum
_SMALLEST_USEFUL = 32  # pixels; a smaller minimum of the size rule says nothing about the user's images


def read_size(text: str, option: str) -> Size:
    """Read a height and a width in pixels, such as 513x513; a single number is both."""
    parts = text.lower().replace(",", "x").split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f'"{text}" is not a size such as 513x513', param_hint=option)
    return int(parts[0]), int(parts[-1])


def read_batch(text: str | None) -> Batch | None:
    """Read the images per run: one number, minimum:maximum, or minimum:optimum:maximum; None stays None."""
    if text is None:
        return None
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f'"{text}" is not a batch such as 1, 1:8 or 1:4:8', param_hint="--batch")
    numbers = [int(part) for part in parts]
    return numbers[0], numbers[len(numbers) // 2], numbers[-1]


def make_profiles(
    name: str,
    shape: Sequence[int],
    rule: SizeRule,
    batch: Batch | None,
    sizes: Sequence[Size],
    ranges: tuple[Sequence[Size], Sequence[Size], Sequence[Size]],
) -> tuple[Profile, ...]:
    """Make a profile of each size and of each range (minimum, optimum, maximum) of a bundle's input, N x H x W x 3.

    `shape` is the input's shape in the graph, -1 for a dynamic size; `batch` None is the graph's own, or 1.
    click.UsageError is raised if the ranges are incomplete, the network has another batch or other sizes, or there is
    no size to build for.
    """
    from ..runtime.backends.tensorrt.options import ShapeRange

    minima, optima, maxima = ranges
    if not len(minima) == len(optima) == len(maxima):
        raise click.UsageError(
            f"--min, --opt and --max make profiles together; {len(minima)}, {len(optima)} and {len(maxima)} are given"
        )
    if batch is None:
        batch = (abs(shape[0]),) * 3
    if shape[0] != -1 and set(batch) != {shape[0]}:
        raise click.UsageError(f"the network takes {shape[0]} images per run only: give --batch {shape[0]}")
    if -1 not in shape:
        if sizes or minima:
            raise click.UsageError(f"the network takes {'x'.join(map(str, shape))} only: omit the sizes")
        return ()
    for size in (*sizes, *minima, *optima, *maxima):
        if any(side not in (-1, given) for side, given in zip(shape[1:3], size, strict=True)):
            only = "x".join(letter if side == -1 else str(side) for letter, side in zip("HW", shape[1:3], strict=True))
            raise click.UsageError(
                f"{size[0]}x{size[1]} pixels are given, the network takes only {only}: omit the sizes, or give that"
            )
    if not sizes and not minima:
        sizes = [_find_usual_size(rule, shape)]
    profiles = []
    for triple in (*((size, size, size) for size in sizes), *zip(minima, optima, maxima, strict=True)):
        shapes = [
            tuple(given if side == -1 else side for side, given in zip(shape, (images, *size, 3), strict=True))
            for images, size in zip(batch, triple, strict=True)
        ]
        profiles.append({name: ShapeRange(*shapes)})
    return tuple(profiles)


def _find_usual_size(rule: SizeRule, shape: Sequence[int]) -> Size:
    if -1 not in shape[1:3]:
        return shape[1], shape[2]
    size = rule.fixed or rule.minimum
    if min(size) < _SMALLEST_USEFUL:
        raise click.UsageError(
            "the network takes any size: choose the sizes to build for with --shape HxW, or with --min, --opt and --max"
        )
    return size
