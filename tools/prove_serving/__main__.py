"""The commands; see the package's docstring."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import click

from .encodings import measure_encodings
from .faults import run_faults
from .load import compare_throughput, kill_once, soak
from .running import list_files, run_server

_bundle = click.argument("bundle", type=click.Path(path_type=Path, exists=True))
_images = click.argument("images", type=click.Path(path_type=Path, exists=True, file_okay=False))
_connections = click.option("--connections", type=click.IntRange(1, 256), default=8, show_default=True)


@click.group()
def cli() -> None:
    """Test a server under load and under attack."""


@cli.command()
@_bundle
@_images
@_connections
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--images", "count", type=click.IntRange(1), default=24, show_default=True, help="Images per round.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--crf/--no-crf", default=True)
def throughput(bundle: Path, images: Path, connections: int, rounds: int, count: int, threads: int, crf: bool) -> None:
    """The server against `atrous segment`, in turns."""
    from atrous import runtime

    found = list_files(images)
    with tempfile.TemporaryDirectory() as name:
        folder, paths = Path(name), []
        for index in range(count):
            path = found[index % len(found)]
            paths.append(folder / f"{index:04}-{path.name}")
            shutil.copy(path, paths[-1])
        option = "--crf" if crf else "--no-crf"
        with (
            runtime.load(bundle, threads=threads, crf=crf) as segmenter,
            run_server(bundle, "--threads", threads, option) as server,
        ):
            report = compare_throughput(server, segmenter, paths, folder / "out", rounds, connections, threads)
    click.echo(json.dumps({"crf": crf, "connections": connections, "threads": threads, **report}))


@cli.command()
def encodings() -> None:
    """Bytes and milliseconds of each form of an answer."""
    rows = measure_encodings()
    for row in rows:
        click.echo(f"{row['size'][0]}x{row['size'][1]}  {row['form']:34} {row['bytes']:>10} bytes {row['ms']:>9.2f} ms")
    click.echo(json.dumps(rows))


@cli.command()
@_bundle
@_images
def faults(bundle: Path, images: Path) -> None:
    """Slow, half, huge, hostile and cancelled requests."""
    rows = []
    with run_server(bundle) as server:
        for row in run_faults(server, list_files(images)[0].read_bytes()):
            rows.append(row)
            click.echo(json.dumps(row))
    click.echo(json.dumps(rows))


@cli.command()
@_bundle
@_images
@_connections
@click.option("--times", type=click.IntRange(1), default=10, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True)
def kill(bundle: Path, images: Path, connections: int, times: int, workers: int) -> None:
    """SIGTERM at random moments under load."""
    bodies = [path.read_bytes() for path in list_files(images)]
    total: Counter[str] = Counter()
    for seed in range(times):
        with run_server(bundle, "--workers", workers) as server:
            counts = kill_once(server, bodies, connections, seed)
        click.echo(json.dumps(counts))
        total += counts
    click.echo(json.dumps({"kills": times, "connections": connections, **total}))


@cli.command("soak")
@_bundle
@_images
@_connections
@click.option("--minutes", type=click.FloatRange(0.01), default=10.0, show_default=True)
def soak_command(bundle: Path, images: Path, connections: int, minutes: float) -> None:
    """Mixed requests for minutes: memory, files, threads."""
    bodies = [path.read_bytes() for path in list_files(images)]
    with run_server(bundle) as server:
        click.echo(json.dumps(soak(server, bodies, minutes, connections)))


if __name__ == "__main__":
    cli()
