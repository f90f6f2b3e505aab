"""The steps of `atrous build`: from an ONNX file to a stored engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....errors import EngineError, InputError
from ...tensorrt_choices import REQUIRED_SHARE
from ..self_contained import require_self_contained
from .audit import PrecisionAudit, audit_precision, parse_inspection
from .builder import BuiltEngine, Progress, build_engine
from .capabilities import Capabilities
from .keys import EngineKey, Machine, make_key
from .options import BuildOptions
from .plan import BuildPlan, plan_build
from .preflight import Finding, check_graph, require_sound
from .store import EngineStore, StoredEngine

if TYPE_CHECKING:
    from ....bundle.manifest import GraphFacts

_MAX_WARNINGS = 200


@dataclass(frozen=True)
class PreparedBuild:
    """A decided build that has not begun: the model, its facts and precision, the preflight's warnings, the calls."""

    model: bytes
    facts: GraphFacts
    precision: str
    findings: tuple[Finding, ...]
    plan: BuildPlan

    def make_key(self, machine: Machine | None) -> EngineKey:
        """Return the key of the engine that this builds on a machine; None for a build for targets."""
        return make_key(self.model, self.facts, self.plan, machine, precision=self.precision)


@dataclass(frozen=True)
class MadeEngine:
    """An engine that was built and stored, with its audit."""

    engine: StoredEngine
    audit: PrecisionAudit
    built: BuiltEngine


def prepare_build(
    model: bytes, facts: GraphFacts, options: BuildOptions, capabilities: Capabilities, *, precision: str = "fp32"
) -> PreparedBuild:
    """Decide a build of an ONNX model, after all checks that need no GPU; `facts` are `Bundle.graph_facts`."""
    require_self_contained(model)
    present = set(facts.node_precisions.values()) - {"other"}
    if (present and precision not in present) or (precision == "fp32" and present - {"fp32"}):
        raise InputError(
            f"the graph computes in {', '.join(sorted(present))}, not in {precision}: make a variant in that precision "
            f"with `atrous precision --to {precision}`"
        )
    findings = check_graph(facts, capabilities)
    require_sound(findings)
    return PreparedBuild(model, facts, precision, tuple(findings), plan_build(options, capabilities, facts))


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
    """Build an engine, audit its precision, and store it if `required_share` of its narrow products are narrow."""
    store.require_writable()
    built = build_engine(trt, prepared.plan, prepared.model, timing_cache=timing_cache, progress=progress)
    return store_engine(
        prepared, built, store, machine, required_share=required_share, timing_cache_given=bool(timing_cache)
    )


def store_engine(
    prepared: PreparedBuild,
    built: BuiltEngine,
    store: EngineStore,
    machine: Machine | None,
    *,
    required_share: float = REQUIRED_SHARE,
    timing_cache_given: bool = False,
) -> MadeEngine:
    """Audit the precision of a built engine, and store it; `machine` is None for a build for targets."""
    audit = audit_precision(parse_inspection(built.inspection), prepared.facts)
    audit.require(required_share, is_typed=prepared.plan.capabilities.typing != "weak")
    record = {
        "seconds": round(built.seconds, 3),
        "audit": audit.to_json(),
        "required_share": required_share,
        "timing_cache_given": timing_cache_given,
        "replay": prepared.plan.options.replay,
        "warnings": [*(finding.describe() for finding in prepared.findings), *built.log][:_MAX_WARNINGS],
        "calls": prepared.plan.record().lines,
    }
    engine = store.put(prepared.make_key(machine), built.plan, built.timing_cache, record)
    return MadeEngine(engine, audit, built)


def find_engine(prepared: PreparedBuild, store: EngineStore, machine: Machine | None) -> StoredEngine | None:
    """Return the engine that a build would make if it is stored, signed here and intact; else None."""
    try:
        engine = store.choose(prepared.make_key(machine).fields)
        store.read_plan(engine)
    except EngineError:
        return None
    return engine


def read_replay_cache(prepared: PreparedBuild, store: EngineStore, machine: Machine, file: Path | None) -> bytes:
    """Return the timing cache to replay a build from: a file's, or that of the stored engine of the same key."""
    if file is None:
        return store.read_timing_cache(store.choose(prepared.make_key(machine).fields))
    content = read_cache_file(file)
    if not content:
        raise InputError(f"{file}: there is no timing cache to replay: build without --replay first")
    return content


def read_cache_file(path: Path) -> bytes:
    """Return the content of a timing cache file; empty if it does not exist yet."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise InputError(f"{path}: the timing cache cannot be read: {error.strerror}") from error


def describe_engine(engine: StoredEngine, store: EngineStore) -> dict[str, object]:
    """Return one row of a list of engines."""
    fields = engine.fields
    profiles, targets = (
        value if isinstance(value, list) else [] for value in map(fields.get, ("profiles", "settings.targets"))
    )
    return {
        "key": engine.folder.name,
        "precision": fields.get("precision.name"),
        "profiles": profiles,
        "tensorrt": fields.get("tensorrt.version"),
        "gpu": fields.get("gpu.name") or ", ".join(targets),
        "targets": targets,
        "created": engine.record.created,
        "plan_bytes": engine.record.plan.bytes,
        "signed_here": store.is_own(engine),
        "audit": engine.record.build.get("audit"),
    }
