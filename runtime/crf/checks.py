"""Checks of the dense CRF's inputs, made before the core runs; each error says what to do.

Most of them catch mistakes that crashed other implementations, or silently gave wrong labels.
"""

from __future__ import annotations

import math
import operator
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from ...bundle.crf_parameters import CrfParameters
from ...errors import CrfInputError
from . import _lattice

FloatArray = npt.NDArray[np.float32]

MAX_ENTRIES = 2**31 - 1
MAX_ITERATIONS = 2**31 - 1
MAX_LABELS = 65535
MAX_DIMENSIONS = 64
_MAX_WEIGHT = 1e15  # times the 2^31 entries of a lattice, this stays below the energy of the core's padding, 1e30
_MAX_ENERGY = 1e29
_SUM_SAMPLE = 4096
_SCALED = 16.0  # photos from 0 to 255 hold larger values
_SMALLEST_SHARE = 4096  # points per thread; with fewer, meeting at barriers takes longer than the work


class CrfWarning(UserWarning):
    """A valid input that is rarely intended."""


def warn(message: str) -> None:
    """Warn at the line outside of this package that made the call."""
    frame, level = sys._getframe(), 1
    while frame.f_back and str(frame.f_globals["__name__"]).startswith(str(__package__)):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, CrfWarning, stacklevel=level)


def available_threads() -> int:
    """The number of processors this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def check_threads(threads: int | None, points: int | None = None) -> int:
    """Return the number of threads to use.

    None is all, fewer for few points, and one in a worker process, since workers share the processors.
    """
    if threads is not None:
        return check_integer(threads, "threads", 1, 256)
    module = sys.modules.get("multiprocessing.process")  # imported in every worker of multiprocessing and joblib
    found = available_threads() if module is None or module.parent_process() is None else 1
    return found if points is None else min(found, max(1, points // _SMALLEST_SHARE))


def check_choice(value: Any, name: str, choices: Any) -> None:
    """Refuse any value but those of a `Literal`."""
    if value not in get_args(choices):
        expected = " or ".join(f'"{choice}"' for choice in get_args(choices))
        raise CrfInputError(f"{name} must be {expected}, got {value!r}")


def kernel_names() -> list[str]:
    """The instruction sets whose kernels this processor runs, slowest first."""
    return _lattice.kernel_names()


def check_kernels(name: str) -> None:
    """Refuse kernels that this processor does not run; an empty name leaves the choice to the core."""
    if name and name not in kernel_names():
        raise CrfInputError(f"kernels must be one of {kernel_names()} on this processor, got {name!r}")


def check_integer(value: Any, name: str, lowest: int, highest: int) -> int:
    """Return an integer; refuse other types and values outside of the range."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not lowest <= value <= highest:
        raise CrfInputError(f"{name} must be an integer from {lowest} to {highest}, got {value!r}")
    return int(value)


def check_fraction(value: Any, name: str, *, or_zero: bool = False) -> float:
    """Return a number between 0 and 1 (in float32 too); accept 0 only with `or_zero`."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not (np.float32(value) > (-1 if or_zero else 0) and 0 <= value < 1):
        raise CrfInputError(f"{name} must lie between 0 and 1{' or be 0' if or_zero else ''}, got {value!r}")
    return float(value)


def as_array(value: Any, what: str) -> npt.NDArray[Any]:
    """Return a NumPy view of an array, a torch tensor or anything with DLPack, without a copy."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise CrfInputError(
                f"{what} cannot be read in place ({error}): pass a CPU array, e.g. tensor.detach().cpu()"
            ) from None
    raise CrfInputError(f"{what} must be an array (numpy, torch or DLPack), got {type(value).__name__}")


def check_float32(array: npt.NDArray[Any], what: str) -> None:
    """Refuse any dtype but native float32."""
    if array.dtype != np.float32:
        hint = "a label map? use utils.unary_from_labels" if array.dtype.kind in "iub" else "convert it"
        raise CrfInputError(f"{what} must be float32, got {array.dtype} ({hint}: {what}.astype(numpy.float32))")


