"""The precision audit on the command line: of a build, or of an engine that trtexec described."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console

if TYPE_CHECKING:
    from ..runtime.bundle import Bundle


def audit_recorded(
    bundle: Bundle, precision: str, layers: Path, times: Path | None, share: float, *, as_json: bool
) -> int:
    """Compare the precision of an engine with that of a bundle's graph, and print it.

    Args:
        bundle: the engine was built from its graph.
        precision: of that graph.
        layers: the inspector's JSON, as trtexec's --exportLayerInfo writes it.
        times: layer times, as trtexec's --exportProfile writes them.
        share: required share of the graph's narrow products that are narrow in the engine.
        as_json: whether to print JSON.

    Raises:
        click.UsageError: if a file does not have the expected form.
        PrecisionError: if less than `share` is narrow.
    """
    from ..runtime.backends.tensorrt.audit import audit_precision, parse_inspection
    from ..runtime.backends.tensorrt.onnx_reader import read_facts

    facts = read_facts(bundle.read_file(bundle.deploy_file(precision)))
    profile = _read_json(times, list) if times is not None else None
    audit = audit_precision(parse_inspection(_read_json(layers, dict)), facts, profile)
    if as_json:
        console.print_json("build", {"bundle": bundle.path, "audit": audit.to_json()})
    else:
        click.echo(describe_audit(audit.to_json()))
        for name, milliseconds in (audit.time_ms or {}).items():
            click.echo(f"{name}: {milliseconds:.3f} ms")
    audit.require(share)
    return 0


def describe_audit(audit: Mapping[str, Any]) -> str:
    """Return an audit as one line."""
    products = ", ".join(f"{count} {name}" for name, count in audit["products"].items())
    wide = audit["narrow_writing_fp32"]
    return (
        f"products: {products}; {audit['reached']:.0%} as narrow as in the graph"
        + (f"; {wide} narrow products write float32" if wide else "")
        + f"; {audit['reformats']} reformats"
    )


def _read_json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(content, kind):
        raise click.UsageError(f"{path}: is not the JSON {'object' if kind is dict else 'list'} that trtexec writes")
    return content
