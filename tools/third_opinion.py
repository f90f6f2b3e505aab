"""OpenCV 4 as a third opinion beside atrous and real Caffe: `python -m tools.third_opinion SHARED`.

OpenCV's Caffe importer runs every recorded net, as published, on the recorded input, and its outputs are compared with
ours. If OpenCV cannot read the published file, it gets the net as plain V2 text, with our values in place of layers
that it lacks. If the two differ, the recording of real Caffe decides which is right, and the first differing layer is
looked up among OpenCV's known errors (`opencv_limits`). There is no list of exceptions.

Exits with 1 if Caffe agrees with OpenCV, or with neither, on any recording.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from atrous.converter.check.opencv_process import Array, OpenCv, OpenCvError

from .opencv_limits import PUBLISHED_ONLY, explain_difference
from .recordings import Recording, compare_blobs, find_recordings

if TYPE_CHECKING:
    from atrous.converter import Net

    from .opencv_nets import Run

#: largest absolute difference, relative to max(1, largest absolute value), as everywhere in the project
TOLERANCE = 1e-4
VERDICTS = ("agree", "differ", "OpenCV refuses", "Caffe refuses", "atrous refuses")
#: values of `Opinion.caffe` if the recording cannot decide
ROUNDING, NOT_RECORDED = "both within rounding", "neither: not recorded"
TEXTS = ("published", "plain", "part")


@dataclass
class Opinion:
    """The third opinion on one recording.

    Attributes:
        name: `<kind>/<folder>`.
        verdict: one of VERDICTS.
        text: the input of OpenCV: the file as `published`; if that is rejected, the net as `plain` text, or the `part`
            of it whose layers OpenCV has.
        error: largest difference between OpenCV and atrous.
        caffe: the side that real Caffe agrees with, if the two differ.
        detail: the difference, the part that ran, or the reason of a refusal.
        why: the known error or limit of OpenCV behind it, if any.
    """

    name: str
    verdict: str
    text: str = ""
    error: float = 0.0
    caffe: str = ""
    detail: str = ""
    why: str = ""


def ask_opencv(recording: Recording, opencv: OpenCv, folder: Path) -> Opinion:
    """Run one recording in atrous and in OpenCV; `folder` receives the files for OpenCV."""
    from atrous.converter import run_blobs, to_torch
    from atrous.errors import ConverterError

    from .conditioning import Spread
    from .opencv_nets import run_plain, run_published

    if recording.expected_error is not None:
        return Opinion(recording.name, "Caffe refuses", detail=recording.expected_error.splitlines()[0])
    try:
        net = recording.read_net()
    except ConverterError as error:
        return Opinion(recording.name, "atrous refuses", detail=str(error).splitlines()[0])
    inputs = {name: array for name, array in recording.inputs().items() if name in {blob.name for blob in net.inputs}}
    module = to_torch(net)
    ours = run_blobs(module, inputs)
    try:
        run = run_published(opencv, *_published_files(recording, net, folder), net, inputs)
        opinion = _judge(recording, run, ours)
        opinion.text = "published"
    except OpenCvError as refusal:
        try:
            run = run_plain(opencv, net, inputs | ours, folder)
        except OpenCvError as error:
            return Opinion(recording.name, "OpenCV refuses", detail=str(refusal), why=error.why)
        opinion = _judge(recording, run, ours)
        opinion.text = "part" if run.missing else "plain"
        if run.missing and opinion.verdict == "agree":
            opinion.detail, opinion.why = f"{run.layers} of {len(net.layers)} layers", "; ".join(run.missing)
    if opinion.caffe == "neither":
        fed = {f"{name}:{name}": array for name, array in inputs.items()}  # the key of an Input layer in the recording
        spread = Spread(recording, module, inputs)
        if spread.find_unexcused(compare_blobs(recording, fed | ours), TOLERANCE) is None:
            opinion.caffe = ROUNDING
    if opinion.caffe == ROUNDING:
        opinion.why = "float32 does not determine it: other roundings move it as far"
    elif opinion.caffe == NOT_RECORDED:
        opinion.why = "its values are random, so they are not recorded"
    elif opinion.verdict == "differ":
        opinion.why = _find_reason(recording, net, opencv, folder, inputs | ours)
    return opinion


def _published_files(recording: Recording, net: Net, folder: Path) -> tuple[Path, Path | None]:
    """The files that real Caffe read; seeded and HDF5 weights, which OpenCV cannot read, are written as caffemodel."""
    from atrous.converter.files.writer import write_caffemodel

    prototxt = recording.prototxt if recording.kind == "real" else recording.folder / "net.prototxt"
    weights = recording.weights()
    if isinstance(weights, Path) and weights.suffix != ".h5":
        return prototxt, weights
    if not net.parameters:
        return prototxt, None
    layers = {layer.name: layer for layer in reversed(net.layers) if layer.parameters}  # the first of each name
    rows = [(name, layer.type, [net.parameters[k] for k in layer.parameters]) for name, layer in layers.items()]
    written = folder / "written.caffemodel"
    write_caffemodel(written, "written", rows)
    return prototxt, written


def _judge(recording: Recording, run: Run, ours: Mapping[str, Array]) -> Opinion:
    """Compare top by top and describe the first difference."""
    from .opencv_nets import difference

    worst = 0.0
    for key, top in run.tops.items():
        error, detail = difference(top, run.values[key], ours[key])
        worst = max(worst, error)
        if not error <= TOLERANCE:
            caffe = _ask_caffe(recording, key, ours[key], run.values[key])
            return Opinion(recording.name, "differ", error=error, caffe=caffe, detail=f"{key}: {detail}")
    return Opinion(recording.name, "agree", error=worst)


def _ask_caffe(recording: Recording, key: str, ours: Array, theirs: Array) -> str:
    """The side that the recording of real Caffe agrees with."""
    right = []
    for name, blob in (("atrous", ours), ("OpenCV", theirs)):
        found = [comparison.error for comparison in compare_blobs(recording, {key: blob}) if comparison.key == key]
        if not found:
            return NOT_RECORDED
        if found[0] <= TOLERANCE:
            right.append(name)
    return right[0] if len(right) == 1 else "both" if right else "neither"


def _find_reason(recording: Recording, net: Net, opencv: OpenCv, folder: Path, ours: Mapping[str, Array]) -> str:
    """Run the net as plain text and explain the first layer that differs.

    A top does not differ if both sides are within the tolerance of Caffe.
    """
    from .opencv_nets import difference, run_plain

    try:
        run = run_plain(opencv, net, ours, folder, all_tops=True)
    except OpenCvError:
        return ""
    for key, top in run.tops.items():
        if not difference(top, run.values[key], ours[key])[0] <= TOLERANCE:
            if _ask_caffe(recording, key, ours[key], run.values[key]) == "both":
                continue
            assert top.producer is not None, "only tops of layers are compared"
            return explain_difference(top.producer)
    return PUBLISHED_ONLY


def main(arguments: list[str] | None = None) -> int:
    """Run the sweep; see the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path, help="folder that holds goldens/ and weights/")
    parser.add_argument(
        "--kind", action="append", choices=["tiny", "nets", "real"], help="kind of recordings to run (repeatable)"
    )
    parser.add_argument("--only", default="*", help="glob pattern of recording names")
    parser.add_argument("--json", type=Path, help="file to write the opinions to")
    options = parser.parse_args(arguments)
    opinions: list[Opinion] = []
    with OpenCv() as opencv, tempfile.TemporaryDirectory() as folder:
        for kind in options.kind or ["tiny", "nets", "real"]:
            for recording in find_recordings(options.shared, kind, options.only):
                opinions.append(ask_opencv(recording, opencv, Path(folder)))
                gc.collect()
                print(describe(opinions[-1]), flush=True)
    print_tables(opinions)
    if options.json:
        options.json.write_text(json.dumps([asdict(opinion) for opinion in opinions], indent=1))
    return 1 if any(o.verdict == "differ" and o.caffe in ("OpenCV", "neither") for o in opinions) else 0


