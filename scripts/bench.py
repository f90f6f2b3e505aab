"""`atrous bench`: how fast a bundle is, how sure that is, and what its labels are worth at that speed.

`atrous bench BUNDLE` measures; `atrous bench compare A.json B.json` compares two results, for CI.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from . import console
from .backend_option import backend_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..runtime.benchmark.load_view import LoadPlan
    from ..runtime.benchmark.pipeline_view import PipelinePlan
    from ..runtime.benchmark.results import ComparedName, Comparison, Scenario

SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")
PRESETS = ("voc", "cityscapes", "camvid", "sun-rgbd")
STAGES = ("decode", "prepare", "enqueue", "h2d", "compute", "d2h", "scores", "crf", "labels", "encode", "end_to_end")
COMPARED = (*STAGES, "pipeline")
PIPELINE_ROUNDS = 9
REGRESSION = 1
INTERRUPTED = 130  # the shell's code for Ctrl-C


class BenchGroup(click.Group):
    """A group whose first word may be left out: what is not `compare` is measured."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` in front where no command is named."""
        if not args or args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=BenchGroup)
def command() -> None:
    """Measure a bundle, or compare two measurements."""


def _parse_percent(context: click.Context, parameter: click.Parameter, value: str) -> float:
    text = value.strip()
    try:
        bound = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise click.BadParameter(f'"{value}" is no share such as 5% or 0.05', context, parameter) from None
    if not 0 <= bound < 10:
        raise click.BadParameter(f'"{value}" is not between 0 and 10', context, parameter)
    return bound


def _parse_size(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    height, _, width = value.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and 32 <= int(height) <= 8192 and 32 <= int(width) <= 8192):
        raise click.BadParameter(f'"{value}" is not HEIGHTxWIDTH, each from 32 to 8192', context, parameter)
    return int(height), int(width)


