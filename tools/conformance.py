"""Compare the converter with every recording of real Caffe, blob by blob, in torch and in ONNX Runtime.

`python -m tools.conformance SHARED [--kind tiny] [--only PATTERN] [--opencv]` prints a row for each recording and a
table by kind; there is no list of exceptions. Exits with 1 if a blob differs or a refusal is missing. `--opencv` also
compares the outputs in the OpenCV 5 of $ATROUS_OPENCV; its verdicts do not change the exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
from onnx.utils import Extractor
from torch import fx

from atrous.converter import Net, export_onnx, run_blobs, to_torch
from atrous.converter.check.opencv_process import INTERPRETER, OpenCv, OpenCvError
from atrous.converter.export.onnx_export import value_names
from atrous.converter.modules import detection
from atrous.errors import ConverterError, ExportError

from .conditioning import Spread
from .recordings import Comparison, Recording, compare_blobs, find_recordings, measure

#: design.md: largest absolute difference against real Caffe, relative to max(1, the blob's largest absolute value)
TOLERANCE = 1e-4


@dataclass
class Outcome:
    """The result of one recording.

    Attributes:
        name: `<kind>/<folder>`.
        torch: passed, failed, refused, or conditioned: other roundings move every blob out of tolerance as far
            (`conditioning`), so float32 does not determine it. In ONNX also conditioned: torch passes, one blob is
            out of tolerance, and its layer alone, on torch's bottoms, computes what torch's layer does.
        onnx: passed, failed, conditioned, refused (no ONNX form) or skipped.
        opencv: the same of the net's outputs in OpenCV 5, if torch and ONNX Runtime pass; refused by OpenCV.
        worst: largest error of torch, and of ONNX Runtime.
        detail: the first difference, or the message of the refusal.
        families: the layer types of the net.
    """

    name: str
    torch: str
    onnx: str = "skipped"
    opencv: str = "skipped"
    worst: tuple[float, float] = (0.0, 0.0)
    detail: str = ""
    families: list[str] = field(default_factory=list)


def check_recording(
    recording: Recording, *, onnx: bool = True, opencv: OpenCv | None = None, tolerance: float = TOLERANCE
) -> Outcome:
    """Convert a recorded net and compare every blob in torch and in ONNX Runtime, and the outputs in OpenCV."""
    try:
        net = recording.read_net()
        module = to_torch(net)
    except ConverterError as error:
        expected = recording.expected_error is not None
        return Outcome(recording.name, "refused" if expected else "failed", detail=str(error).splitlines()[0])
    families = sorted({layer.type for layer in net.layers})
    if recording.expected_error is not None:
        return Outcome(recording.name, "failed", detail="real Caffe refuses this file", families=families)
    inputs = {name: array for name, array in recording.inputs().items() if name in {b.name for b in net.inputs}}
    fed = {f"{name}:{name}": array for name, array in inputs.items()}  # the key of an Input layer in the recording
    judge = Judge(recording, net, module, inputs, tolerance)
    outcome = Outcome(recording.name, "passed", families=families)
    compared = compare_blobs(recording, fed | run_blobs(module, inputs))
    outcome.torch, outcome.detail = judge.decide(compared)
    onnx_worst = 0.0
    if onnx:
        try:
            model = export_onnx(net, module, all_blobs=True)
            computed = run_onnx(net, model, inputs)
        except ExportError as error:
            outcome.onnx = "refused"
            outcome.detail = outcome.detail or str(error)
        else:
            found = compare_blobs(recording, fed | computed)
            outcome.onnx, detail = judge.decide_alone(found) if outcome.torch == "passed" else ("failed", "")
            if outcome.onnx == "failed":
                outcome.onnx, detail = judge.decide(found)
            onnx_worst = largest_error(found)
            outcome.detail = outcome.detail or (detail and f"onnx: {detail}")
            if opencv is not None and outcome.onnx != "failed":
                outcome.opencv, detail = judge.ask_opencv(recording, model, opencv)
                outcome.detail = outcome.detail or (detail and f"opencv: {detail}")
    outcome.worst = (largest_error(compared), onnx_worst)
    return outcome


class Judge:
    """Judges the blobs of one net."""

    def __init__(
        self, recording: Recording, net: Net, module: fx.GraphModule, inputs: dict[str, Any], tolerance: float
    ) -> None:
        self._net, self._module, self._inputs = net, module, inputs
        self._types = {key: blob.producer.type for key, blob in net.recorded_tops() if blob.producer is not None}
        self._spread = Spread(recording, module, inputs)
        self._tolerance = tolerance

    def decide(self, comparisons: list[Comparison]) -> tuple[str, str]:
        """`passed`, `conditioned` or `failed`, and the blob that decides it."""
        first = next((c for c in comparisons if not c.error <= self._tolerance), None)
        if first is None:
            return "passed", ""
        wrong = self._spread.find_unexcused(comparisons, self._tolerance)
        chosen = wrong or first
        moved = self._spread.values.get(chosen.key, 0.0)
        words = chosen.detail or f"error {chosen.error:.2g}, other roundings move it by {moved:.2g}"
        return "failed" if wrong else "conditioned", f"{chosen.key} ({self._types.get(chosen.key, 'input')}): {words}"

    def decide_alone(self, comparisons: list[Comparison]) -> tuple[str, str]:
        """The same for ONNX Runtime where torch passes: by the layer alone, if one blob is out of tolerance."""
        wrong = [c for c in comparisons if not c.error <= self._tolerance]
        if not wrong:
            return "passed", ""
        if len(wrong) > 1 or wrong[0].detail:
            return "failed", ""
        key, error = wrong[0].key, wrong[0].error
        alone = measure_alone(self._net, self._module, self._inputs, key)
        words = f"{key} ({self._types.get(key, 'input')}): error {error:.2g}, with torch's bottoms {alone:.2g}"
        return "conditioned" if alone <= self._tolerance else "failed", words

    def ask_opencv(self, recording: Recording, model: onnx.ModelProto, opencv: OpenCv) -> tuple[str, str]:
        """The verdict on OpenCV's outputs, and its reason; skipped if none of them is recorded.

        The `model` loses its other outputs, which would keep OpenCV from fusing layers.
        """
        names = value_names(self._net)
        keys = {names[blob]: key for key, blob in self._net.recorded_tops() if blob in self._net.outputs}
        outputs = [output for output in model.graph.output if output.name in keys]
        del model.graph.output[:]
        model.graph.output.extend(outputs)
        try:
            found = opencv.run_onnx(model.SerializeToString(), self._inputs, list(keys))
        except OpenCvError as error:
            return "refused", str(error)
        compared = compare_blobs(recording, {keys[name]: array for name, array in found.items()})
        compared = [comparison for comparison in compared if comparison.key in keys.values()]
        return self.decide(compared) if compared else ("skipped", "")


def measure_alone(net: Net, module: fx.GraphModule, inputs: dict[str, Any], key: str) -> float:
    """The error in ONNX Runtime of one blob against torch, if its layer gets torch's bottoms.

    Equal scores of detections come in their own order in both, as TopK has them, and not in that of `std::sort`, which
    C++ leaves to the library.
    """
    tops = dict(net.recorded_tops()) | {blob.name: blob for blob in net.inputs}
    keys, names = {blob: name for name, blob in tops.items()}, value_names(net)
    layer = tops[key].producer
    assert layer is not None, "inputs are not compared"
    with mock.patch.object(detection, "sort_as_cpp", lambda scores: np.argsort(-np.array(scores), kind="stable")):
        values = run_blobs(module, inputs) | inputs
    # sizes are those of the net's inputs, whose values are not read
    given = {names[blob]: np.ascontiguousarray(values[keys[blob]]) for blob in (*net.inputs, *layer.bottoms)}
    part = Extractor(export_onnx(net, module, all_blobs=True)).extract_model(list(given), [names[tops[key]]])
    (found,) = run_model(part, [names[tops[key]]], given)
    return measure(values[key], found)


def largest_error(comparisons: list[Comparison]) -> float:
    """Over all blobs."""
    return max((comparison.error for comparison in comparisons), default=0.0)


def run_onnx(net: Net, model: onnx.ModelProto, inputs: dict[str, Any]) -> dict[str, Any]:
    """Every top of the net from ONNX Runtime on the CPU, by recording key; the model gives all blobs."""
    names = [output.name for output in model.graph.output]
    fed = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
    results = dict(zip(names, run_model(model, names, fed), strict=True))
    labels = value_names(net)
    return {key: results.get(labels[blob], inputs.get(blob.name)) for key, blob in net.recorded_tops()}


def run_model(model: onnx.ModelProto, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
    """The outputs in ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(outputs, inputs))


