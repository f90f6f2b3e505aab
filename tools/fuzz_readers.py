"""Fuzz the file readers: `python -m tools.fuzz_readers tests/hostile`.

Feeds mutated files to the readers of prototxts (with building the net), caffemodels, HDF5 weights, mean images, images,
arrays, zip files, ONNX graphs (with a run) and manifests. Success and AtrousError are valid results. Any other
exception is a finding, and so is a small file that takes more than `MAX_SECONDS` or too much memory: it is saved
as `files/found-<digest>.<suffix>`, and the run exits with 1. The readers run in a child process, so a crash is saved
too. With `--coverage` and atheris installed (`pip install atheris`), mutations follow coverage; otherwise they are
random. `--keep` writes the files that reached new code to an archive, the corpus of the tests and of the next run.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import click

from . import fuzz_seeds

SUFFIXES = (".caffemodel", ".prototxt", ".binaryproto", ".h5", *fuzz_seeds.SUFFIXES)
MAX_FILE_BYTES = 1 << 16
MAX_SECONDS = 1.0
MAX_GROWTH = 64 << 20
"""Bytes that reading one small file may add to the peak memory of the process, including caches of the schema."""
MAX_IMAGE_GROWTH = 1 << 30
"""The same for an image, which may have 2^26 pixels whatever the size of its file."""
ENTRY_TIME = (2020, 1, 1, 0, 0, 0)
"""Time stamp of all archive entries, so that equal corpora give equal files."""


class Finding(Exception):  # noqa: N818 - a result of the program, not an error in it
    """A file that a reader neither read nor rejected within the limits."""


def load_readers() -> dict[str, Callable[[Path], Any]]:
    """File suffix -> a function that reads such a file completely."""
    from atrous.bundle.manifest import parse_manifest
    from atrous.converter import read_net
    from atrous.converter.files.caffemodel import read_caffemodel, read_mean
    from atrous.converter.official.archive import extract_member
    from atrous.errors import CaffemodelError
    from atrous.runtime.images import read_image

    def read_weights(path: Path) -> None:
        with read_caffemodel(path) as file:
            for layer in file:
                for blob in layer.blobs:
                    blob.array.tobytes()
            try:
                structure = file.read_structure(file.dialect.name)
            except CaffemodelError:
                return  # the weights are readable nevertheless
            assert structure.net is not None

    return {
        ".caffemodel": read_weights,
        ".prototxt": read_net,
        ".binaryproto": read_mean,
        ".h5": read_weights,
        ".npy": read_arrays,
        ".zip": lambda path: extract_member(path, "*.caffemodel", path.with_suffix(".extracted")),
        ".onnx": run_graph,
        ".json": lambda path: parse_manifest(path.read_bytes(), path=path),
        **dict.fromkeys(fuzz_seeds.IMAGE_SUFFIXES, read_image),
    }


def read_arrays(path: Path) -> None:
    """Read a NumPy array as numbers and as a mean image."""
    from atrous.converter.files.mean_image import read_mean_pixel
    from atrous.errors import AtrousError
    from atrous.runtime.planes import read_array

    for read in (read_array, read_mean_pixel):
        with contextlib.suppress(AtrousError):
            read(path)


def run_graph(path: Path) -> None:
    """Load an ONNX file and run it on small inputs."""
    import numpy as np

    from atrous.runtime.backends.onnxruntime import OnnxRuntimeBackend

    backend = OnnxRuntimeBackend(path.read_bytes(), threads=1, path=path)
    shapes = [[side if isinstance(side, int) else 5 for side in spec.shape] for spec in backend.inputs]
    if all(0 <= side < 50 and len(shape) < 5 for shape in shapes for side in shape):
        feeds = {spec.name: np.ones(shape, spec.dtype) for spec, shape in zip(backend.inputs, shapes, strict=True)}
        backend.run(feeds)


def try_file(path: Path, read: Callable[[Path], Any]) -> None:
    """Read one file.

    Raises:
        Finding: the reader raised an unexpected exception, or exceeded the limit of time or memory.
    """
    from atrous.errors import AtrousError

    start, held = time.process_time(), peak_memory()
    try:
        read(path)
    except AtrousError:
        pass
    except Exception as error:
        raise Finding(f"{type(error).__name__}: {error}") from error
    seconds, grown = time.process_time() - start, peak_memory() - held
    if seconds > MAX_SECONDS:
        raise Finding(f"{seconds:.1f} s for {path.stat().st_size} bytes")
    if grown > (MAX_IMAGE_GROWTH if path.suffix in fuzz_seeds.IMAGE_SUFFIXES else MAX_GROWTH):
        raise Finding(f"{grown >> 20} MiB for {path.stat().st_size} bytes")


def peak_memory() -> int:
    """Peak resident memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def mutate(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Apply one to six random edits; some insert pieces of other files."""
    edited = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(edited) + 1)
        kind = rng.randrange(6)
        if kind == 0 and edited:
            edited[at % len(edited)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 1:
            del edited[at : at + rng.randint(1, 30)]
        elif kind == 2:
            edited[at:at] = edited[at : at + rng.randint(1, 60)] * rng.choice((1, 1, 2, 50))
        elif kind == 3:
            edited[at:at] = rng.randbytes(rng.randint(1, 10))
        elif kind == 4:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            edited[at:at] = other[start : start + rng.randint(1, 60)]
        else:
            del edited[at:]
    return bytes(edited)


def read_seeds(folders: tuple[Path, ...], suffix: str) -> list[bytes]:
    """All small files of this suffix in these folders and their archives, and generated ones, without duplicates."""
    seeds: dict[bytes, None] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix == ".zip" and path.parent.name == "corpus":
                seeds.update(dict.fromkeys(data for name, data in read_archive(path) if name.endswith(suffix)))
            elif path.suffix == suffix and path.stat().st_size < MAX_FILE_BYTES:
                seeds[path.read_bytes()] = None
    seeds.update(dict.fromkeys(fuzz_seeds.make_seeds(suffix)))
    return list(seeds)


def read_archive(path: Path) -> list[tuple[str, bytes]]:
    """Names and bytes of the files of a saved corpus."""
    with zipfile.ZipFile(path) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def write_archive(path: Path, files: list[bytes], suffix: str) -> None:
    """Save a corpus as an archive of files named by their hash."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted((f"{hashlib.sha256(data).hexdigest()[:12]}{suffix}", data) for data in files):
            archive.writestr(zipfile.ZipInfo(name, ENTRY_TIME), data, zipfile.ZIP_DEFLATED)


class Attempt:
    """The child's side: tries files, and records the last file and the number of files for the parent."""

    def __init__(self, work: Path, suffix: str) -> None:
        self.path, self.report = work / f"tried{suffix}", work / "report.json"
        self.read = load_readers()[suffix]
        self.tried = 0

    def check(self, data: bytes) -> None:
        """Try these bytes; a finding ends the process."""
        self.tried += 1
        self.path.write_bytes(data)
        try:
            try_file(self.path, self.read)
        except Finding as finding:
            self.write_report(str(finding))
            raise
        if not self.tried % 100:
            self.write_report("")

    def write_report(self, finding: str) -> None:
        """Write the number of files tried, and the finding."""
        self.report.write_text(json.dumps({"tried": self.tried, "finding": finding}))

    def warm_up(self, seeds: list[bytes]) -> None:
        """Fill the caches of the schema, which are not a cost of a file."""
        for data in seeds[:50]:
            self.path.write_bytes(data)
            try:
                self.read(self.path)
            except Exception:  # the fuzzer tries the seeds again and reports this
                continue


def fuzz_randomly(work: Path, suffix: str, seeds: list[bytes], seconds: float, seed: int) -> None:
    """Try random mutations until the time is up."""
    attempt = Attempt(work, suffix)
    attempt.warm_up(seeds)
    rng, end = random.Random(seed), time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutate(rng.choice(seeds), seeds, rng)
        if len(data) <= MAX_FILE_BYTES:
            attempt.check(data)
    attempt.write_report("")


def find_functions(*prefixes: str) -> list[Any]:
    """Functions and methods of the imported modules with these name prefixes."""
    found: dict[int, Any] = {}
    for name, module in sorted(sys.modules.items()):
        if not name.startswith(prefixes):
            continue
        holders = [module, *(item for item in vars(module).values() if isinstance(item, type))]
        for holder in holders:
            for item in vars(holder).values():
                function = inspect.unwrap(getattr(item, "__func__", getattr(item, "fget", None) or item))
                if inspect.isfunction(function) and function.__module__ == name:
                    found[id(function)] = function
    return list(found.values())


def fuzz_by_coverage(work: Path, suffix: str, seeds: list[bytes], options: list[str]) -> None:
    """Try mutations chosen by atheris; like libFuzzer, this ends the process."""
    atheris = importlib.import_module("atheris")
    attempt = Attempt(work, suffix)
    attempt.warm_up(seeds)
    for function in find_functions("atrous.converter.", "atrous.proto."):
        atheris.instrument_func(function)
    atheris.Setup([sys.argv[0], f"-artifact_prefix={work}/", f"-max_len={MAX_FILE_BYTES}", *options], attempt.check)
    atheris.Fuzz()


def select_reaching(work: Path, suffix: str, files: list[bytes]) -> list[bytes]:
    """The files, in order, that execute a transition between lines that no file before them executed."""
    attempt = Attempt(work, suffix)
    taken: set[tuple[str, int, int]] = set()
    here: set[tuple[str, int, int]] = set()

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if "/converter/" not in name and "/proto/" not in name:
            return None
        last = 0

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            here.add((name, last, frame.f_lineno))
            last = frame.f_lineno
            return step

        return step

    kept: list[bytes] = []
    attempt.warm_up(files)
    for data in files:
        here.clear()
        sys.settrace(enter)
        try:
            attempt.check(data)
        finally:
            sys.settrace(None)
        if not here <= taken:
            taken |= here
            kept.append(data)
    return kept


def run_in_process(target: Callable[..., None], *arguments: Any) -> int:
    """Run a function in a child process and return its exit code; negative if a signal ended it."""
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    process.join()
    return process.exitcode or 0


@click.command()
@click.argument("corpus", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("more", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--suffix", type=click.Choice(SUFFIXES), default=".caffemodel", show_default=True, help="Reader to fuzz.")
@click.option("--seconds", type=float, default=60.0, show_default=True, help="Duration of the run in seconds.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed of the mutations.")
@click.option("--coverage", is_flag=True, help="Choose the mutations by coverage, with atheris.")
@click.option("--keep", is_flag=True, help="With --coverage, save the files that reach new code.")
def main(
    corpus: Path, more: tuple[Path, ...], suffix: str, seconds: float, seed: int, coverage: bool, keep: bool
) -> None:
    """Fuzz a reader with the files of CORPUS (tests/hostile) and MORE folders; findings are saved in CORPUS/files."""
    seeds = read_seeds((corpus, *more), suffix)
    if not seeds:
        raise click.UsageError(f"{corpus}: no {suffix} file below {MAX_FILE_BYTES >> 10} KiB; add a folder with seeds")
    with tempfile.TemporaryDirectory() as folder:
        work, reached = Path(folder), Path(folder, "reached")
        start = time.monotonic()
        if coverage:
            reached.mkdir()
            for number, data in enumerate(seeds):
                (reached / str(number)).write_bytes(data)
            options = [str(reached), f"-max_total_time={int(seconds)}", f"-seed={seed + 1}", "-print_final_stats=1"]
            code = run_in_process(fuzz_by_coverage, work, suffix, seeds, options)
        else:
            code = run_in_process(fuzz_randomly, work, suffix, seeds, seconds, seed)
        elapsed = time.monotonic() - start
        report = json.loads((work / "report.json").read_text()) if (work / "report.json").exists() else {}
        if code != 0:
            tried = work / f"tried{suffix}"
            data = tried.read_bytes() if tried.exists() else b""
            saved = corpus / "files" / f"found-{hashlib.sha256(data).hexdigest()[:12]}{suffix}"
            saved.write_bytes(data)
            raise click.ClickException(f"{report.get('finding') or f'exit code {code}'}: saved as {saved}")
        click.echo(f"{report.get('tried', 0)} files tried in {elapsed:.0f} s, no findings")
        if coverage and keep:
            files = sorted({path.read_bytes() for path in reached.iterdir()}, key=lambda data: (len(data), data))
            kept = select_reaching(work, suffix, files)
            archive = corpus / "corpus" / f"{suffix[1:]}.zip"
            archive.parent.mkdir(exist_ok=True)
            write_archive(archive, kept, suffix)
            click.echo(f"kept {len(kept)} of {len(files)} files in {archive}")


if __name__ == "__main__":
    main()
