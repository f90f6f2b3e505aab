"""Capabilities of each TensorRT version. All other code asks a `Capabilities`, never for a version.

`LINES` serves dry runs without TensorRT; for an installed module, `read_capabilities` also checks the names. TensorRT
for RTX is another product with versions of its own, 1.x: `find_rtx_capabilities`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from ....errors import BackendError
from ...tensorrt_choices import Line

_OLDEST = (8, 5)
_OPSETS: dict[Line, int] = {"8.5": 17, "8.6": 17, "9": 19, "10": 20, "11": 25}
_RELEASES = ("8.5.3.1", "8.6.1", "9.3.0", "10.13.3.9", "11.4.0.106")


@dataclass(frozen=True)
class Capabilities:
    """Capabilities of a TensorRT version, as far as builds and runs here depend on it.

    Attributes:
        version: complete, such as "10.13.3.9".
        line: the line of versions it belongs to; "rtx" is TensorRT for RTX.
        needs_explicit_batch: networks must be created with EXPLICIT_BATCH, or the ONNX parser refuses them.
        typing: "weak" (builder flags allow precisions, BF16 and FP8 not among them), "flag" (STRONGLY_TYPED requests
            the graph's own types), or "always" (the graph's own types, without a choice).
        hardware_levels: the members of HardwareCompatibilityLevel other than NONE.
        version_compatible: plans can be built for later versions of the same major version.
        optimization_level: the builder has a level of 0 to 5.
        replay_flags: the builder flags that make a build use its timing cache only.
        progress_monitor: a build reports its progress.
        parser_nodes: a parser error names the node and its operator.
        newest_opset: the newest ONNX opset that the line's first parser supports; later ones support more.
        refit: weights of an engine can be made replaceable.
        times_kernels: a build times kernels on the GPU: timing caches, tactic sources, and the noise of rebuilds.
        targets: a build is for a list of compute capabilities, on any machine; else for the GPU of this machine.
    """

    version: str
    line: Line | Literal["rtx"]
    needs_explicit_batch: bool
    typing: Literal["weak", "flag", "always"]
    hardware_levels: tuple[str, ...]
    version_compatible: bool
    optimization_level: bool
    replay_flags: tuple[str, ...]
    progress_monitor: bool
    parser_nodes: bool
    newest_opset: int
    refit: bool = True
    times_kernels: bool = True
    targets: bool = False

    @property
    def product(self) -> str:
        """The product and its version, such as "TensorRT 10.13.3.9"."""
        return f"TensorRT{' for RTX' if self.line == 'rtx' else ''} {self.version}"


def find_capabilities(version: str) -> Capabilities:
    """Return what a version, 8.5 or later, supports; a major version after 11 is treated as 11."""
    try:
        major, minor = release = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        raise BackendError(f'TensorRT reports the version "{version}", which is not a version') from None
    if major == 1:
        raise BackendError(f"{version} is a version of TensorRT for RTX, another product: build with --rtx")
    if release < _OLDEST:
        raise BackendError(f"TensorRT {version} is too old: install 8.5 or later")
    lines: dict[int, Line] = {8: "8.5" if minor == 5 else "8.6", 9: "9", 10: "10"}
    line = lines.get(major, "11")
    levels = ("AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY")
    return Capabilities(
        version=version,
        line=line,
        needs_explicit_batch=major < 10,
        typing="weak" if release < (9, 1) else "flag" if major < 11 else "always",
        hardware_levels=levels if release >= (10, 9) else levels[:1] if release >= (8, 6) else (),
        version_compatible=release >= (8, 6),
        optimization_level=release >= (8, 6),
        replay_flags=("ERROR_ON_TIMING_CACHE_MISS", "DISABLE_COMPILATION_CACHE") if major >= 9 else (),
        progress_monitor=major >= 9,
        parser_nodes=major >= 9,
        newest_opset=_OPSETS[line],
    )


def read_capabilities(trt: Any) -> Capabilities:
    """Return an imported tensorrt module's capabilities: its version's, as far as it has their names."""

    def list_members(enumeration: str) -> Any:
        return getattr(getattr(trt, enumeration, None), "__members__", ())  # where pybind keeps them

    known, flags = find_capabilities(str(trt.__version__)), list_members("BuilderFlag")
    is_typed = known.typing == "always" or "STRONGLY_TYPED" in list_members("NetworkDefinitionCreationFlag")
    levels = list_members("HardwareCompatibilityLevel")
    return replace(
        known,
        typing=known.typing if is_typed else "weak",
        hardware_levels=tuple(name for name in known.hardware_levels if name in levels),
        replay_flags=tuple(name for name in known.replay_flags if name in flags),
        progress_monitor=known.progress_monitor and hasattr(trt, "IProgressMonitor"),
        parser_nodes=known.parser_nodes and hasattr(trt.ParserError, "node_name"),
    )


def find_rtx_capabilities(version: str) -> Capabilities:
    """Return what a version of TensorRT for RTX supports. Its networks are always strongly typed."""
    return Capabilities(
        version=version,
        line="rtx",
        needs_explicit_batch=False,
        typing="always",
        hardware_levels=(),
        version_compatible=False,
        optimization_level=True,
        replay_flags=(),
        progress_monitor=False,
        parser_nodes=True,
        newest_opset=_OPSETS["11"],
        refit=False,
        times_kernels=False,
        targets=True,
    )


#: line -> the capabilities of a late release, to plan for if no module is installed
LINES: dict[str, Capabilities] = {known.line: known for known in map(find_capabilities, _RELEASES)}
