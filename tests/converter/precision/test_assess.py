"""Options, agreement of labels, and targets, counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from atrous.converter.precision import HeadReader, VariantOptions
from atrous.converter.precision.assess import Agreement, find_clear
from atrous.converter.precision.options import Targets, choose_targets
from atrous.errors import PrecisionError


def test_agreement_is_pooled_over_pixels() -> None:
    agreement = Agreement()
    agreement.add(np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 1]], np.uint8), None)
    agreement.add(np.zeros((1, 4), np.uint8), np.zeros((1, 4), np.uint8), None)
    assert agreement.share == 7 / 8
    assert agreement.worst == 0.75
    assert agreement.clear_share is None


def test_clear_pixels_are_those_of_a_wide_margin() -> None:
    scores = np.zeros((3, 1, 4), np.float32)
    scores[0] = [[100.0, 10.0, 5.0, 0.0]]
    scores[1] = [[0.0, 9.5, 3.9, 0.0]]  # the span is 100, so 1 is the least clear margin
    np.testing.assert_array_equal(find_clear(scores), [[True, False, True, False]])
    agreement = Agreement()
    reference = scores.argmax(0).astype(np.uint8)
    labels = reference.copy()
    labels[0, 1] = 1
    agreement.add(reference, labels, scores)
    assert (agreement.share, agreement.clear_share) == (0.75, 1.0)


def test_one_class_is_clear() -> None:
    assert find_clear(np.zeros((1, 2, 2), np.float32)).all()


def test_heads() -> None:
    scores = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    image = np.zeros((2, 2, 3), np.uint8)
    labels, kept = HeadReader("scores").read(scores, image)
    assert labels.tolist() == [[1, 1], [1, 1]]
    assert kept is not None
    labels, kept = HeadReader("labels").read(np.ones((1, 2, 2), np.uint8), image)
    assert labels.tolist() == [[1, 1], [1, 1]]
    assert kept is None
    reader = HeadReader("lowres", lambda s, size: np.zeros((2, *size), np.float32))
    labels, _ = reader.read(scores, np.zeros((4, 4, 3), np.uint8))
    assert labels.shape == (4, 4)


@pytest.mark.parametrize(
    ("targets", "agreement", "loss", "misses"),
    [
        (Targets(0.999, None), 0.999, None, 0),
        (Targets(0.999, None), 0.9989, None, 1),
        (Targets(None, 1.0), 0.5, 1.0, 0),
        (Targets(None, 1.0), 0.5, 1.01, 1),
        (Targets(None, 1.0), 1.0, None, 1),
        (Targets(0.9, 1.0), 0.8, 2.0, 2),
        (Targets(0.9, None), float("nan"), None, 1),
    ],
)
def test_targets(targets: Targets, agreement: float, loss: float | None, misses: int) -> None:
    assert len(targets.find_misses(agreement, loss)) == misses


def test_default_targets() -> None:
    assert choose_targets(VariantOptions("fp16"), True) == Targets(0.999, None)
    assert choose_targets(VariantOptions("int8"), True) == Targets(None, 1.0)
    assert choose_targets(VariantOptions("int8"), False) == Targets(0.99, None)
    assert choose_targets(VariantOptions("fp8", target_agreement=0.7), False) == Targets(0.7, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "int4"}, "invalid option precision: .*int8.*, not 'int4'"),
        ({}, "invalid option precision: .*required"),
        ({"precision": "int8", "method": "median"}, "invalid option method: .*entropy.*, not 'median'"),
        ({"precision": "int8", "percentile": 0.0}, "invalid option percentile: .*greater than 0"),
        ({"precision": "int8", "percentile": 101.0}, "invalid option percentile: .*equal to 100"),
        ({"precision": "int8", "percentile": float("nan")}, "invalid option percentile"),
        ({"precision": "int8", "threads": 0}, "invalid option threads"),
        ({"precision": "int8", "target_agreement": 1.5}, "invalid option target_agreement"),
        ({"precision": "int8", "max_miou_loss": float("inf")}, "invalid option max_miou_loss: .*finite"),
        ({"precision": "int8", "keep": "fc8"}, "invalid option keep: .*tuple"),
        ({"precision": "int8", "kep": ("fc8",)}, "invalid option kep: "),
        ({"precision": "fp8", "method": "entropy"}, "use minmax or percentile"),
    ],
)
def test_invalid_options_are_rejected(options: dict[str, Any], words: str) -> None:
    with pytest.raises(PrecisionError, match=words):
        VariantOptions(**options)
