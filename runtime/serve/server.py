"""`run_server`: the socket, and one process or several."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from ...dependencies import import_optional
from ...errors import InputError
from ..pipeline.engine import count_cores
from .process import Addresses, serve_process
from .settings import ServeSettings
from .workers import run_workers


def run_server(settings: ServeSettings, on_ready: Callable[[Addresses], None]) -> int:
    """Serve until SIGTERM or Ctrl-C; returns the exit code.

    Args:
        settings: all of it.
        on_ready: called once, when all models are loaded and the server listens.

    Raises:
        InputError: if an address cannot be listened on.
        BundleError, BackendError, MissingDependencyError: as `runtime.load`; or a library of the server is missing.
    """
    for module in ("starlette", "uvicorn", "prometheus_client", *(("grpc",) if settings.grpc_port is not None else ())):
        import_optional(module)
    raise_file_limit()
    with open_socket(settings.host, settings.port) as listener:
        if settings.workers > 1:
            return run_workers(settings, listener, on_ready)
        return serve_process(settings, listener, on_ready, cores=settings.cores or count_cores())


def open_socket(host: str, port: int) -> socket.socket:
    """Listen on an address; InputError if it is taken or is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise InputError(f"cannot listen on {host}:{port}: {error.strerror}: choose another --port or --host") from None
    return listener


def raise_file_limit() -> None:
    """Allow as many open files as the system lets this process have: each connection is one."""
    if os.name == "posix":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = hard if hard != resource.RLIM_INFINITY else 1 << 16
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 1 << 16), hard))
