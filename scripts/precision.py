"""`atrous precision`: a bundle's network in FP16, BF16, INT8 or FP8, checked on the CPU before it counts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console

if TYPE_CHECKING:
    from ..converter.precision import VariantResult

_ROWS_SHOWN = 12


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--to", "precision", type=click.Choice(["fp16", "bf16", "int8", "fp8"]), required=True, help="Precision.")
@click.option("--images", multiple=True, metavar="FOLDER", help="Images to observe and check on; may be repeated.")
@click.option(
    "--dataset",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="IMAGES LABELS",
    help="Folders of images and label images of equal names, to check mean IoU on.",
)
@click.option("--size", metavar="HxW", help="Resize every image to this.")
@click.option("--calibrate-on", type=click.IntRange(1), default=32, show_default=True, help="Images observed at most.")
@click.option("--check-on", type=click.IntRange(1), default=8, show_default=True, help="Images checked at most.")
@click.option(
    "--method",
    type=click.Choice(["minmax", "percentile", "entropy"]),
    default="minmax",
    show_default=True,
    help="How ranges of int8 and fp8 are found.",
)
@click.option("--percentile", type=float, default=99.99, show_default=True, help="Of the method percentile.")
@click.option("--keep", multiple=True, metavar="NAME", help="Layer to leave alone; may be repeated.")
@click.option(
    "--rest",
    type=click.Choice(["fp32", "fp16"]),
    default="fp32",
    show_default=True,
    help="What layers of int8 and fp8 that are not quantised compute in; fp16 is for TensorRT 10 and newer.",
)
@click.option(
    "--activations",
    type=click.Choice(["int8", "uint8"]),
    default="int8",
    show_default=True,
    help="Codes of int8 activations: int8 for TensorRT; uint8 for CPUs, where int8 is no faster than float32.",
)
@click.option("--target-agreement", type=click.FloatRange(0, 1), help="Least share of labels equal to float32's.")
@click.option("--max-miou-loss", type=float, help="Largest loss of mean IoU, in points.")
@click.option(
    "--sensitivity",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Measure layers one by one and leave the worst alone: where targets are missed, always, or never.",
)
@click.option("--keep-anyway", is_flag=True, help="Write the variant even where it misses its targets, marked so.")
@click.option("--plot", type=click.Path(path_type=Path), help="Write a picture of every layer's error (PNG).")
@click.option("--threads", type=click.IntRange(min=1), help="Of ONNX Runtime.  [default: all cores]")
@console.json_option
def command(
    bundle: Path,
    precision: Any,
    images: tuple[str, ...],
    dataset: tuple[Path, Path] | None,
    size: str | None,
    calibrate_on: int,
    check_on: int,
    method: Any,
    percentile: float,
    keep: tuple[str, ...],
    rest: Any,
    activations: Any,
    target_agreement: float | None,
    max_miou_loss: float | None,
    sensitivity: Any,
    keep_anyway: bool,
    plot: Path | None,
    threads: int | None,
    as_json: bool,
) -> int:
    """Add a variant of BUNDLE's network in another precision, if it is as good as float32.

    Targets, where none is given: fp16 and bf16, 99.9 % of the labels as in float32; int8 and fp8, at most 1 point of
    mean IoU lost where there are labelled images, else 99 % of the labels. A variant that misses them is not written,
    and the exit code is 1.
    """
    from ..dependencies import import_optional

    for library in ("onnx", "onnx_ir", "onnxruntime"):
        import_optional(library)
    from ..bundle.folder import read_bundle
    from ..converter.precision import VariantOptions, choose_targets, make_variant, write_variant
    from .precision_data import DataOptions, gather_evidence, make_reader
    from .verify import parse_size

    opened = read_bundle(bundle)
    data = DataOptions(images, dataset, parse_size(size) if size else None, calibrate_on, check_on)
    evidence = gather_evidence(opened, precision, data)
    labelled = any(picture.truth is not None for picture in evidence.pictures)
    options = VariantOptions(
        precision=precision,
        targets=choose_targets(precision, labelled, agreement=target_agreement, max_miou_loss=max_miou_loss),
        keep=keep,
        method=method,
        percentile=percentile,
        rest=rest,
        activations=activations,
        sensitivity=sensitivity,
        threads=threads,
    )
    result = make_variant(bundle, options, evidence, make_reader(opened), show=console.show_progress)
    if plot is not None:
        from .precision_picture import draw_layers

        draw_layers(result.assessment.rows, f"{opened.manifest.name} in {precision}", plot)
    if not as_json:
        _print(result)
    entry = write_variant(bundle, result, keep_anyway=keep_anyway)
    if as_json:
        console.print_json("precision", {"bundle": str(bundle), "passed": result.passed, "variant": entry})
    else:
        click.secho(f"\nwritten: {bundle / entry['file']}", fg="green" if result.passed else "yellow")
    return 0


def _print(result: VariantResult) -> None:
    entry, assessment = result.entry, result.assessment
    rows = sorted(assessment.rows, key=lambda row: -row.step)[:_ROWS_SHOWN]
    console.print_table(
        ("layer", "blob", "error", "noise", "of its own", ""),
        [
            (row.layer, row.name, f"{row.error:.2e}", f"{row.noise:.2e}", f"{row.step:.2e}", _draw_bar(row.step, rows))
            for row in rows
        ],
        title=f"layers that add the most noise in {entry['precision']}",
    )
    if result.sensitivities:
        console.print_table(
            ("layer alone", "noise of the scores", "labels changed"),
            [
                (row.layer, "" if row.noise is None else f"{row.noise:.2e}", f"{row.disagreement:.3%}")
                for row in result.sensitivities[:_ROWS_SHOWN]
            ],
            title="\nsensitivity, the worst first",
        )
    for name, text in _summarize(result):
        click.echo(f"{name:<22}{text}")


def _summarize(result: VariantResult) -> list[tuple[str, str]]:
    verification, agreement = result.entry["verification"], result.assessment.agreement
    worst, diverges = result.assessment.worst, result.assessment.diverges_at
    lines = [("", ""), ("labels as in float32", f"{agreement.share:.3%} of {agreement.images} images")]
    if agreement.clear_share is not None:
        clear = agreement.clear / max(agreement.pixels, 1)
        lines.append(("  of clear pixels", f"{agreement.clear_share:.3%} (clear are {clear:.1%})"))
    if result.assessment.miou is not None:
        before, after = result.assessment.miou
        loss = round((before - after) * 100, 2) + 0.0  # no minus zero
        lines.append(("mean IoU", f"{before:.2%} in float32, {after:.2%} now: {loss:.2f} points less"))
    if worst is not None and diverges is not None:
        lines.append(("worst blob", f"{worst.name}, error {worst.error:.2e}"))
        lines.append(("diverges at", f"{diverges.layer}, which adds {diverges.step:.2e} of noise"))
    if verification["weights"] is not None:
        loss = verification["weights"]
        lines.append(("weights", f"{loss['flushed_share']:.3%} become 0, {loss['subnormal_share']:.3%} lose digits"))
    if verification["left_alone"]:
        lines.append(("left alone", ", ".join(verification["left_alone"])))
    shipped = verification["onnxruntime_cpu"]
    if not shipped["runs"]:
        runs = f"does not run it ({shipped['reason']})"
    else:
        runs = f"{shipped['label_agreement']:.3%} of the labels"
        if shipped["graph_level"] != "all":
            runs += f", unoptimized; its optimizations break the graph: {shipped['optimized_agreement']:.3%}"
    lines.append(("ONNX Runtime's CPU", runs))
    lines.append(("seconds", f"{sum(result.seconds.values()):.1f}"))
    lines += [("MISSED", miss) for miss in result.misses]
    return lines


def _draw_bar(step: float, rows: Any) -> str:
    largest = max((row.step for row in rows), default=0.0)
    return "#" * round(24 * step / largest) if 0 < largest < float("inf") and step < float("inf") else ""


__all__ = ["command"]
