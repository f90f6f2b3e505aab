"""The memory that this process may use."""

from __future__ import annotations

import math
import os
import resource
from pathlib import Path

_MEMINFO, _STATUS, _CGROUP = Path("/proc/meminfo"), Path("/proc/self/status"), Path("/sys/fs/cgroup/memory.max")


def find_limit_bytes() -> float:
    """The most memory that this process can have in all: what it holds and what is free; inf if unknown.

    Linux: available memory and free swap, the container's limit, and `ulimit -v`. Elsewhere: the installed memory.
    """
    free, held = _read_sizes(_MEMINFO), _read_sizes(_STATUS)
    if "MemAvailable" in free:
        machine: float = free["MemAvailable"] + free.get("SwapFree", 0) + held.get("VmRSS", 0)
    else:
        machine = _read_installed()
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min(machine, _read_cgroup(), math.inf if address_space == resource.RLIM_INFINITY else address_space)


def find_used_bytes() -> int:
    """The memory that this process holds; 0 if unknown."""
    return _read_sizes(_STATUS).get("VmRSS", 0)


def _read_sizes(path: Path) -> dict[str, int]:
    """The lines `Name: 123 kB` of a file of /proc, in bytes; empty where there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    parts = [line.split() for line in lines if line.endswith(" kB")]
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in parts}


def _read_cgroup() -> float:
    try:
        text = _CGROUP.read_text().strip()
    except OSError:
        return math.inf
    return int(text) if text.isdecimal() else math.inf


def _read_installed() -> float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return math.inf
