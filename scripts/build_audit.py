"""The precision audit at the command line: of a build, or of what trtexec wrote about an engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console

if TYPE_CHECKING:
    from ..bundle.folder import Bundle


def audit_recorded(
    bundle: Bundle, precision: str, account: Path, times: Path | None, share: float, *, as_json: bool
) -> int:
    """Compare what an engine of a bundle computes in with what the bundle's graph says, and print it.

    Args:
        bundle: whose graph the engine was built from.
        precision: of that graph.
        account: the inspector's JSON, as trtexec's --exportLayerInfo writes it.
        times: layer times, as its --exportProfile writes them.
        share: of the graph's narrow products, what must be narrow in the engine.
        as_json: whether to print JSON.

    Raises:
        click.UsageError: if a file is not what it should be.
        PrecisionError: if less than `share` is narrow.
    """
    from ..runtime.backends.tensorrt.audit import audit_precision
    from ..runtime.backends.tensorrt.inspection import parse_inspection
    from ..runtime.backends.tensorrt.onnx_reader import read_facts

    graph = read_facts(bundle.read_file(bundle.deploy_file(precision)))
    profile = _read_json(times, list) if times is not None else None
    audit = audit_precision(parse_inspection(_read_json(account, dict)), graph, profile)
    if as_json:
        console.print_json("build", {"bundle": bundle.path, "audit": audit.to_json()})
    else:
        click.echo(describe_audit(audit.to_json()))
        for name, milliseconds in (audit.time_ms or {}).items():
            click.echo(f"{name}: {milliseconds:.3f} ms")
    audit.require(share)
    return 0


def describe_audit(audit: Mapping[str, Any]) -> str:
    """An audit as one line."""
    products = ", ".join(f"{count} {name}" for name, count in audit["products"].items())
    wide = audit["narrow_writing_fp32"]
    return (
        f"products: {products}; {audit['reached']:.0%} as narrow as the graph says"
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
