"""Starts the tritonserver of the PyPI wheel `nvidia-pytriton` on a model repository, on this machine's CPU.

The wheel has Triton's Python backend and no other. A copy of the repository is served in which each model of the
onnxruntime backend is run by `network_model.py`, by onnxruntime too; nothing else is changed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
_START_S = 90.0
_STOP_S = 30.0
_LOCAL = "127.0.0.1"


@dataclass(frozen=True)
class TritonServer:
    """A running server: addresses as host:port, its log, and whether models loaded."""

    http: str
    grpc: str
    metrics: str
    log: Path
    process: subprocess.Popen[bytes]


def find_wheel() -> Path | None:
    """The folder `pytriton/tritonserver` of the wheel, None if it is not installed."""
    spec = importlib.util.find_spec("pytriton")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0], "tritonserver") if places else None


def swap_backend(repository: Path) -> None:
    """Let Python run the models of the onnxruntime backend, which the wheel lacks; all else stays as exported."""
    for config in repository.glob("*/config.pbtxt"):
        text = config.read_text()
        if 'backend: "onnxruntime"' in text:
            config.write_text(text.replace('backend: "onnxruntime"', 'backend: "python"'))
            shutil.copy(_HERE / "network_model.py", config.parent / "1" / "model.py")


@contextlib.contextmanager
def run_server(
    repository: Path, folder: Path, *, python: Path = Path(sys.executable), require_ready: bool = True
) -> Iterator[TritonServer]:
    """Serve a repository on free ports of 127.0.0.1, until the block ends.

    Args:
        repository: the folder of the models; unchanged.
        folder: for the copy that is served, and the log.
        python: the Python whose packages the Python steps import.
        require_ready: whether all models must load.

    Raises:
        RuntimeError: with the end of the log, if the server does not start, or is not ready.
    """
    wheel = find_wheel()
    assert wheel is not None, "nvidia-pytriton is not installed"
    served, log = folder / "models", folder / "triton.log"
    shutil.copytree(repository, served)
    swap_backend(served)
    ports = _find_ports(3)
    http, grpc, metrics = (f"{_LOCAL}:{port}" for port in ports)
    line = [
        str(wheel / "bin" / "tritonserver"),
        f"--model-repository={served}",
        f"--backend-directory={_make_backends(wheel, folder)}",
        "--exit-on-error=false",
        "--disable-auto-complete-config",
        "--log-verbose=0",
        *(f"--{kind}-port={port}" for kind, port in zip(("http", "grpc", "metrics"), ports, strict=True)),
        *(f"--{kind}-address={_LOCAL}" for kind in ("http", "grpc", "metrics")),
    ]
    with log.open("wb") as output:
        environment = _make_environment(wheel, python)
        process = subprocess.Popen(line, stdout=output, stderr=output, env=environment, start_new_session=True)
    try:
        server = TritonServer(http, grpc, metrics, log, process)
        _wait(server, require_ready)
        yield server
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        with contextlib.suppress(ProcessLookupError):  # a server that did not start leaves its Python steps
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _make_backends(wheel: Path, folder: Path) -> Path:
    """A folder of backends: the wheel's, with the stub of this Python's version beside it."""
    backends = folder / "backends"
    shutil.copytree(wheel / "backends", backends)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = "triton_python_backend_stub"
    shutil.copy(wheel / "python_backend_stubs" / version / stub, backends / "python" / stub)
    (backends / "python" / stub).chmod(0o755)
    return backends


def _make_environment(wheel: Path, python: Path) -> dict[str, str]:
    """The environment in which Triton finds its libraries, and its Python step the packages of an environment.

    Triton starts Python isolated: it ignores PYTHONPATH, and takes the packages beside the first python3 of PATH.
    """
    libraries = [wheel.parent.parent / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", "")]),
        "OMP_NUM_THREADS": "1",
    }


def _find_ports(count: int) -> list[int]:
    """Free ports; another process could take one before the server does, which then fails to start."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((_LOCAL, 0))
        return [each.getsockname()[1] for each in sockets]


def _wait(server: TritonServer, require_ready: bool) -> None:
    """Wait until the server answers, and is ready unless that is not required."""
    page = "ready" if require_ready else "live"
    deadline = time.monotonic() + _START_S
    while server.process.poll() is None and time.monotonic() < deadline:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(f"http://{server.http}/v2/health/{page}", timeout=5),
        ):
            return
        log = server.log.read_text(errors="replace")
        if require_ready and "failed to load all models" in log:
            break
        time.sleep(0.2)
    tail = "\n".join(server.log.read_text(errors="replace").splitlines()[-40:])
    raise RuntimeError(f"tritonserver is not ready:\n{tail}")
