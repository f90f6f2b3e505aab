"""OpenCV 4's Caffe importer in a process of its own, as an independent source of numbers.

OpenCV aborts on some nets and could loop on others; here either is an :class:`OpenCvError` with its reason. The child
runs this very file, which imports nothing of the project: tasks and replies are lines of JSON, arrays travel as .npz.
OpenCV 5 has no Caffe importer, so `opencv-python-headless<5` must be installed.
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

_REASON_LENGTH = 200


class OpenCvError(Exception):
    """OpenCV does not run a net; the message is its reason in one line.

    Attributes:
        why: what that reason is known to mean, or "".
    """

    def __init__(self, reason: str, why: str = "") -> None:
        self.why = why
        super().__init__(reason)


class OpenCv:
    """A child process that runs nets one after the other; use it as a context manager.

    Args:
        timeout_s: a net that takes longer is given up.
    """

    def __init__(self, timeout_s: float = 120.0) -> None:
        self._timeout_s = timeout_s
        self._child: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> OpenCv:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._folder.cleanup()

    def run(
        self, prototxt: Path, weights: Path | None, inputs: Mapping[str, Array], layers: Sequence[str]
    ) -> dict[str, list[Array]]:
        """Run a net.

        Args:
            prototxt: a file as OpenCV takes it.
            weights: a caffemodel, or None for a net without parameters.
            inputs: input blob -> float32 array, Caffe's axis order.
            layers: the layers whose tops are wanted, by OpenCV's names, each once.

        Returns:
            Layer -> its tops, float32; OpenCV may give more of them than the file names.

        Raises:
            OpenCvError: OpenCV refuses the net, crashes, or takes too long.
        """
        arrays = Path(self._folder.name, "arrays.npz")
        np.savez(arrays, **{str(index): array for index, array in enumerate(inputs.values())})  # type: ignore[arg-type]
        task = {
            "prototxt": str(prototxt),
            "weights": str(weights) if weights is not None else None,
            "arrays": str(arrays),
            "inputs": list(inputs),
            "layers": list(layers),
        }
        reply = self._ask(json.dumps(task))
        if "reason" in reply:
            raise OpenCvError(shorten(reply["reason"]))
        with np.load(arrays) as stored:
            return {
                name: [stored[f"{index}:{top}"] for top in range(number)]
                for index, (name, number) in enumerate(zip(layers, reply["tops"], strict=True))
            }

    def _ask(self, task: str) -> dict[str, Any]:
        if self._child is None:
            command = [sys.executable, str(Path(__file__).resolve())]
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        child = self._child
        assert child.stdin is not None, "asked for above"
        assert child.stdout is not None, "asked for above"
        try:
            print(task, file=child.stdin, flush=True)
        except BrokenPipeError:
            line = ""
        else:
            ready, _, _ = select.select([child.stdout], [], [], self._timeout_s)
            if not ready:
                self._stop()
                raise OpenCvError(f"takes more than {self._timeout_s:g} s")
            line = child.stdout.readline()
        if not line:
            code = child.wait()
            self._stop()
            raise OpenCvError(f"crashes (exit code {code})")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
        self._child = None


def shorten(message: str) -> str:
    """OpenCV's words in one line, without its file names and its own punctuation."""
    text = " ".join(re.sub(r"^> ?:?", "", message, flags=re.MULTILINE).split())
    text = re.sub(r"^OpenCV\([^)]*\) \S+ error: \([^)]*\) ", "", text)
    text = re.sub(r" ?in function '[^']*'", "", text)
    return text.strip(" :")[:_REASON_LENGTH]


def serve() -> None:
    """The child: a task a line on standard input, a reply a line on what was standard output."""
    replies = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)  # its text parser prints there what the exception says as well
    for line in sys.stdin:
        try:
            reply: dict[str, Any] = {"tops": _run(**json.loads(line))}
        except Exception as error:  # cv2.error and whatever else the binding raises: the parent judges
            reply = {"reason": str(error) or type(error).__name__}
        print(json.dumps(reply), file=replies, flush=True)


def _run(prototxt: str, weights: str | None, arrays: str, inputs: list[str], layers: list[str]) -> list[int]:
    """Run one net; its tops take the place of the inputs in the file `arrays`. Returns the number of tops a layer."""
    import cv2

    cv2.setNumThreads(1)
    net = cv2.dnn.readNetFromCaffe(prototxt, *([weights] if weights is not None else []))
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.enableFusion(False)
    net.enableWinograd(False)
    known = set(net.getLayerNames())
    missing = [name for name in layers if name not in known]
    if missing:
        raise ValueError(f'has no layer "{missing[0]}" after reading the file')
    with np.load(arrays) as stored:
        for index, name in enumerate(inputs):
            net.setInput(stored[str(index)], name)
    tops = net.forwardAndRetrieve(layers)
    found = {f"{i}:{j}": np.asarray(top, np.float32) for i, each in enumerate(tops) for j, top in enumerate(each)}
    np.savez(arrays, **found)  # type: ignore[arg-type]
    return [len(each) for each in tops]


if __name__ == "__main__":
    serve()
