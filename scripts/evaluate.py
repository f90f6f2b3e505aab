"""`atrous evaluate`: mean IoU of a bundle on a labelled data set, before and after the CRF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console
from .backend_option import backend_options
from .dataset_options import DatasetChoice, dataset_options

if TYPE_CHECKING:
    from ..runtime.evaluation.evaluator import Evaluation
    from ..runtime.evaluation.published import Published

CRF_CHOICES = {"both": ("network", "crf"), "only": ("crf",), "off": ("network",)}
VARIANT_NAMES = {"network": "network", "crf": "with CRF"}
_SHOWN_FAILURES = 5


def _parse_widths(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    widths = sorted({int(part) for part in value.split(",") if part.strip().isdecimal()})
    if len(widths) != len(value.split(",")) or not 1 <= widths[0] <= widths[-1] <= 200:
        raise click.BadParameter(f'"{value}" is not a list of widths from 1 to 200, such as 2,5,10', context, parameter)
    return tuple(widths)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@dataset_options
@click.option("--crf/--no-crf", default=None, help="Judge after the CRF only, or without it.  [default: both]")
@click.option(
    "--bands",
    default="2,5,10,20",
    show_default=True,
    callback=_parse_widths,
    metavar="WIDTHS",
    help="Widths in pixels of the bands along borders.",
)
@click.option(
    "--band-reference",
    type=click.Choice(("void", "labels")),
    help="Bands around void pixels or around borders of labels.  [default: void for voc2012, else labels]",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder for the report and its pictures.")
@click.option("--worst", type=click.IntRange(0, 50), default=6, show_default=True, help="Worst images to draw.")
@backend_options
@click.option("--threads", type=click.IntRange(min=1), help="Cores for network and CRF.  [default: all]")
@console.json_option
def command(
    bundle: Path,
    crf: bool | None,
    bands: tuple[int, ...],
    band_reference: Any,
    out: Path | None,
    worst: int,
    backend: str,
    device: str | None,
    precision: str,
    threads: int | None,
    as_json: bool,
    **dataset: Any,
) -> int:
    """Evaluate BUNDLE on a labelled data set.

    \b
    atrous evaluate largefov --dataset voc2012 --root VOCdevkit/VOC2012 -o report
    atrous evaluate mine --dataset folder --images photos --labels masks

    Each image goes through the network once and is judged before and after the dense CRF. With -o the folder gets
    evaluation.json and pictures: confusion matrices, IoU near borders, the worst images.

    Exit codes: 0 done, 1 some images failed, 2 wrong usage or files, 3 a library or device is missing.
    """  # noqa: D301 (click's \b keeps the lines as they are)
    from .. import runtime
    from ..runtime.evaluation.evaluator import evaluate
    from ..runtime.evaluation.report import describe_evaluation, write_evaluation
    from ..runtime.files import prepare_folder
    from ..runtime.pipeline.engine import count_cores

    choice = DatasetChoice(**dataset)
    opened = choice.open(runtime.read_bundle(bundle))
    if out is not None:
        prepare_folder(out)
    cores = threads or count_cores()
    with (
        runtime.load(
            bundle,
            backend,
            device=device,
            precision=precision,
            threads=cores,
            crf="auto" if crf is None else crf,
        ) as segmenter,
        console.show_progress("evaluating", len(opened)) as advance,
    ):
        kind = "off" if segmenter.crf is None else ("both" if crf is None else "only")
        evaluation = evaluate(
            segmenter,
            opened,
            variants=CRF_CHOICES[kind],
            widths=bands,
            reference=band_reference,
            gallery=worst,
            cores=cores,
            advance=advance,
        )
        told = {"backend": segmenter.backend.name, "device": segmenter.backend.device, "precision": precision}
    for line in evaluation.warnings:
        console.print_warning(f"atrous evaluate: {line}")
    for name, error in evaluation.failures[:_SHOWN_FAILURES]:
        console.print_warning(f"atrous evaluate: {name}: {error}")
    written = write_evaluation(evaluation, out) if out is not None else {}
    if as_json:
        console.print_json("evaluate", {**told, **describe_evaluation(evaluation), "files": written})
    else:
        _print_evaluation(evaluation)
        for path in written.values():
            click.echo(f"-> {path}")
    return 1 if evaluation.failures else 0


def _print_evaluation(evaluation: Evaluation) -> None:
    """Tables for a person: figures by class, the metrics, the bands, what was published."""
    from ..runtime.evaluation.published import find_published

    variants = evaluation.variants
    names = [VARIANT_NAMES[name] for name in variants]
    ious = [tally.matrix.class_ious for tally in variants.values()]
    rows: list[tuple[object, ...]] = [
        (name, *(_percent(column[index]) for column in ious)) for index, name in enumerate(evaluation.classes)
    ]
    console.print_table(("IoU %", *names), rows)
    click.echo()
    metrics = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
    tallies = list(variants.values())
    rows = [(_spell(metric), *(_percent(getattr(tally.matrix, metric)) for tally in tallies)) for metric in metrics]
    rows.insert(1, ("  95 % interval over images", *(_range(tally.interval()) for tally in variants.values())))
    bands = {name: tally.band_ious() for name, tally in variants.items()}
    near = {"void": "void", "labels": "a border"}[evaluation.reference]
    rows += [
        (f"mean IoU within {width} px of {near}", *(_percent(bands[name][index]) for name in variants))
        for index, width in enumerate(evaluation.widths)
    ]
    rows += _tabulate_published(find_published(evaluation.bundle, evaluation.dataset.key), list(variants))
    width = len(names) + 2
    console.print_table(("%", *names, ""), [(*row, *("",) * (width - len(row))) for row in rows])
    gain = evaluation.gain_interval()
    if gain is not None:
        click.echo(f"the CRF gains {gain[0] * 100:+.2f} to {gain[1] * 100:+.2f} points of mean IoU (95 % over images)")
    failed = f", {len(evaluation.failures)} failed" if evaluation.failures else ""
    count = f"{len(evaluation.images)} image{'s' * (len(evaluation.images) > 1)}"
    click.echo(f"{count} of {evaluation.dataset.label}{failed}: {evaluation.pipeline.describe_limit()}")


def _spell(metric: str) -> str:
    return metric.replace("_", " ").replace("iou", "IoU")


def _percent(value: float) -> str:
    return f"{value * 100:.2f}" if value == value else "-"  # nan is not equal to itself


def _range(bounds: tuple[float, float]) -> str:
    return f"{bounds[0] * 100:.1f} to {bounds[1] * 100:.1f}"


def _tabulate_published(figures: Sequence[Published], variants: list[str]) -> list[tuple[object, ...]]:
    """A row for each measurement, before and after the CRF side by side; left out where no variant answers to it."""
    measured: dict[tuple[str, str], dict[str, str]] = {}
    for figure in figures:
        name = f"published: {figure.model}, {figure.split}"
        where = "; ".join(filter(None, (figure.source, figure.note)))
        measured.setdefault((name, where), {})["crf" if figure.crf else "network"] = _percent(figure.mean_iou)
    return [
        (name, *(cells.get(variant, "") for variant in variants), where)
        for (name, where), cells in measured.items()
        if any(variant in cells for variant in variants)
    ]
