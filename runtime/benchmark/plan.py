"""The plan of a run, and the names shared by the command line, the result file and the views.

Imports nothing heavy, so that `atrous bench --help` stays fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from ...errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ...bundle.folder import Bundle
    from ..resizing import SizeOption
    from ..segmentation import Labels
    from ..segmenter import Segmenter

StageName = Literal[
    "decode", "prepare", "enqueue", "h2d", "compute", "d2h", "scores", "crf", "labels", "encode", "end_to_end"
]
ComparedName = Literal[StageName, "pipeline"]
Scenario = Literal["SingleStream", "MultiStream", "Server", "Offline"]

STAGES: tuple[StageName, ...] = get_args(StageName)  # in the order they run; end_to_end has its own timer
COMPARED: tuple[ComparedName, ...] = (*STAGES, "pipeline")
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
REFERENCE = "onnxruntime:fp32"
REGRESSION_BOUND = 0.05  # tolerated slowdown, as a fraction


def name_stage(name: str) -> str:
    """A stage's name in prose: "H2D", "end to end"."""
    return {"h2d": "H2D", "d2h": "D2H", "crf": "CRF"}.get(name, name.replace("_", " "))


class Sample(NamedTuple):
    """One image: name, the file's bytes (so that decoding reads no disk), H x W x 3 uint8 RGB, H x W uint8 labels."""

    name: str
    encoded: bytes
    image: npt.NDArray[np.uint8]
    truth: Labels | None = None  # 255 where unlabeled


@dataclass(frozen=True)
class SubjectSpec:
    """A backend, a precision ("fp32" or a variant of the bundle), a device (None: the backend's default), options."""

    backend: str
    precision: str = "fp32"
    device: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The text form, such as "onnxruntime:fp16@cuda"."""
        device = f"@{self.device}" if self.device not in (None, "cpu") else ""
        options = "".join(f",{key}={value}" for key, value in self.options.items())
        return f"{self.backend}:{self.precision}{device}{options}"


def parse_subject(text: str) -> SubjectSpec:
    """Parse BACKEND[:PRECISION][@DEVICE][,OPTION=VALUE...].

    Raises:
        InputError: if the text is not of that form, or the backend is unknown.
    """
    from ..backends import BACKENDS

    head, *pairs = text.split(",")
    head, _, device = head.partition("@")
    backend, _, precision = head.partition(":")
    if backend not in BACKENDS:
        raise InputError(f'"{text}": there is no backend "{backend}"; choose one of {", ".join(BACKENDS)}')
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise InputError(f'"{text}": "{pair}" is not OPTION=VALUE')
        options[key] = value
    return SubjectSpec(backend, precision or "fp32", device or None, options)


@dataclass(frozen=True)
class BenchPlan:
    """Subjects, inputs and duration of a benchmark; fields and defaults are those of the `atrous bench` options."""

    bundle: Bundle
    specs: Sequence[SubjectSpec]  # the baseline first
    samples: Sequence[Sample]  # of one size
    dataset: str = ""  # source of the images
    command: Sequence[str] = ()  # command line that reproduces the run
    threads: int | None = None  # of network and CRF; None: one per core
    crf: Literal["auto"] | bool = "auto"  # "auto": as the bundle
    size: SizeOption = None  # that the network runs at; None: the bundle's default
    max_side: int | None = None  # larger images are shrunk for the network
    fast_crf: bool = False  # the CRF takes its shortcuts in all views
    duration_s: float = 5.0  # stage view: minimum duration, all subjects together
    min_samples: int = 10
    max_samples: int | None = None
    warmup_s: float = 10.0  # time limit of the warm-up, per subject
    repeats: int = 3  # accuracy view: runs per image
    crf_sweep: bool = True  # accuracy view: try faster versions of the bundle's CRF
    pipeline_rounds: int = 9  # the fewest in which drift can be detected; 0: no pipeline view
    pipeline_images: int | None = None  # per round; None: 12 per core
    scenarios: Sequence[Scenario] = SCENARIOS  # of LoadGen; Offline runs first
    load_duration_s: float = 2.0  # minimum duration of each test
    full: bool = False  # MLPerf's durations and counts
    server_qps: float | None = None  # None: 70 % of the best measured rate of calls
    latency_bound_ms: float | None = None  # of Server; None: 10 x one image
    curve: bool = True  # throughput-latency curve
    samples_per_query: int = 8  # of MultiStream
    workers: int = 1  # images labeled at once, in calls
    roofline: bool = True
    bound: float = REGRESSION_BOUND

    def open(self, spec: SubjectSpec, threads: int | None, *, fast_crf: bool) -> Segmenter:
        """Load the bundle as a subject; raises what `runtime.load` raises."""
        from ...dependencies import import_crf
        from ..backends import open_backend
        from ..loading import load

        shortcuts: Mapping[str, Any] | None = import_crf().FAST if fast_crf else None
        words: dict[str, Any] = {"device": spec.device, "threads": threads, "precision": spec.precision}
        backend = open_backend(spec.backend, self.bundle, **words, options=dict(spec.options))
        sizes: dict[str, Any] = {"size": self.size, "max_side": self.max_side}
        return load(self.bundle.path, backend, threads=threads, crf=self.crf, crf_shortcuts=shortcuts, **sizes)
