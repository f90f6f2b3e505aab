"""`atrous export`: a bundle in the form of another server. `atrous export triton BUNDLE -o REPOSITORY`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..bundle.choices import PRECISIONS
from . import console
from .size_option import choose_size, size_options

if TYPE_CHECKING:
    from ..bundle.section import Sides

Function = TypeVar("Function", bound=Callable[..., Any])


@click.group()
def command() -> None:
    """Write a bundle in the form that another server takes.

    Every form is a command of its own, which takes --json. `convert -o NAME.onnx` writes only the ONNX model of a net.
    """


def _target_options(function: Function) -> Function:
    """Add BUNDLE, `--out` and `--force`."""
    for option in (
        click.option("--force", is_flag=True, help="Replace what is there of the same name."),
        click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder to write into."),
        click.argument("bundle", type=click.Path(path_type=Path)),
    ):
        function = option(function)
    return function


def _count(name: str, default: int, description: str, least: int = 1) -> Callable[[Function], Function]:
    return click.option(name, type=click.IntRange(least), default=default, show_default=True, help=description)


@command.command("triton")
@_target_options
@click.option("--name", help="Name of the model that takes requests.  [default: the bundle's]")
@click.option(
    "--network",
    type=click.Choice(("onnxruntime", "tensorrt")),
    default="onnxruntime",
    show_default=True,
    help="Triton's backend of the network; tensorrt takes the newest engine of `atrous build`.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp32",
    show_default=True,
    help="Precision of the network; `atrous precision` adds variants in others to a bundle.",
)
@click.option("--no-crf", is_flag=True, help="Leave out the dense CRF.")
@size_options
@_count("--batch", 8, "Largest number of images per run of the network.")
@_count("--delay-us", 1000, "Microseconds that an image may wait for others of its size.", 0)
@_count("--queue", 64, "Requests that may wait for a step; further ones are refused.")
@_count("--instances", 4, "Processes of each Python step, such as the CRF's.")
@_count("--threads", 1, "CPU threads of the CRF in each process.")
@console.json_option
def triton(
    bundle: Path,
    out: Path,
    force: bool,
    no_crf: bool,
    size: Sides | None,
    max_side: int | None,
    native: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write BUNDLE into a model repository of NVIDIA's Triton Inference Server.

    The models are an ensemble, which takes an image and gives labels, its network, and a Python step with the dense
    CRF. The step imports atrous; the repository's Dockerfile adds it to Triton's image.
    """
    from ..runtime.export import TritonOptions, export_triton

    chosen = TritonOptions(crf=not no_crf, **choose_size(size, max_side, native), **options)
    models = export_triton(bundle, out, chosen, replace=force)
    if as_json:
        rows = [{"name": name, "files": files} for name, files in models.items()]
        console.print_json("export", {"form": "triton", "bundle": bundle, "out": out, "models": rows})
        return
    for name, files in models.items():
        console.print_line(f"{out / name}: {', '.join(files)}")
