"""The one place that touches what differs between TensorRT 8.5 and 11: import, types, listeners, deserialising.

What exists where is in `capabilities`; which calls a build makes is in `plan`. Names are looked up here at the moment
they are used, so that a name which a version lacks is never touched on it.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

from ....dependencies import import_optional
from ....errors import BackendError, EngineError
from .capabilities import Capabilities, read_capabilities

#: member of trt.DataType -> NumPy's name. trt.nptype() is not used: in 8.5 it needs np.bool, which NumPy 1.24 dropped.
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
#: pieces of TensorRT's log -> what to do about it
_REMEDIES = (
    ("no CUDA-capable device", "run on a machine with an NVIDIA GPU"),
    ("Cuda failure: 35", "run on a machine with an NVIDIA driver and GPU, or use --dry-run"),
    ("CUDA initialization failure with error: 35", "run on a machine with an NVIDIA driver and GPU, or use --dry-run"),
    ("OutOfMemory", "free memory of the GPU, or give a smaller --workspace or smaller shapes"),
    ("Cannot find binding of given name", "check the names of the inputs in the profile"),
    ("timing cache", "rebuild without --replay; the cache does not cover this build"),
    ("could not find any implementation", "give a larger --workspace, or --tactic-sources default"),
)


def load_tensorrt() -> tuple[Any, Capabilities]:
    """Import TensorRT and say what it can do.

    Raises:
        MissingDependencyError: if it is not installed; names the pip line.
        BackendError: if it does not load, or is older than 8.5.
    """
    trt = import_optional("tensorrt")
    return trt, read_capabilities(trt)


def numpy_name(data_type: Any) -> str:
    """NumPy's name for a member of trt.DataType.

    Raises:
        BackendError: for a type that NumPy lacks, such as BF16 or FP8.
    """
    name = str(getattr(data_type, "name", data_type)).rpartition(".")[2]
    if name not in NUMPY_NAMES:
        raise BackendError(
            f"a tensor of type {name} has no NumPy form: build with {', '.join(NUMPY_NAMES)} at the ends"
        )
    return NUMPY_NAMES[name]


def make_logger(trt: Any, lines: list[str], *, verbose: bool = False) -> Any:
    """A trt.ILogger that appends "<severity>: <message>" to `lines`: warnings and errors, with `verbose` everything.

    TensorRT may log while an object is torn down, so the logger keeps a plain list and calls nothing else.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            name = str(getattr(severity, "name", severity)).rpartition(".")[2]
            if (verbose or name in ("INTERNAL_ERROR", "ERROR", "WARNING")) and len(lines) < _MAX_LOG_LINES:
                lines.append(f"{name.lower()}: {message}")

    return Logger()


def make_progress_monitor(trt: Any, tell: Callable[[str, int, int], None]) -> Any:
    """A trt.IProgressMonitor that calls tell(phase, step, steps) and never cancels."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            tell(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            tell(phase_name, step + 1, self.steps.get(phase_name, 0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            tell(phase_name, self.steps.get(phase_name, 0), self.steps.get(phase_name, 0))

    return Monitor()


def describe_parser_errors(parser: Any, capabilities: Capabilities) -> list[str]:
    """Every error of an ONNX parser as one line with the node's name and operator, where the version tells them."""
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
    """What to do about errors that TensorRT logs, for those that are known."""
    text = "\n".join(lines).lower()
    return list(dict.fromkeys(remedy for piece, remedy in _REMEDIES if piece.lower() in text))


@contextmanager
def release_in_order(made: MutableMapping[str, Any]) -> Iterator[None]:
    """Release the block's TensorRT objects newest first, also where it raises.

    An object that is freed after its owner crashes the process, and a traceback keeps the objects of its frames.

    Args:
        made: the objects by name in the order of their making; emptied.
    """
    try:
        yield
    except BaseException as error:
        link: BaseException | None = error
        while link is not None:
            traceback.clear_frames(link.__traceback__)
            link = link.__cause__ or link.__context__
        raise
    finally:
        while made:
            made.popitem()


class LoadedEngine:
    """A deserialized engine, with the runtime and the logger that it needs.

    Attributes:
        log: what TensorRT logs about it: warnings and errors.
        made: logger, runtime and engine by these names; empty after `close`.
    """

    def __init__(self, trt: Any, plan: bytes):
        """Load a plan that the store has checked.

        engine_host_code_allowed keeps its default, off: no code in the plan runs besides TensorRT's own.

        Raises:
            BackendError: if TensorRT does not start, as without a driver.
            EngineError: if TensorRT refuses the plan.
        """
        self.log: list[str] = []
        self.made: dict[str, Any] = {"logger": make_logger(trt, self.log)}
        try:
            self.made["runtime"] = trt.Runtime(self.made["logger"])
            self.made["engine"] = self.made["runtime"].deserialize_cuda_engine(plan)
            if self.engine is None:
                advice = "build it again with `atrous build`"
                raise EngineError(f"TensorRT {trt.__version__} refuses the plan: {advice}", field="plan")
        except TypeError as error:  # pybind's way to say that a factory returned nothing
            self.close()
            raise BackendError(
                f"TensorRT {trt.__version__} does not start: is there a GPU? (see `atrous doctor`)"
            ) from error
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


def inspect_engine(trt: Any, engine: Any, context: Any = None) -> dict[str, Any]:
    """The inspector's account of an engine, parsed.

    Raises:
        BackendError: if it is no JSON object.
    """
    inspector = engine.create_engine_inspector()
    if context is not None:
        inspector.execution_context = context
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        account = json.loads(text)
    except ValueError as error:
        raise BackendError(f"TensorRT's inspector gives no JSON: {error}") from error
    if not isinstance(account, dict):
        raise BackendError("TensorRT's inspector gives no JSON object")
    return account
