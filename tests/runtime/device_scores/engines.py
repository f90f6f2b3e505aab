"""TensorRT's fake driver and the CRF's emulation as one device, and an engine on it.

The emulation fills its memory with NaN, and the fake driver runs copies as late as CUDA may, so scores that are read
too early are an error of the CRF; and it rejects copies to memory that is freed.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atrous import runtime
from atrous.bundle.size_rule import SizeRule
from atrous.runtime.backends.protocol import Array, TensorSpec
from atrous.runtime.backends.tensorrt.backend import TensorRtBackend, TensorRtOptions
from atrous.runtime.crf.gpu.arrays import DeviceArray
from atrous.runtime.crf.terms import forget_lattices
from atrous.runtime.segmenter import Segmenter
from tools.cuda_on_cpu.driver import EmulatedDriver
from tools.gpu_bench.fake_engine import FakeEngine, Shape

from ..backends.tensorrt.machines import SharedDriver
from ..bundles import MINIMUM, STRIDE, expected_scores

SIZES = [(25, 33), (17, 17), (41, 17), (20, 30)]  # not resized; the last one is padded
LARGEST = 49
RULE = SizeRule(minimum=(MINIMUM, MINIMUM), multiple=STRIDE, offset=1)


def compute(feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every eighth of the scores, with zeros below and to the right."""
    images = feeds["image"]
    height, width = RULE.padded_size(*images.shape[1:3])
    scores = np.zeros((len(images), 4, height, width), np.float32)
    for whole, image in zip(scores, images, strict=True):
        whole[:, : image.shape[0], : image.shape[1]] = expected_scores(image)
    return {"lowres": scores[:, :, ::STRIDE, ::STRIDE]}


def infer(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    batch, *size, _ = shapes["image"]
    rows, columns = ((side - 1) // STRIDE + 1 for side in RULE.padded_size(*size))
    return {"lowres": (batch, 4, rows, columns)}


class Emulation(EmulatedDriver):
    """Notes the bytes of each copy to the host."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.copied: list[int] = []

    def copy_to_host(self, memory: npt.NDArray[Any], address: int, stream: int) -> None:
        self.copied.append(memory.nbytes)
        super().copy_to_host(memory, address, stream)


def require_nothing_left(emulation: Emulation) -> None:
    forget_lattices()
    gc.collect()
    emulation.check_guards()
    assert emulation.allocated_bytes == 0


def make_driver(emulation: Emulation, seed: int | None) -> SharedDriver:
    made = SharedDriver(seed=seed)
    made.emulation = emulation
    return made


Function = Callable[[Mapping[str, Array]], Mapping[str, Array]]


def open_segmenter(
    folder: Path,
    driver: SharedDriver,
    *,
    crf_device: Any = "cuda",
    function: Function = compute,
    batch: int | None = None,
    crf: Any = "auto",
    size: Any = None,
    **options: Any,
) -> Segmenter:
    low, high = (1, 4) if batch is None else (batch, batch)
    engine = FakeEngine(
        driver,
        inputs=[TensorSpec("image", "uint8", ("batch" if batch is None else batch, "height", "width", 3))],
        outputs=[TensorSpec("lowres", "float32", ("batch", 4, "h", "w"))],
        function=function,
        shape_rule=infer,
        profiles=[{"image": ((low, 1, 1, 3), (low, 17, 17, 3), (high, LARGEST, LARGEST, 3))}],
    )
    backend = TensorRtBackend(engine, driver, TensorRtOptions(**options))
    return runtime.load(folder, backend, crf_device=crf_device, crf=crf, size=size, threads=1)


def compute_reference(folder: Path, images: list[Any]) -> list[Any]:
    """Labels and probabilities by the CPU's CRF, with scores that come to the host."""
    with open_segmenter(folder, SharedDriver(), crf_device="cpu") as segmenter:
        return [segmenter.segment(image, probabilities=True) for image in images]


def keep_scores(segmenter: Segmenter, images: list[Any]) -> list[Any]:
    feeds = [segmenter.prepare(image) for image in images]
    scores = segmenter.run_network_batch(feeds, on_device=True)
    assert all(isinstance(one, DeviceArray) for one in scores)
    return scores
