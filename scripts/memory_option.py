"""The option `--memory`, the most memory a run may use, and how numbers of bytes are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def read_bytes(text: str) -> int | None:
    """Read a number of bytes, such as 4G, 4GiB or 500M, in powers of 1024; None if it is not one."""
    match = _SIZE.fullmatch(text.strip())
    return None if match is None else int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def parse_bytes(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Parse an option's number of bytes."""
    size = None if value is None else read_bytes(value)
    if value is not None and size is None:
        raise click.BadParameter(f'"{value}" is not a number of bytes such as 4G', context, parameter)
    return size


def parse_memory(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Parse 4G, 512M and the like: bytes."""
    if value is None:
        return None
    size = read_bytes(value)
    if size is None or size < 1 << 20:
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
