"""Differences between TensorRT 8.5 and 11 outside of builds: import, types, logger, monitor, engine loading.

`capabilities` lists what exists in which version, `plan` makes the calls of a build. A name that a version lacks is
looked up only where the version has it.
"""

from __future__ import annotations

import json
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from contextlib import contextmanager
from typing import Any

from ....dependencies import import_optional
from ....errors import BackendError, EngineError
from .capabilities import Capabilities, read_capabilities

#: member of trt.DataType -> NumPy's name. In 8.5, trt.nptype() uses np.bool, which NumPy 1.24 removed.
NUMPY_NAMES: Mapping[str, str] = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}
_MAX_LOG_LINES = 10_000
_SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING")
_SHOWN_LINES = 20
_KEPT_LINES = 100  # of a loaded engine, which may run for months
_NO_DRIVER = "run on a machine with an NVIDIA driver and GPU, which `atrous doctor` lists; --dry-run needs none"
#: texts in TensorRT's log -> what to do about them
_REMEDIES = (
    ("no CUDA-capable device", "run on a machine with an NVIDIA GPU"),
    ("Cuda failure: 35", _NO_DRIVER),
    ("CUDA initialization failure with error: 35", _NO_DRIVER),
    ("cudaError 35", _NO_DRIVER),
    ("driver version is insufficient", _NO_DRIVER),
    ("OutOfMemory", "free memory of the GPU, or give a smaller --workspace or smaller shapes"),
    ("Cannot find binding of given name", "check the names of the inputs in the profile"),
    ("timing cache", "rebuild without --replay; the cache does not cover this build"),
    ("could not find any implementation", "give a larger --workspace, or --tactic-sources default"),
    ("model contains HW-specific datatypes", "choose a precision that this GPU supports, such as fp16"),
    ("graph_jit.cpp", "a build with --refit needs a GPU"),
    ("Non-zero zero point is not supported", "make the variant again with --activations int8"),
)


def load_tensorrt() -> tuple[Any, Capabilities]:
    """Import TensorRT 8.5 or later; return the module and its capabilities."""
    trt = import_optional("tensorrt")
    return trt, read_capabilities(trt)


def numpy_name(data_type: Any) -> str:
    """Return NumPy's name for a member of trt.DataType; raises BackendError if NumPy lacks it, as BF16."""
    name = _name(data_type)
    if name not in NUMPY_NAMES:
        raise BackendError(
            f"an input or output has type {name}, which NumPy lacks: build with one of {', '.join(NUMPY_NAMES)} there"
        )
    return NUMPY_NAMES[name]


def make_logger(trt: Any, lines: MutableSequence[str], layers: list[str] | None = None) -> Any:
    """Return a trt.ILogger that appends "<severity>: <message>" to `lines`, also while objects are freed.

    `layers` receives the lists of an engine's layers that a builder writes at the severity VERBOSE.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if _name(severity) in _SEVERITIES and len(lines) < _MAX_LOG_LINES:
                lines.append(f"{_name(severity).lower()}: {message}")
            elif layers is not None and message.startswith("Layers:\n"):
                layers.append(message)

    return Logger()


def make_progress_monitor(trt: Any, progress: Callable[[str, int, int], None]) -> Any:
    """Return a trt.IProgressMonitor that calls progress(phase, finished steps, steps) and never cancels."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, step + 1, self.steps.get(phase_name, 0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            progress(phase_name, self.steps.get(phase_name, 0), self.steps.get(phase_name, 0))

    return Monitor()


def describe_parser_errors(parser: Any, capabilities: Capabilities) -> list[str]:
    """Return every error of an ONNX parser as one line, with the node's name and operator where available."""
    lines = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        number = error.node()
        place = f"node {number}" if number >= 0 else "model"
        if capabilities.parser_nodes and error.node_name():
            place = f'node {number} "{error.node_name()}" ({error.node_operator()})'
        lines.append(f"{place}: {error.desc()}")
    return lines


def suggest_remedies(lines: Sequence[str]) -> list[str]:
    """Return what to do about the known errors in TensorRT's log."""
    text = "\n".join(lines).lower()
    return list(dict.fromkeys(remedy for piece, remedy in _REMEDIES if piece.lower() in text))


def merge_lines(lines: Iterable[str]) -> tuple[str, ...]:
    """Return each line once, with the number of times it was logged if more."""
    return tuple(line if count == 1 else f"{line} ({count} times)" for line, count in Counter(lines).items())


def explain(problem: str, log: Sequence[str], *, advice: str = "") -> str:
    """Return an error message of a problem, the reasons in TensorRT's log, and what to do; `advice` if nothing else."""
    # Without a driver, 8.5 reports that in a warning only, so without errors the warnings are the reason.
    found = [line for line in log if not line.startswith("warning")] or log
    reasons = list(dict.fromkeys(" ".join(line.split()) for line in found)) or ["TensorRT gave no reason"]
    more = [f"and {len(reasons) - _SHOWN_LINES} more"] if len(reasons) > _SHOWN_LINES else []
    remedies = suggest_remedies([problem, *reasons]) or ([advice] if advice else [])
    ending = f". What to do: {'; '.join(remedies)}" if remedies else ""
    return f"{problem}: {'; '.join([*reasons[:_SHOWN_LINES], *more])}{ending}"


@contextmanager
def release_in_order(made: MutableMapping[str, Any]) -> Iterator[None]:
    """Release `made`, TensorRT objects in the order of creation, newest first after the block, also if it raises.

    An object that is freed after its owner crashes the process.
    """
    try:
        yield
    except BaseException as error:
        clear_frames(error)
        raise
    finally:
        while made:
            made.popitem()


def clear_frames(error: BaseException) -> None:
    """Release the objects that the tracebacks of an error and its causes keep alive."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__


class LoadedEngine:
    """A deserialized engine, with the runtime and the logger that it needs in `made`, and their log."""

    def __init__(self, trt: Any, plan: bytes):
        """Load a plan that the store has checked; engine_host_code_allowed keeps its default, off."""
        self.log: deque[str] = deque(maxlen=_KEPT_LINES)
        self.made: dict[str, Any] = {"logger": make_logger(trt, self.log)}
        name = f"TensorRT {trt.__version__}"
        try:
            self.made["runtime"] = trt.Runtime(self.made["logger"])
            self.made["engine"] = self.made["runtime"].deserialize_cuda_engine(plan)
            if self.engine is None:
                if _NO_DRIVER in suggest_remedies(self.log):
                    raise BackendError(explain(f"{name} cannot load the plan", self.log))
                again = "build it again with `atrous build`"
                raise EngineError(explain(f"{name} refuses the plan", self.log, advice=again), field="plan")
        except TypeError as error:  # pybind's error if a factory returns nothing
            self.close()
            raise BackendError(explain(f"{name} cannot start", self.log, advice=_NO_DRIVER)) from error
        except BaseException:
            self.close()
            raise

    @property
    def engine(self) -> Any:
        """The TensorRT ICudaEngine; None after `close`."""
        return self.made.get("engine")

    def close(self) -> None:
        """Release engine, runtime and logger, in this order."""
        while self.made:
            self.made.popitem()


def inspect_engine(trt: Any, engine: Any) -> dict[str, Any]:
    """Return the inspector's JSON about an engine, parsed; raises BackendError if it is not a JSON object."""
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise BackendError("TensorRT's inspector returns no JSON object")
    return content


def _name(member: Any) -> str:
    """The name of a member of a pybind enumeration."""
    return str(getattr(member, "name", member)).rpartition(".")[2]
