"""`atrous bench --server URL`: a running server under load, by `runtime.benchmark.server_view`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import console
from .size_option import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..runtime.benchmark.results import BenchResult


def make_command(print_result: Callable[[BenchResult], None]) -> click.Command:
    """The command; `print_result` prints a result for people."""

    @click.command("server")
    @click.option("--server", "url", required=True, metavar="URL", help="Address of the server.")
    @click.option("--model", metavar="NAME", help="Name of the model.  [default: the server's only one]")
    @click.option(
        "--images", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of images to send."
    )
    @click.option(
        "--size", callback=parse_size, default="513x513", show_default=True, metavar="HxW", help="Size of drawn scenes."
    )
    @click.option("--count", type=click.IntRange(1), default=5, show_default=True, help="Most images to use.")
    @click.option(
        "--load-duration",
        "duration_s",
        type=click.FloatRange(0.1),
        default=10.0,
        show_default=True,
        help="Shortest duration of each test, in seconds.",
    )
    @click.option(
        "--connections", type=click.IntRange(1, 256), default=8, show_default=True, help="Of the test of the peak."
    )
    @click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the result as JSON.")
    @click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write the HTML report.")
    @console.json_option
    def command(
        url: str,
        model: str | None,
        images: Path | None,
        size: tuple[int, int],
        count: int,
        duration_s: float,
        connections: int,
        out: Path | None,
        report: Path | None,
        as_json: bool,
    ) -> int:
        """Measure a running server: latency alone, its peak, and latency at 0.5, 0.8 and 1.2 of the peak.

        Requests are labels of --images, or of scenes drawn at --size, by the Open Inference Protocol. The token is
        $ATROUS_SERVE_TOKEN. Any server of the protocol works if --model names one with the tensors image and labels.

        Exit codes: 0 measured, 2 bad usage or input, 3 a library is missing, or a request failed.
        """
        from ..runtime.benchmark.report import check_report_libraries, write_report
        from ..runtime.benchmark.result_file import write_result
        from ..runtime.benchmark.server_view import ServerPlan, find_model, measure_server
        from .bench_images import load_folder, resize_scenes

        if report is not None:
            check_report_libraries()
        if images is not None:
            dataset, samples = load_folder(images, count)
        else:
            dataset, samples = f"{count} scenes at {size[0]}x{size[1]}", resize_scenes(size, count)
        token = os.environ.get("ATROUS_SERVE_TOKEN") or None
        plan = ServerPlan(
            url,
            samples,
            model or find_model(url, token),
            token,
            duration_s,
            connections,
            dataset=dataset,
            command=("atrous", *sys.argv[1:]),
        )
        with console.show_steps() as show:
            result = measure_server(plan, on_step=show)
        if not as_json:
            print_result(result)
        for target, write in ((out, write_result), (report, write_report)):
            if target is not None:
                write(result, target)
                click.echo(f"-> {target}", err=as_json)
        if as_json:
            console.print_json("bench", {"result": result.model_dump(mode="json")})
        return 0

    command.params.append(console.debug_option())
    return command
