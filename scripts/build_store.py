"""What `atrous build` does with the engines that are there: list them, remove what is of no use, trust one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import console

if TYPE_CHECKING:
    from ..runtime.backends.tensorrt.store import EngineStore
    from ..runtime.bundle import Bundle


def list_engines(store: EngineStore, as_json: bool) -> int:
    """Print the engines of a store, oldest first."""
    from ..runtime.backends.tensorrt.workflow import describe_engine

    rows = [describe_engine(engine, store.is_own) for engine in store.list_engines()]
    if as_json:
        console.print_json("build", {"folder": store.folder, "engines": rows})
        return 0
    if not rows:
        click.echo(f"{store.folder}: no engines")
        return 0
    console.print_table(
        ("key", "precision", "tensorrt", "gpu", "MB", "signed here", "created"),
        [
            (
                str(row["key"])[:12],
                row["precision"],
                row["tensorrt"],
                row["gpu"],
                round(float(str(row["plan_bytes"])) / 1e6, 1),
                "yes" if row["signed_here"] else "no",
                row["created"],
            )
            for row in rows
        ],
        title=str(store.folder),
    )
    return 0


def collect_garbage(store: EngineStore, bundle: Bundle, dry_run: bool, as_json: bool) -> int:
    """Remove, or with `dry_run` name, what is broken or built from a file that the bundle no longer holds."""
    present = {entry.sha256 for entry in bundle.manifest.files.values()}
    collect = store.find_garbage if dry_run else store.collect_garbage
    garbage = collect(lambda engine: engine.fields.get("onnx.sha256") in present)
    if as_json:
        rows = [{"path": path, "reason": reason} for path, reason in garbage.items()]
        console.print_json("build", {"folder": store.folder, "removed": not dry_run, "garbage": rows})
        return 0
    for path, reason in garbage.items():
        click.echo(f"{'would remove' if dry_run else 'removed'} {path}: {reason}")
    click.echo(f"{store.folder}: {len(garbage)} {'to remove' if dry_run else 'removed'}")
    return 0


def trust_engine(store: EngineStore, key: str, as_json: bool) -> int:
    """Sign the one engine whose key begins so.

    Raises:
        click.BadParameter: if none or several do.
    """
    found = [engine for engine in store.list_engines() if engine.folder.name.startswith(key)]
    if len(found) != 1:
        raise click.BadParameter(f'{len(found)} engines begin with "{key}"; see --list', param_hint="--trust")
    trusted = store.trust(found[0])
    if as_json:
        console.print_json("build", {"trusted": trusted.folder.name, "folder": trusted.folder})
    else:
        click.echo(f"{trusted.folder}: signed by this installation from now on")
    return 0
