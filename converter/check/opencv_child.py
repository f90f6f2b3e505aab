"""The child process of `opencv_process`: runs nets in the OpenCV of its own interpreter.

Imports nothing from the project, because that interpreter may have nothing but OpenCV. Tasks and replies are lines of
JSON on standard input and output; the file `arrays` (.npz) has the inputs, and receives the outputs.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

try:
    import cv2
    import numpy as np
except ImportError as error:
    missing = str(error)
else:
    missing = ""


def serve() -> None:
    """Serve one task per line of standard input, one reply per line of the original standard output."""
    replies = os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)  # OpenCV repeats its exceptions there
    for line in sys.stdin:
        try:
            reply: dict[str, Any] = answer(**json.loads(line))
        except Exception as error:  # cv2.error or another type; the parent reports it
            reply = {"reason": str(error) or type(error).__name__}
        print(json.dumps(reply), file=replies, flush=True)


def answer(files: list[str], arrays: str = "", inputs: list[str] = [], outputs: list[str] = []) -> dict[str, Any]:  # noqa: B006
    """Run one net: an ONNX file, or a prototxt and perhaps a caffemodel. Without files, reply with the version."""
    if missing:
        return {"missing": missing}
    if not files:
        return {"version": cv2.__version__}
    cv2.setNumThreads(1)
    if files[0].endswith(".onnx"):
        tops = _run_onnx(files[0], arrays, inputs, outputs)
    else:
        tops = _run_caffe(files, arrays, inputs, outputs)
    np.savez(arrays, **{f"{i}:{j}": np.asarray(top) for i, each in enumerate(tops) for j, top in enumerate(each)})  # type: ignore[arg-type]
    return {"tops": [len(each) for each in tops]}


def _run_onnx(path: str, arrays: str, inputs: list[str], outputs: list[str]) -> list[list[Any]]:
    """Run an ONNX file by OpenCV 5's new engine, without falling back to the old one, or by OpenCV 4."""
    dnn: Any = cv2.dnn  # OpenCV 4's type information lacks the engines
    net = dnn.readNetFromONNX(path, *([dnn.ENGINE_NEW] if int(cv2.__version__.split(".")[0]) >= 5 else []))
    if net.empty():
        raise ValueError("its new engine lacks an operator of the net; its own log names it")
    _set_inputs(net, arrays, inputs)
    return [[top] for top in net.forward(outputs)]


def _run_caffe(files: list[str], arrays: str, inputs: list[str], layers: list[str]) -> list[list[Any]]:
    """Run Caffe files in OpenCV 4; `layers` are OpenCV's names, and each may have several tops."""
    net = cv2.dnn.readNetFromCaffe(*files)
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.enableFusion(False)
    net.enableWinograd(False)
    known = set(net.getLayerNames())
    missing = [name for name in layers if name not in known]
    if missing:
        raise ValueError(f'has no layer "{missing[0]}" after reading the file')
    _set_inputs(net, arrays, inputs)
    return [list(each) for each in net.forwardAndRetrieve(layers)]


def _set_inputs(net: Any, arrays: str, names: list[str]) -> None:
    with np.load(arrays) as stored:
        for index, name in enumerate(names):
            net.setInput(stored[str(index)], name)


if __name__ == "__main__":
    serve()
