"""The jobs of requests: a call of the protocol, and a file to `/segment`."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dependencies import import_optional
from ...errors import RequestError
from ..batch.arrays import encode_array
from ..images import decode_image, decode_size
from ..pictures import encode_jpeg, encode_label_png, make_lookup, make_overlay
from ..pipeline.segmentation import Choice
from ..segmentation import Image, Labels, Segmentation
from .engine import Job
from .models import INPUT, OUTPUTS, VERSION, Model
from .protocol import (
    HEADER_LENGTH,
    InferRequest,
    InputTensor,
    OutputTensor,
    WantedOutput,
    encode_answer,
    parse_request,
    read_array,
    read_bytes,
)
from .settings import FORMATS

_MOST_PARTS = 16  # of a form
_MOST_ID_LENGTH = 1024
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Answer:
    """The body of an answer and its headers."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class ImageJob(Job):
    """A job on an image that is a file's bytes or an array; subclasses set `image` and choose `segmenter`."""

    def __init__(self, max_pixels: int) -> None:
        super().__init__()
        self._max_pixels = max_pixels
        self._content: bytes | memoryview | None = None
        self._array: Image | None = None

    def read_size(self) -> tuple[int, int] | None:
        """The size in the file's header, or of the array."""
        if self._array is not None:
            return self._array.shape[0], self._array.shape[1]
        size = decode_size(self._content or b"", FORMATS)
        # reading the image reports what is too large
        return size if size is not None and size[0] * size[1] <= self._max_pixels else None

    def read(self) -> Image:
        """Decode the file, if it is one."""
        array, content = self._array, self._content
        self._array = self._content = None
        if array is not None:
            return array
        return decode_image(content or b"", "the image", max_pixels=self._max_pixels, formats=FORMATS)


class FileJob(ImageJob):
    """A job on a request whose body is an image file, or a form with one."""

    def __init__(self, body: bytes, headers: Mapping[str, str], *, max_pixels: int, max_bytes: int) -> None:
        super().__init__(max_pixels)
        self._content = body
        self._headers, self._max_bytes = headers, max_bytes

    def open_body(self) -> None:
        """Find the file in the body."""
        body = decompress(bytes(self._content or b""), self._headers.get("content-encoding", ""), self._max_bytes)
        self._content = find_file(body, self._headers.get("content-type", ""))


