"""`atrous bench`: speed of a bundle with confidence intervals, and accuracy at that speed.

`atrous bench BUNDLE` measures; `atrous bench --server URL` measures a running server; `atrous bench crf` measures the
dense CRF by number of threads; `atrous bench compare A.json B.json` compares two results, for CI.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from click.core import ParameterSource

from ..runtime.benchmark.plan import COMPARED, REGRESSION_BOUND, SCENARIOS, BenchPlan, parse_subject
from ..runtime.benchmark.plan import SubjectSpec as Spec
from . import console
from .backend_option import backend_options
from .bench_crf import bench_crf
from .bench_server import make_command as make_server_command
from .size_option import choose_size, size_options
from .threads_option import threads_option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..runtime.benchmark.plan import ComparedName
    from ..runtime.benchmark.results import BenchResult, Comparison

Function = TypeVar("Function", bound="Callable[..., Any]")
REGRESSION = 1
#: what --quick sets: neither load nor pipeline, whose figures need minutes
_QUICK: dict[str, Any] = {
    "duration_s": 3.0,
    "warmup_s": 2.0,
    "repeats": 1,
    "crf_sweep": False,
    "pipeline_rounds": 0,
    "scenarios": (),
    "curve": False,
    "roofline": False,
}
INTERRUPTED = 130  # the shell's code for Ctrl-C


class BenchGroup(click.Group):
    """A group whose default command is `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert `run` where no command is named, or `server` with `--server`."""
        if not args or args[0] not in self.commands:
            is_server = any(one == "--server" or one.startswith("--server=") for one in args)
            args = ["server" if is_server else "run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=BenchGroup)
def command() -> None:
    """Measure a bundle or the dense CRF, or compare two measurements."""


def _parse_percent(context: click.Context, parameter: click.Parameter, value: str | float) -> float:
    text = str(value).strip()
    try:
        bound = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise click.BadParameter(f'"{value}" is not a share such as 5% or 0.05', context, parameter) from None
    if not 0 <= bound < 10:
        raise click.BadParameter(f'"{value}" is not between 0 and 10', context, parameter)
    return bound


def _parse_scenarios(context: click.Context, parameter: click.Parameter, value: str | None) -> Sequence[str] | None:
    if value in (None, "all", "none"):
        return {"all": SCENARIOS, "none": ()}.get(value or "")
    known = {name.lower(): name for name in SCENARIOS}
    names = [name.strip().lower() for name in str(value).split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        choices = ", ".join(SCENARIOS)
        raise click.BadParameter(f'"{unknown[0]}" is not one of {choices}, all, none', context, parameter)
    return tuple(dict.fromkeys(known[name] for name in names))


def _number(*names: str, help: str, kind: type = int, most: int | None = None) -> Callable[[Function], Function]:
    """An option of a whole number from 1, or of a float from 0, with the plan's default."""
    limits: Any = click.IntRange(1, most) if kind is int else click.FloatRange(0)
    default = getattr(BenchPlan, names[-1].lstrip("-").replace("-", "_"), None)
    return click.option(*names, type=limits, default=default, show_default=default is not None, metavar="N", help=help)


_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)
_BOUND = click.option(
    "--bound",
    default=f"{REGRESSION_BOUND:.0%}",
    show_default=True,
    callback=_parse_percent,
    metavar="SHARE",
    help="Slowdown tolerated in comparisons.",
)


@command.command("run")
@click.argument("bundle", type=click.Path(path_type=Path))
@backend_options
@click.option(
    "--vs",
    multiple=True,
    metavar="BACKEND[:PRECISION][@DEVICE]",
    help="Measure this subject too, in turns with the first, and compare. May be repeated.",
)
@threads_option("Threads of the network and the CRF.  [default: one per core]")
@click.option("--crf/--no-crf", default=None, help="Require the dense CRF, or switch it off.  [default: as the bundle]")
@click.option("--fast-crf", is_flag=True, help="Allow the CRF its shortcuts in all views.")
@click.option("--images", type=_FOLDER, help="Folder of images to measure with.")
@click.option("--labels", type=_FOLDER, help="Folder of their true labels.")
@size_options
@click.option("--count", type=click.IntRange(1), default=5, show_default=True, metavar="N", help="Most images to use.")
@_number("--duration", "duration_s", kind=float, help="Shortest duration of the stage view, in seconds.")
@_number("--min-samples", help="Fewest samples of the stage view.")
@_number("--max-samples", help="Most samples of the stage view.")
@_number("--warmup", "warmup_s", kind=float, help="Longest warm-up per subject, in seconds.")
@_number("--repeats", help="Runs per image in the accuracy view.")
@click.option(
    "--crf-sweep/--no-crf-sweep", default=None, help="Also try the CRF with fewer iterations and with its shortcuts."
)
@click.option(
    "--pipeline-rounds",
    type=click.IntRange(0, 1000),
    default=BenchPlan.pipeline_rounds,
    show_default=True,
    metavar="N",
    help="Rounds of the pipeline view; 0 skips it.",
)
@_number("--pipeline-images", most=100_000, help="Images per round of the pipeline view.  [default: 12 per core]")
@click.option(
    "--scenario",
    "scenarios",
    callback=_parse_scenarios,
    metavar="NAMES",
    help=f"LoadGen scenarios: {', '.join(SCENARIOS)}, all, or none.  [default: all]",
)
@_number("--load-duration", "load_duration_s", kind=float, help="Shortest duration of a LoadGen test, in seconds.")
@click.option(
    "--quick",
    is_flag=True,
    help="Measure stages and accuracy only, in about 20 seconds; other options override it.",
)
@click.option("--full", is_flag=True, help="Use MLPerf's durations: ten minutes per scenario.")
@_number("--server-qps", kind=float, help="Rate of Server, in images/s.  [default: 70 % of the rate of calls]")
@_number("--latency-bound-ms", kind=float, help="Latency bound of Server, in ms.  [default: 10 x one image]")
@_number("--samples-per-query", most=1024, help="Images per query of MultiStream.")
@_number("--workers", most=256, help="Images labeled at once under load.")
@click.option("--curve/--no-curve", default=True, show_default=True, help="Measure Server at six rates.")
@click.option("--roofline/--no-roofline", default=True, show_default=True, help="Measure the machine's limits.")
@_BOUND
@click.option("-o", "--out", type=_FILE, help="Write the result as JSON to this file.")
@click.option("--report", type=_FILE, help="Write the HTML report to this file.")
@console.json_option
def run(bundle: Path, out: Path | None, report: Path | None, as_json: bool, **options: Any) -> int:
    """Measure BUNDLE: stages, pipeline, latency under load, accuracy, and the machine meanwhile.

    Images are --images (without --labels, accuracy is the agreement with float32), or scenes drawn at --size, or at
    the size the net was made for; the built-in miniature has its own.

    `atrous bench compare A.json B.json` compares two results; `atrous bench crf` measures the dense CRF alone.

    Exit codes: 0 measured, 2 bad usage or input, 3 a library or device is missing.
    """
    from ..bundle.files import prepare_folder
    from ..runtime.benchmark.report import check_report_libraries, write_report
    from ..runtime.benchmark.result_file import write_result
    from ..runtime.benchmark.run import run_bench

    for path in filter(None, (out, report)):
        prepare_folder(path.absolute().parent)
    if report is not None:
        check_report_libraries()
    plan = _make_plan(bundle, **options)
    with console.show_steps() as show:
        try:
            result = run_bench(plan, on_step=show)
        except KeyboardInterrupt:
            _exit_at_once()
    payload = {"result": result.model_dump(mode="json")}
    if as_json:
        console.keep_json(payload)
    else:
        _print_result(result)
    for target, write in ((out, write_result), (report, write_report)):
        if target is not None:
            write(result, target)
            click.echo(f"-> {target}", err=as_json)
    if as_json:
        console.print_json("bench", payload)
    return 0


@command.command("compare")
@click.argument("baseline", type=click.Path(path_type=Path))
@click.argument("candidate", type=click.Path(path_type=Path), required=False)
@click.option(
    "--stage",
    type=click.Choice(COMPARED),
    help="Stage to compare.  [default: end_to_end, and pipeline where both have it]",
)
@_BOUND
@click.option("--strict", is_flag=True, help="Exit 1 also if a comparison is inconclusive.")
@console.json_option
def compare(
    baseline: Path, candidate: Path | None, stage: ComparedName | None, bound: float, strict: bool, as_json: bool
) -> int:
    """Compare two results of `atrous bench`, or the subjects within one.

    Exit codes: 0 no regression, 1 a significant regression beyond the bound, 2 bad usage or input.
    """
    from ..runtime.benchmark.compare import compare_between, compare_within
    from ..runtime.benchmark.result_file import read_result

    first = read_result(baseline)
    stages = () if stage is None else (stage,)
    if candidate is not None:
        found = compare_between(first, read_result(candidate), stages, bound=bound)
    else:
        found = compare_within(first.subjects, stages, bound=bound)
    if not found:
        raise click.UsageError(f"{baseline} has one subject: give a second result")
    if as_json:
        console.print_json("bench", {"comparisons": [comparison.model_dump(mode="json") for comparison in found]})
    else:
        _print_comparisons(found)
    failing = {"regression", "inconclusive"} if strict else {"regression"}
    return REGRESSION if any(comparison.verdict in failing for comparison in found) else 0


command.add_command(bench_crf)
for _command in (run, compare, bench_crf):
    _command.params.append(console.debug_option())


command.add_command(make_server_command(lambda result: _print_result(result)))


def _exit_at_once() -> NoReturn:
    """End the process: LoadGen's threads outlive an interrupted test, and C++ aborts over them at a normal exit."""
    click.echo("atrous: interrupted", err=True)
    sys.stdout.flush()
    os._exit(INTERRUPTED)


def _make_plan(path: Path, **options: Any) -> BenchPlan:
    from ..runtime import read_bundle
    from .bench_images import load_samples

    images, labels, size, count, vs, backend, precision, device = (
        options.pop(name) for name in ("images", "labels", "size", "count", "vs", "backend", "precision", "device")
    )
    sizing = choose_size(size, options.pop("max_side"), options.pop("native"))
    if labels is not None and images is None:
        raise click.UsageError("--labels need --images: give both")
    bundle = read_bundle(path)
    dataset, samples = load_samples(bundle.manifest, images=images, labels=labels, size=size, count=count)
    if options.pop("quick"):
        if options["full"]:
            raise click.UsageError("--quick and --full exclude each other: give one")
        is_given = click.get_current_context().get_parameter_source
        options |= {name: value for name, value in _QUICK.items() if is_given(name) == ParameterSource.DEFAULT}
    given = {name: value for name, value in options.items() if value is not None}
    return BenchPlan(
        bundle,
        [Spec(backend, precision, device), *map(parse_subject, vs)],
        samples,
        dataset=dataset,
        command=("atrous", *sys.argv[1:]),
        **sizing,
        **given,
    )


def _print_result(result: BenchResult) -> None:
    from ..runtime.benchmark.tables import make_sections

    names = ", ".join(f"{subject.name} on {subject.device}" for subject in result.subjects)
    click.secho(f"\n{result.subjects[0].bundle}: {names}", bold=True)
    for section in (section for section in make_sections(result) if not section.is_detail):
        click.secho(f"\n{section.title}", fg="cyan")
        for note in section.notes:
            click.echo(note)
        for table in section.tables:
            widths = [max(map(len, cells)) for cells in zip(table.columns, *table.rows, strict=True)]
            rows = [
                [
                    (cell or "-").rjust(widths[index]) if index in table.numbers else cell
                    for index, cell in enumerate(row)
                ]
                for row in (table.columns, *table.rows)
            ]
            click.echo()
            console.print_table(rows[0], rows[1:], title=table.title or None)
    _print_comparisons(result.comparisons)
    for warning in result.warnings:
        console.print_warning(f"warning: {warning}")
    click.echo(f"to repeat: {shlex.join(result.command)}")


def _print_comparisons(comparisons: Sequence[Comparison]) -> None:
    """One line per comparison; regressions in red."""
    for comparison in comparisons:
        color = {"regression": "red", "improvement": "green"}.get(comparison.verdict)
        click.secho(f"{comparison.stage}: {comparison.verdict}: {comparison.reason}", fg=color)
