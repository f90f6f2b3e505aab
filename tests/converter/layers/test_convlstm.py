"""ConvLSTM against a loop over steps and gates; refused parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from atrous.converter import read_net
from atrous.errors import NetError

from .converting import Twin, net_text, random_array

STEPS, BATCH, INPUTS, OUTPUTS, HEIGHT, WIDTH = 4, 2, 3, 2, 6, 5


def conv_lstm_text(param: str = "kernel_size: 3 pad: 1", extra: str = "", exposed: bool = False, **shapes: Any) -> str:
    sizes = {"x": (STEPS, BATCH, INPUTS, HEIGHT, WIDTH), "cont": (STEPS, BATCH)}
    if exposed:
        sizes |= {"h": (1, BATCH, OUTPUTS, HEIGHT, WIDTH), "c": (1, BATCH, OUTPUTS, HEIGHT, WIDTH)}
        extra += " recurrent_param { expose_hidden: true }"
    sizes |= shapes
    bottoms = " ".join(f'bottom: "{name}"' for name in sizes)
    tops = 'top: "y"' + (' top: "last_h" top: "last_c"' if exposed else "")
    layer = f'type: "ConvLSTM" {bottoms} {tops} lstm_conv_param {{ num_output: {OUTPUTS} {param} }} {extra}'
    return net_text(layer, **sizes)


def blobs_of(kernel: int, peephole: tuple[int, ...]) -> list[np.ndarray[Any, Any]]:
    shapes: list[tuple[int, ...]] = [(OUTPUTS, INPUTS, kernel, kernel)] * 4
    shapes += [(OUTPUTS, OUTPUTS, kernel, kernel), (OUTPUTS,)] * 4 + [peephole] * 3
    return [random_array(*shape, seed=30 + number) * 0.5 for number, shape in enumerate(shapes)]


def run_by_hand(blobs: list[Any], x: Any, cont: Any, h: Any, c: Any, pad: int, dilation: int, spread: Any) -> Any:
    """Each gate separately, in double precision."""
    over_x, over_h, peepholes = blobs[:4], blobs[4:12], blobs[12:]
    double = lambda array: torch.from_numpy(np.asarray(array, np.float64))  # noqa: E731
    convolve = lambda v, w, b=None: F.conv2d(v, double(w), b, padding=pad, dilation=dilation)  # noqa: E731
    h, c, tops = double(h), double(c), []
    for step in range(len(x)):
        kept = double(cont[step])[:, None, None, None]
        gates = [
            convolve(double(x[step]), over_x[n]) + convolve(h * kept, over_h[2 * n], double(over_h[2 * n + 1]))
            for n in range(4)
        ]
        i, f, o = (torch.sigmoid(gates[n] + double(peepholes[n])[spread] * c) for n in range(3))
        c = kept * f * c + i * torch.tanh(gates[3])
        h = o * torch.tanh(c)
        tops.append(h.numpy())
    return np.stack(tops), h.numpy(), c.numpy()


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize("exposed", [False, True])
@pytest.mark.parametrize("dilation", [1, 2])
def test_recurrence(dilation: int, exposed: bool, opset: int) -> None:
    blobs = blobs_of(3, (HEIGHT, WIDTH))
    text = conv_lstm_text(f"kernel_size: 3 pad: {dilation} dilation: {dilation}", exposed=exposed)
    x = random_array(STEPS, BATCH, INPUTS, HEIGHT, WIDTH)
    cont = np.float32([[1, 1], [1, 0], [0, 1], [1, 1]])
    h, c = (np.zeros((BATCH, OUTPUTS, HEIGHT, WIDTH), np.float32) for _ in range(2))
    inputs: dict[str, Any] = {"x": x, "cont": cont}
    if exposed:
        h, c = (random_array(BATCH, OUTPUTS, HEIGHT, WIDTH, seed=seed) for seed in (5, 6))
        inputs |= {"h": h[None], "c": c[None]}
    results = Twin(text, {"y": blobs}, opset=opset).run(1e-5, **inputs)
    y, last_h, last_c = run_by_hand(blobs, x, cont, h, c, dilation, dilation, ...)
    np.testing.assert_allclose(results["y"], y, atol=1e-5)
    if exposed:
        np.testing.assert_allclose(results["last_h"][0], last_h, atol=1e-5)
        np.testing.assert_allclose(results["last_c"][0], last_c, atol=1e-5)


def test_peepholes_of_a_channel() -> None:
    blobs = blobs_of(1, (OUTPUTS,))
    text = conv_lstm_text("kernel_size: 1", "lstm_debug_param { axis_hadamard: 2 num_axes_hadamard: 1 }")
    x, cont = random_array(STEPS, BATCH, INPUTS, HEIGHT, WIDTH), np.ones((STEPS, BATCH), np.float32)
    zeros = np.zeros((BATCH, OUTPUTS, HEIGHT, WIDTH))
    y, _, _ = run_by_hand(blobs, x, cont, zeros, zeros, 0, 1, (slice(None), None, None))
    np.testing.assert_allclose(Twin(text, {"y": blobs}).run(1e-5, x=x, cont=cont)["y"], y, atol=1e-5)


@pytest.mark.parametrize(
    ("param", "shapes", "words"),
    [
        ("kernel_size: 3", {}, "change size"),
        ("kernel_size: 2 pad: 1", {}, "change size"),
        ("pad: 1", {}, "kernel_size"),
        ("kernel_size: 3 pad: 1", {"cont": (BATCH, STEPS)}, "cont"),
        ("kernel_size: 3 pad: 1", {"s": (2, 3)}, "3 bottoms"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(param: str, shapes: dict[str, Any], words: str) -> None:
    with pytest.raises(NetError, match=words):
        read_net(conv_lstm_text(param, **shapes))


def test_peepholes_beyond_the_state_are_refused() -> None:
    with pytest.raises(NetError, match="axis_hadamard 4"):
        read_net(conv_lstm_text(extra="lstm_debug_param { axis_hadamard: 4 }"))