def check_values(value: Any, what: str, labels: int, grid: tuple[int, ...]) -> FloatArray:
    """Return an array of labels x grid, float32, any strides."""
    array = as_array(value, what)
    check_layout(array, grid, what, labels)
    check_float32(array, what)
    return array


def check_image(image: Any, *, shape: tuple[int, ...] | None = None) -> npt.NDArray[Any]:
    """Return an image as *shape x channels, uint8 or float32, C-contiguous.

    Args:
        image: H x W x C (any C), or H x W for one channel; volumes D x H x W x C.
        shape: the grid it must cover, if known.
    """
    array = as_array(image, "image")
    axes = 2 if shape is None else len(shape)
    if array.ndim == axes and (shape is None or array.shape == shape):
        array = array[..., None]
    if array.ndim != axes + 1:
        raise CrfInputError(f"image must have {axes} axes and channels last, got shape {array.shape}")
    if array.shape[0] in (1, 3, 4) and array.shape[-1] > 16 and (shape is None or array.shape[:-1] != shape):
        raise CrfInputError(
            f"image has shape {array.shape}, which looks channels-first: pass image.transpose(1, 2, 0).copy()"
        )
    if shape is not None and array.shape[:-1] != shape:
        hint = ": width and height are swapped" if array.shape[:-1] == shape[::-1] else ""
        raise CrfInputError(f"image covers {array.shape[:-1]} pixels, the scores {shape}{hint}")
    if array.dtype == np.float32:
        if not np.isfinite(array).all():
            raise CrfInputError("image holds NaN or infinite values: clean it first (numpy.nan_to_num)")
    elif array.dtype != np.uint8:
        raise CrfInputError(
            f"image must be uint8 (0 to 255) or float32 (then srgb is in its own units), got {array.dtype}: "
            "convert it, e.g. (image * 255).round().astype(numpy.uint8) for values from 0 to 1"
        )
    if not array.flags.c_contiguous:
        raise CrfInputError(
            "image is not C-contiguous (a slice or a flipped view): pass numpy.ascontiguousarray(image)"
        )
    return array


def warn_of_scaled_image(image: npt.NDArray[Any], sigmas: Sequence[float]) -> None:
    """Warn when a float image looks scaled (to 0 to 1, or to unit variance) and srgb does not."""
    flat = image.reshape(-1, image.shape[-1])
    low, high = flat.min(axis=0), flat.max(axis=0)
    widest = ((high - low) / np.array(sigmas, np.float32)).max()
    if 0.0 < widest < 1.0 and max(-low.min(), high.max()) <= _SCALED:
        warn(
            f"the image's values lie in [{low.min():.4g}, {high.max():.4g}] and differ by less than srgb "
            f"{max(sigmas):g}, so color hardly counts: pass uint8 from 0 to 255, or srgb in the units of the image"
        )


def check_grid(shape: Sequence[int], labels: int) -> tuple[int, ...]:
    """Return the grid; check it and the label count."""
    grid = tuple(check_integer(extent, "every axis", 1, MAX_ENTRIES) for extent in shape)
    if not 1 <= len(grid) <= 8:
        raise CrfInputError(f"a CRF has 1 to 8 axes, got shape {grid}")
    check_integer(labels, "labels", 1, MAX_LABELS)
    if math.prod(grid) > MAX_ENTRIES:
        raise CrfInputError(
            f"{math.prod(grid)} pixels exceed the range of 32-bit indices: cut the image into overlapping tiles"
        )
    return grid


def check_entries(points: int, dimensions: int) -> None:
    """Refuse lattices with more than 2^31 - 1 entries, of which there are points x (dimensions + 1)."""
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise CrfInputError(f"a kernel has 1 to {MAX_DIMENSIONS} feature dimensions, got {dimensions}")
    if points * (dimensions + 1) > MAX_ENTRIES:
        raise CrfInputError(
            f"{points} pixels with {dimensions} features need {points * (dimensions + 1)} lattice entries, more than "
            f"{MAX_ENTRIES}: cut the image into overlapping tiles or reduce its size"
        )


