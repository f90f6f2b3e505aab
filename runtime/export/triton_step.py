"""The Python steps of an exported Triton ensemble: `prepare` before the network, `finish` after it.

The exported `model.py` subclasses `TritonStep`, and gives it Triton's module and its own folder, which holds the
bundle's manifest. The network runs in a step of its own, so no graph is loaded here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...bundle.folder import Bundle
from ...bundle.manifest import MANIFEST_NAME, parse_manifest
from ...errors import AtrousError, BackendError, InputError
from ..crf_request import choose_crf
from ..pictures import encode_label_png
from ..resizing import choose_sizing
from ..segmenter import Segmenter
from .network_stub import ElsewhereBackend

Array = npt.NDArray[Any]

PREPARED = "prepared_"  # before the names of the network's inputs, between the steps
RAW = "raw_"  # before the names of its outputs
_SELF_TEST_SIDE = 33  # pixels; small, but not padded to one cell


class TritonStep:
    """Base of the exported `TritonPythonModel`; its methods are called by Triton's Python backend.

    Attributes:
        triton: the module `triton_python_backend_utils`, which exists inside Triton only.
        folder: the folder of `model.py` and `manifest.json`.
    """

    triton: Any
    folder: Path

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the manifest and the step's parameters; test tensors and the CRF.

        Raises:
            BackendError: if tensors do not survive Triton's Python backend, as with NumPy 2 in some releases.
        """
        parameters = {
            name: entry["string_value"] for name, entry in json.loads(args["model_config"])["parameters"].items()
        }
        check_tensors(self.triton)
        bundle = Bundle(self.folder, parse_manifest((self.folder / MANIFEST_NAME).read_bytes()))
        self._role = parameters["role"]
        self._segmenter = open_segmenter(bundle, parameters)
        if self._role == "finish":
            self._test_finish()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request, with an error where its image or parameters are invalid."""
        answer = self._prepare if self._role == "prepare" else self._finish
        return [self._respond(answer, request) for request in requests]

    def finalize(self) -> None:
        """Do nothing; Triton ends the process."""

    def _respond(self, answer: Any, request: Any) -> Any:
        triton = self.triton
        try:
            tensors = [triton.Tensor(name, value) for name, value in answer(request).items()]
        except AtrousError as error:
            return triton.InferenceResponse(error=triton.TritonError(str(error), triton.TritonError.INVALID_ARG))
        except Exception as error:  # a bug or a lack of memory: this request fails, the step goes on
            text = f"{type(error).__name__}: {error}"
            return triton.InferenceResponse(error=triton.TritonError(text, triton.TritonError.INTERNAL))
        return triton.InferenceResponse(tensors)

    def _read(self, request: Any, name: str) -> Array:
        """A tensor of a request, without its batch axis of 1."""
        array = self.triton.get_input_tensor_by_name(request, name).as_numpy()
        if len(array) != 1:
            raise InputError(f'"{name}" must hold one image, got the shape {array.shape}')
        return np.ascontiguousarray(array[0])

    def _prepare(self, request: Any) -> dict[str, Array]:
        feeds = self._segmenter.prepare(self._read(request, "image"))
        if not feeds:
            raise InputError("the image is too large for the memory of this server: send a smaller one")
        return {PREPARED + name: value for name, value in feeds.items()}

    def _finish(self, request: Any) -> dict[str, Array]:
        segmenter, head = self._segmenter, self._segmenter.head
        image, raw = self._read(request, "image"), self._read(request, RAW + head)
        wanted = set(request.requested_output_names())
        crf = choose_crf(segmenter.crf, json.loads(request.parameters() or "{}"))
        if crf != segmenter.crf:
            segmenter = segmenter.derive(crf=crf, sizing=segmenter.sizing)
        result = segmenter.finish(image, raw, probabilities="probabilities" in wanted)
        return dict(_write_outputs(result.labels, result.probabilities, wanted, segmenter.bundle.manifest.palette))

    def _test_finish(self) -> None:
        """Run on a black image, so that what is missing is reported when Triton loads the model."""
        fixed = self._segmenter.bundle.preprocessing.size_rule.fixed
        height, width = fixed or (_SELF_TEST_SIDE, _SELF_TEST_SIDE)
        count = len(self._segmenter.bundle.manifest.classes)
        raw = (
            np.zeros((count, height, width), np.float32)
            if self._segmenter.head != "labels"
            else np.zeros((height, width), np.uint8)
        )
        self._segmenter.finish(np.zeros((height, width, 3), np.uint8), raw)


def open_segmenter(bundle: Bundle, parameters: Mapping[str, str]) -> Segmenter:
    """A segmenter without its network, by the parameters of a step's config.pbtxt.

    Args:
        bundle: its manifest is used, no other file.
        parameters: `crf` ("on" or "off"), `threads`, and `size` ("native" or "HxW") or `max_side`.
    """
    size: Any = parameters.get("size")
    if size not in (None, "native"):
        size = tuple(map(int, size.split("x")))
    max_side = int(parameters["max_side"]) if "max_side" in parameters else None
    return Segmenter(
        bundle,
        ElsewhereBackend(bundle),
        crf=bundle.manifest.crf if parameters["crf"] == "on" else None,
        threads=int(parameters["threads"]),
        sizing=choose_sizing(bundle.preprocessing, size, max_side),
    )


def check_tensors(triton: Any) -> None:
    """Check that Triton's tensors and NumPy's arrays become each other.

    Raises:
        BackendError: if values get lost: some releases of Triton's Python backend misread NumPy 2's arrays, and then
            send tensors of 0 bytes without an error.
    """
    sent = np.arange(1, 5, dtype=np.uint8)
    received = triton.Tensor.from_dlpack("test", triton.Tensor("test", sent).to_dlpack()).as_numpy()
    if not np.array_equal(received, sent):
        raise BackendError(
            f"Triton's Python backend turns {sent.tolist()} of NumPy {np.__version__} into {received.tolist()}: "
            'install an older one for Triton\'s Python (pip install "numpy<2")'
        )


def _write_outputs(
    labels: Array, probabilities: Array | None, wanted: set[str], palette: Any
) -> Iterator[tuple[str, Array]]:
    """The outputs of a request, each with a batch axis of 1."""
    if "labels" in wanted:
        yield "labels", labels[None]  # (1, H, W)
    if "labels_png" in wanted:
        yield "labels_png", np.array([[encode_label_png(labels, palette)]], np.object_)  # (1, 1)
    if probabilities is not None:
        yield "probabilities", probabilities[None]  # (1, L, H, W)
