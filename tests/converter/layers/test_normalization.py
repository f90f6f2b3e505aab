"""LRN, MVN and Normalize: against real Caffe, against numpy, in half precision and at other sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atrous.converter import read_net, to_torch
from atrous.errors import NetError

from .converting import Twin, assert_exports, assert_matches, assert_refused, net_text, random_array

RECORDED = [
    "lrn-across",
    "lrn-across-k",
    "lrn-default",
    "lrn-within",
    "mvn-across",
    "mvn-constant-channel",
    "mvn-default",
    "mvn-mean-only",
    "ssd-normalize-channel",
    "ssd-normalize-default",
]


@pytest.mark.parametrize("case", RECORDED)
def test_recorded(goldens: Path, case: str) -> None:
    assert_matches(goldens, case)


def test_refused_as_by_caffe(goldens: Path) -> None:
    assert "odd" in assert_refused(goldens, "bad-lrn-even")


def run(layer: str, x: np.ndarray[Any, Any], weights: Any = None, opset: int = 17) -> np.ndarray[Any, Any]:
    return Twin(net_text(f'{layer} bottom: "x" top: "y"', x=x.shape), weights, opset=opset).run(x=x)["y"]


@pytest.mark.parametrize("size", [1, 3, 7])
def test_lrn_across_channels(size: int) -> None:
    x = random_array(2, 4, 3, 5).astype(np.float64) * 3
    squares = np.pad(x * x, ((0, 0), (size // 2, size // 2), (0, 0), (0, 0)))
    total = sum(squares[:, start : start + 4] for start in range(size))
    param = f"lrn_param {{ local_size: {size} alpha: 0.3 beta: 0.6 k: 1.5 }}"
    y = run(f'type: "LRN" {param}', x.astype(np.float32))
    np.testing.assert_allclose(y, x * (1.5 + 0.3 / size * total) ** -0.6, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_lrn_within_a_channel_ignores_k_and_counts_its_padding(size: int) -> None:
    x = random_array(2, 3, 4, 5).astype(np.float64) * 3
    squares = np.pad(x * x, ((0, 0), (0, 0), (size // 2, size // 2), (size // 2, size // 2)))
    total = sum(squares[:, :, i : i + 4, j : j + 5] for i in range(size) for j in range(size))
    param = f"lrn_param {{ local_size: {size} alpha: 0.3 beta: 0.6 k: 100 norm_region: WITHIN_CHANNEL }}"
    y = run(f'type: "LRN" {param}', x.astype(np.float32))
    np.testing.assert_allclose(y, x * (1 + 0.3 / size**2 * total) ** -0.6, rtol=1e-5)


@pytest.mark.parametrize("opset", [17, 18, 21])
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("variance", [False, True])
def test_mvn(shape: tuple[int, ...], across: bool, variance: bool, opset: int) -> None:
    x = random_array(*shape) * 2 + 7
    param = (
        f"mvn_param {{ across_channels: {str(across).lower()} normalize_variance: {str(variance).lower()} eps: 0.5 }}"
    )
    flat = x.astype(np.float64).reshape(*shape[: 1 if across else 2], -1)
    centered = flat - flat.mean(-1, keepdims=True)
    if variance:
        centered = centered / (flat.std(-1, keepdims=True) + 0.5)
    np.testing.assert_allclose(run(f'type: "MVN" {param}', x, opset=opset), centered.reshape(shape), atol=2e-5)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("plane", [(4, 5), (4,), ()])
def test_normalize(across: bool, shared: bool, plane: tuple[int, ...]) -> None:
    x = random_array(2, 3, *plane)
    x[(1, slice(None), *(2 for _ in plane))] = 0
    param = f"norm_param {{ across_spatial: {str(across).lower()} channel_shared: {str(shared).lower()} }}"
    weight = np.float32(2.5) if shared else random_array(3, seed=4)
    norm = np.sqrt((x.astype(np.float64) ** 2).sum(tuple(range(1, x.ndim)) if across else 1, keepdims=True) + 1e-10)
    y = run(f'type: "Normalize" {param}', x, {"y": [np.asarray(weight)]})
    along = np.asarray(weight).reshape(-1, *(1 for _ in plane))
    np.testing.assert_allclose(y, x / norm * along, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        'type: "LRN" lrn_param { alpha: 1e-4 }',
        'type: "LRN" lrn_param { alpha: 1e-4 local_size: 3 norm_region: WITHIN_CHANNEL }',
        'type: "MVN"',
        'type: "Normalize" norm_param { across_spatial: false }',
        'type: "BatchNorm" batch_norm_param { use_global_stats: false }',
        'type: "BN" bn_param { bn_mode: LEARN scale_filler { value: 1 } }',
    ],
)
def test_half_precision_neither_overflows_nor_divides_by_zero(layer: str) -> None:
    """Squares of 300 overflow half precision, an eps of 1e-9 underflows it."""
    x = random_array(1, 3, 4, 4) * 300
    x[:, 1] = 7
    if "Normalize" in layer:
        x[:, :, 0, 0] = 0
    module = to_torch(read_net(net_text(f'{layer} bottom: "x" top: "y"', x=x.shape)))
    with torch.no_grad():
        full = module(torch.from_numpy(x))
        half = module.half()(torch.from_numpy(x).half())
    assert half.dtype == torch.float16
    np.testing.assert_allclose(half.float().numpy(), full.numpy(), rtol=2e-3, atol=5e-3)


@pytest.mark.parametrize(
    ("layer", "shape", "words"), [("LRN", (2, 3, 4), "4-D"), ("Normalize", (2, 3, 4, 5, 6), "2 to 4 axes")]
)
def test_other_shapes_are_refused(layer: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(NetError, match=words):
        read_net(net_text(f'type: "{layer}" bottom: "x" top: "y"', x=shape))


@pytest.mark.parametrize(
    "layer",
    [
        'type: "LRN"',
        'type: "LRN" lrn_param { norm_region: WITHIN_CHANNEL }',
        'type: "MVN"',
        'type: "MVN" mvn_param { across_channels: true }',
        'type: "Normalize"',
        'type: "Normalize" norm_param { across_spatial: false channel_shared: false }',
    ],
)
def test_any_size_and_torch_export(layer: str) -> None:
    twin = Twin(net_text(f'{layer} bottom: "x" top: "y"', x=(2, 3, 8, 9)))
    runs = [{"x": random_array(n, 3, h, w)} for n, h, w in ((2, 8, 9), (3, 5, 4), (4, 2, 11))]
    for r in runs:
        twin.run(**r)
    assert_exports(twin, (0, 2, 3), *runs)
