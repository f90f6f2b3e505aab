"""Engine keys: everything that changes a plan, as named fields, and a digest over them.

Graphs that differ in one attribute, such as a dilation, have different ONNX bytes and therefore different keys. The
timing cache a build started from is in the record but not a field: a lookup cannot know it.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ....errors import BackendError
from ...devices import count_multiprocessors, list_cuda_devices, read_driver_version
from ...tensorrt_choices import HARDWARE_LEVELS
from .capabilities import Capabilities
from .options import BuildOptions
from .plan import BUILDER_REVISION, BuildPlan

if TYPE_CHECKING:
    from ....bundle.manifest import GraphFacts

#: a JSON value
Value = object


@dataclass(frozen=True)
class Machine:
    """The part of a machine that a plan depends on; `capability` is the compute capability, such as "9.0"."""

    gpu: str
    capability: str
    multiprocessors: int
    driver: str
    system: str


def read_machine(index: int = 0) -> Machine:
    """Return this machine with one of its GPUs; raises BackendError if the GPU does not exist."""
    devices = list_cuda_devices()
    if index >= len(devices):
        found = f"there are only {len(devices)} GPUs" if devices else "there is no GPU"
        raise BackendError(f"{found}; engines are built on the GPU that runs them (see `atrous doctor`, --dry-run)")
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
        """Return text such as: gpu.name is "A100" there and "H100" here."""
        return f"{self.field} is {_shorten(self.found)} there and {_shorten(self.wanted)} here"


@dataclass(frozen=True)
class EngineKey:
    """The fields of an engine; `digest` names its folder."""

    fields: Mapping[str, Value]

    @property
    def digest(self) -> str:
        """The sha256 of the fields, 64 hexadecimal digits."""
        return hashlib.sha256(write_canonical(dict(self.fields))).hexdigest()

    def compare(self, found: Mapping[str, Value]) -> list[Difference]:
        """Return the fields in which another engine differs, in the order of these."""
        names = [*self.fields, *(name for name in found if name not in self.fields)]
        return [
            Difference(name, self.fields.get(name), found.get(name))
            for name in names
            if self.fields.get(name) != found.get(name)
        ]


def make_key(model: bytes, facts: GraphFacts, plan: BuildPlan, machine: Machine | None, *, precision: str) -> EngineKey:
    """Return the key of the engine that a plan would build; it covers every byte of the model.

    `machine` is None for a plan for targets, which its options name: it depends on no machine.
    """
    options, capabilities = plan.options, plan.capabilities
    return EngineKey(
        {
            "onnx.sha256": hashlib.sha256(model).hexdigest(),
            "onnx.outputs": list(facts.outputs),
            "precision.name": precision,
            "precision.typing": capabilities.typing,
            "precision.pinned": list(plan.pinned),
            "profiles": options.profiles_json(),
            **{f"settings.{name}": value for name, value in options.to_json().items()},
            **(rtx_fields(capabilities.version) if machine is None else machine_fields(machine, capabilities, options)),
            "builder.revision": BUILDER_REVISION,
        }
    )


def machine_fields(machine: Machine, capabilities: Capabilities, options: BuildOptions) -> dict[str, Value]:
    """Return the fields that tie an engine to a TensorRT and a GPU; compatible builds are tied to less."""
    level = options.hardware_compatible
    names = {None: machine.gpu, "same-capability": f"any of compute capability {machine.capability}"}
    return {
        "tensorrt.version": capabilities.line if options.version_compatible else capabilities.version,
        "gpu.name": names.get(level, "any of compute capability 8.0 or more"),
        "gpu.capability": "8.0+" if level == "ampere-plus" else machine.capability,
        "gpu.multiprocessors": machine.multiprocessors if level is None else None,
        "gpu.driver": machine.driver,
        "system": machine.system,
    }


def rtx_fields(version: str) -> dict[str, Value]:
    """Return the fields that tie an engine to a version of TensorRT for RTX; its targets are among the settings."""
    return {"tensorrt.version": f"rtx {version}"}


def fields_here(fields: Mapping[str, Value], machine: Machine, capabilities: Capabilities) -> dict[str, Value]:
    """Return the machine fields that a stored engine must have to run here, given the compatibility of its build."""
    level = fields.get("settings.hardware_compatible")
    capability = tuple(int(part) for part in machine.capability.split(".") if part.isdigit())
    too_old = level == "ampere-plus" and capability < (8, 0)
    options = BuildOptions(
        hardware_compatible=level if level in HARDWARE_LEVELS and not too_old else None,
        version_compatible=fields.get("settings.version_compatible") is True,
    )
    return machine_fields(machine, capabilities, options)


def find_outdated(fields: Mapping[str, Value], machine: Machine, capabilities: Capabilities) -> str:
    """Return why an engine built for this GPU no longer runs here; "" if it runs, or is for another GPU."""
    here = fields_here(fields, machine, capabilities)
    if any(fields.get(name) != here[name] for name in ("gpu.name", "gpu.capability", "gpu.multiprocessors", "system")):
        return ""
    return "; ".join(
        Difference(name, here[name], fields.get(name)).describe()
        for name in ("tensorrt.version", "gpu.driver")
        if fields.get(name) != here[name]
    )


def find_outdated_rtx(fields: Mapping[str, Value], version: str) -> str:
    """Return why an engine of TensorRT for RTX does not run under a version of it; "" if it does, or is another's."""
    here, found = rtx_fields(version)["tensorrt.version"], fields.get("tensorrt.version")
    if not fields.get("settings.targets") or found == here:
        return ""
    return Difference("tensorrt.version", here, found).describe()


def write_canonical(value: object) -> bytes:
    """Return the canonical bytes of a JSON value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True).encode()


def _shorten(value: Value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
