"""Runs a bundle's network on a backend, and holds its outputs to the manifest's promises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..bundle.choices import Head
from ..bundle.folder import Bundle
from ..errors import BundleError
from .backends import Array, Backend
from .backends.protocol import Allocate, DeviceBackend
from .tiles.planner import explain_memory


class Network:
    """The network of a bundle.

    Attributes:
        backend: computes it.
        head: its output: "scores" at full size, "lowres" scores, or "labels".
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        """Join a bundle and the backend that runs its network.

        Raises:
            BundleError: if the network's inputs or outputs are not those of the manifest.
        """
        self._bundle = bundle
        self.backend = backend
        self._has_run = False
        self.head: Head = self._find_head()

    @property
    def fixed_batch(self) -> int | None:
        """The images in each run of a graph that takes no other number, else None."""
        side = next(spec.shape[0] for spec in self.backend.inputs if spec.name == self._bundle.deploy.input)
        return side if isinstance(side, int) else None

    def run(self, images: Sequence[Array], allocate: Allocate | None = None) -> list[Any]:
        """The head's outputs for images of one size, each 1 x H x W x 3 uint8 RGB, computed in one run.

        Args:
            images: the images.
            allocate: if the outputs are to stay on the device, makes their memory; the backend is a `DeviceBackend`.

        Returns:
            For each image, L x h x w float32 scores, or h x w uint8 labels: a NumPy array, or a part of an array of
            `allocate`, whose values are not checked here.

        Raises:
            BundleError: if an output is not what the manifest promises.
            BackendError: if the network fails.
        """
        whole = images[0] if len(images) == 1 else np.concatenate(images)  # (N, H, W, 3)
        outputs: list[Any] = []
        with explain_memory(whole.shape[1:3]):
            for feed in self._divide(whole):
                output = self._compute(feed, allocate)
                self._check(output, feed.shape)
                outputs.extend(output)
        return outputs[: len(images)]

    def _check(self, output: Any, fed: tuple[int, ...]) -> None:
        """Check an output for a feed of this shape."""
        count, size, labels = fed[0], fed[1:3], len(self._bundle.manifest.classes)
        expected_rank, dtype = (3, np.uint8) if self.head == "labels" else (4, np.float32)
        is_as_promised = (
            len(output.shape) == expected_rank
            and output.dtype == dtype
            and output.shape[0] == count
            and (self.head == "labels" or output.shape[1] == labels)
            and (self.head == "lowres" or output.shape[-2:] == size)
        )
        if not is_as_promised:
            what = "an image" if count == 1 else f"{count} images"
            raise self._broken_promise(f"{output.dtype} of shape {output.shape} for {what} of {size}")
        if not isinstance(output, np.ndarray):
            return
        if self.head == "labels":
            if int(output.max()) >= labels:
                raise self._broken_promise(f"the label {output.max()}")
        elif not self._has_run and not np.isfinite(output).all():  # slow, so in the first run only
            raise self._broken_promise("scores that are not finite")
        self._has_run = True

    def _divide(self, images: Array) -> Iterator[Array]:
        """Images in the batches that the graph takes; a fixed batch is filled with copies of the last image."""
        batch = self.fixed_batch or len(images)
        for start in range(0, len(images), batch):
            group = images[start : start + batch]
            if len(group) < batch:
                group = np.concatenate([group, np.repeat(group[-1:], batch - len(group), axis=0)])  # (batch, H, W, 3)
            yield group

    def _compute(self, images: Array, allocate: Allocate | None) -> Any:
        """The head's output."""
        feeds = {self._bundle.deploy.input: images}
        if allocate is None:
            return self.backend.run(feeds)[self.head]
        assert isinstance(self.backend, DeviceBackend)
        return self.backend.run_on_device(feeds, allocate)[self.head]

    def _find_head(self) -> Head:
        deploy = self._bundle.deploy
        outputs = {spec.name: spec for spec in self.backend.outputs}
        # A backend that runs the whole net gives full-size scores, wherever the ONNX graph was cut.
        head = next((name for name in (deploy.head, "scores") if name in outputs), None)
        if head is None or deploy.input not in {spec.name for spec in self.backend.inputs}:
            names = [spec.name for spec in (*self.backend.inputs, *self.backend.outputs)]
            raise self._broken_promise(f'{names} instead of "{deploy.input}" and "{deploy.head}"')
        labels = outputs[head].shape[1:2] if head != "labels" else ()
        if any(isinstance(side, int) and side != len(self._bundle.manifest.classes) for side in labels):
            raise self._broken_promise(f"{labels[0]} labels for {len(self._bundle.manifest.classes)} classes")
        return head

    def _broken_promise(self, found: str) -> BundleError:
        return BundleError(
            f"the network gives {found}, which is not what the manifest promises: convert the net again",
            path=self._bundle.path,
        )
