"""`atrous export`: a bundle in the form of another server. `atrous export triton BUNDLE -o REPOSITORY`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import console
from .backend_option import precision_option
from .size_option import choose_size, parse_size, size_options

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
@precision_option
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
    files = [f"{name}/{file}" for name, files in models.items() for file in files]
    _report("triton", bundle, out, files, as_json)


@command.command("deepstream")
@_target_options
@click.option(
    "--size",
    callback=parse_size,
    metavar="HxW",
    help="Size in pixels that frames are scaled to.  [default: the size the net was made for]",
)
@_count("--batch", 1, "Images in a run, such as the number of streams.")
@console.json_option
def deepstream(bundle: Path, out: Path, force: bool, size: Sides | None, batch: int, as_json: bool) -> None:
    """Write BUNDLE's network for NVIDIA DeepStream: model.onnx, and the settings of the element nvinfer.

    It labels without the CRF.
    """
    from ..runtime.export import export_deepstream

    files = export_deepstream(bundle, out, size=size, batch=batch, replace=force)
    _report("deepstream", bundle, out, files, as_json)


@command.command("openvino")
@_target_options
@click.option("--name", help="Name of the model.  [default: the bundle's]")
@precision_option
@console.json_option
def openvino(bundle: Path, out: Path, force: bool, name: str | None, precision: str, as_json: bool) -> None:
    """Write BUNDLE's network for OpenVINO Model Server: its file in the folder of a version, and config.json.

    It runs without the CRF.
    """
    from ..runtime.export import export_openvino

    files = export_openvino(bundle, out, name=name, precision=precision, replace=force)
    _report("openvino", bundle, out, files, as_json)


@command.command("check-triton")
@click.argument("repository", type=click.Path(path_type=Path))
@console.json_option
def check_triton(repository: Path, as_json: bool) -> int:
    """Check a model REPOSITORY of Triton, also one edited by hand: every config.pbtxt, and how the models join.

    Exit codes: 0 no faults, 1 faults, 2 no repository, 3 tritonclient is missing.
    """
    from ..runtime.export.triton_check import check_repository

    faults = check_repository(repository)
    if as_json:
        rows = [{"path": fault.path, "line": fault.line, "text": fault.text} for fault in faults]
        console.print_json("export", {"form": "triton", "repository": repository, "faults": rows})
    elif not faults:
        console.print_line(f"{repository}: no faults")
    for fault in [] if as_json else faults:
        console.print_line(str(fault))
    return 1 if faults else 0


def _report(form: str, bundle: Path, out: Path, files: Sequence[str], as_json: bool) -> None:
    if as_json:
        console.print_json("export", {"form": form, "bundle": bundle, "out": out, "files": files})
        return
    for file in files:
        console.print_line(str(out / file))
