"""NVIDIA's parser and builder accept every graph that the converter writes, or the checks before a build refuse it."""

from __future__ import annotations

from pathlib import Path

import pytest

from atrous.bundle.folder import read_bundle
from atrous.converter import BundleOptions, read_net, write_bundle
from atrous.errors import ConverterError
from tools.corpus import find_prototxts, read_corpus_net
from tools.gpu_bench.prepare import read_nets
from tools.nvidia_check.graphs import HEADS, PROFILES, VARIANTS, Graph, write_deploy, write_graphs, write_model
from tools.nvidia_check.harness import Nvidia
from tools.nvidia_check.sweep import MAX_WEIGHTS, SOUND, count_weights, give, give_net

from ....conftest import find_shared
from .test_gpu import MASKS

#: variant -> the precision of its products
PRECISIONS = {"fp32": "fp32", **{name: name.partition("-")[0] for name in VARIANTS if name != "int8-uint8"}}
LARGE = ("fp16", "int8", "fp8")
CLASSIFIER = """
name: "classifier" input: "data" input_dim: 1 input_dim: 3 input_dim: 32 input_dim: 32
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""


@pytest.fixture(scope="module")
def miniature(nvidia: Nvidia, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Graph]]:
    """Head -> the miniature's graphs by variant."""
    net = read_nets(["miniature"])["miniature"]
    return {head: write_graphs(net, tmp_path_factory.mktemp(head), head, VARIANTS) for head in HEADS}


@pytest.fixture(scope="module")
def large_fov(nvidia: Nvidia, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Graph]:
    """DeepLab-LargeFOV's graphs by variant."""
    net = read_nets(["largefov"])["largefov"]
    return write_graphs(net, tmp_path_factory.mktemp("largefov"), "scores", LARGE)


@pytest.fixture(scope="module")
def static(nvidia: Nvidia, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Graph]:
    """The miniature's graphs of one size by variant."""
    net = read_nets(["miniature"])["miniature"]
    return write_graphs(net, tmp_path_factory.mktemp("static"), "scores", ("fp16", "int8"), is_fixed=True)


def require_built(nvidia: Nvidia, graph: Graph, precision: str, profile: str = "range") -> dict[str, int]:
    """Require an engine whose products all compute in a precision; return their numbers."""
    given = give(nvidia, graph, sizes=PROFILES[profile])
    assert given.verdict == "built", given.reason
    assert given.audit["asked"] == precision
    assert given.audit["reached"] == 1.0
    products: dict[str, int] = given.audit["products"]
    assert set(products) == {precision}
    return products


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("head", HEADS)
def test_every_head_and_precision(
    nvidia: Nvidia, miniature: dict[str, dict[str, Graph]], head: str, precision: str
) -> None:
    products = require_built(nvidia, miniature[head][precision], PRECISIONS[precision])
    assert sum(products.values()) == 16  # as many as the net has convolutions


@pytest.mark.parametrize("profile", sorted(PROFILES.keys() - {"range"}))
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_profile(nvidia: Nvidia, miniature: dict[str, dict[str, Graph]], precision: str, profile: str) -> None:
    require_built(nvidia, miniature["scores"][precision], PRECISIONS[precision], profile)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_static_shapes(nvidia: Nvidia, static: dict[str, Graph], precision: str) -> None:
    require_built(nvidia, static[precision], precision)


def test_a_classifier(nvidia: Nvidia, tmp_path: Path) -> None:
    """A net that does not score pixels has a deployment graph of another kind."""
    write_bundle(read_net(CLASSIFIER), tmp_path / "bundle", BundleOptions(verify=False))
    bundle = read_bundle(tmp_path / "bundle")
    assert bundle.manifest.run is not None
    file, shapes = tmp_path / "bundle" / bundle.manifest.run.file, {"image": (1, 32, 32, 3)}
    graph = Graph("classifier", file, tmp_path / "facts.json", shapes)
    graph.facts.write_text(bundle.manifest.graphs[bundle.manifest.run.file].model_dump_json())
    require_built(nvidia, graph, "fp32")


def test_unsigned_activations_are_refused_in_our_words(nvidia: Nvidia, miniature: dict[str, dict[str, Graph]]) -> None:
    given = give(nvidia, miniature["scores"]["int8-uint8"])
    assert given.verdict == "refused"
    assert "quantizes to int8, not to uint8: use --activations int8" in given.reason


def test_faithful_graph(nvidia: Nvidia, tmp_path: Path) -> None:
    require_built(nvidia, write_model(read_nets(["miniature"])["miniature"], tmp_path), "fp32")


def test_pooling_masks(nvidia: Nvidia, tmp_path: Path) -> None:
    require_built(nvidia, write_deploy(read_net(MASKS), tmp_path, "scores"), "fp32")


@pytest.mark.parametrize("precision", ["fp32", *LARGE])
def test_large_fov(nvidia: Nvidia, large_fov: dict[str, Graph], precision: str) -> None:
    require_built(nvidia, large_fov[precision], precision)


def test_int8_products_that_write_float32_are_counted(nvidia: Nvidia, miniature: dict[str, dict[str, Graph]]) -> None:
    """RTX's INT8 convolutions do, its FP16 ones do not: why FP16 is the precision for RTX."""
    written = {name: give(nvidia, miniature["scores"][name]).audit["narrow_writing_fp32"] for name in ("int8", "fp16")}
    assert written == {"int8": 16, "fp16": 0}


def corpus() -> list[object]:
    """The nets of the corpus as parameters; a single one that skips if there are none."""
    shared = find_shared()
    found = list(find_prototxts(shared / "corpus")) if shared is not None and (shared / "corpus").is_dir() else []
    if not found:
        reason = "the corpus of published nets is not available; set ATROUS_SHARED to its folder"
        return [pytest.param(Path(), id="no-corpus", marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(path, id=path.parent.name) for path in found]


@pytest.mark.conformance
@pytest.mark.parametrize("path", corpus())
def test_corpus(nvidia: Nvidia, path: Path, tmp_path: Path) -> None:
    try:
        net = read_corpus_net(path)
    except ConverterError as error:
        pytest.skip(f"not converted: {str(error).splitlines()[0]}")
    if count_weights(net) > MAX_WEIGHTS:
        pytest.skip(f"more than {MAX_WEIGHTS:,} weights")
    for given in give_net(nvidia, net, tmp_path):
        assert given.verdict in SOUND, f"{given.title}: {given.reason}"
