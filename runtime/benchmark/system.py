"""The system under test: a subject with its images, run stage by stage, as a call, or as a pipeline."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from ...errors import BackendError
from ..pictures import encode_label_png
from ..pipeline import ItemResult, Pipeline, PipelineReport
from ..pipeline.engine import count_cores
from ..pipeline.segmentation import make_stages
from ..segmentation import Labels, Segmentation
from .loadgen import Answer, Query
from .plan import STAGES, BenchPlan, StageName, SubjectSpec
from .timing import Clock

_NO_QUEUE = "the call returns when the work is done; nothing is enqueued"
_ON_CPU = "the network reads and writes host memory; nothing is copied to a device"
_NO_EVENTS = "this backend does not time its copies; they are part of compute"


class System(ExitStack):
    """A subject of the plan, loaded with all threads.

    A backend that times its device has `last_timings_ms`: of this thread's last run, "enqueue" on the host's clock,
    "h2d", "compute" and "d2h" by events of the device.
    """

    def __init__(self, plan: BenchPlan, spec: SubjectSpec, clock: Clock):
        """Load the subject; raises what `runtime.load` raises."""
        super().__init__()
        self.spec = spec
        self.views: dict[str, Any] = {}  # what was measured, as fields of `results.Subject`
        self.images = len(plan.samples)
        self.expected: Sequence[Labels] = ()  # own labels of the images, one after the other
        self._plan = plan
        self._samples = plan.samples
        self._clock = clock
        self.segmenter = self.enter_context(plan.open(spec, plan.threads, fast_crf=plan.fast_crf))
        backend = self.segmenter.backend
        self.cores = plan.threads or count_cores()
        self.has_device_events = hasattr(backend, "last_timings_ms")
        self.absent: dict[StageName, str] = {}  # stages that do not exist here, with the reason
        if not self.has_device_events:
            self.absent["enqueue"] = _NO_QUEUE
            self.absent["h2d"] = self.absent["d2h"] = _ON_CPU if backend.device == "cpu" else _NO_EVENTS
        if self.segmenter.head == "labels":
            self.absent["scores"] = self.absent["labels"] = "the network outputs labels"
        if self.segmenter.crf is None:
            self.absent["crf"] = "the CRF is off"
        elif self.segmenter.head == "lowres":
            self.absent["scores"] = "part of the CRF's stage"

    def time_stages(self, index: int) -> Mapping[StageName, float]:
        """Process one image from an image file's bytes to a label file's; milliseconds by stage."""
        begin_ns = self._clock.now_ns()
        image = decode(self._samples[index].encoded)
        decoded_ns = self._clock.now_ns()
        result = self.segmenter.segment(image)
        labeled_ns = self._clock.now_ns()
        encode_label_png(result.labels, self.segmenter.bundle.manifest.palette)
        encoded_ns = self._clock.now_ns()
        found_ms = {"decode": (decoded_ns - begin_ns) / 1e6, "encode": (encoded_ns - labeled_ns) / 1e6}
        found_ms.update(result.timings_ms, compute=result.timings_ms["network"])
        if self.has_device_events:
            found_ms.update(self.segmenter.backend.last_timings_ms)  # type: ignore[attr-defined]
        return {name: found_ms[name] for name in STAGES if name in found_ms}

    def label(self, index: int) -> Labels:
        """Label one image in memory."""
        return self.segmenter(self._samples[index].image)

    def run_pipeline(self, images: int) -> tuple[PipelineReport, float]:
        """Run this many images through the pipeline of `atrous segment`, from file bytes to file bytes.

        Returns the pipeline's report and the share of pixels labeled as expected; raises BackendError if a stage fails.
        """
        palette = self.segmenter.bundle.manifest.palette

        def finish(index: int, image: Any, result: Segmentation) -> Labels:
            encode_label_png(result.labels, palette)
            return result.labels

        same = seen = 0
        with self._make_pipeline(lambda index: decode(self._samples[index].encoded), finish) as pipeline:
            for outcome in pipeline.run(number % self.images for number in range(images)):
                labels = _unwrap(outcome)
                same += int((labels == self.expected[outcome.item]).sum())
                seen += labels.size
        return pipeline.report(), same / seen

    def serve(self, queries: Iterator[Query], answer: Answer) -> None:
        """Answer LoadGen's queries about images in memory through the pipeline, from prepare to labels."""

        def finish(query: Query, image: Any, result: Segmentation) -> None:
            answer(query, sum(result.timings_ms.values()))

        with self._make_pipeline(lambda query: self._samples[query.image].image, finish) as pipeline:
            for outcome in pipeline.run(queries):
                _unwrap(outcome)

    def _make_pipeline(self, read: Callable[[Any], Any], finish: Callable[..., Any]) -> Pipeline:
        stages = make_stages(self.segmenter, read=read, finish=finish, cores=self.cores)
        return Pipeline(stages, cores=self.cores, clock=self._clock.now_s)


def decode(encoded: bytes) -> npt.NDArray[np.uint8]:
    """Decode an image file's bytes to H x W x 3 uint8 RGB."""
    with PillowImage.open(io.BytesIO(encoded)) as picture:
        return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _unwrap(outcome: ItemResult) -> Any:
    """The value of an outcome; raises its error, wrapping foreign exceptions in BackendError."""
    if outcome.error is None:
        return outcome.value
    if isinstance(outcome.error, Exception) and type(outcome.error).__module__.startswith("atrous."):
        raise outcome.error
    raise BackendError(f"the stage {outcome.stage} failed: {outcome.error!r}") from outcome.error
