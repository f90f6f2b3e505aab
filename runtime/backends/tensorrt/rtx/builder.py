"""Builds an engine of TensorRT for RTX in a child process, so that a crash of the library is one error."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .....errors import BackendError, BuildError
from ..builder import BuiltEngine
from ..compat import merge_lines
from ..plan import BuildPlan
from . import child
from .layers import parse_layers
from .library import RtxLibrary

_SHOWN_LINES = 5
#: starts `child` with this process's import path; `python -m` would import modules from the current folder first
_START = (
    "import sys; sys.path[:] = sys.argv[3:]; from importlib import import_module; from pathlib import Path; "
    "import_module(sys.argv[1]).main(Path(sys.argv[2]))"
)
_ERRORS = {error.__name__: error for error in (BackendError, BuildError)}


def build_engine(library: RtxLibrary, plan: BuildPlan, model: bytes) -> BuiltEngine:
    """Build an engine for a plan's targets; needs no GPU and no driver.

    Raises:
        BackendError: if the library does not load, or has another version.
        BuildError: if the parser or the builder fails, the library crashes, or it lists no layers for the audit.
    """
    with tempfile.TemporaryDirectory(prefix="atrous-rtx-") as name:
        folder = Path(name)
        (folder / child.REQUEST).write_text(child.write_request(library, plan))
        (folder / child.MODEL).write_bytes(model)
        command = [sys.executable, "-c", _START, child.__name__, name, *filter(None, sys.path)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        result = _read_result(folder, done, plan)
        serialized = (folder / child.PLAN).read_bytes()
    inspection = parse_layers(result["layers"])
    if not inspection["Layers"]:
        raise BuildError(
            f"{plan.capabilities.product}: its log lists no layers of the engine in a known form, so the precision "
            "cannot be audited. What to do: use the version of the extra rtx"
        )
    return BuiltEngine(serialized, b"", inspection, merge_lines(result["log"]), float(result["seconds"]))


def _read_result(folder: Path, done: subprocess.CompletedProcess[str], plan: BuildPlan) -> dict[str, Any]:
    product = plan.capabilities.product
    try:
        result = json.loads((folder / child.RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BuildError(_describe_crash(folder, done, product)) from None
    if "error" in result:
        raise _ERRORS.get(result["kind"], BuildError)(result["error"])
    if done.returncode != 0:  # it crashed while it released its objects: what it built is in doubt
        raise BuildError(_describe_crash(folder, done, product))
    return dict(result)


def _describe_crash(folder: Path, done: subprocess.CompletedProcess[str], product: str) -> str:
    code = done.returncode
    known = {int(member): member.name for member in signal.Signals}
    ending = f"crashed ({known.get(-code, f'signal {-code}')})" if code < 0 else f"ended with exit code {code}"
    log = folder / child.LOG
    lines = [*(log.read_text(encoding="utf-8").splitlines() if log.exists() else ()), *done.stderr.splitlines()]
    reason = f"; its last lines: {'; '.join(lines[-_SHOWN_LINES:])}" if lines else ""
    return (
        f"{product} {ending} while it built; nothing was stored{reason}. What to do: try another precision or other "
        "shapes, or run the network with the onnxruntime backend"
    )
