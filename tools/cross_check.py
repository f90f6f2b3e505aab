"""Builds the dense CRF for other platforms and compares its bits: `python -m tools.cross_check [PLATFORM ...]`.

CMake, configured for the platform's processor but not built, names the engine's files and their options. A cross
compiler (Debian's g++-aarch64-linux-gnu, the Clang of the package ziglang) compiles them, without the Python module,
and, where an emulator is installed, links and runs two programs of tests/runtime/crf/native: team.cpp tests the
threads; bits.cpp solves random settings and must give every bit of the marginals that the installed extension gives
here.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .crf_bits import choose_problems, load_core, write_problems

REPO = Path(__file__).resolve().parent.parent
SOURCES = REPO / "runtime" / "crf" / "src"
PROGRAMS = [REPO / "tests" / "runtime" / "crf" / "native" / name for name in ("bits.cpp", "team.cpp")]
BUILD = REPO / "build" / "cross"
PROBLEMS = "problems.bin"  # in BUILD
PYTHON_MODULE = "module.cpp"


@dataclass(frozen=True)
class Platform:
    """The compiler's command, CMake's name of the processor, and the emulator that runs the programs here, if any."""

    compiler: tuple[str, ...]
    processor: str
    emulator: str | None


ZIG = (sys.executable, "-m", "ziglang", "c++", "-Wno-unknown-warning-option", "-target")
PLATFORMS = {
    "linux-aarch64": Platform(("aarch64-linux-gnu-g++", "-static"), "aarch64", "qemu-aarch64"),
    "windows-x86-64": Platform((*ZIG, "x86_64-windows-gnu"), "x86_64", "wine"),
    "macos-arm64": Platform((*ZIG, "aarch64-macos"), "aarch64", None),
}


@cache  # two platforms have one processor
def read_options(processor: str) -> list[tuple[Path, list[str]]]:
    """The engine's files and their options for a processor, as CMake would compile them; some files occur often."""
    folder = BUILD / f"cmake-{processor}"
    nanobind = subprocess.run(
        [sys.executable, "-m", "nanobind", "--cmake_dir"], check=True, capture_output=True, text=True
    )
    command = ["cmake", "-S", REPO, "-B", folder, "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", "-DCMAKE_BUILD_TYPE=Release"]
    command += ["-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={processor}"]
    command += [f"-Dnanobind_DIR={nanobind.stdout.strip()}", f"-DPython_EXECUTABLE={sys.executable}"]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    files = []
    for entry in json.loads((folder / "compile_commands.json").read_text()):
        file = Path(entry["file"])
        if file.parent == SOURCES and file.name != PYTHON_MODULE:
            words = shlex.split(entry["command"])[1:]  # [compiler, options, -o OBJECT -c FILE]
            files.append((file, words[: words.index("-o")]))
    assert files, "CMake names no file of the engine"
    return files


def compile_engine(name: str, platform: Platform) -> list[Path]:
    """Compile the engine's files; raises CalledProcessError after the compiler's message. Returns the objects."""
    folder = BUILD / name
    folder.mkdir(parents=True, exist_ok=True)

    def compile_file(job: tuple[int, tuple[Path, list[str]]]) -> Path:
        number, (file, options) = job
        kept = [option for option in options if option != "-fPIC" or "windows" not in name]  # an error there
        result = folder / f"{file.stem}-{number}.o"
        call([*platform.compiler, *kept, "-c", file, "-o", result])
        return result

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_file, enumerate(read_options(platform.processor))))


def link_programs(name: str, platform: Platform, objects: list[Path]) -> list[Path]:
    """Link the programs. Zig builds its C++ library for the platform first, which takes a minute or two."""
    programs = []
    for source in PROGRAMS:
        programs.append(BUILD / name / f"{source.stem}.exe")
        options = ["-std=c++17", "-O1", "-pthread", f"-I{SOURCES}"]
        call([*platform.compiler, *options, source, *objects, "-o", programs[-1]])
    return programs


def call(command: list[str | Path]) -> None:
    """Run a command in the build folder; raises CalledProcessError."""
    zig = {"ZIG_GLOBAL_CACHE_DIR": str(BUILD / "zig"), "ZIG_LOCAL_CACHE_DIR": str(BUILD / "zig")}
    wine = {"WINEPREFIX": str(BUILD / "wine"), "WINEDEBUG": "-all"}
    subprocess.run(command, check=True, cwd=BUILD, env={**os.environ, **zig, **wine})


def check(name: str, *, always_link: bool) -> str:
    """Do what can be done for a platform and return a sentence about it; raises CalledProcessError."""
    platform = PLATFORMS[name]
    objects = compile_engine(name, platform)
    emulator = platform.emulator if platform.emulator and shutil.which(platform.emulator) else None
    if emulator is None and not always_link:
        return f"compiled, not run: {platform.emulator or 'an emulator'} is not here"
    bits, team = link_programs(name, platform, objects)
    if emulator is None:
        return f"linked, not run: {platform.emulator or 'an emulator'} is not here"
    call([emulator, bits, PROBLEMS])
    call([emulator, team])
    return f"ran in {emulator}"


def main(arguments: list[str] | None = None) -> int:
    """Build for each platform and run what can run; the exit code is 1 after a failure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("platforms", nargs="*", default=list(PLATFORMS), metavar="PLATFORM", help=", ".join(PLATFORMS))
    parser.add_argument("--rounds", type=int, default=200, help="number of random settings (default: 200)")
    parser.add_argument("--shared", type=Path, help="folder whose crf/ holds recordings to run too")
    parser.add_argument("--link", action="store_true", help="link where nothing runs the programs, too")
    options = parser.parse_args(arguments)
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / PROBLEMS).open("wb") as file:
        write_problems(choose_problems(options.shared, options.rounds), load_core(None), file)
    failed = False
    for name in options.platforms:
        begin = time.perf_counter()
        try:
            outcome = check(name, always_link=options.link)
        except subprocess.CalledProcessError as error:
            outcome, failed = f"FAILED: {shlex.join(map(str, error.cmd))}", True
        print(f"{name}: {outcome} ({time.perf_counter() - begin:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
