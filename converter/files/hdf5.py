"""Weights in Caffe's HDF5 form: `/data/<layer>/<index>`, without types or structure.

Caffe does not write a blob again that a layer shares with an earlier one, so indices may have gaps. Only plain datasets
inside the file are read: no links out of it, no virtual or external storage, no dataset that claims far more than it
stores, and in total at most `_MAX_COMPRESSION` times the file's size (many links may name one dataset).
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ...errors import CaffemodelError, MissingDependencyError
from ..dialects.detect import Detection
from ..dialects.known import BVLC
from .blob import MAX_AXES, BlobView
from .weight_file import MAX_BLOBS, MAX_LAYERS, LayerWeights, WeightFile

_MAX_DEPTH = 16
_MAX_COMPRESSION = 100


def read_hdf5(path: Path) -> WeightFile:
    """Open HDF5 weights.

    Raises CaffemodelError if the file is damaged or not Caffe's, MissingDependencyError without h5py.
    """
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise MissingDependencyError(f"{path}: HDF5 weights need h5py: pip install h5py") from error
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise CaffemodelError(f"is damaged HDF5: {error}", path=path) from error
    try:
        with file:
            layers = _HDF5Reader(path, h5py).read(file)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CaffemodelError(f"is damaged HDF5: {error}", path=path) from error
    return WeightFile(path, "", "HDF5", Detection(BVLC.name), layers)


class _HDF5Reader:
    def __init__(self, path: Path, h5py: Any) -> None:
        self._path, self._h5py = path, h5py
        self._layers: list[LayerWeights] = []
        self._blobs, self._bytes_left = 0, _MAX_COMPRESSION * path.stat().st_size

    def read(self, file: Any) -> tuple[LayerWeights, ...]:
        data = self._child(file, "data")
        if not isinstance(data, self._h5py.Group):
            self._fail('has no group "data": not Caffe weights')
        self._group(data, "", 0)
        return tuple(self._layers)

    def _group(self, group: Any, name: str, depth: int) -> None:
        """One layer, or the folder of several if their names contain a slash."""
        if depth > _MAX_DEPTH or len(self._layers) >= MAX_LAYERS:
            self._fail("has more groups than any net")
        blobs: dict[int, BlobView] = {}
        folder = False
        for key in group:
            child = self._child(group, key)
            if isinstance(child, self._h5py.Dataset) and key.isdecimal() and len(key) < 6:
                blobs[int(key)] = self._dataset(child, f"{name}/{key}")
            elif isinstance(child, self._h5py.Group):
                folder = True
                self._group(child, f"{name}/{key}" if name else key, depth + 1)
        if name and (blobs or not folder):
            order = sorted(blobs)
            self._layers.append(LayerWeights(name, "", tuple(blobs[index] for index in order), tuple(order)))

    def _child(self, group: Any, key: str) -> Any:
        link = group.get(key, getlink=True)
        if link is None or not isinstance(link, self._h5py.HardLink):
            self._fail(f'"{key}" is missing or not a hard link')
        return group[key]

    def _dataset(self, dataset: Any, name: str) -> BlobView:
        self._blobs += 1
        if self._blobs > MAX_BLOBS:
            self._fail(f"has more than {MAX_BLOBS} blobs")
        if dataset.is_virtual or dataset.external or dataset.dtype.kind not in "fiu" or dataset.ndim > MAX_AXES:
            self._fail(f'blob "{name}" is not a plain array of numbers')
        stored = dataset.id.get_storage_size()
        if dataset.nbytes > stored * (_MAX_COMPRESSION if dataset.chunks else 1):
            self._fail(f'blob "{name}" claims {dataset.nbytes} bytes, {stored} are stored')
        self._bytes_left -= dataset.nbytes
        if self._bytes_left < 0:
            self._fail(f"claims more than {_MAX_COMPRESSION} times its size in all blobs together")
        array = np.asarray(dataset[()])
        array.setflags(write=False)
        return BlobView(tuple(array.shape), False, str(array.dtype.newbyteorder("=")), (array.reshape(-1),))

    def _fail(self, text: str) -> NoReturn:
        raise CaffemodelError(text, path=self._path)
