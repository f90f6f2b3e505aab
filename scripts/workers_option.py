"""`--workers decode=1,crf=2`: the number of concurrent calls of pipeline stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def parse_workers(context: click.Context, parameter: click.Parameter, value: str | None) -> dict[str, int]:
    """Number of concurrent calls by stage."""
    counts: dict[str, int] = {}
    for part in value.split(",") if value else ():
        name, _, count = part.strip().partition("=")
        if not name or not count.isdecimal() or not 1 <= int(count) <= 256:
            raise click.BadParameter(f'"{part}" is not STAGE=COUNT, such as crf=2', context, parameter)
        counts[name] = int(count)
    return counts


def workers_option(function: Command) -> Command:
    """Add `--workers`; the command receives it as the argument `workers`."""
    return click.option(
        "--workers",
        callback=parse_workers,
        metavar="STAGE=N,...",
        help="Concurrent calls of stages, e.g. decode=1,crf=2.  [default: 1 for the network, else one per core]",
    )(function)
