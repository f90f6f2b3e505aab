"""The options of commands that run a network: `--backend`, `--device`, `--precision`.

The names of backends are imported when the command runs: their package is too slow to import for `--help`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..bundle.choices import PRECISIONS

Command = TypeVar("Command", bound=Callable[..., Any])


def _check_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Reject an unknown backend."""
    from ..runtime.backends import BACKENDS

    if value not in BACKENDS:
        raise click.BadParameter(f'"{value}" is not a backend: use one of {", ".join(BACKENDS)}', context, parameter)
    return value


precision_option = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp32",
    show_default=True,
    help="Precision of the network; `atrous precision` adds variants in others to a bundle.",
)


def backend_options(function: Command) -> Command:
    """Add the options; the command receives `backend`, `device` (None for the backend's default) and `precision`."""
    for option in (
        precision_option,
        click.option(
            "--device", type=click.Choice(("cpu", "cuda")), help="Device of the network.  [default: the backend's]"
        ),
        click.option(
            "--backend",
            callback=_check_name,
            default="onnxruntime",
            show_default=True,
            metavar="NAME",
            help="Library that runs the network, such as onnxruntime, openvino or torch.",
        ),
    ):
        function = option(function)
    return function
