"""The types of the result file of `atrous bench`, whose schema is docs/bench-schema.json; `.result_file` reads it.

Rules of the file:

1. One UTF-8 JSON object of at most 256 MiB; the reader checks `schema_version` first.
2. Durations are in milliseconds, moments in seconds since the run began (`at_s`), so that all series and the machine's
   trace share one time axis. No number is NaN or infinite; a value that could not be measured is null, with a reason.
3. All raw samples are kept, in the order they were taken: no outlier is dropped and no series is thinned.
4. Shares and accuracies are fractions of 1.
5. Version 2 added `pipeline` and `crf_shortcuts` of a subject, `path` of a load run and `reason` of a roofline. Files
   of version 1 are read as files of version 2 without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from .plan import ComparedName, Scenario, StageName

RESULT_VERSION = 2

Number = Annotated[float, AfterValidator(lambda value: round(value, 6))]
NonNegative = Annotated[Number, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, BeforeValidator(lambda share: _clip(share)), Field(ge=0, le=1)]
Column = tuple[float | None, ...]
Verdict = Literal["regression", "improvement", "same", "inconclusive"]


class Record(BaseModel):
    """A part of the file: frozen, all fields known and of the declared type, no NaN."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Quantile(Record):
    """A quantile of a series with its bootstrap interval."""

    q: Share = Field(description="as a fraction, 0.999 for p99.9")
    value_ms: Number | None = Field(description="null where no sample lies beyond it: it would just be the maximum")
    low_ms: Number | None = Field(description="lower end of the interval; null with too few samples")
    high_ms: Number | None = Field(description="upper end of the interval; null with too few samples")
    reason: str | None = Field(default=None, description="why a value is null")


def find_quantile(quantiles: Sequence[Quantile], q: float) -> float | None:
    """The value of quantile `q` in milliseconds, or None."""
    return next((one.value_ms for one in quantiles if one.q == q), None)


class Series(Record):
    """Raw samples of one duration, in the order they were taken."""

    at_s: tuple[float, ...] = Field(description="when each sample began; under load, when it was scheduled")
    values_ms: tuple[float, ...]
    mean_ms: Number
    min_ms: Number
    max_ms: Number
    quantiles: tuple[Quantile, ...] = Field(description="p50, p90, p99 and p99.9")
    confidence: Share = Field(default=0.95, description="confidence level of all intervals")

    @property
    def typical_ms(self) -> float:
        """The median, or the mean where there are too few samples for a median."""
        median_ms = self.quantiles[0].value_ms
        return self.mean_ms if median_ms is None else median_ms


class NoiseCheck(Record):
    """One rule about the machine during the measurement: `value` must not exceed `bound`."""

    name: str = Field(description='such as "canary", "drift", "other load", "throttling", "warm-up"')
    value: Number | None = Field(description="null where this machine does not report it")
    bound: float
    passed: bool = Field(description="a rule that cannot be checked passes")
    text: str = Field(description="one sentence for people")


class Noise(Record):
    """Whether the machine was quiet enough to draw conclusions."""

    conclusive: bool = Field(description="whether all rules passed")
    checks: tuple[NoiseCheck, ...]

    @property
    def failed(self) -> tuple[NoiseCheck, ...]:
        """The rules that did not pass."""
        return tuple(check for check in self.checks if not check.passed)


class Warmup(Record):
    """Runs before the first sample: windows of runs until the medians of the last three lie within `bound`."""

    stable: bool = Field(description="whether the medians settled before the time limit")
    runs: Count
    duration_s: NonNegative
    window_medians_ms: tuple[Number, ...]
    bound: float = Field(description="allowed (largest - smallest) / smallest of three successive medians")


class Stage(Record):
    """One stage of the path from an image file to a label file."""

    name: StageName = Field(description="in trtexec's terms: enqueue submits the work, h2d and d2h copy it")
    clock: Literal["monotonic", "cuda-events"] = Field(description="host clock, or events of the device")
    series: Series = Field(description="one sample per image")


