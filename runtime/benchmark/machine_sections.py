"""The parts of the result file that tell of the machine: what it is, and how it was while it was measured."""

from __future__ import annotations

from pydantic import NonNegativeInt

from .sections import Section

TraceColumn = tuple[float | None, ...]


class GpuTrace(Section):
    """One GPU over time, as NVML tells; columns as long as the trace's `at_s`, null where it was not told."""

    name: str
    sm_mhz: TraceColumn
    memory_mhz: TraceColumn
    power_w: TraceColumn
    temperature_c: TraceColumn
    busy: TraceColumn
    memory_used_mb: TraceColumn
    throttle_reasons: tuple[tuple[str, ...], ...]


class MachineTrace(Section):
    """The machine while it was measured; all columns are as long as `at_s`, null where a value cannot be read.

    Attributes:
        at_s: seconds since the run began.
        cpu_mhz: mean clock of the usable cores.
        cpu_busy: share of all cores' time that was busy, by anyone.
        own_busy: share of all cores' time that this process took.
        steal: share of time the hypervisor gave to others.
        load_1min: the system's load average.
        temperature_c: hottest CPU sensor.
        memory_available_mb: of the system.
        resident_mb: of this process.
        gpus: one trace each.
        unavailable: columns that this machine does not tell, with the reason.
    """

    interval_s: float
    at_s: tuple[float, ...]
    cpu_mhz: TraceColumn
    cpu_busy: TraceColumn
    own_busy: TraceColumn
    steal: TraceColumn
    load_1min: TraceColumn
    temperature_c: TraceColumn
    memory_available_mb: TraceColumn
    resident_mb: TraceColumn
    gpus: tuple[GpuTrace, ...] = ()
    unavailable: dict[str, str]


class CpuInfo(Section):
    """The processor, and what limits it here."""

    name: str
    features: tuple[str, ...]
    cores: NonNegativeInt
    usable_cores: NonNegativeInt
    governor: str | None
    max_mhz: float | None
    cgroup_cpus: float | None
    virtualization: str | None


class GpuInfo(Section):
    """A GPU and how it is set."""

    name: str
    capability: str
    memory_mb: float
    driver: str | None
    power_limit_w: float | None
    max_sm_mhz: float | None
    persistence: bool | None


class Environment(Section):
    """Everything about the machine and its software that could explain a figure.

    Attributes:
        variables: those that limit threads or choose devices, where set.
        libraries: distribution -> version.
        git: commit of the source tree, where there is one.
    """

    host: str
    system: str
    python: str
    cpu: CpuInfo
    memory_mb: float | None
    gpus: tuple[GpuInfo, ...]
    libraries: dict[str, str]
    variables: dict[str, str]
    load_1min_before: float | None
    git: str | None
