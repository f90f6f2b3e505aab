"""OpenCV 4's Caffe importer in a child process, as an independent source of numbers.

OpenCV aborts on some nets and may hang on others; both become an :class:`OpenCvError` with a reason. The child runs
this file, which imports nothing from the project: tasks and replies are lines of JSON, arrays are passed as .npz.
OpenCV 5 has no Caffe importer, so this needs `opencv-python-headless<5`.
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
    """OpenCV cannot run a net; the message is OpenCV's reason in one line.

    Attributes:
        why: the known meaning of that reason, or "".
    """

    def __init__(self, reason: str, why: str = "") -> None:
        self.why = why
        super().__init__(reason)


class OpenCv:
    """A child process that runs nets one at a time; a context manager.

    Args:
        timeout_s: time limit per net; the child is killed after it.
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
            prototxt: a prototxt that OpenCV can parse.
            weights: a caffemodel, or None for a net without parameters.
            inputs: input blob -> float32 array, Caffe's axis order.
            layers: the layers whose tops to return, by OpenCV's names, without duplicates.

        Returns:
            Layer -> its tops, float32; OpenCV may return more tops than the file names.

        Raises:
            OpenCvError: OpenCV rejects the net, crashes, or exceeds the time limit.
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
        assert child.stdin is not None, "a pipe"
        assert child.stdout is not None, "a pipe"
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
    """OpenCV's message in one line, without file names and its own punctuation."""
    text = " ".join(re.sub(r"^> ?:?", "", message, flags=re.MULTILINE).split())
    text = re.sub(r"^OpenCV\([^)]*\) \S+ error: \([^)]*\) ", "", text)
    text = re.sub(r" ?in function '[^']*'", "", text)
    return text.strip(" :")[:_REASON_LENGTH]


def serve() -> None:
    """Serve as the child: one task per line of standard input, one reply per line of the original standard output."""
    replies = os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)  # OpenCV's text parser repeats its exceptions there
    for line in sys.stdin:
        try:
            reply: dict[str, Any] = {"tops": _run(**json.loads(line))}
        except Exception as error:  # cv2.error or another type; the parent reports it
            reply = {"reason": str(error) or type(error).__name__}
        print(json.dumps(reply), file=replies, flush=True)


def _run(prototxt: str, weights: str | None, arrays: str, inputs: list[str], layers: list[str]) -> list[int]:
    """Run one net, replace the inputs in the file `arrays` by its tops, and return the number of tops per layer."""
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
