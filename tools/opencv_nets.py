"""Run a net in OpenCV: as published, or as plain text without the layers that OpenCV lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atrous.converter.check.opencv_process import Array, OpenCv, OpenCvError

from .opencv_limits import explain_refusal
from .plain_prototxt import outer_blobs, plain_name, plain_text, write_plain_weights

if TYPE_CHECKING:
    from atrous.converter.graph.net import Blob, Layer, Net

Values = Mapping[str, Array]
Tops = dict[str, "Blob"]


@dataclass
class Run:
    """The results of OpenCV.

    Attributes:
        tops: the blobs to compare, by recording key, in execution order.
        values: OpenCV's array of each blob.
        layers: number of layers that ran.
        missing: the reasons for omitted layers, without duplicates.
    """

    tops: Tops
    values: dict[str, Array]
    layers: int
    missing: list[str] = field(default_factory=list)


def compared_tops(net: Net, outputs: Iterable[Blob]) -> Tops:
    """These blobs by recording key; for a Softmax also its bottom, because saturation hides differences."""
    chosen: set[Blob] = set()
    for output in outputs:
        chosen.add(output)
        producer = output.producer
        if producer is not None and producer.type == "Softmax" and producer.bottoms[0].name != output.name:
            chosen.add(producer.bottoms[0])
    return {key: blob for key, blob in net.recorded_tops() if blob in chosen and blob.producer is not None}


def run_published(opencv: OpenCv, prototxt: Path, weights: Path | None, net: Net, inputs: Values) -> Run:
    """Run unmodified files; `net` is the net that atrous read from them.

    Raises:
        OpenCvError: OpenCV cannot run them.
    """
    repeats: Counter[str] = Counter()
    names: dict[Layer | None, str] = {}
    for layer in net.layers:
        names[layer] = f"{layer.name}_{repeats[layer.name]}" if repeats[layer.name] else layer.name
        repeats[layer.name] += 1
    tops = compared_tops(net, net.outputs)
    places = {key: _place(top, names[top.producer], top.name) for key, top in tops.items()}
    return Run(tops, _run(opencv, prototxt, weights, inputs, places), len(net.layers))


def run_plain(opencv: OpenCv, net: Net, ours: Values, folder: Path, *, all_tops: bool = False) -> Run:
    """Run a net as plain text, with our values in place of layers that OpenCV is known to reject.

    Args:
        opencv: the process that runs it.
        net: the net with its parameters.
        ours: the inputs by blob name, and every top by recording key.
        folder: receives the files.
        all_tops: compare every top, not only the outputs.

    Raises:
        OpenCvError: OpenCV can run no part of the net; `why` has the known reasons.
    """
    cut: set[Layer] = set()
    missing: dict[str, None] = {}
    while True:
        layers = [layer for layer in net.layers if layer not in cut]
        read = {blob for layer in layers for blob in layer.bottoms}
        made = [top for layer in layers for top in layer.tops if all_tops or top not in read]
        outputs = made if cut or all_tops else net.outputs
        tops = compared_tops(net, outputs)
        if outputs is made:
            tops = {key: top for key, top in tops.items() if _is_kept(top, read)}
        try:
            return Run(tops, _run_layers(opencv, net, layers, ours, tops, folder), len(layers), list(missing))
        except OpenCvError as error:
            why, at_fault = explain_refusal(str(error), layers)
            cut.update(at_fault)
            if why:
                missing[why] = None
            if not at_fault or len(cut) == len(net.layers):
                raise OpenCvError(str(error), "; ".join(missing)) from None


def _run_layers(
    opencv: OpenCv, net: Net, layers: Sequence[Layer], ours: Values, tops: Tops, folder: Path
) -> dict[str, Array]:
    prototxt, weights = folder / "plain.prototxt", folder / "plain.caffemodel"
    prototxt.write_text(plain_text(net, layers))
    has_weights = write_plain_weights(net, layers, weights)
    places = {}
    for key, top in tops.items():
        assert top.producer is not None, "only tops of layers are compared"
        places[key] = _place(top, plain_name(top.producer.tops[0]), plain_name(top))
    keys = {blob: key for key, blob in net.recorded_tops()} | {blob: blob.name for blob in net.inputs}
    fed = {plain_name(blob): ours[keys[blob]] for blob in outer_blobs(layers)}
    return _run(opencv, prototxt, weights if has_weights else None, fed, places)


def _is_kept(top: Blob, read: set[Blob]) -> bool:
    """Whether OpenCV keeps a top: readers overwrite second tops, and unread second tops of these types do not exist."""
    return top.top_index == 0 or (top not in read and _type(top) not in ("Split", "Pooling"))


def _type(top: Blob) -> str:
    return top.producer.type if top.producer is not None else ""


def _place(top: Blob, layer_name: str, top_name: str) -> tuple[str, int]:
    """OpenCV's layer and top index; in OpenCV each top of a Convolution is a layer named after the top."""
    is_convolution = _type(top) == "Convolution" or "Depthwise" in _type(top)
    return (top_name, 0) if is_convolution else (layer_name, top.top_index)


def _run(
    opencv: OpenCv, prototxt: Path, weights: Path | None, inputs: Values, places: Mapping[str, tuple[str, int]]
) -> dict[str, Array]:
    files = [prototxt] if weights is None else [prototxt, weights]
    tops = opencv.run(files, inputs, sorted({layer for layer, _ in places.values()}))
    found = {}
    for key, (layer, index) in places.items():
        if index >= len(tops[layer]):
            raise OpenCvError(f'returns only {len(tops[layer])} top(s) of layer "{layer}"')
        found[key] = tops[layer][index]
    return found


def difference(top: Blob, theirs: Array, ours: Array) -> tuple[float, str]:
    """Largest absolute difference relative to max(1, our largest absolute value), and its description."""
    if _type(top) == "DetectionOutput":
        theirs, ours = _sort_detections(theirs), _sort_detections(ours)
    if theirs.shape != ours.shape:
        return float("inf"), f"OpenCV's shape is {theirs.shape}, ours {ours.shape}"
    finite = np.isfinite(ours)
    if not np.array_equal(finite, np.isfinite(theirs)):
        return float("inf"), "infinities or NaNs differ"
    scale = max(1.0, float(np.abs(ours[finite]).max(initial=0.0)))
    error = float(np.abs(theirs[finite].astype(np.float64) - ours[finite]).max(initial=0.0)) / scale
    return error, f"error {error:.3g}"


def _sort_detections(rows: Array) -> Any:
    """Detections sorted by image, label, score: OpenCV's order differs, and it pads with zeros where Caffe uses -1."""
    rows = rows.reshape(-1, 7)
    rows = rows[(rows[:, 1] >= 0) & rows[:, 1:].any(axis=1)]
    return rows[np.lexsort((-rows[:, 2], rows[:, 1], rows[:, 0]))]
