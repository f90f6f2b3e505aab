"""The option `--memory`: the most memory a run may use."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_memory(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Parse 4G, 512M and the like: bytes."""
    if value is None:
        return None
    match = _SIZE.fullmatch(value.strip())
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match is not None else 0
    if size < 1 << 20:
        raise click.BadParameter(f'"{value}" is not a size from 1M up, such as 4G or 512M', context, parameter)
    return size


def memory_option(function: Command) -> Command:
    """Add `--memory`; the command receives it as the argument `memory`, in bytes."""
    return click.option(
        "--memory",
        callback=parse_memory,
        metavar="SIZE",
        help="Most memory to use, such as 4G: larger images are labeled in tiles.  [default: three quarters of what "
        "is free]",
    )(function)