def _parse_scenarios(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    if value in ("all", "none"):
        return SCENARIOS if value == "all" else ()
    known = {name.lower(): name for name in SCENARIOS}
    words = [word.strip().lower() for word in value.split(",")]
    unknown = [word for word in words if word not in known]
    if unknown:
        choices = ", ".join(SCENARIOS)
        raise click.BadParameter(f'"{unknown[0]}" is none of {choices}, all, none', context, parameter)
    return tuple(dict.fromkeys(known[word] for word in words))


_BOUND = click.option(
    "--bound", default="5%", show_default=True, callback=_parse_percent, metavar="SHARE", help="Tolerated slowdown."
)


@command.command("run")
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option("--preset", type=click.Choice(PRESETS), help="A published size, with its published speed beside ours.")
@backend_options
@click.option(
    "--vs",
    multiple=True,
    metavar="BACKEND[:PRECISION][@DEVICE]",
    help="Measure this too, in turns with the first, and compare. May be repeated.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the network and the CRF.  [default: all cores]")
@click.option(
    "--crf/--no-crf", default=None, help="Insist on the dense CRF, or leave it out.  [default: as the bundle]"
)
@click.option("--fast-crf", is_flag=True, help="Let the CRF take its shortcuts in all that is measured.")
@click.option("--images", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of images.")
@click.option("--labels", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Their true labels.")
@click.option("--size", callback=_parse_size, metavar="HxW", help="Draw scenes of this size instead.")
@click.option("--count", type=click.IntRange(min=1), default=5, show_default=True, help="Images at most.")
@click.option("--duration", type=float, default=5.0, show_default=True, help="Seconds of the stage view.")
@click.option("--min-samples", type=click.IntRange(min=1), default=10, show_default=True, help="Samples at least.")
@click.option("--max-samples", type=click.IntRange(min=1), help="Samples at most.")
@click.option("--warmup", type=float, default=10.0, show_default=True, help="Seconds at most to wait for stable times.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="Of the accuracy view.")
@click.option(
    "--crf-sweep/--no-crf-sweep", default=None, help="Try the CRF with fewer iterations, and with its shortcuts, too."
)
@click.option(
    "--pipeline-rounds",
    type=click.IntRange(0, 1000),
    help=f"Of many images side by side; 0 for none.  [default: {PIPELINE_ROUNDS}; 0 for a preset]",
)
@click.option("--pipeline-images", type=click.IntRange(1, 100_000), help="Of a round.  [default: 12 a core]")
@click.option(
    "--scenario",
    "scenarios",
    default=None,
    callback=lambda context, parameter, value: None if value is None else _parse_scenarios(context, parameter, value),
    metavar="NAMES",
    help=f"LoadGen's: {', '.join(SCENARIOS)}, all, or none.  [default: all; none for a preset]",
)
@click.option("--load-duration", type=float, default=2.0, show_default=True, help="Least seconds of a LoadGen test.")
@click.option("--full", is_flag=True, help="MLPerf's own durations: ten minutes a scenario.")
@click.option("--server-qps", type=float, help="Rate of Server.  [default: 70 % of what calls reached]")
@click.option("--latency-bound-ms", type=float, help="Bound of Server; also finds the peak rate under it.")
@click.option("--samples-per-query", type=click.IntRange(1, 1024), default=8, show_default=True, help="Of MultiStream.")
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Calls at once under load.")
@click.option("--curve/--no-curve", default=True, show_default=True, help="Server at six rates.")
@click.option("--roofline/--no-roofline", default=True, show_default=True, help="What the machine can do at most.")
@_BOUND
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the result file here.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write the HTML report here.")
@console.json_option
def run(
    bundle: Path | None, preset: str | None, out: Path | None, report: Path | None, as_json: bool, **words: Any
) -> int:
    """Measure BUNDLE: its stages, its pipeline, its latency under load, its accuracy, and the machine meanwhile.

    Without BUNDLE, --preset makes full-size DeepLab-LargeFOV with seeded weights: its speed is real, its labels mean
    nothing. Images are --images (with --labels, or accuracy is the agreement with float32 only), or scenes drawn at
    --size, or the preset's size; the built-in miniature brings its own.

    `atrous bench compare A.json B.json` compares two results.

    Exit codes: 0 measured, 2 bad usage or input, 3 a library or device is missing.
    """
    click.get_current_context().ensure_object(dict).update({"json": "bench"} if as_json else {})
    from ..runtime.benchmark.results import write_result
    from ..runtime.benchmark.run import run_bench

    plan = _make_plan(bundle, preset, words)
    with console.show_steps() as show:
        try:
            result = run_bench(plan, on_step=show)
        except KeyboardInterrupt:
            _leave_at_once()
        if out is not None:
            write_result(result, out)
        if report is not None:
            from ..runtime.benchmark.report import write_report

            write_report(result, report)
    if as_json:
        console.print_json("bench", {"result": result.model_dump(mode="json")})
        return 0
    from .bench_tables import print_result

    print_result(result)
    for path in (out, report):
        if path is not None:
            click.echo(f"-> {path}")
    return 0


@command.command("compare")
@click.argument("baseline", type=click.Path(path_type=Path))
@click.argument("candidate", type=click.Path(path_type=Path), required=False)
@click.option(
    "--stage",
    type=click.Choice(COMPARED),
    help="What is compared.  [default: end_to_end, and pipeline where both have it]",
)
@_BOUND
@click.option("--strict", is_flag=True, help="Exit 1 where nothing can be concluded, too.")
@console.json_option
def compare(
    baseline: Path, candidate: Path | None, stage: ComparedName | None, bound: float, strict: bool, as_json: bool
) -> int:
    """Compare two results of `atrous bench`, or the subjects within one.

    Exit codes: 0 no regression, 1 a significant regression beyond the bound, 2 bad usage or input.
    """
    click.get_current_context().ensure_object(dict).update({"json": "bench"} if as_json else {})
    from ..runtime.benchmark.compare import compare_results, compare_run, list_compared
    from ..runtime.benchmark.results import read_result
    from .bench_tables import print_comparisons

    first = read_result(baseline)
    second = read_result(candidate) if candidate is not None else None
    stages = (stage,) if stage is not None else list_compared(first, second if second is not None else first)
    found: list[Comparison] = []
    for name in stages:
        if second is not None:
            found += compare_results(first, second, stage=name, bound=bound)
        else:
            found += compare_run(first, stage=name, bound=bound)
    if not found:
        raise click.UsageError(f"{baseline} holds one subject: give a second result")
    if as_json:
        console.print_json("bench", {"comparisons": [comparison.model_dump(mode="json") for comparison in found]})
    else:
        print_comparisons(found)
    failing = {"regression", "inconclusive"} if strict else {"regression"}
    return REGRESSION if any(comparison.verdict in failing for comparison in found) else 0


for _command in (run, compare):
    _command.params.append(console.debug_option())


def _leave_at_once() -> NoReturn:
    """End the process: LoadGen's threads outlive an interrupted test, and C++ aborts over them at a normal exit."""
    click.echo("atrous: interrupted", err=True)
    sys.stdout.flush()
    os._exit(INTERRUPTED)


def _make_plan(path: Path | None, preset_name: str | None, words: dict[str, Any]) -> Any:
    from ..runtime import read_bundle
    from ..runtime.benchmark.presets import PRESETS as PUBLISHED
    from ..runtime.benchmark.run import BenchPlan
    from ..runtime.benchmark.stages import Amount
    from ..runtime.benchmark.subjects import SubjectSpec, parse_subject
    from .bench_images import load_samples
    from .bench_presets import open_preset_bundle

    if words["labels"] is not None and words["images"] is None:
        raise click.UsageError("--labels are those of --images: give both")
    preset = PUBLISHED[preset_name] if preset_name is not None else None
    if path is not None:
        bundle = read_bundle(path)
    elif preset is not None:
        with console.show_steps() as show:
            show(f"the bundle of the preset {preset.name}")
            bundle = open_preset_bundle(preset)
    else:
        raise click.UsageError("name a BUNDLE, or a --preset")
    size = words["size"] or ((preset.height, preset.width) if preset is not None and words["images"] is None else None)
    dataset, samples = load_samples(
        bundle.manifest, images=words["images"], labels=words["labels"], size=size, count=words["count"]
    )
    crf: Literal["auto"] | bool = "auto" if words["crf"] is None else words["crf"]
    sweeps = words["crf_sweep"]
    return BenchPlan(
        bundle=bundle,
        specs=[
            SubjectSpec(words["backend"], words["precision"], words["device"]),
            *(parse_subject(text) for text in words["vs"]),
        ],
        samples=samples,
        dataset=dataset,
        command=("atrous", *sys.argv[1:]),
        threads=words["threads"],
        crf=crf,
        is_crf_fast=words["fast_crf"],
        amount=Amount(
            duration_s=words["duration"],
            min_rounds=min(words["min_samples"], words["max_samples"] or words["min_samples"]),
            max_rounds=words["max_samples"] or Amount.max_rounds,
            warmup_s=words["warmup"],
        ),
        pipeline=_make_pipeline_plan(words, is_preset=preset is not None),
        load=_make_load_plan(words, is_preset=preset is not None),
        repeats=words["repeats"],
        sweeps_crf=preset is None if sweeps is None else sweeps,
        has_roofline=words["roofline"],
        bound=words["bound"],
        preset=preset,
        weights="seeded" if path is None else "given",
    )


def _make_pipeline_plan(words: dict[str, Any], *, is_preset: bool) -> PipelinePlan | None:
    from ..runtime.benchmark.pipeline_view import PipelinePlan

    asked = words["pipeline_rounds"]
    rounds = asked if asked is not None else 0 if is_preset else PIPELINE_ROUNDS
    return PipelinePlan(rounds, words["pipeline_images"]) if rounds else None


def _make_load_plan(words: dict[str, Any], *, is_preset: bool) -> LoadPlan | None:
    from ..runtime.benchmark.load_view import LoadPlan

    asked = words["scenarios"]
    scenarios: Sequence[Scenario] = asked if asked is not None else () if is_preset else LoadPlan.scenarios
    if not scenarios:
        return None
    return LoadPlan(
        scenarios=scenarios,
        duration_s=words["load_duration"],
        is_full=words["full"],
        server_qps=words["server_qps"],
        latency_bound_ms=words["latency_bound_ms"],
        has_curve=words["curve"],
        samples_per_query=words["samples_per_query"],
        workers=words["workers"],
    )
