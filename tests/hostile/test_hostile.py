"""Hostile files: one error type, no hang, and memory in proportion to the size of the file."""

from __future__ import annotations

import importlib.util
import random
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atrous.converter.files.caffemodel import read_caffemodel, read_mean
from atrous.converter.files.prototxt import read_prototxt
from atrous.errors import ConverterError
from atrous.proto import schema
from tools import fuzz_seeds
from tools.fuzz_readers import load_readers, mutate, read_archive, try_file

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("hostile_samples", HERE / "samples.py")
assert _spec is not None
assert _spec.loader is not None
samples = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(samples)

FIXED_COST = 3 << 20
"""Bytes that any read may allocate: the schema's caches, messages, regular expressions."""
FACTOR = 60
"""Maximum bytes allocated per byte of the file: a Python object for a two-byte field."""


def read_or_refuse(path: Path) -> str:
    """The error message, or "" if the reader accepts the file; other exceptions propagate."""
    try:
        READERS[path.suffix](path)
    except ConverterError as error:
        return str(error)
    return ""


def read_weights(path: Path) -> Any:
    file = read_caffemodel(path)
    try:
        return [blob.array.shape for layer in file for blob in layer.blobs], file.read_structure()
    finally:
        file.close()


def read_hdf5(path: Path) -> Any:
    pytest.importorskip("h5py", reason="HDF5 weights need h5py")
    return [blob.array.shape for layer in read_caffemodel(path) for blob in layer.blobs]


READERS: dict[str, Callable[[Path], Any]] = {
    ".caffemodel": read_weights,
    ".prototxt": read_prototxt,
    ".binaryproto": read_mean,
    ".h5": read_hdf5,
}


@pytest.fixture(autouse=True, scope="module")
def warm_caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Fill the caches of the schema, which are not a cost of the file."""
    path = tmp_path_factory.mktemp("warm") / "w.caffemodel"
    net = schema.message("NetParameter")(name="n")
    net.layer.add(name="l", type="Convolution").convolution_param.num_output = 1
    path.write_bytes(net.SerializeToString())
    read_weights(path)
    read_prototxt("name: 'n'\n")


@pytest.mark.parametrize("name", samples.SAMPLES)
def test_sample(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(samples.SAMPLES[name])
    check_sample(path)


@pytest.mark.parametrize("path", sorted(samples.FOLDER.glob("*.h5")), ids=lambda path: path.name)
def test_sample_in_hdf5(path: Path) -> None:
    """Written by h5py and kept only as files."""
    check_sample(path)


def check_sample(path: Path) -> None:
    accepted = path.name.startswith("accepted-")
    start = time.process_time()
    refusal = read_or_refuse(path)
    seconds = time.process_time() - start
    assert bool(refusal) is not accepted, refusal
    assert len(refusal) < 5000
    assert seconds < 2
    tracemalloc.start()
    read_or_refuse(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < FIXED_COST + FACTOR * path.stat().st_size


def test_saved_files_are_those_of_the_table() -> None:
    saved = {path.name: path.read_bytes() for path in samples.FOLDER.iterdir() if path.suffix != ".h5"}
    small = {name: data for name, data in samples.SAMPLES.items() if len(data) <= samples.MAX_SAVED_BYTES}
    assert {name: data for name, data in saved.items() if not name.startswith("found-")} == small


@pytest.mark.parametrize("path", sorted(samples.FOLDER.glob("found-*")), ids=lambda path: path.name)
def test_files_that_fuzzing_found(path: Path) -> None:
    try_file(path, load_readers()[path.suffix])


@pytest.mark.parametrize("suffix", fuzz_seeds.SUFFIXES)
def test_mutated_files_of_other_programs(suffix: str, tmp_path: Path) -> None:
    """Images, zip files, graphs and manifests: valid ones are read, mutated ones are read or refused."""
    seeds, read, rng = fuzz_seeds.make_seeds(suffix), load_readers()[suffix], random.Random(0)
    if not seeds:
        pytest.skip(f"Pillow has no encoder for {suffix}")
    path = tmp_path / f"tried{suffix}"
    for data in seeds if suffix != ".zip" else seeds[:2]:  # bzip2 is refused
        path.write_bytes(data)
        read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about metadata
        for _ in range(60):
            path.write_bytes(mutate(rng.choice(seeds), seeds, rng))
            try_file(path, read)


@pytest.mark.parametrize("archive", sorted((HERE / "corpus").glob("*.zip")), ids=lambda archive: archive.name)
def test_files_that_reached_new_code(archive: Path, tmp_path: Path) -> None:
    """Each file of the coverage-guided corpus is read or rejected, within the limits of time and memory."""
    read = load_readers()[f".{archive.stem}"]
    files = read_archive(archive)
    assert len(files) > 20
    if archive.stem == "h5":
        pytest.importorskip("h5py", reason="HDF5 weights need h5py")
    for name, data in files:
        path = tmp_path / name
        path.write_bytes(data)
        try_file(path, read)


@given(st.binary(max_size=300), st.sampled_from([".caffemodel", ".binaryproto", ".prototxt"]))
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes(data)
    try:
        READERS[suffix](path)
    except ConverterError:
        return


@pytest.mark.parametrize("seed", range(4))
def test_mutated_real_files(goldens: Path, tmp_path: Path, seed: int) -> None:
    """Real files with bytes changed, removed, repeated or moved are read or raise a ConverterError."""
    rng = random.Random(seed)
    weights = [path for path in goldens.glob("goldens/tiny/*/weights.caffemodel") if path.stat().st_size < 3000]
    texts = sorted(goldens.glob("goldens/tiny/*/net.prototxt"))
    for source, rounds in ((sorted(weights), 250), (texts, 150)):
        originals = [original.read_bytes() for original in source]
        path = tmp_path / source[0].name
        for _ in range(rounds):
            path.write_bytes(mutate(rng.choice(originals), originals, rng))
            try:
                READERS[path.suffix](path)
            except ConverterError:
                continue
