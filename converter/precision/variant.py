"""Making a variant of a bundle's deployment graph: `atrous precision`, without the command line.

1. BatchNorm and Scale are folded into the convolutions before them.
2. The float32 graph is observed on images: largest magnitudes, and for INT8 and FP8 the histograms of what is coded.
3. The graph is written: types and Casts, or Q/DQ (and the rest of the graph in half, where that was asked).
4. It is checked against float32; where it misses its targets, the layers that hurt most are left alone, as few as
   will do.
5. It is added to the bundle, or refused.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ... import __version__
from ...errors import PrecisionError, TargetMissedError
from ..check.onnx_reading import parse_onnx
from .agreement import Array
from .assessment import Assessment, Picture, Reader, assess, run_as_shipped
from .building import FLOAT_TYPES, Made, Maker, VariantOptions
from .committing import commit_variant, read_deploy
from .float_types import NO_LOSS
from .folding import fold_norms
from .naming import find_nodes, layer_of
from .observing import BINS, Histogram, Observed, count_histograms, observe
from .progress import SILENT, ShowProgress
from .quantizing import QuantizableLayer, find_quantizable
from .ranges import choose_range
from .sensitivity import Sensitivity, find_fewest, sweep_layers
from .targets import Targets


@dataclass(frozen=True)
class Evidence:
    """The images a variant is made and judged with.

    Attributes:
        calibration: H x W x 3 uint8 RGB each, to observe ranges on.
        pictures: to check on, with their truth where it is known.
        source: where they came from, for the manifest.
    """

    calibration: Sequence[Array]
    pictures: Sequence[Picture]
    source: str


@dataclass(frozen=True)
class VariantResult:
    """A variant, not yet in the bundle.

    Attributes:
        model: the ONNX file.
        entry: the manifest's entry, without the file's name.
        assessment: how it compares with float32.
        misses: targets it misses.
        sensitivities: what the sweep found, the most sensitive first; empty where there was none.
        seconds: by step.
    """

    model: bytes
    entry: dict[str, Any]
    assessment: Assessment
    misses: tuple[str, ...]
    sensitivities: tuple[Sensitivity, ...]
    seconds: dict[str, float]

    @property
    def passed(self) -> bool:
        """Whether every target is met."""
        return not self.misses


def make_variant(
    bundle: Path, options: VariantOptions, evidence: Evidence, reader: Reader, *, show: ShowProgress = SILENT
) -> VariantResult:
    """Make a variant of a bundle's deployment graph and check it; nothing is written.

    Args:
        bundle: the folder.
        options: what is wanted.
        evidence: images.
        reader: of the head, see `Reader`.
        show: draws progress.

    Raises:
        PrecisionError: the variant cannot be made.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    if not evidence.calibration or not evidence.pictures:
        raise PrecisionError("a variant is observed and checked on images, and there are none: give --images")
    clock = _Clock()
    _, content = read_deploy(bundle)
    digest = hashlib.sha256(content).hexdigest()
    reference = parse_onnx(content, bundle)
    base = fold_norms(reference)
    maker = _observe(base, options, evidence, show, clock)
    with clock.measure("build"):
        made = maker.build()
    pictures, threads = evidence.pictures, options.threads
    with clock.measure("check"):
        assessment = assess(reference, made.model, pictures, reader, threads=threads, show=show)
    misses = _find_misses(options.targets, assessment)
    ranking: list[Sensitivity] = []
    if options.sensitivity == "always" or (misses and options.sensitivity == "auto"):
        with clock.measure("sweep"):
            ranking = sweep_layers(
                reference, lambda alone: maker.build(alone).model, maker.candidates(), pictures, reader,
                threads=threads, show=show,
            )  # fmt: skip
    if misses and options.sensitivity != "never":
        with clock.measure("search"):
            tried: dict[int, tuple[Made, Assessment]] = {}

            def passes(alone: Sequence[str]) -> bool:
                candidate = maker.build(alone)
                tried[len(alone)] = (
                    candidate,
                    assess(reference, candidate.model, pictures, reader, threads=threads, show=show),
                )
                return not _find_misses(options.targets, tried[len(alone)][1])

            fewest = find_fewest([row.node for row in ranking], passes)
        if fewest is not None:
            made, assessment = tried[len(fewest)]
            misses = ()
    with clock.measure("run"):
        expected = assessment.agreement.share
        shipped = run_as_shipped(reference, made.model, pictures, reader, expected, threads=threads, show=show)
    entry = _describe(options, evidence, made, maker, assessment, misses, ranking, shipped, clock.seconds)
    entry["verification"]["reference_sha256"] = digest
    return VariantResult(
        made.model.SerializeToString(), entry, assessment, misses, tuple(ranking), dict(clock.seconds)
    )  # fmt: skip


