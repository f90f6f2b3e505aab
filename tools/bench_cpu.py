"""One net on one CPU with every available library: `python -m tools.bench_cpu [--net largefov] [--sweep] ...`.

ONNX Runtime, OpenVINO and torch through the runtime's own backends, and OpenCV's DNN module on the same weights; the
bundle's variants (fp16, int8) too, if it has any. All are loaded first and then run in turn, round after round, so
that machine-wide slowdowns affect all of them. The scores of every run are compared with ONNX Runtime's: float32 must
agree within `TOLERANCE` of the largest score, or the benchmark fails; for variants, the share of equal labels is
reported. The last line is one JSON object.

The benchmark does not measure other load or the processor's clock: read the spread before the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from atrous.runtime import AtrousError, Bundle, read_bundle
from atrous.runtime.backends import Array, open_backend
from atrous.runtime.devices import describe_processor

Run = Callable[[Array], Array]  # 1 x H x W x 3 uint8 RGB -> L x H x W float32
REFERENCE = "onnxruntime"
TOLERANCE = 2e-4
REST_S = 0.05  # between two runs: the last one's threads stop spinning
SETTINGS: dict[str, tuple[str, str, dict[str, object]]] = {
    "onnxruntime": ("onnxruntime", "fp32", {}),
    "openvino": ("openvino", "fp32", {}),
    "torch channels_last": ("torch", "fp32", {"mode": "channels_last"}),
    "torch eager": ("torch", "fp32", {"mode": "eager"}),
    "torch compiled": ("torch", "fp32", {"mode": "compiled"}),
}
SWEEP: dict[str, tuple[str, str, dict[str, object]]] = {
    "onnxruntime, no spinning": ("onnxruntime", "fp32", {"spinning": False}),
    "onnxruntime, extended": ("onnxruntime", "fp32", {"graph_level": "extended"}),
    "onnxruntime, basic": ("onnxruntime", "fp32", {"graph_level": "basic"}),
    "onnxruntime, disabled": ("onnxruntime", "fp32", {"graph_level": "disabled"}),
    "onnxruntime, bound": ("onnxruntime", "fp32", {"io_binding": True}),
    "openvino, throughput": ("openvino", "fp32", {"hint": "throughput"}),
}


@dataclass
class Contender:
    """Measurements of one library and setting; `times_ms` holds the time of each run, in the order of the rounds."""

    name: str
    precision: str
    load_s: float = 0.0
    first_ms: float = 0.0
    times_ms: list[float] = field(default_factory=list)
    max_difference: float = 0.0
    equal_labels: float = 1.0
    run: Run | None = None

    @property
    def median_ms(self) -> float:
        """Median time of a run."""
        return statistics.median(self.times_ms)


class DisagreementError(Exception):
    """A library's scores differ from the reference's."""


def open_contender(name: str, bundle: Bundle, threads: int) -> Run:
    """Load a net with one of the runtime's backends; a variant is named "<backend> <precision>".

    Raises:
        AtrousError: if the library is missing or rejects the net.
    """
    library, _, variant = name.partition(" ")
    backend_name, precision, options = {**SETTINGS, **SWEEP}.get(name, (library, variant, {}))
    backend = open_backend(backend_name, bundle, threads=threads, precision=precision, options=options)
    feed = backend.inputs[0].name
    return lambda image: backend.run({feed: image})["scores"][0]


def open_opencv(net: Any, bundle: Bundle, threads: int) -> Run:
    """Load the net up to fc8 with OpenCV's DNN module; the runtime does the last upsampling.

    Raises:
        AtrousError: if OpenCV is missing or has no Caffe importer.
    """
    from atrous.runtime.upsampling import upsample_scores

    from .plain_prototxt import plain_name, plain_text, write_plain_weights

    try:
        import cv2
    except ImportError as error:
        raise AtrousError(f"opencv is not importable: {error}") from error
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise AtrousError(f"opencv {cv2.__version__} has no Caffe importer; install version 4")
    cv2.setNumThreads(threads)
    layers = [layer for layer in net.layers if layer.type != "Interp"]
    wanted = bundle.preprocessing
    with tempfile.TemporaryDirectory() as folder:
        prototxt, weights = Path(folder, "net.prototxt"), Path(folder, "net.caffemodel")
        prototxt.write_text(plain_text(net, layers))
        write_plain_weights(net, layers, weights)
        network = cv2.dnn.readNetFromCaffe(str(prototxt), str(weights))
    last = plain_name(layers[-1].tops[0])

    def run(image: Array) -> Array:
        height, width = image.shape[1:3]
        if wanted.size_rule.padded_size(height, width) != (height, width):
            raise AtrousError("OpenCV is compared only at sizes that need no padding, 8 k + 1")
        blob = (image[..., ::-1].astype(np.float32) - np.array(wanted.mean, np.float32)) * np.float32(wanted.scale)
        network.setInput(np.ascontiguousarray(blob.transpose(0, 3, 1, 2)))
        lowres = np.asarray(network.forward(last))[0]  # (L, h, w)
        return upsample_scores(lowres, (height, width), (height, width), align_corners=True)

    return run


def load_contenders(names: list[str], bundle: Bundle, net: Any, threads: int, image: Array) -> list[Contender]:
    """Load the named contenders and run each once; print why the others are skipped."""
    contenders = []
    for name in names:
        started_s = time.perf_counter()
        last = name.rpartition(" ")[2]
        contender = Contender(name, last if last in bundle.manifest.variants else "fp32")
        try:
            if name == "opencv":
                if net is None:
                    raise AtrousError("it runs the built-in nets only, not a bundle's")
                contender.run = open_opencv(net, bundle, threads)
            else:
                contender.run = open_contender(name, bundle, threads)
            contender.load_s = time.perf_counter() - started_s
            started_s = time.perf_counter()
            contender.run(image)
        except AtrousError as error:
            print(f"{name}: skipped: {error}")
            continue
        contender.first_ms = (time.perf_counter() - started_s) * 1000
        print(f"{name}: loaded in {contender.load_s:.1f} s, first run {contender.first_ms:.0f} ms", flush=True)
        contenders.append(contender)
    return contenders


def measure(contenders: list[Contender], images: list[Array], rounds: int, seconds: float) -> None:
    """Run all in turn, one image per round, until the rounds or the seconds are over; check every result.

    Raises:
        DisagreementError: if float32 scores differ from the reference's.
    """
    ends_s = time.monotonic() + seconds
    for number in range(rounds):
        image = images[number % len(images)]
        results: dict[str, Array] = {}
        order = contenders if number % 2 == 0 else contenders[::-1]
        for contender in order:
            time.sleep(REST_S)
            assert contender.run is not None
            started_s = time.perf_counter()
            results[contender.name] = contender.run(image)
            contender.times_ms.append((time.perf_counter() - started_s) * 1000)
        for contender in contenders:
            compare(contender, results[contender.name], results[contenders[0].name])
        if time.monotonic() > ends_s:
            print(f"stopped after {number + 1} rounds: {seconds:.0f} s are over")
            break


def compare(contender: Contender, found: Array, reference: Array) -> None:
    """Record the difference of a result from the reference; float32 must agree within `TOLERANCE`."""
    scale = float(np.abs(reference).max())
    difference = float(np.abs(found - reference).max()) / max(scale, 1.0)
    contender.max_difference = max(contender.max_difference, difference)
    equal = float((found.argmax(0) == reference.argmax(0)).mean())
    contender.equal_labels = min(contender.equal_labels, equal)
    if not np.isfinite(found).all() or (contender.precision == "fp32" and difference > TOLERANCE):
        raise DisagreementError(f"{contender.name} differs from {REFERENCE} by {difference:.1e} of the largest score")


def summarize(contender: Contender, reference: Contender, gflops: float | None) -> dict[str, Any]:
    """The figures of one contender; `ratio` is its time divided by the reference's in the same round."""
    ratios = sorted(a / b for a, b in zip(contender.times_ms, reference.times_ms, strict=True))
    figures = asdict(contender)
    del figures["run"]
    return {
        **figures,
        "median_ms": contender.median_ms,
        "fastest_ms": min(contender.times_ms),
        "ratio": statistics.median(ratios),
        "ratio_low": ratios[0],
        "ratio_high": ratios[-1],
        "gflops_per_s": gflops / contender.median_ms * 1000 if gflops is not None else None,
    }


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table, fastest first."""
    print(f"\n{'':26}median ms  fastest  ratio to {REFERENCE}  range         GFLOP/s  max diff  equal labels")
    for row in sorted(rows, key=lambda row: float(row["median_ms"])):
        speed = f"{row['gflops_per_s']:.0f}" if row["gflops_per_s"] is not None else "-"
        spread = f"{row['ratio_low']:.2f}..{row['ratio_high']:.2f}"
        print(
            f"{row['name']:26}{row['median_ms']:9.1f}  {row['fastest_ms']:7.1f}  {row['ratio']:20.2f}  {spread:12}  "
            f"{speed:>7}  {row['max_difference']:8.0e}  {row['equal_labels']:12.3%}"
        )


def draw_plot(reports: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the median ratio to the reference's time as bars, shortest on top, with whiskers over all rounds.

    A ratio is taken within one round, so it is comparable even if the machine was busier in other rounds or runs.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    pooled: dict[str, list[float]] = {}
    is_float32 = {}
    for report in reports:
        reference = report["contenders"][0]["times_ms"]
        for row in report["contenders"]:
            ratios = [one / other for one, other in zip(row["times_ms"], reference, strict=True)]
            pooled.setdefault(row["name"], []).extend(ratios)
            is_float32[row["name"]] = row["precision"] == "fp32"
    names = sorted(pooled, key=lambda name: -statistics.median(pooled[name]))
    medians = [statistics.median(pooled[name]) for name in names]
    spread = [
        [median - min(pooled[name]) for name, median in zip(names, medians, strict=True)],
        [max(pooled[name]) - median for name, median in zip(names, medians, strict=True)],
    ]
    colors = ["#4878a8" if is_float32[name] else "#d08030" for name in names]
    figure, axes = pyplot.subplots(figsize=(8, 0.42 * len(names) + 1.5))
    axes.barh(names, medians, color=colors, xerr=spread, error_kw={"elinewidth": 1})
    for index, (name, median) in enumerate(zip(names, medians, strict=True)):
        label, place = f"{median:.2f} ({len(pooled[name])} rounds)", (max(pooled[name]), index)
        axes.annotate(label, place, (5, 0), textcoords="offset points", va="center", fontsize=9)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xlim(0, 1.2 * max(max(ratios) for ratios in pooled.values()))
    axes.set_xlabel(f"time relative to {REFERENCE} in float32 (less is faster); blue: float32, orange: int8 or half")
    first = reports[0]
    title = f"{first['net']}, {first['size'][0]} x {first['size'][1]}, batch 1, {first['threads']} threads"
    axes.set_title(f"{title}, {first['machine']['name']}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def make_images(height: int, width: int, count: int) -> list[Array]:
    """Smooth colored patches with noise, 1 x H x W x 3 uint8 each, a different one for each round."""
    random = np.random.default_rng(5)
    images = []
    for _ in range(count):
        coarse = random.integers(0, 256, (height // 32 + 2, width // 32 + 2, 3))
        patches = coarse.repeat(32, 0).repeat(32, 1)[:height, :width]
        noisy = patches + random.integers(-20, 21, (height, width, 3))
        images.append(np.clip(noisy, 0, 255).astype(np.uint8)[None])
    return images


def prepare_net(options: argparse.Namespace, folder: Path) -> tuple[Bundle, Any, float | None]:
    """Return the bundle, the net for OpenCV (built-in nets only), and the GFLOP of an image if they can be counted."""
    from atrous.runtime.benchmark.model_cost import count_model_cost

    height, width = options.size
    net = None
    if options.bundle is not None:
        bundle = read_bundle(options.bundle)
    else:
        from atrous.converter import BundleOptions, read_net, write_bundle
        from atrous.scripts.miniature.settings import MiniatureFiles
        from tools.large_fov import read_large_fov

        if options.net == "largefov":
            net = read_large_fov(size=(height, width))
        else:
            files, shapes = MiniatureFiles(), {"data": (1, 3, height, width)}
            net = read_net(files.prototxt, files.caffemodel, input_shapes=shapes)
        write_bundle(net, folder / "bundle", BundleOptions(head="scores", verify=False))
        bundle = read_bundle(folder / "bundle")
    cost = count_model_cost(bundle, height, width)
    return bundle, net, cost.flops / 1e9 if cost is not None else None


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=("largefov", "miniature"), default="largefov")
    parser.add_argument("--bundle", type=Path, help="bundle to measure, with its variants, in place of a built-in net")
    parser.add_argument("--size", type=int, nargs=2, default=(513, 513), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--threads", type=int, default=describe_processor().usable_cores)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="start no new round after this many seconds")
    parser.add_argument("--sweep", action="store_true", help="also measure the settings of ONNX Runtime and OpenVINO")
    parser.add_argument("--only", help="names of contenders, separated by semicolons")
    parser.add_argument("--plot", type=Path, help="PNG file of the ratios to write")
    parser.add_argument(
        "--from", dest="earlier", type=Path, nargs="+", help="draw the results of these JSON files instead of measuring"
    )
    parser.add_argument("--json", type=Path, help="also write the JSON object to this file")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; return 1 if results disagree."""
    options = parse_arguments(arguments)
    if options.earlier:
        draw_plot([json.loads(path.read_text()) for path in options.earlier], options.plot or Path("bench-cpu.png"))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        bundle, net, gflops = prepare_net(options, Path(folder))
        variants = [f"{library} {name}" for name in bundle.manifest.variants for library in ("onnxruntime", "openvino")]
        names = [*SETTINGS, "opencv", *(SWEEP if options.sweep else ()), *variants]
        if options.only:
            names = list(dict.fromkeys([REFERENCE, *options.only.split(";")]))
            unknown = [name for name in names if name not in (*SETTINGS, *SWEEP, "opencv", *variants)]
            if unknown:
                print(f'there is no "{unknown[0]}"; there are {"; ".join((*SETTINGS, *SWEEP, "opencv", *variants))}')
                return 2
        images = make_images(options.size[0], options.size[1], 4)
        contenders = load_contenders(names, bundle, net, options.threads, images[0])
        try:
            measure(contenders, images, options.rounds, options.seconds)
        except DisagreementError as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
    rows = [summarize(contender, contenders[0], gflops) for contender in contenders]
    print_rows(rows)
    report = {
        "schema_version": 1,
        "net": "DeepLab-LargeFOV" if options.net == "largefov" and not options.bundle else bundle.manifest.name,
        "size": list(options.size),
        "threads": options.threads,
        "gflop": gflops,
        "machine": {**asdict(describe_processor()), "load": os.getloadavg()[0]},
        "contenders": rows,
    }
    if options.plot is not None:
        draw_plot([report], options.plot)
    line = json.dumps(report)
    if options.json is not None:
        options.json.write_text(line + "\n")
    print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
