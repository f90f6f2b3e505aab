"""The folder of a run: the prepared files, and the result file of each worker.

job.json                          nets, cases, sizes, time limit
images-<size>.npy                 2 x H x W x 3 uint8 RGB
reference-<net>-<graph>-<size>.npy  ONNX Runtime's scores for them on the CPU, 2 x L x h x w float32
<worker>.json                     rows, or the reason for skipping
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atrous.runtime.backends.protocol import Array

from .cases import IMAGES, LIMITS, Case


@dataclass(frozen=True)
class NetEntry:
    """A prepared net.

    Attributes:
        bundle: its folder.
        input: the name of its input.
        models: the ONNX file of each graph: "fp32", "fp16", "int8".
        facts: the manifest's facts about each graph, as JSON.
        flops: floating-point operations of one image, by size.
    """

    bundle: str
    input: str
    models: dict[str, str]
    facts: dict[str, dict[str, Any]]
    flops: dict[str, float]


@dataclass(frozen=True)
class Job:
    """The work of a run.

    Attributes:
        folder: folder of the run.
        nets: nets by name.
        cases: cases, most important first.
        ends_at: system time in seconds after which no case starts.
        seconds: time to measure each case.
    """

    folder: Path
    nets: dict[str, NetEntry]
    cases: tuple[Case, ...]
    ends_at: float
    seconds: float

    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.time() > self.ends_at

    def write(self) -> None:
        """Write job.json."""
        content = {
            "nets": {name: asdict(net) for name, net in self.nets.items()},
            "cases": [asdict(case) for case in self.cases],
            "ends_at": self.ends_at,
            "seconds": self.seconds,
        }
        (self.folder / "job.json").write_text(json.dumps(content, indent=1))

    def make_feeds(self, case: Case) -> dict[str, Array]:
        """The batch of a case: N x H x W x 3 uint8 RGB by the input's name."""
        images = np.load(self.folder / f"images-{case.size}.npy")
        return {self.nets[case.net].input: np.ascontiguousarray(images[np.arange(case.batch) % IMAGES])}

    def read_reference(self, case: Case) -> Array:
        """ONNX Runtime's scores for the case's images, N x L x h x w float32.

        FP16 and TF32 are compared with float32's; INT8 with the same Q/DQ graph's on the CPU.
        """
        graph = "int8" if case.precision == "int8" else "fp32"
        scores = np.load(self.folder / f"reference-{case.net}-{graph}-{case.size}.npy")
        return np.asarray(scores[np.arange(case.batch) % IMAGES])

    def write_result(self, worker: str, result: dict[str, Any]) -> None:
        """Write a worker's results so far."""
        path = self.folder / f"{worker}.json"
        path.with_suffix(".part").write_text(json.dumps(result))
        path.with_suffix(".part").replace(path)


def read_job(folder: Path) -> Job:
    """Read job.json."""
    content = json.loads((folder / "job.json").read_text())
    nets = {name: NetEntry(**net) for name, net in content["nets"].items()}
    cases = tuple(Case(**case) for case in content["cases"])
    return Job(folder, nets, cases, content["ends_at"], content["seconds"])


def compare(case: Case, found: Array, reference: Array) -> dict[str, Any]:
    """Compare scores with the reference's: RMS error, largest difference, equal labels, and whether within `LIMITS`."""
    if found.shape != reference.shape or not np.isfinite(found).all():
        return {"agrees": False, "error": None, "max_difference": None, "equal_labels": 0.0}
    wide, exact = found.astype(np.float64), reference.astype(np.float64)
    error = float(np.sqrt(((wide - exact) ** 2).mean() / (exact**2).mean()))
    return {
        "agrees": bool(error <= LIMITS[case.precision]),
        "error": error,
        "max_difference": float(np.abs(wide - exact).max() / np.abs(exact).max()),
        "equal_labels": float((found.argmax(1) == reference.argmax(1)).mean()),
    }
