"""OpenCV in a child process, as an independent reader of ONNX (and, for the tests, of Caffe files in OpenCV 4).

OpenCV aborts on some nets and may hang on others; both become an :class:`OpenCvError` with a reason. The child runs
`opencv_child.py`, in the interpreter that the environment variable ATROUS_OPENCV names: OpenCV 4 and 5 have the same
import name, so the second needs an environment of its own.
"""

from __future__ import annotations

import json
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

from ...errors import BackendError, MissingDependencyError

Array = NDArray[Any]

INTERPRETER = "ATROUS_OPENCV"
"""Environment variable: path of the Python whose OpenCV runs; by default this process's own."""
_CHILD = Path(__file__).with_name("opencv_child.py")
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
        python: the interpreter; by default this process's own.
        timeout_s: time limit per net; the child is killed after it.
    """

    def __init__(self, python: str = sys.executable, timeout_s: float = 120.0) -> None:
        self._python, self._timeout_s = python, timeout_s
        self._child: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> OpenCv:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._folder.cleanup()

    def version(self) -> str:
        """The version, such as `5.0.0`.

        Raises:
            MissingDependencyError: the interpreter has no OpenCV.
            BackendError: the interpreter does not start, or its OpenCV does not load.
        """
        try:
            reply = self._ask({"files": []})
        except (OSError, OpenCvError) as error:
            raise BackendError(f"{INTERPRETER}: {self._python} does not run as a Python: {error}") from error
        if "missing" in reply:
            raise MissingDependencyError(
                f"OpenCV cannot be imported by {self._python} ({reply['missing']}). Install it: pip install "
                f"'opencv-python-headless>=5', or set {INTERPRETER} to a Python that has it"
            )
        return str(reply["version"])

    def run(self, files: Sequence[Path], inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, list[Array]]:
        """Run a net.

        Args:
            files: an .onnx file; or, in OpenCV 4, a prototxt that it can parse and perhaps a caffemodel.
            inputs: input name -> array, Caffe's axis order.
            outputs: names of ONNX outputs, or of the layers whose tops to return (OpenCV's names), without duplicates.

        Returns:
            Output -> its arrays: one in ONNX; a layer of Caffe may have more tops than the file names.

        Raises:
            OpenCvError: OpenCV rejects the net, crashes, or exceeds the time limit.
        """
        arrays = Path(self._folder.name, "arrays.npz")
        np.savez(arrays, **{str(index): array for index, array in enumerate(inputs.values())})  # type: ignore[arg-type]
        task = {
            "files": [str(f) for f in files],
            "arrays": str(arrays),
            "inputs": list(inputs),
            "outputs": list(outputs),
        }
        reply = self._ask(task)
        if "tops" not in reply:
            raise OpenCvError(shorten(reply.get("reason") or reply["missing"]))
        with np.load(arrays) as stored:
            return {
                name: [stored[f"{index}:{top}"] for top in range(number)]
                for index, (name, number) in enumerate(zip(outputs, reply["tops"], strict=True))
            }

    def run_onnx(self, content: bytes, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Run an ONNX model; output -> array. Raises OpenCvError as `run` does."""
        path = Path(self._folder.name, "net.onnx")
        path.write_bytes(content)
        return {name: arrays[0] for name, arrays in self.run([path], inputs, outputs).items()}

    def _ask(self, task: Mapping[str, Any]) -> dict[str, Any]:
        if self._child is None:
            command = [self._python, str(_CHILD)]
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        child = self._child
        assert child.stdin is not None, "a pipe"
        assert child.stdout is not None, "a pipe"
        try:
            print(json.dumps(task), file=child.stdin, flush=True)
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
