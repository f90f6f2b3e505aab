"""The result file of `atrous bench` as types: what was measured, on what, and what may be concluded from it.

The published schema is `docs/bench-schema.json`, written by `write_schema`. Rules of the file:

1. One UTF-8 JSON object of at most 256 MiB; `schema_version` is looked at first.
2. Durations are milliseconds, moments are seconds since the run began (`at_s`), so that every series and the machine's
   trace lie on one time axis. No number is NaN or infinite; what could not be measured is null, and the reason stands
   beside it.
3. Raw samples are all there, in the order they were taken: no outlier is dropped, no series is thinned.
4. Shares and accuracies are fractions of 1.
5. Version 2 added `pipeline` and `crf_shortcuts` of a subject and `path` of a load run; files of version 1 are read as
   files of version 2 that lack them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from ...bundle.files import write_file
from ...errors import InputError
from .machine_sections import CpuInfo, Environment, GpuInfo, GpuTrace, MachineTrace
from .pipeline_sections import PipelineStage, PipelineView
from .sections import Noise, NoiseCheck, NonNegative, Quantile, Section, Series, Share
from .view_sections import (
    Accuracy,
    CurvePoint,
    LoadMode,
    LoadRun,
    ModelCost,
    Roofline,
    Scenario,
    Stage,
    StageName,
    StageView,
    Subject,
    Warmup,
    name_stage,
)

__all__ = [
    "SCHEMA_VERSION",
    "Accuracy",
    "BenchResult",
    "ComparedName",
    "Comparison",
    "CpuInfo",
    "CurvePoint",
    "Environment",
    "GpuInfo",
    "GpuTrace",
    "LoadMode",
    "LoadRun",
    "MachineTrace",
    "ModelCost",
    "Noise",
    "NoiseCheck",
    "PipelineStage",
    "PipelineView",
    "Published",
    "Quantile",
    "Roofline",
    "Scenario",
    "Series",
    "Stage",
    "StageName",
    "StageView",
    "Subject",
    "Verdict",
    "Warmup",
    "make_schema",
    "name_stage",
    "read_result",
    "write_result",
    "write_schema",
]

SCHEMA_VERSION = 2
MAX_RESULT_BYTES = 256 << 20
_READ_VERSIONS = (1, SCHEMA_VERSION)

ComparedName = Literal[StageName, "pipeline"]
Verdict = Literal["regression", "improvement", "same", "inconclusive"]


class Comparison(Section):
    """Two series of the same stage: how much slower is B than A?

    Attributes:
        baseline, candidate: names of the subjects (and files).
        stage: what was compared; "pipeline" is the time an image of the pipeline's rounds, 1 / throughput.
        statistic: "median".
        ratio: candidate / baseline; above 1 is slower.
        low, high: bootstrap interval of the ratio.
        paired: whether the samples were taken in turns, so that the machine's moods hit both alike.
        bound: what is tolerated, 0.05 for 5 %.
        verdict: "regression" if low > 1 + bound, "improvement" if high < 1 / (1 + bound), "same" if the whole interval
            lies between the two, else "inconclusive".
        reason: the verdict in a sentence.
    """

    baseline: str
    candidate: str
    stage: ComparedName
    statistic: Literal["median"] = "median"
    ratio: float
    low: float
    high: float
    confidence: Share = 0.95
    paired: bool
    bound: float
    verdict: Verdict
    reason: str


class Published(Section):
    """A published figure beside ours.

    Attributes:
        preset: "voc", "cityscapes", "camvid", "sun-rgbd".
        title: what the preset is.
        published_ms, published_per_s: as printed in the source; None where it prints none.
        published_hardware, published_note: what it was measured on, and what the figure includes.
        source: where it was published.
        ours_ms, ours_per_s: median network time a image and its reciprocal, of the baseline.
        ours_with_crf_ms: the same with the CRF, where it was on.
        note: what makes the two comparable or not.
    """

    preset: str
    title: str
    image_height: NonNegativeInt
    image_width: NonNegativeInt
    classes: NonNegativeInt
    published_ms: float | None
    published_per_s: float | None
    published_hardware: str
    published_note: str
    source: str
    ours_ms: float | None
    ours_per_s: float | None
    ours_with_crf_ms: float | None
    note: str


class BenchResult(Section):
    """A whole run of `atrous bench`.

    Attributes:
        command: the words to reproduce it.
        images: names of the measured images; `dataset` is where they come from.
        subjects: at least one; the first is the baseline.
        comparisons: of the other subjects with the first.
        published: figures of a preset, or empty.
        canary: a fixed piece of arithmetic, timed between samples: its scatter is the machine's, not the subject's.
        warnings: what a reader must know before quoting a figure.
    """

    schema_version: Literal[2] = 2
    kind: Literal["atrous-bench"] = "atrous-bench"
    atrous_version: str
    created: AwareDatetime
    duration_s: NonNegative
    command: tuple[str, ...]
    dataset: str
    images: tuple[str, ...]
    environment: Environment
    subjects: Annotated[tuple[Subject, ...], Field(min_length=1)]
    comparisons: tuple[Comparison, ...] = ()
    published: tuple[Published, ...] = ()
    canary: Series | None
    machine_trace: MachineTrace
    warnings: tuple[str, ...] = ()


class _VersionOnly(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    schema_version: int
    kind: Literal["atrous-bench"]


def write_result(result: BenchResult, path: str | Path) -> None:
    """Write a result file.

    Raises:
        OutputError: if it cannot be written.
    """
    write_file(path, (result.model_dump_json() + "\n").encode())


def read_result(path: str | Path) -> BenchResult:
    """Read a result file.

    Raises:
        InputError: if it is missing, too long, no result of `atrous bench`, or of another schema; names the field.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_RESULT_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(text) > MAX_RESULT_BYTES:
        raise InputError(f"{path}: is longer than {MAX_RESULT_BYTES} bytes, which no result of `atrous bench` is")
    try:
        found = _VersionOnly.model_validate_json(text).schema_version
    except ValidationError as error:
        raise InputError(f"{path}: is no result of `atrous bench`: {_describe(error)}") from error
    if found not in _READ_VERSIONS:
        remedy = "update atrous" if found > SCHEMA_VERSION else "measure again"
        known = " and ".join(str(version) for version in _READ_VERSIONS)
        raise InputError(f"{path}: has schema_version {found}, this atrous reads {known}: {remedy}")
    try:
        return BenchResult.model_validate_json(text if found == SCHEMA_VERSION else _raise_version(text))
    except ValidationError as error:
        raise InputError(f"{path}: {_describe(error)}") from error


def make_schema() -> str:
    """The JSON schema of the file, as text."""
    schema = BenchResult.model_json_schema(mode="validation")
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def write_schema(path: str | Path) -> None:
    """Write the JSON schema of the file; the published one is docs/bench-schema.json.

    Raises:
        OutputError: if it cannot be written.
    """
    write_file(path, make_schema().encode())


def _raise_version(text: bytes) -> str:
    """A file of version 1 as one of this version: what was added since has a default."""
    return json.dumps({**json.loads(text), "schema_version": SCHEMA_VERSION})


def _describe(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_input=False)
    place = ".".join(str(part) for part in faults[0]["loc"])
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return (f"{place}: " if place else "") + faults[0]["msg"].removeprefix("Value error, ") + more
