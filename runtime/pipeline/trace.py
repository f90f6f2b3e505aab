"""A Chrome trace of a run: https://ui.perfetto.dev opens it, and so does chrome://tracing.

One track for each worker with a slice for each call, one counter for each queue. Events go to a temporary file as they
happen, so memory does not grow with the run; the file takes its name when it is complete.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from ...errors import OutputError

_PROCESS = 1


class TraceWriter:
    """Writes one trace file; use it in a `with` block. May be called from several threads."""

    def __init__(self, path: str | Path) -> None:
        """Open the trace.

        Raises:
            OutputError: if it cannot be written.
        """
        self.path = Path(path)
        self._temporary = self.path.with_name(f".{self.path.name[:60]}.{secrets.token_hex(6)}.part")
        self._lock = threading.Lock()
        self._tracks: dict[tuple[str, int], int] = {}
        self._origin_s: float | None = None
        self._is_first = True
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("x", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot be written: {error.strerror}", path=self.path) from error
        self._file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
        self._write({"name": "process_name", "ph": "M", "pid": _PROCESS, "args": {"name": "atrous pipeline"}})

    def add_call(self, stage: str, worker: int, start_s: float, end_s: float, items: list[int], failed: bool) -> None:
        """A call of a stage: the slice on its worker's track."""
        with self._lock:
            track = self._find_track(stage, worker)
            self._write(
                {
                    "name": stage if not failed else f"{stage} (failed)",
                    "cat": "stage",
                    "ph": "X",
                    "ts": self._microseconds(start_s),
                    "dur": round((end_s - start_s) * 1e6, 3),
                    "pid": _PROCESS,
                    "tid": track,
                    "args": {"items": items},
                }
            )

    def add_depth(self, stage: str, depth: int, now_s: float) -> None:
        """The depth of the queue before a stage."""
        with self._lock:
            self._write(
                {
                    "name": f"queue before {stage}",
                    "ph": "C",
                    "ts": self._microseconds(now_s),
                    "pid": _PROCESS,
                    "args": {"items": depth},
                }
            )

    def close(self) -> None:
        """Complete the file and give it its name.

        Raises:
            OutputError: if it cannot be written.
        """
        with self._lock:
            if self._file.closed:
                return
            try:
                self._file.write("\n]}\n")
                self._file.close()
                os.replace(self._temporary, self.path)
            except OSError as error:
                raise self._give_up(error) from error

    def __enter__(self) -> TraceWriter:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the file, also after an error: what led to it is in it."""
        self.close()

    def _find_track(self, stage: str, worker: int) -> int:
        track = self._tracks.get((stage, worker))
        if track is None:
            track = self._tracks[stage, worker] = len(self._tracks) + 1
            name = {"name": f"{stage} {worker + 1}"}
            self._write({"name": "thread_name", "ph": "M", "pid": _PROCESS, "tid": track, "args": name})
        return track

    def _microseconds(self, now_s: float) -> float:
        if self._origin_s is None:
            self._origin_s = now_s
        return round((now_s - self._origin_s) * 1e6, 3)

    def _write(self, event: dict[str, Any]) -> None:
        if self._file.closed:
            return
        try:
            self._file.write(("" if self._is_first else ",\n") + json.dumps(event))
        except OSError as error:
            raise self._give_up(error) from error
        self._is_first = False

    def _give_up(self, error: OSError) -> OutputError:
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)
        return OutputError(f"cannot be written: {error.strerror}", path=self.path)
