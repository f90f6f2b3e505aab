"""Reading a full-size DeepLab-LargeFOV: `python -m tools.bench_reading [--runs 5]`.

Twenty million seeded weights are written twice, as DeepLab v1 wrote them (V1, `hole`) and as OpenCV reads them (V2,
`dilation`). Each reader opens its file and builds its net in fresh processes; the medians of time and peak memory
above the interpreter with the libraries loaded are printed. Both nets then label the same noise: a benchmark of
readers that disagree is meaningless. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atrous.scripts import console

#: (kind, name, ...) of VGG-16 as DeepLab-LargeFOV changes it: convolutions (outputs, kernel, hole), poolings (stride)
_VGG: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    *(("conv", "conv1_1", (64, 3, 1)), ("conv", "conv1_2", (64, 3, 1)), ("pool", "pool1", (2,))),
    *(("conv", "conv2_1", (128, 3, 1)), ("conv", "conv2_2", (128, 3, 1)), ("pool", "pool2", (2,))),
    *(("conv", f"conv3_{index}", (256, 3, 1)) for index in (1, 2, 3)),
    ("pool", "pool3", (2,)),
    *(("conv", f"conv4_{index}", (512, 3, 1)) for index in (1, 2, 3)),
    ("pool", "pool4", (1,)),
    *(("conv", f"conv5_{index}", (512, 3, 2)) for index in (1, 2, 3)),
    *(("pool", "pool5", (1,)), ("average", "pool5a", (1,))),
    *(("conv", "fc6", (1024, 3, 12)), ("conv", "fc7", (1024, 1, 1)), ("score", "fc8_voc12", (21, 1, 1))),
)
#: side of the noise that both nets label; the net takes 8k + 1
SIDE = 65
TOLERANCE = 1e-4
READERS = ("atrous", "OpenCV")


def write_prototxt(version: str) -> str:
    """DeepLab-LargeFOV as text, V1 with `hole` or V2 with `dilation`."""
    is_old = version == "V1"

    def layer(kind: str, name: str, bottom: str, top: str, body: str = "") -> str:
        key, shown = ("layers", kind.upper()) if is_old else ("layer", f'"{kind}"')
        return f'{key} {{ name: "{name}" type: {shown} bottom: "{bottom}" top: "{top}" {body} }}\n'

    text = f'name: "DeepLab-LargeFOV"\ninput: "data"\ninput_dim: 1 input_dim: 3 input_dim: {SIDE} input_dim: {SIDE}\n'
    bottom = "data"
    for kind, name, numbers in _VGG:
        if kind in ("conv", "score"):
            outputs, kernel, hole = numbers
            hollow = f"{'hole' if is_old else 'dilation'}: {hole}" if hole > 1 else ""
            pad = hole * (kernel // 2)
            body = f"convolution_param {{ num_output: {outputs} kernel_size: {kernel} pad: {pad} {hollow} }}"
            text += layer("Convolution", name, bottom, name, body)
            if kind == "conv":
                text += layer("ReLU", f"relu_{name}", name, name)
        else:
            method = "MAX" if kind == "pool" else "AVE"
            body = f"pooling_param {{ pool: {method} kernel_size: 3 stride: {numbers[0]} pad: 1 }}"
            text += layer("Pooling", name, bottom, name, body)
        bottom = name
    return text + layer("Interp", "fc8_interp", bottom, "fc8_interp", "interp_param { zoom_factor: 8 }")


def write_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Reader -> (prototxt, caffemodel), with the same seeded weights of a spread that keeps every blob near 1."""
    import numpy as np

    from atrous.converter import read_net
    from atrous.converter.files.prototxt import read_prototxt
    from atrous.converter.files.writer import write_caffemodel

    random = np.random.default_rng(0)
    weights: dict[str, list[Any]] = {}
    for layer in read_net(write_prototxt("V1")).layers:
        shapes = layer.operator.weight_shapes()
        if shapes:
            spread = np.float32((2 / np.prod(shapes[0][1:])) ** 0.5)
            kernel = random.standard_normal(shapes[0], np.float32) * spread
            weights[layer.name] = [kernel, random.standard_normal(shapes[1], np.float32)]
    files = {}
    for reader, version in zip(READERS, ("V1", "V2"), strict=True):
        prototxt, caffemodel = folder / f"{version}.prototxt", folder / f"{version}.caffemodel"
        prototxt.write_text(write_prototxt(version))
        write_caffemodel(caffemodel, read_prototxt(prototxt), weights, format=version)
        files[reader] = prototxt, caffemodel
    return files


@dataclass(frozen=True)
class Reading:
    """One run: seconds to a net that is ready to run, and peak bytes above the interpreter with its libraries."""

    seconds: float
    peak_bytes: int