class StageView(Record):
    """Images one after the other, each stage timed."""

    warmup: Warmup
    stages: tuple[Stage, ...] = Field(description="in the order they run; end_to_end, last, has its own timer")
    absent: dict[StageName, str] = Field(description="stages that do not exist here, with the reason")
    images: Count = Field(description="number of samples")
    throughput_per_s: Number = Field(description="images per second of this closed loop")

    def find_stage(self, name: str) -> Stage | None:
        """A stage by name, or None where it is absent."""
        return next((stage for stage in self.stages if stage.name == name), None)


class PipelineStage(Record):
    """One stage of the pipeline, over all rounds."""

    name: str = Field(description='"decode", "prepare", "network", "crf" (without a CRF, "labels"), "encode"')
    workers: NonNegative = Field(description="mean number of workers over time")
    most_workers: Count = Field(description="largest number of workers there were")
    max_workers: Count = Field(description="largest number of workers allowed")
    cores: Count = Field(description="cores held by a call; 0 where a device does the work")
    item_ms: NonNegative = Field(description="mean time per image in a worker that has its cores")
    p90_ms: NonNegative = Field(description="p90 of the same (median of the rounds)")
    busy_share: Share = Field(description="share of its workers' time in calls")
    starved_share: Share = Field(description="share of its workers' time waiting for the stage before")
    core_wait_share: Share = Field(description="share of its workers' time waiting for a core")
    blocked_share: Share = Field(description="share of its workers' time waiting for room in the next queue")
    queue_capacity: Count = Field(description="capacity of the queue before it")
    queue_mean_depth: NonNegative
    alone_ms: Number | None = Field(description="median of the same work in the stage view; null where it is unknown")


class PipelineView(Record):
    """Images side by side, each from a file's bytes in memory to a label file's bytes, in measured rounds.

    Each round is a pipeline of its own; filling and draining it count.
    """

    images_per_round: Count
    cores: Count = Field(description="cores shared by the stages")
    network_threads: Count = Field(description="threads per call of the network")
    crf_threads: Count = Field(description="threads per call of the CRF")
    time_per_image: Series = Field(description="wall time of a round / its images; one sample per round")
    throughput_per_s: Number = Field(description="images per second of the median round")
    low_per_s: Number | None = Field(description="lower end of the interval of throughput_per_s")
    high_per_s: Number | None = Field(description="upper end of the interval of throughput_per_s")
    one_by_one_per_s: Number | None = Field(description="images per second of the stage view")
    overlap: Share = Field(description="share of time in which two or more stages worked")
    core_share: Share = Field(description="share of the cores' time held by calls")
    calls_at_once: NonNegative = Field(description="mean number of calls at work")
    bounds_per_s: dict[str, Number] = Field(description='upper bound of the rate by stage and for "cores"')
    limit: str = Field(description="the smallest of these bounds")
    efficiency: NonNegative = Field(description="rate of all rounds as a share of that bound")
    advice: tuple[str, ...] = Field(description="what would raise the limit, one sentence each")
    agreement: Share = Field(description="share of pixels labeled as by the same subject one image after the other")
    noise: Noise
    stages: tuple[PipelineStage, ...]


class LoadRun(Record):
    """One MLPerf LoadGen test."""

    scenario: Scenario
    mode: Literal["performance", "accuracy", "find-peak"] = Field(
        description="others than performance: in older files only"
    )
    settings: dict[str, JsonValue] = Field(description="requested durations, counts, rates, bounds and seeds")
    includes: tuple[StageName, ...] = Field(description="stages that a query passes, in order")
    path: Literal["call", "pipeline"] = Field(default="call", description="one image per worker, or the pipeline")
    valid: bool = Field(description="LoadGen's verdict")
    reasons: tuple[str, ...] = Field(default=(), description="LoadGen's reasons where the run is not valid")
    metric: str = Field(description='figure of merit: "latency_p90", "latency_p99", "completed_qps", ...')
    metric_unit: str
    metric_value: Number | None = Field(description="null where LoadGen reports none")
    latency: Series | None = Field(description="per query, from its *scheduled* moment to its completion")
    issue_delay_ms: tuple[Number, ...] = Field(default=(), description="per query, scheduled moment to issue")
    service_ms: tuple[Number, ...] = Field(default=(), description="per query, time at work, as a closed loop has it")
    sample_index: tuple[Count, ...] = Field(default=(), description="per query, its first image")
    queries: Count = Field(description="completed queries")
    refused: Count | None = Field(default=None, description="queries that a server refused; null without a server")
    duration_s: NonNegative
    throughput_per_s: Number | None = Field(description="images per second")
    summary: dict[str, str] = Field(description="LoadGen's summary")
    agreement: Share | None = Field(default=None, description="accuracy mode")
    miou: Share | None = Field(default=None, description="accuracy mode")


