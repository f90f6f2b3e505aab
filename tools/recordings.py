"""Recordings of real Caffe: a net, its inputs, and every blob that Caffe computed.

A recording is a folder with `net.prototxt`, `case.json` and `blobs.npz`. Recordings have three kinds: `tiny` stores its
weights and all values; `nets` generates weights and inputs from names and shapes (`seeded_weights.py` beside the
folders); `real` names a trained caffemodel. Tops are stored in full, or as statistics and samples.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from atrous.converter import Net

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Recording:
    """One recorded run.

    Attributes:
        folder: the folder of the recording.
        kind: `tiny`, `nets` or `real`.
        case: the content of case.json.
    """

    folder: Path
    kind: str
    case: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """`<kind>/<folder>`."""
        return f"{self.kind}/{self.folder.name}"

    @property
    def expected_error(self) -> str | None:
        """Caffe's error message if it refused the file, else None."""
        return self.case.get("expected_error")

    @cached_property
    def blobs(self) -> dict[str, Array]:
        """The arrays of blobs.npz."""
        path = self.folder / "blobs.npz"
        if not path.exists():
            return {}
        with np.load(path) as stored:
            return {key: stored[key] for key in stored.files}

    @property
    def prototxt(self) -> Path:
        """The file to convert: the published one if an adaptation of it ran."""
        if self.kind == "real":
            return self.folder.parents[2] / "weights" / str(self.case["prototxt"])
        original = self.folder / "original.prototxt"
        return original if original.exists() else self.folder / "net.prototxt"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Input name -> shape."""
        raw = self.case.get("inputs", {})
        return {name: tuple(spec["shape"] if isinstance(spec, dict) else spec) for name, spec in raw.items()}

    def weights(self) -> Any:
        """The `weights` argument of `read_net`; None for a net without parameters."""
        if self.kind == "real":
            return self.folder.parents[2] / "weights" / str(self.case["weights"])
        if self.kind == "tiny":
            path = self.folder / "weights.caffemodel"
            return path if path.exists() else None
        return self._seeded_weights() or None

    def read_net(self) -> Net:
        """The recorded net with its weights, built at the recorded sizes; raises the errors of `converter.read_net`."""
        from atrous.converter import read_net

        from . import recorded_layers as recorded_layers  # registers them

        return read_net(
            self.prototxt,
            self.weights(),
            phase=self.case.get("phase", "TEST"),
            level=self.case.get("level", 0),
            stages=self.case.get("stages", ()),
            variables={"NUM_LABELS": "21"},
            input_shapes={} if self.expected_error else self.shapes,
            dialect=self.case["fork"],
        )

    def inputs(self) -> dict[str, Array]:
        """Input name -> array."""
        arrays = {}
        for name, shape in self.shapes.items():
            stored, image = self.blobs.get(f"input:{name}"), self.blobs.get(f"input_u8:{name}")
            if stored is not None:
                arrays[name] = stored.astype(np.float32).reshape(shape)
            elif image is not None:
                arrays[name] = self._prepare(image.astype(np.uint8)).reshape(shape)
            else:
                arrays[name] = self._seeder.input_array(self.case["seed"], name, shape)
        return arrays

    def compared_keys(self) -> list[str]:
        """Keys of the comparable blobs, in execution order: all before the first random layer."""
        keys = _counted(self.case.get("order", ()))
        stop = self.case.get("stochastic_from")
        if stop in keys:
            keys = keys[: keys.index(stop)]
        return [key for key in keys if not key.startswith("input:")]

    def _prepare(self, image: NDArray[np.uint8]) -> Array:
        mean = np.asarray(self.case["mean"], np.float32)
        scaled = (image.astype(np.float32) - mean) * np.float32(self.case["scale"])
        planes = scaled[None] if scaled.ndim == 2 else scaled.transpose(2, 0, 1)
        return np.ascontiguousarray(planes[None])

    @cached_property
    def _seeder(self) -> ModuleType:
        return _load_seeder(self.folder.parents[1] / "seeded_weights.py")

    def _seeded_weights(self) -> dict[str, list[Array]]:
        made: dict[tuple[str, int], Array] = {}
        layers: dict[str, list[Array]] = {}
        for entry in self.case["params"]:
            layer, index, shape = entry["layer"], entry["index"], tuple(entry["shape"])
            shared = entry.get("shared_with")
            if shared:
                owner, _, number = shared.rpartition("/")
                array = made[owner, int(number)].reshape(shape)
            else:
                array = self._seeder.param(self.case["seed"], layer, index, shape, entry["kind"], entry["blob_count"])
            made.setdefault((layer, index), array)
            blobs = layers.setdefault(layer, [])
            if index == len(blobs):
                blobs.append(array)
        return layers


def _counted(keys: Any) -> list[str]:
    seen: dict[str, int] = {}
    result = []
    for key in keys:
        seen[key] = seen.get(key, 0) + 1
        result.append(key if seen[key] == 1 else f"{key}#{seen[key]}")
    return result


def _load_seeder(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("seeded_weights", path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find_recordings(root: Path, kind: str, pattern: str = "*") -> Iterator[Recording]:
    """The recordings of one kind under `<root>/goldens`, sorted by name."""
    for folder in sorted((root / "goldens" / kind).glob(pattern)):
        if (folder / "case.json").exists():
            yield Recording(folder, kind, json.loads((folder / "case.json").read_text()))


@dataclass(frozen=True)
class Comparison:
    """One blob against its recording.

    Attributes:
        key: `<layer>:<top>`.
        error: largest absolute difference, relative to max(1, largest absolute recorded value); infinite if
            infinities or NaNs differ.
        detail: a difference without a number (shape, missing blob).
    """

    key: str
    error: float
    detail: str = ""


def compare_blobs(recording: Recording, blobs: dict[str, NDArray[Any]]) -> list[Comparison]:
    """Compare computed blobs with the recorded ones, in execution order."""
    return [_compare(recording, key, blobs.get(key)) for key in recording.compared_keys()]


def _compare(recording: Recording, key: str, computed: NDArray[Any] | None) -> Comparison:
    if computed is None:
        return Comparison(key, np.inf, "the converted net has no such blob")
    full = recording.blobs.get(key)
    shape = tuple(full.shape) if full is not None else tuple(recording.case["shapes"][key])
    if tuple(computed.shape) != shape:
        return Comparison(key, np.inf, f"shape {tuple(computed.shape)}, recorded {shape}")
    if full is not None:
        expected = full.astype(np.float64).ravel()
    else:
        stats = recording.blobs[f"{key}:stats"].astype(np.float64)
        expected = np.append(recording.blobs[f"{key}:samples"].astype(np.float64), [stats[2], stats[3]])
    error = _measure(expected, _observe(recording, key, computed), _magnitude(recording, key))
    return Comparison(key, error)


def measure_distance(recording: Recording, key: str, first: NDArray[Any], second: NDArray[Any]) -> float:
    """The distance of two computed blobs, measured like an error; infinite if the shapes differ."""
    if first.shape != second.shape:
        return np.inf
    if key not in recording.blobs and f"{key}:samples" not in recording.blobs:
        return 0.0
    return _measure(_observe(recording, key, first), _observe(recording, key, second), _magnitude(recording, key))


def _observe(recording: Recording, key: str, blob: NDArray[Any]) -> NDArray[np.float64]:
    """The recorded part of a blob: all values, or samples, minimum and maximum."""
    flat = np.asarray(blob, np.float64).ravel()
    if key in recording.blobs:
        return flat
    chosen = np.linspace(0, flat.size - 1, recording.blobs[f"{key}:samples"].size).astype(int)
    return np.append(flat[chosen], [flat.min(), flat.max()])


def _magnitude(recording: Recording, key: str) -> float:
    """max(1, the largest absolute recorded value)."""
    full = recording.blobs.get(key)
    if full is None:
        stats = recording.blobs[f"{key}:stats"].astype(np.float64)
        return max(1.0, abs(float(stats[2])), abs(float(stats[3])))
    return max(1.0, float(np.abs(full[np.isfinite(full)].astype(np.float64)).max(initial=0.0)))


def measure(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """Largest absolute difference of two whole blobs, as for a recorded one."""
    if expected.shape != found.shape:
        return np.inf
    finite = np.abs(expected[np.isfinite(expected)].astype(np.float64)).max(initial=1.0)
    return _measure(expected.astype(np.float64), found.astype(np.float64), float(finite))


def _measure(expected: NDArray[np.float64], found: NDArray[np.float64], magnitude: float) -> float:
    """Relative largest difference; infinite unless infinities and NaNs match."""
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    both = np.isfinite(expected) & np.isfinite(found)
    if not (same | both).all():
        return np.inf
    difference = np.subtract(expected, found, out=np.zeros_like(expected), where=both & ~same)
    return float(np.abs(difference).max(initial=0.0)) / magnitude
