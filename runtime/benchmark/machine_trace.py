"""The machine over time, while something is measured: clocks, load, temperature, power, throttling.

A thread looks every quarter of a second and reads counters only, so it costs about a millisecond of processor time a
second. Shares of processor time are of the interval that ends at the moment.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ...dependencies import import_optional
from .clocks import Clock
from .gpu_watch import GpuWatch, open_gpu_watch
from .machine_sections import MachineTrace

INTERVAL_S = 0.25

_COLUMNS = (
    "cpu_mhz",
    "cpu_busy",
    "own_busy",
    "steal",
    "load_1min",
    "temperature_c",
    "memory_available_mb",
    "resident_mb",
)
_HOTTEST_NAMES = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "acpitz")


class MachineWatch:
    """Records the machine while the block runs; `trace` gives what was seen."""

    def __init__(self, clock: Clock, begin_ns: int, *, interval_s: float = INTERVAL_S):
        """Prepare to watch.

        Args:
            clock: the clock of the run.
            begin_ns: the moment that counts as 0.
            interval_s: how often to look.

        Raises:
            MissingDependencyError: if psutil is not installed.
        """
        self._clock = clock
        self._begin_ns = begin_ns
        self._interval_s = interval_s
        self._processor = _Processor(import_optional("psutil"))
        self._gpus: list[GpuWatch] = open_gpu_watch()
        self._at_s: list[float] = []
        self._columns: dict[str, list[float | None]] = {name: [] for name in _COLUMNS}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="machine watch", daemon=True)

    def __enter__(self) -> MachineWatch:
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._end.set()
        self._thread.join()
        self._look()

    def trace(self) -> MachineTrace:
        """What was seen."""
        unavailable = {
            name: "this system does not tell"
            for name, column in self._columns.items()
            if all(value is None for value in column)
        }
        if not self._gpus:
            unavailable["gpus"] = "NVML shows no GPU"
        return MachineTrace(
            interval_s=self._interval_s,
            at_s=tuple(self._at_s),
            **{name: tuple(column) for name, column in self._columns.items()},
            gpus=tuple(gpu.trace() for gpu in self._gpus),
            unavailable=unavailable,
        )

    def _watch(self) -> None:
        self._look()
        while not self._end.wait(self._interval_s):
            self._look()

    def _look(self) -> None:
        self._at_s.append(round((self._clock.now_ns() - self._begin_ns) / 1e9, 4))
        for name, value in self._processor.look().items():
            self._columns[name].append(value)
        for gpu in self._gpus:
            gpu.look()


class _Processor:
    """The counters of the processor and the memory, by psutil."""

    def __init__(self, psutil: Any) -> None:
        self._psutil = psutil
        self._process = psutil.Process()
        self._cores = psutil.cpu_count() or 1
        self._last = psutil.cpu_times()
        self._last_own_s = self._own_s()
        self._readers: dict[str, Callable[[], float | None]] = {
            "cpu_mhz": self._read_mhz,
            "load_1min": lambda: psutil.getloadavg()[0],
            "temperature_c": self._read_temperature,
            "memory_available_mb": lambda: psutil.virtual_memory().available / 1e6,
            "resident_mb": lambda: self._process.memory_info().rss / 1e6,
        }

    def look(self) -> dict[str, float | None]:
        """One row of the trace."""
        row: dict[str, float | None] = self._read_shares()
        for name, read in self._readers.items():
            try:
                value = read()
            except Exception:  # a sensor that fails is a value that is missing, whatever it raises
                value = None
            row[name] = round(float(value), 3) if value is not None else None
        return row

    def _own_s(self) -> float:
        used = self._process.cpu_times()
        return float(used.user + used.system)

    def _read_shares(self) -> dict[str, float | None]:
        now, own_s = self._psutil.cpu_times(), self._own_s()
        spent = {name: getattr(now, name) - getattr(self._last, name) for name in now._fields}
        used_s, self._last, self._last_own_s = own_s - self._last_own_s, now, own_s
        # Linux counts guests' time in user and nice already.
        whole_s = sum(spent.values()) - spent.get("guest", 0.0) - spent.get("guest_nice", 0.0)
        if whole_s <= 0:
            return {"cpu_busy": None, "own_busy": None, "steal": None}
        idle_s = spent.get("idle", 0.0) + spent.get("iowait", 0.0)
        return {
            "cpu_busy": _share((whole_s - idle_s) / whole_s),
            "own_busy": _share(used_s / whole_s),
            "steal": _share(spent["steal"] / whole_s) if "steal" in spent else None,
        }

    def _read_mhz(self) -> float | None:
        frequency = self._psutil.cpu_freq()
        return frequency.current if frequency is not None and frequency.current > 0 else None

    def _read_temperature(self) -> float | None:
        sensors: dict[str, Any] = {}
        with contextlib.suppress(AttributeError):  # not on macOS and Windows
            sensors = self._psutil.sensors_temperatures()
        known = [sensors[name] for name in _HOTTEST_NAMES if name in sensors]
        return max((entry.current for entries in known for entry in entries), default=None)


def _share(value: float) -> float:
    return round(min(1.0, max(0.0, float(value))), 4)
