"""The parts of the result file about one subject: stages, load, accuracy, roofline; the pipeline's is beside it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue, NonNegativeInt

from .pipeline_sections import PipelineView
from .sections import Noise, NonNegative, Quantile, Section, Series, Share

StageName = Literal[
    "decode", "prepare", "enqueue", "h2d", "compute", "d2h", "scores", "crf", "labels", "encode", "end_to_end"
]


def name_stage(name: str) -> str:
    """A stage's name as people write it."""
    return {"h2d": "H2D", "d2h": "D2H", "crf": "CRF"}.get(name, name.replace("_", " "))


Scenario = Literal["SingleStream", "MultiStream", "Server", "Offline"]
LoadMode = Literal["performance", "accuracy", "find-peak"]


class Warmup(Section):
    """Runs before the first sample: windows of runs until the medians of the last three lie within `bound`.

    Attributes:
        stable: whether they did before the limit of time was reached.
        runs: how many runs were spent.
        duration_s: how long that took.
        window_medians_ms: the median of every window.
        bound: allowed (largest - smallest) / smallest of three successive medians.
    """

    stable: bool
    runs: NonNegativeInt
    duration_s: NonNegative
    window_medians_ms: tuple[float, ...]
    bound: float


class Stage(Section):
    """One stage of the way from a file to a file.

    Attributes:
        name: in trtexec's words where it has one: enqueue (host call that gives the work to the device), h2d (copy to
            the device), compute, d2h (copy back).
        clock: "monotonic" (host) or "cuda-events" (device).
        series: one sample an image.
    """

    name: StageName
    clock: Literal["monotonic", "cuda-events"]
    series: Series


class StageView(Section):
    """Images one after the other, each stage timed; the last stage is `end_to_end`, measured on its own clock.

    Attributes:
        warmup: what preceded the samples.
        stages: in the order they run.
        absent: stages that do not exist here, by name, with the reason.
        images: how many samples were taken.
        throughput_per_s: images a second of this closed loop, all stages one after the other.
    """

    warmup: Warmup
    stages: tuple[Stage, ...]
    absent: dict[StageName, str]
    images: NonNegativeInt
    throughput_per_s: float

    def find_stage(self, name: StageName) -> Stage | None:
        """A stage by name, or None where it is absent."""
        return next((stage for stage in self.stages if stage.name == name), None)


class LoadRun(Section):
    """One MLPerf LoadGen test.

    Attributes:
        scenario, mode: as LoadGen names them.
        settings: what was asked of LoadGen: durations, counts, target_qps, latency_bound_ms, seeds ...
        includes: the stages that a query passes, in order.
        path: "call", one image at a time in each of the workers; or "pipeline", the stages of many images side by side.
        valid: LoadGen's own verdict on the run; `reasons` are its words where it is not.
        metric, metric_unit, metric_value: the scenario's figure of merit: "latency_p90" in ms for SingleStream,
            "latency_p99" in ms for MultiStream, "scheduled_qps"/"completed_qps" for Server, "samples_per_second" for
            Offline; None where LoadGen refuses one.
        latency: of every query. From its *scheduled* moment to its completion: a stall delays all that were to come
            after it, and all of them tell.
        issue_delay_ms: of every query, how long after its scheduled moment it was handed over.
        service_ms: of every query, how long the system itself took once it began to work on it: what a closed-loop
            timer would have reported; in the pipeline, the sum over its stages.
        sample_index: of every query, the (first) image it was about.
        queries, duration_s, throughput_per_s: completed; images a second.
        summary: LoadGen's summary, key by key, in its own words.
        agreement: in accuracy mode, the share of pixels labelled as the accuracy view's reference labels them.
        miou: in accuracy mode, where labels exist.
    """

    scenario: Scenario
    mode: LoadMode
    settings: dict[str, JsonValue]
    includes: tuple[StageName, ...]
    path: Literal["call", "pipeline"] = "call"
    valid: bool
    reasons: tuple[str, ...] = ()
    metric: str
    metric_unit: str
    metric_value: float | None
    latency: Series | None
    issue_delay_ms: tuple[float, ...] = ()
    service_ms: tuple[float, ...] = ()
    sample_index: tuple[NonNegativeInt, ...] = ()
    queries: NonNegativeInt
    duration_s: NonNegative
    throughput_per_s: float | None
    summary: dict[str, str]
    agreement: Share | None = None
    miou: Share | None = None


