"""LSTM, RNN and LSTMUnit: against real Caffe, against a loop in double precision, at any number of steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.converter import read_net
from atrous.errors import NetError

from .converting import Twin, assert_matches, net_text, random_array


@pytest.mark.parametrize("case", ["lstm", "lstm-static", "rnn"])
def test_recorded(goldens: Path, case: str) -> None:
    assert_matches(goldens, case)


def sigmoid(v: Any) -> Any:
    return 1 / (1 + np.exp(-v))


def lstm_unit(cell: Any, gates: Any, cont: Any) -> tuple[Any, Any]:
    i, f, o, g = np.split(gates, 4, -1)
    cell = cont * sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    return cell, sigmoid(o) * np.tanh(cell)


def run_by_hand(
    kind: str, blobs: list[Any], x: Any, cont: Any, static: Any, states: list[Any]
) -> tuple[Any, list[Any]]:
    """The recurrence step by step; returns the sequence and the last states."""
    blobs = [blob.astype(np.float64) for blob in blobs]
    weight_x, bias, *rest = blobs
    constant = bias if static is None else bias + static.reshape(len(static), -1) @ rest.pop(0).T
    h, *cell = (state[0].astype(np.float64) for state in states)
    tops = []
    for step, kept in zip(x.reshape(*x.shape[:2], -1).astype(np.float64), cont[:, :, None], strict=True):
        total = step @ weight_x.T + constant + (h * kept) @ rest[0].T
        if kind == "LSTM":
            cell[0], h = lstm_unit(cell[0], total, kept)
            tops.append(h)
        else:
            h = np.tanh(total)
            tops.append(np.tanh(h @ rest[1].T + rest[2]))
    return np.stack(tops), [h, *cell]


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize("exposed", [False, True])
@pytest.mark.parametrize("static_shape", [None, (3, 5), (3, 2, 2)])
@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_recurrence(kind: str, static_shape: Any, exposed: bool, opset: int) -> None:
    steps, batch, outputs = 6, 3, 4
    gates, count = (4, 2) if kind == "LSTM" else (1, 1)
    x = random_array(steps, batch, 2, 3)
    cont = (np.random.default_rng(5).random((steps, batch)) > 0.3).astype(np.float32)
    static = None if static_shape is None else random_array(*static_shape, seed=2)
    shapes = [(gates * outputs, 6), (gates * outputs,)]
    shapes += [] if static is None else [(gates * outputs, static[0].size)]
    shapes += [(gates * outputs, outputs)] + ([(outputs, outputs), (outputs,)] if kind == "RNN" else [])
    blobs = [random_array(*shape, seed=10 + number) for number, shape in enumerate(shapes)]
    inputs = {"x": x, "cont": cont} | ({} if static is None else {"s": static})
    states = [np.zeros((1, batch, outputs), np.float32)] * count
    if exposed:
        states = [random_array(1, batch, outputs, seed=20 + number) for number in range(count)]
        inputs |= {f"h{number}": state for number, state in enumerate(states)}
    tops = ["y", *(f"last{number}" for number in range(count if exposed else 0))]
    layer = f'type: "{kind}" ' + " ".join(f'bottom: "{name}"' for name in inputs)
    layer += "".join(f' top: "{top}"' for top in tops)
    layer += f" recurrent_param {{ num_output: {outputs} expose_hidden: {str(exposed).lower()} }}"
    twin = Twin(net_text(layer, **{name: array.shape for name, array in inputs.items()}), {"y": blobs}, opset=opset)
    results = twin.run(1e-5, **inputs)
    expected, last = run_by_hand(kind, blobs, x, cont, static, states)
    np.testing.assert_allclose(results["y"], expected, atol=1e-5)
    for number in range(count if exposed else 0):
        np.testing.assert_allclose(results[f"last{number}"][0], last[number], atol=1e-5)
    assert [node.op_type for node in twin.model.graph.node].count("Loop") == 1


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_any_number_of_steps_in_one_onnx_file(kind: str) -> None:
    text = net_text(
        f'type: "{kind}" bottom: "x" bottom: "cont" top: "y" recurrent_param {{ num_output: 4 '
        'weight_filler { type: "uniform" min: -1 max: 1 } }',
        x=(5, 2, 3),
        cont=(5, 2),
    )
    twin = Twin(text)
    for steps in (5, 1, 40):
        y = twin.run(1e-5, x=random_array(steps, 2, 3), cont=np.ones((steps, 2)))["y"]
        assert y.shape == (steps, 2, 4)


def test_cont_0_forgets_everything() -> None:
    text = net_text(
        'type: "LSTM" bottom: "x" bottom: "cont" top: "y" recurrent_param { num_output: 4 '
        'weight_filler { type: "uniform" min: -1 max: 1 } }',
        x=(6, 1, 3),
        cont=(6, 1),
    )
    twin, x = Twin(text), random_array(6, 1, 3)
    cut = twin.run(1e-5, x=x, cont=np.array([1, 1, 1, 0, 1, 1]).reshape(6, 1))["y"]
    fresh = twin.run(1e-5, x=x[3:], cont=np.ones((3, 1)))["y"]
    np.testing.assert_allclose(cut[3:], fresh, atol=1e-6)


def test_lstm_unit() -> None:
    cell, gates = random_array(1, 3, 4), random_array(1, 3, 16, seed=1)
    cont = np.array([[1, 0, 1]], np.float32)
    layer = 'type: "LSTMUnit" bottom: "c" bottom: "g" bottom: "cont" top: "new" top: "h"'
    results = Twin(net_text(layer, c=cell.shape, g=gates.shape, cont=cont.shape)).run(c=cell, g=gates, cont=cont)
    new, h = lstm_unit(cell.astype(np.float64), gates.astype(np.float64), cont[:, :, None])
    np.testing.assert_allclose(results["new"], new, atol=1e-6)
    np.testing.assert_allclose(results["h"], h, atol=1e-6)


@pytest.mark.parametrize(
    ("param", "shapes", "words"),
    [
        ("", {"x": (5, 2, 3), "c": (5, 2)}, "num_output"),
        ("num_output: 4 expose_hidden: true", {"x": (5, 2, 3), "c": (5, 2)}, "has 2 bottoms"),
        ("num_output: 4", {"x": (5, 2, 3), "c": (2, 5)}, "cont of shape"),
        ("num_output: 4", {"x": (5,), "c": (5,)}, r"\(T, N"),
        ("num_output: 4", {"x": (5, 2, 3), "c": (5, 2), "s": (3, 4)}, "2 items"),
        ("num_output: 4", {"x": (5, 2, 3), "c": (5, 2), "s": (2, 4), "t": (2, 4)}, "has 4 bottoms"),
        ("num_output: 4", {"x": (5, 2), "c": (5, 2)}, r"needs x \(T, N, \.\.\.\), has \(5, 2\)"),
    ],
)
def test_bottoms_that_do_not_fit_are_refused(param: str, shapes: dict[str, Any], words: str) -> None:
    bottoms = " ".join(f'bottom: "{name}"' for name in shapes)
    with pytest.raises(NetError, match=words):
        read_net(net_text(f'type: "LSTM" {bottoms} top: "y" recurrent_param {{ {param} }}', **shapes))
