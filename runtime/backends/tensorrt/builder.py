"""Builds an engine by a plan: object lifetimes, and errors with their reasons and remedies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ....errors import BuildError
from . import compat
from .plan import BuildPlan, CallFailedError

#: called with phase, finished steps, steps
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BuiltEngine:
    """The result of a build. The plan is code: only plans that this installation signed are loaded again."""

    plan: bytes
    timing_cache: bytes
    inspection: dict[str, Any]
    log: tuple[str, ...]
    seconds: float


def build_engine(
    trt: Any, plan: BuildPlan, model: bytes, *, timing_cache: bytes = b"", progress: Progress | None = None
) -> BuiltEngine:
    """Build an engine from the plan's ONNX bytes; BuildError has the parser's errors or the builder's log."""
    lines: list[str] = []
    logger = compat.make_logger(trt, lines)  # receives all errors; a recorder would crash NVIDIA's parser when freed
    made: dict[str, Any] = {"logger": logger, "model": model, "timings_before": timing_cache}
    if plan.capabilities.progress_monitor:
        made["progress_monitor"] = compat.make_progress_monitor(trt, progress or (lambda phase, step, steps: None))
    started_s = time.perf_counter()
    with compat.release_in_order(made):
        run_plan(trt, plan, made, lines)
        serialized, timings = bytes(made["plan"]), bytes(made["timings"])
    seconds = time.perf_counter() - started_s
    loaded = compat.LoadedEngine(trt, serialized)
    with compat.release_in_order(loaded.made):
        inspection = compat.inspect_engine(trt, loaded.engine)
    return BuiltEngine(serialized, timings, inspection, compat.merge_lines(lines), seconds)


def run_plan(trt: Any, plan: BuildPlan, made: dict[str, Any], log: list[str]) -> None:
    """Make a plan's calls; BuildError has the parser's errors or the log, which the logger in `made` fills."""
    try:
        log += plan.run(trt, made)
    except CallFailedError as error:
        raise BuildError(_describe_failure(str(error), plan, made, log)) from error


def _describe_failure(problem: str, plan: BuildPlan, made: dict[str, Any], log: list[str]) -> str:
    reasons = log
    if "parser" in made and "config" not in made:
        problem = "the ONNX parser refuses the graph" if problem == "parse failed" else problem
        reasons = compat.describe_parser_errors(made["parser"], plan.capabilities) or log  # which repeats them
    return compat.explain(f"{plan.capabilities.product}: {problem}", reasons)