class CurvePoint(Section):
    """One point of the throughput-latency curve: a Server run at a Poisson rate.

    Attributes:
        offered_per_s: the rate that was asked of LoadGen, in images a second.
        completed_per_s: images completed a second.
        kept_up: whether completions kept up with the arrivals, within 5 %.
        quantiles: of the latency from the scheduled moment.
        queries: how many.
    """

    offered_per_s: float
    completed_per_s: float
    kept_up: bool
    quantiles: tuple[Quantile, ...]
    queries: NonNegativeInt


class Accuracy(Section):
    """What the labels are worth at this speed; one row a CRF setting.

    Attributes:
        crf: the setting's name: "off", "bundle", or one that shortens the bundle's: "2 iterations", "float16", "fast",
            "reduce=2".
        images: how many were compared.
        reference: what `label_agreement` compares with: float32 on ONNX Runtime, its CRF off or the bundle's.
        label_agreement: share of pixels with the same label as the reference; 1 for the reference itself.
        miou, pixel_accuracy: against true labels where there are some, else None.
        latency_ms: prepare to labels, median with interval, of the images compared.
        images_per_s: one after the other, 1000 / mean latency.
    """

    crf: str
    images: NonNegativeInt
    reference: str
    label_agreement: Share
    miou: Share | None
    pixel_accuracy: Share | None
    latency_ms: Quantile
    images_per_s: float


class ModelCost(Section):
    """What one image costs the network, counted in the graph at the measured size.

    Attributes:
        flops: two per multiply-add, of convolutions and matrix products; the rest is left out.
        weight_bytes: of all weights.
        activation_bytes: every layer's input read and output written once: an upper bound of the traffic.
    """

    flops: NonNegative
    weight_bytes: NonNegative
    activation_bytes: NonNegative

    @property
    def intensity(self) -> float:
        """FLOP per byte."""
        return self.flops / max(self.weight_bytes + self.activation_bytes, 1.0)


class Roofline(Section):
    """What the machine can do at most, and how near the network comes.

    Attributes:
        device: "cpu" or the GPU's name.
        threads: that were used for the peaks.
        peak_gflops: largest rate of float32 matrix products that was measured, in 1e9 FLOP/s.
        bandwidth_gb_s: of a copy far larger than the caches, read and write, in 1e9 byte/s.
        method: how both were measured.
        model: cost of the network; None where it cannot be counted.
        achieved_gflops: model.flops / median compute time.
        attainable_gflops: min(peak, intensity * bandwidth).
        share: achieved / attainable. Above 1 where an algorithm needs fewer operations than the formula (Winograd) or a
            narrower type is faster than float32.
    """

    device: str
    threads: NonNegativeInt
    peak_gflops: float
    bandwidth_gb_s: float
    method: str
    model: ModelCost | None
    achieved_gflops: float | None
    attainable_gflops: float | None
    share: float | None


class Subject(Section):
    """One thing that was measured: a bundle on a backend in a precision.

    Attributes:
        name: "onnxruntime:fp32"; the first subject is the baseline of comparisons.
        weights: "given", or "seeded": random numbers of a fixed seed, so speed is real and accuracy says nothing.
        bundle_sha256: of the manifest, which lists the digests of all files.
        image_height, image_width, batch: of the measured images.
        crf: parameters of the CRF in the manifest's form; None where it is off.
        crf_shortcuts: what it was allowed to leave out.
        stages, pipeline, load, curve, accuracy, roofline: the views; None or empty where they were not asked for.
        noise: whether this subject's figures may be concluded from.
    """

    name: str
    backend: str
    device: str
    precision: str
    threads: NonNegativeInt | None
    bundle: str
    bundle_sha256: str
    weights: Literal["given", "seeded"]
    head: str
    classes: NonNegativeInt
    image_height: NonNegativeInt
    image_width: NonNegativeInt
    batch: NonNegativeInt = 1
    crf: dict[str, JsonValue] | None
    crf_shortcuts: dict[str, JsonValue] = Field(default_factory=dict)
    stages: StageView | None
    pipeline: PipelineView | None = None
    load: tuple[LoadRun, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    accuracy: tuple[Accuracy, ...] = ()
    roofline: Roofline | None = None
    noise: Noise
