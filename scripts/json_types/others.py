"""`fetch`, `demo`, `bench`, `doctor`."""

from __future__ import annotations

from typing import Literal

from ...converter.official.catalogue import OfficialModel
from ...converter.official.record import ModelRecord
from ...runtime.benchmark.crf_scaling import CrfScaling
from ...runtime.benchmark.results import BenchResult, Comparison
from .base import Failed, Output, Part


class ListedModel(OfficialModel):
    """A model of the catalogue, and whether it is in the current folder."""

    fetched: Literal["yes", "begun", "no"]


class FetchList(Output):
    """The catalogue."""

    command: Literal["fetch"]
    page: str
    """address of the official page"""
    about: str
    models: list[ListedModel]


class FetchShow(Output):
    """One model of the catalogue."""

    command: Literal["fetch"]
    page: str
    """address of its page"""
    model: ListedModel


class PlanNodes(Part):
    """The machines."""

    count: int
    cores: int
    """of each, as are the others"""
    gpus: int
    gpu_ms: float | None
    """the network's time for an image on a GPU, if it was given"""
    storage_mb_s: float | None
    """bandwidth in 1e6 bytes per second, if it was given"""


class PlanCost(Part):
    """The cost of an image."""

    source: str
    """where it was measured"""
    core_ms: dict[str, float]
    """core-milliseconds by stage"""
    device_ms: float
    """milliseconds of the network on a device; 0 if it ran on the CPU"""
    read_bytes: float | None
    written_bytes: float | None
    efficiency: float
    """the measured rate as a share of its bound"""
    start_s: float
    """seconds from the start of a process to its first image"""


class PlanFigures(Part):
    """The prediction."""

    hours: float
    rate_per_s: float
    """images per second of all nodes"""
    node_per_s: float
    bounds_per_s: dict[str, float]
    """upper bounds of a node's rate by resource"""
    bottleneck: str
    crf_cores: float
    """cores busy with the CRF in a node"""
    crf_cores_all: float
    gpu_share: float | None
    """share of the time in which a GPU works"""
    core_hours: float
    read_bytes: float | None
    written_bytes: float | None
    storage_mb_s: float | None
    """1e6 bytes per second that all nodes read and write"""
    shards: int


class PlanDone(Output):
    """The predicted time of a run on many machines."""

    command: Literal["plan"]
    images: int
    nodes: PlanNodes
    cost: PlanCost
    plan: PlanFigures


class FetchDone(Output):
    """A fetched model."""

    command: Literal["fetch"]
    name: str
    state: str
    """such as "fetched" or "complete"; see `atrous fetch`"""
    folder: str
    seconds: float
    model: ModelRecord
    """its model.json"""


class DemoDone(Output):
    """The built-in miniature on its held-out scenes."""

    command: Literal["demo"]
    picture: str
    bundle: str | None
    """null if stored scores were refined"""
    scenes: int
    miou_network: float
    """mean IoU, fraction of 1"""
    miou_crf: float
    """the same after the CRF"""
    convert_s: float | None
    network_ms: float | None
    """median milliseconds a scene"""
    crf_ms: float
    """median milliseconds a scene"""
    missing: str | None
    """the library without which stored scores were refined"""


class BenchDone(Output):
    """A measurement."""

    command: Literal["bench"]
    result: BenchResult


class BenchComparison(Output):
    """`bench compare`."""

    command: Literal["bench"]
    comparisons: list[Comparison]


class BenchCrf(Output):
    """`bench crf`."""

    command: Literal["bench"]
    crf: CrfScaling


class Processor(Part):
    """The CPU."""

    name: str
    features: list[str]
    """vector extensions"""
    cores: int
    usable_cores: int
    """cores that this process may use"""


class CudaDevice(Part):
    """A GPU."""

    name: str
    capability: str
    """compute capability, such as 9.0"""
    memory_bytes: int


class Finding(Part):
    """A part of the installation."""

    name: str
    status: str
    """ok, missing or broken"""
    core: bool
    """whether every use needs it"""
    version: str | None
    brings: str
    """what it is for"""
    detail: str
    remedy: str
    """what to do if it is missing or broken"""


class Ability(Part):
    """A command, and what it lacks here."""

    command: str
    lacks: list[str]
    """libraries that are missing or broken; empty if the command works"""
    remedies: list[str]
    """lines that install them"""


class DoctorDone(Output):
    """This installation."""

    command: Literal["doctor"]
    sound: bool
    """whether everything installed works"""
    python: str
    platform: str
    processor: Processor
    thread_variables: dict[str, str]
    """environment variables that limit threads"""
    cuda_devices: list[CudaDevice]
    findings: list[Finding]
    commands: list[Ability]
    """what one can do here"""


class FetchBundle(Output):
    """A bundle from the Hugging Face Hub."""

    command: Literal["fetch"]
    name: str
    """hf:ORG/NAME"""
    folder: str
    seconds: float
    files: list[str]
    bytes: int
    """their size in all"""


class CardDone(Output):
    """A model card."""

    command: Literal["card"]
    bundle: str
    card: str
    """the file"""


class PushDone(Output):
    """A bundle uploaded to the Hugging Face Hub."""

    command: Literal["push"]
    bundle: str
    repository: str
    """hf:ORG/NAME"""
    commit: str
    """its address"""


class PackDone(Output):
    """A packed bundle."""

    command: Literal["pack"]
    bundle: str
    """folder of the source"""
    out: str
    """folder of the copy"""
    files: list[str]
    """graphs in the copy"""
    bytes: int
    """their size in all"""


class Serving(Output):
    """A server that is ready."""

    command: Literal["serve"]
    http: str
    """address of the page, and of /v2 and /segment"""
    grpc: str | None
    """host:port of gRPC, if it was asked for"""
    models: list[str]
    """names of the models"""


class ExportDone(Output):
    """A bundle in the form of another server."""

    command: Literal["export"]
    form: Literal["triton", "deepstream", "openvino"]
    bundle: str
    """folder of the source"""
    out: str
    """folder written into"""
    files: list[str]
    """paths in it"""


class RepositoryFault(Part):
    """A fault of a repository."""

    path: str
    line: int | None
    """from 1; null for the whole file"""
    text: str


class RepositoryCheck(Output):
    """The check of a model repository."""

    command: Literal["export"]
    form: Literal["triton"]
    repository: str
    faults: list[RepositoryFault]


class SchemaList(Output):
    """The commands whose output has a schema."""

    command: Literal["schema"]
    schemas: list[str]
    """names for `atrous schema NAME`"""


Fetch = FetchList | FetchShow | FetchDone | FetchBundle | Failed
Card = CardDone | Failed
Push = PushDone | Failed
Demo = DemoDone | Failed
Bench = BenchDone | BenchComparison | BenchCrf | Failed
Doctor = DoctorDone | Failed
Pack = PackDone | Failed
Serve = Serving | Failed
Export = ExportDone | RepositoryCheck | Failed
Schema = SchemaList | Failed
Plan = PlanDone | Failed
