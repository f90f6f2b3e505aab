"""`atrous pack`: a copy of a bundle for serving, by `atrous.bundle.pack_bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import console

if TYPE_CHECKING:
    from ..bundle.choices import Precision


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(("fp32", "fp16", "bf16", "int8", "fp8")),
    multiple=True,
    help="A precision to keep beside fp32; may be repeated.  [default: all]",
)
@click.option("--force", is_flag=True, help="Replace OUT if it is a bundle.")
@console.json_option
def command(bundle: Path, out: Path, precisions: tuple[Precision, ...], force: bool, as_json: bool) -> None:
    """Copy what BUNDLE needs to label images (or `atrous run`), and nothing else.

    The copy holds the manifest and the graphs that take images. It lacks the torch model and model.onnx, so `verify`,
    `precision` and other preprocessings need the bundle itself.
    """
    from ..bundle import pack_bundle

    packed = pack_bundle(bundle, out, precisions=precisions or None, replace=force)
    files = packed.manifest.files
    size_bytes = sum(entry.bytes for entry in files.values())
    if as_json:
        report = {"bundle": bundle, "out": out, "files": sorted(files), "bytes": size_bytes}
        console.print_json("pack", report)
    else:
        console.print_line(f"{', '.join(sorted(files))}: {size_bytes / 1e6:.1f} MB -> {out}")
