"""`dense_crf`: one image and a network's output in, refined marginals out."""

from __future__ import annotations

from typing import Any

from ..errors import CrfInputError
from .checks import FloatArray, as_array, check_grid, check_image, check_layout
from .model import DenseCRF
from .parameters import BilateralTerm, CrfParameters, GaussianTerm, Mode


def dense_crf(
    image: Any,
    probabilities: Any = None,
    *,
    scores: Any = None,
    parameters: CrfParameters | None = None,
    mode: Mode = "deeplab",
    iterations: int = 10,
    gaussian: tuple[Any, float] | None = (3.0, 3.0),
    bilateral: tuple[Any, Any, float] | None = (121.0, 5.0, 4.0),
    threads: int | None = None,
    clip: float = 1e-5,
) -> FloatArray:
    """Refine per-pixel probabilities by a fully connected CRF.

    Args:
        image: H x W x 3 uint8 RGB, C-contiguous (also H x W x C of any C, H x W grey, or float32).
        probabilities: (L, H, W) float32, after the softmax; the unary is -log(clip(p, clip, 1)).
        scores: (L, H, W) float32 before the softmax, instead of probabilities.
        parameters: all that follows in one object, as a bundle carries it; then the rest up to `bilateral` is ignored.
        mode: "deeplab" (normalise after filtering) or "pydensecrf" (symmetric).
        iterations: mean-field updates.
        gaussian: (sxy, weight) of the position term, or None for no such term; sxy in pixels, one number or (x, y).
        bilateral: (sxy, srgb, weight) of the colour term, or None; srgb in grey levels, one number or one per channel.
        threads: how many threads, None for all; the result does not depend on it.
        clip: lowest probability.

    Returns:
        Marginals (L, H, W) float32; labels are their argmax over axis 0.

    Raises:
        CrfInputError: an input of the wrong layout, type or range, or sigmas too small for 16-bit lattice keys.
    """
    if (probabilities is None) == (scores is None):
        raise CrfInputError("pass either probabilities or scores=...")
    if parameters is None:
        parameters = CrfParameters(
            mode,
            iterations,
            () if gaussian is None else (GaussianTerm(*gaussian),),
            () if bilateral is None else (BilateralTerm(*bilateral),),
        )
    pixels = check_image(image)
    what = "probabilities" if scores is None else "scores"
    unary = as_array(probabilities if scores is None else scores, what)
    grid = pixels.shape[:-1]
    check_layout(unary, grid, what)
    crf = DenseCRF(check_grid(grid, unary.shape[0]), unary.shape[0], threads=threads)
    if scores is None:
        crf.set_probabilities(unary, clip=clip)
    else:
        crf.set_scores(unary, clip=clip)
    add_terms(crf, pixels, parameters)
    return crf.inference(parameters.iterations, keep=False)


def add_terms(crf: DenseCRF, image: Any, parameters: CrfParameters) -> None:
    """Add the terms of `parameters` to a CRF over the pixels of `image`."""
    for position in parameters.gaussian:
        crf.add_gaussian(position.sxy, position.weight, normalization=parameters.normalization)
    for colour in parameters.bilateral:
        crf.add_bilateral(colour.sxy, colour.srgb, image, colour.weight, normalization=parameters.normalization)
