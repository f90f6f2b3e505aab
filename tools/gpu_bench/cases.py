"""The cases to measure and the targets to reach.

The time limit may cut a run short, so the cases that the targets need come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SIZES = ((513, 513), (1024, 2048), (360, 480))
BATCHES = (1, 8)
PRECISIONS = ("fp16", "fp32", "tf32", "int8")
IMAGES = 2  # distinct images; a larger batch repeats them
#: largest error: root mean square relative to the reference's. TF32 and FP16 round factors to 10 bits; int8 is
#: compared with the same graph on a CPU, where only rounding at the edge of a quantization step differs.
LIMITS = {"fp32": 1e-3, "tf32": 2e-2, "fp16": 2e-2, "int8": 1e-1}


@dataclass(frozen=True)
class Case:
    """One net in one precision at one shape."""

    net: str
    precision: str
    height: int
    width: int
    batch: int

    @property
    def graph(self) -> str:
        """The bundle's graph for this precision; TF32 runs the float32 graph."""
        return "fp32" if self.precision == "tf32" else self.precision

    @property
    def size(self) -> str:
        """Height and width."""
        return f"{self.height}x{self.width}"

    @property
    def title(self) -> str:
        """Readable name."""
        return f"{self.net} {self.precision} {self.batch} x {self.size}"


def list_cases(
    nets: Sequence[str], sizes: Sequence[tuple[int, int]] = SIZES, batches: Sequence[int] = BATCHES
) -> list[Case]:
    """List all cases: the first net at the targets' shapes, its other cases, then the other nets."""
    first = nets[0]
    urgent = [
        Case(first, "fp16", *sizes[0], batches[-1]),
        Case(first, "fp32", *sizes[0], batches[-1]),
        *(Case(first, "fp16", height, width, batches[0]) for height, width in sizes[1:]),
        Case(first, "int8", *sizes[0], batches[-1]),
        Case(first, "tf32", *sizes[0], batches[-1]),
    ]
    everything = [
        Case(net, precision, height, width, batch)
        for net in nets
        for batch in batches
        for height, width in sizes
        for precision in PRECISIONS
    ]
    return list(dict.fromkeys([*urgent, *everything]))


Row = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """One figure to reach.

    Attributes:
        title: description of the figure.
        wanted: the limit.
        is_least: whether `wanted` is a minimum.
        unit: unit of the figure.
        find: finds the figure in the rows and ceilings; None if it was not measured.
    """

    title: str
    wanted: float
    is_least: bool
    unit: str
    find: Callable[[Sequence[Row], Mapping[str, float]], float | None]

    def judge(self, rows: Sequence[Row], ceilings: Mapping[str, float]) -> dict[str, Any]:
        """Return the figure and whether it reaches the target; both None if it was not measured."""
        found = self.find(rows, ceilings)
        passed = None if found is None else (found >= self.wanted if self.is_least else found <= self.wanted)
        word = "at least" if self.is_least else "at most"
        wanted = f"{word} {self.wanted:g} {self.unit}".strip()
        return {"target": self.title, "wanted": wanted, "found": found, "passed": passed}


def _figure(rows: Sequence[Row], library: str, precision: str, size: tuple[int, int], batch: int, name: str) -> Any:
    return next(iter(_figures(rows, library, precision, size, batch, name)), None)


def _figures(
    rows: Sequence[Row], library: str, precision: str, size: tuple[int, int], batch: int, name: str
) -> Iterator[Any]:
    for row in rows:
        same = (row["library"], row["precision"], row["height"], row["width"], row["batch"], row["net"])
        if same == (library, precision, *size, batch, "largefov") and row.get(name) is not None and row["agrees"]:
            yield row[name]


def _find_share(rows: Sequence[Row], ceilings: Mapping[str, float]) -> float | None:
    rate, ceiling = _figure(rows, "tensorrt", "fp16", SIZES[0], 8, "tflops"), ceilings.get("fp16")
    return rate / ceiling if rate is not None and ceiling else None


def _find_speedup(rows: Sequence[Row], ceilings: Mapping[str, float]) -> float | None:
    ours = _figure(rows, "tensorrt", "fp16", SIZES[0], 8, "compute_ms")
    torch = _figure(rows, "torch eager", "fp32", SIZES[0], 8, "compute_ms")
    return torch / ours if ours and torch else None


TARGETS = (
    Target("FP16, batch 8, 513x513: share of the measured matmul ceiling", 0.6, True, "", _find_share),
    Target("FP16, batch 8, 513x513: times as fast as torch eager FP32", 10, True, "", _find_speedup),
    Target(
        "FP16, 1024x2048: latency (published for DeepLab: 4,000 ms)",
        10,
        False,
        "ms",
        lambda rows, _: _figure(rows, "tensorrt", "fp16", SIZES[1], 1, "latency_ms"),
    ),
    Target(
        "FP16, 360x480: latency (published: 203 ms)",
        1.5,
        False,
        "ms",
        lambda rows, _: _figure(rows, "tensorrt", "fp16", SIZES[2], 1, "latency_ms"),
    ),
    Target(
        "FP16, 513x513: images a second (published: 8)",
        500,
        True,
        "",
        lambda rows, _: max(
            (rate for n in BATCHES for rate in _figures(rows, "tensorrt", "fp16", SIZES[0], n, "images_per_s")),
            default=None,
        ),
    ),
)
