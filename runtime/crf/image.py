"""`dense_crf` and `dense_crf_batch`: from images and a network's output to refined marginals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, zip_longest
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ...bundle.crf_parameters import BilateralTerm, CrfParameters, GaussianTerm, Mode
from ...errors import CrfInputError
from . import _lattice
from .calls import Output, choose_output
from .checks import (
    FloatArray,
    as_array,
    check_choice,
    check_image,
    check_integer,
    check_layout,
    check_parameters,
    check_threads,
    check_unary_arguments,
)
from .model import DenseCRF, Device, Storage
from .pydensecrf_backend import run_pydensecrf
from .reduced import apply_change, average_blocks, average_pixels, shrink_parameters

Backend = Literal["atrous", "pydensecrf"]

#: Shortcuts that combine well, as `dense_crf(image, probabilities, **FAST)`: half precision rows; without labels that
#: nowhere reach a hundredth of the best one's probability; pixels that are 99.9 % sure after one update are frozen.
#: docs/crf-performance.md has the measured gain and effect.
FAST: Mapping[str, Any] = MappingProxyType({"storage": "float16", "prune": 0.01, "settle": 0.999})
_PLAIN = (True, "float32", "none", 0.0, 0.0, 1, None)  # defaults of the options that only this core has
_PLAIN_ON_GPU = ("atrous", "float32", "none", 0.0, 0.0, 1)


def dense_crf(
    image: Any,
    probabilities: Any = None,
    *,
    scores: Any = None,
    parameters: CrfParameters | None = None,
    mode: Mode | None = None,
    iterations: int | None = None,
    gaussian: tuple[Any, float] | Literal["default"] | None = "default",
    bilateral: tuple[Any, Any, float] | Literal["default"] | None = "default",
    threads: int | None = None,
    clip: float = 1e-5,
    padded: tuple[int, int] | None = None,
    mask: Any = None,
    storage: Storage = "float32",
    prune: Literal["none", "lossless"] | float = "none",
    tolerance: float = 0.0,
    settle: float = 0.0,
    reduce: int = 1,
    origin: tuple[int, int] = (0, 0),
    token: _lattice.CancelToken | None = None,
    backend: Backend = "atrous",
    device: Device = "cpu",
    output: Output = "marginals",
) -> npt.NDArray[Any]:
    """Refine per-pixel probabilities by a fully connected CRF.

    Everything up to `mask` is exact. The shortcuts `storage`, `prune`, `tolerance`, `settle` and `reduce` are
    off by default; docs/crf.md gives their measured effect.

    Args:
        image: H x W x 3 uint8 RGB, C-contiguous (also H x W x C of any C, H x W gray, or float32).
        probabilities: (L, H, W) float32, after the softmax; the unary is -log(clip(p, clip, 1)).
        scores: instead of probabilities, (L, H, W) float32 before the softmax, or (L, h, w) float32 or float16 of a
            coarser grid, upsampled inside with aligned corners.
        parameters: mode, iterations and terms in one object, as a bundle carries it; replaces the next four arguments.
        mode: "deeplab" (the default; normalizes after filtering) or "pydensecrf" (symmetric).
        iterations: number of mean-field updates; 10 by default.
        gaussian: (sxy, weight) of the position term, by default (3, 3), or None for no such term; sxy in pixels, one
            number or (x, y).
        bilateral: (sxy, srgb, weight) of the color term, by default (121, 5, 4), or None for no such term; srgb in gray
            levels, one number or one per channel.
        threads: number of threads; None for all, or one in a worker process of multiprocessing or joblib. The result
            does not depend on it.
        clip: lowest probability.
        padded: the (height, width) that scores of a coarser grid cover, if the image was padded at the bottom and the
            right for the network; None for the image's.
        mask: bool (H, W); pixels with False neither send nor receive messages.
        storage: "float16" halves the size of marginals and lattice rows.
        prune: "lossless" drops labels proven unable to win; a number drops labels that nowhere reach this fraction of
            the best label's probability. Dropped labels come back with probability 0.
        tolerance: stop once an update changed at most this fraction of the labels.
        settle: after one update, freeze pixels with a marginal above this; 0 freezes none.
        reduce: side in pixels of the blocks to run on, e.g. 2 for half the resolution.
        origin: (row, column) of the first pixel in the image that this one is a part of. The lattices then lie as those
            of the whole, without which 0.1 % of the labels would differ.
        token: stops the updates when another thread cancels it.
        backend: "pydensecrf" runs the original, if installed, which has neither mask, shortcuts nor token.
        device: "cuda" for the first NVIDIA GPU, with the same result in every bit and without shortcuts. Image and
            unary may be in its memory then, and the result is where the unary is: see `DenseCRF`.
        output: "labels" for the argmax of the marginals over axis 0.

    Returns:
        Marginals (L, H, W) float32, or labels (H, W) uint8 (uint16 for more than 256 labels).

    Raises:
        CrfInputError: an input of the wrong layout, type or range; an argument that `parameters` or `backend` excludes;
            sigmas too small for 16-bit lattice keys.
        MissingDependencyError: the backend, or what a GPU needs, is not installed.
        BackendError: there is no GPU.
    """
    check_unary_arguments(probabilities, scores, padded)
    check_choice(backend, "backend", Backend)
    if backend == "pydensecrf" and (mask is None, storage, prune, tolerance, settle, reduce, token) != _PLAIN:
        raise CrfInputError('backend="pydensecrf" has neither mask, shortcuts nor token: leave backend="atrous"')
    if isinstance(prune, str) and prune not in ("none", "lossless"):
        raise CrfInputError(f'prune must be "none", "lossless" or a number, got {prune!r}')
    if device == "cuda" and (backend, storage, prune, tolerance, settle, reduce) != _PLAIN_ON_GPU:
        raise CrfInputError('device="cuda" has neither shortcuts nor another backend: leave them out, or the device')
    factor = check_integer(reduce, "reduce", 1, 16)
    if factor > 1 and mask is not None:
        raise CrfInputError("a mask cannot be reduced: leave reduce=1, or crop the image")
    parameters = _choose_parameters(parameters, mode, iterations, gaussian, bilateral)
    pixels = image if _may_be_on(device, image) else check_image(image)
    what = "probabilities" if scores is None else "scores"
    given = probabilities if scores is None else scores
    unary = given if _may_be_on(device, given) else as_array(given, what)
    if scores is None or unary.ndim != 3:
        check_layout(unary, tuple(pixels.shape[:2]), what)
    labels = unary.shape[0]
    options: dict[str, Any] = {"threads": threads, "mask": mask, "storage": storage, "device": device}
    shape = tuple(pixels.shape[:2])
    crf = DenseCRF(shape, labels, **options if factor == 1 else {"threads": threads})
    if scores is None:
        crf.set_probabilities(unary, clip=clip)
    else:
        crf.set_scores(unary, clip=clip, padded=padded)
    if backend == "pydensecrf":
        return choose_output(run_pydensecrf(pixels, crf.unary_energies(), parameters), output)
    if factor > 1:
        full = crf.inference(0, keep=False)
        small = average_blocks(full, factor)
        pixels = average_pixels(pixels, factor)
        parameters = shrink_parameters(parameters, factor)
        crf = DenseCRF(small.shape[1:], labels, **options)
        crf.set_probabilities(small, clip=clip)
    add_terms(crf, pixels, parameters, (origin[0] / factor, origin[1] / factor))
    if prune != "none":
        crf.prune_labels(below=None if prune == "lossless" else prune)
    shortcuts: dict[str, Any] = {"tolerance": tolerance, "settle": settle, "token": token}
    if factor == 1:
        return crf.inference(parameters.iterations, keep=False, output=output, **shortcuts)
    blurred = crf.inference(parameters.iterations, keep=False, **shortcuts)
    return choose_output(apply_change(full, small, blurred, factor), output)


def _may_be_on(device: Device, value: Any) -> bool:
    """Whether an array may be in the device's memory; `DenseCRF` checks it."""
    return device == "cuda" and not isinstance(value, np.ndarray) and hasattr(value, "__dlpack_device__")


