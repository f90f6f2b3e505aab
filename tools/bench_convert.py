"""Benchmark of converting and verifying whole nets: `python -m tools.bench_convert SHARED [--only 'deeplab*']`.

Every net of the corpus that matches the pattern gets a caffemodel with seeded weights and is converted at 513 x 513 by
the `convert` command in a fresh process: reading, torch, ONNX, deploy.onnx, the comparison of torch and ONNX Runtime
blob by blob, the bundle. Seconds and peak memory are those of that process. A row says `converted` only if the net
passed verification, so every time belongs to a correct result. The last line is one JSON object.

Exits with 1 if a conversion failed or took longer than `--limit`.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .corpus import find_prototxts

if TYPE_CHECKING:
    from atrous.converter import Net

SIDE = 513
VARIABLES = {"NUM_LABELS": "21"}


@dataclass(frozen=True)
class Conversion:
    """One net: `converted`, `torch only` (no ONNX form, so nothing to verify), `refused` or `failed`.

    Attributes:
        name: the net's folder in the corpus.
        verdict: one of the four results.
        seconds: wall time of the whole command.
        cpu_seconds: CPU time over all threads, which other load affects less.
        peak_mib: largest resident memory of its process.
        parameters: number of float32 parameters, shared ones counted once.
        worst: the largest error of verification, relative to max(1, largest value of the blob).
        reason: reason of a refusal.
    """

    name: str
    verdict: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mib: float = 0.0
    parameters: int = 0
    worst: float = 0.0
    reason: str = ""


def prepare_net(path: Path, weights: Path) -> tuple[dict[str, tuple[int, ...]], int]:
    """Write seeded weights for a net at 513 x 513; return the input shapes and the number of parameters."""
    from atrous.converter import read_net, reshape_net, write_caffemodel

    net = read_net(path, variables=VARIABLES, input_shapes=_guess_shapes(path))
    images = [blob.name for blob in net.inputs if len(blob.shape) == 4 and blob.shape[1] == 3]
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(images, (1, 3, SIDE, SIDE))
    net = reshape_net(net, shapes)
    write_caffemodel(weights, net.name or "net", list(make_weights(net)))
    return shapes, net.parameter_count()


def _guess_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Guess shapes for the tops of data layers without sizes."""
    from atrous.converter.files.prototxt import read_prototxt
    from atrous.converter.graph.select import define_net

    tops = define_net(read_prototxt(path, variables=VARIABLES)).input_tops
    unknown = [top.top for top in tops if top.shape is None]
    known = {"data": (1, 3, SIDE, SIDE), "label": (1, 1, SIDE, SIDE), "data_dim": (1, 1, 1, 2)}
    return {name: known.get(name, (1, 3, SIDE, SIDE)) for name in unknown}


def make_weights(net: Net) -> Sequence[tuple[str, str, list[Any]]]:
    """Draw (layer, type, blobs): normal values with std sqrt(2 / fan-in), which keeps every blob near 1."""
    random = np.random.default_rng(0)
    rows: dict[str, tuple[str, str, list[Any]]] = {}
    made: dict[Any, Any] = {}
    for layer in net.layers:
        for key, shape in zip(layer.parameters, layer.operator.weight_shapes(), strict=True):
            if key not in made:
                made[key] = _make_blob(random, layer.type, key.index, shape)
        if layer.parameters and layer.name not in rows:
            rows[layer.name] = (layer.name, layer.type, [made[key] for key in layer.parameters])
    return list(rows.values())


def _make_blob(random: np.random.Generator, kind: str, index: int, shape: tuple[int, ...]) -> Any:
    if kind in ("BatchNorm", "BN", "Scale"):  # means and shifts are 0, all others 1
        zeros = {"BatchNorm": (0,), "BN": (1, 2), "Scale": (1,)}[kind]
        return np.full(shape, 0.0 if index in zeros else 1.0, np.float32)
    inputs = max(1, int(np.prod(shape[1:])))
    return (random.standard_normal(shape, np.float32) * np.float32((2 / inputs) ** 0.5)).astype(np.float32)


def _try_prepare(path: Path, weights: Path) -> tuple[dict[str, tuple[int, ...]], int, str]:
    """Call :func:`prepare_net`; also return the error message, or ""."""
    from atrous.errors import ConverterError

    try:
        return *prepare_net(path, weights), ""
    except ConverterError as error:
        return {}, 0, str(error).splitlines()[0]


def convert_net(path: Path, folder: Path) -> Conversion:
    """Prepare and convert one net."""
    name, weights, bundle = path.parent.name, folder / "net.caffemodel", folder / "bundle"
    # Prepare in another process: at the fork, a child's peak memory starts at its parent's.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        shapes, parameters, refusal = pool.submit(_try_prepare, path, weights).result()
    if refusal:
        return Conversion(name, "refused", reason=refusal)
    command = [sys.executable, "-m", "atrous.scripts.main", "convert", str(path), str(weights), "-o", str(bundle)]
    command += ["--json", "--force"]
    for input_name, shape in shapes.items():
        command += ["--input", f"{input_name}={','.join(map(str, shape))}"]
    for variable, value in VARIABLES.items():
        command += ["--set", f"{variable}={value}"]
    code, answer, seconds, cpu_seconds, peak_mib = run_measured(command)
    if code == 0:
        stages = answer["manifest"]["verification"]
        worst = max((stage["worst_error"] for stage in stages), default=0.0)
        verdict = "converted" if stages else "torch only"
        return Conversion(name, verdict, seconds, cpu_seconds, peak_mib, parameters, worst)
    verdict = "refused" if code == 2 else "failed"
    reason = str(answer.get("error", {}).get("message", "no answer")).splitlines()[0]
    return Conversion(name, verdict, seconds, cpu_seconds, peak_mib, parameters, reason=reason)


def run_measured(command: Sequence[str]) -> tuple[int, dict[str, Any], float, float, float]:
    """Run a fresh process; return its exit code, JSON output, wall and CPU seconds, and peak memory in MiB."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        output.seek(0)
        text = output.read().decode()
    answer = json.loads(text) if text.startswith("{") else {}
    return process.returncode, answer, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; see the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path, help="folder that holds corpus/")
    parser.add_argument("--only", default="deeplab*", help="glob pattern of the nets' folders")
    parser.add_argument("--limit", type=float, default=60.0, help="time limit of each conversion in seconds")
    options = parser.parse_args(arguments)
    rows: list[Conversion] = []
    for path in find_prototxts(options.shared / "corpus"):
        if fnmatch.fnmatch(path.parent.name, options.only):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(convert_net(path, Path(folder)))
            row = rows[-1]
            cost = f"{row.seconds:6.1f} s {row.cpu_seconds:6.1f} s CPU {row.peak_mib:7.0f} MiB"
            print(f"{row.verdict:11}{cost}  {row.name}  {row.reason}".rstrip(), flush=True)
    print(json.dumps({"side": SIDE, "limit_s": options.limit, "nets": [asdict(row) for row in rows]}))
    return 1 if any(row.verdict == "failed" or row.seconds > options.limit for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