class InferJob(ImageJob):
    """A call of the protocol.

    Args:
        model: the model.
        parse: gives the request; runs in the pipeline.
        encode: makes the answer of the request and its outputs.
        max_pixels: of the image.
    """

    def __init__(
        self,
        model: Model,
        parse: Callable[[], InferRequest],
        encode: Callable[[InferRequest, Sequence[OutputTensor]], Any],
        max_pixels: int,
    ) -> None:
        super().__init__(max_pixels)
        self._model, self._encode = model, encode
        self._parse: Callable[[], InferRequest] | None = parse
        self._request = InferRequest("", (), ())
        self._wanted: list[WantedOutput] = []

    def choose(self) -> Choice:
        """Read the request."""
        parse, self._parse = self._parse, None  # it holds the body
        assert parse is not None
        request = parse()
        name = self._model.name
        self._set_image(request.inputs)
        if len(request.id) > _MOST_ID_LENGTH:
            raise RequestError(f"the id has {len(request.id)} characters; the limit is {_MOST_ID_LENGTH}")
        self._wanted = list(request.outputs) or [WantedOutput("labels", request.binary)]
        names = [output.name for output in self._wanted]
        if twice := {name for name in names if names.count(name) > 1}:
            raise RequestError(f"the output '{min(twice)}' is asked for twice")
        for output in self._wanted:
            if output.name not in self._model.outputs:
                raise RequestError(f"unexpected inference output '{output.name}' for model '{name}'")
        self._request = InferRequest(request.id, (), (), request.parameters, request.binary)
        segmenter = self._model.choose(request.parameters)
        return Choice(segmenter, any(output.name == "probabilities" for output in self._wanted), self.token)

    def finish(self, image: Image, result: Segmentation) -> Any:
        """Make the outputs and encode them."""
        tensors = []
        for output in self._wanted:
            data: npt.NDArray[Any] | bytes
            if output.name == "labels_png":
                data, shape = encode_label_png(result.labels, self._model.palette, level=1), (1, 1)
            else:
                array = result.labels if output.name == "labels" else result.probabilities
                assert array is not None
                data, shape = array, (1, *array.shape)
            tensors.append(OutputTensor(output.name, OUTPUTS[output.name], shape, data, output.binary))
        return self._encode(self._request, tensors)

    def _set_image(self, inputs: Sequence[InputTensor]) -> None:
        name = self._model.name
        unknown = [tensor.name for tensor in inputs if tensor.name != INPUT]
        if unknown:
            raise RequestError(f"unexpected inference input '{unknown[0]}' for model '{name}'")
        if len(inputs) != 1:
            raise RequestError(f"expected 1 inputs but got {len(inputs)} inputs for model '{name}'")
        (tensor,) = inputs
        if tensor.datatype == "BYTES":
            self._content = read_bytes(tensor)
            return
        if tensor.datatype != "UINT8":
            raise RequestError(
                f"inference input '{INPUT}' data-type is '{tensor.datatype}', but model '{name}' expects 'UINT8'"
            )
        shape = tensor.shape
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or 0 in shape:
            raise RequestError(
                f"unexpected shape for input '{INPUT}' for model '{name}'. Expected [1,-1,-1,3], got "
                f"[{','.join(map(str, shape))}]"
            )
        if shape[1] * shape[2] > self._max_pixels:
            raise RequestError(
                f"the image has {shape[2]}x{shape[1]} pixels; the limit is {self._max_pixels}: resize it"
            )
        self._array = read_array(tensor, "UINT8")[0]


def make_http_infer_job(
    model: Model, body: bytes, headers: Mapping[str, str], *, max_pixels: int, max_bytes: int
) -> InferJob:
    """The job of a call by HTTP; its result is an `Answer`."""

    def parse() -> InferRequest:
        text = headers.get(HEADER_LENGTH.lower())
        if text is not None and not _NUMBER.fullmatch(text):
            raise RequestError(f"{HEADER_LENGTH} must be a number of bytes")
        content = decompress(body, headers.get("content-encoding", ""), max_bytes)
        return parse_request(memoryview(content), None if text is None else int(text))

    def encode(request: InferRequest, outputs: Sequence[OutputTensor]) -> Answer:
        content, head_length = encode_answer(model.name, VERSION, request.id, outputs)
        answer_headers = {"Content-Type": "application/json" if head_length is None else "application/octet-stream"}
        if head_length is not None:
            answer_headers[HEADER_LENGTH] = str(head_length)
        if "gzip" in headers.get("accept-encoding", "") and all(output.name == "labels" for output in outputs):
            content = gzip.compress(content, 1, mtime=0)
            answer_headers["Content-Encoding"] = "gzip"
        return Answer(content, answer_headers)

    return InferJob(model, parse, encode, max_pixels)


class SegmentJob(FileJob):
    """A file to `/segment`; its result is an `Answer`.

    Args:
        model: the model.
        body: an image file, or a form with one.
        headers: of the request.
        kind: "labels", "overlay", "json" or "probabilities".
        parameters: of the request, as text.
        max_pixels: of the image.
        max_bytes: of the body without its compression.
    """

    KINDS = ("labels", "overlay", "json", "probabilities")

    def __init__(
        self,
        model: Model,
        body: bytes,
        headers: Mapping[str, str],
        kind: str,
        parameters: Mapping[str, str],
        *,
        max_pixels: int,
        max_bytes: int,
    ) -> None:
        super().__init__(body, headers, max_pixels=max_pixels, max_bytes=max_bytes)
        self._model, self._kind, self._parameters = model, kind, parameters
        if kind not in self.KINDS:
            raise RequestError(f'"output" must be one of {", ".join(self.KINDS)}, got "{kind}"')
        if kind == "probabilities" and "probabilities" not in model.outputs:
            raise RequestError(f"the model '{model.name}' has no probabilities: its head gives labels only")

    def choose(self) -> Choice:
        """Find the file in the body, and how to label it."""
        self.open_body()
        segmenter = self._model.choose(self._parameters)
        return Choice(segmenter, self._kind == "probabilities", self.token)

    def finish(self, image: Image, result: Segmentation) -> Answer:
        """Encode the picture, the JSON or the array."""
        labels, palette = result.labels, self._model.palette
        if self._kind == "json":
            described = describe_labels(self._model, labels, result.timings_ms)
            return Answer(json.dumps(described, separators=(",", ":")).encode(), {"Content-Type": "application/json"})
        if self._kind == "overlay":
            return Answer(encode_jpeg(make_overlay(image, labels, palette)), {"Content-Type": "image/jpeg"})
        if self._kind == "probabilities":
            assert result.probabilities is not None
            return Answer(encode_array(result.probabilities), {"Content-Type": "application/octet-stream"})
        return Answer(encode_label_png(labels, palette, level=1), {"Content-Type": "image/png"})


