"""What each TensorRT line supports: a table, and the same facts read from an installed module.

`LINES` serves dry runs without TensorRT. `read_capabilities` checks the module itself name by name, because names are
added and removed within a line as well. All other code asks a `Capabilities`, never for a version.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from ...errors import BackendError
from ...tensorrt_choices import Line

OLDEST = (8, 5)


@dataclass(frozen=True)
class Capabilities:
    """What a TensorRT supports, as far as builds and runs here depend on it.

    Attributes:
        version: complete, such as "10.13.3.9"; for a line without an installed module, of a late release.
        line: the line it belongs to.
        needs_explicit_batch: networks must be created with EXPLICIT_BATCH, or the ONNX parser refuses them.
        typing: "weak" (builder flags allow precisions), "flag" (STRONGLY_TYPED requests the graph's own types), or
            "always" (the graph's own types, without a choice).
        data_types: the members of DataType.
        hardware_compatibility: the members of HardwareCompatibilityLevel other than NONE.
        version_compatible: plans can be built for later versions of the same major version.
        optimization_level: the builder has a level of 0 to 5.
        timing_cache_miss_error: a build can refuse tactics that its timing cache lacks.
        compilation_cache_switch: the builder's own compilation cache can be switched off.
        progress_monitor: a build reports its progress.
        parser_nodes: a parser error names the node and its operator.
        newest_opset: the newest ONNX opset that the line's first parser supports; later ones support more.
    """

    version: str
    line: Line
    needs_explicit_batch: bool
    typing: Literal["weak", "flag", "always"]
    data_types: frozenset[str]
    hardware_compatibility: tuple[str, ...]
    version_compatible: bool
    optimization_level: bool
    timing_cache_miss_error: bool
    compilation_cache_switch: bool
    progress_monitor: bool
    parser_nodes: bool
    newest_opset: int


_BASIC_TYPES = frozenset({"FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8"})
_LATER_TYPES = frozenset({"INT64", "BF16", "FP8", "INT4", "FP4", "E8M0"})
_LEVELS = ("AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY")
_V8_5 = Capabilities(
    version="8.5.3.1",
    line="8.5",
    needs_explicit_batch=True,
    typing="weak",
    data_types=_BASIC_TYPES,
    hardware_compatibility=(),
    version_compatible=False,
    optimization_level=False,
    timing_cache_miss_error=False,
    compilation_cache_switch=False,
    progress_monitor=False,
    parser_nodes=False,
    newest_opset=17,
)
_V8_6 = replace(
    _V8_5,
    version="8.6.1",
    line="8.6",
    data_types=_BASIC_TYPES | {"FP8"},
    hardware_compatibility=_LEVELS[:1],
    version_compatible=True,
    optimization_level=True,
)
_V9 = replace(
    _V8_6,
    version="9.3.0",
    line="9",
    typing="flag",
    data_types=_BASIC_TYPES | {"FP8", "INT64", "BF16"},
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
    data_types=_BASIC_TYPES | _LATER_TYPES,
    hardware_compatibility=_LEVELS,
    newest_opset=20,
)
_V11 = replace(_V10, version="11.4.0.106", line="11", typing="always", newest_opset=25)
#: line -> the capabilities to plan for if no module is installed
LINES: dict[str, Capabilities] = {known.line: known for known in (_V8_5, _V8_6, _V9, _V10, _V11)}


def find_line(version: str) -> Line:
    """Return the line of a version; a major version after 11 is treated as 11.

    Raises:
        BackendError: if the version is older than 8.5 or is not a version.
    """
    try:
        major, minor = (int(part) for part in version.split(".")[:2])
    except ValueError:
        raise BackendError(f'TensorRT reports the version "{version}", which is not a version') from None
    if (major, minor) < OLDEST:
        raise BackendError(f"TensorRT {version} is too old: install 8.5 or later")
    if major == 8:
        return "8.5" if minor == 5 else "8.6"
    return "9" if major == 9 else "10" if major == 10 else "11"


def read_capabilities(trt: Any) -> Capabilities:
    """Return what an imported tensorrt module supports.

    Raises:
        BackendError: if it is older than 8.5.
    """
    line = find_line(trt.__version__)
    flags, config = _list_members(trt, "BuilderFlag"), trt.IBuilderConfig
    levels = _list_members(trt, "HardwareCompatibilityLevel")
    typing: Literal["weak", "flag", "always"] = "weak"
    if "STRONGLY_TYPED" in _list_members(trt, "NetworkDefinitionCreationFlag"):
        typing = "flag" if "FP16" in flags else "always"
    return Capabilities(
        version=trt.__version__,
        line=line,
        needs_explicit_batch=line in ("8.5", "8.6", "9"),
        typing=typing,
        data_types=_list_members(trt, "DataType") & (_BASIC_TYPES | _LATER_TYPES),
        hardware_compatibility=tuple(name for name in _LEVELS if name in levels),
        version_compatible="VERSION_COMPATIBLE" in flags,
        optimization_level=hasattr(config, "builder_optimization_level"),
        timing_cache_miss_error="ERROR_ON_TIMING_CACHE_MISS" in flags,
        compilation_cache_switch="DISABLE_COMPILATION_CACHE" in flags,
        progress_monitor=hasattr(trt, "IProgressMonitor") and hasattr(config, "progress_monitor"),
        parser_nodes=hasattr(trt.ParserError, "node_name"),
        newest_opset=LINES[line].newest_opset,
    )


def _list_members(trt: Any, enumeration: str) -> frozenset[str]:
    """The members of an enumeration, which pybind keeps in `__members__`; none if this version lacks it."""
    return frozenset(getattr(getattr(trt, enumeration, None), "__members__", ()))
