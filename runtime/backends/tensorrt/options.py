"""The user's choices for a build, validated on construction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ....errors import InputError
from ...tensorrt_choices import MAX_LEVEL, HardwareLevel, TacticSources

if TYPE_CHECKING:
    from ....bundle.manifest import GraphFacts

MAX_PROFILES = 16
MAX_RANK = 8
MAX_ELEMENTS = 1 << 31  # of one input
Shape = tuple[int, ...]


@dataclass(frozen=True)
class ShapeRange:
    """The shapes of one input in a profile: the smallest, the one to optimize for, and the largest."""

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
        elements = math.prod(self.maximum)
        if elements > MAX_ELEMENTS:
            raise InputError(f"{self.describe()}: {elements} elements exceed TensorRT's limit of 2^31")

    def describe(self) -> str:
        """Return text such as 1x321x321x3..8x1024x2048x3 (opt 1x513x513x3)."""
        low, best, high = ("x".join(map(str, shape)) for shape in (self.minimum, self.optimum, self.maximum))
        return low if self.minimum == self.maximum else f"{low}..{high} (opt {best})"


#: input -> shapes, in one optimization profile
Profile = Mapping[str, ShapeRange]


@dataclass(frozen=True)
class BuildOptions:
    """The user's choices for a build; None leaves a choice to TensorRT.

    Attributes:
        profiles: the optimization profiles; a graph of fixed sizes needs none.
        workspace_bytes: limit of the scratch memory of all layers; by default all device memory.
        level: builder optimization level, 0 (fastest build) to 5 (longest search).
        tf32: whether float32 products may round their operands to TF32's 10-bit mantissa.
        tactic_sources: "builtin" uses neither cuDNN nor cuBLAS, so they need not be installed; "default" is
            TensorRT's choice.
        refit: whether the weights can be replaced later.
        hardware_compatible: GPUs the engine supports besides this one: "ampere-plus", "same-capability", or None.
        version_compatible: whether the plan runs under later versions of the same major version. Its lean runtime is
            left out, so that no code is run from a file.
        replay: whether every tactic must come from the given timing cache.
        targets: TensorRT for RTX: the GPUs to build for, such as "sm86", sorted by their number; else none.
    """

    profiles: tuple[Profile, ...] = ()
    workspace_bytes: int | None = None
    level: int | None = None
    tf32: bool = False
    tactic_sources: TacticSources = "builtin"
    refit: bool = False
    hardware_compatible: HardwareLevel | None = None
    version_compatible: bool = False
    replay: bool = False
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.profiles) > MAX_PROFILES:
            raise InputError(f"{len(self.profiles)} profiles are more than {MAX_PROFILES}: build several engines")
        if self.level is not None and not 0 <= self.level <= MAX_LEVEL:
            raise InputError(f"the builder level must be 0 to {MAX_LEVEL}, not {self.level}")
        if self.workspace_bytes is not None and not 0 < self.workspace_bytes < 1 << 62:
            raise InputError(f"a workspace of {self.workspace_bytes} bytes is invalid: give 1 byte to 4 EiB")

    def check_inputs(self, facts: GraphFacts) -> None:
        """Raise InputError if the profiles do not match the graph's inputs."""
        dynamic = [name for name, blob in facts.inputs.items() if -1 in blob.shape]
        if dynamic and not self.profiles:
            raise InputError(
                f'the input "{dynamic[0]}" has dynamic sizes: give the shapes to build for (--shape, --opt)'
            )
        for profile in self.profiles:
            for name in profile.keys() - facts.inputs.keys():
                raise InputError(f'the graph has no input "{name}"; it has {list(facts.inputs)}')
            for name in dynamic:
                if name not in profile:
                    raise InputError(f'the profile lacks the input "{name}"')
            for name, shapes in profile.items():
                sizes = facts.inputs[name].shape
                for shape in (shapes.minimum, shapes.optimum, shapes.maximum):
                    if len(shape) != len(sizes) or any(n not in (-1, s) for n, s in zip(sizes, shape, strict=True)):
                        written = "x".join("?" if side == -1 else str(side) for side in sizes)
                        raise InputError(f'the input "{name}" is {written}, the profile has {shapes.describe()}')

    def to_json(self) -> dict[str, object]:
        """Return the settings that change a plan, without profiles, as keys and records write them."""
        settings = {name: value for name, value in vars(self).items() if name not in ("profiles", "replay", "targets")}
        return {**settings, "targets": list(self.targets)} if self.targets else settings

    def profiles_json(self) -> list[dict[str, dict[str, list[int]]]]:
        """Return the profiles as keys and records write them."""
        return [
            {
                name: {"min": list(shapes.minimum), "opt": list(shapes.optimum), "max": list(shapes.maximum)}
                for name, shapes in sorted(profile.items())
            }
            for profile in self.profiles
        ]


def read_shape(text: str) -> Shape:
    """Read a shape such as "8x513x513x3"; raises InputError if it is malformed."""
    try:
        return tuple(int(part) for part in text.split("x"))
    except ValueError as error:
        raise InputError(f'"{text}" is not a shape such as 8x513x513x3') from error


def static_profile(shapes: Mapping[str, Shape]) -> Profile:
    """Return a profile with one shape for each input."""
    return {name: ShapeRange(shape, shape, shape) for name, shape in shapes.items()}
