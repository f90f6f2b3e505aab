"""A build as data: the exact calls, in order, that `builder.run_plan` makes.

`plan_build` decides everything that depends on the version, from a `Capabilities`, so a dry run for a machine that
is elsewhere shows what would happen there; running replays the very same calls and decides nothing.

Rules, in the order they act:

1. Networks are created explicit-batch where that is not the only kind, and strongly typed where that can be asked for.
2. Precision is in the graph. Only where typing is weak, flags allow exactly what the graph holds: FP16 if it holds
   FLOAT16 tensors, INT8 if it holds Q/DQ; OBEY_PRECISION_CONSTRAINTS, and nodes the graph keeps in FP32 are pinned.
3. TF32 is always set or cleared by name, never left to a default (TensorRT's is on).
4. What was asked for and does not exist on the line is refused, never dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ....errors import BackendError
from .capabilities import Capabilities
from .onnx_facts import MOVES, OnnxFacts
from .options import BuildOptions

#: changes when the same options would be built into another plan by later code here
BUILDER_REVISION = 1


@dataclass(frozen=True)
class Member:
    """A name inside the tensorrt module, such as BuilderFlag.TF32."""

    path: str


@dataclass(frozen=True)
class Bits:
    """1 << value of each member, joined by or."""

    paths: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What an earlier call gave."""

    name: str


@dataclass(frozen=True)
class Given:
    """What the run itself brings: "logger", "progress monitor", "model", "timing cache"."""

    name: str


Argument = int | bool | str | tuple[int, ...] | tuple[str, ...] | Member | Bits | Result | Given
Failure = Literal["none", "false", "negative", "none or false"]


@dataclass(frozen=True)
class Call:
    """One call or assignment.

    Attributes:
        target: "trt" or the name of an earlier result.
        name: the method, the class, or the attribute.
        arguments: of the call; the value of an assignment.
        kind: "call", "assign", or "pin": every layer of the target that bears one of the names is held in FP32.
        result: the name that the outcome is kept by.
        fails_if: which outcome means failure.
    """

    target: str
    name: str
    arguments: tuple[Argument, ...] = ()
    kind: Literal["call", "assign", "pin"] = "call"
    result: str = ""
    fails_if: Failure | None = None

    def to_text(self) -> str:
        """As a line of Python."""
        if self.kind == "pin":
            names = ", ".join(str(name) for name in self.arguments)
            return (
                f"for layer in {self.target}: # named {names}\n    layer.precision = trt.DataType.FLOAT (outputs too)"
            )
        values = ", ".join(_write_argument(argument) for argument in self.arguments)
        if self.kind == "assign":
            return f"{self.target}.{self.name} = {values}"
        return (f"{self.result} = " if self.result else "") + f"{self.target}.{self.name}({values})"

    def to_json(self) -> dict[str, object]:
        """As data for a machine."""
        return {
            "kind": self.kind,
            "target": self.target,
            "name": self.name,
            "arguments": [_argument_json(argument) for argument in self.arguments],
            "result": self.result or None,
            "fails_if": self.fails_if,
        }


@dataclass(frozen=True)
class BuildPlan:
    """The calls of a build, and what a reader should know about them.

    Attributes:
        capabilities: what it was planned for.
        calls: in order; the results "plan" and "timing_cache_after" are what a build is for.
        pinned: the nodes held in FP32 by name, on weakly typed lines.
        precision: the narrowest precision of the graph's products.
        notes: what differs from other lines, a line each.
    """

    capabilities: Capabilities
    calls: tuple[Call, ...]
    pinned: tuple[str, ...]
    precision: str
    notes: tuple[str, ...]

    def to_text(self) -> str:
        """As Python, one call a line, notes as comments."""
        notes = [f"# {note}" for note in self.notes]
        return "\n".join([f"# TensorRT {self.capabilities.version}", *notes, *(c.to_text() for c in self.calls)])

    def to_json(self) -> dict[str, object]:
        """As data for a machine."""
        return {
            "tensorrt": self.capabilities.version,
            "line": self.capabilities.line,
            "typing": self.capabilities.typing,
            "precision": self.precision,
            "pinned": list(self.pinned),
            "notes": list(self.notes),
            "calls": [call.to_json() for call in self.calls],
        }


#: operators that pick or scale values and ride along with their product; a pin would keep them from being fused
_RIDERS = frozenset({"Clip", "LeakyRelu", "MaxPool", "PRelu", "Relu"})
_NARROWEST_FIRST = ("fp8", "int8", "fp16", "bf16", "fp32")
_NEEDED_TYPES = {"fp8": "FP8", "int8": "INT8", "fp16": "HALF", "bf16": "BF16"}


