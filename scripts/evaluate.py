"""`atrous evaluate`: mean IoU of a bundle on a labeled dataset, before and after the CRF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console
from .backend_option import backend_options
from .dataset_options import DatasetChoice, dataset_options
from .memory_option import memory_option
from .ray_option import choose_nodes, ray_option
from .size_option import choose_size, describe_size, size_options
from .threads_option import threads_option

if TYPE_CHECKING:
    from ..runtime.evaluation.evaluator import Evaluation
    from ..runtime.evaluation.published import PublishedResult

VARIANT_NAMES = {"network": "network", "crf": "with CRF"}
_SHOWN_FAILURES = 5
_SHOWN = 8  # ignored classes


def _parse_widths(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    widths = sorted({int(part) for part in value.split(",") if part.strip().isdecimal()})
    if len(widths) != len(value.split(",")) or not 1 <= widths[0] <= widths[-1] <= 200:
        raise click.BadParameter(f'"{value}" is not a list of widths from 1 to 200, such as 2,5,10', context, parameter)
    return tuple(widths)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@dataset_options
@click.option("--crf/--no-crf", default=None, help="Evaluate after the CRF only, or without it.  [default: both]")
@click.option(
    "--bands",
    default="2,5,10,20",
    show_default=True,
    callback=_parse_widths,
    metavar="WIDTHS",
    help="Widths of the bands along borders, in pixels.",
)
@click.option(
    "--band-reference",
    type=click.Choice(("void", "labels")),
    help="Bands around void pixels or around borders of labels.  [default: void for voc2012, else labels]",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder for the report and its pictures.")
@click.option("--worst", type=click.IntRange(0, 50), default=6, show_default=True, help="Number of worst images drawn.")
@size_options
@memory_option
@ray_option("Evaluate")
@backend_options
@threads_option()
@console.json_option
def command(
    bundle: Path,
    crf: bool | None,
    bands: tuple[int, ...],
    band_reference: Any,
    out: Path | None,
    worst: int,
    size: tuple[int, int] | None,
    max_side: int | None,
    native: bool,
    memory: int | None,
    ray_address: str | None,
    backend: str,
    device: str | None,
    precision: str,
    threads: int | None,
    as_json: bool,
    **dataset: Any,
) -> int:
    """Evaluate BUNDLE on a labeled dataset.

    \b
    atrous evaluate largefov --dataset voc2012 --root VOCdevkit/VOC2012 -o report
    atrous evaluate mine --dataset folder --images photos --labels masks

    Each image passes the network once and is scored before and after the dense CRF. With -o the folder gets
    evaluation.json and pictures: confusion matrices, IoU near borders, the worst images.

    Exit codes: 0 done, 1 some images failed, 2 wrong usage or files, 3 a library or device is missing.
    """  # noqa: D301 (click's \b keeps the lines as they are)
    from .. import runtime
    from ..bundle.files import prepare_folder
    from ..dependencies import import_optional
    from ..runtime.evaluation.evaluator import choose_variants, evaluate
    from ..runtime.evaluation.ray import evaluate_on_ray
    from ..runtime.evaluation.report import describe_evaluation, write_evaluation
    from ..runtime.pipeline.engine import count_cores

    opened = DatasetChoice(**dataset).open(runtime.read_bundle(bundle))
    if out is not None:
        import_optional("matplotlib")
        prepare_folder(out)
    options: dict[str, Any] = {
        "backend": backend,
        "device": device,
        "precision": precision,
        "memory_bytes": memory,
        **choose_size(size, max_side, native),
    }
    settings: dict[str, Any] = {"widths": bands, "reference": band_reference, "gallery": worst}
    with console.show_progress("evaluating", len(opened)) as advance:
        if ray_address is not None:
            nodes = choose_nodes(ray_address, threads, device)
            evaluation = evaluate_on_ray(bundle, opened, nodes=nodes, crf=crf, advance=advance, **settings, **options)
        else:
            cores = threads or count_cores()
            with runtime.load(bundle, crf="auto" if crf is None else crf, threads=cores, **options) as segmenter:
                variants = choose_variants(crf, segmenter)
                evaluation = evaluate(segmenter, opened, variants=variants, cores=cores, advance=advance, **settings)
    for line in (*evaluation.warnings, *(f"{name}: {error}" for name, error in evaluation.failures[:_SHOWN_FAILURES])):
        console.print_warning(f"atrous evaluate: {line}")
    figures = describe_evaluation(evaluation)
    if as_json:  # before anything is written, so that a full disk costs no figures
        console.keep_json(figures)
    else:
        _print_evaluation(evaluation)
        if (chosen := describe_size(evaluation.sizing)) is not None:
            click.echo(chosen)
    written = write_evaluation(evaluation, out) if out is not None else {}
    if as_json:
        console.print_json("evaluate", {**figures, "files": written})
    for path in written.values() if not as_json else ():
        click.echo(f"-> {path}")
    return 1 if evaluation.failures else 0


def _print_evaluation(evaluation: Evaluation) -> None:
    """Print tables: IoU by class, all figures, the bands, published results."""
    from ..runtime.evaluation.report import FIGURES, list_published, mean_iou_of_mapped

    tallies = list(evaluation.variants.values())
    names = [VARIANT_NAMES[name] for name in evaluation.variants]
    ious = [tally.matrix.class_ious for tally in tallies]
    rows: list[tuple[object, ...]] = [
        (name, *(_percent(column[index]) for column in ious)) for index, name in enumerate(evaluation.classes)
    ]
    console.print_table(("IoU %", *names), rows)
    click.echo()
    rows = [
        (
            metric.replace("_", " ").replace("iou", "IoU"),
            *(_percent(getattr(tally.matrix, metric)) for tally in tallies),
        )
        for metric in FIGURES
    ]
    intervals = [tally.interval() for tally in tallies]
    rows.insert(
        1, ("  95 % interval over images", *(f"{low * 100:.1f} to {high * 100:.1f}" for low, high in intervals))
    )
    mapped = [mean_iou_of_mapped(evaluation, tally) for tally in tallies]
    if mapped[0] is not None:
        rows.insert(1, ("  over the classes of the labels", *(_percent(value or 0.0) for value in mapped)))
    bands = [tally.band_ious() for tally in tallies]
    near = {"void": "void", "labels": "a border"}[evaluation.reference]
    rows += [
        (f"mean IoU within {width} px of {near}", *(_percent(band[index]) for band in bands))
        for index, width in enumerate(evaluation.widths)
    ]
    rows += _tabulate_published(list_published(evaluation), list(evaluation.variants))
    width = len(names) + 2
    console.print_table(("%", *names, ""), [(*row, *("",) * (width - len(row))) for row in rows])
    _print_mapping(evaluation)
    gain = evaluation.gain_interval()
    if gain is not None:
        click.echo(f"the CRF gains {gain[0] * 100:+.2f} to {gain[1] * 100:+.2f} points of mean IoU (95 % over images)")
    failed = f", {len(evaluation.failures)} failed" if evaluation.failures else ""
    count = f"{len(evaluation.images)} image{'s' * (len(evaluation.images) > 1)}"
    limit = "on Ray" if evaluation.pipeline is None else evaluation.pipeline.describe_limit()
    click.echo(f"{count} of {evaluation.dataset.label}{failed}: {limit}")


def _print_mapping(evaluation: Evaluation) -> None:
    """Print the classes that labels were mapped to, and the share of pixels that are ignored."""
    mapping = evaluation.dataset.mapping
    if mapping is None:
        return
    pairs = {name: target for name, target in mapping.describe(evaluation.classes).items() if target is not None}
    renamed = ", ".join(f"{name} -> {target}" for name, target in pairs.items() if name != target)
    others = f"{len(pairs)} of the {len(mapping.names)} classes of the labels ({mapping.source}) have a counterpart"
    console.print_line(f"{others}: {renamed}" if renamed else others)
    if evaluation.ignored:
        total = sum(image.height * image.width for image in evaluation.images)
        shares = ", ".join(f"{name} {count / total:.1%}" for name, count in list(evaluation.ignored.items())[:_SHOWN])
        more = ", ..." if len(evaluation.ignored) > _SHOWN else ""
        share = sum(evaluation.ignored.values()) / total
        console.print_line(f"ignored, {share:.1%} of the pixels, as their classes have no counterpart: {shares}{more}")


def _percent(value: float) -> str:
    return f"{value * 100:.2f}" if value == value else "-"  # nan is not equal to itself


def _tabulate_published(results: Sequence[PublishedResult], variants: list[str]) -> list[tuple[object, ...]]:
    """One row per model and table, before and after the CRF side by side, if it has a result of any variant."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for result in results:
        name = f"published: {result.model}, {result.split}"
        where = "; ".join(filter(None, (result.source, result.note)))
        rows.setdefault((name, where), {})["crf" if result.crf else "network"] = _percent(result.mean_iou)
    return [
        (name, *(cells.get(variant, "") for variant in variants), where)
        for (name, where), cells in rows.items()
        if any(variant in cells for variant in variants)
    ]