class CurvePoint(Record):
    """One point of the throughput-latency curve: a Server run with Poisson arrivals."""

    offered_per_s: Number = Field(description="requested rate, images per second")
    completed_per_s: Number
    kept_up: bool = Field(description="whether completions kept up with arrivals within 5 %")
    quantiles: tuple[Quantile, ...] = Field(description="of the latency from the scheduled moment; not of the refused")
    queries: Count
    refused: Count | None = Field(default=None, description="queries that a server refused; null without a server")


class Accuracy(Record):
    """Accuracy and speed at one CRF setting."""

    crf: str = Field(description='"off", "bundle", or a shorter one: "2 iterations", "float16", "fast", "reduce=2"')
    images: Count = Field(description="number of images compared")
    reference: str = Field(description="what made the reference labels: float32 on ONNX Runtime, CRF off or on")
    label_agreement: Share = Field(description="share of pixels labeled as by the reference")
    miou: Share | None = Field(description="mean IoU against true labels, where they exist")
    pixel_accuracy: Share | None = Field(description="against true labels, where they exist")
    latency_ms: Quantile = Field(description="median from prepare to labels")
    images_per_s: Number = Field(description="one after the other, 1000 / mean latency")


class ModelCost(Record):
    """Cost of one image in the network, counted in the graph at the measured size."""

    flops: NonNegative = Field(description="two per multiply-add of convolutions and matrix products; the rest ignored")
    weight_bytes: NonNegative
    activation_bytes: NonNegative = Field(description="each layer's input read and output written once: an upper bound")

    @property
    def intensity(self) -> float:
        """FLOP per byte."""
        return self.flops / max(self.weight_bytes + self.activation_bytes, 1.0)


class Roofline(Record):
    """The machine's limits, and how close the network comes."""

    device: str
    threads: Count = Field(description="threads used to measure the limits")
    peak_gflops: Number = Field(description="fastest float32 matrix product, 1e9 FLOP/s")
    bandwidth_gb_s: Number = Field(description="copy of arrays far larger than the caches, read and write, 1e9 byte/s")
    method: str
    model: ModelCost | None = Field(description="null where the cost cannot be counted")
    achieved_gflops: Number | None = Field(description="model.flops / median compute time")
    attainable_gflops: Number | None = Field(description="min(peak, intensity * bandwidth)")
    share: Number | None = Field(description="achieved / attainable; null where it exceeds 1 even when measured again")
    reason: str | None = Field(default=None, description="why the share is withheld")


