"""A FIFO in the place of a file: opening it would wait for a writer forever."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atrous.bundle.folder import read_bundle
from atrous.errors import AtrousError
from atrous.runtime.evaluation.datasets.dataset import read_lines
from atrous.runtime.evaluation.datasets.label_files import read_label_image
from atrous.runtime.images import read_image
from atrous.runtime.planes import read_array, read_plane

READERS: dict[str, Callable[[Path], Any]] = {
    "manifest.json": lambda path: read_bundle(path.parent),
    "image.jpg": read_image,
    "labels.png": read_label_image,
    "plane.png": read_plane,
    "plane.npy": read_array,
    "list.txt": lambda path: read_lines(path, "lists images"),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no FIFOs")
@pytest.mark.parametrize("name", READERS)
def test_a_fifo_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    raised: list[AtrousError] = []

    def read() -> None:
        try:
            READERS[name](tmp_path / name)
        except AtrousError as error:
            raised.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert "not a regular file" in str(raised[0])