def _choose_parameters(parameters: CrfParameters | None, mode: Any, iterations: Any, *terms: Any) -> CrfParameters:
    given = {name: value for name, value in (("mode", mode), ("iterations", iterations)) if value is not None}
    for name, kind, term in zip(("gaussian", "bilateral"), (GaussianTerm, BilateralTerm), terms, strict=True):
        if term is None:
            given[name] = ()
        elif not (isinstance(term, str) and term == "default"):
            try:
                given[name] = (kind(*term),)
            except TypeError:
                raise CrfInputError(f"{name} must be a tuple of sigmas and a weight, or None, got {term!r}") from None
    if parameters is None:
        return CrfParameters(**given)
    if given:
        raise CrfInputError(
            f"parameters and {', '.join(given)} are both given: change parameters (dataclasses.replace)"
        )
    check_parameters(parameters)
    return parameters


def add_terms(crf: DenseCRF, image: Any, parameters: CrfParameters, origin: tuple[float, float] = (0, 0)) -> None:
    """Add the terms of `parameters` to a CRF over the pixels of `image`, which lies at `origin` of a larger one."""
    normalization = parameters.normalization
    for position in parameters.gaussian:
        if any(origin):
            features = shift_features(image.shape[:2], origin, position.sxy)
            crf.add_features(features, position.weight, normalization=normalization)
        else:
            crf.add_gaussian(position.sxy, position.weight, normalization=normalization)
    for color in parameters.bilateral:
        if any(origin):
            features = shift_features(image.shape[:2], origin, color.sxy, as_array(image, "image"), color.srgb)
            crf.add_features(features, color.weight, normalization=normalization)
        else:
            crf.add_bilateral(color.sxy, color.srgb, image, color.weight, normalization=normalization)


