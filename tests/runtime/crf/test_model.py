"""`DenseCRF` and `dense_crf` as a user meets them: steps, reuse, shortcuts, layouts, batches, cancelling."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.runtime.crf import (
    CancelToken,
    CrfInputError,
    DenseCRF,
    dense_crf,
    dense_crf_batch,
    release_memory,
)
from atrous.runtime.upsampling import upsample_scores

from .conftest import make_problem

Problem = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]


def make_crf(problem: Problem, **options: Any) -> DenseCRF:
    image, probabilities = problem
    crf = DenseCRF(image.shape[:2], len(probabilities), **options)
    crf.set_probabilities(probabilities)
    crf.add_gaussian(3.0, 3.0, normalization="after")
    crf.add_bilateral(20.0, 8.0, image, 4.0, normalization="after")
    return crf


def test_steps_are_inference(problem: Problem) -> None:
    crf = make_crf(problem)
    whole = crf.inference(4)
    start = crf.start()
    np.testing.assert_allclose(start, problem[1], atol=1e-5)
    for _ in range(4):
        stepped = crf.step()
    np.testing.assert_array_equal(stepped, whole)
    np.testing.assert_array_equal(crf.inference(4, keep=False), whole)


def test_set_marginals_goes_on_from_there(problem: Problem) -> None:
    crf = make_crf(problem)
    third, fourth = crf.inference(3), crf.inference(4)
    crf.start()
    crf.set_marginals(third)
    np.testing.assert_array_equal(crf.step(), fourth)
    crf.set_marginals(np.flip(np.flip(third, (1, 2)).copy(), (1, 2)))  # negative strides
    np.testing.assert_array_equal(crf.step(), fourth)


def test_warm_start_goes_on_with_a_changed_unary(problem: Problem) -> None:
    image, probabilities = problem
    crf = make_crf(problem)
    crf.inference(30)
    nearby = probabilities * np.random.default_rng(1).uniform(0.99, 1.01, probabilities.shape).astype(np.float32)
    nearby /= nearby.sum(axis=0)
    crf.set_probabilities(nearby)
    settled = crf.inference(30)
    crf.set_probabilities(probabilities)
    crf.inference(30)
    crf.set_probabilities(nearby)
    cold, warm = make_crf((image, nearby)).inference(3), crf.inference(3, warm=True)
    assert np.abs(warm - settled).mean() < 0.2 * np.abs(cold - settled).mean()


def test_threads_do_not_matter(problem: Problem) -> None:
    results = [make_crf(problem, threads=threads).inference(5) for threads in (1, 2, 3, 7)]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_views_and_other_array_types(problem: Problem) -> None:
    torch = pytest.importorskip("torch")
    image, probabilities = problem
    expected = dense_crf(image, probabilities)
    channels_last = np.ascontiguousarray(probabilities.transpose(1, 2, 0))
    np.testing.assert_array_equal(dense_crf(image, channels_last.transpose(2, 0, 1)), expected)
    tensors = dense_crf(torch.from_numpy(image), torch.from_numpy(probabilities))
    np.testing.assert_array_equal(tensors, expected)
    with pytest.raises(CrfInputError, match="detach"):
        dense_crf(image, torch.from_numpy(probabilities).requires_grad_())


def test_inputs_are_left_alone(problem: Problem) -> None:
    image, probabilities = problem
    image.setflags(write=False)
    before = probabilities.copy()
    probabilities.setflags(write=False)
    dense_crf(image, probabilities, iterations=2)
    np.testing.assert_array_equal(probabilities, before)


def test_scores_are_probabilities_before_the_softmax(problem: Problem) -> None:
    image, probabilities = problem
    scores = np.log(probabilities) + np.random.default_rng(0).normal(0, 5, probabilities.shape[1:]).astype(np.float32)
    np.testing.assert_allclose(dense_crf(image, scores=scores), dense_crf(image, probabilities), atol=1e-5)


def test_lossless_pruning_keeps_the_labels() -> None:
    image, _ = make_problem(30, 40, 12, seed=2)
    random = np.random.default_rng(2)
    scores = random.normal(0, 2, (12, 30, 40)).astype(np.float32)
    scores[4:] -= 15  # eight labels that no term can lift
    whole = dense_crf(image, scores=scores)
    crf = DenseCRF((30, 40), 12)
    crf.set_scores(scores)
    crf.add_gaussian(3.0, 3.0, normalization="after")
    crf.add_bilateral(121.0, 5.0, image, 4.0, normalization="after")
    assert crf.prune_labels() == [0, 1, 2, 3]
    pruned = crf.inference(10)
    np.testing.assert_array_equal(pruned.argmax(axis=0), whole.argmax(axis=0))
    np.testing.assert_allclose(pruned, whole, atol=2e-3)
    assert not pruned[4:].any()
    np.testing.assert_array_equal(dense_crf(image, scores=scores, prune="lossless"), pruned)
    # A new unary has all labels again, and the lattices are still there.
    crf.set_scores(scores[::-1].copy())
    assert crf.prune_labels() == [8, 9, 10, 11]
    np.testing.assert_array_equal(crf.inference(10)[::-1], pruned)


@pytest.mark.parametrize("normalization", ["symmetric", "before", "after", "none"])
def test_lossless_margin_bounds_the_messages(normalization: Any, problem: Problem) -> None:
    image, probabilities = problem
    matrix = np.random.default_rng(0).uniform(-1, 2, (5, 5)).astype(np.float32)
    for compatibility in (2.5, -np.ones(5, np.float32), matrix):
        crf = DenseCRF(image.shape[:2], 5)
        crf.set_unary(np.zeros_like(probabilities))
        crf.add_bilateral(9.0, 20.0, image, compatibility, normalization=normalization)
        # the scores after one update from uniform marginals, up to a constant: differences of messages
        messages = np.log(np.maximum(crf.inference(1), 1e-30))
        from atrous.runtime.crf.pruning import lossless_margin

        assert (messages.max(axis=0) - messages.min(axis=0)).max() <= lossless_margin(crf._terms, 1)


def test_lossy_pruning_of_matrix_terms(problem: Problem) -> None:
    image, probabilities = problem
    sharp = probabilities**4
    sharp[3] = 1e-12
    sharp /= sharp.sum(axis=0)
    matrix = np.random.default_rng(0).uniform(0, 2, (5, 5)).astype(np.float32)
    crf = DenseCRF(image.shape[:2], 5)
    crf.set_probabilities(sharp)
    crf.add_gaussian(3.0, matrix)
    whole = crf.inference(3)
    assert crf.prune_labels(below=0.05) == [0, 1, 2, 4]
    pruned = crf.inference(3)
    np.testing.assert_allclose(pruned, whole, atol=0.05)
    np.testing.assert_allclose(pruned.sum(axis=0), 1, atol=1e-5)


def test_half_storage_is_close(problem: Problem) -> None:
    exact, half = make_crf(problem).inference(5), make_crf(problem, storage="float16").inference(5)
    np.testing.assert_allclose(half, exact, atol=2e-2)
    assert not np.array_equal(half, exact)


def test_tolerance_stops_early(problem: Problem) -> None:
    crf = make_crf(problem)
    crf.inference(50, tolerance=0.02)
    assert crf.report is not None
    assert 1 < crf.report.iterations < 50
    assert crf.report.changed is not None
    assert crf.report.changed <= 0.02
    np.testing.assert_array_equal(crf.inference(50, tolerance=0.02), crf.inference(crf.report.iterations))


def test_masked_pixels_neither_send_nor_receive(problem: Problem) -> None:
    image, probabilities = problem
    mask = np.ones(image.shape[:2], bool)
    mask[5:9, 3:20] = False
    other = probabilities.copy()
    other[:, ~mask] = other[::-1, ~mask]
    first = dense_crf(image, probabilities, mask=mask)
    second = dense_crf(image, other, mask=mask)
    np.testing.assert_array_equal(first[:, mask], second[:, mask])
    np.testing.assert_allclose(first[:, ~mask], probabilities[:, ~mask], atol=1e-4)
    everything = dense_crf(image, probabilities, mask=np.ones_like(mask))
    np.testing.assert_array_equal(everything, dense_crf(image, probabilities))
    nothing = dense_crf(image, probabilities, mask=np.zeros_like(mask))
    np.testing.assert_allclose(nothing, probabilities, atol=1e-4)


def test_batch_equals_single_images() -> None:
    problems = [make_problem(11 + i, 17, 4, seed=i) for i in range(7)]
    images, probabilities = zip(*problems, strict=True)
    found = list(dense_crf_batch(images, probabilities, threads=2, iterations=3))
    for result, (image, values) in zip(found, problems, strict=True):
        np.testing.assert_array_equal(result, dense_crf(image, values, iterations=3))
    with pytest.raises(CrfInputError, match="as many"):
        list(dense_crf_batch(images, probabilities[:3]))
    with pytest.raises(ValueError, match="own error"):
        list(dense_crf_batch(images, raise_after(probabilities)))


def raise_after(arrays: Any) -> Any:
    yield from arrays
    raise ValueError("own error of the caller's generator")


def test_cancelling_from_another_thread() -> None:
    crf = make_crf(make_problem(120, 160, 21))
    token = CancelToken()
    timer = threading.Timer(0.2, token.cancel)
    timer.start()
    crf.inference(100_000, token=token)  # returns only because it is cancelled
    timer.join()
    assert crf.report is not None
    assert crf.report.cancelled
    token.reset()
    crf.inference(2, token=token)
    assert not crf.report.cancelled


def test_one_crf_for_each_of_many_threads(problem: Problem) -> None:
    expected = dense_crf(*problem)
    found: list[npt.NDArray[np.float32]] = []

    def work() -> None:
        found.append(dense_crf(*problem, threads=2))

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    release_memory()
    assert len(found) == 6
    for result in found:
        np.testing.assert_array_equal(result, expected)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 70),
    labels=st.integers(1, 70),
    sxy=st.floats(0.05, 500),
    srgb=st.floats(0.5, 500),
    weight=st.floats(-20, 20),
    threads=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_marginals_are_distributions(
    height: int, width: int, labels: int, sxy: float, srgb: float, weight: float, threads: int, seed: int
) -> None:
    image, probabilities = make_problem(height, width, labels, seed, sharpness=4.0)
    options: dict[str, Any] = {"gaussian": (sxy, weight), "bilateral": (sxy, srgb, weight), "iterations": 3}
    try:
        found = dense_crf(image, probabilities, threads=threads, **options)
    except CrfInputError as error:
        assert "too small" in str(error)  # noqa: PT017
        return
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_cancelled_inference_returns_what_it_reached(problem: Problem) -> None:
    token = CancelToken()
    token.cancel()
    crf = make_crf(problem)
    np.testing.assert_array_equal(crf.inference(9, token=token, keep=False), make_crf(problem).inference(1))


def test_results_outlive_the_model(problem: Problem) -> None:
    first = dense_crf(*problem)
    copy = first.copy()
    for seed in range(3):
        dense_crf(*make_problem(19, 26, 5, seed))
    np.testing.assert_array_equal(first, copy)
    assert first.flags.writeable


def test_reduced_resolution_is_close() -> None:
    image, probabilities = make_problem(41, 54, 3, seed=7, sharpness=1.0)
    smooth = upsample_scores(probabilities[:, ::8, ::8], (41, 54), (41, 54))
    smooth /= smooth.sum(axis=0)
    whole = dense_crf(image, smooth, bilateral=(20, 20, 4))
    reduced = dense_crf(image, smooth, bilateral=(20, 20, 4), reduce=2)
    assert reduced.shape == whole.shape
    np.testing.assert_allclose(reduced.sum(axis=0), 1, atol=1e-5)
    changed = (reduced.argmax(axis=0) != whole.argmax(axis=0)).mean()
    assert changed < 0.5 * (smooth.argmax(axis=0) != whole.argmax(axis=0)).mean()
    with pytest.raises(CrfInputError, match="mask"):
        dense_crf(image, smooth, reduce=2, mask=np.ones(image.shape[:2], bool))
    with pytest.raises(CrfInputError, match="reduce"):
        dense_crf(image, smooth, reduce=0)


def test_small_problems_are_not_shared_out() -> None:
    assert DenseCRF((40, 50), 3).threads == 1
    assert DenseCRF((40, 50), 3, threads=3).threads == 3


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_settled_pixels_stay_and_the_others_go_on(storage: Any) -> None:
    image, probabilities = make_problem(40, 50, 5, seed=3, sharpness=4.0)
    crf = make_crf((image, probabilities), storage=storage)
    first, exact = crf.inference(1), crf.inference(8)
    found = crf.inference(8, settle=0.9)
    assert crf.report is not None
    settled = first.max(axis=0) > 0.9
    assert crf.report.settled == pytest.approx(settled.mean())
    assert 0.2 < crf.report.settled < 1.0
    np.testing.assert_array_equal(found[:, settled], first[:, settled])
    # The same by hand: every update, then the settled pixels put back.
    crf.inference(1)
    expected = first
    for _ in range(7):
        expected = crf.step().copy()
        expected[:, settled] = first[:, settled]
        crf.set_marginals(expected)
    np.testing.assert_allclose(found, expected, atol=1e-5 if storage == "float32" else 2e-2)
    assert np.abs(found - exact).max() > 0
    one_thread = make_crf((image, probabilities), storage=storage, threads=1)
    np.testing.assert_array_equal(one_thread.inference(8, settle=0.9, keep=False), found)
    np.testing.assert_array_equal(crf.inference(1, settle=0.9), first)
    with pytest.raises(CrfInputError, match="settle"):
        crf.inference(3, settle=1.0)


@pytest.mark.parametrize("shape", [(1, 1), (7, 37), (33, 65)])
def test_two_labels_are_read_like_others(shape: tuple[int, int]) -> None:
    """They have a reader of their own: energies of any strides, probabilities, the range, and each label's gap."""
    random = np.random.default_rng(3)
    energies = random.uniform(0, 9, (2, *shape)).astype(np.float32)
    crf = DenseCRF(shape, 2)
    for view in (energies, energies[:, ::-1, ::-1], np.asfortranarray(energies)):
        crf.set_unary(view)
        np.testing.assert_array_equal(crf.unary_energies(), view)
    probabilities = np.stack([energies[0] / 9, 1 - energies[0] / 9])
    crf.set_probabilities(probabilities)
    np.testing.assert_allclose(crf.unary_energies(), -np.log(np.clip(probabilities, 1e-5, 1)), rtol=1e-6, atol=1e-6)
    energies[1] = energies[0] + 2
    energies[1, -1, -1] = energies[0, -1, -1] + 1
    for labels in ((0, 1), (1, 0)):
        for below, kept in ((0.3, [0, 1]), (0.4, [0])):
            crf.set_unary(energies[list(labels)])
            assert crf.prune_labels(below=below) == sorted(labels.index(label) for label in kept)
    energies[1, -1, -1] = np.nan
    with pytest.raises(CrfInputError):
        crf.set_unary(energies)
