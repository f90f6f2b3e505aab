"""Reports an engine of `atrous build`, and audits engines of other tools from the layers that trtexec describes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console

if TYPE_CHECKING:
    from ..bundle.folder import Bundle


def report(bundle: Bundle, result: Mapping[str, Any], as_json: bool) -> int:
    """Print a built or a stored engine."""
    if as_json:
        console.print_json("build", {"bundle": bundle.path, **result})
        return 0
    engine = result["engine"]
    if not result["built"]:
        click.echo(f"{result['folder']}: already built (--force builds it again)")
        return 0
    for warning in result["warnings"]:
        console.print_warning(warning)
    click.echo(_describe_audit(result["audit"]))
    for advice in result.get("advice", ()):
        click.echo(f"advice: {advice}")
    noise = result.get("rebuild_noise")
    if noise is not None:
        click.echo(
            f"rebuild noise: {noise['mean_disagreement']:.4%} of labels differ between {noise['builds']} builds "
            f"(worst pair {noise['worst_disagreement']:.4%}), {noise['identical_pairs']} pairs bit-equal"
        )
    seconds = " + ".join(f"{value:.1f}" for value in result["seconds"])
    targets = f" for {engine['gpu']}" if "advice" in result else ""
    size = f"{engine['plan_bytes'] / 1e6:.1f} MB"
    click.echo(f"{result['folder']}: {engine['precision']}{targets}, {size}, {seconds} s")
    return 0


def audit_recorded(bundle: Bundle, given: dict[str, Any], as_json: bool) -> int:
    """Compare the layers that trtexec described with the bundle's graph."""
    from ..runtime.backends.tensorrt.audit import audit_precision, parse_inspection

    facts = bundle.graph_facts(given["precision"])
    profile = _read_json(given["layer_times"], list) if given["layer_times"] is not None else None
    audit = audit_precision(parse_inspection(_read_json(given["audit"], dict)), facts, profile)
    if as_json:
        console.print_json("build", {"bundle": bundle.path, "audit": audit.to_json()})
    else:
        click.echo(_describe_audit(audit.to_json()))
        for name, milliseconds in (audit.time_ms or {}).items():
            click.echo(f"{name}: {milliseconds:.3f} ms")
    audit.require(given["required_share"])
    return 0


def _describe_audit(audit: Mapping[str, Any]) -> str:
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
