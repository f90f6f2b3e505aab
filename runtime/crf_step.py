"""The CRF as a step of labeling an image: its parameters, the options it was loaded with, and the call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ..dependencies import import_crf
from ..errors import InputError
from .segmentation import Image, Scores

if TYPE_CHECKING:
    from .crf import CancelToken, CrfParameters

RunCrf = Callable[..., Scores]
CrfDevice = Literal["cpu", "cuda"]

#: arguments of `crf.dense_crf` that trade accuracy for speed
SHORTCUTS = frozenset({"storage", "prune", "tolerance", "settle", "reduce"})


@dataclass(frozen=True)
class CrfStep:
    """The CRF of a segmenter; see `Segmenter` for the attributes."""

    parameters: CrfParameters | None
    shortcuts: Mapping[str, Any]
    device: CrfDevice
    threads: int | None

    def __post_init__(self) -> None:
        """Check the options, and open the device: fail now, not at the first image."""
        unknown = sorted(self.shortcuts.keys() - SHORTCUTS)
        if unknown:
            raise InputError(f'the CRF has no shortcut "{unknown[0]}"; it has {", ".join(sorted(SHORTCUTS))}')
        if self.device == "cpu":
            return
        if self.device != "cuda":
            raise InputError(f'the CRF\'s device must be "cpu" or "cuda", got {self.device!r}')
        if self.parameters is None:
            raise InputError("the CRF has a device, and it is off or the bundle has none: leave the device out")
        if self.shortcuts:
            raise InputError("the CRF has no shortcuts on a GPU: leave them out, or its device")
        import_crf()
        from .crf.gpu import open_driver

        open_driver()

    def run(
        self,
        image: Image,
        *,
        threads: int | None = None,
        token: CancelToken | None = None,
        run_crf: RunCrf | None = None,
        **arguments: Any,
    ) -> npt.NDArray[Any]:
        """Call `crf.dense_crf`, or `run_crf` instead, with the unary and further arguments.

        Args:
            image: H x W x 3 uint8 RGB.
            threads: number of threads; None for the step's.
            token: stops the CRF after its current update when another thread cancels it.
            run_crf: gets image and `arguments` only.
            arguments: of `crf.dense_crf`; the result is on the host wherever the unary is.
        """
        assert self.parameters is not None
        pixels = np.ascontiguousarray(image)
        if run_crf is not None:
            return run_crf(pixels, **arguments)
        options: dict[str, Any] = {"parameters": self.parameters, "threads": threads or self.threads}
        options |= {"device": self.device, "token": token, **self.shortcuts}
        result: Any = import_crf().dense_crf(pixels, **options, **arguments)
        return result if isinstance(result, np.ndarray) else result.to_host()