def check_sigmas(value: Any, count: int, name: str) -> list[float]:
    """Return `count` positive numbers, from one number or one for each axis."""
    try:
        sigmas = [float(value)] * count if np.ndim(value) == 0 else [float(v) for v in value]
    except (TypeError, ValueError):
        raise CrfInputError(f"{name} must be a number or {count} numbers, got {value!r}") from None
    if len(sigmas) != count:
        raise CrfInputError(f"{name} has {len(sigmas)} values for {count} axes: give one number or {count}")
    for sigma in sigmas:
        if not (math.isfinite(sigma) and float(np.float32(sigma)) > 0.0):
            raise CrfInputError(f"{name} must be positive and finite, got {sigma}")
    return sigmas


def check_compatibility(value: Any, labels: int) -> tuple[int, FloatArray]:
    """Return a compatibility's number of axes (0 is Potts) and float32 values; a matrix is made symmetric.

    Signs differ by kind, as in the reference: a number smooths when positive, a vector when negative, a matrix, a
    penalty for unequal labels, when its off-diagonal is positive.
    """
    try:
        array = np.asarray(value)
    except ValueError:  # a ragged list
        raise CrfInputError(f"compatibility must be a number or an array, got {value!r}") from None
    if array.dtype.kind not in "fiu":
        raise CrfInputError(f"compatibility must be numbers, got {value!r}")
    if array.shape not in ((), (labels,), (labels, labels)):
        raise CrfInputError(f"compatibility must be a number, ({labels},) or ({labels}, {labels}), got {array.shape}")
    if not (np.abs(array) <= _MAX_WEIGHT).all():  # also where it is NaN
        raise CrfInputError(
            f"compatibility must be finite and at most {_MAX_WEIGHT:g} in size, got {np.abs(array).max():g}"
        )
    values = array.astype(np.float32)
    if values.ndim == 2:
        return 2, np.ascontiguousarray((values + values.T) * np.float32(0.5))
    if values.ndim == 1 and (values > 0).any():
        warn(
            "a vector compatibility is added as a penalty on equal labels, so its positive values sharpen instead of "
            "smoothing: negate it (a number smooths when positive, a vector when negative)"
        )
    return values.ndim, values.reshape(-1)


def check_parameters(parameters: Any) -> None:
    """Refuse anything but `CrfParameters`, such as their dictionary."""
    if not isinstance(parameters, CrfParameters):
        raise CrfInputError(f"parameters must be CrfParameters, got {type(parameters).__name__}: see from_dict")


def check_unary_arguments(probabilities: Any, scores: Any, padded: Any = None) -> None:
    """Refuse both or none of probabilities and scores, and a padded size without scores."""
    if (probabilities is None) == (scores is None):
        raise CrfInputError("pass either probabilities or scores=...")
    if padded is not None and scores is None:
        raise CrfInputError("padded is the size that scores=... of a coarser grid cover: leave it out, or pass scores")


def check_layout(array: Any, grid: tuple[int, ...], what: str, labels: int | None = None) -> None:
    """Refuse any shape but labels x grid, and name the layout it seems to have."""
    got, complete = array.shape, array.ndim == len(grid) + 1
    if complete and got[1:] == grid and labels in (None, got[0]):
        return
    expected = f"({'L' if labels is None else labels}, {', '.join(map(str, grid))})"
    hint = f"{what} must be labels first: {expected}"
    if complete and got[1:] == grid:
        hint = f"the CRF was made for {labels} labels"
    elif complete and got[:-1] == grid:
        hint = f"labels are last: pass {what}.transpose({array.ndim - 1}, {', '.join(map(str, range(len(grid))))})"
    elif complete and got[1:] == grid[::-1]:
        hint = "height and width are swapped: the order is labels, height, width"
    elif array.ndim == 2 and got[1] == math.prod(grid):
        hint = f"it is flat: pass {what}.reshape(-1, {', '.join(map(str, grid))})"
    raise CrfInputError(f"{what} has shape {got}, expected {expected}: {hint}")


