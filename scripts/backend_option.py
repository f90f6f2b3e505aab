"""The options of commands that run a network: `--backend`, `--device`, `--precision`.

The names of backends are looked up when one is given, not when the command line starts: their package costs more to
import than `--help` may.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")


def _check_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Refuse what is no backend."""
    from ..runtime.backends import BACKENDS

    if value not in BACKENDS:
        raise click.BadParameter(f'"{value}" is none of {", ".join(BACKENDS)}', context, parameter)
    return value


def backend_options(function: Command) -> Command:
    """Give a command `backend`, `device` (None for the backend's usual one) and `precision`."""
    for option in (
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default="fp32",
            show_default=True,
            help="What the network computes in; `atrous precision` adds others to a bundle.",
        ),
        click.option("--device", type=click.Choice(("cpu", "cuda")), help="Where it runs.  [default: as the backend]"),
        click.option(
            "--backend",
            callback=_check_name,
            default="onnxruntime",
            show_default=True,
            metavar="NAME",
            help="What runs the network, such as onnxruntime, openvino or torch.",
        ),
    ):
        function = option(function)
    return function