def plan_build(options: BuildOptions, capabilities: Capabilities, graph: OnnxFacts) -> BuildPlan:
    """Decide the calls of a build.

    Raises:
        InputError: if the profiles do not fit the graph.
        BackendError: if the line lacks what the options or the graph ask for; all of it is named.
    """
    options.check_inputs(graph)
    lacks = _find_lacks(options, capabilities, graph)
    if lacks:
        raise BackendError(f"TensorRT {capabilities.version} has no {'; no '.join(lacks)}")
    present = graph.precisions
    precision = next((name for name in _NARROWEST_FIRST if name in present), "fp32")
    pinned = _find_pinned(capabilities, graph)
    calls = [
        *_network_calls(capabilities, pinned),
        *_config_calls(options, capabilities),
        *_precision_calls(capabilities, graph, pinned),
        *_profile_calls(options),
        *_cache_calls(options, capabilities),
        Call("builder", "build_serialized_network", (Result("network"), Result("config")), "call", "plan", "none"),
        Call("config", "get_timing_cache", (), "call", "timing_cache_kept"),
        Call("timing_cache_kept", "serialize", (), "call", "timing_cache_after"),
    ]
    return BuildPlan(capabilities, tuple(calls), pinned, precision, tuple(_write_notes(options, capabilities, graph)))


def _find_lacks(options: BuildOptions, capabilities: Capabilities, graph: OnnxFacts) -> list[str]:
    levels = {"ampere-plus": "AMPERE_PLUS", "same-capability": "SAME_COMPUTE_CAPABILITY"}
    wanted_level = options.hardware_compatible
    lacks = [
        f"{_NEEDED_TYPES[precision]} type, which the graph's {precision} products need"
        for precision in sorted(graph.precisions)
        if precision in _NEEDED_TYPES and _NEEDED_TYPES[precision] not in capabilities.data_types
    ]
    if capabilities.typing == "weak" and "fp8" in graph.precisions:
        lacks.append("strongly typed networks, which FP8 needs (9.1 or later)")
    if options.level is not None and not capabilities.optimization_level:
        lacks.append("builder level (8.6 or later): leave --level out")
    if wanted_level is not None and levels[wanted_level] not in capabilities.hardware_compatibility:
        lacks.append(f"hardware compatibility {levels[wanted_level]} (8.6, for the same capability 10.9, or later)")
    if options.version_compatible and not capabilities.version_compatible:
        lacks.append("version-compatible plans (8.6 or later)")
    if options.refit and not capabilities.refit:
        lacks.append("refit")
    return lacks


def _find_pinned(capabilities: Capabilities, graph: OnnxFacts) -> tuple[str, ...]:
    """The nodes that compute in FP32 beside FP16 ones; a strongly typed network needs no telling.

    Beside INT8 alone nothing is pinned: with Q/DQ in the graph, TensorRT 8 leaves everything outside them in FP32.
    """
    if capabilities.typing != "weak" or "float16" not in graph.types.values():
        return ()
    return tuple(
        node.name
        for node in graph.nodes
        if node.name
        and node.op not in MOVES | _RIDERS
        and node.outputs
        and graph.types.get(node.outputs[0]) == "float32"
        and graph.precision_of(node) == "fp32"
    )


def _network_calls(capabilities: Capabilities, pinned: tuple[str, ...]) -> list[Call]:
    flags = []
    if capabilities.needs_explicit_batch:
        flags.append("NetworkDefinitionCreationFlag.EXPLICIT_BATCH")
    if capabilities.typing == "flag":
        flags.append("NetworkDefinitionCreationFlag.STRONGLY_TYPED")
    calls = [
        Call("trt", "Builder", (Given("logger"),), "call", "builder"),
        Call("builder", "create_network", (Bits(tuple(flags)) if flags else 0,), "call", "network", "none"),
        Call("trt", "OnnxParser", (Result("network"), Given("logger")), "call", "parser"),
        Call("parser", "parse", (Given("model"),), "call", "", "false"),
    ]
    if pinned:
        calls.append(Call("network", "layers", pinned, "pin"))
    return calls


