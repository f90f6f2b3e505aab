"""`--shard I/N`: part of the images, shared by `segment` and `run`."""

from __future__ import annotations

import click


def _parse_shard(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    from ..errors import InputError
    from ..runtime.batch.shards import parse_shard

    try:
        shard = parse_shard(value)
    except InputError as error:
        raise click.BadParameter(str(error), context, parameter) from None
    return shard.index, shard.count


shard_option = click.option(
    "--shard",
    callback=_parse_shard,
    metavar="I/N",
    help="Process only the images of shard I of N, with I from 0: N processes share the work (docs/cluster.md).",
)
