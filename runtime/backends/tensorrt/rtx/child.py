"""One build of TensorRT for RTX, in a process of its own, which `builder` starts.

The folder of a build holds `request.json` and `model.onnx`; the process writes `plan`, then `result.json`. Without a
result, the process has crashed, and `log.txt` holds the warnings and errors until then.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from .....errors import AtrousError
from .. import compat
from ..builder import run_plan
from ..capabilities import find_rtx_capabilities
from ..options import BuildOptions, ShapeRange
from ..plan import BuildPlan
from .library import RtxLibrary, load_library

REQUEST, MODEL, PLAN, RESULT, LOG = "request.json", "model.onnx", "plan", "result.json", "log.txt"


class _WrittenLines(list[str]):
    """Lines that are in a file as soon as they are appended."""

    def __init__(self, path: Path):
        super().__init__()
        self._file = path.open("w", encoding="utf-8", buffering=1)

    def append(self, line: str) -> None:
        super().append(line)
        self._file.write(f"{line}\n")


def write_request(library: RtxLibrary, plan: BuildPlan) -> str:
    """Return the content of `request.json`."""
    folder = str(library.folder) if library.folder is not None else None
    profiles = [{name: vars(shapes) for name, shapes in profile.items()} for profile in plan.options.profiles]
    content = {
        "library": {"version": library.version, "folder": folder},
        "options": {**plan.options.to_json(), "profiles": profiles},
        "precision": plan.precision,
    }
    return json.dumps(content)


def read_request(text: str) -> tuple[RtxLibrary, BuildPlan]:
    """Return the library and the plan of a request; the plan's notes are not in it."""
    content = json.loads(text)
    given, folder = content["options"], content["library"]["folder"]
    profiles = tuple(
        {name: ShapeRange(**{key: tuple(shape) for key, shape in shapes.items()}) for name, shapes in profile.items()}
        for profile in given["profiles"]
    )
    options = BuildOptions(**{**given, "profiles": profiles, "targets": tuple(given["targets"])})
    library = RtxLibrary(content["library"]["version"], Path(folder) if folder is not None else None)
    plan = BuildPlan(options, find_rtx_capabilities(library.version), (), (), (), content["precision"], ())
    return library, plan


def build(folder: Path) -> dict[str, Any]:
    """Build what a folder's request asks for, and return the content of `result.json`."""
    library, plan = read_request((folder / REQUEST).read_text())
    model = (folder / MODEL).read_bytes()
    lines, layers = _WrittenLines(folder / LOG), list[str]()
    try:
        trt = load_library(library)
        made: dict[str, Any] = {"logger": compat.make_logger(trt, lines, layers), "model": model}
        started_s = time.perf_counter()
        with compat.release_in_order(made):
            run_plan(trt, plan, made, lines)
            seconds = time.perf_counter() - started_s
            (folder / PLAN).write_bytes(bytes(made["plan"]))
    except AtrousError as error:
        return {"error": str(error), "kind": type(error).__name__}
    return {"seconds": seconds, "log": lines, "layers": layers[-1] if layers else ""}


def main(folder: Path) -> None:
    """Build, and write the result."""
    result = build(folder)
    (folder / RESULT).write_text(json.dumps(result), encoding="utf-8")