def find_coarse_grid(array: Any, grid: tuple[int, ...], padded: Any) -> tuple[int, int] | None:
    """The size that scores of a coarser grid cover: `padded`, or by default the image's; None for scores at full size.

    Refuses what is not a size, or is smaller than the image.
    """
    if padded is not None:
        try:
            size = tuple(operator.index(extent) for extent in padded)
        except TypeError:
            size = ()
        if not len(size) == len(grid) == 2 or not all(map(operator.le, grid, size)) or max(size) > MAX_ENTRIES:
            raise CrfInputError(
                f"padded must be two integers, height and width of an image padded from {grid}, got {padded!r}"
            )
        if size != grid:
            return size[0], size[1]
    return (grid[0], grid[1]) if array.ndim == 3 and len(grid) == 2 and array.shape[1:] != grid else None


def check_coarse_scores(array: Any, labels: int, grid: tuple[int, ...]) -> None:
    """Refuse scores other than (L, h, w) float16 or float32 on a grid no finer than the image's."""
    if array.ndim != 3 or array.shape[0] != labels:
        raise CrfInputError(f"scores have shape {array.shape}, expected {labels} labels first, then height and width")
    if any(not 1 <= got <= full for got, full in zip(array.shape[1:], grid, strict=True)):
        raise CrfInputError(
            f"scores cover {array.shape[1:]} points, neither the {grid} of the image, padded or not, nor a "
            "coarser grid: the order is labels, height, width"
        )
    if array.dtype not in (np.float32, np.float16):
        raise CrfInputError(f"scores must be float32 or float16, got {array.dtype}: convert them")


def check_energy_range(lowest: float, highest: float) -> None:
    """Refuse energies so large that the core's arithmetic would overflow."""
    if max(-lowest, highest) > _MAX_ENERGY:
        raise CrfInputError(
            f"energies lie in [{lowest:.4g}, {highest:.4g}]: beyond {_MAX_ENERGY:g} they overflow; cap them, e.g. "
            "energies.clip(-1e6, 1e6)"
        )


def check_probability_range(lowest: float, highest: float) -> None:
    """Refuse NaN, infinities and values outside of 0 to 1."""
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise CrfInputError("probabilities hold NaN or infinite values: look for a division by zero in the softmax")
    if lowest < -1e-4 or highest > 1.0001:
        raise CrfInputError(
            f"probabilities lie in [{lowest:.4g}, {highest:.4g}]: these look like scores before the softmax; pass "
            "them as scores=... instead"
        )


def check_probability_sums(probabilities: npt.NDArray[Any]) -> None:
    """Refuse probabilities whose sum over the labels is far from 1, at a sample of pixels."""
    step = max(1, math.prod(probabilities.shape[1:]) // _SUM_SAMPLE)
    sums = probabilities.reshape(probabilities.shape[0], -1)[:, ::step].sum(axis=0)
    worst = float(sums[np.abs(sums - 1.0).argmax()])
    if abs(worst - 1.0) > 0.02:
        raise refuse_sum(f"sum to {worst:.4g}, not to 1")


def refuse_sum(found: str) -> CrfInputError:
    """The error for probabilities whose sums over the labels are as `found`."""
    return CrfInputError(
        f"probabilities of one pixel {found} over the labels: apply a softmax over axis 0, or pass scores=... "
        "(independent sigmoids need a background label first)"
    )


def warn_of_probabilities(energies: npt.NDArray[Any], lowest: float, highest: float) -> None:
    """Warn when energies (L, N) look like probabilities without the logarithm: likely labels would lose."""
    if lowest < 0.0 or highest > 1.0 or len(energies) < 2:
        return
    sums = energies[:, :: max(1, energies.shape[1] // _SUM_SAMPLE)].sum(axis=0)
    if np.abs(sums - 1.0).max() < 1e-3:
        warn(
            "the energies of every pixel sum to 1 like probabilities: an energy is -log(p), so that likely labels have "
            "small ones; pass -numpy.log(p), or use set_probabilities or utils.unary_from_softmax"
        )


def check_mask(mask: Any, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return a bool mask over the grid as bytes."""
    array = as_array(mask, "mask")
    if array.shape != shape or array.dtype not in (np.bool_, np.uint8):
        raise CrfInputError(f"mask must be bool of shape {shape}, got {array.dtype} of {array.shape}")
    return np.ascontiguousarray(array).view(np.uint8)
