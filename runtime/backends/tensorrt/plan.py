"""Decides a build, and makes its calls on a tensorrt module, or on a recorder for a dry run.

Rules, in the order they apply:

1. Networks are created with explicit batch where there is a choice, and strongly typed where that can be requested.
2. Precision is in the graph. Only with weak typing, flags allow what the graph holds: FP16 if it holds FLOAT16 tensors,
   INT8 if it holds Q/DQ; OBEY_PRECISION_CONSTRAINTS, and the nodes that the graph keeps in FP32 are pinned.
3. TF32 is always set or cleared explicitly; TensorRT's default is on.
4. Options that the TensorRT line does not support are refused, never ignored.
5. TensorRT for RTX builds for the targets in the options, and refuses types that one of them lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ....errors import BackendError, InputError
from .capabilities import Capabilities
from .options import BuildOptions
from .recorder import Recorder, Recording
from .targets import find_lacking

if TYPE_CHECKING:
    from ....bundle.manifest import GraphFacts

#: to be increased when later code here builds another plan from the same options
BUILDER_REVISION = 1
#: operators that select or scale values and fuse with the product before them, which a pin would prevent
_FUSED = frozenset({"Clip", "LeakyRelu", "MaxPool", "PRelu", "Relu"})
_NARROWEST_FIRST = ("fp8", "int8", "fp16", "bf16", "fp32")
_HARDWARE_LEVELS = {"ampere-plus": "AMPERE_PLUS", "same-capability": "SAME_COMPUTE_CAPABILITY"}


class CallFailedError(Exception):
    """A call of a build that raised, or reported failure by its result."""


@dataclass(frozen=True)
class BuildPlan:
    """A decided build; `pinned` nodes stay in FP32 on weakly typed lines, and `builder_flags` leave out TF32."""

    options: BuildOptions
    capabilities: Capabilities
    network_flags: tuple[str, ...]
    builder_flags: tuple[str, ...]
    pinned: tuple[str, ...]
    precision: str
    notes: tuple[str, ...]

    def run(self, trt: Any, made: dict[str, Any]) -> list[str]:
        """Make the calls of the build on the tensorrt module, or on a recorder; return warnings.

        `made` holds "logger", "model", "timings_before" and "progress_monitor", and receives every object in the order
        of creation; the results are "plan" and "timings".

        Raises:
            CallFailedError: naming the call or the step that failed.
        """
        for step in (self._parse, self._configure, self._add_profiles, self._set_timing_cache, self._build):
            try:
                step(trt, made)
            except CallFailedError:
                raise
            except Exception as error:  # pybind raises RuntimeError, TypeError, ValueError
                name = step.__name__.strip("_")
                raise CallFailedError(f"the step {name} failed: {type(error).__name__}: {error}") from error
        return [
            f'warning: the graph keeps "{name}" in FP32, but the parser made no layer of that name'
            for name in made["not_pinned"]
        ]

    def record(self) -> Recording:
        """Return the calls of the build without making them."""
        recording = Recording()
        names = ("logger", "model", "timings_before", "progress_monitor")
        self.run(Recorder("trt", recording), {name: Recorder(name, recording) for name in names})
        return recording

    def to_text(self) -> str:
        """Return the calls as Python, with the notes as comments."""
        head = [f"# {self.capabilities.product}", *(f"# {note}" for note in self.notes)]
        return "\n".join([*head, *self.record().lines])

    def to_json(self) -> dict[str, object]:
        """Return the plan for `--json`, its calls as lines of Python."""
        return {
            "tensorrt": self.capabilities.version,
            "line": self.capabilities.line,
            "typing": self.capabilities.typing,
            "precision": self.precision,
            "pinned": list(self.pinned),
            "notes": list(self.notes),
            "calls": self.record().lines,
        }

    def _parse(self, trt: Any, made: dict[str, Any]) -> None:
        builder = made["builder"] = trt.Builder(made["logger"])
        flags = _join_bits(trt.NetworkDefinitionCreationFlag, self.network_flags) if self.network_flags else 0
        network = made["network"] = _require(builder.create_network(flags), "create_network")
        made["parser"] = trt.OnnxParser(network, made["logger"])
        _require(made["parser"].parse(made["model"]), "parse")
        made["not_pinned"] = _pin_layers(trt, network, self.pinned)

    def _configure(self, trt: Any, made: dict[str, Any]) -> None:
        options = self.options
        config = made["config"] = _require(made["builder"].create_builder_config(), "create_builder_config")
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        (config.set_flag if options.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
        for flag in self.builder_flags:
            config.set_flag(getattr(trt.BuilderFlag, flag))
        if options.workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        if options.level is not None:
            config.builder_optimization_level = options.level
        if options.tactic_sources == "builtin" and self.capabilities.times_kernels:
            sources = _join_bits(trt.TacticSource, ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"))
            _require(config.set_tactic_sources(sources), "set_tactic_sources")
        if options.hardware_compatible is not None:
            level = getattr(trt.HardwareCompatibilityLevel, _HARDWARE_LEVELS[options.hardware_compatible])
            config.hardware_compatibility_level = level
        if options.targets:
            config.num_compute_capabilities = len(options.targets)
        for index, target in enumerate(options.targets):
            capability = getattr(trt.ComputeCapability, target.upper())
            _require(config.set_compute_capability(capability, index), f"set_compute_capability for {target}")
        if self.capabilities.progress_monitor:
            config.progress_monitor = made["progress_monitor"]

    def _add_profiles(self, trt: Any, made: dict[str, Any]) -> None:
        for index, shapes in enumerate(self.options.profiles):
            profile = _require(made["builder"].create_optimization_profile(), "create_optimization_profile")
            made[f"profile_{index}"] = profile
            for name, sizes in sorted(shapes.items()):
                profile.set_shape(name, sizes.minimum, sizes.optimum, sizes.maximum)
            if made["config"].add_optimization_profile(profile) < 0:
                raise CallFailedError("add_optimization_profile failed")

    def _set_timing_cache(self, trt: Any, made: dict[str, Any]) -> None:
        if not self.capabilities.times_kernels:
            return
        cache = made["timing_cache"] = made["config"].create_timing_cache(made["timings_before"])
        _require(cache, "create_timing_cache")
        _require(made["config"].set_timing_cache(cache, False), "set_timing_cache")

    def _build(self, trt: Any, made: dict[str, Any]) -> None:
        plan = made["builder"].build_serialized_network(made["network"], made["config"])
        made["plan"] = _require(plan, "build_serialized_network")
        made["timings"] = made["config"].get_timing_cache().serialize() if self.capabilities.times_kernels else b""


def plan_build(options: BuildOptions, capabilities: Capabilities, facts: GraphFacts) -> BuildPlan:
    """Decide a build.

    Raises:
        BackendError: naming all options and types that TensorRT does not support.
        InputError: if the profiles do not match the inputs, or a target lacks one of the graph's types.
    """
    options.check_inputs(facts)
    missing = _find_missing(options, capabilities, facts)
    if missing:
        raise BackendError(f"{capabilities.product} has no {'; no '.join(missing)}")
    lacking = find_lacking(options.targets, facts.types)
    if lacking:
        raise InputError("; ".join(lacking))
    network_flags = {
        "EXPLICIT_BATCH": capabilities.needs_explicit_batch,
        "STRONGLY_TYPED": capabilities.typing == "flag",
    }
    is_weak = capabilities.typing == "weak"
    # A strongly typed network follows the graph. With INT8 alone nothing is pinned: with Q/DQ in the graph, TensorRT 8
    # keeps everything outside them in FP32.
    pinned = tuple(name for name, op in facts.wide_nodes.items() if op not in _FUSED) if is_weak else ()
    builder_flags = {
        "FP16": is_weak and "float16" in facts.types,
        "INT8": is_weak and facts.quantized,
        "OBEY_PRECISION_CONSTRAINTS": bool(pinned),
        "REFIT": options.refit,
        "VERSION_COMPATIBLE": options.version_compatible,
        "EXCLUDE_LEAN_RUNTIME": options.version_compatible,
        **dict.fromkeys(capabilities.replay_flags, options.replay),
    }
    return BuildPlan(
        options=options,
        capabilities=capabilities,
        network_flags=tuple(name for name, is_set in network_flags.items() if is_set),
        builder_flags=tuple(name for name, is_set in builder_flags.items() if is_set),
        pinned=pinned,
        precision=next((name for name in _NARROWEST_FIRST if name in facts.node_precisions.values()), "fp32"),
        notes=tuple(_write_notes(options, capabilities, facts, pinned)),
    )


def _find_missing(options: BuildOptions, capabilities: Capabilities, facts: GraphFacts) -> list[str]:
    level = options.hardware_compatible
    missing = [
        f"strongly typed networks, which the graph's {precision} products need (9.1 or later)"
        for precision in ("bf16", "fp8")
        if precision in facts.node_precisions.values() and capabilities.typing == "weak"
    ]
    if options.level is not None and not capabilities.optimization_level:
        missing.append("builder level (8.6 or later): leave --level out")
    if capabilities.targets:
        missing += _find_missing_for_targets(options)
    elif level is not None and _HARDWARE_LEVELS[level] not in capabilities.hardware_levels:
        missing.append(f"hardware compatibility {_HARDWARE_LEVELS[level]} (8.6, same capability 10.9, or later)")
    if options.version_compatible and not capabilities.version_compatible:
        missing.append("version-compatible plans (TensorRT 8.6 or later)")
    return missing


def _find_missing_for_targets(options: BuildOptions) -> list[str]:
    """List the options that a builder for targets lacks: without a GPU, it times no kernels and refits no weights."""
    asked = {
        "build without a target: name the GPUs with --target": not options.targets,
        "refit without a GPU: omit --refit": options.refit,
        "hardware compatibility levels: name the GPUs with --target": options.hardware_compatible is not None,
        "timing caches, as it times no kernels: omit --replay": options.replay,
        "choice of tactic sources: omit --tactic-sources": options.tactic_sources != "builtin",
    }
    return [name for name, is_asked in asked.items() if is_asked]


def _write_notes(
    options: BuildOptions, capabilities: Capabilities, facts: GraphFacts, pinned: tuple[str, ...]
) -> list[str]:
    notes = []
    if capabilities.typing == "weak" and not {"fp32", "other"}.issuperset(facts.node_precisions.values()):
        notes.append("weakly typed: flags only allow the graph's precisions; the audit after the build checks them")
    if pinned:
        notes.append(f"layer.precision and output types are set to FLOAT for the layers {', '.join(pinned)}")
    if options.replay and not capabilities.replay_flags:
        notes.append("this line cannot require the timing cache: a tactic that is not in it is timed again")
    if options.version_compatible:
        notes.append("the plan has no lean runtime: later versions load it through their own")
    if facts.opset > capabilities.newest_opset:
        notes.append(f"the graph's opset {facts.opset} is newer than {capabilities.newest_opset}, which is supported")
    return notes


def _require(outcome: Any, call: str) -> Any:
    if outcome is None or outcome is False:
        raise CallFailedError(f"{call} failed")
    return outcome


def _join_bits(enumeration: Any, names: Iterable[str]) -> int:
    return sum(1 << int(getattr(enumeration, name)) for name in names)


def _pin_layers(trt: Any, network: Any, names: Sequence[str]) -> list[str]:
    """Hold layers in FP32 by name; return the names without a layer, such as a folded one."""
    missing = dict.fromkeys(names)
    for index in range(network.num_layers if names else 0):
        layer = network.get_layer(index)
        if layer.name in names:
            missing.pop(layer.name, None)
            layer.precision = trt.DataType.FLOAT
            for output in range(layer.num_outputs):
                layer.set_output_type(output, trt.DataType.FLOAT)
    return list(missing)