def describe(opinion: Opinion) -> str:
    """The opinion in one line."""
    caffe = f"; Caffe agrees with {opinion.caffe}" if opinion.caffe else ""
    why = f"  [{opinion.why}]" if opinion.why else ""
    line = f"{opinion.verdict:15}{opinion.text:10}{opinion.error:9.2e}  {opinion.name}  {opinion.detail}{caffe}{why}"
    return line.rstrip()


def print_tables(opinions: Iterable[Opinion]) -> None:
    """Print the counts by kind, by the side that Caffe agrees with, and by known error and limit."""
    rows = list(opinions)
    for kind in dict.fromkeys(row.name.split("/")[0] for row in rows):
        chosen = [row for row in rows if row.name.startswith(f"{kind}/")]
        print(f"{kind:5} {len(chosen):4} recordings: " + ", ".join(_count_verdicts(chosen)))
    _print_counts(rows, "differ", "if they differ, Caffe agrees with", lambda row: row.caffe)
    _print_counts(rows, "differ", "why they differ", lambda row: row.why or "not explained")
    _print_counts(rows, "OpenCV refuses", "why OpenCV refuses", lambda row: row.why or "not explained")


def _count_verdicts(rows: list[Opinion]) -> list[str]:
    parts = []
    for verdict in VERDICTS:
        texts = Counter(row.text for row in rows if row.verdict == verdict)
        counts = ", ".join(f"{texts[text]} {text}" for text in TEXTS if texts[text])
        if texts:
            parts.append(f"{texts.total()} {verdict}" + (f" ({counts})" if counts else ""))
    return parts


def _print_counts(rows: list[Opinion], verdict: str, title: str, of: Callable[[Opinion], str]) -> None:
    counts = Counter(of(row) for row in rows if row.verdict == verdict)
    if counts:
        print(f"{title}:")
        for text, number in counts.most_common():
            print(f"  {number:4}  {text}")


if __name__ == "__main__":
    sys.exit(main())
