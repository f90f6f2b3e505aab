"""The figures of docs/precision.md: every precision of one net, as rows of a table.

    python -m tools.precision_figures PROTOTXT IMAGES... -o FOLDER [--size 513x513]

PROTOTXT is a net without weights, such as the published DeepLab-LargeFOV. It gets seeded weights: normal, with standard
deviation sqrt(2 / fan-in), which keeps the scale of activations from layer to layer; biases are 0. The labels of such a
net have no meaning, and the top two scores of many pixels are nearly equal. The figures show the time, the noise of the
blobs, and the agreement of labels in this hard case.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from atrous.bundle.choices import VARIANTS
from atrous.scripts import console


@click.command()
@click.argument("prototxt", type=click.Path(path_type=Path, exists=True))
@click.argument("images", nargs=-1, required=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder of the bundle and figures.")
@click.option("--size", default="513x513", show_default=True, help="Height and width of every image in pixels.")
@click.option("--observe", default=4, show_default=True, help="Number of images observed.")
@click.option("--check", default=2, show_default=True, help="Number of images checked.")
@click.option("--threads", default=1, show_default=True, help="Threads of ONNX Runtime.")
@click.option("--only", multiple=True, type=click.Choice(VARIANTS), help="Precision; may be repeated.  [default: all]")
@console.json_option
def command(
    prototxt: Path,
    images: tuple[str, ...],
    out: Path,
    size: str,
    observe: int,
    check: int,
    threads: int,
    only: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make every precision of a net with seeded weights, whether or not it meets its targets, and print the figures."""
    from atrous.bundle.folder import read_bundle
    from atrous.converter.precision import VariantOptions, make_variant, write_variant
    from atrous.scripts.precision_data import gather_evidence, make_reader
    from atrous.scripts.verify import parse_size

    bundle = out / "bundle"
    if not bundle.exists():
        write_seeded_bundle(prototxt, bundle)
    rows: list[dict[str, Any]] = []
    for precision in only or VARIANTS:
        opened = read_bundle(bundle)
        evidence = gather_evidence(
            opened, precision, images=images, size=parse_size(size), calibrate_on=observe, check_on=check
        )
        options = VariantOptions(precision, sensitivity="never", threads=threads)  # type: ignore[arg-type]
        start_s = time.perf_counter()
        result = make_variant(bundle, options, evidence, make_reader(opened), show=console.show_progress)
        seconds = time.perf_counter() - start_s
        entry = write_variant(bundle, result, keep_anyway=True)
        rows.append({"precision": precision, "seconds": seconds, **entry.verification})
        (out / f"{precision}.json").write_text(json.dumps(rows[-1], indent=1) + "\n", encoding="utf-8")
    if as_json:
        console.print_json("precision_figures", {"rows": rows})
        return
    console.print_table(
        ("precision", "labels %", "clear %", "worst blob", "noise at the end", "seconds", "passed"),
        [
            (
                row["precision"],
                round(row["label_agreement"] * 100, 3),
                round(row["clear_agreement"] * 100, 3),
                f"{row['worst_blob']['name']} {row['worst_blob']['error']:.2e}",
                f"{row['blobs'][-1]['noise']:.2e}",
                round(row["seconds"], 1),
                row["passed"],
            )
            for row in rows
        ],
    )


def write_seeded_bundle(prototxt: Path, bundle: Path, seed: int = 0) -> None:
    """Convert a prototxt with seeded weights; the bundle's name says so."""
    from atrous import converter

    bare = converter.read_net(prototxt)
    random = np.random.default_rng(seed)
    weights = {
        layer.name: [_draw(random, shape, index) for index, shape in enumerate(layer.operator.weight_shapes())]
        for layer in bare.layers
        if layer.operator.weight_shapes()
    }
    net = converter.read_net(prototxt, weights)
    options = converter.BundleOptions(name=f"{net.name or 'net'} with seeded weights", verify=False)
    with console.show_steps() as show:
        converter.write_bundle(net, bundle, options, progress=show)


def _draw(random: np.random.Generator, shape: tuple[int, ...], index: int) -> Any:
    """Draw a kernel (out, in, h, w) with He's standard deviation, or a bias of zeros."""
    if index > 0 or len(shape) < 2:
        return np.zeros(shape, np.float32)
    fan_in = int(np.prod(shape[1:]))
    return (random.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / fan_in))).astype(np.float32)


if __name__ == "__main__":
    command()
