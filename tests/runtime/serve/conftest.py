"""A server of the miniature, in a process of its own, as a user starts it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tools.triton_check.server import find_wheel, run_server

from ...processes import child_env

MODEL = "deeplab-miniature"


@dataclass(frozen=True)
class Served:
    """A running server of the miniature: its addresses, the name of its model, and which server it is."""

    http: str  # http://host:port
    grpc: str  # host:port
    model: str
    kind: str  # "atrous" or "triton"
    process: subprocess.Popen[str] | None = None
    stderr: Path | None = None


@contextlib.contextmanager
def start_server(*arguments: object, **environment: str) -> Iterator[Served]:
    """`atrous serve` with these arguments on free ports; ends by SIGTERM, and fails if that takes too long."""
    line = [sys.executable, "-m", "atrous.scripts.main", "serve", *map(str, arguments), "--port", "0", "--json"]
    if "--grpc-port" not in arguments:
        line += ["--grpc-port", "0"]
    settings = child_env(**environment)
    with tempfile.NamedTemporaryFile("w+") as log:
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, text=True, env=settings)
        assert process.stdout is not None
        try:
            text = ""
            while not text.rstrip().endswith("}"):
                read = process.stdout.readline()
                if not read:
                    process.wait(10)
                    raise AssertionError(f"the server ended: {text}{Path(log.name).read_text()}")
                text += read
            found = json.loads(text)
            yield Served(found["http"], found["grpc"], found["models"][0], "atrous", process, Path(log.name))
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            finally:
                process.stdout.close()


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the miniature's bundle."""
    from atrous.scripts.demo import convert_miniature
    from atrous.scripts.miniature.settings import MiniatureFiles, read_settings

    files = MiniatureFiles()
    folder = tmp_path_factory.mktemp("serve") / MODEL
    convert_miniature(files, read_settings(files.settings), folder)
    return folder


@pytest.fixture(scope="session")
def scenes() -> list[tuple[str, bytes, np.ndarray]]:
    """Name, PNG bytes and H x W x 3 uint8 RGB pixels of the shipped scenes."""
    from atrous.scripts.miniature.settings import MiniatureFiles, read_settings

    files = MiniatureFiles()
    found = []
    for seed in read_settings(files.settings).scenes:
        picture, _ = files.scene(seed)
        with Image.open(picture) as image:
            found.append((picture.name, picture.read_bytes(), np.array(image.convert("RGB"))))
    return found


@pytest.fixture(scope="session")
def direct(miniature: Path) -> Iterator[Any]:
    """The miniature, loaded in this process."""
    from atrous import runtime

    with runtime.load(miniature, threads=1) as segmenter:
        yield segmenter


@pytest.fixture(scope="session")
def atrous_server(miniature: Path) -> Iterator[Served]:
    """`atrous serve` of the miniature."""
    with start_server(miniature, "--threads", 2) as served:
        yield served


@pytest.fixture(scope="session")
def triton_server(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real Triton with the exported miniature (`make triton-check`)."""
    from atrous.runtime.export import TritonOptions, export_triton

    folder = tmp_path_factory.mktemp("triton")
    export_triton(miniature, folder / "repository", TritonOptions(name=MODEL, instances=1))
    with run_server(folder / "repository", folder) as server:
        yield Served(f"http://{server.http}", server.grpc, MODEL, "triton")


@pytest.fixture(scope="session", params=["atrous", *(["triton"] if find_wheel() is not None else [])])
def served(request: pytest.FixtureRequest) -> Served:
    """Each server that speaks the protocol; the same tests run against all."""
    server: Served = request.getfixturevalue(f"{request.param}_server")
    return server