def measure(reader: str, prototxt: Path, caffemodel: Path, scores: Path) -> Reading:
    """Read in this process; leaves the net's scores of the noise, 1 x 21 x SIDE x SIDE, in a .npy file."""
    import numpy as np

    noise = np.random.default_rng(1).standard_normal((1, 3, SIDE, SIDE), np.float32)
    run = _read_with_atrous if reader == "atrous" else _read_with_opencv
    steps = run(prototxt, caffemodel, noise)
    next(steps)
    before, start_s = _peak_bytes(), time.perf_counter()
    next(steps)
    found = Reading(time.perf_counter() - start_s, _peak_bytes() - before)
    np.save(scores, next(steps))
    return found


def _read_with_atrous(prototxt: Path, caffemodel: Path, noise: Any) -> Iterator[Any]:
    """Load libraries, read, run: one step each."""
    import torch
    import torch.fx

    from atrous.converter import read_net, to_torch

    _warm_up(torch)
    yield
    module = to_torch(read_net(prototxt, caffemodel))
    yield
    with torch.no_grad():
        yield module(torch.from_numpy(noise)).numpy()


def _warm_up(torch: Any) -> None:
    torch.nn.Conv2d(1, 1, 1)(torch.zeros(1, 1, 1, 1))


def _read_with_opencv(prototxt: Path, caffemodel: Path, noise: Any) -> Iterator[Any]:
    import cv2

    yield
    net = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
    yield
    net.setInput(noise)
    yield net.forward()


def _peak_bytes() -> int:
    """Peak memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would include the parent's memory at the fork
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run_apart(reader: str, prototxt: Path, caffemodel: Path, scores: Path) -> Reading:
    """Measure in a fresh process."""
    arguments = ["--measure", reader, str(prototxt), str(caffemodel), str(scores)]
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name if __spec__ else __name__, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in map(os.path.abspath, sys.path))},
    )
    if done.returncode:
        raise SystemExit(f"{reader} failed:\n{done.stderr}")
    return Reading(**json.loads(done.stdout.splitlines()[-1]))


def check_agreement(scores: dict[str, Path]) -> float:
    """The largest difference of the readers' scores, as a share of the largest score.

    Raises:
        SystemExit: if it is out of tolerance.
    """
    import numpy as np

    ours, theirs = (np.load(scores[reader]).astype(np.float64) for reader in READERS)
    if ours.shape != theirs.shape or not np.isfinite(ours).all() or np.ptp(ours) == 0:
        raise SystemExit(f"the readers' scores cannot be compared: {ours.shape} and {theirs.shape}")
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    if error > TOLERANCE:
        raise SystemExit(f"the two nets do not compute the same: error {error:.3g}, tolerance {TOLERANCE:g}")
    return error


def compare_readers(runs: int) -> dict[str, Any]:
    """Measure both readers in turn, `runs` times each, after one run that only warms the file cache."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder))
        scores = {reader: Path(folder) / f"{reader}.npy" for reader in READERS}
        found: dict[str, list[Reading]] = {reader: [] for reader in READERS}
        with console.show_progress("reading", (runs + 1) * len(READERS)) as advance:
            for turn in range(runs + 1):
                for reader in READERS:
                    reading = run_apart(reader, *files[reader], scores[reader])
                    found[reader] += [reading] if turn else []
                    advance(1)
        error = check_agreement(scores)
        weights_bytes = files["atrous"][1].stat().st_size
    return {
        "weights_mb": round(weights_bytes / 1e6, 1),
        "runs": runs,
        "error": error,
        "readers": {
            reader: {
                "seconds": round(statistics.median(r.seconds for r in readings), 4),
                "peak_mb": round(statistics.median(r.peak_bytes for r in readings) / 1e6, 1),
                "peak_per_weights": round(statistics.median(r.peak_bytes for r in readings) / weights_bytes, 3),
            }
            for reader, readings in found.items()
        },
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; see the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="number of runs of each reader; medians are printed")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        reader, *paths = options.measure
        reading = measure(reader, *map(Path, paths))
        print(json.dumps({"seconds": reading.seconds, "peak_bytes": reading.peak_bytes}))
        return 0
    result = compare_readers(max(1, options.runs))
    rows = [
        (reader, f"{row['seconds']:.3f}", f"{row['peak_mb']:.1f}", f"{row['peak_per_weights']:.2f}")
        for reader, row in result["readers"].items()
    ]
    print(f"reading {result['weights_mb']} MB of weights and building the net, median of {result['runs']} runs")
    console.print_table(("reader", "seconds", "peak MB", "peak / weights"), rows)
    print(f"both nets give the same scores: largest difference {result['error']:.1g} of the largest score")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
