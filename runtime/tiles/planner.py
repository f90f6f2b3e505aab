"""The plans of a loaded bundle's images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...errors import BackendError, InputError, MemoryLimitError
from ..memory import find_limit_bytes, find_used_bytes
from .memory import MemoryModel
from .plan import ImagePlan, plan_image

if TYPE_CHECKING:
    from ...bundle.crf_parameters import CrfParameters
    from ...bundle.folder import Bundle
    from ...bundle.section import Sides

ADVICE = "shrink it for the network with --max-side, or switch the CRF off with --no-crf"
#: in the messages of the libraries that run networks
_SHORTAGES = ("bad_alloc", "Failed to allocate memory", "not enough memory", "out of memory", "allocate")
FREE_SHARE = 0.75  # of the free memory, used by default
_MOST_BYTES = 1 << 50
_KEPT_BYTES = 1 << 28  # pages that the CRF keeps for the next image
_LEAST_BYTES = 64 << 20  # left to an image, however much the libraries take
_MOST_PLANS = 1024  # kept, so that images of one size are planned once


class Planner:
    """Plans images within a limit of memory.

    Attributes:
        limit: bytes that one image may use.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        has_labels_only: bool,
        on_host: bool,
        is_float32: bool,
        crf: CrfParameters | None,
        memory_bytes: int | None,
    ) -> None:
        """Plan for a bundle.

        Args:
            bundle: the bundle.
            has_labels_only: whether the network gives labels, not scores.
            on_host: whether the network computes in this machine's memory.
            is_float32: whether it computes in float32.
            crf: the CRF's parameters, or None if it is off.
            memory_bytes: the most that this process may use, what it holds already included; None for three quarters
                of the free memory.
        """
        if memory_bytes is not None and memory_bytes < 1:
            raise InputError(f"memory_bytes must be at least 1, got {memory_bytes}")
        self._is_strict = memory_bytes is not None
        self._excess = 2 if is_float32 else 8  # of the estimate over what may be needed: int8 takes a quarter
        if memory_bytes is None:
            free = find_limit_bytes() - find_used_bytes()
            self.limit = int(FREE_SHARE * min(max(free, _LEAST_BYTES), _MOST_BYTES))
        else:
            self.limit = max(memory_bytes - find_used_bytes() - _KEPT_BYTES, _LEAST_BYTES)
        deploy, self._rule = bundle.deploy, bundle.preprocessing.size_rule
        self._model = MemoryModel(len(bundle.manifest.classes), deploy.footprint, on_host, crf is not None)
        self._crf, self._has_labels_only = crf, has_labels_only
        self._plans: dict[tuple[Sides, Sides, bool], ImagePlan] = {}

    def plan(self, size: Sides, network_size: Sides, *, probabilities: bool = False) -> ImagePlan:
        """Plan an image of (height, width) `size`.

        Raises:
            MemoryLimitError: if it does not fit, not even in tiles: a limit that was given, or what this process can
                have.
        """
        key = (size, network_size, probabilities)
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            found = self._plans[key] = plan_image(
                size,
                network_size,
                self._model,
                self.limit,
                crf=self._crf,
                multiple=self._rule.multiple,
                probabilities=probabilities,
                can_blend=not self._has_labels_only,
                can_tile_network=self._rule.fixed is None,
            )
        if not found.fits:
            limit = self.limit if self._is_strict else find_limit_bytes()
            if self._is_strict or found.bytes > self._excess * limit:
                remedy = "raise --memory, " if self._is_strict else ""
                raise MemoryLimitError(
                    f"an image of {size[1]}x{size[0]} pixels needs about {write_size(found.bytes)}, and it can have "
                    f"{write_size(limit)}: {remedy}{ADVICE}"
                )
        return found


@contextmanager
def explain_memory(size: Sides) -> Iterator[None]:
    """Raise MemoryLimitError, with advice, where memory runs out over an image of this (height, width)."""
    try:
        yield
    except MemoryError as error:
        raise MemoryLimitError(_describe_shortage(size)) from error
    except BackendError as error:
        if not any(words in str(error) for words in _SHORTAGES):
            raise
        raise MemoryLimitError(_describe_shortage(size)) from error


def _describe_shortage(size: Sides) -> str:
    return (
        f"memory ran out over an image of {size[1]}x{size[0]} pixels: label it in tiles with --memory 2G, or {ADVICE}"
    )


def write_size(size_bytes: float) -> str:
    """A number of bytes for people."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e8 else f"{size_bytes / 1e6:.0f} MB"
