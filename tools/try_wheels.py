"""Install the wheels of a folder as a stranger would, and run them: `python -m tools.try_wheels dist`.

Each Python version that is found (`python3.10` to `python3.13` on the path or of pyenv; `--python` names others) gets
an empty environment with the wheel and what it requires. There `pip check`, `atrous demo`, `atrous doctor` and a type
check of a user's script must succeed, and the dense CRF must give every bit of the marginals that the installed
extension gives here. The table has the seconds of each step.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
from packaging.utils import parse_wheel_filename

from atrous.scripts import console

from . import crf_bits

VERSIONS = ("3.10", "3.11", "3.12", "3.13")
BUILT = ("3.10", "3.11", "3.12")
"""Versions with a wheel of their own; that of 3.12 serves the later ones."""
SCRIPT = """\
import numpy as np
from numpy.typing import NDArray

import atrous
from atrous import runtime
from atrous.bundle import CrfParameters
from atrous.runtime.crf import DenseCRF, dense_crf

image = np.zeros((4, 5, 3), np.uint8)
probabilities = np.full((2, 4, 5), 0.5, np.float32)
marginals: NDArray[np.float32] = dense_crf(image, probabilities, parameters=CrfParameters(), threads=1)
assert marginals.shape == (2, 4, 5)


def label(bundle: str, photo: str) -> str:
    with runtime.load(bundle, backend="onnxruntime") as segmenter:
        labels = segmenter(runtime.read_image(photo))
    return f"{atrous.__version__}: {labels.max()}"
"""
"""A user's script, which mypy and pyright must accept in strict mode."""
ROUNDS = 20
"""Number of random settings of the dense CRF."""
IMPORTS = ("atrous", "atrous.runtime", "atrous.runtime.crf")


@click.command()
@click.argument(
    "folder", type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True), required=False
)
@click.option("--python", "pythons", multiple=True, help="An interpreter to try instead of those found.")
@click.option("--list", "list_only", is_flag=True, help="Print the interpreters that wheels are built with, and exit.")
@click.option("--types", is_flag=True, help="Check the types of a user's script by mypy and pyright, once.")
def command(folder: Path | None, pythons: Sequence[str], list_only: bool, types: bool) -> None:
    """Try the wheels in FOLDER."""
    found = list(pythons) or find_pythons(VERSIONS)
    if list_only:
        click.echo("\n".join(find_pythons(BUILT)))
        return
    if folder is None:
        raise click.UsageError("name the folder with the wheels")
    if not found:
        raise click.UsageError("no Python 3.10 to 3.13 found; name one by --python")
    core = crf_bits.load_core(None)
    sums = crf_bits.sum_all(core, crf_bits.choose_problems(None, ROUNDS), core.kernel_names())
    rows: list[tuple[object, ...]] = []
    for python in found:
        with tempfile.TemporaryDirectory() as place:
            rows.append(try_python(python, folder, Path(place), sums, types=types))
        types = False
    columns = ("Python", "wheel", "MB", "environment s", "install s", "demo s", "demo again s", "mIoU %", *IMPORTS)
    console.print_table(columns, rows, title="seconds of each step; last columns: milliseconds of an import")


def find_pythons(versions: Sequence[str]) -> list[str]:
    """One interpreter of each version that is on the path or of pyenv."""
    roots = [Path(entry) for entry in os.environ["PATH"].split(os.pathsep) if "shims" not in entry]
    roots += sorted((Path.home() / ".pyenv" / "versions").glob("*/bin"))
    places = [[root / f"python{version}" for root in roots] for version in versions]
    return [str(next(filter(Path.exists, each))) for each in places if any(map(Path.exists, each))]


def try_python(python: str, folder: Path, place: Path, sums: dict[str, int], *, types: bool) -> tuple[object, ...]:
    """A row of the table for an interpreter; raises `click.ClickException` with the output of a step that failed."""
    seconds: list[float] = []
    environment = place / "environment"
    inside = str(environment / "bin" / "python")

    def run(*words: str) -> str:
        start = time.perf_counter()
        done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False, env=_environment())
        seconds.append(time.perf_counter() - start)
        if done.returncode:
            raise click.ClickException(f"{' '.join(words)}:\n{done.stdout}{done.stderr}")
        return done.stdout

    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    run(uv, "venv", "--quiet", "--seed", "--python", python, str(environment))
    options = ["--python", inside, "--find-links", str(folder), "--prerelease", "if-necessary-or-explicit"]
    run(uv, "pip", "install", "--quiet", *options, f"atrous=={_read_version(folder)}")
    run(inside, "-m", "atrous", "demo", "-o", "out")
    report = json.loads(run(inside, "-m", "atrous", "demo", "-o", "out", "--json"))
    steps = list(seconds)
    if report["miou_crf"] < 0.9:
        raise click.ClickException(f"the demo's mean IoU is {report['miou_crf']:.3f}")
    run(inside, "-m", "pip", "check")
    run(inside, "-m", "atrous", "doctor")
    differing = find_differing(sums, json.loads(run(inside, crf_bits.__file__, "--rounds", str(len(sums)))))
    if differing:
        raise click.ClickException(f"{python}: other marginals of the dense CRF in {', '.join(differing)}")
    (place / "script.py").write_text(SCRIPT, encoding="utf-8")
    run(inside, "script.py")
    if types:
        run(sys.executable, "-m", "mypy", "--strict", "--python-executable", inside, "script.py")
        run(sys.executable, "-m", "pyright", "--pythonpath", inside, "script.py")
    size = json.loads(run(inside, "-c", _FIND_SIZE))
    times = [_time_import(inside, name) for name in IMPORTS]
    version = run(inside, "-c", "import platform; print(platform.python_version())").strip()
    measured = *(round(step, 1) for step in steps), round(report["miou_crf"] * 100, 1), *times
    return version, size["tag"], round(size["bytes"] / 1e6, 1), *measured


def find_differing(sums: dict[str, int], found: dict[str, int]) -> list[str]:
    """Names of the problems whose sum is missing from `found`, or another there."""
    return [name for name in sums if found.get(name) != sums[name]]


def _read_version(folder: Path) -> str:
    versions = {parse_wheel_filename(wheel.name)[1] for wheel in folder.glob("atrous-*.whl")}
    if len(versions) != 1:
        raise click.ClickException(f"{folder} must hold wheels of one version; it holds {sorted(map(str, versions))}")
    return str(versions.pop())


_FIND_SIZE = """
import importlib.metadata as m, json
d = m.distribution("atrous")
tags = [l[5:] for l in d.read_text("WHEEL").splitlines() if l.startswith("Tag: ")]
print(json.dumps({"tag": tags[0], "bytes": sum(f.locate().stat().st_size for f in d.files if f.locate().exists())}))
"""


def _time_import(python: str, name: str) -> int:
    """Milliseconds of the fastest of five imports in new processes."""
    code = f"import time; s = time.perf_counter(); import {name}; print(time.perf_counter() - s)"
    times = [float(subprocess.check_output([python, "-I", "-c", code], env=_environment())) for _ in range(5)]
    return round(min(times) * 1e3)


def _environment() -> dict[str, str]:
    """This one's variables without those that change which packages are found, or make each import compile them."""
    left_out = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if name not in left_out}


if __name__ == "__main__":
    command()
