"""A Chrome trace of a run, for https://ui.perfetto.dev or chrome://tracing.

One track per worker with a slice per call, one counter per queue. Events are written as they happen, so memory does not
grow with the run; the file gets its name when it is complete.
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


class TraceWriter:
    """Writes one trace file; use it in a `with` block. Thread-safe."""

    def __init__(self, path: str | Path) -> None:
        """Open the trace.

        Raises:
            OutputError: if it cannot be written.
        """
        self.path = Path(path)
        self._temporary = self.path.with_name(f".{self.path.name[:60]}.{secrets.token_hex(6)}.part")
        self._lock = threading.Lock()
        self._tracks: dict[str, int] = {}
        self._origin_s: float | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("x", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot be written: {error.strerror}", path=self.path) from error
        head = {"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "atrous pipeline"}}
        self._write_text('{"displayTimeUnit": "ms", "traceEvents": [\n' + json.dumps(head))

    def add_call(self, stage: str, start_s: float, end_s: float, items: list[int], *, failed: bool) -> None:
        """Write a call of a stage as a slice on the track of the current thread."""
        with self._lock:
            thread = threading.current_thread().name
            if thread not in self._tracks:
                self._tracks[thread] = len(self._tracks) + 1
                self._write("thread_name", "M", tid=self._tracks[thread], args={"name": thread})
            name = f"{stage} (failed)" if failed else stage
            duration_us = round((end_s - start_s) * 1e6, 3)
            self._write(
                name, "X", start_s, cat="stage", dur=duration_us, tid=self._tracks[thread], args={"items": items}
            )

    def add_depth(self, stage: str, depth: int, now_s: float) -> None:
        """Write the depth of the queue before a stage."""
        with self._lock:
            self._write(f"queue before {stage}", "C", now_s, args={"items": depth})

    def close(self) -> None:
        """Complete the file and give it its name.

        Raises:
            OutputError: if it cannot be written.
        """
        with self._lock:
            if self._file.closed:
                return
            self._write_text("\n]}\n")
            try:
                self._file.close()
                os.replace(self._temporary, self.path)
            except OSError as error:
                raise self._discard(error) from error

    def __enter__(self) -> TraceWriter:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the file, also after an error: it shows the events before the error."""
        self.close()

    def _write(self, name: str, kind: str, at_s: float | None = None, **fields: Any) -> None:
        if at_s is not None:
            self._origin_s = at_s if self._origin_s is None else self._origin_s
            fields["ts"] = round((at_s - self._origin_s) * 1e6, 3)
        self._write_text(",\n" + json.dumps({"name": name, "ph": kind, "pid": 1, **fields}))

    def _write_text(self, text: str) -> None:
        if self._file.closed:
            return
        try:
            self._file.write(text)
        except OSError as error:
            raise self._discard(error) from error

    def _discard(self, error: OSError) -> OutputError:
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)
        return OutputError(f"cannot be written: {error.strerror}", path=self.path)
