"""`atrous precision`: add a variant of a bundle in FP16, BF16, INT8 or FP8, compared with float32 on the CPU first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..bundle.choices import VARIANTS
from . import console
from .dataset_options import MAP_OPTIONS
from .threads_option import threads_option

if TYPE_CHECKING:
    from ..converter.precision import VariantResult

_ROWS_SHOWN = 12


def _choice(name: str, values: Sequence[str], description: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return an option with these values, the first by default."""
    return click.option(name, type=click.Choice(values), default=values[0], show_default=True, help=description)


def _count(name: str, default: int, description: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(name, type=click.IntRange(1), default=default, show_default=True, help=description)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--to", "precision", type=click.Choice(VARIANTS), required=True, help="Precision of the variant.")
@click.option("--images", multiple=True, metavar="FOLDER", help="Images to calibrate and check on; may be repeated.")
@click.option(
    "--dataset",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="IMAGES LABELS",
    help="Folders of images and label images of equal names, to check mean IoU on.",
)
@MAP_OPTIONS[1]
@MAP_OPTIONS[0]
@click.option("--size", metavar="HxW", help="Resize every image to this height and width in pixels.")
@_count("--calibrate-on", 32, "Largest number of images observed.")
@_count("--check-on", 8, "Largest number of images checked.")
@_choice("--method", ("minmax", "percentile", "entropy"), "Calibration method of int8 and fp8.")
@click.option(
    "--percentile",
    type=float,
    default=99.99,
    show_default=True,
    help="Percentage of the values that the method percentile covers.",
)
@click.option("--keep", multiple=True, metavar="NAME", help="Layer to leave alone; may be repeated.")
@_choice(
    "--rest",
    ("fp32", "fp16"),
    "Type of the layers of int8 and fp8 that are not quantized; fp16 is for TensorRT 10 and newer.",
)
@_choice(
    "--activations",
    ("int8", "uint8"),
    "Codes of int8 activations: int8 for TensorRT; uint8 for CPUs, where int8 is no faster than float32.",
)
@click.option(
    "--weight-bits",
    type=click.IntRange(7, 8),
    help="Bits of int8 weights, 7 or 8; CPUs without VNNI compute faster with 7.  [default: 7 with uint8 activations, "
    "else 8]",
)
@click.option("--target-agreement", type=click.FloatRange(0, 1), help="Least share of labels equal to float32's.")
@click.option("--max-miou-loss", type=float, help="Largest loss of mean IoU, in points.")
@_choice(
    "--sensitivity",
    ("auto", "always", "never"),
    "When to measure layers one by one and leave the worst alone; auto: if targets are missed.",
)
@click.option("--keep-anyway", is_flag=True, help="Write the variant even if it misses its targets, marked as such.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write a picture of every layer's error (PNG)."
)
@threads_option("Threads of ONNX Runtime.  [default: all cores]")
@console.json_option
def command(
    bundle: Path,
    images: tuple[str, ...],
    dataset: tuple[Path, Path] | None,
    label_classes: str | None,
    map_file: Path | None,
    size: str | None,
    calibrate_on: int,
    check_on: int,
    keep_anyway: bool,
    plot: Path | None,
    as_json: bool,
    **variant: Any,
) -> int:
    """Add a variant of BUNDLE's network in another precision if it is as good as float32.

    Default targets: for fp16 and bf16, 99.9 % of the labels agree with float32; for int8 and fp8, at most 1 point of
    mean IoU is lost on labeled images, or 99 % of the labels agree on others. A variant that misses its targets is not
    written, and the exit code is 1.
    """
    from ..dependencies import import_optional

    for library in ("onnx", "onnx_ir", "onnxruntime"):
        import_optional(library)
    from ..bundle.files import prepare_folder
    from ..bundle.folder import read_bundle
    from ..converter.precision import VariantOptions, make_variant, write_variant
    from .precision_data import gather_evidence, make_reader
    from .verify import parse_size

    is_mapped = label_classes is not None or map_file is not None
    if is_mapped and dataset is None:
        raise click.UsageError("--label-classes and --map are for the labels of --dataset")
    options = VariantOptions(**variant)
    opened = read_bundle(bundle)
    prepare_folder(bundle)
    if plot is not None:
        prepare_folder(next(folder for folder in plot.absolute().parents if folder.exists()))
    evidence = gather_evidence(
        opened,
        options.precision,
        images=images,
        dataset=dataset,
        label_classes=label_classes,
        map_file=map_file,
        size=parse_size(size) if size else None,
        calibrate_on=calibrate_on,
        check_on=check_on,
    )
    result = make_variant(
        bundle, options, evidence, make_reader(opened, is_mapped=is_mapped), show=console.show_progress
    )
    if as_json:
        console.keep_json({"bundle": str(bundle), "passed": result.passed, "variant": result.entry})
    else:
        _print(result)
    if plot is not None:
        from .precision_picture import draw_layers

        draw_layers(result.assessment.rows, f"{opened.manifest.name} in {options.precision}", plot)
    entry = write_variant(bundle, result, keep_anyway=keep_anyway)
    if as_json:
        console.print_json(
            "precision", {"bundle": str(bundle), "passed": result.passed, "variant": entry.model_dump(mode="json")}
        )
    else:
        click.secho(f"\nwritten: {bundle / entry.file}", fg="green" if result.passed else "yellow")
    return 0


def _print(result: VariantResult) -> None:
    rows = sorted(result.assessment.rows, key=lambda row: -row.step)[:_ROWS_SHOWN]
    largest = max((row.step for row in rows), default=0.0)
    console.print_table(
        ("layer", "blob", "error", "noise", "added", ""),
        [
            (
                row.layer,
                row.name,
                f"{row.error:.2e}",
                f"{row.noise:.2e}",
                f"{row.step:.2e}",
                "#" * round(24 * row.step / largest) if 0 < largest < float("inf") else "",
            )
            for row in rows
        ],
        title=f"layers that add the most noise in {result.entry['precision']}",
    )
    if result.sensitivities:
        console.print_table(
            ("layer alone", "noise of the scores", "labels changed"),
            [
                (row.layer, "" if row.noise is None else f"{row.noise:.2e}", f"{row.disagreement:.3%}")
                for row in result.sensitivities[:_ROWS_SHOWN]
            ],
            title="\nsensitivity, most sensitive first",
        )
    for name, text in _summarize(result):
        click.echo(f"{name:<22}{text}")


def _summarize(result: VariantResult) -> list[tuple[str, str]]:
    verification, agreement = result.entry["verification"], result.assessment.agreement
    worst, diverges = result.assessment.worst, result.assessment.diverges_at
    lines = [("", ""), ("labels as in float32", f"{agreement.share:.3%} on {agreement.images} images")]
    if agreement.clear_share is not None:
        clear = agreement.clear / max(agreement.pixels, 1)
        lines.append(("  of clear pixels", f"{agreement.clear_share:.3%} ({clear:.1%} of the pixels are clear)"))
    if result.assessment.miou is not None:
        before, after = result.assessment.miou
        points = round((before - after) * 100, 2) + 0.0  # no minus zero
        lines.append(
            ("mean IoU", f"{before:.2%} in float32, {after:.2%} in the variant: a loss of {points:.2f} points")
        )
    if worst is not None and diverges is not None:
        lines.append(("worst blob", f"{worst.name}, error {worst.error:.2e}"))
        lines.append(("diverges at", f"{diverges.layer}, which adds {diverges.step:.2e} of noise"))
    loss = verification["weights"]
    if loss is not None:
        lines.append(("weights", f"{loss['flushed_share']:.3%} become 0, {loss['subnormal_share']:.3%} lose digits"))
    if verification["left_alone"]:
        lines.append(("left alone", ", ".join(verification["left_alone"])))
    shipped = verification["onnxruntime_cpu"]
    if not shipped["runs"]:
        runs = f"cannot run the file ({shipped['reason']})"
    else:
        runs = f"{shipped['label_agreement']:.3%} of the labels"
        if shipped["graph_level"] != "all":
            runs += f", unoptimized; its optimizations break the graph: {shipped['optimized_agreement']:.3%}"
    lines.append(("ONNX Runtime's CPU", runs))
    lines.append(("seconds", f"{sum(verification['seconds'].values()):.1f}"))
    return lines + [("MISSED", miss) for miss in result.misses]


__all__ = ["command"]
