"""Runs a build's plan against TensorRT: every call of the plan, in its order, and nothing it does not say."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ....errors import BuildError
from . import compat
from .plan import Argument, Bits, BuildPlan, Call, Given, Member, Result

#: phase, step, steps
Progress = Callable[[str, int, int], None]
_SHOWN_LINES = 20


@dataclass(frozen=True)
class BuiltEngine:
    """What a build gives.

    Attributes:
        plan: the serialized engine. It is code: only plans that this installation signed are loaded again.
        timing_cache: the timings behind its choices, to replay the build with.
        inspection: the inspector's account of its layers.
        log: TensorRT's warnings and errors.
        seconds: that the build took.
    """

    plan: bytes
    timing_cache: bytes
    inspection: dict[str, Any]
    log: tuple[str, ...]
    seconds: float


def build_engine(
    trt: Any, plan: BuildPlan, model: bytes, *, timing_cache: bytes = b"", progress: Progress | None = None
) -> BuiltEngine:
    """Build an engine.

    Args:
        trt: the tensorrt module.
        plan: from `plan_build`, for this module's capabilities.
        model: the ONNX bytes the plan was made for.
        timing_cache: of an earlier build; empty to time everything anew.
        progress: told of the builder's phases, where the version can.

    Raises:
        BuildError: with every error of the parser, or what the builder logged; ends with what to do where known.
    """
    lines: list[str] = []
    logger = compat.make_logger(trt, lines)  # hears of every error; a recorder would crash NVIDIA's parser when freed
    given: dict[str, Any] = {
        "logger": logger,
        "model": model,
        "timing cache": timing_cache,
    }
    if plan.capabilities.progress_monitor:
        given["progress monitor"] = compat.make_progress_monitor(trt, progress or (lambda phase, step, steps: None))
    run = _Run(trt, plan, given, lines)
    started = time.perf_counter()
    with compat.release_in_order(run.results):
        run.run()
        serialized, cache = bytes(run.results["plan"]), bytes(run.results["timing_cache_after"])
    seconds = time.perf_counter() - started
    loaded = compat.LoadedEngine(trt, serialized)
    with compat.release_in_order(loaded.made):
        inspection = compat.inspect_engine(trt, loaded.engine)
    return BuiltEngine(serialized, cache, inspection, tuple(lines), seconds)


class _Run:
    """One replay of a plan; its results stay alive until it is gone, as 8.5 needs of the timing cache."""

    def __init__(self, trt: Any, plan: BuildPlan, given: dict[str, Any], lines: list[str]):
        self.trt, self.plan, self.given, self.lines = trt, plan, given, lines
        self.results: dict[str, Any] = {"trt": trt}

    def run(self) -> None:
        for call in self.plan.calls:
            try:
                outcome = self._make(call)
            except BuildError:
                raise
            except Exception as error:  # pybind raises RuntimeError, TypeError, ValueError
                raise self._fail(call, f"{type(error).__name__}: {error}") from error
            if _is_failure(call, outcome):
                raise self._fail(call, "")
            if call.result:
                self.results[call.result] = outcome

    def _make(self, call: Call) -> Any:
        target = self.results[call.target]
        if call.kind == "pin":
            self.lines += _pin_layers(self.trt, target, call.arguments)
            return None
        values = [self._resolve(argument) for argument in call.arguments]
        if call.kind == "assign":
            return setattr(target, call.name, values[0])
        return getattr(target, call.name)(*values)

    def _resolve(self, argument: Argument) -> Any:
        if isinstance(argument, Member):
            return self._find_member(argument.path)
        if isinstance(argument, Bits):
            bits = 0
            for path in argument.paths:
                bits |= 1 << int(self._find_member(path))
            return bits
        if isinstance(argument, Result):
            return self.results[argument.name]
        return self.given[argument.name] if isinstance(argument, Given) else argument

    def _find_member(self, path: str) -> Any:
        found = self.trt
        for part in path.split("."):
            found = getattr(found, part)
        return found

    def _fail(self, call: Call, reason: str) -> BuildError:
        details = [reason] if reason else []
        if call.name == "parse":
            details += compat.describe_parser_errors(self.results["parser"], self.plan.capabilities)
        told = [line for line in self.lines if not line.startswith("warning")]
        # Without a driver 8.5 says so in a warning only, so where no error was told the warnings are the reason.
        said = list(dict.fromkeys([*details, *(told or self.lines)])) or ["TensorRT gave no reason"]
        shown = [*said[:_SHOWN_LINES], *([f"and {len(said) - _SHOWN_LINES} more"] if len(said) > _SHOWN_LINES else [])]
        what = "the ONNX parser refuses the graph" if call.name == "parse" else f"{call.target}.{call.name} failed"
        remedies = compat.suggest_remedies(said)
        advice = f". What to do: {'; '.join(remedies)}" if remedies else ""
        return BuildError(f"TensorRT {self.plan.capabilities.version}: {what}: {'; '.join(shown)}{advice}")


def _is_failure(call: Call, outcome: Any) -> bool:
    if call.fails_if in ("none", "none or false") and outcome is None:
        return True
    if call.fails_if in ("false", "none or false") and outcome is False:
        return True
    return call.fails_if == "negative" and outcome < 0


def _pin_layers(trt: Any, network: Any, names: Sequence[Argument]) -> list[str]:
    """Hold layers in FP32 by name; gives a warning for every name the parser made no layer of, such as a folded one."""
    missing = dict.fromkeys(str(name) for name in names)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.name not in names:
            continue
        missing.pop(layer.name, None)
        layer.precision = trt.DataType.FLOAT
        for output in range(layer.num_outputs):
            layer.set_output_type(output, trt.DataType.FLOAT)
    return [f'warning: the graph keeps "{name}" in FP32, but the parser made no layer of that name' for name in missing]
