"""Run the ONNX files of published nets in OpenCV 5: `ATROUS_OPENCV=PYTHON python -m tools.opencv_corpus SHARED`.

Every net of the corpus is exported with seeded weights, runs at a small size in ONNX Runtime and in OpenCV's new
engine, and the outputs are compared. Prints each result with OpenCV's reason, and the counts. PYTHON is an interpreter
with `opencv-python-headless>=5`.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import random
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atrous.converter import Net, export_onnx, to_torch
from atrous.converter.check.opencv import compare_outputs, run_in_onnx_runtime
from atrous.converter.check.opencv_process import INTERPRETER, OpenCv, OpenCvError
from atrous.converter.check.verify import verification_shapes
from atrous.errors import ConverterError

from .corpus import find_prototxts, read_corpus_net

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Reading:
    """The result of one net: `equal`, `differs`, `refused` (by OpenCV) or `no ONNX`."""

    name: str
    verdict: str
    detail: str = ""
    error: float = 0.0
    seconds: float = 0.0


def check_net(path: Path, opencv: OpenCv, folder: Path) -> Reading:
    """Export one net and compare its outputs."""
    started, name = time.perf_counter(), path.parent.name
    try:
        net = read_small_net(path, folder)
        module = to_torch(net)
        draw_weights(module)
        content, inputs, expected = _run_finite(net, module)
    except (ConverterError, ValueError) as error:  # ValueError: a model above protobuf's 2 GiB
        return Reading(name, "no ONNX", str(error).splitlines()[0])
    del module
    try:
        found = opencv.run_onnx(content, inputs, list(expected))
    except OpenCvError as error:
        return Reading(name, "refused", str(error), seconds=time.perf_counter() - started)
    rows = list(compare_outputs(expected, found))
    worst = max(rows, key=lambda row: row.error)
    verdict = "equal" if worst.error <= TOLERANCE else "differs"
    detail = f"{worst.key} {worst.shape} {found[worst.key].shape}" if verdict == "differs" else _describe(expected)
    return Reading(name, verdict, detail, worst.error, time.perf_counter() - started)


def _run_finite(net: Net, module: Any) -> tuple[bytes, dict[str, Any], dict[str, Any]]:
    """The model, its inputs and its outputs; infinite outputs compare little, so smaller weights are tried then."""
    import torch

    shapes = verification_shapes(net)[0]
    for _ in range(3):
        content = export_onnx(net, module).SerializeToString()
        inputs, expected = run_in_onnx_runtime(content, shapes, spread=1.0)
        if all(np.isfinite(array).all() for array in expected.values()):
            break
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(0.7)
    return content, inputs, expected


def read_small_net(path: Path, folder: Path) -> Net:
    """The net with an eighth of the channels where there are many, if it is still a net; `folder` receives the text."""
    text = path.read_text(encoding="utf-8", errors="replace")
    small = re.sub(r"(num_output|group)(\s*:\s*)(\d+)", _thin, text)
    if small != text:
        changed = folder / "net.prototxt"
        changed.write_text(small)
        try:
            return read_corpus_net(changed)
        except ConverterError:  # another number of the file depends on it
            pass
    return read_corpus_net(path)


def _thin(found: re.Match[str]) -> str:
    number = int(found[3])
    return f"{found[1]}{found[2]}{number // 8 if number >= 128 and number % 64 == 0 else number}"


def draw_weights(module: Any) -> None:
    """Seeded weights in place of the fillers, which are zero in many deployment files; values stay near 1."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            fan_in = parameter.numel() // parameter.shape[0] if parameter.ndim else 1
            if fan_in > 1:
                parameter.copy_(noise * (1.5 / fan_in) ** 0.5)
            else:
                parameter.add_(noise * 0.1)
        for name, buffer in module.named_buffers():
            if name.endswith("running_var"):
                buffer.fill_(1.0)


def _describe(outputs: Mapping[str, Any]) -> str:
    """Name outputs that compare nothing: all zero, or not finite."""
    empty = [name for name, array in outputs.items() if not np.isfinite(array).all() or not np.any(array)]
    return f"zero or not finite: {', '.join(empty)}" if empty else ""


def main(arguments: list[str] | None = None) -> int:
    """Run the sweep; see the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path, help="folder that holds corpus/")
    parser.add_argument("--only", default="*", help="glob pattern of nets")
    parser.add_argument("--sample", type=int, help="run this many nets, drawn with a fixed seed")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    options = parser.parse_args(arguments)
    readings = []
    with (
        OpenCv(os.environ.get(INTERPRETER) or sys.executable, timeout_s=300.0) as opencv,
        tempfile.TemporaryDirectory() as folder,
    ):
        print(f"OpenCV {opencv.version()}")
        paths = [p for p in find_prototxts(options.shared / "corpus") if fnmatch.fnmatch(p.parent.name, options.only)]
        if options.sample:
            paths = random.Random(0).sample(paths, min(options.sample, len(paths)))
        for path in paths:
            try:
                reading = check_net(path, opencv, Path(folder))
            except Exception as error:  # report a crash and continue the sweep
                traceback.print_exc()
                reading = Reading(path.parent.name, "crashed", f"{type(error).__name__}: {str(error)[:160]}")
            readings.append(reading)
            print(
                f"{reading.verdict:9}{reading.error:9.1e}{reading.seconds:7.1f} s  {reading.name}  {reading.detail}",
                flush=True,
            )
            if options.json:
                options.json.write_text(json.dumps([asdict(reading) for reading in readings], indent=1))
    counts = Counter(reading.verdict for reading in readings)
    print(f"{len(readings)} nets: " + ", ".join(f"{number} {verdict}" for verdict, number in counts.most_common()))
    return 1 if counts["crashed"] or counts["differs"] else 0


if __name__ == "__main__":
    sys.exit(main())
