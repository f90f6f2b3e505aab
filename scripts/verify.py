"""`atrous verify`: compare the stages of a bundle with each other, and with recorded Caffe blobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console
from .net_options import require_file

if TYPE_CHECKING:
    from ..converter.check.compare import VerificationReport
    from ..converter.precision import VariantCheck

_ROWS_SHOWN = 12
MAX_SIDE = 1 << 14  # pixels; larger values are typos


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="blobs.npz recorded from real Caffe, with arrays `<layer>:<top>` and `input:<name>`.",
)
@click.option("--image", type=click.Path(path_type=Path), help="Compare on this photo.  [default: seeded noise]")
@click.option(
    "--size", "sizes", multiple=True, metavar="HxW", help="Input size in pixels to compare at; may be repeated."
)
@click.option(
    "--tolerance",
    type=float,
    default=1e-4,
    show_default=True,
    help="Largest allowed difference, relative to max(1, largest absolute value of the blob).",
)
@click.option(
    "--opencv",
    is_flag=True,
    help="Also compare model.onnx and deploy.onnx in OpenCV with ONNX Runtime; OpenCV 4 reads fixed sizes only. "
    "$ATROUS_OPENCV names the Python that has OpenCV.  [default: this one]",
)
@click.option("--all", "show_all", is_flag=True, help="Print every blob, not only the largest differences.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write a chart of the error of every blob (PNG)."
)
@console.json_option
def command(
    bundle: Path,
    against: Path | None,
    image: Path | None,
    sizes: tuple[str, ...],
    tolerance: float,
    opencv: bool,
    show_all: bool,
    plot: Path | None,
    as_json: bool,
) -> int:
    """Compare the stages of BUNDLE layer by layer, and its precision variants; exit 1 if one is out of tolerance.

    The torch stage executes the bundle's own model.py: verify only bundles from a source you trust.
    """
    from ..bundle.files import prepare_folder
    from ..converter import verify_bundle

    if plot is not None:
        prepare_folder(plot.absolute().parent)
    with console.show_steps() as show:
        reports = verify_bundle(
            bundle,
            recorded=require_file(against, "blobs.npz") if against else None,
            image=require_file(image, "photo") if image else None,
            sizes=[parse_size(size) for size in sizes],
            tolerance=tolerance,
            progress=show,
        )
        if opencv:
            from ..converter.check.opencv import verify_opencv

            show("running in OpenCV")
            reports += verify_opencv(bundle, sizes=[parse_size(size) for size in sizes], tolerance=tolerance)
    variants = _verify_variants(bundle, image)
    passed = all(report.passed for report in reports) and all(check.passed for check in variants)
    rows = [{**report.summarize().model_dump(mode="json"), "differences": report.rows_json()} for report in reports]
    checks = [check.to_json() for check in variants]
    payload = {"bundle": str(bundle), "passed": passed, "reports": rows, "variants": checks}
    if as_json:
        console.keep_json(payload)
    else:
        for report in reports:
            _print(report, show_all)
        for check in variants:
            console.print_line(check.describe(), "green" if check.passed else "red")
    if plot is not None:
        from .verify_picture import draw_errors

        draw_errors(reports, plot)
    if as_json:
        console.print_json("verify", payload)
    return 0 if passed else 1


def _verify_variants(bundle: Path, image: Path | None) -> list[VariantCheck]:
    """Compare every precision variant with deploy.onnx, on the photo or on the images of `atrous precision`."""
    from ..bundle.folder import read_bundle

    opened = read_bundle(bundle)
    if not opened.manifest.variants:
        return []
    from ..converter.precision import Picture, verify_variants
    from ..runtime.images import read_image
    from .precision_data import gather_evidence, make_reader

    pictures = [Picture(read_image(image))] if image else gather_evidence(opened, "fp16").pictures
    return verify_variants(bundle, pictures, make_reader(opened), show=console.show_progress)


def parse_size(text: str) -> tuple[int, int]:
    """Parse a height and a width in pixels, such as `321x481`; a `--size` error for anything else."""
    parts = text.lower().replace(",", "x").split("x")
    try:
        height, width = (int(part) for part in parts)
    except ValueError:
        raise click.BadParameter(f'"{text}" is not a size such as 321x481', param_hint="--size") from None
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise click.BadParameter(f'"{text}": sides are from 1 to {MAX_SIDE} pixels', param_hint="--size")
    return height, width


def _print(report: VerificationReport, show_all: bool) -> None:
    shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in report.input_shapes.items())
    rows: list[Any] = list(report.differences)
    if not show_all:
        rows = sorted(rows, key=lambda row: -row.error)[:_ROWS_SHOWN]
    console.print_table(
        ("blob", "type", "shape", "error", ""),
        [
            (
                row.key,
                row.type,
                "x".join(map(str, row.shape)),
                f"{row.error:.2e}",
                "" if row.error <= report.tolerance else "DIFFERS",
            )
            for row in rows
        ],
        title=f"{report.stage} against {report.reference} on {shapes}",
    )
    console.print_line(report.describe(), "green" if report.passed else "red")
    click.echo()
