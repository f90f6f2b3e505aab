"""Runs any deployed net on images: classifiers, regressors, key points, images out, depth beside color.

`load_runner` opens a bundle; the runner is called with an image and returns what the manifest's task promises. A bundle
that labels RGB images runs through its `Segmenter`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bundle.folder import Bundle, read_bundle
from ..bundle.run_plan import KINDS, RunInput, RunOutput, RunPlan
from ..bundle.section import Sides
from ..errors import BackendError, BundleError, InputError
from .backends import Array, Backend, open_backend
from .color import to_lightness, to_luma
from .resizing import SizeOption, Sizing, resize_image
from .run_outputs import (
    RunResult,
    label_pixels,
    paint_chroma,
    paint_image,
    paint_map,
    place_points,
    rank_classes,
    resize_planes,
)
from .segmentation import measure
from .segmenter import Segmenter

Image = npt.NDArray[np.uint8]
TOP = 5  # classes of a result


class Runner(AbstractContextManager["Runner"]):
    """A loaded bundle of any task; call it with an image. `load_runner` makes one; leaving its `with` block closes it.

    Attributes:
        bundle: the bundle.
        task: what its net is for, such as "classify".
        inputs: names of the graph's inputs; the first takes the image, the others come by name.
    """

    def __init__(self, bundle: Bundle, backend: Backend, *, size: SizeOption = None, max_side: int | None = None):
        """Join a bundle and a backend that runs its graph; `size` and `max_side` replace the manifest's size."""
        self.bundle = bundle
        plan = bundle.manifest.run
        if plan is None:
            raise BundleError('has no section "run" in its manifest: load it with runtime.load', path=bundle.path)
        self._plan: RunPlan = plan
        self._backend = backend
        self._size, self._max_side = size, max_side
        self.task: str = plan.task
        self.inputs = tuple(part.name for part in plan.inputs)

    @property
    def other_inputs(self) -> dict[str, str]:
        """The inputs beside the image: name -> source, such as "depth"."""
        main = next(part for part in self._plan.inputs if part.source != "array")
        return {part.name: part.source for part in self._plan.inputs if part is not main}

    def __call__(self, image: Image, *, top: int = TOP, **others: Array) -> RunResult:
        """Run the net on an image.

        Args:
            image: H x W x 3 uint8 RGB; gray levels and lightness are computed from it.
            top: number of classes in the result of a classifier.
            others: the net's other inputs by name: depth as H x W of the image's size, in the units that the net was
                trained with; arrays as the net takes them.

        Raises:
            InputError: if an input is missing, unknown, or of another shape or dtype.
            BackendError: if the network fails.
        """
        timings_ms: dict[str, float] = {}
        with measure("prepare", timings_ms):
            feeds, net_size = self._prepare(image, others)
        with measure("network", timings_ms):
            raw = self._backend.run(feeds)
        with measure("result", timings_ms):
            outputs = {output.name: raw[output.name][0] for output in self._plan.outputs}
            fields: dict[str, Any] = {}
            # Of several outputs for one field, the last of the task's own kind counts: nets end with their best one.
            for output in sorted(self._plan.outputs, key=lambda output: output.kind == KINDS[self._plan.task]):
                fields |= self._interpret(output, outputs[output.name], image, net_size, top)
        return RunResult(self.task, outputs, timings_ms=timings_ms, **fields)

    def close(self) -> None:
        """Free the network."""
        self._backend.close()

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Name, task and inputs."""
        return f"<Runner of {self.bundle.manifest.name}: {self.task}, takes {', '.join(self.inputs)}>"

    def _prepare(self, image: Image, others: Mapping[str, Array]) -> tuple[dict[str, Array], Sides]:
        """The feeds, and the (height, width) of the net's image without its margin."""
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise InputError(f"an image must be H x W x 3 uint8 RGB, got {got}: read it with runtime.read_image")
        parts = self._plan.inputs
        main = next(part for part in parts if part.source != "array")
        wanted = set(self.other_inputs)
        if set(others) != wanted:
            raise InputError(
                f"the net takes {', '.join(self.inputs)}; beside the image give {sorted(wanted) or 'nothing'}"
            )
        size = self._choose_size(main, image.shape[:2])
        feeds = {}
        for part in parts:
            if part.source == "array":
                feeds[part.name] = np.ascontiguousarray(others[part.name], np.float32)
            elif part.source == "depth" and part is not main:
                feeds[part.name] = _prepare_depth(others[part.name], image.shape[:2], size)
            else:
                given = image if part is main else others[part.name]
                feeds[part.name] = _prepare_image(part, given, size)
        return feeds, size

    def _choose_size(self, part: RunInput, own: tuple[int, ...]) -> Sides:
        """The (height, width) that the image is resized to: the nearest that the net takes."""
        rule, margin = part.size_rule, 2 * part.margin
        assert rule is not None
        is_given = self._size is not None or self._max_side is not None
        target = self._size if isinstance(self._size, tuple) else None if is_given else part.size
        if rule.fixed is not None:
            fixed = (rule.fixed[0] - margin, rule.fixed[1] - margin)
            if is_given and target != fixed:
                raise InputError(f"the network takes only {fixed[0]}x{fixed[1]} pixels (height x width)")
            return fixed
        wanted = Sizing(target, self._max_side).find_size(own[0], own[1])
        height, width = rule.padded_size(wanted[0] + margin, wanted[1] + margin)
        return height - margin, width - margin

    def _interpret(self, output: RunOutput, values: Array, image: Image, net: Sides, top: int) -> dict[str, Any]:
        """The fields of `RunResult` that an output gives."""
        size, classes = (image.shape[0], image.shape[1]), self.bundle.manifest.classes
        if output.kind == "classes":
            is_softmax = output.scores_are == "probabilities"
            if values.size != len(classes):
                return {}  # a second output of scores; it is among the outputs
            return {"classes": rank_classes(values, classes, top, is_softmax=is_softmax)}
        if output.kind == "values":
            return {"values": values.astype(np.float32).ravel()}
        if output.kind == "points":
            return {"points": place_points(values, output, size, net)}
        if output.kind == "labels":
            return {"labels": label_pixels(values, size)}
        if output.kind == "image":
            return {"picture": paint_image(values, output, image)}
        if output.kind == "chroma":
            return {"picture": paint_chroma(values, image)}
        if output.kind == "map" and values.shape[0] == 1:
            return {"picture": paint_map(values, size, is_unit=output.is_unit)}
        return {}


