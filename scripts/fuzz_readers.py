"""Fuzzing of the file readers: `python -m atrous.scripts.fuzz_readers`.

Feeds mutated files to the readers of prototxts, caffemodels and mean images. Anything but success or a ConverterError
is a find: the bytes are saved under `found-<digest>.<suffix>` and the run ends with status 1. With atheris installed
(`pip install atheris`) the mutations follow coverage; without it they are random.
"""

from __future__ import annotations

import hashlib
import importlib
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

MAX_SECONDS_PER_FILE = 5.0


class Find(Exception):  # noqa: N818 - not an error of the program: what it looks for
    """Bytes that a reader neither read nor refused."""


def load_readers() -> dict[str, Callable[[Path], Any]]:
    """File suffix -> what reads such a file, to the last number."""
    from ..converter.caffemodel import read_caffemodel, read_mean
    from ..converter.prototxt import read_prototxt

    def read_weights(path: Path) -> None:
        with read_caffemodel(path) as file:
            for layer in file:
                for blob in layer.blobs:
                    blob.array.tobytes()
            file.read_structure(file.dialect.name)

    return {".caffemodel": read_weights, ".prototxt": read_prototxt, ".binaryproto": read_mean}


def try_file(path: Path, read: Callable[[Path], Any]) -> None:
    """Reads one file.

    Raises:
        Find: it raised what it should not, or took too long.
    """
    from ..converter.errors import ConverterError

    start = time.process_time()
    try:
        read(path)
    except ConverterError:
        pass
    except Exception as error:
        raise Find(f"{type(error).__name__}: {error}") from error
    seconds = time.process_time() - start
    if seconds > MAX_SECONDS_PER_FILE:
        raise Find(f"{seconds:.1f} s for {path.stat().st_size} bytes")


def mutate(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """A few random edits, among them pieces of other files."""
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


def fuzz_randomly(seeds: list[bytes], check: Callable[[bytes], None], seconds: float, seed: int) -> int:
    """Random mutations until the time is over; returns how many files were tried."""
    rng, end, tried = random.Random(seed), time.monotonic() + seconds, 0
    pool = list(seeds)
    while time.monotonic() < end:
        data = mutate(rng.choice(pool), pool, rng)
        if len(data) > 1 << 16:
            continue
        check(data)
        tried += 1
    return tried


def fuzz_by_coverage(corpus: Path, check: Callable[[bytes], None], seconds: float) -> None:
    """Mutations chosen by atheris; ends the process, as libFuzzer does."""
    atheris = importlib.import_module("atheris")

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], str(corpus), f"-max_total_time={int(seconds)}", "-max_len=65536"], check)
    atheris.Fuzz()


@click.command()
@click.argument("corpus", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--suffix", type=click.Choice([".caffemodel", ".prototxt", ".binaryproto"]), default=".caffemodel")
@click.option("--seconds", type=float, default=60.0, show_default=True, help="How long.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random mutations.")
@click.option("--coverage", is_flag=True, help="Let atheris choose the mutations.")
def main(corpus: Path, suffix: str, seconds: float, seed: int, coverage: bool) -> None:
    """Fuzz a reader, starting from the files of CORPUS (such as tests/hostile/files)."""
    read = load_readers()[suffix]
    seeds = [path.read_bytes() for path in sorted(corpus.rglob(f"*{suffix}")) if path.stat().st_size < 1 << 16]
    if not seeds:
        raise click.UsageError(f"{corpus} holds no {suffix} of less than 64 KiB")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{suffix}"

        def check(data: bytes) -> None:
            path.write_bytes(data)
            try:
                try_file(path, read)
            except Find as find:
                saved = corpus / f"found-{hashlib.sha256(data).hexdigest()[:12]}{suffix}"
                saved.write_bytes(data)
                raise click.ClickException(f"{find}: saved as {saved}") from find

        if coverage:
            fuzz_by_coverage(corpus, check, seconds)
        else:
            tried = fuzz_randomly(seeds, check, seconds, seed)
            click.echo(f"{tried} files tried, none of them broke the reader")


if __name__ == "__main__":
    main()
