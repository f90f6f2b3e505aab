"""A running server under LoadGen: a closed loop, and Poisson arrivals below and above what it reaches.

Each query is one `POST /v2/models/NAME/infer` with a binary tensor in and binary labels out. A query that the server
refuses (503) counts as refused; the latencies of a rate are those of the others.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ...dependencies import import_optional, read_version
from ...errors import BackendError, InputError
from ..serve.protocol import HEADER_LENGTH
from .load_view import KEPT_UP_SHARE, LoadContext, describe_run
from .loadgen import Answer, LoadOutcome, LoadSettings, Query, run_loadgen
from .machine import MachineWatch, describe_environment
from .noise import judge_noise
from .plan import Sample
from .results import BenchResult, CurvePoint, LoadRun, Subject
from .statistics import estimate_quantiles
from .timing import Canary, Clock

SHARES = (0.5, 0.8, 1.2)  # of the peak
_CANARIES = 5
_OPEN_CONNECTIONS = 64  # of the open loop: more than a server's queue, so that the client does not slow arrivals down
_MIN_QUERIES = 24


@dataclass(frozen=True)
class ServerPlan:
    """The server and the requests to measure it with."""

    url: str
    samples: Sequence[Sample]  # of one size
    model: str
    token: str | None = None
    duration_s: float = 10.0  # of each test
    connections: int = 8  # of the closed loop that finds the peak
    timeout_s: float = 60.0
    dataset: str = ""
    command: Sequence[str] = ()
    shares: Sequence[float] = SHARES


class Server(AbstractContextManager["Server"]):
    """A client with a connection per thread; leaving its `with` block closes them."""

    def __init__(self, plan: ServerPlan) -> None:
        self._plan, self._local, self._requests = plan, threading.local(), [self._encode(one) for one in plan.samples]
        self.images = len(plan.samples)
        self.lock = threading.Lock()
        self.refused: set[int] = set()  # numbers of queries
        self._connections: list[http.client.HTTPConnection] = []

    def __exit__(self, *error: object) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()

    def describe(self) -> dict[str, Any]:
        """The model's metadata.

        Raises:
            InputError: if the server does not answer, or has no such model.
        """
        try:
            status, body = self.send("GET", f"/v2/models/{self._plan.model}", b"", {})
        except OSError as error:
            raise InputError(f"{self._plan.url}: no server answers: {error}") from None
        if status != 200:
            raise InputError(f"{self._plan.url}: HTTP status {status}: {body[:200].decode(errors='replace')}")
        metadata: dict[str, Any] = json.loads(body)
        return metadata

    def serve(self, queries: Iterator[Query], answer: Answer) -> None:
        """Answer LoadGen's queries, one after the other."""
        clock = Clock()
        for query in queries:
            start_ns = clock.now_ns()
            status = self.label(query.image)
            if status == 503:
                with self.lock:
                    self.refused.add(query.number)
            answer(query, (clock.now_ns() - start_ns) / 1e6)

    def label(self, image: int) -> int:
        """Send an image; returns the status, 200 or 503.

        Raises:
            BackendError: for any other status, or an answer of the wrong size.
        """
        head, body = self._requests[image]
        headers = {HEADER_LENGTH: str(head), "Accept-Encoding": "identity", "Content-Type": "application/octet-stream"}
        path = f"/v2/models/{self._plan.model}/infer"
        try:
            status, answer = self.send("POST", path, body, headers)
        except (OSError, http.client.HTTPException):  # the server closed an idle connection: once more
            self._local.connection.close()
            self._local.connection = None
            try:
                status, answer = self.send("POST", path, body, headers)
            except (OSError, http.client.HTTPException) as error:
                raise BackendError(f"{self._plan.url}: the connection broke: {error!r}") from None
        if status == 503:
            return status
        pixels = self._plan.samples[image].image.shape[0] * self._plan.samples[image].image.shape[1]
        if status != 200 or len(answer) <= pixels:
            raise BackendError(f"{self._plan.url}: HTTP status {status}: {answer[:200].decode(errors='replace')}")
        return status

    def send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """Send a request over this thread's connection; returns status and body of the answer."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            parts = urlsplit(self._plan.url)
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            connection = self._local.connection = kind(parts.hostname or "", parts.port, timeout=self._plan.timeout_s)
            with self.lock:
                self._connections.append(connection)
        if self._plan.token is not None:
            headers = {**headers, "Authorization": f"Bearer {self._plan.token}"}
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    @staticmethod
    def _encode(sample: Sample) -> tuple[int, bytes]:
        """The length of the JSON and the body of a request."""
        size = sample.image.nbytes
        tensor: dict[str, Any] = {"name": "image", "datatype": "UINT8", "shape": [1, *sample.image.shape]}
        tensor["parameters"] = {"binary_data_size": size}
        outputs = [{"name": "labels", "parameters": {"binary_data": True}}]
        head = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
        return len(head), head + np.ascontiguousarray(sample.image).tobytes()


def find_model(url: str, token: str | None) -> str:
    """The name of a server's only model, by the list that its page has.

    Raises:
        InputError: if no server answers, or it has several models or no such list.
    """
    try:
        with Server(ServerPlan(url, (), "", token)) as client:
            status, body = client.send("GET", "/page/models", b"", {})
        names = [model["name"] for model in json.loads(body)["models"]] if status == 200 else []
    except OSError as error:
        raise InputError(f"{url}: no server answers: {error}") from None
    except (ValueError, LookupError, TypeError):
        names = []
    if len(names) != 1:
        raise InputError(f"{url} has {', '.join(names) or 'no list of its models'}: name one with --model")
    return str(names[0])


def measure_server(plan: ServerPlan, *, on_step: Callable[[str], None] = lambda step: None) -> BenchResult:
    """Measure a server: one query at a time, as many as it takes (the peak), and Poisson arrivals at shares of that.

    Raises:
        InputError: if no server answers, or it has no such model.
        MissingDependencyError: if mlcommons-loadgen or psutil is not installed.
        BackendError: if a query fails otherwise than by 503.
    """
    for library in ("psutil", "mlperf_loadgen"):
        import_optional(library)
    with Server(plan) as server:
        return _measure(plan, server, on_step)


def _measure(plan: ServerPlan, server: Server, on_step: Callable[[str], None]) -> BenchResult:
    clock, created = Clock(), datetime.now(timezone.utc)
    metadata, environment, canary = server.describe(), describe_environment(), Canary(clock)
    for _ in range(_CANARIES):
        canary.sample()
    for image in range(server.images):  # warm-up
        server.label(image)
    context = LoadContext(server, clock, (), 1.0)  # type: ignore[arg-type]  # only LoadGen's calls need more
    with MachineWatch(clock) as watch:
        on_step("LoadGen SingleStream")
        alone = _run(LoadSettings("SingleStream", plan.duration_s), server, context)
        assert alone.latency is not None
        on_step(f"LoadGen Offline over {plan.connections} connections")
        expected = max(plan.connections * 1000 / alone.latency.mean_ms / 2, _MIN_QUERIES / plan.duration_s)
        offline = LoadSettings("Offline", plan.duration_s, target_qps=expected, workers=plan.connections)
        peak = _run(offline, server, context)
        points = []
        for share in plan.shares:
            offered = share * (peak.throughput_per_s or expected)
            on_step(f"LoadGen Server at {offered:.3g} images/s")
            points.append(_measure_point(plan, server, context, offered))
    for _ in range(_CANARIES):
        canary.sample()
    trace, series = watch.trace(), canary.samples.describe()
    height, width = plan.samples[0].image.shape[:2]
    classes = [output["shape"][1] for output in metadata["outputs"] if output["name"] == "probabilities"]
    subject = Subject(
        name=plan.url,
        backend=str(metadata.get("platform", "server")),
        device="server",
        precision="unknown",
        threads=None,
        bundle=plan.model,
        bundle_sha256=hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest(),
        head="labels",
        classes=max(classes, default=0),
        image_height=height,
        image_width=width,
        crf=None,
        stages=None,
        load=(alone, peak),
        curve=tuple(points),
        noise=judge_noise(alone.latency, None, series, trace),
    )
    return BenchResult(
        atrous_version=read_version("atrous") or "source tree",
        created=created,
        duration_s=clock.now_s(),
        command=tuple(plan.command),
        dataset=plan.dataset,
        images=tuple(sample.name for sample in plan.samples),
        environment=environment,
        subjects=(subject,),
        canary=series,
        machine_trace=trace,
        warnings=("the client ran on this machine: if the server did too, they shared its cores",),
    )


def _run(settings: LoadSettings, server: Server, context: LoadContext) -> LoadRun:
    return _describe(settings, _test(settings, server, context), server, context)


def _test(settings: LoadSettings, server: Server, context: LoadContext) -> LoadOutcome:
    server.refused.clear()
    return run_loadgen(settings, server.serve, server.images, clock=context.clock)


def _describe(settings: LoadSettings, outcome: LoadOutcome, server: Server, context: LoadContext) -> LoadRun:
    run = describe_run(settings, outcome, context, 0.0)
    return run.model_copy(update={"refused": len(server.refused)})


def _measure_point(plan: ServerPlan, server: Server, context: LoadContext, offered: float) -> CurvePoint:
    """Poisson arrivals at a rate; completed are the queries that were not refused."""
    settings = LoadSettings("Server", plan.duration_s, _MIN_QUERIES, workers=_OPEN_CONNECTIONS)
    settings = replace(settings, target_qps=offered, latency_bound_ms=plan.timeout_s * 1000)
    outcome = _test(settings, server, context)
    samples = outcome.samples
    answered = [sample.latency_ms for sample in samples if sample.sequence not in server.refused]
    span_s = max(sample.at_s + sample.latency_ms / 1000 for sample in samples)
    arrived = len(samples) / max(sample.at_s for sample in samples)
    completed = len(answered) / span_s
    return CurvePoint(
        offered_per_s=offered,
        completed_per_s=completed,
        kept_up=completed >= KEPT_UP_SHARE * min(arrived, offered),
        quantiles=estimate_quantiles(np.asarray(answered)),
        queries=len(samples),
        refused=len(server.refused),
    )
