"""The option `--ray`: the work is done on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ..runtime.ray_pool import RayNodes

Command = TypeVar("Command", bound=Callable[..., Any])
_LOCAL = "local"


def ray_option(verb: str) -> Callable[[Command], Command]:
    """Add `--ray`; the command receives it as `ray_address`, None by default, and passes it to `choose_nodes`."""
    return click.option(
        "--ray",
        "ray_address",
        is_flag=False,
        flag_value=_LOCAL,
        metavar="[ADDRESS]",
        help=f"{verb} on a Ray cluster (docs/cluster.md): auto, ray://HOST:10001; without an address, on this machine.",
    )


def choose_nodes(address: str, threads: int | None, device: str | None) -> RayNodes:
    """The cluster of `--ray`, with actors of `--threads` cores and, on `--device cuda`, a GPU."""
    from ..runtime.ray_pool import RayNodes

    gpus = 1.0 if device not in (None, "cpu") else 0.0
    return RayNodes(None if address == _LOCAL else address, cores=threads, gpus=gpus)
