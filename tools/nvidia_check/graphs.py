"""The graphs to give to NVIDIA: bundles with variants, as `atrous convert` and `atrous precision` write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from atrous.converter import Net


@dataclass(frozen=True)
class Graph:
    """An ONNX file, the file of its facts as a manifest has them, and the shapes that its open inputs must have."""

    title: str
    model: Path
    facts: Path
    shapes: Mapping[str, tuple[int, ...]] | None = None


HEADS = ("scores", "labels", "lowres")
#: smallest, optimal and largest [images, height, width]: a usual range, one size, and the limits
PROFILES = {
    "range": [[1, 65, 65], [1, 321, 321], [4, 513, 513]],
    "one size": [[1, 321, 321]] * 3,
    "widest": [[1, 1, 1], [1, 513, 513], [8, 2049, 4097]],
}
#: variant -> its options; those whose name is a precision are stored under it
VARIANTS: dict[str, dict[str, Any]] = {
    "fp16": {},
    "bf16": {},
    "int8": {},
    "fp8": {},
    "int8-fp16": {"rest": "fp16"},
    "fp8-fp16": {"rest": "fp16"},
    "int8-uint8": {"activations": "uint8"},  # for CPUs: to be refused
}
_SIDE = 65  # of the images that ranges are taken from


def write_graphs(
    net: Net, folder: Path, head: str, variants: Iterable[str], *, is_fixed: bool = False
) -> dict[str, Graph]:
    """Write a net's bundle with a head, and the deployment graphs in float32 and as these variants, by name.

    With `is_fixed`, the graphs are for images of 65 x 65 pixels, and all their shapes are static.
    """
    from atrous.bundle.folder import read_bundle
    from atrous.converter import BundleOptions, write_bundle
    from atrous.converter.precision import Evidence, Picture, VariantOptions, make_variant
    from atrous.scripts.precision_data import make_reader

    bundle_folder = folder / head
    fixed = (_SIDE, _SIDE) if is_fixed else None
    write_bundle(net, bundle_folder, BundleOptions(head=head, verify=False, fixed=fixed))  # type: ignore[arg-type]
    bundle = read_bundle(bundle_folder)
    graphs = {"fp32": _write(folder, f"{head}-fp32", (bundle_folder / bundle.deploy_file()).read_bytes())}
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, _SIDE, _SIDE, 3)).astype(np.uint8)
    evidence = Evidence(list(images), [Picture(images[0])], "drawn")
    for name in variants:
        more = VARIANTS[name]
        options = VariantOptions(name.partition("-")[0], sensitivity="never", threads=1, **more)  # type: ignore[arg-type]
        made = make_variant(bundle_folder, options, evidence, make_reader(bundle))
        graphs[name] = _write(folder, f"{head}-{name}", made.model)
    return graphs


def write_model(net: Net, folder: Path, title: str = "model") -> Graph:
    """Write a net's faithful graph, which is float32 in its own size, and its facts."""
    from atrous.converter import export_onnx, to_torch

    graph = _write(folder, title, export_onnx(net, to_torch(net)).SerializeToString())
    return replace(graph, shapes={blob.name: tuple(blob.shape) for blob in net.inputs})


def write_deploy(net: Net, folder: Path, head: str) -> Graph:
    """Write a net's deployment graph in float32; raises ExportError if it does not segment images."""
    from atrous.converter import to_torch
    from atrous.converter.export.deploy import export_deploy, plan_deployment
    from atrous.converter.export.pixel_rule import DEEPLAB_MEAN

    plan = plan_deployment(net)
    mean = DEEPLAB_MEAN[: plan.image.shape[1]]
    model = export_deploy(plan, to_torch(plan.net), head=head, mean=mean)  # type: ignore[arg-type]
    return _write(folder, f"deploy-{head}", model.SerializeToString())


def _write(folder: Path, title: str, model: bytes) -> Graph:
    import onnx

    from atrous.converter.precision import describe_graph

    graph = Graph(title, folder / f"{title}.onnx", folder / f"{title}.json")
    graph.model.write_bytes(model)
    graph.facts.write_text(describe_graph(onnx.load_from_string(model)).model_dump_json())
    return graph
