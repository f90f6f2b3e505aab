"""Making a variant of a bundle's deployment graph.

1. BatchNorm and Scale are folded into the convolutions before them.
2. The float32 graph is observed on images: value ranges, and histograms of the values to quantize in INT8 and FP8.
3. The graph is built: types and Casts, or Q/DQ (with the rest of the graph in half precision if requested).
4. It is compared with float32. If it misses its targets, the fewest of the most sensitive layers are left alone.
5. It is added to the bundle, or rejected.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from ... import __version__
from ...bundle.folder import read_bundle
from ...bundle.manifest import Variant
from ...bundle.writing import add_variant
from ...errors import PrecisionError, TargetMissedError
from ..check.onnx_reading import parse_onnx, refuses_invalid
from .assess import Assessment, Reference, assess, run_as_shipped
from .calibrate import Observed, choose_range, count_histograms, observe
from .cast import BuiltGraph, cast_graph
from .facts import describe_graph
from .float_types import BFLOAT16, FLOAT16, FloatType
from .graph import find_nodes, fold_norms, layer_of
from .images import Evidence, HeadReader
from .options import ShowProgress, VariantOptions, choose_targets, no_progress
from .quantize import DEQUANTIZED, Codes, QuantizableLayer, find_quantizable, quantize_graph
from .rules import REASON_NAMED, WEIGHTED
from .sensitivity import Sensitivity, find_fewest, sweep_layers

REASON_SENSITIVE = "too sensitive: the targets were missed with it"
FLOAT_TYPES = {"fp16": FLOAT16, "bf16": BFLOAT16}


@dataclass(frozen=True)
class VariantResult:
    """A variant that is not yet in the bundle.

    Attributes:
        model: the ONNX file.
        entry: the manifest's entry, without the file's name.
        assessment: comparison with float32.
        misses: targets it misses.
        sensitivities: the layers measured alone, the most sensitive first; empty if none was measured.
    """

    model: bytes
    entry: dict[str, Any]
    assessment: Assessment
    misses: tuple[str, ...]
    sensitivities: tuple[Sensitivity, ...]

    @property
    def passed(self) -> bool:
        """Whether every target is met."""
        return not self.misses


class VariantBuilder:
    """Builds variants of one graph that differ in the layers left alone."""

    def __init__(self, base: onnx.ModelProto, options: VariantOptions) -> None:
        self.base, self.options = base, options
        precision = options.precision
        #: codes of the activations; None for half precision
        self.codes: Codes | None = None
        self.layers: list[QuantizableLayer] = []
        self.seen: dict[str, Observed] = {}
        self.reaches: dict[str, float] = {}
        self.named = find_nodes(options.keep, [node.name for node in base.graph.node])
        if precision in FLOAT_TYPES:
            weighted = [node.name for node in base.graph.node if node.op_type in WEIGHTED]
        else:
            self.codes = "fp8" if precision == "fp8" else options.activations
            self.layers = find_quantizable(base)
            weighted = [layer.node for layer in self.layers]
            if not weighted:
                raise PrecisionError(f"no layer of this graph can be {precision}: it has no Conv, Gemm or MatMul")
        #: nodes with weights that may be narrow
        self.candidates = [name for name in weighted if name not in self.named]

    def calibrate(self, evidence: Evidence, show: ShowProgress, seconds: dict[str, float]) -> None:
        """Observe the values on images, and choose the ranges of those to quantize."""
        images, options = evidence.calibration, self.options
        with _measure(seconds, "observe"), show("observing values", len(images)) as advance:
            self.seen = observe(self.base, images, threads=options.threads, advance=advance)
        sources = list(dict.fromkeys(layer.source for layer in self.layers))
        missing = next((source for source in sources if source not in self.seen), None)
        if missing is not None:
            raise PrecisionError(f'"{missing}" is not a float32 value of the graph; its layer cannot be calibrated')
        if options.method == "minmax" or not sources:
            self.reaches = {name: self.seen[name].largest for name in sources}
            return
        with _measure(seconds, "calibrate"), show("counting values", len(images)) as advance:
            histograms = count_histograms(
                self.base, sources, self.seen, images, threads=options.threads, advance=advance
            )  # fmt: skip
            self.reaches = {
                name: choose_range(histograms[name], options.method, options.percentile) for name in sources
            }

    def build(self, alone: Collection[str] = ()) -> BuiltGraph:
        """Build the variant that leaves these nodes, and those the user named, alone."""
        keep = {**dict.fromkeys(alone, REASON_SENSITIVE), **dict.fromkeys(self.named, REASON_NAMED)}
        if self.codes is None:
            return self._cast(self.base, FLOAT_TYPES[self.options.precision], keep)
        layers = [layer for layer in self.layers if layer.node not in keep]
        if not layers:
            raise PrecisionError(f"no layer is left to be {self.options.precision}; name fewer with --keep")
        rest = FLOAT16 if self.options.rest == "fp16" else None
        bits = self.options.code_bits
        coded = quantize_graph(self.base, layers, self.reaches, self.seen, self.codes, rest, weight_bits=bits)
        kept = {layer.node: keep[layer.node] for layer in self.layers if layer.node in keep}
        if rest is None:
            onnx.checker.check_model(coded, full_check=True)
            return BuiltGraph(coded, kept)
        typed = self._cast(coded, rest, {})
        return BuiltGraph(typed.model, {**typed.kept, **kept}, typed.loss)

    def _cast(self, model: onnx.ModelProto, kind: FloatType, keep: dict[str, str]) -> BuiltGraph:
        magnitudes = {name: entry.largest for name, entry in self.seen.items()}
        magnitudes |= {f"{name}{DEQUANTIZED}": reach for name, reach in self.reaches.items()}
        return cast_graph(model, kind, keep=keep, magnitudes=magnitudes)


@refuses_invalid
def make_variant(
    bundle: Path, options: VariantOptions, evidence: Evidence, reader: HeadReader, *, show: ShowProgress = no_progress
) -> VariantResult:
    """Make a variant of a bundle's deployment graph and compare it with float32; nothing is written.

    Args:
        bundle: the folder.
        options: of the variant.
        evidence: images to calibrate and check on.
        reader: of the head.
        show: progress display.

    Raises:
        BundleError: the bundle cannot be read, or has no deployment graph.
        PrecisionError: the variant cannot be made.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    if not evidence.calibration or not evidence.pictures:
        raise PrecisionError("no images to calibrate and check on: give --images")
    seconds: dict[str, float] = {}
    targets = choose_targets(options, any(picture.truth is not None for picture in evidence.pictures))
    opened = read_bundle(bundle)
    content = opened.read_file(opened.deploy.file)
    model = parse_onnx(content, bundle / opened.deploy.file)
    reference = Reference(model, evidence.pictures, reader, options.threads, show)
    builder = VariantBuilder(fold_norms(model), options)
    builder.calibrate(evidence, show, seconds)
    with _measure(seconds, "build"):
        built = builder.build()
    with _measure(seconds, "check"):
        assessment = assess(reference, built.model)
    misses = assessment.find_misses(targets)
    ranking: list[Sensitivity] = []
    if options.sensitivity == "always" or (misses and options.sensitivity == "auto"):
        with _measure(seconds, "sweep"):
            ranking = sweep_layers(reference, lambda alone: builder.build(alone).model, builder.candidates)
    if misses and ranking:
        tried: dict[int, tuple[BuiltGraph, Assessment]] = {}

        def passes(alone: Sequence[str]) -> bool:
            candidate = builder.build(alone)
            tried[len(alone)] = candidate, assess(reference, candidate.model)
            return not tried[len(alone)][1].find_misses(targets)

        with _measure(seconds, "search"):
            fewest = find_fewest([row.node for row in ranking], passes)
        if fewest is not None:
            built, assessment = tried[len(fewest)]
            misses = ()
    with _measure(seconds, "run"):
        shipped = run_as_shipped(reference, built.model, assessment.agreement.share)
    calibration = {
        "method": options.method,
        "percentile": options.percentile if options.method == "percentile" else None,
        "images": len(evidence.calibration),
        "activations": builder.codes,
        "weight_bits": options.code_bits if options.precision == "int8" else None,
        "rest": options.rest,
        "ranges": builder.reaches,
    }
    left_alone = built.kept.keys() & {*builder.candidates, *builder.named}
    verification = {
        "reference": "fp32",
        "reference_sha256": hashlib.sha256(content).hexdigest(),
        "source": evidence.source,
        "targets": asdict(targets),
        "passed": not misses,
        "misses": list(misses),
        "left_alone": sorted({layer_of(name) for name in left_alone}),
        **assessment.to_json(),
        "weights": None if built.loss is None else asdict(built.loss),
        "onnxruntime_cpu": shipped,
        "sensitivity": [row.to_json() for row in ranking],
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "atrous_version": __version__,
    }
    entry = {
        "precision": options.precision,
        "kept": built.kept,
        "calibration": calibration if builder.codes is not None else None,
        "verification": verification,
    }
    return VariantResult(built.model.SerializeToString(), entry, assessment, misses, tuple(ranking))


def write_variant(bundle: Path, result: VariantResult, *, keep_anyway: bool = False) -> Variant:
    """Add a variant to its bundle; returns the manifest's entry.

    Raises:
        TargetMissedError: it misses a target and `keep_anyway` is not set; nothing is written.
        BundleError: the bundle changed meanwhile.
        OutputError: the folder cannot be written.
    """
    if result.misses and not keep_anyway:
        precision, misses = result.entry["precision"], "; ".join(result.misses)
        diverges = result.assessment.diverges_at
        place = f'"{diverges.layer}" adds the most noise; ' if diverges is not None else ""
        more = "" if result.sensitivities else "let --sensitivity find layers to leave alone, "
        raise TargetMissedError(
            f"{bundle}: no {precision} variant was written: {misses}. {place}{more}keep layers with --keep, try "
            "another --method or more images, or lower the target"
        )
    entry = {"file": f"deploy.{result.entry['precision']}.onnx", **result.entry}
    graph = describe_graph(onnx.load_from_string(result.model))
    variant = Variant.model_validate_json(json.dumps(entry))
    return add_variant(bundle, variant, result.model, graph, result.entry["verification"]["reference_sha256"])


@contextmanager
def _measure(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Record the duration of a step."""
    start_s = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start_s
