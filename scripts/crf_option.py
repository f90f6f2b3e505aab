"""`--crf/--no-crf`, shared by the commands whose default is the bundle's own choice."""

from __future__ import annotations

from typing import Literal

import click


def _choose(context: click.Context, parameter: click.Parameter, value: bool | None) -> bool | Literal["auto"]:
    return "auto" if value is None else value


#: the command receives `crf` as `runtime.load` takes it
crf_option = click.option(
    "--crf/--no-crf",
    default=None,
    callback=_choose,
    help="Require the dense CRF, or turn it off.  [default: as the bundle]",
)
