"""What each TensorRT line can do: one table, and the same facts read off an installed module.

`LINES` serves plans for a machine that is elsewhere; `read_capabilities` looks at the module itself, name by name,
because names come and go within a line as well. Whoever needs to know what a version has asks a `Capabilities`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from ....errors import BackendError

OLDEST = (8, 5)
NEWEST_KNOWN = 11


@dataclass(frozen=True)
class Capabilities:
    """What a TensorRT has, as far as builds and runs here depend on it.

    Attributes:
        version: in full, such as "10.13.3.9"; for a line without an installed module its usual last release.
        line: "8.5", "8.6", "9", "10" or "11".
        needs_explicit_batch: networks must be created with EXPLICIT_BATCH, or the ONNX parser refuses them.
        typing: "weak" (builder flags allow precisions), "flag" (STRONGLY_TYPED asks for the graph's own types), or
            "always" (there is nothing else).
        precision_flags: the members of BuilderFlag that allow a precision; empty where the graph alone decides.
        data_types: the members of DataType.
        tactic_sources: the members of TacticSource.
        hardware_compatibility: the members of HardwareCompatibilityLevel other than NONE.
        version_compatible: plans can be built for later versions of the same major.
        optimization_level: the builder has a level of 0 to 5.
        workspace_pool: the workspace is limited through set_memory_pool_limit, not max_workspace_size.
        timing_cache_miss_error: a build can refuse tactics that its timing cache does not hold.
        compilation_cache_switch: the builder's own compilation cache can be switched off.
        progress_monitor: a build can be watched and cancelled.
        parser_nodes: a parser's error names the node and its operator.
        refit: engines can be built to take other weights.
        host_code_switch: the runtime can be told to run code out of a plan; it never is.
        inspector: the inspector's schema, "bindings" to 10, "io_tensors" from 11.
        newest_opset: the newest ONNX opset that the line's first parser claims; later ones claim more.
    """

    version: str
    line: Literal["8.5", "8.6", "9", "10", "11"]
    needs_explicit_batch: bool
    typing: Literal["weak", "flag", "always"]
    precision_flags: frozenset[str]
    data_types: frozenset[str]
    tactic_sources: frozenset[str]
    hardware_compatibility: tuple[str, ...]
    version_compatible: bool
    optimization_level: bool
    workspace_pool: bool
    timing_cache_miss_error: bool
    compilation_cache_switch: bool
    progress_monitor: bool
    parser_nodes: bool
    refit: bool
    host_code_switch: bool
    inspector: Literal["bindings", "io_tensors"]
    newest_opset: int


_BASIC_TYPES = frozenset({"FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8"})
_BUILTIN_TACTICS = frozenset({"EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"})
_V8_5 = Capabilities(
    version="8.5.3.1",
    line="8.5",
    needs_explicit_batch=True,
    typing="weak",
    precision_flags=frozenset({"FP16", "INT8"}),
    data_types=_BASIC_TYPES,
    tactic_sources=_BUILTIN_TACTICS | {"CUBLAS", "CUBLAS_LT", "CUDNN"},
    hardware_compatibility=(),
    version_compatible=False,
    optimization_level=False,
    workspace_pool=True,
    timing_cache_miss_error=False,
    compilation_cache_switch=False,
    progress_monitor=False,
    parser_nodes=False,
    refit=True,
    host_code_switch=False,
    inspector="bindings",
    newest_opset=17,
)
_V8_6 = replace(
    _V8_5,
    version="8.6.1",
    line="8.6",
    precision_flags=_V8_5.precision_flags | {"FP8"},
    data_types=_V8_5.data_types | {"FP8"},
    hardware_compatibility=("AMPERE_PLUS",),
    version_compatible=True,
    optimization_level=True,
    host_code_switch=True,
)
_V9 = replace(
    _V8_6,
    version="9.3.0",
    line="9",
    typing="flag",
    precision_flags=_V8_6.precision_flags | {"BF16"},
    data_types=_V8_6.data_types | {"INT64", "BF16"},
    timing_cache_miss_error=True,
    compilation_cache_switch=True,
    progress_monitor=True,
    parser_nodes=True,
    newest_opset=19,
)
_V10 = replace(
    _V9,
    version="10.13.3.9",
    line="10",
    needs_explicit_batch=False,
    precision_flags=_V9.precision_flags | {"INT4", "FP4"},
    data_types=_V9.data_types | {"INT4", "FP4", "E8M0"},
    hardware_compatibility=("AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"),
    newest_opset=20,
)
_V11 = replace(
    _V10,
    version="11.4.0.106",
    line="11",
    typing="always",
    precision_flags=frozenset(),
    tactic_sources=_BUILTIN_TACTICS,
    inspector="io_tensors",
    newest_opset=25,
)
#: what to plan for where no module is installed: line -> its capabilities
LINES: dict[str, Capabilities] = {known.line: known for known in (_V8_5, _V8_6, _V9, _V10, _V11)}
_PRECISION_FLAGS = ("FP16", "BF16", "INT8", "FP8", "INT4", "FP4")
_TENSOR_TYPES = (*sorted(_BASIC_TYPES), "INT64", "BF16", "FP8", "INT4", "FP4", "E8M0")
_SOURCES = (*sorted(_BUILTIN_TACTICS), "CUBLAS", "CUBLAS_LT", "CUDNN")


def find_line(version: str) -> Literal["8.5", "8.6", "9", "10", "11"]:
    """The line a version belongs to; a major after the newest known one is taken for the newest.

    Raises:
        BackendError: if the version is older than 8.5 or is no version.
    """
    try:
        major, minor = (int(part) for part in version.split(".")[:2])
    except ValueError:
        raise BackendError(f'TensorRT says its version is "{version}", which is none') from None
    if (major, minor) < OLDEST:
        raise BackendError(f"TensorRT {version} is too old: install 8.5 or later")
    if major == 8:
        return "8.5" if minor == 5 else "8.6"
    return "9" if major == 9 else "10" if major == 10 else "11"


def read_capabilities(trt: Any) -> Capabilities:
    """What an imported TensorRT module can do.

    Raises:
        BackendError: if it is older than 8.5.
    """
    line = find_line(trt.__version__)
    flags, config = _members(trt, "BuilderFlag"), trt.IBuilderConfig
    levels = _members(trt, "HardwareCompatibilityLevel")
    typing: Literal["weak", "flag", "always"] = "weak"
    if "STRONGLY_TYPED" in _members(trt, "NetworkDefinitionCreationFlag"):
        typing = "flag" if "FP16" in flags else "always"
    return Capabilities(
        version=trt.__version__,
        line=line,
        needs_explicit_batch=line in ("8.5", "8.6", "9"),
        typing=typing,
        precision_flags=frozenset(name for name in _PRECISION_FLAGS if name in flags),
        data_types=frozenset(name for name in _TENSOR_TYPES if name in _members(trt, "DataType")),
        tactic_sources=frozenset(name for name in _SOURCES if name in _members(trt, "TacticSource")),
        hardware_compatibility=tuple(name for name in ("AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY") if name in levels),
        version_compatible="VERSION_COMPATIBLE" in flags,
        optimization_level=hasattr(config, "builder_optimization_level"),
        workspace_pool=hasattr(config, "set_memory_pool_limit"),
        timing_cache_miss_error="ERROR_ON_TIMING_CACHE_MISS" in flags,
        compilation_cache_switch="DISABLE_COMPILATION_CACHE" in flags,
        progress_monitor=hasattr(trt, "IProgressMonitor") and hasattr(config, "progress_monitor"),
        parser_nodes=hasattr(trt.ParserError, "node_name"),
        refit="REFIT" in flags,
        host_code_switch=hasattr(trt.Runtime, "engine_host_code_allowed"),
        inspector="io_tensors" if line == "11" else "bindings",
        newest_opset=LINES[line].newest_opset,
    )


def _members(trt: Any, enumeration: str) -> frozenset[str]:
    """The names of an enumeration, none where this version lacks it; pybind keeps them in `__members__`."""
    return frozenset(getattr(getattr(trt, enumeration, None), "__members__", ()))
