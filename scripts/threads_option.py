"""The option `--threads`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
_MOST = 256  # of the pipeline; far more, spinning on a few cores, seem to hang


def _check(context: click.Context, parameter: click.Parameter, value: int | None) -> int | None:
    """Warn about more threads than cores."""
    if value is not None and value > 1:
        from ..runtime.pipeline.engine import count_cores
        from . import console

        if value > (cores := count_cores()):
            console.print_warning(f"warning: --threads {value} on {cores} cores is slower than --threads {cores}")
    return value


def threads_option(help: str = "Number of CPU cores to use.  [default: all]") -> Callable[[Command], Command]:
    """Add `--threads`; the command receives it as `threads`, None by default."""
    return click.option("--threads", type=click.IntRange(1, _MOST), callback=_check, metavar="N", help=help)
