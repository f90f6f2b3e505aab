"""The copied functions' own behavior; test_against_pydensecrf.py compares their labels with the original."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from atrous.runtime.crf import CrfInputError, kept, release_memory
from atrous.runtime.crf.kept import KeptCrf, find_own_crf
from atrous.runtime.crf.recipes import RECIPES, DenseCRF, crf_inference, crf_inference_label, densecrf

from .conftest import make_problem


def test_calls_do_not_depend_on_those_before() -> None:
    """Kept lattices: the same image again, another of its size, another size, other settings."""
    problems = [make_problem(20, 30, 4, seed) for seed in (0, 0, 1, 2)] + [make_problem(21, 30, 4, 3)]
    crf = DenseCRF(iter_max=10, pos_w=3, pos_xy_std=1, bi_w=4, bi_xy_std=67, bi_rgb_std=3)
    alone = []
    for image, probabilities in problems:
        release_memory()
        alone.append(crf(image, probabilities))
    for (image, probabilities), expected in zip(problems, alone, strict=True):
        np.testing.assert_array_equal(crf(image, probabilities), expected)
        crf_inference(image, probabilities, labels=4)  # other settings in between
    for (image, probabilities), expected in zip(problems, alone, strict=True):
        np.testing.assert_array_equal(crf(image, probabilities), expected)


def test_the_same_image_keeps_its_lattices(monkeypatch: pytest.MonkeyPatch) -> None:
    image, probabilities = make_problem(20, 30, 4)
    built: list[Any] = []
    monkeypatch.setattr(kept, "add_terms", lambda *arguments: built.append(arguments))
    for call in range(3):
        crf = KeptCrf() if call == 2 else find_own_crf()
        crf.prepare(image.copy(), 4, RECIPES["irn"]).set_probabilities(probabilities)
    assert len(built) == 2


def test_an_image_changed_in_place_is_another() -> None:
    image, probabilities = make_problem(20, 30, 4)
    crf = DenseCRF(3, 3, 3, 4, 20, 10)
    crf(image, probabilities)
    image[:10] = 255 - image[:10]
    found = crf(image, probabilities)
    release_memory()
    np.testing.assert_array_equal(found, crf(image, probabilities))


def test_threads_do_not_share_and_leave_nothing() -> None:
    problems = [make_problem(20, 30, 4, seed) for seed in range(6)]
    expected = [crf_inference_label(image, p.argmax(axis=0), n_labels=4) for image, p in problems]
    found: list[Any] = [None] * len(problems)
    models = []

    def run(index: int) -> None:
        image, probabilities = problems[index]
        for _ in range(3):
            found[index] = crf_inference_label(image, probabilities.argmax(axis=0), n_labels=4)
        models.append(weakref.ref(find_own_crf()))

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(problems))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(found, expected)
    threads.clear()
    del thread
    gc.collect()
    assert not any(model() for model in models)


def test_settings_as_arrays() -> None:
    """Two objects in one thread: the second asks whether the lattices of the first are its own."""
    problem = make_problem(20, 30, 4)
    expected = DenseCRF(3, 3, (1, 2), 4, 67, (3, 4, 5))(*problem)
    for _ in range(2):
        found = DenseCRF(np.int64(3), 3, np.array([1, 2]), 4, 67, np.array([3.0, 4.0, 5.0]))(*problem)
        np.testing.assert_array_equal(found, expected)


def test_any_strides_and_types() -> None:
    image, probabilities = make_problem(20, 30, 4)
    expected = crf_inference(image, probabilities, labels=4)
    mirrored = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    channels_first = np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0)
    labels_last = np.ascontiguousarray(probabilities.transpose(1, 2, 0)).transpose(2, 0, 1)
    for pixels, values in ((mirrored, labels_last), (channels_first, probabilities[:, ::-1][:, ::-1])):
        np.testing.assert_array_equal(crf_inference(pixels, values, labels=4), expected)
    assert (crf_inference(image, probabilities.astype(np.float64), labels=4).argmax(0) == expected.argmax(0)).all()


@pytest.mark.parametrize(
    "mistake",
    [
        lambda image, p: crf_inference(image, p),  # 21 labels by default
        lambda image, p: crf_inference(image, p.transpose(0, 2, 1), labels=4),
        lambda image, p: crf_inference(image[..., 0], p, labels=4),
        lambda image, p: crf_inference(image.astype(np.float32), p, labels=4),
        lambda image, p: crf_inference_label(image, p, n_labels=4),
        lambda image, p: crf_inference_label(image, p.argmax(0)[:5], n_labels=4),
        lambda image, p: crf_inference_label(image, p.argmax(0), n_labels=2),
        lambda image, p: densecrf(image, p[0, ::2, ::2]),
        lambda image, p: DenseCRF(10, 3, 0, 4, 67, 3)(image, p),
        lambda image, p: DenseCRF(-1, 3, 1, 4, 67, 3),
    ],
)
def test_mistakes(mistake: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(CrfInputError, match=r"\w"):
        mistake(*make_problem(20, 30, 4))
