"""DummyData and Parameter: blobs without a bottom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atrous.converter import read_net
from atrous.errors import NetError

from .converting import Twin, assert_matches, random_array


@pytest.mark.parametrize("case", ["dummydata-constant", "parameter"])
def test_recorded(goldens: Path, case: str) -> None:
    assert_matches(goldens, case, tolerance=0)


def dummy(param: str, tops: str = 'top: "a"') -> str:
    return f'layer {{ name: "d" type: "DummyData" {tops} dummy_data_param {{ {param} }} }}'


@pytest.mark.parametrize(
    ("param", "tops", "expected"),
    [
        ("shape { dim: 2 dim: 3 }", 'top: "a"', [np.zeros((2, 3))]),
        ("shape { }", 'top: "a"', [np.zeros(())]),
        ("num: 2 channels: 3 height: 1 width: 4 data_filler { value: 7 }", 'top: "a"', [np.full((2, 3, 1, 4), 7)]),
        (
            "shape { dim: 2 } data_filler { value: 7 } data_filler { value: -1 }",
            'top: "a" top: "b"',
            [np.full(2, 7), np.full(2, -1)],
        ),
        (
            "num: 1 num: 2 channels: 3 height: 1 width: 4 data_filler { value: 7 }",
            'top: "a" top: "b"',
            [np.full((1, 3, 1, 4), 7), np.full((2, 3, 1, 4), 7)],
        ),
    ],
)
def test_dummy_data(param: str, tops: str, expected: list[np.ndarray]) -> None:
    blobs = Twin(dummy(param, tops)).run(0)
    for (_, blob), wanted in zip(sorted(blobs.items()), expected, strict=True):
        np.testing.assert_array_equal(blob, wanted)
        assert blob.shape == wanted.shape


@pytest.mark.parametrize(
    ("param", "words"),
    [
        ('shape { dim: 2 } data_filler { type: "gaussian" }', "random"),
        ("shape { dim: 2 } shape { dim: 3 }", "2 shapes"),
        ("", "0 shapes"),
        ("num: 1 channels: 2", "height and width"),
        ("shape { dim: 2 } num: 1", "both"),
        ("shape { dim: 2 } data_filler { } data_filler { }", "2 fillers"),
    ],
)
def test_other_than_constants_is_refused(param: str, words: str) -> None:
    with pytest.raises(NetError, match=words):
        read_net(dummy(param))


def test_parameter_is_its_blob() -> None:
    value = random_array(2, 3)
    text = 'layer { name: "w" type: "Parameter" top: "y" parameter_param { shape { dim: 2 dim: 3 } } }'
    np.testing.assert_array_equal(Twin(text, {"w": [value]}).run(0)["y"], value)
