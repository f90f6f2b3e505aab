"""The options `--size`, `--max-side` and `--native`: the size that the network runs at."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ..bundle.section import Sides
    from ..runtime.resizing import Sizing

Command = TypeVar("Command", bound=Callable[..., Any])
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})", re.IGNORECASE)


def parse_size(context: click.Context, parameter: click.Parameter, value: str | None) -> Sides | None:
    """Parse HEIGHTxWIDTH in pixels."""
    if value is None:
        return None
    match = _SIZE.fullmatch(value.strip())
    if match is None or "0" in (match[1], match[2]):
        raise click.BadParameter(f'"{value}" is not HEIGHTxWIDTH in pixels, such as 512x1024', context, parameter)
    return int(match[1]), int(match[2])


def size_options(function: Command) -> Command:
    """Add the options; the command receives `size`, `max_side` and `native`, which `choose_size` reads."""
    for option in (
        click.option("--native", is_flag=True, help="Run the network at the images' own size."),
        click.option(
            "--max-side",
            type=click.IntRange(1, 1 << 15),
            metavar="N",
            help="Shrink larger images for the network to N pixels on their longer side.",
        ),
        click.option(
            "--size",
            callback=parse_size,
            metavar="HxW",
            help="Resize images to this size for the network; the labels have the image's size.  [default: the size "
            "the net was made for; images' own size for nets such as DeepLab's]",
        ),
    ):
        function = option(function)
    return function


def choose_size(size: Sides | None, max_side: int | None, native: bool) -> dict[str, Any]:
    """The arguments `size` and `max_side` of `runtime.load`."""
    if (size is not None) + (max_side is not None) + native > 1:
        raise click.UsageError("--size, --max-side and --native exclude each other: give one")
    return {"size": "native" if native else size, "max_side": max_side}


def describe_size(sizing: Sizing) -> str | None:
    """The line that says which size was chosen; None where nothing was chosen and nothing is resized."""
    return None if sizing.is_default and sizing.target is None else sizing.describe()
