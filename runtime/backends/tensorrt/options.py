"""What a user asks of a build, checked where it is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ....errors import InputError
from .onnx_facts import OnnxFacts

MAX_PROFILES = 16
MAX_RANK = 8
MAX_ELEMENTS = 1 << 31  # of one input
Shape = tuple[int, ...]
HardwareLevel = Literal["ampere-plus", "same-capability"]
HARDWARE_LEVELS = ("ampere-plus", "same-capability")


@dataclass(frozen=True)
class ShapeRange:
    """The shapes of one input under one profile: smallest, the one to be fastest at, largest."""

    minimum: Shape
    optimum: Shape
    maximum: Shape

    def __post_init__(self) -> None:
        ranks = {len(shape) for shape in (self.minimum, self.optimum, self.maximum)}
        if len(ranks) != 1 or ranks.pop() > MAX_RANK:
            raise InputError(f"{self.describe()}: the three shapes of a profile need one rank, of at most {MAX_RANK}")
        for low, best, high in zip(self.minimum, self.optimum, self.maximum, strict=True):
            if not 1 <= low <= best <= high:
                raise InputError(f"{self.describe()}: every size needs 1 <= min <= opt <= max")
        elements = 1
        for side in self.maximum:
            elements *= side
        if elements > MAX_ELEMENTS:
            raise InputError(f"{self.describe()}: {elements} elements are more than TensorRT takes (2^31)")

    @property
    def is_static(self) -> bool:
        """Whether it holds one shape only."""
        return self.minimum == self.maximum

    def contains(self, shape: Shape) -> bool:
        """Whether a shape lies in it."""
        return len(shape) == len(self.minimum) and all(
            low <= side <= high for low, side, high in zip(self.minimum, shape, self.maximum, strict=True)
        )

    def describe(self) -> str:
        """Such as 1x321x321x3..8x1024x2048x3 (opt 1x513x513x3)."""
        low, best, high = ("x".join(map(str, shape)) for shape in (self.minimum, self.optimum, self.maximum))
        return low if self.is_static else f"{low}..{high} (opt {best})"


#: input -> shapes, under one optimization profile
Profile = Mapping[str, ShapeRange]


@dataclass(frozen=True)
class BuildOptions:
    """Everything a user decides about a build; what is None is left to TensorRT.

    Attributes:
        profiles: the optimization profiles; a graph without free sizes needs none.
        workspace_bytes: limit of the scratch memory of all layers; None for TensorRT's own, all device memory.
        level: 0 (builds fast) to 5 (looks longest).
        tf32: whether float32 products may round their operands to TF32's 10-bit mantissa.
        tactic_sources: "builtin" leaves cuDNN and cuBLAS out, which are then not needed to run; "default" is
            TensorRT's own choice.
        refit: whether the weights can be exchanged later.
        hardware_compatible: None, "ampere-plus", or "same-capability".
        version_compatible: whether the plan runs under later versions of the same major; its lean runtime stays out
            of the plan, so that no code runs out of a file.
        replay: whether every tactic must come from the timing cache that is given.
    """

    profiles: tuple[Profile, ...] = ()
    workspace_bytes: int | None = None
    level: int | None = None
    tf32: bool = False
    tactic_sources: Literal["builtin", "default"] = "builtin"
    refit: bool = False
    hardware_compatible: HardwareLevel | None = None
    version_compatible: bool = False
    replay: bool = False

    def __post_init__(self) -> None:
        if len(self.profiles) > MAX_PROFILES:
            raise InputError(f"{len(self.profiles)} profiles are more than {MAX_PROFILES}: build several engines")
        if self.level is not None and not 0 <= self.level <= 5:
            raise InputError(f"the builder's level is 0 to 5, not {self.level}")
        if self.workspace_bytes is not None and not 0 < self.workspace_bytes < 1 << 62:
            raise InputError(f"a workspace of {self.workspace_bytes} bytes is none")

    def check_inputs(self, graph: OnnxFacts) -> None:
        """Check the profiles against the graph's inputs.

        Raises:
            InputError: naming the input that has no shape, an unknown one, or a size the graph fixes otherwise.
        """
        free = [name for name, (_, shape) in graph.inputs.items() if -1 in shape]
        if free and not self.profiles:
            raise InputError(f'the input "{free[0]}" has free sizes: give the shapes to build for (--shape, or --opt)')
        for profile in self.profiles:
            for name in profile.keys() - graph.inputs.keys():
                raise InputError(f'the graph has no input "{name}"; it has {list(graph.inputs)}')
            for name in free:
                if name not in profile:
                    raise InputError(f'the profile lacks the input "{name}"')
            for name, shapes in profile.items():
                wanted = graph.inputs[name][1]
                for shape in (shapes.minimum, shapes.optimum, shapes.maximum):
                    if len(shape) != len(wanted) or any(w not in (-1, s) for w, s in zip(wanted, shape, strict=True)):
                        written = "x".join("?" if side == -1 else str(side) for side in wanted)
                        raise InputError(f'the input "{name}" is {written}, a profile wants {shapes.describe()}')

    def to_json(self) -> dict[str, object]:
        """The settings by name, profiles apart, as keys and records write them."""
        return {
            "workspace_bytes": self.workspace_bytes,
            "level": self.level,
            "tf32": self.tf32,
            "tactic_sources": self.tactic_sources,
            "refit": self.refit,
            "hardware_compatible": self.hardware_compatible,
            "version_compatible": self.version_compatible,
        }

    def profiles_json(self) -> list[dict[str, dict[str, list[int]]]]:
        """The profiles as keys and records write them."""
        return [
            {
                name: {"min": list(shapes.minimum), "opt": list(shapes.optimum), "max": list(shapes.maximum)}
                for name, shapes in sorted(profile.items())
            }
            for profile in self.profiles
        ]


def static_profile(shapes: Mapping[str, Shape]) -> Profile:
    """A profile that holds one shape an input."""
    return {name: ShapeRange(shape, shape, shape) for name, shape in shapes.items()}
