"""TensorRT worker: builds an engine for the shape of each case, audits and compares it, runs it with CUDA graphs.

Needs only TensorRT, NumPy and cuda-bindings, so that TensorRT 8.5 can run under its own Python.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, MutableSequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from atrous.runtime.backends.protocol import Array
from atrous.runtime.backends.tensorrt.backend import TensorRtBackend, TensorRtOptions
from atrous.runtime.backends.tensorrt.driver import CudaDriver

from .cases import Case
from .job import Job
from .measuring import Feeds, Opened

OPTIONS = TensorRtOptions(slots=3, contexts=1, cuda_graphs=True)
_WARM_UPS_A_SLOT = 3
_THROUGHPUT_RUNS = 24  # at least, pipelined


@dataclass(frozen=True)
class HostEngine:
    """An engine, details for its row, a function to call after its release, and the lines of TensorRT's log."""

    engine: Any
    details: dict[str, Any]
    release: Callable[[], None] = lambda: None
    log: MutableSequence[str] = field(default_factory=list)


class Host(Protocol):
    """Builder of engines."""

    driver: CudaDriver

    def build(self, model: bytes, facts: Mapping[str, Any], case: Case, input_name: str) -> HostEngine:
        """Build an engine."""


class TensorRtHost:
    """A `Host` that uses the installed TensorRT."""

    def __init__(self, folder: Path):
        """Initialize CUDA and TensorRT, with a store for engines.

        Raises:
            MissingDependencyError: if either is not installed.
            BackendError: if there is no device.
        """
        from atrous.runtime.backends.tensorrt import compat
        from atrous.runtime.backends.tensorrt.keys import read_machine
        from atrous.runtime.backends.tensorrt.store import EngineStore

        self.driver: CudaDriver = CudaDriver()
        self._trt, self._capabilities = compat.load_tensorrt()
        self._machine = read_machine()
        self._store = EngineStore(folder / "engines")
        self._timings = b""  # timing cache, passed from build to build
        self.version = str(self._trt.__version__)

    def build(self, model: bytes, facts: Mapping[str, Any], case: Case, input_name: str) -> HostEngine:
        """See `Host`; raises if the engine does not reach the precision."""
        from atrous.runtime.backends.tensorrt import compat, workflow
        from atrous.runtime.backends.tensorrt.options import BuildOptions, static_profile

        profile = static_profile({input_name: (case.batch, case.height, case.width, 3)})
        options = BuildOptions(profiles=(profile,), tf32=case.precision == "tf32")
        inputs = {name: SimpleNamespace(**blob) for name, blob in facts["inputs"].items()}
        graph: Any = SimpleNamespace(**{**facts, "inputs": inputs})  # the manifest's own type needs pydantic
        prepared = workflow.prepare_build(model, graph, options, self._capabilities, precision=case.graph)
        made = workflow.make_engine(self._trt, prepared, self._store, self._machine, timing_cache=self._timings)
        self._timings = made.built.timing_cache
        loaded = compat.LoadedEngine(self._trt, made.built.plan)
        details = {
            "build_s": made.built.seconds,
            "plan_bytes": len(made.built.plan),
            "precision_reached": made.audit.reached,
            "products": dict(made.audit.products),
            "narrow_writing_fp32": made.audit.narrow_writing_fp32,
            "tensorrt": self.version,
        }
        return HostEngine(loaded.engine, details, loaded.close, loaded.log)


class TensorRt:
    """A `Library` that runs engines built by a `Host`."""

    name = "tensorrt"

    def __init__(self, host: Host):
        """Use a host."""
        self._host = host

    def takes(self, case: Case) -> bool:
        """Accept all cases."""
        return True

    def open(self, job: Job, case: Case) -> Opened:
        """Build the case's engine."""
        net = job.nets[case.net]
        model = Path(net.models[case.graph]).read_bytes()
        built = self._host.build(model, net.facts[case.graph], case, net.input)
        backend = TensorRtBackend(built.engine, self._host.driver, OPTIONS, on_close=built.release, log=built.log)
        output = backend.outputs[0].name

        def measure_ms(feeds: Feeds, runs: int) -> Iterator[Mapping[str, float]]:
            for _ in range(runs):
                backend.run(feeds)
                yield backend.last_timings_ms

        def count_images(feeds: Feeds, seconds: float) -> float:
            for _ in backend.run_many([dict(feeds)] * (_WARM_UPS_A_SLOT * OPTIONS.slots)):
                pass  # each slot captures its own graph when its shape comes back
            started_s = time.perf_counter()
            for done, _ in enumerate(backend.run_many(_repeat(feeds, started_s + seconds)), start=1):
                images = done * case.batch
            return images / (time.perf_counter() - started_s)

        return Opened(lambda feeds: backend.run(feeds)[output], measure_ms, count_images, backend.close, built.details)


def _repeat(feeds: Feeds, until_s: float) -> Iterator[dict[str, Array]]:
    for number in itertools.count():
        if number >= _THROUGHPUT_RUNS and time.perf_counter() > until_s:
            return
        yield dict(feeds)