class Subject(Record):
    """One measured subject: a bundle on a backend in a precision."""

    name: str = Field(description='such as "onnxruntime:fp32"; the first subject is the baseline of comparisons')
    backend: str
    device: str
    precision: str
    threads: Count | None
    bundle: str
    bundle_sha256: str = Field(description="of the manifest, which lists the digests of all files")
    weights: Literal["given", "seeded"] = Field(default="given", description="seeded (random): in older files only")
    head: str
    classes: Count
    image_height: Count
    image_width: Count
    network_size: tuple[Count, Count] | None = Field(
        default=None, description="(height, width) that images are resized to for the network; null in older files"
    )
    batch: Count = 1
    crf: dict[str, JsonValue] | None = Field(description="CRF parameters as in the manifest; null where the CRF is off")
    crf_shortcuts: dict[str, JsonValue] = Field(default_factory=dict, description="shortcuts the CRF may take")
    stages: StageView | None
    pipeline: PipelineView | None = None
    load: tuple[LoadRun, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    accuracy: tuple[Accuracy, ...] = ()
    roofline: Roofline | None = None
    noise: Noise = Field(description="of the stage view; the pipeline has its own")


class GpuTrace(Record):
    """One GPU over time, read by NVML; columns as long as the trace's `at_s`."""

    name: str
    sm_mhz: Column
    memory_mhz: Column
    power_w: Column
    temperature_c: Column
    busy: Column
    memory_used_mb: Column
    throttle_reasons: tuple[tuple[str, ...], ...]


class MachineTrace(Record):
    """The machine during the run; columns as long as `at_s`, null where a value cannot be read."""

    interval_s: float
    at_s: tuple[float, ...]
    cpu_mhz: Column = Field(description="mean clock of the usable cores")
    cpu_busy: Column = Field(description="share of all cores' time in use by any process")
    own_busy: Column = Field(description="share of all cores' time used by this process")
    steal: Column = Field(description="share of time the hypervisor gave to other machines")
    load_1min: Column
    temperature_c: Column = Field(description="hottest CPU sensor")
    memory_available_mb: Column
    resident_mb: Column = Field(description="memory of this process")
    gpus: tuple[GpuTrace, ...] = ()
    unavailable: dict[str, str] = Field(description="columns this machine does not report, with the reason")


class CpuInfo(Record):
    """The processor and its limits."""

    name: str
    features: tuple[str, ...]
    cores: Count
    usable_cores: Count
    governor: str | None
    max_mhz: float | None
    cgroup_cpus: float | None
    virtualization: str | None


class GpuInfo(Record):
    """A GPU and its settings."""

    name: str
    capability: str
    memory_mb: float
    driver: str | None
    power_limit_w: float | None
    max_sm_mhz: float | None
    persistence: bool | None


class Environment(Record):
    """Properties of the machine and its software that can explain a figure."""

    host: str
    system: str
    python: str
    cpu: CpuInfo
    memory_mb: float | None
    gpus: tuple[GpuInfo, ...]
    libraries: dict[str, str] = Field(description="version by distribution")
    variables: dict[str, str] = Field(description="environment variables that limit threads or choose devices")
    load_1min_before: float | None
    git: str | None = Field(description="commit of the source tree")


class Comparison(Record):
    """Two series of the same stage: the candidate's time relative to the baseline's."""

    baseline: str
    candidate: str
    stage: ComparedName = Field(description='"pipeline": time per image of the rounds, 1 / throughput')
    statistic: Literal["median"] = "median"
    ratio: Number = Field(description="candidate / baseline; above 1 is slower")
    low: Number = Field(description="lower end of the bootstrap interval")
    high: Number = Field(description="upper end of the bootstrap interval")
    confidence: Share = 0.95
    paired: bool = Field(description="whether samples were interleaved, so that machine-wide slowdowns affect both")
    bound: float = Field(description="tolerated slowdown, 0.05 for 5 %")
    verdict: Verdict
    reason: str = Field(description="the verdict as a sentence")


class BenchResult(Record):
    """A whole run of `atrous bench`."""

    schema_version: Literal[2] = 2
    kind: Literal["atrous-bench"] = "atrous-bench"
    atrous_version: str
    created: AwareDatetime
    duration_s: NonNegative
    command: tuple[str, ...] = Field(description="command line that reproduces the run")
    dataset: str = Field(description="source of the images")
    images: tuple[str, ...] = Field(description="names of the measured images")
    environment: Environment
    subjects: Annotated[tuple[Subject, ...], Field(min_length=1)]
    comparisons: tuple[Comparison, ...] = Field(default=(), description="the other subjects relative to the first")
    published: tuple[dict[str, JsonValue], ...] = Field(default=(), description="in older files only")
    canary: Series | None = Field(description="a fixed piece of arithmetic timed between samples")
    machine_trace: MachineTrace
    warnings: tuple[str, ...] = Field(default=(), description="caveats to read before quoting a figure")


def copy_fields(source: object, model: type[Record]) -> dict[str, Any]:
    """The attributes of `source` that have the name of a field of `model`."""
    return {name: getattr(source, name) for name in model.model_fields if hasattr(source, name)}


def _clip(share: Any) -> Any:
    """Correct rounding errors of sums of times, which may slightly pass 0 or 1."""
    return min(1.0, max(0.0, share)) if isinstance(share, float) and -1e-3 < share < 1.001 else share