def main(arguments: list[str] | None = None) -> int:
    """Run the sweep; see the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path, help="folder that holds goldens/ and weights/")
    parser.add_argument(
        "--kind", action="append", choices=["tiny", "nets", "real"], help="kind of recordings to compare (repeatable)"
    )
    parser.add_argument("--only", default="*", help="glob pattern of recording names")
    parser.add_argument("--no-onnx", action="store_true", help="skip ONNX Runtime")
    parser.add_argument("--opencv", action="store_true", help=f"run OpenCV 5 too, in the Python of ${INTERPRETER}")
    parser.add_argument("--json", type=Path, help="file to write the outcomes to")
    options = parser.parse_args(arguments)
    outcomes: list[Outcome] = []
    with contextlib.ExitStack() as stack:
        opencv = None
        if options.opencv:
            opencv = stack.enter_context(OpenCv(os.environ.get(INTERPRETER) or sys.executable, timeout_s=600.0))
            print(f"OpenCV {opencv.version()}")
        for kind in options.kind or ["tiny", "nets", "real"]:
            for recording in find_recordings(options.shared, kind, options.only):
                try:
                    outcome = check_recording(recording, onnx=not options.no_onnx, opencv=opencv)
                except Exception as error:  # report a crash and continue the sweep
                    words = f"crash: {type(error).__name__}: {str(error)[:200]}"
                    outcome = Outcome(recording.name, "failed", detail=words)
                outcomes.append(outcome)
                gc.collect()
                print(
                    f"{outcome.torch:12}{outcome.onnx:12}{outcome.opencv:12} {outcome.worst[0]:9.2e} "
                    f"{outcome.worst[1]:9.2e}  {outcome.name}  {outcome.detail}",
                    flush=True,
                )
    print_table(outcomes)
    if options.json:
        options.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    return 1 if any("failed" in (outcome.torch, outcome.onnx) for outcome in outcomes) else 0


def print_table(outcomes: list[Outcome]) -> None:
    """Print the counts by kind and stage."""
    for kind in sorted({outcome.name.split("/")[0] for outcome in outcomes}):
        chosen = [outcome for outcome in outcomes if outcome.name.startswith(f"{kind}/")]
        counts = ", ".join(
            f"{stage} {dict(Counter(getattr(outcome, stage) for outcome in chosen))}"
            for stage in ("torch", "onnx", "opencv")
        )
        print(f"{kind:6} {len(chosen):4} recordings   {counts}")


if __name__ == "__main__":
    sys.exit(main())