def shift_features(
    size: tuple[int, int], origin: tuple[float, float], sxy: Any, image: Any = None, srgb: Any = 1.0
) -> FloatArray:
    """The features of a part of an image, (2 or 2 + C, N) float32, so that its lattice lies as that of the whole.

    The permutohedral lattice repeats along x every sqrt(3) standard deviations and along y every 3: its basis is the
    columns (1, -1, 0, ...) / sqrt(2) and (1, 1, -2, 0, ...) / sqrt(6) times (d + 1) sqrt(2 / 3), and its points differ
    by multiples of d + 1. The origin is taken modulo these periods, which keeps the coordinates small.

    Args:
        size: (height, width) of the part.
        origin: (row, column) of its first pixel in the image.
        sxy: standard deviation of the position in pixels, one number or (x, y).
        image: H x W x C pixels of the part, or None for the position alone.
        srgb: standard deviation of the color, one number or one per channel.
    """
    sigma_x, sigma_y = np.broadcast_to(np.asarray(sxy, np.float64), 2)
    (height, width), channels = size, 0 if image is None else image.shape[-1]
    features = np.empty((2 + channels, height, width), np.float32)
    features[0] = (np.arange(width) + origin[1] % (3**0.5 * sigma_x)) / sigma_x
    features[1] = ((np.arange(height) + origin[0] % (3 * sigma_y)) / sigma_y)[:, None]
    for channel, sigma in enumerate(np.broadcast_to(np.asarray(srgb, np.float32), channels)):
        np.divide(image[..., channel], sigma, out=features[2 + channel])
    return features.reshape(2 + channels, -1)


def dense_crf_batch(
    images: Iterable[Any],
    probabilities: Iterable[Any] | None = None,
    *,
    scores: Iterable[Any] | None = None,
    threads: int | None = None,
    **options: Any,
) -> Iterator[FloatArray]:
    """Refine many images, one on each thread: no thread waits for another, which suits evaluations.

    Args:
        images: as for `dense_crf`; sizes may differ.
        probabilities: one array for each image, or None.
        scores: one array for each image, or None.
        threads: number of images at a time; None as for `dense_crf`.
        options: other arguments of `dense_crf`.

    Yields:
        The marginals (L, H, W) of each image, in order. At most two images per thread are read ahead.

    Raises:
        CrfInputError: as `dense_crf`, at the image concerned; or unequal numbers of images and arrays.
    """
    check_unary_arguments(probabilities, scores)
    name, unaries = ("probabilities", probabilities) if scores is None else ("scores", scores)
    assert unaries is not None
    workers = check_threads(threads)
    pairs = _pair_up(images, unaries)
    with ThreadPoolExecutor(workers) as pool:

        def submit(pair: tuple[Any, Any]) -> Any:
            return pool.submit(dense_crf, pair[0], threads=1, **{name: pair[1]}, **options)

        waiting = [submit(pair) for pair in islice(pairs, 2 * workers)]
        while waiting:
            yield waiting.pop(0).result()
            waiting.extend(submit(pair) for pair in islice(pairs, 1))


def _pair_up(images: Iterable[Any], unaries: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    missing = object()
    for pair in zip_longest(images, unaries, fillvalue=missing):
        if pair[0] is missing or pair[1] is missing:
            raise CrfInputError("there are not as many images as probabilities or scores")
        yield pair
