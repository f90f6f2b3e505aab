"""`atrous inspect`: layers, shapes, cost and dialect of a Caffe net, and layers that cannot be converted."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console
from .fetched import is_fetched, resolve_net
from .net_options import net_options, require_file

if TYPE_CHECKING:
    from ..converter import Net
    from ..converter.graph.summary import LayerSummary
    from ..errors import WeightsError


@click.command()
@click.argument("net", type=click.Path(path_type=Path))
@click.argument("weights", type=click.Path(path_type=Path), required=False)
@net_options
@console.json_option
def command(net: Path, weights: Path | None, as_json: bool, **options: Any) -> int:
    """Show layers, shapes, cost, receptive field and dialect of NET (a prototxt), with WEIGHTS if given.

    NET may also be the folder of a model from `atrous fetch`, or a caffemodel with its own net definition.

    Layers that become inputs, are dropped, or cannot be converted are listed with the reason. The exit code is 1 if
    some cannot be converted or the weights do not match.
    """
    from ..converter.graph.summary import summarize_layers

    built, problem = _read(net, weights, options)
    rows = summarize_layers(built)
    unsupported = built.definition.unsupported
    if as_json:
        console.print_json("inspect", _to_json(built, rows, problem))
    else:
        _print(built, rows, problem)
    return 1 if unsupported or problem is not None else 0


def _read(prototxt: Path, weights: Path | None, options: dict[str, Any]) -> tuple[Net, WeightsError | None]:
    """The net, without layers that cannot be converted, and the mismatch of the weights."""
    from ..converter import read_net
    from ..errors import UnsupportedLayersError, WeightsError

    if weights is None and is_fetched(prototxt):
        files = resolve_net(prototxt, None)
        prototxt, weights = files.prototxt or files.weights, files.weights
    require_file(prototxt, "prototxt")
    if weights is not None:
        require_file(weights, "caffemodel")
    try:
        return read_net(prototxt, weights, **options), None
    except UnsupportedLayersError:
        return read_net(prototxt, None, tolerant=True, **options), None
    except WeightsError as error:
        return read_net(prototxt, None, **options), error


def _to_json(net: Net, rows: tuple[LayerSummary, ...], problem: WeightsError | None) -> dict[str, Any]:
    return {
        "name": net.name,
        "dialect": net.dialect,
        "dialect_evidence": list(net.dialect_evidence),
        "inputs": [
            {"name": top.top, "type": top.type, "layer": top.layer, "line": top.line, "shape": list(blob.shape)}
            for top, blob in zip(net.definition.input_tops, net.inputs, strict=True)
        ],
        "outputs": [{"name": blob.name, "shape": list(blob.shape)} for blob in net.outputs],
        "layers": [row.to_json() for row in rows],
        "dropped": [{"name": d.name, "type": d.type, "line": d.line, "reason": d.reason} for d in net.dropped],
        "unsupported": [
            {"name": name, "type": kind, "line": line, "reason": reason}
            for name, kind, line, reason in net.definition.unsupported
        ],
        "parameters": net.parameter_count(),
        "multiply_adds": sum(row.multiply_adds for row in rows),
        "warnings": list(net.warnings),
        "weights_problem": str(problem) if problem is not None else None,
        "weights_problems": [{"layer": layer, "problem": text} for layer, text in problem.problems] if problem else [],
    }


def _print(net: Net, rows: tuple[LayerSummary, ...], problem: WeightsError | None) -> None:
    console.print_line(f"{net.name or '(no name)'}: dialect {net.dialect} ({'; '.join(net.dialect_evidence)})")
    console.print_table(
        ("line", "layer", "type", "shape", "parameters", "multiply-adds", "field", "stride"),
        [
            (
                row.line or "",
                row.name,
                row.type,
                " ".join("x".join(map(str, shape)) for shape in row.shapes),
                f"{row.parameters:,}" if row.parameters else "",
                f"{row.multiply_adds:,}" if row.multiply_adds else "",
                _pair(row.receptive_field),
                _pair(row.stride),
            )
            for row in rows
        ],
    )
    total = sum(row.multiply_adds for row in rows)
    click.echo(f"\nlayers: {len(rows)}, parameters: {net.parameter_count():,}, multiply-adds: {total:,}")
    for top, blob in zip(net.definition.input_tops, net.inputs, strict=True):
        origin = (
            "declared input" if top.type in ("input", "Input") else f"top of the {top.type} layer (line {top.line})"
        )
        console.print_line(f"input   {blob.name}  {'x'.join(map(str, blob.shape))}  {origin}")
    for blob in net.outputs:
        console.print_line(f"output  {blob.name}  {'x'.join(map(str, blob.shape))}")
    unsupported = {(name, line) for name, _, line, _ in net.definition.unsupported}
    for dropped in net.dropped:
        if (dropped.name, dropped.line) not in unsupported:
            line = f" (line {dropped.line})" if dropped.line else ""
            console.print_line(f'dropped "{dropped.name}" {dropped.type}{line}: {dropped.reason}')
    for name, kind, row_line, reason in net.definition.unsupported:
        place = f" (line {row_line})" if row_line else ""
        console.print_line(f'UNSUPPORTED "{name}" {kind}{place}: {reason}', "red")
    for warning in net.warnings:
        console.print_warning(f"warning: {warning}")
    if problem is not None:
        for layer, text in problem.problems:
            console.print_line(f'WEIGHTS "{layer}": {text}', "red")
        console.print_warning(str(problem))


def _pair(values: tuple[Fraction, Fraction]) -> str:
    height, width = (f"{float(v):g}" for v in values)
    return height if height == width else f"{height}x{width}"