def describe_labels(model: Model, labels: Labels, timings_ms: Mapping[str, float]) -> dict[str, Any]:
    """Labels (H x W uint8) as JSON: run lengths in row-major order, and the classes that occur with their shares."""
    values, lengths = find_runs(labels)
    counts, colors = np.bincount(labels.ravel(), minlength=256), make_lookup(model.palette)
    order = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
    return {
        "model": model.name,
        "height": labels.shape[0],
        "width": labels.shape[1],
        "classes": [
            {
                "label": index,
                "name": model.classes[index] if index < len(model.classes) else str(index),
                "color": colors[index].tolist(),
                "share": float(counts[index] / labels.size),
            }
            for index in order
        ],
        "run_labels": values.tolist(),
        "run_lengths": lengths.tolist(),
        "timings_ms": {name: round(spent, 3) for name, spent in timings_ms.items()},
    }


def find_runs(labels: Labels) -> tuple[Labels, npt.NDArray[np.intp]]:
    """The run lengths of labels (H x W uint8) in row-major order: the label and the length of each run."""
    flat = labels.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    return flat[starts], np.diff(np.concatenate([starts, [flat.size]]))


def decompress(body: bytes, coding: str, max_bytes: int) -> bytes:
    """The body without its `Content-Encoding`.

    Raises:
        RequestError: if the coding is unknown, or the body has more than `max_bytes`, or is damaged.
    """
    if coding in ("", "identity"):
        return body
    if coding not in ("gzip", "deflate"):
        raise RequestError(f'"Content-Encoding: {coding}" is not known here: use gzip, deflate or none', status=415)
    decompressor = zlib.decompressobj(31 if coding == "gzip" else 15)
    try:
        content = decompressor.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise RequestError(f"the body is not {coding}: {error}") from None
    if len(content) > max_bytes:
        raise RequestError(f"the body has more than {max_bytes} bytes without its compression", status=413)
    if not decompressor.eof:
        raise RequestError(f"the body is not {coding}: it is truncated")
    return content


def find_file(body: bytes, content_type: str) -> bytes:
    """The file in a body: the body itself, or the largest part of a form (`curl -F image=@photo.jpg`)."""
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        return body
    multipart = import_optional("python_multipart.multipart")
    boundary = multipart.parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise RequestError("the form has no boundary")
    parts: list[list[bytes]] = []

    def begin() -> None:
        if len(parts) >= _MOST_PARTS:
            raise RequestError(f"the form has more than {_MOST_PARTS} parts")
        parts.append([])

    callbacks = {"on_part_begin": begin, "on_part_data": lambda data, start, end: parts[-1].append(data[start:end])}
    try:
        parser = multipart.MultipartParser(boundary, callbacks)
        parser.write(body)
        parser.finalize()
    except multipart.MultipartParseError as error:
        raise RequestError(f"the form cannot be read: {error}") from None
    files = [b"".join(part) for part in parts if part]
    if not files:
        raise RequestError("the form has no file: send it as in curl -F image=@photo.jpg")
    return max(files, key=len)
