"""`atrous serve`: bundles over HTTP and gRPC, by `runtime.serve`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console
from .backend_option import backend_options
from .crf_option import crf_option
from .memory_option import memory_option, parse_memory
from .size_option import choose_size, size_options
from .threads_option import threads_option

if TYPE_CHECKING:
    from ..runtime.serve.process import Addresses

_PORT = click.IntRange(0, 65535)
_MEBI = 1 << 20


def _read_token(context: click.Context, parameter: click.Parameter, value: Path | None) -> str | None:
    """The token in a file."""
    if value is None:
        return None
    try:
        return value.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"the token cannot be read: {error}", context, parameter) from None


@click.command()
@click.argument("bundles", nargs=-1, required=True, metavar="[NAME=]BUNDLE...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=_PORT, default=8000, show_default=True, help="HTTP port; 0 for a free one.")
@click.option("--grpc-port", type=_PORT, metavar="PORT", help="Also serve gRPC on this port; 0 for a free one.")
@click.option("--public", is_flag=True, help="Allow a --host that other machines reach, such as 0.0.0.0.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_read_token,
    help="File with the bearer token that requests must have.  [default: $ATROUS_SERVE_TOKEN, else none]",
)
@crf_option
@click.option("--fast-crf", is_flag=True, help="Use the CRF's shortcuts: faster, and few labels change.")
@size_options
@memory_option
@backend_options
@threads_option()
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Number of processes; each loads all bundles and gets its share of the cores and of --memory.",
)
@click.option(
    "--queue",
    type=click.IntRange(1, 10_000),
    default=32,
    show_default=True,
    help="Most requests at a time in a process; further ones get 503 and Retry-After.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Largest number of images of one size in a run of the network.",
)
@click.option(
    "--batch-delay-ms",
    type=click.FloatRange(0, 1000),
    default=0.0,
    show_default=True,
    help="Milliseconds that a run of the network waits for a full batch.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1, 3600),
    default=30.0,
    show_default=True,
    help="Seconds after which an unfinished request gets 503.",
)
@click.option(
    "--max-body",
    callback=parse_memory,
    default="64M",
    show_default=True,
    metavar="SIZE",
    help="Largest body of a request, such as 64M.",
)
@click.option(
    "--max-megapixels",
    type=click.FloatRange(0.01, 67),
    default=16.0,
    show_default=True,
    help="Largest image in millions of pixels, checked before it is decoded.",
)
@click.option(
    "--drain-delay",
    "drain_delay_s",
    type=click.FloatRange(0, 600),
    default=0.0,
    show_default=True,
    help="Seconds after SIGTERM in which requests are still taken, for load balancers to notice.",
)
@click.option(
    "--access-log",
    metavar="FILE",
    help="Append one JSON object per request to FILE; - for stderr.",
)
@console.json_option
def command(
    bundles: tuple[str, ...],
    token_file: str | None,
    crf: bool | str,
    fast_crf: bool,
    size: tuple[int, int] | None,
    max_side: int | None,
    native: bool,
    memory: int | None,
    backend: str,
    device: str | None,
    precision: str,
    threads: int | None,
    max_body: int,
    max_megapixels: float,
    as_json: bool,
    **settings: Any,
) -> int:
    """Serve BUNDLEs: the Open Inference Protocol (/v2), /segment for curl, a page (/), Prometheus metrics (/metrics).

    The name of a model is the bundle's, or NAME in NAME=BUNDLE; two precisions or versions of a net are two models.

    \b
    atrous serve out/deeplab-miniature
    curl --data-binary @photo.jpg http://127.0.0.1:8000/segment -o labels.png

    It listens on this machine only, unless --public is given. SIGTERM and Ctrl-C finish the requests in progress. Ready
    to serve, it prints the addresses.

    Exit codes: 0 ended by a signal, 1 the server failed, 2 bad usage or input, 3 a library or device is missing.
    """  # noqa: D301 (click's \b keeps the line breaks)
    from ..dependencies import import_crf
    from ..runtime.serve import ServeSettings
    from ..runtime.serve.models import name_bundles
    from ..runtime.serve.server import run_server

    load: dict[str, Any] = {
        "backend": backend,
        "device": device,
        "precision": precision,
        "crf": crf,
        "crf_shortcuts": dict(import_crf().FAST) if fast_crf else None,
        "memory_bytes": memory,
        **choose_size(size, max_side, native),
    }
    chosen = ServeSettings(
        bundles=name_bundles(bundles),
        load=load,
        token=token_file or os.environ.get("ATROUS_SERVE_TOKEN") or None,
        cores=threads,
        max_body_bytes=max_body,
        max_held_bytes=max(8 * max_body, 512 * _MEBI),
        max_pixels=int(max_megapixels * 1e6),
        **settings,
    )

    def announce(addresses: Addresses) -> None:
        if as_json:
            report = {"http": addresses.http, "grpc": addresses.grpc, "models": list(chosen.bundles)}
            console.print_json("serve", report)
        else:
            console.print_line(f"{', '.join(chosen.bundles)}: {addresses.http}")
            if addresses.grpc is not None:
                console.print_line(f"gRPC: {addresses.grpc}")
        sys.stdout.flush()

    return run_server(chosen, announce)
