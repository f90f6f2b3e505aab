"""`atrous merge`: check the shards of `segment --shard` and join their records, by `runtime.batch.merge_runs`."""

from __future__ import annotations

import dataclasses

import click

from . import console


@click.command()
@click.argument("folders", metavar="OUT...", nargs=-1, required=True)
@click.option(
    "-o",
    "--out",
    help="Folder to join several folders in.  [default: the only one]",
)
@console.json_option
def command(folders: tuple[str, ...], out: str | None, as_json: bool) -> int:
    """Check the shards in OUT... and join their records to done.jsonl.

    OUT... is the folder that all processes of `segment --shard I/N` wrote to, or the folders of each of them. The check
    fails if a shard is missing or unfinished, was made with another bundle or other settings, or saw another list of
    images; if a result is missing or was recorded twice. Nothing is changed then.

    Results of other folders are linked or copied to the folder of -o. The next `segment` with the same options, with or
    without --shard, skips all that is done.

    Exit codes: 0 all done, 1 some images failed (failures.jsonl), 2 the check failed.
    """
    from ..runtime.batch import merge_runs

    with console.show_progress("checking", None, unit="results") as advance:
        summary = merge_runs(folders, out, advance=advance)
    target = folders[0] if out is None else out
    if as_json:
        console.print_json("merge", {"out": target, **dataclasses.asdict(summary)})
    else:
        failed = f", {summary.failed} failed (see failures.jsonl)" if summary.failed else ""
        copied = f", {summary.copied} files brought together" if summary.copied else ""
        console.print_line(
            f"{summary.shards} shards are complete: {summary.images} images, {summary.finished} results"
            f"{failed}{copied} -> {target}"
        )
    return 1 if summary.failed else 0
