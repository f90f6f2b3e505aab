"""Nets, images and references for the workers, made on the CPU of the GPU host.

Weights are random or ship with the project, so nothing is downloaded. The reference of every comparison is ONNX
Runtime's CPU provider: on the float32 graph for FP32, TF32 and FP16, on the Q/DQ graph for INT8.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atrous.runtime.backends.protocol import Array

from .cases import IMAGES
from .job import NetEntry

if TYPE_CHECKING:
    from atrous.bundle.folder import Bundle
    from atrous.converter.graph.net import Net

CALIBRATION_SIZE = (321, 321)


def draw_images(height: int, width: int, count: int, seed: int) -> Array:
    """Draw random colored patches with noise: count x H x W x 3 uint8 RGB."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, height // 24 + 2, width // 24 + 2, 3))
    patches = coarse.repeat(24, 1).repeat(24, 2)[:, :height, :width]
    drawn: Array = np.clip(patches + random.integers(-25, 26, patches.shape), 0, 255).astype(np.uint8)
    return drawn


def read_nets(names: Sequence[str]) -> dict[str, Net]:
    """Read the nets by name: "largefov" with random weights, "miniature" with the shipped weights."""
    from atrous.converter import read_net
    from atrous.scripts.miniature.settings import MiniatureFiles
    from tools.large_fov import read_large_fov

    files = MiniatureFiles()
    makers: dict[str, Callable[[], Net]] = {
        "largefov": read_large_fov,
        "miniature": lambda: read_net(files.prototxt, files.caffemodel),
    }
    return {name: makers[name]() for name in names}


def prepare_net(
    net: Net, folder: Path, variants: Sequence[str], size: tuple[int, int] = CALIBRATION_SIZE, count: int = 8
) -> Bundle:
    """Write a net's bundle with the head `lowres` and these variants, calibrated on `count` random images."""
    from atrous.converter import BundleOptions, write_bundle
    from atrous.converter.precision import Evidence, Picture, VariantOptions, make_variant, write_variant
    from atrous.runtime import read_bundle
    from atrous.scripts.precision_data import make_reader

    write_bundle(net, folder, BundleOptions(head="lowres", verify=False), replace=True)
    drawn = draw_images(*size, count, seed=1)
    evidence = Evidence(list(drawn), [Picture(image) for image in drawn[:2]], "drawn")
    for precision in variants:
        options = VariantOptions(precision, sensitivity="never")  # type: ignore[arg-type]
        result = make_variant(folder, options, evidence, make_reader(read_bundle(folder)))
        # Random weights give near ties everywhere, so equal labels mean little; the workers compare scores.
        write_variant(folder, result, keep_anyway=True)
    return read_bundle(folder)


def prepare_references(
    bundle: Bundle, name: str, graphs: Sequence[str], sizes: Sequence[tuple[int, int]], to: Path
) -> None:
    """Run the graphs on the CPU and save their scores."""
    from atrous.runtime.backends import open_backend

    for graph in graphs:
        backend = open_backend("onnxruntime", bundle, precision=graph)
        for height, width in sizes:
            images = np.load(to / f"images-{height}x{width}.npy")
            scores = [backend.run({bundle.deploy.input: image[None]})[bundle.deploy.head][0] for image in images]
            np.save(to / f"reference-{name}-{graph}-{height}x{width}.npy", np.stack(scores))
        backend.close()


def write_caffe(net: Net, folder: Path) -> None:
    """Write the net up to fc8 as plain Caffe files for NVIDIA's Caffe parser, and the name of its output."""
    from ..plain_prototxt import plain_name, plain_text, write_plain_weights

    layers = [layer for layer in net.layers if layer.type != "Interp"]
    (folder / "caffe.prototxt").write_text(plain_text(net, layers))
    write_plain_weights(net, layers, folder / "caffe.caffemodel")
    (folder / "caffe.json").write_text(json.dumps({"output": plain_name(layers[-1].tops[0])}))


def prepare(
    folder: Path, nets: Sequence[str], sizes: Sequence[tuple[int, int]], say: Callable[[str], None]
) -> dict[str, NetEntry]:
    """Write the files that the workers need; return the nets' entries."""
    from atrous.runtime.benchmark.model_cost import count_model_cost

    for height, width in sizes:
        np.save(folder / f"images-{height}x{width}.npy", draw_images(height, width, IMAGES, seed=2))
    entries = {}
    for name, net in read_nets(nets).items():
        say(f"preparing {name}")
        bundle = prepare_net(net, folder / name, ("fp16", "int8"))
        prepare_references(bundle, name, ("fp32", "int8"), sizes, folder)
        flops = {}
        for height, width in sizes:
            cost = count_model_cost(bundle, height, width)
            flops[f"{height}x{width}"] = cost.flops if cost is not None else 0.0
        models = {graph: str(bundle.path / bundle.deploy_file(graph)) for graph in ("fp32", "fp16", "int8")}
        facts = {graph: bundle.graph_facts(graph).model_dump(mode="json") for graph in models}
        entries[name] = NetEntry(str(bundle.path), bundle.deploy.input, models, facts, flops)
        if name == "largefov":
            write_caffe(net, folder)
    return entries
