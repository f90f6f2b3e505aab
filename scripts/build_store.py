"""The store commands of `atrous build`: list engines, remove unused ones, trust one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from . import console

if TYPE_CHECKING:
    from ..bundle.folder import Bundle
    from ..runtime.backends.tensorrt.store import EngineStore, StoredEngine


def list_engines(store: EngineStore, as_json: bool) -> int:
    """Print the engines of a store, oldest first."""
    from ..runtime.backends.tensorrt.workflow import describe_engine

    rows = [describe_engine(engine, store) for engine in store.list_engines()]
    if as_json:
        console.print_json("build", {"folder": store.folder, "engines": rows})
    elif not rows:
        click.echo(f"{store.folder}: no engines")
    else:
        columns = ("key", "precision", "tensorrt", "gpu", "MB", "signed here", "created")
        cells = [
            (
                str(row["key"])[:12],
                *(row[name] for name in columns[1:4]),
                round(float(str(row["plan_bytes"])) / 1e6, 1),
                "yes" if row["signed_here"] else "no",
                row["created"],
            )
            for row in rows
        ]
        console.print_table(columns, cells, title=str(store.folder))
    return 0


def collect_garbage(
    store: EngineStore, bundle: Bundle, *, outdated: bool, rtx: bool, dry_run: bool, as_json: bool
) -> int:
    """Remove, or with `dry_run` list, engines that are broken or built from a file no longer in the bundle.

    With `outdated`, engines that another TensorRT or driver built for this GPU are removed as well; with `rtx` too,
    instead those of another version of TensorRT for RTX.
    """
    present = {entry.sha256 for entry in bundle.manifest.files.values()}
    find_outdated = _make_outdated(rtx) if outdated else lambda engine: ""

    def find_reason(engine: StoredEngine) -> str:
        if engine.fields.get("onnx.sha256") not in present:
            return "the bundle no longer holds its graph"
        return find_outdated(engine)

    garbage = store.collect_garbage(find_reason, dry_run=dry_run)
    if as_json:
        rows = [{"path": path, "reason": reason} for path, reason in garbage.items()]
        console.print_json("build", {"folder": store.folder, "removed": not dry_run, "garbage": rows})
        return 0
    for path, reason in garbage.items():
        click.echo(f"{'would remove' if dry_run else 'removed'} {path}: {reason}")
    click.echo(f"{store.folder}: {len(garbage)} {'to remove' if dry_run else 'removed'}")
    return 0


def trust_engine(store: EngineStore, key: str, as_json: bool) -> int:
    """Sign the engine whose key begins with `key`; raises click.BadParameter unless exactly one does."""
    found = [engine for engine in store.list_engines() if engine.folder.name.startswith(key)]
    if len(found) != 1:
        raise click.BadParameter(f'{len(found)} keys begin with "{key}"; see --list', param_hint="--trust")
    trusted = store.trust(found[0])
    if as_json:
        console.print_json("build", {"trusted": trusted.folder.name, "folder": trusted.folder})
    else:
        click.echo(f"{trusted.folder}: now signed by this installation")
    return 0


def _make_outdated(rtx: bool) -> Callable[[StoredEngine], str]:
    from ..runtime.backends.tensorrt import compat, keys
    from ..runtime.backends.tensorrt.rtx.library import find_library

    if rtx:
        version = find_library().version
        return lambda engine: keys.find_outdated_rtx(engine.fields, version)
    _, capabilities = compat.load_tensorrt()
    machine = keys.read_machine()
    return lambda engine: keys.find_outdated(engine.fields, machine, capabilities)
