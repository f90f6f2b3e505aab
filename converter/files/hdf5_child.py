"""Reads HDF5 weights in a process of its own, with limits of memory and time; `hdf5.py` starts it.

libhdf5 allocates while it looks for damage, so only the operating system can bound it. This file is run by its path and
imports nothing of atrous: a start takes 0.2 s. It writes to stdout, one JSON object a line:

* `{"blob": [layer, index], "shape": [...], "dtype": ...}`, then the numbers: native byte order, in C order;
* `{"layer": name}`: the blobs of this layer are complete;
* `{"end": true}` or `{"error": text}`: the last line.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

Emit = Callable[[dict[str, Any], Any], object]

MAX_COMPRESSION = 100
_MAX_DEPTH = 16


class RefusedError(Exception):
    """A file that is not Caffe's, or claims more than it stores."""


class Walk:
    """One walk over the groups of an open file; `emit` receives a line and the array that follows it, or None."""

    def __init__(self, job: dict[str, Any], emit: Emit) -> None:
        import h5py

        self._h5py: Any = h5py
        self._emit = emit
        self._path: str = job["path"]
        self._max_layers, self._max_blobs, self._max_axes = job["max_layers"], job["max_blobs"], job["max_axes"]
        self._layers = self._blobs = 0
        self._bytes_left = MAX_COMPRESSION * Path(self._path).stat().st_size

    def read(self) -> None:
        """Read the file; raises RefusedError, MemoryError, and for damage nearly anything else."""
        with self._h5py.File(self._path, "r") as file:
            data = self._child(file, "data")
            if not isinstance(data, self._h5py.Group):
                _refuse('has no group "data": not Caffe weights')
            self._group(data, "", 0)

    def _group(self, group: Any, name: str, depth: int) -> None:
        """One layer, or the folder of several if their names contain a slash."""
        if depth > _MAX_DEPTH or self._layers >= self._max_layers:
            _refuse("has more groups than any net")
        folder = blobs = False
        for key in group:
            child = self._child(group, key)
            if isinstance(child, self._h5py.Dataset) and key.isdecimal() and len(key) < 6:
                blobs = True
                self._dataset(child, name, int(key))
            elif isinstance(child, self._h5py.Group):
                folder = True
                self._group(child, f"{name}/{key}" if name else key, depth + 1)
        if name and (blobs or not folder):
            self._layers += 1
            self._emit({"layer": name}, None)

    def _child(self, group: Any, key: str) -> Any:
        link = group.get(key, getlink=True)
        if link is None or not isinstance(link, self._h5py.HardLink):
            _refuse(f'"{key}" is missing or not a hard link')
        return group[key]

    def _dataset(self, dataset: Any, layer: str, index: int) -> None:
        self._blobs += 1
        if self._blobs > self._max_blobs:
            _refuse(f"has more than {self._max_blobs} blobs")
        is_plain = not dataset.is_virtual and not dataset.external and dataset.dtype.kind in "fiu"
        if not is_plain or dataset.ndim > self._max_axes:
            _refuse(f'blob "{layer}/{index}" is not a plain array of numbers')
        stored = dataset.id.get_storage_size()
        if dataset.nbytes > stored * (MAX_COMPRESSION if dataset.chunks else 1):
            _refuse(f'blob "{layer}/{index}" claims {dataset.nbytes} bytes, {stored} are stored')
        self._bytes_left -= dataset.nbytes
        if self._bytes_left < 0:
            _refuse(f"claims more than {MAX_COMPRESSION} times its size in all blobs together")
        dtype = dataset.dtype.newbyteorder("=")
        array = dataset.astype(dtype)[()].reshape(dataset.shape)
        self._emit({"blob": [layer, index], "shape": dataset.shape, "dtype": str(dtype)}, array)


def _refuse(text: str) -> NoReturn:
    raise RefusedError(text)


def limit(memory_bytes: int, cpu_s: int) -> None:
    """Limit this process to so much more memory than it has now, and to so much more CPU time.

    macOS has no limit of memory.
    """
    with suppress(OSError, ValueError):
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _lower(resource.RLIMIT_AS, held + memory_bytes)
    _lower(resource.RLIMIT_CPU, math.ceil(time.process_time()) + cpu_s)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def main() -> None:
    """Do the job that the first argument describes."""
    job = json.loads(sys.argv[1])
    sys.path[:] = job["import_path"]
    out = sys.stdout.buffer

    def emit(line: dict[str, Any], array: Any) -> None:
        out.write(json.dumps(line).encode() + b"\n")
        if array is not None and array.size:
            out.write(memoryview(array.reshape(-1)).cast("B"))

    try:
        walk = Walk(job, emit)
        limit(job["memory_bytes"], job["cpu_s"])
        walk.read()
        last: dict[str, Any] = {"end": True}
    except RefusedError as error:
        last = {"error": str(error)}
    except ImportError as error:
        last = {"error": f"HDF5 weights need h5py, which cannot be imported: {error}"}
    except MemoryError:
        last = {"error": f"is damaged HDF5: libhdf5 needs more than {job['memory_bytes'] >> 20} MiB to read it"}
    except Exception as error:  # h5py raises nearly anything on damaged files
        last = {"error": f"is damaged HDF5: {error}"}
    emit(last, None)


if __name__ == "__main__":
    main()
