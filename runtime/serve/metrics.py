"""Prometheus metrics of a server.

With several processes (`--workers`), the values of all of them are read from the files that prometheus-client keeps in
the folder $PROMETHEUS_MULTIPROC_DIR, which the server sets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ...dependencies import import_optional
from ..pipeline import PipelineReport

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

#: why a request failed, by its status; other statuses of 400 to 499 are "bad_request", others "internal"
REASONS = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    408: "slow_client",
    413: "too_large",
    499: "client_gone",
    503: "overloaded_or_late",
}


class Metrics:
    """The metrics of one process."""

    def __init__(self, capacity: int) -> None:
        """Make metrics for a queue of this capacity.

        Raises:
            MissingDependencyError: if prometheus-client is not installed.
        """
        prometheus = self._prometheus = import_optional("prometheus_client")
        self._registry = prometheus.CollectorRegistry()
        common: dict[str, Any] = {"registry": self._registry}
        gauge = {**common, "multiprocess_mode": "livesum"}
        share = {**common, "multiprocess_mode": "livemostrecent"}
        self._requests = prometheus.Counter(
            "atrous_requests",
            "Requests, by model, protocol and HTTP status.",
            ("model", "protocol", "status"),
            **common,
        )
        self._failures = prometheus.Counter(
            "atrous_request_failures", "Requests that were not answered with a result.", ("model", "reason"), **common
        )
        self._seconds = prometheus.Histogram(
            "atrous_request_seconds",
            "Seconds from the complete request to its answer.",
            ("model",),
            buckets=_SECONDS,
            **common,
        )
        self._stages = prometheus.Histogram(
            "atrous_stage_seconds",
            "Seconds of a request in each stage; queue is the time before the first.",
            ("model", "stage"),
            buckets=_SECONDS,
            **common,
        )
        self._batches = prometheus.Histogram(
            "atrous_batch_images", "Images in a run of the network.", buckets=_BATCHES, **common
        )
        self._open = prometheus.Gauge("atrous_queue_depth", "Requests that are in progress or wait.", **gauge)
        self._capacity = prometheus.Gauge("atrous_queue_capacity", "The largest queue depth.", **gauge)
        self._busy = prometheus.Gauge(
            "atrous_stage_busy_share", "Share of its workers' time that a stage was busy.", ("stage",), **share
        )
        self._bottleneck = prometheus.Gauge(
            "atrous_bottleneck",
            "1 for the stage (or cores) that limits the rate, 0 for the others.",
            ("stage",),
            **share,
        )
        self._capacity.set(capacity)

    def count_request(
        self, model: str, protocol: str, status: int, seconds: float, timings_ms: Mapping[str, float]
    ) -> None:
        """Count a request; `seconds` from its arrival to its answer."""
        self._requests.labels(model, protocol, str(status)).inc()
        if status >= 400:
            default = "bad_request" if status < 500 else "internal"
            self._failures.labels(model, REASONS.get(status, default)).inc()
            return
        self._seconds.labels(model).observe(seconds)
        for stage, spent_ms in timings_ms.items():
            self._stages.labels(model, stage).observe(spent_ms / 1000)

    def count_batch(self, images: int) -> None:
        """Count a run of the network."""
        self._batches.observe(images)

    def set_open(self, jobs: int) -> None:
        """Set the queue depth."""
        self._open.set(jobs)

    def set_report(self, report: PipelineReport) -> None:
        """Set what the pipeline measured about its stages since the start."""
        for stage in report.stages:
            self._busy.labels(stage.name).set(stage.busy_share)
        for name in report.bounds_per_s:
            self._bottleneck.labels(name).set(name == report.limit)

    def expose(self) -> tuple[bytes, str]:
        """The metrics as text for Prometheus, and its content type."""
        registry = self._registry
        if os.environ.get(FOLDER_VARIABLE):
            registry = self._prometheus.CollectorRegistry()
            import_optional("prometheus_client.multiprocess").MultiProcessCollector(registry)
        text: bytes = self._prometheus.generate_latest(registry)
        return text, self._prometheus.CONTENT_TYPE_LATEST