class _SegmentRunner(Runner):
    """A runner over a `Segmenter`, for bundles that label RGB images."""

    def __init__(self, segmenter: Segmenter):
        self.bundle, self._segmenter = segmenter.bundle, segmenter
        self.task, self.inputs = "segment", (segmenter.bundle.deploy.input,)

    @property
    def other_inputs(self) -> dict[str, str]:
        return {}

    def __call__(self, image: Image, *, top: int = TOP, **others: Array) -> RunResult:
        if others:
            raise InputError(f"the net takes one image, not {', '.join(others)}")
        result = self._segmenter.segment(image)
        return RunResult("segment", {}, labels=result.labels, timings_ms=result.timings_ms)

    def close(self) -> None:
        self._segmenter.close()


def load_runner(
    path: str | Path,
    backend: str | Backend = "onnxruntime",
    *,
    device: str | None = None,
    threads: int | None = None,
    precision: str = "fp32",
    options: Mapping[str, object] | None = None,
    size: SizeOption = None,
    max_side: int | None = None,
    memory_bytes: int | None = None,
) -> Runner:
    """Load a bundle of any task.

    Args:
        path: the bundle's folder.
        backend: "onnxruntime" or "openvino", or an open backend, which the runner then closes.
        device: "cpu" or "cuda"; None for the backend's default.
        threads: threads of the network; None for one per core.
        precision: "fp32", or a variant of the bundle; only bundles that label RGB images have variants.
        options: the backend's own options by name; see `backends.open_backend`.
        size: (height, width) in pixels that images are resized to, in place of the manifest's; "native" for their own
            size, or the nearest that the net takes.
        max_side: shrink images whose longer side has more pixels.
        memory_bytes: as of `runtime.load`; only for bundles that label RGB images: others take no tiles.

    Raises:
        BundleError: if the bundle is missing, altered, or holds nothing that can run.
        BackendError: if the backend is unknown, not installed, or refuses the model.
        InputError: if an option does not apply to the bundle.
    """
    bundle = read_bundle(path)
    if bundle.manifest.run is None:
        from .loading import load

        chosen: dict[str, Any] = {"device": device, "threads": threads, "options": options, "precision": precision}
        chosen |= {"size": size, "max_side": max_side, "memory_bytes": memory_bytes}
        return _SegmentRunner(load(path, backend, **chosen))
    task = bundle.manifest.run.task
    if memory_bytes is not None:
        raise InputError(f"a net of the task {task} runs on whole images: leave out --memory, or use --max-side")
    if precision != "fp32":
        raise InputError(
            f"a net of the task {task} runs in fp32: atrous precision writes variants only of nets that label RGB "
            "images, whose labels it compares with those of float32"
        )
    if not isinstance(backend, str):
        return Runner(bundle, backend, size=size, max_side=max_side)
    if backend not in ("onnxruntime", "openvino"):
        raise BackendError(f"the backend {backend} runs nets that label RGB images only: use onnxruntime or openvino")
    network = open_backend(backend, bundle, device=device, threads=threads, options=options)
    return Runner(bundle, network, size=size, max_side=max_side)


def _prepare_image(part: RunInput, image: Array, size: Sides) -> Array:
    """1 x H x W x C of an H x W x 3 uint8 RGB image, in the form of the input's source."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f'the input "{part.name}" must be an H x W x 3 uint8 RGB image')
    resized = resize_image(image, size)
    if part.source == "gray":
        return to_luma(resized)[None, :, :, None]
    if part.source == "lightness":
        return to_lightness(resized)[None, :, :, None]
    return np.ascontiguousarray(resized)[None]


def _prepare_depth(depth: Array, own: tuple[int, ...], size: Sides) -> Array:
    """1 x H x W x 1 float32 of an H x W depth image."""
    if not isinstance(depth, np.ndarray) or depth.shape != tuple(own):
        shape = getattr(depth, "shape", type(depth).__name__)
        raise InputError(f"the depth must be H x W of the image's size {tuple(own)}, got {shape}")
    plane: Array = resize_planes(depth.astype(np.float32)[None], size)  # (1, H, W)
    return plane[..., None]
