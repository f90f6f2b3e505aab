"""What MLPerf LoadGen leaves in its log folder: the summary, and the trace with every sample's moments.

The trace is read line by line with a pattern, not as JSON: LoadGen puts quotes inside quotes there. Its `ts` is the
*scheduled* moment in microseconds since the test began, `issue_start_ns` and `complete_ns` count from that moment.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SUMMARY_NAME = "mlperf_log_summary.txt"
TRACE_NAME = "mlperf_log_trace.json"
ACCURACY_NAME = "mlperf_log_accuracy.json"
MAX_SUMMARY_BYTES = 1 << 20

_SAMPLE = re.compile(
    r'"name":"Sample".*?"ph":"b".*?"ts":\s*(-?[\d.]+).*?"sample_seq":(\d+),"query_seq":(\d+),"sample_idx":(\d+),'
    r'"issue_start_ns":(-?\d+),"complete_ns":(-?\d+)'
)
_ENTRY = re.compile(r'"seq_id"\s*:\s*(\d+),\s*"qsl_idx"\s*:\s*(\d+),\s*"data"\s*:\s*"([0-9A-Fa-f]*)"')


@dataclass(frozen=True)
class TracedSample:
    """One sample of a query.

    Attributes:
        at_s: its scheduled moment, in seconds since the test began.
        sequence, query: its number, and its query's.
        index: which image.
        issue_delay_ms: from its scheduled moment until it was handed to the system.
        latency_ms: from its scheduled moment until it was complete.
    """

    at_s: float
    sequence: int
    query: int
    index: int
    issue_delay_ms: float
    latency_ms: float


@dataclass(frozen=True)
class Summary:
    """LoadGen's summary.

    Attributes:
        fields: every "key : value" of it, in its own words.
        valid: whether the result is VALID; None where it gives no verdict (accuracy mode).
        reasons: what was not satisfied, with its recommendations.
    """

    fields: dict[str, str]
    valid: bool | None
    reasons: tuple[str, ...]


def parse_summary(text: str) -> Summary:
    """Parse mlperf_log_summary.txt."""
    fields: dict[str, str] = {}
    reasons: list[str] = []
    notes_follow = False
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("* ") or (notes_follow and line.startswith(" ") and ":" not in line):
            reasons.append(stripped.removeprefix("* "))
            notes_follow = True
            continue
        notes_follow = False
        key, colon, value = stripped.partition(":")
        if colon and value.strip():
            fields.setdefault(key.strip(), value.strip())
    verdict = fields.get("Result is")
    failed = [f"{key}: no" for key, value in fields.items() if "satisfied" in key and value.upper() == "NO"]
    notes = [" ".join(reasons)] if reasons and verdict == "INVALID" else []
    return Summary(fields, None if verdict is None else verdict == "VALID", (*failed, *notes))


def read_summary(folder: Path) -> Summary:
    """Read the summary in a log folder."""
    with (folder / SUMMARY_NAME).open("rb") as file:
        return parse_summary(file.read(MAX_SUMMARY_BYTES).decode("utf-8", "replace"))


def read_trace(folder: Path) -> list[TracedSample]:
    """Every sample of the trace in a log folder, in the order of their numbers."""
    samples = []
    with (folder / TRACE_NAME).open(encoding="utf-8", errors="replace") as file:
        for line in file:
            found = _SAMPLE.search(line)
            if found:
                at_us, sequence, query, index, issue_ns, complete_ns = found.groups()
                samples.append(
                    TracedSample(
                        at_s=float(at_us) / 1e6,
                        sequence=int(sequence),
                        query=int(query),
                        index=int(index),
                        issue_delay_ms=int(issue_ns) / 1e6,
                        latency_ms=int(complete_ns) / 1e6,
                    )
                )
    return sorted(samples, key=lambda sample: sample.sequence)


def join_queries(samples: Sequence[TracedSample]) -> list[TracedSample]:
    """One entry a query: complete when its last sample is."""
    queries: dict[int, TracedSample] = {}
    for sample in samples:
        first = queries.get(sample.query)
        if first is None or sample.latency_ms > first.latency_ms:
            queries[sample.query] = TracedSample(
                at_s=sample.at_s,
                sequence=first.sequence if first else sample.sequence,
                query=sample.query,
                index=first.index if first else sample.index,
                issue_delay_ms=sample.issue_delay_ms,
                latency_ms=sample.latency_ms,
            )
    return [queries[number] for number in sorted(queries)]


def read_answers(folder: Path) -> dict[int, bytes]:
    """Which bytes were answered for which image, from the accuracy log."""
    text = (folder / ACCURACY_NAME).read_text(encoding="utf-8", errors="replace")
    return {int(index): bytes.fromhex(data) for _, index, data in _ENTRY.findall(text)}
