"""Choices of a TensorRT build, in a module that imports nothing heavy: `atrous build --help` shows them."""

from typing import Literal, get_args

Line = Literal["8.5", "8.6", "9", "10", "11"]
#: lines of TensorRT releases that behave alike
LINES: tuple[Line, ...] = get_args(Line)
#: line that a dry run assumes if TensorRT is not installed
PLANNED_LINE: Line = "10"
#: targets of TensorRT for RTX: compute capabilities without the point, as its builder accepts them
TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
HardwareLevel = Literal["ampere-plus", "same-capability"]
HARDWARE_LEVELS: tuple[HardwareLevel, ...] = get_args(HardwareLevel)
TacticSources = Literal["builtin", "default"]
TACTIC_SOURCES: tuple[TacticSources, ...] = get_args(TacticSources)
MAX_LEVEL = 5
#: required share of the graph's narrow products that are narrow in the engine, unless the user sets another
REQUIRED_SHARE = 0.9
