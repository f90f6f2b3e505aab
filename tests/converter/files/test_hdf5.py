"""Weights in HDF5 form."""

from __future__ import annotations

import resource
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.converter.files import hdf5_child
from atrous.converter.files.caffemodel import read_caffemodel
from atrous.errors import CaffemodelError, MissingDependencyError

h5py: Any = pytest.importorskip("h5py")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.caffemodel.h5"


def refuse(path: Path, words: str) -> None:
    with pytest.raises(CaffemodelError, match=words):
        read_caffemodel(path)


def test_published_files(shared_dir: Path) -> None:
    for source in sorted((shared_dir / "weights" / "cifar10-h5").glob("*.h5")):
        with h5py.File(source) as theirs, read_caffemodel(source) as ours:
            assert ours.format == "HDF5"
            assert {layer.name for layer in ours} == set(theirs["data"])
            for layer in ours:
                assert layer.indices == tuple(range(len(theirs["data"][layer.name])))
                for index, blob in zip(layer.indices, layer.blobs, strict=True):
                    np.testing.assert_array_equal(blob.array, theirs["data"][layer.name][str(index)][()])


def test_hdf5_has_no_structure(shared_dir: Path) -> None:
    with (
        read_caffemodel(shared_dir / "weights/cifar10-h5/cifar10_quick_iter_4000.caffemodel.h5") as file,
        pytest.raises(CaffemodelError, match="give the prototxt"),
    ):
        file.read_structure()


def test_shared_blobs_leave_gaps_and_slashes_make_folders(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["data/shared/1"] = np.ones(2, np.float32)
        file["data/conv1/3x3/0"] = np.ones((1, 2), np.float64)
        file["data/conv1/3x3/10"] = np.ones((), np.float32)
        file.create_group("data/relu")
    weights = read_caffemodel(path)
    assert [(layer.name, layer.indices) for layer in weights] == [
        ("conv1/3x3", (0, 10)),
        ("relu", ()),
        ("shared", (1,)),
    ]
    assert weights.layers[0].blobs[0].array.dtype == np.float32
    assert weights.layers[0].blobs[1].shape == ()


def test_compressed_arrays_are_read(path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
    with h5py.File(path, "w") as file:
        file.create_dataset("data/c/0", data=values, compression="gzip")
    np.testing.assert_array_equal(read_caffemodel(path).layers[0].blobs[0].array, values)


def test_links_and_external_storage_are_rejected(path: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 16)
    with h5py.File(path, "w") as file:
        file["data/c/0"] = h5py.ExternalLink("other.h5", "/x")
    refuse(path, "not a hard link")
    with h5py.File(path, "w") as file:
        file["data/c/0"] = h5py.SoftLink("/elsewhere")
    refuse(path, "not a hard link")
    with h5py.File(path, "w") as file:
        file.create_dataset("data/c/0", (4,), "f4", external=[(str(tmp_path / "secret"), 0, 16)])
    refuse(path, "not a plain array")


def test_a_claim_larger_than_what_is_stored_is_refused(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("data/c/0", (1 << 20, 1 << 20), "f4", chunks=(64, 64), compression="gzip")
    refuse(path, "claims")


def test_many_links_to_one_dataset_are_refused(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["data/c/0"] = np.ones(5000, np.float32)
        for index in range(1, 2000):
            file[f"data/c/{index}"] = file["data/c/0"]
    assert 100 * path.stat().st_size < 2000 * 20_000
    refuse(path, "claims more than 100 times its size in all blobs together")


def test_other_contents_are_refused(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["weights"] = 3
    refuse(path, '"data" is missing or not a hard link')
    with h5py.File(path, "w") as file:
        file["data"] = 3
    refuse(path, 'no group "data"')
    with h5py.File(path, "w") as file:
        file["data/c/0"] = "text"
    refuse(path, "not a plain array")


def test_truncated_files_are_refused(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["data/c/0"] = np.ones(1000, np.float32)
    path.write_bytes(path.read_bytes()[:-2000])
    refuse(path, "damaged HDF5")


def test_a_missing_h5py_names_the_pip_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match="pip install h5py"):
        read_caffemodel(path)


def test_big_endian_numbers_and_empty_blobs(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["data/c/0"] = np.arange(3, dtype=">f4")
        file["data/c/1"] = np.ones((0, 2), np.float32)
    first, second = read_caffemodel(path).layers[0].blobs
    assert first.stored == "float32"
    np.testing.assert_array_equal(first.array, [0, 1, 2])
    assert second.array.shape == (0, 2)


# --- libhdf5 in a child process --------------------------------------------------------------------------------------


def test_a_crash_of_libhdf5_is_an_error(path: Path) -> None:
    """libhdf5 2.0 reads before the start of a chunk that is shorter than its checksum."""
    with h5py.File(path, "w", libver="earliest") as file:
        file.create_dataset("data/c/0", data=np.arange(16, dtype=np.float32), chunks=(16,), fletcher32=True)
    damaged = bytearray(path.read_bytes())
    struct.pack_into("<I", damaged, damaged.index(b"TREE\1") + 24, 3)
    path.write_bytes(damaged)
    refuse(path, "is damaged HDF5")


def test_a_file_that_makes_libhdf5_allocate_is_refused() -> None:
    """Such files of a few kilobytes took up to 15.5 GB and 94 s before they were found damaged."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    refuse(Path(__file__).parents[2] / "hostile/files/found-allocates.caffemodel.h5", "is damaged HDF5")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 5


def run_limited(code: str) -> subprocess.CompletedProcess[str]:
    """Run code after `hdf5_child.limit` of 64 MiB and 1 s."""
    code = f"import runpy; runpy.run_path({hdf5_child.__file__!r})['limit'](64 << 20, 0)\n{code}"
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_memory_of_the_child_is_limited() -> None:
    assert run_limited("bytes(32 << 20)").returncode == 0
    assert "MemoryError" in run_limited("bytes(128 << 20)").stderr


def test_time_of_the_child_is_limited() -> None:
    assert run_limited("while True: pass").returncode == -signal.SIGXCPU
