"""The options `--mean`, `--scale` and `--color-order`: another preprocessing, to try it without converting again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..bundle.choices import COLOR_ORDERS

if TYPE_CHECKING:
    from ..runtime import PixelRule

Command = TypeVar("Command", bound=Callable[..., Any])


def parse_mean(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """Parse one number or three, separated by commas."""
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)):
        raise click.BadParameter(f'"{value}" is not one number or three, such as 104,117,123', context, parameter)
    return numbers


def pixel_options(function: Command) -> Command:
    """Add the options; the command receives `mean`, `scale` and `color_order`, which `choose_pixels` reads."""
    for option in (
        click.option(
            "--color-order",
            type=click.Choice(COLOR_ORDERS),
            help="Try this channel order of the network.  [default: the bundle's]",
        ),
        click.option(
            "--scale", type=float, metavar="FACTOR", help="Try this factor after the mean.  [default: the bundle's]"
        ),
        click.option(
            "--mean",
            callback=parse_mean,
            metavar="A,B,C",
            help="Try this mean pixel, in gray levels and the network's channel order.  [default: the bundle's]",
        ),
    ):
        function = option(function)
    return function


def choose_pixels(mean: tuple[float, ...] | None, scale: float | None, color_order: Any) -> PixelRule | None:
    """The argument `pixels` of `runtime.load`; None if no option was given."""
    from ..runtime import PixelRule

    rule = PixelRule(mean, scale, color_order)
    return None if rule == PixelRule() else rule
