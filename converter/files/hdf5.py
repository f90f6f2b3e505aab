"""Weights in Caffe's HDF5 form: `/data/<layer>/<index>`, without types or structure.

Caffe does not write a blob again that a layer shares with an earlier one, so indices may have gaps. Only plain datasets
inside the file are read: no links out of it, no virtual or external storage, no dataset that claims far more than it
stores, and in total at most `MAX_COMPRESSION` times the file's size (many links may name one dataset).

libhdf5 runs in a child process (`hdf5_child.py`) whose memory and CPU time are limited.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import CaffemodelError, MissingDependencyError
from ..dialects.detect import Detection
from ..dialects.known import BVLC
from . import hdf5_child
from .blob import MAX_AXES, BlobView
from .weight_file import MAX_BLOBS, MAX_LAYERS, LayerWeights, WeightFile

_MEMORY_BYTES, _MEMORY_FACTOR = 256 << 20, 4
_CPU_S, _BYTES_PER_CPU_S = 2, 8 << 20
_ENVIRONMENT = {
    "HDF5_PLUGIN_PRELOAD": "::",  # a file cannot make libhdf5 load a filter from a plug-in folder
    "OPENBLAS_NUM_THREADS": "1",  # each thread reserves memory
    "OMP_NUM_THREADS": "1",
}


def read_hdf5(path: Path) -> WeightFile:
    """Read HDF5 weights.

    Raises CaffemodelError if the file is damaged, not Caffe's, or needs more than 256 MiB plus 4 times its size of
    memory, or 2 s plus 1 s for every 8 MiB of CPU time; MissingDependencyError without h5py.
    """
    if importlib.util.find_spec("h5py") is None:
        raise MissingDependencyError(f"{path}: HDF5 weights need h5py: pip install h5py")
    job = make_job(path)
    command = [sys.executable, "-I", hdf5_child.__file__, json.dumps(job)]
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_ENVIRONMENT},
        )
    except (OSError, ValueError) as error:
        raise CaffemodelError(f"HDF5 is read in a child process, which cannot start: {error}", path=path) from error
    with child:
        try:
            assert child.stdout is not None
            layers = _receive(child.stdout, path)
        except BaseException:
            child.kill()
            raise
    if layers is None:
        raise CaffemodelError(f"is damaged HDF5: {_describe_end(child.returncode, job['cpu_s'])}", path=path)
    return WeightFile(path, "", "HDF5", Detection(BVLC.name), layers)


def make_job(path: Path) -> dict[str, Any]:
    """The job of the child: the file, the limits of its content and of the process."""
    size_bytes = path.stat().st_size
    return {
        "path": str(path.absolute()),
        "import_path": sys.path,
        "max_layers": MAX_LAYERS,
        "max_blobs": MAX_BLOBS,
        "max_axes": MAX_AXES,
        "memory_bytes": _MEMORY_BYTES + _MEMORY_FACTOR * size_bytes,
        "cpu_s": _CPU_S + size_bytes // _BYTES_PER_CPU_S,
    }


def _receive(stream: IO[bytes], path: Path) -> tuple[LayerWeights, ...] | None:
    """The layers that the child sends; None if it ends before the last line."""
    layers: list[LayerWeights] = []
    blobs: dict[str, dict[int, BlobView]] = {}
    while line := stream.readline():
        if not line.endswith(b"\n"):
            return None
        message = json.loads(line)
        if "blob" in message:
            name, index = message["blob"]
            array = np.empty(math.prod(message["shape"]), np.dtype(message["dtype"]))
            if not _fill(array, stream):
                return None
            array.setflags(write=False)
            view = BlobView(tuple(message["shape"]), False, str(array.dtype), (array,))
            blobs.setdefault(name, {})[index] = view
        elif "layer" in message:
            own = blobs.pop(message["layer"], {})
            order = sorted(own)
            layers.append(LayerWeights(message["layer"], "", tuple(own[index] for index in order), tuple(order)))
        elif "error" in message:
            raise CaffemodelError(message["error"], path=path)
        else:
            return tuple(layers)
    return None


def _fill(array: NDArray[Any], stream: IO[bytes]) -> bool:
    """Read an array's numbers; whether the stream has all of them."""
    view = array.view(np.uint8).data
    while len(view):
        count = stream.readinto(view)  # type: ignore[attr-defined]
        if not count:
            return False
        view = view[count:]
    return True


def _describe_end(code: int, cpu_s: int) -> str:
    """Describe the exit of a child that sent no last line."""
    if code == -signal.SIGXCPU:
        return f"libhdf5 needs more than {cpu_s} s to read it"
    return f"libhdf5 crashed on it ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"
