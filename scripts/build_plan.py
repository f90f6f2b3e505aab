"""Decides what `atrous build` builds: reads sizes and settings, checks the graph, and prints the plan of a dry run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..runtime.tensorrt_choices import PLANNED_LINE
from . import build_shapes, console

if TYPE_CHECKING:
    from ..bundle.folder import Bundle
    from ..runtime.backends.tensorrt.capabilities import Capabilities
    from ..runtime.backends.tensorrt.workflow import PreparedBuild


def prepare(
    bundle: Bundle, given: Mapping[str, Any], capabilities: Capabilities, targets: tuple[str, ...] = ()
) -> PreparedBuild:
    """Decide a build from the command's options, and print the warnings about the graph."""
    from ..errors import BundleError
    from ..runtime.backends.tensorrt.options import BuildOptions
    from ..runtime.backends.tensorrt.workflow import prepare_build

    facts, name = bundle.graph_facts(given["precision"]), bundle.deploy.input
    if name not in facts.inputs or len(facts.inputs[name].shape) != 4:
        raise BundleError(f'has no input "{name}" of 4 dimensions: convert the net again', path=bundle.path)
    model = bundle.read_file(bundle.deploy_file(given["precision"]))
    ranges = [
        [build_shapes.read_size(text, f"--{option}") for text in given[sizes]]
        for option, sizes in (("shape", "shapes"), ("min", "minima"), ("opt", "optima"), ("max", "maxima"))
    ]
    profiles = build_shapes.make_profiles(
        name,
        facts.inputs[name].shape,
        bundle.preprocessing.size_rule,
        build_shapes.read_batch(given["batch"]),
        ranges[0],
        (ranges[1], ranges[2], ranges[3]),
    )
    same = ("level", "tf32", "tactic_sources", "refit", "hardware_compatible", "version_compatible", "replay")
    settings = {field: given[field] for field in same}
    options = BuildOptions(profiles, workspace_bytes=given["workspace"], targets=targets, **settings)
    prepared = prepare_build(model, facts, options, capabilities, precision=given["precision"])
    for finding in prepared.findings:
        console.print_warning(f"warning: {finding.describe()}")
    return prepared


def show_plan(bundle: Bundle, prepared: PreparedBuild, as_json: bool, advice: Sequence[str] = ()) -> int:
    """Print the calls of a build, without making them."""
    if not as_json:
        click.echo(prepared.plan.to_text())
        for line in advice:
            click.echo(f"# {line}")
        return 0
    console.print_json(
        "build",
        {
            "bundle": bundle.path,
            "precision": prepared.precision,
            "profiles": prepared.plan.options.profiles_json(),
            "settings": prepared.plan.options.to_json(),
            "findings": [vars(finding) for finding in prepared.findings],
            "plan": prepared.plan.to_json(),
            **({"advice": list(advice)} if prepared.plan.options.targets else {}),
        },
    )
    return 0


def find_capabilities(line: str | None) -> Capabilities:
    """The capabilities of the requested line, else of the installed TensorRT, else of the planned line."""
    from ..errors import MissingDependencyError
    from ..runtime.backends.tensorrt import capabilities, compat

    if line is not None:
        return capabilities.LINES[line]
    try:
        return compat.load_tensorrt()[1]
    except MissingDependencyError:
        return capabilities.LINES[PLANNED_LINE]