def write_variant(bundle: Path, result: VariantResult, *, keep_anyway: bool = False) -> dict[str, Any]:
    """Add a variant to its bundle; returns the manifest's entry.

    Raises:
        TargetMissedError: it misses a target and `keep_anyway` is not given; nothing is written.
        PrecisionError: the bundle changed meanwhile.
        OutputError: the folder cannot be written.
    """
    if result.misses and not keep_anyway:
        precision, misses = result.entry["precision"], "; ".join(result.misses)
        raise TargetMissedError(f"{bundle}: no {precision} variant was written: {misses}. {_advise(result)}")
    return commit_variant(bundle, result.entry, result.model, result.entry["verification"]["reference_sha256"])


def _advise(result: VariantResult) -> str:
    diverges = result.assessment.diverges_at
    place = f'"{diverges.layer}" adds the most noise; ' if diverges is not None else ""
    more = "" if result.sensitivities else "let --sensitivity find layers to leave alone, "
    return f"{place}{more}keep layers with --keep, try another --method or more images, or lower the target"


def _observe(
    base: onnx.ModelProto, options: VariantOptions, evidence: Evidence, show: ShowProgress, clock: _Clock
) -> Maker:
    names = [node.name for node in base.graph.node]
    named = find_nodes(options.keep, names)
    coded = options.precision not in FLOAT_TYPES
    if options.precision == "fp8" and options.method == "entropy":
        raise PrecisionError("entropy weighs the equal steps of int8; fp8 has none: use minmax or percentile")
    with clock.measure("observe"), show("observing values", len(evidence.calibration)) as advance:
        seen = observe(base, evidence.calibration, threads=options.threads, advance=advance)
    maker = Maker(base, options, seen, {}, named)
    if not coded:
        return maker
    layers = find_quantizable(base)
    if not layers:
        raise PrecisionError(f"no layer of this graph can be {options.precision}: it has no Conv, Gemm or MatMul")
    with clock.measure("calibrate"):
        maker.reaches = _calibrate(base, layers, seen, options, evidence, show)
    return maker


def _calibrate(
    base: onnx.ModelProto,
    layers: Sequence[QuantizableLayer],
    seen: dict[str, Observed],
    options: VariantOptions,
    evidence: Evidence,
    show: ShowProgress,
) -> dict[str, float]:
    sources = list(dict.fromkeys(layer.source for layer in layers))
    missing = next((source for source in sources if source not in seen), None)
    if missing is not None:
        raise PrecisionError(f'"{missing}" is not a float32 value of the graph; its layer cannot be calibrated')
    if options.method == "minmax":
        empty = np.zeros(BINS, np.int64)
        return {name: choose_range(Histogram(empty, seen[name].largest), "minmax") for name in sources}
    with show("counting values", len(evidence.calibration)) as advance:
        histograms = count_histograms(
            base, sources, seen, evidence.calibration, threads=options.threads, advance=advance
        )  # fmt: skip
    return {name: choose_range(histograms[name], options.method, options.percentile) for name in sources}


def _find_misses(targets: Targets, assessment: Assessment) -> tuple[str, ...]:
    return tuple(targets.find_misses(assessment.agreement.share, assessment.miou_loss))


def _describe(
    options: VariantOptions,
    evidence: Evidence,
    made: Made,
    maker: Maker,
    assessment: Assessment,
    misses: Sequence[str],
    ranking: Sequence[Sensitivity],
    shipped: dict[str, Any],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The manifest's entry, but for the file's name."""
    calibration = None
    if maker.codes is not None:
        calibration = {
            "method": options.method,
            "percentile": options.percentile if options.method == "percentile" else None,
            "images": len(evidence.calibration),
            "activations": maker.codes,
            "rest": options.rest,
            "ranges": maker.reaches,
        }
    quantizable = set(maker.candidates()) | set(maker.named)
    verification = {
        "reference": "fp32",
        "source": evidence.source,
        "targets": options.targets.to_json(),
        "passed": not misses,
        "misses": list(misses),
        "left_alone": sorted({layer_of(name) for name in made.kept if name in quantizable}),
        **assessment.to_json(),
        "weights": (made.loss or NO_LOSS).to_json() if made.loss is not None else None,
        "onnxruntime_cpu": shipped,
        "sensitivity": [row.to_json() for row in ranking],
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "atrous_version": __version__,
    }
    return {
        "precision": options.precision,
        "kept": made.kept,
        "calibration": calibration,
        "verification": verification,
    }


class _Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def measure(self, name: str) -> _Lap:
        return _Lap(self, name)


class _Lap:
    def __init__(self, clock: _Clock, name: str) -> None:
        self._clock, self._name = clock, name

    def __enter__(self) -> None:
        self._start_s = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        taken = time.perf_counter() - self._start_s
        self._clock.seconds[self._name] = self._clock.seconds.get(self._name, 0.0) + taken
