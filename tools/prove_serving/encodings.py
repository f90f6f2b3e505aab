"""Bytes and milliseconds of each form of an answer, on labels of the miniature's scenes at two sizes."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

SIZES = ((513, 513), (1024, 2048))
_REPEATS = 9


def draw_labels(size: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The true labels of a scene at a size: 7 classes with sharp borders."""
    from atrous.scripts.miniature.settings import MiniatureFiles, read_settings

    files = MiniatureFiles()
    with Image.open(files.scene(read_settings(files.settings).scenes[0])[1]) as truth:
        return np.array(truth.resize((size[1], size[0]), Image.Resampling.NEAREST), np.uint8)


def measure_encodings() -> list[dict[str, Any]]:
    """One row per size and form."""
    from atrous.runtime.pictures import encode_jpeg, encode_label_png, make_overlay
    from atrous.runtime.serve.protocol import OutputTensor, encode_answer

    rows = []
    for size in SIZES:
        labels = draw_labels(size)
        image = np.repeat((labels * 30)[:, :, None], 3, axis=2)
        shape = (1, *labels.shape)
        probabilities = np.full((7, *size), 1 / 7, np.float32)

        def encode(output: OutputTensor) -> bytes:
            return encode_answer("m", "1", "", [output])[0]

        def list_runs(labels: Any = labels) -> bytes:
            from atrous.runtime.serve.jobs import find_runs

            values, lengths = find_runs(labels)
            return json.dumps([values.tolist(), lengths.tolist()], separators=(",", ":")).encode()

        def draw_overlay(image: Any = image, labels: Any = labels) -> bytes:
            return encode_jpeg(make_overlay(image, labels, ()))

        binary = OutputTensor("labels", "UINT8", shape, labels, True)
        as_list = OutputTensor("labels", "UINT8", shape, labels, False)
        floats = OutputTensor("probabilities", "FP32", (1, *probabilities.shape), probabilities, True)
        forms: dict[str, Callable[[], bytes]] = {
            "JSON list": partial(encode, as_list),
            "binary tensor": partial(encode, binary),
            "binary tensor, gzip level 1": partial(lambda tensor: gzip.compress(encode(tensor), 1, mtime=0), binary),
            "palette PNG, level 1": partial(encode_label_png, labels, (), level=1),
            "palette PNG, level 6": partial(encode_label_png, labels, ()),
            "JSON of run lengths": list_runs,
            "overlay as JPEG": draw_overlay,
            "probabilities, 7 classes, binary": partial(encode, floats),
        }
        for name, make in forms.items():
            times_ms = []
            for _ in range(_REPEATS):
                start_s = time.perf_counter()
                content = make()
                times_ms.append((time.perf_counter() - start_s) * 1000)
            rows.append({"size": size, "form": name, "bytes": len(content), "ms": round(median(times_ms), 2)})
    return rows
