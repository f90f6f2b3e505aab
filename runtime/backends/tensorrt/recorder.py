"""A stand-in for the tensorrt module that records what is done with it, as lines of Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: what a call returns -> the variable it is assigned to; {} counts equal calls
_VARIABLES = {
    "Builder": "builder",
    "create_network": "network",
    "OnnxParser": "parser",
    "create_builder_config": "config",
    "create_optimization_profile": "profile_{}",
    "create_timing_cache": "timing_cache",
    "build_serialized_network": "plan",
    "get_timing_cache": "cache_after",
    "serialize": "timings",
}
_ANSWERS = {"num_layers": 0}
_FIRST_BIT = 1000  # of members in bit masks; no size in bytes reaches it


@dataclass
class Recording:
    """The calls and assignments in order, and the members of the module that they use, as "trt.BuilderFlag.TF32"."""

    lines: list[str] = field(default_factory=list)
    members: list[str] = field(default_factory=list)


class Recorder:
    """Stands in for a module or an object of it: every attribute and every call returns another recorder."""

    def __init__(self, path: str, recording: Recording):
        """Record under a path such as "trt" or "builder"."""
        object.__setattr__(self, "_path", path)
        object.__setattr__(self, "_recording", recording)

    def __getattr__(self, name: str) -> Any:
        return _ANSWERS[name] if name in _ANSWERS else Recorder(f"{self._path}.{name}", self._recording)

    def __setattr__(self, name: str, value: object) -> None:
        self._recording.lines.append(f"{self._path}.{name} = {self._write(value)}")

    def __call__(self, *arguments: object) -> Recorder:
        """Record a call."""
        call = f"{self._path}({', '.join(map(self._write, arguments))})"
        count = sum(line.endswith(call) for line in self._recording.lines)
        variable = _VARIABLES.get(self._path.rpartition(".")[2], "").format(count)
        self._recording.lines.append(f"{variable} = {call}" if variable else call)
        return Recorder(variable or call, self._recording)

    def __int__(self) -> int:
        """A bit number that `_write` recognizes."""
        self._recording.members.append(self._path)
        return _FIRST_BIT + len(self._recording.members) - 1

    def __lt__(self, other: object) -> bool:
        return False

    def __bytes__(self) -> bytes:
        return b""

    def _write(self, value: object) -> str:
        if isinstance(value, Recorder):
            if value._path.startswith("trt."):
                self._recording.members.append(value._path)
            return str(value._path)
        if type(value) is int and value >> _FIRST_BIT:
            bits = enumerate(self._recording.members, start=_FIRST_BIT)
            return " | ".join(f"1 << int({member})" for bit, member in bits if value >> bit & 1)
        return repr(value)
