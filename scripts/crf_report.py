"""The output of `atrous crf`: progress, one line per failure, then a line or one JSON object."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..bundle.crf_parameters import CrfParameters
from ..runtime.batch import CrfObserver, CrfSummary, FailedImage, RefinedFile
from . import console


class CrfReport(CrfObserver):
    """The observer of a run, and a context manager that ends the progress bar and reports an interruption."""

    summary: CrfSummary

    def __init__(self, as_json: bool) -> None:
        """Report as text or JSON."""
        self._as_json = as_json
        self._files: list[dict[str, Any]] = []
        self._failures: list[dict[str, Any]] = []
        self._progress = contextlib.ExitStack()
        self._advance: Callable[[int], None] = lambda steps: None

    def started(self, summary: CrfSummary, total: int) -> None:
        """Start the progress bar."""
        self.summary = summary
        self._advance = self._progress.enter_context(console.show_progress("refining", total, unit="files"))

    def skipped(self, unary: Path) -> None:
        """Advance the progress bar."""
        self._advance(1)

    def refined(self, file: RefinedFile) -> None:
        """Keep the record for JSON."""
        if self._as_json:
            self._files.append(dataclasses.asdict(file))
        self._advance(1)

    def failed(self, file: FailedImage) -> None:
        """Print the error as one line."""
        console.print_warning(f"atrous crf: {file.error}")
        self._failures.append(dataclasses.asdict(file))
        self._advance(1)

    def stop_progress(self) -> None:
        """Remove the progress bar."""
        self._progress.close()

    def __enter__(self) -> CrfReport:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the progress bar, and print how to resume after an interruption."""
        self.stop_progress()
        if kind is KeyboardInterrupt and hasattr(self, "summary"):
            console.print_warning(f"atrous crf: {self.summary.refined} refined: the same command resumes the run")

    def print_json(self, out: Path, parameters: CrfParameters) -> None:
        """Print one JSON object with the records of all files."""
        summary = self.summary
        assert summary.pipeline is not None
        report = {
            "out": out,
            "parameters": parameters.to_dict(),
            "refined": summary.refined,
            "skipped": summary.skipped,
            "failures": self._failures,
            "pipeline": summary.pipeline.to_json(),
            "files": self._files,
        }
        console.print_json("crf", report)

    def print_text(self, out: Path) -> None:
        """Print the counts."""
        summary = self.summary
        failed = f", {summary.failed} failed (see failures.jsonl)" if summary.failed else ""
        console.print_line(f"{summary.refined} refined{failed} -> {out}")
        if summary.skipped:
            console.print_line(f"{summary.skipped} were done before (--again does them again)")