def _config_calls(options: BuildOptions, capabilities: Capabilities) -> list[Call]:
    calls = [
        Call("builder", "create_builder_config", (), "call", "config", "none"),
        Call("config", "profiling_verbosity", (Member("ProfilingVerbosity.DETAILED"),), "assign"),
        _flag("TF32", on=options.tf32),
    ]
    if options.workspace_bytes is not None:
        if capabilities.workspace_pool:
            limit = (Member("MemoryPoolType.WORKSPACE"), options.workspace_bytes)
            calls.append(Call("config", "set_memory_pool_limit", limit))
        else:
            calls.append(Call("config", "max_workspace_size", (options.workspace_bytes,), "assign"))
    if options.level is not None:
        calls.append(Call("config", "builder_optimization_level", (options.level,), "assign"))
    if options.tactic_sources == "builtin":
        sources = ("TacticSource.EDGE_MASK_CONVOLUTIONS", "TacticSource.JIT_CONVOLUTIONS")
        calls.append(Call("config", "set_tactic_sources", (Bits(sources),), "call", "", "false"))
    if options.refit:
        calls.append(_flag("REFIT"))
    if options.hardware_compatible is not None:
        level = "AMPERE_PLUS" if options.hardware_compatible == "ampere-plus" else "SAME_COMPUTE_CAPABILITY"
        member = Member(f"HardwareCompatibilityLevel.{level}")
        calls.append(Call("config", "hardware_compatibility_level", (member,), "assign"))
    if options.version_compatible:
        calls += [_flag("VERSION_COMPATIBLE"), _flag("EXCLUDE_LEAN_RUNTIME")]
    if capabilities.progress_monitor:
        calls.append(Call("config", "progress_monitor", (Given("progress monitor"),), "assign"))
    return calls


def _precision_calls(capabilities: Capabilities, graph: OnnxFacts, pinned: tuple[str, ...]) -> list[Call]:
    if capabilities.typing != "weak":
        return []
    calls = []
    if "float16" in graph.types.values():
        calls.append(_flag("FP16"))
    if graph.has_quantization:
        calls.append(_flag("INT8"))
    if pinned:
        calls.append(_flag("OBEY_PRECISION_CONSTRAINTS"))
    return calls


def _profile_calls(options: BuildOptions) -> list[Call]:
    calls = []
    for index, profile in enumerate(options.profiles):
        name = f"profile_{index}"
        calls.append(Call("builder", "create_optimization_profile", (), "call", name, "none"))
        for tensor, shapes in sorted(profile.items()):
            calls.append(Call(name, "set_shape", (tensor, shapes.minimum, shapes.optimum, shapes.maximum)))
        calls.append(Call("config", "add_optimization_profile", (Result(name),), "call", "", "negative"))
    return calls


def _cache_calls(options: BuildOptions, capabilities: Capabilities) -> list[Call]:
    calls = [
        Call("config", "create_timing_cache", (Given("timing cache"),), "call", "timing_cache", "none"),
        Call("config", "set_timing_cache", (Result("timing_cache"), False), "call", "", "false"),
    ]
    if options.replay and capabilities.timing_cache_miss_error:
        calls.append(_flag("ERROR_ON_TIMING_CACHE_MISS"))
    if options.replay and capabilities.compilation_cache_switch:
        calls.append(_flag("DISABLE_COMPILATION_CACHE"))
    return calls


def _write_notes(options: BuildOptions, capabilities: Capabilities, graph: OnnxFacts) -> list[str]:
    notes = []
    if capabilities.typing == "weak" and graph.precisions - {"fp32", "other"}:
        notes.append("weakly typed: flags allow the graph's precisions, the audit after the build shows what was used")
    if options.replay and not capabilities.timing_cache_miss_error:
        notes.append("this line cannot insist on the timing cache: a tactic that is not in it is timed anew")
    if options.version_compatible:
        notes.append("without the lean runtime in the plan: later versions load it through their own lean runtime")
    if graph.opset > capabilities.newest_opset:
        notes.append(f"the graph's opset {graph.opset} is newer than {capabilities.newest_opset}, which this claims")
    return notes


def _flag(name: str, *, on: bool = True) -> Call:
    return Call("config", "set_flag" if on else "clear_flag", (Member(f"BuilderFlag.{name}"),))


def _write_argument(argument: Argument) -> str:
    if isinstance(argument, Member):
        return f"trt.{argument.path}"
    if isinstance(argument, Bits):
        return " | ".join(f"1 << int(trt.{path})" for path in argument.paths)
    if isinstance(argument, Result):
        return argument.name
    return f"<{argument.name}>" if isinstance(argument, Given) else repr(argument)


def _argument_json(argument: Argument) -> object:
    if isinstance(argument, Member):
        return {"member": argument.path}
    if isinstance(argument, Bits):
        return {"bits": list(argument.paths)}
    if isinstance(argument, Result):
        return {"result": argument.name}
    if isinstance(argument, Given):
        return {"given": argument.name}
    return list(argument) if isinstance(argument, tuple) else argument
