"""What an engine is: everything that changes a plan, as named fields, and one digest over them.

Two graphs that differ in one attribute, such as a dilation, have different ONNX bytes and so different keys. The
timing cache that a build started from is no field: it is written in the record, but who looks an engine up knows
only what he wants, not how it was timed.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from ....errors import BackendError
from ...devices import count_multiprocessors, list_cuda_devices, read_driver_version
from .capabilities import Capabilities
from .onnx_facts import OnnxFacts
from .options import HARDWARE_LEVELS, BuildOptions, HardwareLevel
from .plan import BUILDER_REVISION, BuildPlan

#: a number, text, switch, or a list or mapping of them, as JSON has it
Value = object


@dataclass(frozen=True)
class Machine:
    """Where an engine runs, as far as a plan depends on it.

    Attributes:
        gpu: its name.
        capability: compute capability, such as "9.0".
        multiprocessors: how many it has.
        driver: NVIDIA's driver version.
        system: operating system and processor family.
    """

    gpu: str
    capability: str
    multiprocessors: int
    driver: str
    system: str


def read_machine(index: int = 0) -> Machine:
    """This machine and one of its GPUs.

    Raises:
        BackendError: if there is no such GPU.
    """
    devices = list_cuda_devices()
    if index >= len(devices):
        found = f"only {len(devices)} GPUs are" if devices else "no GPU is"
        raise BackendError(f"{found} here; engines are built on the GPU they are for (see `atrous doctor`, --dry-run)")
    device = devices[index]
    return Machine(
        gpu=device.name,
        capability=device.capability,
        multiprocessors=count_multiprocessors(index),
        driver=read_driver_version() or "unknown",
        system=f"{platform.system()} {platform.machine()}",
    )


@dataclass(frozen=True)
class Difference:
    """One field in which two engines differ."""

    field: str
    wanted: Value
    found: Value

    def describe(self) -> str:
        """Such as: gpu.name is "A100" there and "H100" here."""
        return f"{self.field} is {_shorten(self.found)} there and {_shorten(self.wanted)} here"


@dataclass(frozen=True)
class EngineKey:
    """The fields of an engine; `digest` names its folder."""

    fields: Mapping[str, Value]

    @property
    def digest(self) -> str:
        """sha256 over the fields, 64 hexadecimal digits."""
        return hashlib.sha256(write_canonical(dict(self.fields))).hexdigest()

    def compare(self, found: Mapping[str, Value]) -> list[Difference]:
        """The fields in which another engine's differ from these, in these fields' order."""
        names = [*self.fields, *(name for name in found if name not in self.fields)]
        return [
            Difference(name, self.fields.get(name), found.get(name))
            for name in names
            if self.fields.get(name) != found.get(name)
        ]


def make_key(
    graph: OnnxFacts,
    options: BuildOptions,
    plan: BuildPlan,
    machine: Machine,
    *,
    precision: str,
    outputs: Sequence[str] = (),
) -> EngineKey:
    """The key of the engine that these would build.

    Args:
        graph: its sha256 covers every byte of the model: weights, attributes, names.
        options: profiles and settings.
        plan: its pins and its version.
        machine: where it is built.
        precision: the bundle's name for the graph's precision, such as "fp16".
        outputs: outputs kept, all by default.
    """
    capabilities = plan.capabilities
    return EngineKey(
        {
            "onnx.sha256": graph.sha256,
            "onnx.outputs": list(outputs or graph.outputs),
            "precision.name": precision,
            "precision.typing": capabilities.typing,
            "precision.pinned": list(plan.pinned),
            "profiles": options.profiles_json(),
            **{f"settings.{name}": value for name, value in options.to_json().items()},
            **machine_fields(machine, capabilities, options),
            "builder.revision": BUILDER_REVISION,
        }
    )


def machine_fields(machine: Machine, capabilities: Capabilities, options: BuildOptions) -> dict[str, Value]:
    """The fields that tie an engine to a TensorRT and a GPU; wider where the build promised to be compatible."""
    return {
        "tensorrt.version": capabilities.line if options.version_compatible else capabilities.version,
        "gpu.name": "any of compute capability 8.0 or more" if _is_any_gpu(options) else _gpu(machine, options),
        "gpu.capability": "8.0+" if _is_any_gpu(options) else machine.capability,
        "gpu.multiprocessors": None if options.hardware_compatible else machine.multiprocessors,
        "gpu.driver": machine.driver,
        "system": machine.system,
    }


def fields_here(fields: Mapping[str, Value], machine: Machine, capabilities: Capabilities) -> dict[str, Value]:
    """What a stored engine's machine fields would have to be for it to run here, by the compatibility it promises.

    Args:
        fields: of the stored engine.
        machine: this machine.
        capabilities: of the TensorRT here.
    """
    level = fields.get("settings.hardware_compatible")
    too_old = level == "ampere-plus" and _capability(machine) < (8, 0)
    options = BuildOptions(
        hardware_compatible=cast(HardwareLevel, level) if level in HARDWARE_LEVELS and not too_old else None,
        version_compatible=fields.get("settings.version_compatible") is True,
    )
    return machine_fields(machine, capabilities, options)


def find_outdated(fields: Mapping[str, Value], machine: Machine, capabilities: Capabilities) -> str:
    """Why an engine that was built for this very GPU does not run here any more; empty if it does, or is another's."""
    here = fields_here(fields, machine, capabilities)
    if any(fields.get(name) != here[name] for name in ("gpu.name", "gpu.capability", "gpu.multiprocessors", "system")):
        return ""
    return "; ".join(
        Difference(name, here[name], fields.get(name)).describe()
        for name in ("tensorrt.version", "gpu.driver")
        if fields.get(name) != here[name]
    )


def _capability(machine: Machine) -> tuple[int, ...]:
    return tuple(int(part) for part in machine.capability.split(".") if part.isdigit())


def _is_any_gpu(options: BuildOptions) -> bool:
    return options.hardware_compatible == "ampere-plus"


def _gpu(machine: Machine, options: BuildOptions) -> str:
    return f"any of compute capability {machine.capability}" if options.hardware_compatible else machine.gpu


def write_canonical(value: object) -> bytes:
    """The one byte form of a JSON value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True).encode()


def _shorten(value: Value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
