"""`atrous crf`: saved outputs of any network through the dense CRF, by `runtime.batch.crf_files`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console
from .threads_option import threads_option

if TYPE_CHECKING:
    from ..bundle.crf_parameters import CrfParameters

#: the names in `runtime.crf.recipes.RECIPES`, which imports the compiled core; a test compares them
RECIPE_NAMES = ("deeplab-pytorch", "irn", "psa", "cutler", "pydensecrf", "saliency")


def _parse_numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """Parse numbers separated by commas, as many as the option's metavar names."""
    if value is None:
        return None
    metavar = str(parameter.metavar)
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != len(metavar.split(",")):
        raise click.BadParameter(f'"{value}" is not {metavar}', context, parameter)
    return numbers


@click.command()
@click.argument("images", type=click.Path(path_type=Path))
@click.argument("arrays", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder of the results.")
@click.option(
    "--recipe",
    type=click.Choice(RECIPE_NAMES),
    default="deeplab-pytorch",
    show_default=True,
    help="Published settings to start from.",
)
@click.option("--mode", type=click.Choice(["deeplab", "pydensecrf"]), help="Normalization.  [default: the recipe's]")
@click.option("--iterations", type=click.IntRange(min=0), help="Mean-field updates.  [default: the recipe's]")
@click.option(
    "--gaussian",
    metavar="SXY,WEIGHT",
    callback=_parse_numbers,
    help="Position term: pixels and weight.  [default: the recipe's]",
)
@click.option(
    "--bilateral",
    metavar="SXY,SRGB,WEIGHT",
    callback=_parse_numbers,
    help="Color term: pixels, gray levels and weight.  [default: the recipe's]",
)
@click.option(
    "--kind",
    type=click.Choice(["probabilities", "scores"]),
    default="probabilities",
    show_default=True,
    help="Contents of the arrays: values from 0 to 1 at the image's size, or scores before the softmax at any size.",
)
@click.option("--key", help="Name of the array in .npz files.  [default: the only one]")
@click.option(
    "--align-corners/--half-pixel",
    default=True,
    show_default=True,
    help="Enlarge coarser scores as Caffe's Interp, or as torch's interpolate by default.",
)
@click.option(
    "--save",
    default="labels",
    show_default=True,
    metavar="KINDS",
    help="Results to write, separated by commas: labels, probabilities.",
)
@threads_option()
@click.option("--resume/--again", default=True, help="Skip finished files, or refine all again.  [default: resume]")
@console.json_option
def command(
    images: Path,
    arrays: tuple[Path, ...],
    out: Path,
    recipe: str,
    mode: Any,
    iterations: int | None,
    gaussian: Any,
    bilateral: Any,
    kind: Any,
    key: str | None,
    align_corners: bool,
    save: str,
    threads: int | None,
    resume: bool,
    as_json: bool,
) -> int:
    """Refine saved outputs of any network by the dense CRF; no bundle is needed.

    IMAGES is a folder of images, ARRAYS a folder of .npy and .npz files of the same names, each (labels, height,
    width). The labels of photo.npy are OUT/photo.png, the probabilities OUT/photo.npy. With several folders of arrays,
    the results go to OUT/FOLDER/, and the lattices of an image are built once for all of them.

    The recipes are the settings of kazuto1011/deeplab-pytorch, jiwoon-ahn/irn, jiwoon-ahn/psa (also SEAM),
    facebookresearch/CutLER, pydensecrf's README, and of saliency maps with two labels.

    OUT/done.jsonl records the finished files: after any interruption, the same command resumes the run.
    OUT/failures.jsonl lists the files of this run that failed.

    Exit codes: 0 all done, 1 some files failed, 2 all failed or bad usage, 3 a library is missing, 130 interrupted.
    """
    from ..dependencies import import_crf

    import_crf()
    from ..runtime.batch import crf_files
    from ..runtime.crf.recipes import RECIPES
    from .crf_report import CrfReport

    parameters = _change(RECIPES[recipe], mode, iterations, gaussian, bilateral)
    with CrfReport(as_json) as report:
        summary = crf_files(
            images,
            arrays if len(arrays) > 1 else arrays[0],
            out,
            parameters=parameters,
            kind=kind,
            key=key,
            align_corners=align_corners,
            save=tuple(part.strip() for part in save.split(",")),
            resume=resume,
            cores=threads,
            observer=report,
        )
        report.stop_progress()
        report.print_json(out, parameters) if as_json else report.print_text(out)
    return (1 if summary.refined or summary.skipped else 2) if summary.failed else 0


def _change(parameters: CrfParameters, mode: Any, iterations: Any, gaussian: Any, bilateral: Any) -> CrfParameters:
    from ..bundle.crf_parameters import BilateralTerm, GaussianTerm

    changes: dict[str, Any] = {"mode": mode, "iterations": iterations}
    changes["gaussian"] = (GaussianTerm(*gaussian),) if gaussian else None
    changes["bilateral"] = (BilateralTerm(*bilateral),) if bilateral else None
    return dataclasses.replace(parameters, **{name: value for name, value in changes.items() if value is not None})
