"""Everything about the machine and its software that could explain a figure."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from pathlib import Path

from ...dependencies import OPTIONAL, read_version
from ..devices import describe_processor, list_cuda_devices
from .gpu_watch import open_gpu_watch
from .machine_sections import CpuInfo, Environment, GpuInfo

_CORE = ("atrous", "numpy", "pillow", "pydantic")
_PREFIXES = ("OMP_", "MKL_", "OPENBLAS_", "KMP_", "GOMP_", "CUDA_", "NVIDIA_", "ORT_", "TORCH_", "MALLOC_")
_SECRETS = ("TOKEN", "KEY", "SECRET", "PASSWORD")
_CPU = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_REPO = Path(__file__).resolve().parents[2]


def describe_environment() -> Environment:
    """What can be seen from here, without asking anything outside this machine."""
    return Environment(
        host=platform.node(),
        system=platform.platform(),
        python=platform.python_version(),
        cpu=describe_cpu(),
        memory_mb=_read_memory_mb(),
        gpus=_describe_gpus(),
        libraries=_list_libraries(),
        variables={
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(_PREFIXES) and not any(word in name for word in _SECRETS)
        },
        load_1min_before=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        git=_read_commit(),
    )


def describe_cpu() -> CpuInfo:
    """The processor, its clock's governor, and what a container leaves of it."""
    processor = describe_processor()
    max_khz = _read_text(_CPU / "cpuinfo_max_freq")
    return CpuInfo(
        name=processor.name,
        features=processor.features,
        cores=processor.cores,
        usable_cores=processor.usable_cores,
        governor=_read_text(_CPU / "scaling_governor"),
        max_mhz=int(max_khz) / 1000 if max_khz is not None and max_khz.isdigit() else None,
        cgroup_cpus=_read_cgroup_cpus(),
        virtualization=_read_virtualization(),
    )


def _describe_gpus() -> tuple[GpuInfo, ...]:
    watched = tuple(gpu.describe() for gpu in open_gpu_watch())
    if watched:
        return watched
    return tuple(
        GpuInfo(
            name=device.name,
            capability=device.capability,
            memory_mb=device.memory_bytes / 1e6,
            driver=None,
            power_limit_w=None,
            max_sm_mhz=None,
            persistence=None,
        )
        for device in list_cuda_devices()
    )


def _list_libraries() -> dict[str, str]:
    names = (*_CORE, *(name for dependency in OPTIONAL.values() for name in dependency.distributions))
    found = {name: read_version(name) for name in dict.fromkeys(names)}
    return {name: version for name, version in found.items() if version is not None}


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def _read_memory_mb() -> float | None:
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6, 1)
    return None


def _read_cgroup_cpus() -> float | None:
    """The container's quota in cores (cgroup v2), or None where there is none."""
    quota, _, period = (_read_text(Path("/sys/fs/cgroup/cpu.max")) or "").partition(" ")
    return round(int(quota) / int(period), 3) if quota.isdigit() and period.isdigit() and int(period) else None


def _read_virtualization() -> str | None:
    vendor = _read_text(Path("/sys/class/dmi/id/sys_vendor"))
    product = _read_text(Path("/sys/class/dmi/id/product_name"))
    flags = _read_text(Path("/proc/cpuinfo")) or ""
    if "hypervisor" not in flags:
        return None
    return " ".join(filter(None, (vendor, product))) or "a hypervisor"


def _read_commit() -> str | None:
    if not (_REPO / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ("git", "describe", "--always", "--dirty", "--abbrev=12"),
            cwd=_REPO,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
