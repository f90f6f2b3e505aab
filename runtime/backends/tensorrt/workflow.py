"""From an ONNX file to a stored engine: look, plan, build, audit, store; the steps that `atrous build` shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....errors import EngineError, InputError
from .audit import PrecisionAudit, audit_precision
from .builder import BuiltEngine, Progress, build_engine
from .capabilities import Capabilities
from .inspection import parse_inspection
from .keys import EngineKey, Machine, make_key
from .onnx_facts import OnnxFacts
from .onnx_reader import read_facts
from .options import BuildOptions
from .plan import BuildPlan, plan_build
from .preflight import Finding, check_graph, require_sound
from .store import EngineStore, StoredEngine

#: share of the graph's narrow products that must be narrow in the engine, where the user says nothing
REQUIRED_SHARE = 0.9


@dataclass(frozen=True)
class PreparedBuild:
    """A build that is decided and not begun.

    Attributes:
        model: the ONNX bytes.
        graph: what they hold.
        precision: the bundle's name for the graph's precision.
        options: what the user asked for.
        findings: warnings of the preflight.
        plan: the calls.
    """

    model: bytes
    graph: OnnxFacts
    precision: str
    options: BuildOptions
    findings: tuple[Finding, ...]
    plan: BuildPlan

    def make_key(self, machine: Machine) -> EngineKey:
        """The key its engine will have on a machine."""
        return make_key(self.graph, self.options, self.plan, machine, precision=self.precision)


@dataclass(frozen=True)
class MadeEngine:
    """An engine that was built and stored, with what its audit found."""

    engine: StoredEngine
    audit: PrecisionAudit
    built: BuiltEngine


def prepare_build(
    model: bytes, options: BuildOptions, capabilities: Capabilities, *, precision: str = "fp32"
) -> PreparedBuild:
    """Decide a build, with everything that can be checked before a GPU is asked.

    Args:
        model: the ONNX bytes.
        options: what the user asks for.
        capabilities: of the TensorRT that will build.
        precision: what the graph's products are said to compute in; the graph must agree.

    Raises:
        InputError: if the graph is no ONNX, is in another precision, would compute something else, or does not take
            the shapes.
        BackendError: if that TensorRT lacks what is asked.
    """
    graph = read_facts(model)
    present = graph.precisions - {"other"}
    if (present and precision not in present) or (precision == "fp32" and present - {"fp32"}):
        raise InputError(
            f"the graph computes in {', '.join(sorted(present))}, not in {precision}: precision is in the graph, make "
            f"a variant with `atrous precision --to {precision}`"
        )
    findings = check_graph(graph, capabilities)
    require_sound(findings)
    plan = plan_build(options, capabilities, graph)
    return PreparedBuild(model, graph, precision, options, tuple(findings), plan)


def make_engine(
    trt: Any,
    prepared: PreparedBuild,
    store: EngineStore,
    machine: Machine,
    *,
    timing_cache: bytes = b"",
    required_share: float = REQUIRED_SHARE,
    progress: Progress | None = None,
) -> MadeEngine:
    """Build an engine, audit its precision, and store it; nothing is stored of an engine that fails the audit.

    Raises:
        BuildError: if TensorRT does not build it.
        PrecisionError: if less than `required_share` of the graph's narrow products came out narrow.
        OutputError: if the store cannot be written.
    """
    built = build_engine(trt, prepared.plan, prepared.model, timing_cache=timing_cache, progress=progress)
    audit = audit_precision(parse_inspection(built.inspection), prepared.graph)
    audit.require(required_share)
    record = {
        "seconds": round(built.seconds, 3),
        "audit": audit.to_json(),
        "required_share": required_share,
        "timing_cache_given": bool(timing_cache),
        "replay": prepared.options.replay,
        "warnings": [*(finding.describe() for finding in prepared.findings), *built.log][:200],
        "calls": [call.to_text() for call in prepared.plan.calls],
    }
    engine = store.put(prepared.make_key(machine), built.plan, built.timing_cache, record)
    return MadeEngine(engine, audit, built)


def find_engine(prepared: PreparedBuild, store: EngineStore, machine: Machine) -> StoredEngine | None:
    """The engine that a build would make, if it is there already, signed here and whole; else None."""
    try:
        engine = store.find(prepared.make_key(machine))
        store.read_plan(engine)
    except EngineError:
        return None
    return engine


def read_replay_cache(prepared: PreparedBuild, store: EngineStore, machine: Machine, file: Path | None) -> bytes:
    """The timing cache to replay a build from: a file's, or that of the stored engine of the same key.

    Raises:
        InputError: if the file is not there or is empty.
        EngineError: if no engine of the key is stored, or it is not this installation's.
    """
    if file is None:
        return store.read_timing_cache(store.find(prepared.make_key(machine)))
    content = read_cache_file(file)
    if not content:
        raise InputError(f"{file}: there is no timing cache to replay: build without --replay first")
    return content


def read_cache_file(path: Path) -> bytes:
    """A timing cache kept in a file; empty where there is none yet.

    Raises:
        InputError: if it is there and cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise InputError(f"{path}: the timing cache cannot be read: {error.strerror}") from error


def describe_engine(engine: StoredEngine, is_own: Callable[[StoredEngine], bool]) -> dict[str, object]:
    """One row of a list of engines."""
    fields = engine.fields
    profiles = fields.get("profiles")
    return {
        "key": engine.folder.name,
        "precision": fields.get("precision.name"),
        "profiles": profiles if isinstance(profiles, list) else [],
        "tensorrt": fields.get("tensorrt.version"),
        "gpu": fields.get("gpu.name"),
        "created": engine.record.created,
        "plan_bytes": engine.record.plan.bytes,
        "signed_here": is_own(engine),
        "audit": json.loads(json.dumps(engine.record.build.get("audit"))),
    }
