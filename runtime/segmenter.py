"""Labels an image with a bundle: prepare, network, scores, CRF, argmax.

Each stage is a method, and stages may run in different threads on different images: `prepare` (image to feeds of the
network's size), `run_network` (feeds to the head's output), `complete_scores` (that to scores of the image's size),
`to_probabilities`, `refine` (probabilities through the CRF); `finish` does everything after the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..bundle.choices import Head
from ..bundle.folder import Bundle
from ..errors import InputError
from .backends import Array, Backend
from .backends.protocol import Allocate, DeviceArray, DeviceBackend
from .crf_step import CrfDevice, CrfStep, RunCrf
from .head_scores import HeadScores
from .images import AnyImage, ColorOrder, as_rgb
from .network import Network
from .resizing import Sizing, choose_sizing, resize_image, resize_labels
from .segmentation import Image, Labels, Scores, Segmentation, measure
from .tiles.plan import ImagePlan
from .tiles.planner import Planner, explain_memory
from .tiles.run import label_in_tiles, score_in_tiles

if TYPE_CHECKING:
    from .crf import CancelToken, CrfParameters
    from .crf.refiner import Refiner


class Segmenter(AbstractContextManager["Segmenter"]):
    """A loaded bundle; call it with an image. `load` makes one; leaving its `with` block closes it.

    Attributes:
        bundle: the bundle.
        crf: the parameters of the CRF, or None if it is off.
        threads: threads of the CRF, or None for one per core.
        crf_shortcuts: approximations of the CRF, as keyword arguments of `crf.dense_crf`; empty by default.
        crf_device: "cpu" or "cuda": where the CRF runs, with the same result.
        precision: the precision the network was loaded in, such as "fp32" or "int8".
        sizing: the size that the network runs at.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        *,
        crf: CrfParameters | None = None,
        crf_shortcuts: Mapping[str, Any] | None = None,
        crf_device: CrfDevice = "cpu",
        threads: int | None = None,
        precision: str = "fp32",
        sizing: Sizing | None = None,
        memory_bytes: int | None = None,
    ):
        """Join a bundle, a backend that runs its network, the CRF's parameters (None: no CRF), a sizing and a limit.

        Raises:
            BundleError: if the network's inputs or outputs are not those of the manifest.
            InputError: if a CRF is requested and the bundle's head gives labels only, or a shortcut is unknown or does
                not exist on the CRF's device.
            BackendError: if there is no GPU for the CRF.
        """
        self.bundle = bundle
        self._network = Network(bundle, backend)
        self.precision = precision
        self.sizing = sizing or choose_sizing(bundle.preprocessing)
        self._scores = HeadScores(bundle.deploy, self.head, self.sizing)
        self.crf = crf
        self.crf_shortcuts = dict(crf_shortcuts or {})
        self.crf_device = crf_device
        self.threads = threads
        self._step = CrfStep(crf, self.crf_shortcuts, crf_device, threads)
        self._memory_bytes = memory_bytes
        self._planner = Planner(
            bundle,
            has_labels_only=self.head == "labels",
            on_host=backend.device == "cpu",
            is_float32=precision == "fp32",
            crf=crf,
            memory_bytes=memory_bytes,
        )
        if crf is not None:
            self._require_scores()

    def __call__(self, image: AnyImage, *, color_order: ColorOrder = "rgb") -> Labels:
        """Label an image.

        Args:
            image: H x W x 3 uint8 RGB, a Pillow image, or a path.
            color_order: "bgr" for an array of OpenCV's `imread`.

        Returns:
            H x W uint8.

        Raises:
            InputError: if the image has another shape or dtype, or a size that the network does not accept.
            ImageError: if the file cannot be read.
            BackendError: if the network or the CRF fails.
        """
        return self.segment(image, color_order=color_order).labels

    def scores(self, image: AnyImage, *, color_order: ColorOrder = "rgb") -> Scores:
        """The network's raw scores, L x H x W float32, without the CRF; takes and raises as `__call__`."""
        self._require_scores()
        image = as_rgb(image, color_order)
        feeds = self.prepare(image)
        tiles = self.plan(*_size(image)).tiles
        if not feeds and tiles is not None:
            return score_in_tiles(self, image, tiles)
        return self.complete_scores(self.run_network(feeds), _size(image))

    def probabilities(self, image: AnyImage, *, color_order: ColorOrder = "rgb") -> Scores:
        """Probabilities, L x H x W float32, after the CRF if it is on; takes and raises as `__call__`."""
        result = self.segment(image, color_order=color_order, probabilities=True).probabilities
        assert result is not None
        return result

    def segment(self, image: AnyImage, *, color_order: ColorOrder = "rgb", probabilities: bool = False) -> Segmentation:
        """Label an image and time the stages; takes and raises as `__call__`.

        Args:
            image: H x W x 3 uint8 RGB, a Pillow image, or a path.
            color_order: "bgr" for an array of OpenCV's `imread`.
            probabilities: whether to return the probabilities too.
        """
        if probabilities:
            self._require_scores()
        image = as_rgb(image, color_order)
        timings_ms: dict[str, float] = {}
        with measure("prepare", timings_ms):
            feeds = self.prepare(image)
        on_device = self.keeps_on_device(*_size(image), probabilities=probabilities)
        with measure("network", timings_ms):
            raw = self.run_network_batch([feeds], on_device=on_device)[0] if feeds else None
        rest = self.finish(image, raw, probabilities=probabilities)
        manifest = self.bundle.manifest
        timings_ms.update(rest.timings_ms)
        return replace(rest, timings_ms=timings_ms, classes=manifest.classes, palette=manifest.palette)

    def plan(self, height: int, width: int, *, probabilities: bool = False) -> ImagePlan:
        """Plan an image of this size: whole or in tiles, with an estimate of its memory."""
        network_size = self.sizing.find_size(height, width)
        return self._planner.plan((height, width), network_size, probabilities=probabilities)

    def keeps_on_device(self, height: int, width: int, *, probabilities: bool = False) -> bool:
        """Whether scores for images of this size can stay on the device from the network to the CRF."""
        return (
            self.crf_device == "cuda"
            and isinstance(self.backend, DeviceBackend)
            and self._scores.describe_to_crf((height, width)) is not None
            and self.plan(height, width, probabilities=probabilities).tiles is None
        )

    @property
    def head(self) -> Head:
        """The network's output: "scores" at full size, "lowres" scores, or "labels"."""
        return self._network.head

    @property
    def backend(self) -> Backend:
        """The backend that runs the network."""
        return self._network.backend

    @property
    def memory_bytes(self) -> int:
        """The memory that one image may use."""
        return self._planner.limit

    def finish(
        self,
        image: Image,
        raw: Array | DeviceArray | None,
        *,
        crf: bool = True,
        probabilities: bool = False,
        threads: int | None = None,
        run_crf: RunCrf | None = None,
        token: CancelToken | None = None,
    ) -> Segmentation:
        """Run everything after the network: scores, CRF if it is on, labels; large images in tiles (`plan`).

        Low-resolution scores are upsampled inside the CRF where that gives what `complete_scores` would (to 1e-5),
        without a full-size array of them.

        Args:
            image: H x W x 3 uint8 RGB.
            raw: the head's output, from `run_network` or `run_network_batch`; None if the network is to run in tiles
                too, which it does for the images whose feeds are empty.
            crf: whether to run the CRF, if it is on.
            probabilities: whether to return the probabilities too.
            threads: threads of the CRF; None for the segmenter's. The result does not depend on it.
            run_crf: what to call instead of `crf.dense_crf`, such as a `crf.FrameCrf`.
            token: stops the CRF after its current update when another thread cancels it.
        """
        call: dict[str, Any] = {"threads": threads, "run_crf": run_crf, "token": token}
        with explain_memory(_size(image)):
            return self._finish(image, raw, crf, probabilities, call)

    def _finish(self, image: Image, raw: Any, crf: bool, probabilities: bool, call: dict[str, Any]) -> Segmentation:
        timings_ms: dict[str, float] = {}
        size = _size(image)
        tiles = self.plan(*size, probabilities=probabilities).tiles
        has_crf = crf and self.crf is not None
        has_crf_on_gpu = has_crf and self.crf_device == "cuda" and call["run_crf"] is None
        described = self._scores.describe_to_crf(size) if has_crf and tiles is None else None
        if not isinstance(raw, np.ndarray | None) and not (has_crf_on_gpu and described is not None):
            raw = raw.to_host()
        if tiles is not None:
            return label_in_tiles(self, image, raw, tiles, crf=crf, probabilities=probabilities, **call)
        assert raw is not None, "only images in tiles have no output yet"
        if self.head == "labels":
            return Segmentation(resize_labels(raw, size), None, timings_ms)
        if not has_crf and not probabilities:
            return Segmentation(self._scores.label(raw, size, timings_ms), None, timings_ms)
        if described is not None:
            call |= {"scores": raw, **described}
        else:
            with measure("scores", timings_ms):
                belief = call["probabilities"] = self.to_probabilities(self.complete_scores(raw, size))
        if has_crf_on_gpu and not probabilities:
            with measure("crf", timings_ms):
                labels = self._step.run(image, output="labels", **call)  # 1 byte a pixel to the host, not 4 a label
            return Segmentation(labels.astype(np.uint8, copy=False), None, timings_ms)
        if has_crf:
            with measure("crf", timings_ms):
                belief = self._step.run(image, **call)
        with measure("labels", timings_ms):
            labels = belief.argmax(axis=0).astype(np.uint8)  # (H, W); ties go to the lowest label
        return Segmentation(labels, belief if probabilities else None, timings_ms)

    def prepare(self, image: Image) -> dict[str, Array]:
        """Check an image, resize it, and return it as the network's feed: 1 x h x w x 3 uint8 RGB.

        Empty for an image whose network runs in tiles.
        """
        image = as_rgb(image)
        size = self.sizing.find_size(*_size(image))
        self.bundle.preprocessing.size_rule.padded_size(*size)
        tiles = self.plan(*_size(image)).tiles
        if tiles is not None and tiles.network_in_tiles:
            return {}
        return {self.bundle.deploy.input: np.ascontiguousarray(resize_image(image, size))[None]}  # (1, h, w, 3)

    def run_network(self, feeds: Mapping[str, Array]) -> Array:
        """The head's output for one image: L x h x w float32 scores, or h x w uint8 labels."""
        output: Array = self.run_network_batch([feeds])[0]
        return output

    def run_network_batch(self, feeds: Sequence[Mapping[str, Array]], *, on_device: bool = False) -> list[Any]:
        """The head's outputs for images of one size, computed in one run; each as `run_network` gives it.

        With `on_device`, where `keeps_on_device` allows it, they are arrays in the device's memory, for `finish`. Then
        the CRF checks that they are finite.
        """
        allocate: Allocate | None = None
        if on_device:
            from .crf.gpu.engine import allocate_array as allocate
        name = self.bundle.deploy.input
        return self._network.run([feed[name] for feed in feeds], allocate)

    @property
    def fixed_batch(self) -> int | None:
        """The images in each run of a graph that takes no other number, else None."""
        return self._network.fixed_batch

    def complete_scores(self, raw: Array, size: tuple[int, int]) -> Scores:
        """The head's scores at the image's (height, width): L x H x W float32.

        "lowres" scores are upsampled to the network's size first; scores of another size than the image's are resized
        bilinearly, with half-pixel centers.
        """
        return self._scores.complete(raw, size)

    def cut_scores(
        self, raw: Array, size: tuple[int, int], network_size: tuple[int, int], window: tuple[int, int, int, int]
    ) -> Scores:
        """A part of `complete_scores`, L x h x w float32, without computing the rest.

        Args:
            raw: the head's output for an image.
            size: its (height, width).
            network_size: the (height, width) that the network ran at.
            window: first row, end of the rows, first column and end of the columns of the part.
        """
        return self._scores.cut(raw, size, network_size, window)

    def to_probabilities(self, scores: Scores) -> Scores:
        """The softmax of scores, unless the network ends in one: L x H x W float32."""
        return self._scores.to_probabilities(scores)

    def refine(
        self,
        image: Image,
        probabilities: Scores,
        *,
        threads: int | None = None,
        origin: tuple[int, int] = (0, 0),
        run_crf: RunCrf | None = None,
        token: CancelToken | None = None,
    ) -> Scores:
        """The CRF's marginals, L x H x W float32, for an image and its L x H x W probabilities.

        `origin` is the (row, column) of the first pixel, if the image is a part of another; the rest as in `finish`.
        """
        options: dict[str, Any] = {"origin": origin} if any(origin) else {}
        call: dict[str, Any] = {"threads": threads, "run_crf": run_crf, "token": token}
        return self._step.run(image, probabilities=probabilities, **call, **options)

    def make_refiner(self, image: Image, raw: Array, *, reduce: int = 1) -> Refiner:
        """The CRF of an image (H x W x 3 uint8 RGB) and its head's output, for several parameters in turn.

        `reduce` is the side in pixels of the blocks that it runs on. The threads are the segmenter's.
        """
        from .crf.refiner import Refiner

        size, pixels = _size(image), np.ascontiguousarray(image)
        described = self._scores.describe_to_crf(size)
        if described is not None:
            return Refiner(pixels, scores=raw, threads=self.threads, reduce=reduce, **described)
        probabilities = self.to_probabilities(self.complete_scores(raw, size))
        return Refiner(pixels, probabilities, threads=self.threads, reduce=reduce)

    def derive(self, *, crf: CrfParameters | None, sizing: Sizing) -> Segmenter:
        """A segmenter of the same loaded network with another CRF (None: off) and sizing; closing one closes both."""
        derived = Segmenter(
            self.bundle,
            self.backend,
            crf=crf,
            crf_shortcuts=self.crf_shortcuts,
            crf_device="cpu" if crf is None else self.crf_device,
            threads=self.threads,
            precision=self.precision,
            sizing=sizing,
            memory_bytes=self._memory_bytes,
        )
        derived._network = self._network
        return derived

    def __repr__(self) -> str:
        """Name, classes, backend, precision and CRF."""
        manifest, crf = self.bundle.manifest, "without CRF" if self.crf is None else "with CRF"
        how = f"{self.backend.name} on {self.backend.device}, {self.precision}, {crf}"
        return f"<Segmenter of {manifest.name}: {len(manifest.classes)} classes, {how}>"

    def close(self) -> None:
        """Free the network."""
        self.backend.close()

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def _require_scores(self) -> None:
        if self.head == "labels":
            raise InputError(
                f"{self.bundle.path}: the bundle's head gives labels only; probabilities and the CRF need scores: "
                'convert the net again with the head "scores"'
            )


def _size(image: npt.NDArray[Any]) -> tuple[int, int]:
    """(height, width) of an H x W x 3 image."""
    return image.shape[0], image.shape[1]
