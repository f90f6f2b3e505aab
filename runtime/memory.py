"""The memory that this process may use, to refuse work that cannot fit before it begins."""

from __future__ import annotations

import math
import os
import resource
from pathlib import Path

from ..errors import InputError

_SURE_BYTES = 1 << 28
"""Memory that is requested without a look at how much there is."""
_MEMINFO, _STATUS, _CGROUP = Path("/proc/meminfo"), Path("/proc/self/status"), Path("/sys/fs/cgroup/memory.max")


def require_memory(needed_bytes: int, size: tuple[int, int]) -> None:
    """Raise InputError if an image of this (height, width) needs more memory than this process can have."""
    if needed_bytes <= _SURE_BYTES:
        return
    limit_bytes = find_limit_bytes()
    if needed_bytes > limit_bytes:
        raise InputError(
            f"the image is {size[1]}x{size[0]} pixels, which takes more than {needed_bytes / 1e9:.1f} GB; this process "
            f"can have {limit_bytes / 1e9:.1f} GB: resize the image"
        )


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
